package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"berth/appliance/durable"
)

// A report is all that a run found out.
type report struct {
	Machine machine
	Args    []string
	Rounds  int
	Quick   bool
	Took    time.Duration
	Rows    []row
}

// A row is one scenario's results by server.
type row struct {
	Name, Title  string
	Unit         unit
	Workers, Ops int
	Target       float64
	Results      map[string]*result
}

// A result is what one server did in each round.
type result struct{ Rounds []figure }

// A figure is one round's.
type figure struct {
	CPU, Took time.Duration
	Deferred  time.Duration // of CPU: what was spent after the last answer
	Ops       int
	Bytes     int64
	Peak      int64 // of the server's own process
	Database  int64 // PostgreSQL's processes, at the end
}

// cost is the main figure, in the scenario's unit.
func (f figure) cost(u unit) float64 {
	switch u {
	case perGiB:
		return f.CPU.Seconds() / (float64(f.Bytes) / (1 << 30))
	case memory:
		return float64(f.Peak) / (1 << 20)
	case clock:
		return f.Took.Seconds() * 1000 / float64(f.Ops)
	}
	return f.CPU.Seconds() * 1000 / float64(f.Ops)
}

// rate is MiB/s of large transfers, else operations a second.
func (f figure) rate(u unit) float64 {
	if u == perOp || u == clock {
		return float64(f.Ops) / f.Took.Seconds()
	}
	return float64(f.Bytes) / (1 << 20) / f.Took.Seconds()
}

// median of the rounds; false if the server was not measured.
func (r *result) median(of func(figure) float64) (float64, bool) {
	if r == nil || len(r.Rounds) == 0 {
		return 0, false
	}
	list := r.sorted(of)
	n := len(list)
	return (list[(n-1)/2] + list[n/2]) / 2, true
}

func (r *result) sorted(of func(figure) float64) []float64 {
	var list []float64
	for _, f := range r.Rounds {
		list = append(list, of(f))
	}
	slices.Sort(list)
	return list
}

// cells are a row of the table.
func (r row) cells() []string {
	cost := func(f figure) float64 { return f.cost(r.Unit) }
	rate := func(f figure) float64 { return f.rate(r.Unit) }
	ours, _ := r.Results["Berth"].median(cost)
	theirs, compared := r.Results["CNCF"].median(cost)
	ratio, target, met := "", "", ""
	if compared && ours > 0 {
		ratio = short(theirs/ours) + "×"
	}
	if r.Target > 0 {
		target, met = "≤ "+short(r.Target), "met"
		if ours > r.Target {
			met = "**missed**"
		}
	}
	spread := ""
	if list := r.Results["Berth"].sorted(cost); len(list) > 1 {
		spread = short(list[0]) + "–" + short(list[len(list)-1])
	}
	out := []string{r.Title, fmt.Sprint(r.Workers), string(r.Unit), r.show("Berth", cost), spread, target, met, r.show("CNCF", cost), ratio, r.show("bare", cost)}
	if r.Unit == memory {
		return append(out, "", "")
	}
	suffix := "/s"
	if r.Unit == perGiB {
		suffix = " MiB/s"
	}
	for _, name := range both {
		s := r.show(name, rate)
		if s != "" {
			s += suffix
		}
		out = append(out, s)
	}
	return out
}

func (r row) show(server string, of func(figure) float64) string {
	v, ok := r.Results[server].median(of)
	if !ok {
		return ""
	}
	return short(v)
}

// short is a number with as many digits as mean something.
func short(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.1fk", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

var heads = []string{"operation", "clients", "unit", "Berth", "min–max", "target", "", "CNCF", "CNCF/Berth", "bare", "Berth does", "CNCF does"}

// write gives the report out in every form that was asked for.
func (r *report) write(stdout io.Writer, o options) error {
	if err := r.text(stdout); err != nil {
		return err
	}
	if o.json != "" {
		data, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			return err
		}
		if err := durable.WriteFile(o.json, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.markdown == "" {
		return nil
	}
	old, err := os.ReadFile(o.markdown)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return durable.WriteFile(o.markdown, []byte(preface(string(old))+r.markdown()), 0o644)
}

// text is the table for a terminal.
func (r *report) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.ReplaceAll(strings.Join(row.cells(), "\t"), "*", ""))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(r.facts(), "\n"))
	return err
}

// facts say where and how the figures were got.
func (r *report) facts() []string {
	m := r.Machine
	rounds := fmt.Sprintf("%d rounds", r.Rounds)
	if r.Quick {
		rounds += ", few operations (-quick): rough figures"
	}
	list := []string{
		"date: " + m.Date,
		"command: make bench BENCH='" + strings.Join(r.Args, " ") + "'",
		fmt.Sprintf("run: %s, %s", rounds, r.Took),
		fmt.Sprintf("machine: %s, %d cores, %d GiB, %s, %s", m.CPU, m.Cores, m.Memory, m.Kernel, m.FileSystem),
		fmt.Sprintf("load average: %s before, %s after", m.LoadBefore, m.LoadAfter),
		fmt.Sprintf("versions: %s; %s; PostgreSQL %s; %s", m.Berth, m.CNCF, m.PostgreSQL, m.Go),
	}
	for _, row := range r.Rows {
		if row.Unit != memory {
			continue
		}
		database, _ := row.Results["Berth"].median(func(f figure) float64 { return float64(f.Database) / (1 << 20) })
		list = append(list, fmt.Sprintf("memory: Berth's PostgreSQL held %s MiB (PSS) besides, at the end of the last scenario", short(database)))
	}
	return list
}
