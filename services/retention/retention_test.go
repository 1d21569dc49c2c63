package retention_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/appliance/fault"
	"berth/services/reference"
	"berth/services/retention"
	"berth/services/selector"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func ago(days int) time.Time { return now.AddDate(0, 0, -days) }

func rule(template string, n int, tags ...string) retention.Rule {
	r := retention.Rule{Action: "retain", Template: template, Params: map[string]any{template: float64(n)},
		Scope: map[string][]selector.Selector{"repository": {{Kind: "doublestar", Decoration: "repoMatches", Pattern: "**"}}}}
	for _, t := range tags {
		decoration, pattern, _ := strings.Cut(t, " ")
		extras := ""
		if p, ok := strings.CutSuffix(pattern, "+untagged"); ok {
			pattern, extras = p, `{"untagged":true}`
		}
		r.Tags = append(r.Tags, selector.Selector{Kind: "doublestar", Decoration: decoration, Pattern: pattern, Extras: extras})
	}
	return r
}

// What the templates and selectors keep of five artifacts.
func TestDecide(t *testing.T) {
	t.Parallel()
	candidates := []retention.Candidate{
		{Tags: []string{"v3", "latest"}, Pushed: ago(1)},
		{Tags: []string{"v2"}, Pushed: ago(5), Pulled: ago(2)},
		{Tags: []string{"v1"}, Pushed: ago(30), Pulled: ago(1)},
		{Tags: []string{"keep"}, Pushed: ago(90), Immutable: true},
		{Pushed: ago(3)},
	}
	disabled := rule("always", 0, "matches **+untagged")
	disabled.Disabled = true
	elsewhere := rule("always", 0, "matches **+untagged")
	elsewhere.Scope["repository"][0].Pattern = "other/**"
	for _, c := range []struct {
		name  string
		rules []retention.Rule
		kept  string
	}{
		{"pushed last", []retention.Rule{rule("latestPushedK", 2, "matches **")}, "v3 v2 keep"},
		{"pushed last, with untagged", []retention.Rule{rule("latestPushedK", 2, "matches **+untagged")}, "v3 keep -"},
		{"none of zero", []retention.Rule{rule("latestPushedK", 0, "matches **")}, "keep"},
		{"pulled last", []retention.Rule{rule("latestPulledN", 1, "matches **")}, "v1 keep"},
		{"never pulled comes last", []retention.Rule{rule("latestPulledN", 3, "matches v*")}, "v3 v2 v1 keep"},
		{"active last", []retention.Rule{rule("latestActiveK", 1, "matches v[12]")}, "v1 keep"},
		{"pushed within days", []retention.Rule{rule("nDaysSinceLastPush", 5, "matches **")}, "v3 v2 keep"},
		{"pushed within days, by its other name", []retention.Rule{rule("lastXDays", 4, "matches **")}, "v3 keep"},
		{"pulled within days", []retention.Rule{rule("nDaysSinceLastPull", 1, "matches **")}, "v1 keep"},
		{"always", []retention.Rule{rule("always", 0, "matches v*")}, "v3 v2 v1 keep"},
		{"nothing", []retention.Rule{rule("nothing", 0, "matches **")}, "keep"},
		{"excludes", []retention.Rule{rule("always", 0, "excludes v*")}, "v3 keep"}, // by its tag latest
		{"both selectors", []retention.Rule{rule("always", 0, "matches v*", "matches latest")}, "v3 keep"},
		{"one rule is enough", []retention.Rule{rule("latestPushedK", 1, "matches **"), rule("always", 0, "matches v1")}, "v3 v1 keep"},
		{"disabled rules keep nothing, and decide nothing", []retention.Rule{disabled}, "v3 v2 v1 keep -"},
		{"a repository that no rule selects", []retention.Rule{elsewhere}, "v3 v2 v1 keep -"},
		{"no rules", nil, "v3 v2 v1 keep -"},
	} {
		p := retention.Policy{Rules: c.rules}
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var kept []string
		for _, v := range p.Decide("app", candidates, now) {
			if v.Reason == "" {
				t.Errorf("%s: no reason for %v", c.name, v.Tags)
			}
			if v.Keep {
				kept = append(kept, slices.Concat(v.Tags, []string{"-"})[0])
			}
		}
		if got := strings.Join(kept, " "); got != c.kept {
			t.Errorf("%s: kept %s, want %s", c.name, got, c.kept)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := func() retention.Policy {
		return retention.Policy{Rules: []retention.Rule{rule("latestPushedK", 2, "matches **")}}
	}
	for name, spoil := range map[string]func(*retention.Policy){
		"algorithm":    func(p *retention.Policy) { p.Algorithm = "and" },
		"template":     func(p *retention.Policy) { p.Rules[0].Template = "x" },
		"no number":    func(p *retention.Policy) { p.Rules[0].Params = nil },
		"negative":     func(p *retention.Policy) { p.Rules[0].Params["latestPushedK"] = float64(-1) },
		"no integer":   func(p *retention.Policy) { p.Rules[0].Params["latestPushedK"] = 1.5 },
		"action":       func(p *retention.Policy) { p.Rules[0].Action = "delete" },
		"no tags":      func(p *retention.Policy) { p.Rules[0].Tags = nil },
		"no scope":     func(p *retention.Policy) { p.Rules[0].Scope = nil },
		"twice":        func(p *retention.Policy) { p.Rules = append(p.Rules, p.Rules[0]) },
		"cron":         func(p *retention.Policy) { p.Trigger.Settings.Cron = "* * * * * *" },
		"trigger":      func(p *retention.Policy) { p.Trigger.Kind = "Event" },
		"sixteen":      func(p *retention.Policy) { p.Rules = make([]retention.Rule, 16) },
		"tag selector": func(p *retention.Policy) { p.Rules[0].Tags[0].Decoration = "repoMatches" },
	} {
		p := good()
		if spoil(&p); !fault.Is(p.Check(), fault.Invalid) {
			t.Errorf("%s: %v", name, p.Check())
		}
	}
	p := good()
	p.Rules[0].Params["latestPushedK"] = "3" // as Terraform sends it
	p.Trigger.Settings.Cron = "0 0 3 * * *"
	if err := p.Check(); err != nil || p.Algorithm != "or" || p.Trigger.Kind != "Schedule" {
		t.Errorf("%v, %+v", err, p)
	}
}

// Whatever a policy says that was accepted: immutable tags stay, what a rule
// keeps alone it keeps beside others, and every candidate gets one verdict.
func FuzzDecide(f *testing.F) {
	good, err := json.Marshal(retention.Policy{Rules: []retention.Rule{rule("latestPushedK", 2, "matches v*"), rule("nDaysSinceLastPull", 3, "excludes {a,b}+untagged")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(good), "v1,v2|a|!b||c", "app")
	f.Add(`{"rules":[{"template":"always","tag_selectors":[],"scope_selectors":{}}]}`, "", "x")
	f.Fuzz(func(t *testing.T, text, tags, repository string) {
		var p retention.Policy
		if json.Unmarshal([]byte(text), &p) != nil || p.Check() != nil || len(tags) > 1000 {
			return
		}
		var candidates []retention.Candidate
		for i, list := range strings.Split(tags, "|") {
			list, immutable := strings.CutPrefix(list, "!")
			c := retention.Candidate{Digest: reference.Of(reference.SHA256, fmt.Append(nil, i)), Pushed: ago(i), Immutable: immutable}
			if list != "" {
				c.Tags = strings.Split(list, ",")
			}
			candidates = append(candidates, c)
		}
		verdicts := p.Decide(repository, candidates, now)
		if len(verdicts) != len(candidates) {
			t.Fatalf("%d verdicts", len(verdicts))
		}
		for _, r := range p.Rules {
			alone := retention.Policy{Rules: []retention.Rule{r}}
			if !alone.Selects(repository) {
				continue
			}
			for i, v := range alone.Decide(repository, candidates, now) {
				if v.Keep && !verdicts[i].Keep {
					t.Errorf("a rule keeps %v alone and not beside others", v.Candidate)
				}
			}
		}
		for i, v := range verdicts {
			if v.Immutable && !v.Keep || v.Digest != candidates[i].Digest || v.Reason == "" {
				t.Errorf("%+v", v)
			}
		}
	})
}
