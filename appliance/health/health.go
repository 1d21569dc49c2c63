// Package health finds out what is wrong, and names the cause before what it
// causes.
//
// A Check says what something is for, how to find out whether it works, what it
// cannot work without, and what to do when it does not. Run asks all of them at
// once. When the database is away, five things fail; four of them say so because
// of the first, and an operator who reads five failures has to work out which.
// So a Report has root causes first, each with what fails because of it.
package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/appliance/fault"
)

// Check is one thing that can be well or not.
type Check struct {
	Name string
	// About says in a few words what it is for.
	About string
	// DependsOn are the names of the checks that it cannot work without. When one
	// of them is unhealthy so is this, whatever its own Probe says. Names that are
	// not among those that are run count as healthy.
	DependsOn []string
	// Probe asks whether it works. An error of Warning makes it degraded, any other
	// unhealthy. It should end with its context; it is not waited for after that.
	Probe func(ctx context.Context) error
	// Hint says what to do, for errors that say nothing of it.
	Hint string
}

// State is how something is.
type State string

// The states, the worst last.
const (
	Healthy   State = "healthy"
	Degraded  State = "degraded" // it works, and should be seen to
	Unhealthy State = "unhealthy"
)

var badness = map[State]int{Healthy: 0, Degraded: 1, Unhealthy: 2}

// Warning makes err one of something that works, and should be seen to.
func Warning(err error) error { return &warning{err} }

type warning struct{ error }

func (w *warning) Unwrap() error { return w.error }

// Result is what a check has found.
type Result struct {
	Name  string
	About string
	State State
	Err   error  // nil if it is healthy
	Hint  string // what to do
	// Causes are the checks that explain why it is unhealthy; none: it is a root
	// cause, or healthy, or degraded.
	Causes []string
	// Explains are the checks that are unhealthy because of it.
	Explains []string
	Took     time.Duration
}

// Root reports whether it is wrong by itself.
func (r *Result) Root() bool { return r.State != Healthy && len(r.Causes) == 0 }

// Text is what is wrong in words that anybody may read: no detail of the inside.
func (r *Result) Text() string {
	switch f, ok := errors.AsType[*fault.Error](r.Err); {
	case r.Err == nil:
		return ""
	case ok:
		return f.Text
	case errors.Is(r.Err, context.DeadlineExceeded):
		return "it does not answer in time"
	}
	return "it does not answer"
}

// Report is what all checks have found.
type Report struct {
	State   State
	Results []Result // root causes first, the worst first; then what they cause; then what is well
}

// Find gives the result of a check; nil if there is none.
func (r *Report) Find(name string) *Result {
	for i := range r.Results {
		if r.Results[i].Name == name {
			return &r.Results[i]
		}
	}
	return nil
}

const (
	// probeTime is how long a probe may take.
	probeTime = 2500 * time.Millisecond
	// lateTime is how much longer it is waited for: to say in its own words that it
	// took too long.
	lateTime = 500 * time.Millisecond
)

// Run makes all checks at once. It takes as long as the slowest, and at most
// three seconds.
func Run(ctx context.Context, checks []Check) Report {
	type answer struct {
		index int
		err   error
		took  time.Duration
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, probeTime+lateTime)
	defer cancel()
	bounded, cancelProbes := context.WithTimeout(ctx, probeTime)
	defer cancelProbes()
	answers := make(chan answer, len(checks)) // room for all: late ones are nobody's
	for i, c := range checks {
		go func() { answers <- answer{i, probe(bounded, c), time.Since(began)} }()
	}
	results := make([]Result, len(checks))
	for i, c := range checks {
		results[i] = Result{Name: c.Name, About: c.About, Err: Unanswered(context.DeadlineExceeded), Hint: c.Hint, Took: probeTime + lateTime}
	}
	for range checks {
		select {
		case a := <-answers:
			results[a.index].Err, results[a.index].Took = a.err, a.took
			continue
		case <-ctx.Done():
		}
		select { // one that came in the same moment counts
		case a := <-answers:
			results[a.index].Err, results[a.index].Took = a.err, a.took
		default:
		}
	}
	return conclude(checks, results)
}

func probe(ctx context.Context, c Check) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its probe panicked: %v", p)
		}
	}()
	if c.Probe == nil {
		return nil
	}
	err = c.Probe(ctx)
	if _, said := errors.AsType[*fault.Error](err); !said && errors.Is(err, context.DeadlineExceeded) {
		err = Unanswered(err)
	}
	return err
}

// conclude finds out what is the cause of what.
func conclude(checks []Check, results []Result) Report {
	index := map[string]int{}
	for i := range results {
		r := &results[i]
		index[r.Name] = i
		r.State = Healthy
		if r.Err != nil {
			r.State = Unhealthy
			if errors.As(r.Err, new(*warning)) {
				r.State = Degraded
			}
			if f, ok := errors.AsType[*fault.Error](r.Err); ok && f.Hint != "" {
				r.Hint = f.Hint
			}
		} else {
			r.Hint = ""
		}
	}
	broken := make([]bool, len(results)) // by itself
	for i := range results {
		broken[i] = results[i].State == Unhealthy
	}
	for i := range results {
		blame(checks, results, index, broken, i)
	}
	report := Report{State: Healthy}
	for i := range results {
		if badness[results[i].State] > badness[report.State] {
			report.State = results[i].State
		}
	}
	slices.SortStableFunc(results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(rank(&a), rank(&b)), cmp.Compare(len(b.Explains), len(a.Explains)))
	})
	report.Results = results
	return report
}

// rank orders a report: what to see to first comes first.
func rank(r *Result) int {
	switch {
	case r.State == Unhealthy && r.Root():
		return 0
	case r.State == Degraded:
		return 1
	case r.State == Unhealthy:
		return 2
	}
	return 3
}

// blame makes a check unhealthy if something that it depends on is, by whatever
// way, and names the ends of those ways.
func blame(checks []Check, results []Result, index map[string]int, broken []bool, i int) {
	seen := map[int]bool{i: true}
	var walk func(at int) []int
	walk = func(at int) (roots []int) {
		for _, name := range checks[at].DependsOn {
			j, known := index[name]
			if !known || seen[j] {
				continue
			}
			seen[j] = true
			below := walk(j)
			if len(below) == 0 && broken[j] {
				below = []int{j}
			}
			roots = append(roots, below...)
		}
		return roots
	}
	r := &results[i]
	for _, j := range walk(i) {
		r.Causes = append(r.Causes, results[j].Name)
		results[j].Explains = append(results[j].Explains, r.Name)
	}
	if len(r.Causes) > 0 {
		if r.State != Unhealthy {
			r.Err = fault.New(fault.Unavailable, "it cannot work without: %s", strings.Join(r.Causes, ", "))
		}
		r.State, r.Hint = Unhealthy, ""
	}
}
