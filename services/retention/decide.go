package retention

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"berth/services/reference"
)

// Candidate is what is kept or goes: an artifact with its tags, or one tag of
// it.
type Candidate struct {
	Digest         reference.Digest
	Tags           []string
	Pushed, Pulled time.Time // zero Pulled: never
	Immutable      bool      // one of the tags is
}

// Verdict is the decision about a candidate.
type Verdict struct {
	Candidate
	Keep   bool
	Reason string
}

// Decide says what a policy keeps of a repository, named without its project,
// in the order of the candidates. A policy that does not select the repository
// keeps everything.
func (p *Policy) Decide(repository string, candidates []Candidate, now time.Time) []Verdict {
	verdicts := make([]Verdict, len(candidates))
	for i, c := range candidates {
		verdicts[i] = Verdict{Candidate: c, Reason: "no rule keeps it"}
		if c.Immutable {
			verdicts[i].Keep, verdicts[i].Reason = true, "it is immutable"
		}
	}
	if !p.Selects(repository) {
		for i := range verdicts {
			verdicts[i].Keep, verdicts[i].Reason = true, "no rule selects the repository"
		}
		return verdicts
	}
	for n := range p.Rules {
		r := &p.Rules[n]
		if !r.selects(repository) {
			continue
		}
		var picked []int
		for i, c := range candidates {
			if r.picks(c) {
				picked = append(picked, i)
			}
		}
		for _, i := range r.keeps(candidates, picked, now) {
			if !verdicts[i].Keep {
				verdicts[i].Keep, verdicts[i].Reason = true, fmt.Sprintf("rule %d keeps %s", n+1, r)
			}
		}
	}
	return verdicts
}

// picks reports whether all of the rule's tag selectors pick a candidate: each
// by one of its tags, or by its having none.
func (r *Rule) picks(c Candidate) bool {
	for _, s := range r.Tags {
		if !(len(c.Tags) == 0 && s.Untagged() || slices.ContainsFunc(c.Tags, s.Picks)) {
			return false
		}
	}
	return true
}

// String says what the rule keeps.
func (r *Rule) String() string {
	t, _ := template(r.Template)
	n, _ := r.number(t)
	return strings.Replace(t.Text, "#", fmt.Sprint(n), 1)
}

// keeps gives which of the picked candidates the rule's template keeps.
func (r *Rule) keeps(all []Candidate, picked []int, now time.Time) []int {
	t, _ := template(r.Template)
	n, err := r.number(t)
	if err != nil {
		return picked // a policy that was not checked: nothing goes for it
	}
	pushed := func(c Candidate) time.Time { return c.Pushed }
	pulled := func(c Candidate) time.Time { return c.Pulled }
	active := func(c Candidate) time.Time {
		if c.Pulled.After(c.Pushed) {
			return c.Pulled
		}
		return c.Pushed
	}
	switch r.Template {
	case "latestPushedK":
		return latest(all, picked, n, pushed)
	case "latestPulledN":
		return latest(all, picked, n, pulled)
	case "latestActiveK":
		return latest(all, picked, n, active)
	case "nDaysSinceLastPush", "lastXDays":
		return since(all, picked, now.AddDate(0, 0, -n), pushed)
	case "nDaysSinceLastPull":
		return since(all, picked, now.AddDate(0, 0, -n), pulled)
	case "nothing":
		return nil
	}
	return picked // always
}

// latest gives the n picked candidates with the latest times. Of those with the
// same time the first come first, so that a dry run says what a run then does.
func latest(all []Candidate, picked []int, n int, at func(Candidate) time.Time) []int {
	picked = slices.Clone(picked)
	slices.SortStableFunc(picked, func(a, b int) int { return at(all[b]).Compare(at(all[a])) })
	return picked[:min(n, len(picked))]
}

func since(all []Candidate, picked []int, from time.Time, at func(Candidate) time.Time) []int {
	var kept []int
	for _, i := range picked {
		if !at(all[i]).Before(from) {
			kept = append(kept, i)
		}
	}
	return kept
}
