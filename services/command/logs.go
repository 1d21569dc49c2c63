package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"berth/appliance/cli"
	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/logs"
	"berth/services/segment"
)

// logsFlags are those of `berth logs`.
type logsFlags struct {
	follow, push                               bool
	since, until, level, grep, request, output string
	components, attrs                          []string
	n                                          int
}

// logsCommand is `berth logs`: it reads; what is below it serves and looks after
// collectors.
func (a *app) logsCommand() *cobra.Command {
	var f logsFlags
	c := &cobra.Command{
		Use: "logs", Short: "Read log messages; and the service that keeps and forwards them", Args: cobra.NoArgs, GroupID: "care",
		Long: "Prints log messages of all services, the oldest first: the newest 100, or all that\n" +
			"--since, --until or --request ask for. Where the log service does not run, the\n" +
			"files are read instead.\n\n" +
			"Times are 2h or 7d (that long ago), today, yesterday, 15:04, 2006-01-02,\n" +
			"\"2006-01-02 15:04\" or 2006-01-02T15:04:05Z.",
		Example: "  berth logs --level error --since 2h\n" +
			"  berth logs -f --component registry --component core\n" +
			"  berth logs --request 0198c0de-… --push        everything of the push that a request belongs to\n" +
			"  berth logs --grep library/app --since today\n" +
			"  berth logs --attr status=500 -n 20 -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			q, err := f.query(c.Flags().Changed("lines"), time.Now())
			if err != nil {
				return cli.Mistake(err)
			}
			s, err := a.settings(c)
			if err != nil {
				return err
			}
			r := &logReader{app: a, flags: f, q: q, client: logs.NewClient(s.Socket("logs")), dir: s.LogsDir()}
			err = r.run(c.Context())
			if c.Context().Err() != nil || errors.Is(err, syscall.EPIPE) {
				return nil // nobody reads any more
			}
			return err
		},
	}
	a.settingFlags(c)
	f.add(c)
	for _, name := range []string{"database", "storage", "log-level"} {
		must(c.Flags().MarkHidden(name)) // they are for others of these commands
	}
	must(c.RegisterFlagCompletionFunc("component", a.completeComponents))
	serve := a.serviceCommand("serve", logService())
	serve.GroupID = ""
	c.AddCommand(serve, a.collectorsCommand(), a.testCollectorCommand())
	return c
}

func (f *logsFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on with messages as they come, until Ctrl-C")
	fl.StringVar(&f.since, "since", "", "only messages from this `time` on")
	fl.StringVar(&f.until, "until", "", "only messages before this `time`")
	fl.StringVar(&f.level, "level", "", "only messages of this `level` or worse: "+strings.Join(setting.Levels(), ", "))
	fl.StringArrayVar(&f.components, "component", nil, "only messages of this `component`: registry, core, postgres …; may be repeated")
	fl.StringVar(&f.grep, "grep", "", "only messages with this `text` in them, or in an attribute; capitals or not")
	fl.StringVar(&f.request, "request", "", "only messages of the request with this `id`, or of this trace")
	fl.BoolVar(&f.push, "push", false, "with --request: of all requests that were made with the same token, as one push is")
	fl.StringArrayVar(&f.attrs, "attr", nil, "only messages with this attribute, `KEY=VALUE`; may be repeated")
	fl.IntVarP(&f.n, "lines", "n", 100, "at most so many messages, the newest; 0 = all")
	fl.StringVarP(&f.output, "output", "o", "text", "text, or json for one object on each line")
	must(c.RegisterFlagCompletionFunc("level", cobra.FixedCompletions(setting.Levels(), cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
}

// query makes the flags a query. With anything that says which messages, all of
// them are shown, unless --lines says how many.
func (f *logsFlags) query(lines bool, now time.Time) (q segment.Query, err error) {
	if f.output != "text" && f.output != "json" {
		return q, fault.New(fault.Invalid, "it must be text or json, not %q", f.output).On("--output")
	}
	if f.push && f.request == "" {
		return q, fault.New(fault.Invalid, "it needs the id of a request").On("--push").WithHint("say --request ID too")
	}
	if f.follow && f.until != "" {
		return q, fault.New(fault.Invalid, "what comes is never before it").On("--until").WithHint("leave out --follow or --until")
	}
	if f.n < 0 {
		return q, fault.New(fault.Invalid, "it must not be negative").On("--lines")
	}
	if !lines && (f.since != "" || f.until != "" || f.request != "") {
		f.n = 0
	} else if !lines && f.follow {
		f.n = 10
	}
	q = segment.Query{Components: f.components, Text: f.grep, ID: f.request}
	if f.level != "" {
		level, ok := syslog.ParseSeverity(f.level)
		if !ok {
			return q, fault.New(fault.Invalid, "it must be one of %s, not %q", strings.Join(setting.Levels(), ", "), f.level).On("--level")
		}
		q.Severity = &level
	}
	if q.Since, err = logs.ParseTime("--since", f.since, now); err != nil {
		return q, err
	}
	if q.Until, err = logs.ParseTime("--until", f.until, now); err != nil {
		return q, err
	}
	if q.Attrs, err = logs.ParseAttrs(f.attrs); err != nil {
		return q, fault.Of(err).On("--attr")
	}
	return q, nil
}

// noService reports whether nobody serves the log service's socket.
func noService(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// explainLogs says what to do about a log service that does not answer.
func explainLogs(err error) error {
	switch f := fault.Of(err); {
	case noService(err):
		return f.WithHint("start Berth, or say with --data or --config where it is")
	case errors.Is(err, fs.ErrPermission):
		return f.WithHint("ask as root, or as the user that Berth runs as")
	}
	return err
}

// onLogs runs f against the log service of the settings.
func (a *app) onLogs(c *cobra.Command, f func(ctx context.Context, client *logs.Client) error) error {
	s, err := a.settings(c)
	if err != nil {
		return err
	}
	return explainLogs(f(c.Context(), logs.NewClient(s.Socket("logs"))))
}

func (a *app) collectorsCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "collectors", Short: "Say how the collectors that get a copy of the messages do", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onLogs(c, func(ctx context.Context, client *logs.Client) error {
				list, raw, err := client.Collectors(ctx)
				if err != nil {
					return err
				}
				if output == "json" {
					return writeJSON(a.stdout, raw)
				}
				if len(list) == 0 {
					_, err := fmt.Fprintln(a.stdout, "no collectors are configured (logs.forward in the settings file)")
					return err
				}
				w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tSENT\tWAITING\tDROPPED\tSTATE")
				for _, s := range list {
					state := s.State
					if s.Hint != "" {
						state += " (" + s.Hint + ")"
					}
					fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\n", s.Name, s.Sent, s.Waiting, s.Dropped, printable(state))
				}
				return w.Flush()
			})
		},
	}
	a.settingFlags(c)
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) testCollectorCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "test NAME", Short: "Send a collector a test message and say what happened", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.onLogs(c, func(ctx context.Context, client *logs.Client) error {
				answer, err := client.Test(ctx, args[0])
				if err == nil {
					_, err = fmt.Fprintln(a.stdout, printable(answer))
				}
				return err
			})
		},
		ValidArgsFunction: func(c *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			_ = a.onLogs(c, func(ctx context.Context, client *logs.Client) error {
				list, _, err := client.Collectors(ctx)
				for _, s := range list {
					names = append(names, s.Name)
				}
				return err
			})
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	a.settingFlags(c)
	return c
}

