package command

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"berth/appliance/fault"
	"berth/services/audit"
)

// chain is the audit trail's, whether it is written or not.
func (n *node) chain() *audit.Chain { return audit.NewChain(n.pool, n.key.For("audit chain")) }

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "The audit trail: verify its chain, export it", GroupID: "care"}
	c.AddCommand(a.auditVerify(), a.auditExport())
	return c
}

func (a *app) auditVerify() *cobra.Command {
	var head string
	var asJSON bool
	c := a.onNode(&cobra.Command{
		Use: "verify", Short: "Name every entry that was changed, removed or put in by hand", Args: cobra.NoArgs,
		Long: "Goes along the chain that the setting audit_chain makes. Exit code 1 if it does not hold.\n" +
			"Keep the head that it prints somewhere else, and give it the next time: the chain must\n" +
			"still go through it, so that its end cannot be cut off unseen.",
		Example: "  berth audit verify\n  berth audit verify --head 4711:9f86d081…",
	}, func(ctx context.Context, n *node, _ []string) error {
		v, err := n.chain().Verify(ctx, head, func(f string) { fmt.Fprintln(a.stderr, f) })
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSON(a.stdout, v)
		} else {
			_, err = fmt.Fprintf(a.stdout, "%d entries hold, %d were purged, %d faults\nhead %s\n", v.Entries, v.Purged, v.Faults, v.Head)
		}
		if err == nil && v.Faults > 0 {
			return fault.New(fault.Precondition, "the audit trail is not what Berth has written: %d faults", v.Faults)
		}
		return err
	})
	c.Flags().StringVar(&head, "head", "", "what an earlier verification printed as `head`")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// exported is a line of an export.
type exported struct {
	ID           int64     `json:"id"`
	EventID      uuid.UUID `json:"event_id"`
	Time         time.Time `json:"op_time"`
	Operation    string    `json:"operation"`
	ResourceType string    `json:"resource_type"`
	Resource     string    `json:"resource"`
	Username     string    `json:"username"`
	Success      bool      `json:"operation_result"`
	Description  string    `json:"operation_description"`
	ProjectID    int64     `json:"project_id,omitempty"`
	Source       string    `json:"source,omitempty"`
	RequestID    string    `json:"request_id,omitempty"`
}

var exportHead = []string{"id", "event_id", "op_time", "operation", "resource_type", "resource", "username", "operation_result", "operation_description", "project_id", "source", "request_id"}

func (e exported) row() []string {
	return []string{strconv.FormatInt(e.ID, 10), e.EventID.String(), e.Time.Format(time.RFC3339Nano), e.Operation, e.ResourceType, e.Resource, e.Username,
		strconv.FormatBool(e.Success), e.Description, strconv.FormatInt(e.ProjectID, 10), e.Source, e.RequestID}
}

func (a *app) auditExport() *cobra.Command {
	var since, until, format string
	c := a.onNode(&cobra.Command{
		Use: "export", Short: "Print the audit trail, oldest entry first", Args: cobra.NoArgs,
		Example: "  berth audit export --since 2026-01-01 --until 2026-02-01 > january.json\n  berth audit export --format csv",
	}, func(ctx context.Context, n *node, _ []string) error {
		from, err := moment("--since", since, time.Unix(0, 0))
		if err != nil {
			return err
		}
		to, err := moment("--until", until, time.Now().Add(time.Hour))
		if err != nil {
			return err
		}
		write, flush, err := exporter(a.stdout, format)
		if err != nil {
			return err
		}
		err = audit.Export(ctx, n.pool, from, to, func(e audit.Entry, id uuid.UUID) error {
			return write(exported{e.ID, id, e.Time.UTC(), e.Operation, e.ResourceType, e.Resource, e.Username, e.Success, e.Description, e.ProjectID, e.Source, e.RequestID})
		})
		if err != nil {
			return err
		}
		return flush()
	})
	c.Flags().StringVar(&since, "since", "", "from this `time` on: 2026-01-31 or RFC 3339 (default: everything)")
	c.Flags().StringVar(&until, "until", "", "before this `time`")
	c.Flags().StringVar(&format, "format", "json", "json (an object on each line) or csv")
	return c
}

func exporter(w io.Writer, format string) (write func(exported) error, flush func() error, err error) {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		return func(e exported) error { return enc.Encode(e) }, func() error { return nil }, nil
	case "csv":
		out := csv.NewWriter(w)
		err := out.Write(exportHead)
		return func(e exported) error { return out.Write(e.row()) }, func() error { out.Flush(); return out.Error() }, err
	}
	return nil, nil, fault.New(fault.Invalid, "it must be json or csv, not %q", format).On("--format")
}

// moment reads a flag's time; "" is otherwise.
func moment(flag, text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return otherwise, fault.New(fault.Invalid, "%q is not a time such as 2026-01-31 or 2026-01-31T15:04:05Z", text).On(flag)
}
