// Package retention keeps what a project's rules name, and moves all else to
// the recycle bin.
//
// A project has at most one policy. Its rules say what stays: an artifact is
// kept if one rule keeps it. A rule looks at the repositories that it selects,
// there at the artifacts with a tag that it selects, and keeps of those what its
// template says, for example the five pushed last. What no rule keeps goes, in
// every repository that some rule selects; a repository that none selects is left
// alone. Artifacts with an immutable tag stay in any case.
//
// As in Harbor that is decided for artifacts: one tag that is kept keeps all tags
// of its artifact. With ByTag, which Harbor lacks, it is decided for each tag.
//
// Decide is the decision, a pure function. A run has a task for each repository
// (package task); a dry run only says what it would do, and why.
package retention

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

	"berth/appliance/fault"
	"berth/services/selector"
	"berth/services/task"
)

// Policy is a project's policy in the form of Harbor's API, without its id and
// scope.
type Policy struct {
	Algorithm string  `json:"algorithm"`
	ByTag     bool    `json:"by_tag,omitempty"` // decide for each tag; Harbor has no such field
	Rules     []Rule  `json:"rules"`
	Trigger   Trigger `json:"trigger"`
}

// Rule says what stays.
type Rule struct {
	Action   string                         `json:"action"`
	Disabled bool                           `json:"disabled,omitempty"`
	ID       int64                          `json:"id,omitempty"`
	Params   map[string]any                 `json:"params,omitempty"` // by the template's name
	Priority int64                          `json:"priority,omitempty"`
	Scope    map[string][]selector.Selector `json:"scope_selectors"`
	Tags     []selector.Selector            `json:"tag_selectors"`
	Template string                         `json:"template"`
}

// Trigger says when the policy runs by itself: at the cron text in its
// settings; "" is never.
type Trigger struct {
	Kind     string          `json:"kind"`
	Settings TriggerSettings `json:"settings"`
}

// TriggerSettings has a cron text of six fields, in UTC.
type TriggerSettings struct {
	Cron string `json:"cron"`
}

// Template is a way to choose what stays.
type Template struct {
	Name string
	Text string // # stands for the number
	Unit string // of the number: COUNT, DAYS; "" = it has none
}

// Templates are the templates, the ones that Harbor's portal offers first.
var Templates = []Template{
	{"latestPushedK", "the # artifacts that were pushed last", "COUNT"},
	{"latestPulledN", "the # artifacts that were pulled last", "COUNT"},
	{"nDaysSinceLastPush", "the artifacts that were pushed within the last # days", "DAYS"},
	{"nDaysSinceLastPull", "the artifacts that were pulled within the last # days", "DAYS"},
	{"always", "all artifacts", ""},
	{"latestActiveK", "the # artifacts that were pushed or pulled last", "COUNT"},
	{"lastXDays", "the artifacts that were pushed within the last # days", "DAYS"},
	{"nothing", "no artifact", ""},
}

func template(name string) (Template, bool) {
	i := slices.IndexFunc(Templates, func(t Template) bool { return t.Name == name })
	if i < 0 {
		return Template{}, false
	}
	return Templates[i], true
}

const (
	maxRules     = 15 // Harbor's
	maxSelectors = 10
	maxNumber    = 1_000_000
)

// Check accepts a policy, and fills in what may be left out.
func (p *Policy) Check() error {
	if p.Algorithm == "" {
		p.Algorithm = "or"
	}
	if p.Algorithm != "or" {
		return fault.New(fault.Invalid, "the algorithm is or, not %q", p.Algorithm).On("algorithm")
	}
	if p.Rules == nil {
		p.Rules = []Rule{}
	}
	if len(p.Rules) > maxRules {
		return fault.New(fault.Invalid, "a policy has at most %d rules", maxRules).On("rules")
	}
	seen := map[string]bool{}
	for i := range p.Rules {
		if err := p.Rules[i].check(); err != nil {
			return err
		}
		if key := p.Rules[i].key(); seen[key] {
			return fault.New(fault.Invalid, "rule %d is there twice", i+1).On("rules")
		} else {
			seen[key] = true
		}
	}
	if p.Trigger.Kind == "" {
		p.Trigger.Kind = "Schedule"
	}
	if p.Trigger.Kind != "Schedule" {
		return fault.New(fault.Invalid, "a trigger's kind is Schedule, not %q", p.Trigger.Kind).On("trigger")
	}
	if p.Trigger.Settings.Cron != "" {
		if err := task.CheckCron(p.Trigger.Settings.Cron); err != nil {
			return fault.New(fault.Invalid, "the cron text %q is not valid: %v", p.Trigger.Settings.Cron, err).On("trigger")
		}
	}
	return nil
}

func (r *Rule) check() error {
	if r.Action == "" {
		r.Action = "retain"
	}
	if r.Action != "retain" {
		return fault.New(fault.Invalid, "a rule's action is retain, not %q", r.Action).On("rules")
	}
	t, ok := template(r.Template)
	if !ok {
		return fault.New(fault.Invalid, "there is no template %q", r.Template).On("rules")
	}
	if _, err := r.number(t); err != nil {
		return err
	}
	repositories := r.Scope["repository"]
	if len(r.Scope) != 1 || len(repositories) == 0 || len(repositories) > maxSelectors {
		return fault.New(fault.Invalid, "a rule has 1 to %d selectors of repositories", maxSelectors).On("scope_selectors")
	}
	if len(r.Tags) == 0 || len(r.Tags) > maxSelectors {
		return fault.New(fault.Invalid, "a rule has 1 to %d selectors of tags", maxSelectors).On("tag_selectors")
	}
	for _, s := range repositories {
		if err := s.CheckRepository(); err != nil {
			return err
		}
	}
	for _, s := range r.Tags {
		if err := s.CheckTag(); err != nil {
			return err
		}
	}
	return nil
}

// number gives the number that a template needs, 0 if it needs none. Clients
// send it as a number or as text.
func (r *Rule) number(t Template) (int, error) {
	if t.Unit == "" {
		return 0, nil
	}
	bad := fault.New(fault.Invalid, "the template %s needs a number from 0 to %d in params.%s", t.Name, maxNumber, t.Name).On("params")
	switch v := r.Params[t.Name].(type) {
	case float64:
		if v >= 0 && v <= maxNumber && v == math.Trunc(v) {
			return int(v), nil
		}
	case string:
		if n, err := strconv.Atoi(v); err == nil && n >= 0 && n <= maxNumber {
			return n, nil
		}
	}
	return 0, bad
}

// key is the same for rules that say the same.
func (r *Rule) key() string {
	text, err := json.Marshal([]any{r.Template, r.Params, r.Scope, r.Tags, r.Disabled})
	if err != nil {
		return fmt.Sprint(r)
	}
	return string(text)
}

// Selects reports whether the policy decides about a repository, by its name
// without the project.
func (p *Policy) Selects(repository string) bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.selects(repository) })
}

func (r *Rule) selects(repository string) bool {
	for _, s := range r.Scope["repository"] {
		if !s.Picks(repository) {
			return false
		}
	}
	return !r.Disabled
}