// completeComponents offers those that have sent something, or those that Berth
// has.
func (a *app) completeComponents(c *cobra.Command, _ []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	_ = a.onLogs(c, func(ctx context.Context, client *logs.Client) (err error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		names, err = client.Components(ctx)
		return err
	})
	if len(names) == 0 {
		names = []string{"registry", "token", "core", "jobs", "logs", "postgres"}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// search asks the service, or the files if there is none.
func (r *logReader) search(ctx context.Context, q segment.Query) (page segment.Page, end uint64, err error) {
	if r.store == nil {
		page, end, err = r.client.Search(ctx, q)
		if err == nil || !noService(err) || r.flags.follow {
			return page, end, explainLogs(err)
		}
		fmt.Fprintf(r.app.stderr, "berth: the log service does not run: reading the files in %s\n", r.dir)
		if r.store, err = segment.OpenReadOnly(r.dir); err != nil {
			hint := "say with --data or --config where Berth is"
			if errors.Is(err, fs.ErrPermission) {
				hint = "read them as root, or as the user that Berth runs as"
			}
			return page, 0, fault.Wrap(fault.Unavailable, err, "cannot read log messages").WithHint("%s", hint)
		}
	}
	page, err = r.store.Search(ctx, q)
	return page, r.store.End(), err
}

// wholePush gives the ids by which everything of a push is found: the request's
// own, and that of the request which got the token that it was made with.
func (r *logReader) wholePush(ctx context.Context) ([]string, error) {
	ids := []string{r.q.ID}
	q := segment.Query{ID: r.q.ID, Limit: pageSize}
	for {
		page, _, err := r.search(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range page.Records {
			if id := page.Records[i].Get(syslog.TokenRequest); id != "" && !slices.Contains(ids, id) && len(ids) < maxPushIDs {
				ids = append(ids, id)
			}
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			return ids, nil
		}
		r.progress(page)
	}
}

// onePush prints everything of a push, in order of time.
func (r *logReader) onePush(ctx context.Context) error {
	ids, err := r.wholePush(ctx)
	if err != nil {
		return err
	}
	seen := map[uint64]bool{}
	var all []segment.Record
	for _, id := range ids {
		q := r.q
		q.ID, q.Limit = id, pageSize
		for {
			page, end, err := r.search(ctx, q)
			if err != nil {
				return err
			}
			for _, m := range page.Records {
				if !seen[m.Seq] {
					seen[m.Seq] = true
					all = append(all, m)
				}
			}
			if q.Cursor, r.end = page.Next, max(r.end, end); q.Cursor == "" || len(all) > maxPushMessages {
				break
			}
			r.progress(page)
		}
	}
	slices.SortFunc(all, func(a, b segment.Record) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq)) })
	if r.flags.n > 0 && len(all) > r.flags.n {
		all = all[len(all)-r.flags.n:]
	}
	r.ids = ids
	return r.print(all)
}

// marshalLine is one message for programs.
func marshalLine(b []byte, m *segment.Record) []byte {
	b = logs.AppendRecord(b, m)
	return append(json.RawMessage(b), '\n')
}
