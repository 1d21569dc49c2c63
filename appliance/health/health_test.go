package health_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"berth/appliance/fault"
	"berth/appliance/health"
)

func well(context.Context) error { return nil }
func broken(text string) func(context.Context) error {
	return func(context.Context) error { return errors.New(text) }
}

// stack is how Berth's own checks depend on one another.
func stack(probes map[string]func(context.Context) error) []health.Check {
	list := []health.Check{
		{Name: "registry", DependsOn: []string{"database", "storage"}},
		{Name: "token", DependsOn: []string{"database"}},
		{Name: "queue", DependsOn: []string{"jobs"}},
		{Name: "jobs", DependsOn: []string{"database"}},
		{Name: "database", Hint: "start it", DependsOn: []string{"disk", "nobody"}},
		{Name: "storage"}, {Name: "disk"},
	}
	for i := range list {
		if p := probes[list[i].Name]; p != nil {
			list[i].Probe = p
		} else {
			list[i].Probe = well
		}
	}
	return list
}

func describe(r health.Report) string {
	var b strings.Builder
	for _, x := range r.Results {
		if x.State != health.Healthy {
			fmt.Fprintf(&b, "%s %s", x.Name, x.State)
			if len(x.Causes) > 0 {
				fmt.Fprintf(&b, " by %v", x.Causes)
			}
			if len(x.Explains) > 0 {
				fmt.Fprintf(&b, " explains %v", x.Explains)
			}
			b.WriteString("; ")
		}
	}
	return string(r.State) + ": " + b.String()
}

func TestCauses(t *testing.T) {
	t.Parallel()
	type probes = map[string]func(context.Context) error
	for _, c := range []struct {
		name   string
		probes probes
		want   string
	}{
		{"all is well", nil, "healthy: "},
		{"the database is away, and what needs it says nothing or something", probes{"database": broken("x"), "token": broken("y")},
			"unhealthy: database unhealthy explains [registry token queue jobs]; registry unhealthy by [database]; token unhealthy by [database]; queue unhealthy by [database]; jobs unhealthy by [database]; "},
		{"a cause of the cause", probes{"database": broken("x"), "disk": broken("full")},
			"unhealthy: disk unhealthy explains [registry token queue jobs database]; registry unhealthy by [disk]; token unhealthy by [disk]; queue unhealthy by [disk]; jobs unhealthy by [disk]; database unhealthy by [disk]; "},
		{"two causes of one", probes{"database": broken("x"), "storage": broken("y")},
			"unhealthy: database unhealthy explains [registry token queue jobs]; storage unhealthy explains [registry]; registry unhealthy by [database storage]; token unhealthy by [database]; queue unhealthy by [database]; jobs unhealthy by [database]; "},
		{"a warning causes nothing", probes{"disk": func(context.Context) error { return health.Warning(errors.New("filling")) }}, "degraded: disk degraded; "},
		{"nothing but itself", probes{"token": broken("x")}, "unhealthy: token unhealthy; "},
		{"a panic is a failure", probes{"token": func(context.Context) error { panic("oh") }}, "unhealthy: token unhealthy; "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := describe(health.Run(t.Context(), stack(c.probes))); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// A probe that never ends costs three seconds, and nothing else its answer.
func TestProbesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		began := time.Now()
		r := health.Run(t.Context(), []health.Check{
			{Name: "deaf", Probe: func(context.Context) error { <-release; return nil }},
			{Name: "slow", Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
			{Name: "well", Probe: well},
		})
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if got := describe(r); got != "unhealthy: deaf unhealthy; slow unhealthy; " || r.Find("deaf").Text() != "it does not answer in time" {
			t.Error(got, r.Find("deaf").Text())
		}
	})
}

func TestCyclesEnd(t *testing.T) {
	t.Parallel()
	r := health.Run(t.Context(), []health.Check{
		{Name: "a", DependsOn: []string{"b"}, Probe: broken("x")}, {Name: "b", DependsOn: []string{"a", "b"}, Probe: well},
	})
	if r.State != health.Unhealthy || r.Find("b").State != health.Unhealthy {
		t.Error(describe(r))
	}
}

func TestTextHidesDetails(t *testing.T) {
	t.Parallel()
	r := health.Run(t.Context(), []health.Check{
		{Name: "raw", Hint: "look", Probe: broken("password=secret")},
		{Name: "fault", Hint: "look", Probe: func(context.Context) error {
			return fault.Wrap(fault.Unavailable, errors.New("detail"), "it is away").WithHint("wait")
		}},
	})
	if got := r.Find("raw"); got.Text() != "it does not answer" || got.Hint != "look" {
		t.Error(got.Text(), got.Hint)
	}
	if got := r.Find("fault"); got.Text() != "it is away" || got.Hint != "wait" {
		t.Error(got.Text(), got.Hint)
	}
	if r.Find("nobody") != nil {
		t.Error("a check that is not there was found")
	}
}
