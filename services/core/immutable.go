package core

import (
	"fmt"
	"strings"

	"berth/appliance/fault"
	"berth/services/immutability"
	"berth/services/selector"
)

const ofRules = ofProject + "/immutabletagrules"

// immutableRoutes are for the rules that keep tags where they are.
var immutableRoutes = []route{
	{"GET", ofRules, inProject("immutable-tag", "list"), "List a project's rules of immutability", handle((*API).listImmutable)},
	{"POST", ofRules, inProject("immutable-tag", "create"), "Add a rule of immutability to a project", handle((*API).createImmutable)},
	{"PUT", ofRules + "/{immutable_rule_id}", inProject("immutable-tag", "update"), "Change a rule of immutability", handle((*API).updateImmutable)},
	{"DELETE", ofRules + "/{immutable_rule_id}", inProject("immutable-tag", "delete"), "Remove a rule of immutability", handle((*API).deleteImmutable)},
}

type immutableRule struct {
	Action       string                         `json:"action"`
	Disabled     bool                           `json:"disabled,omitempty"`
	ID           int64                          `json:"id"`
	Scope        map[string][]selector.Selector `json:"scope_selectors"`
	TagSelectors []selector.Selector            `json:"tag_selectors"`
	Template     string                         `json:"template"`
}

func immutableOf(r immutability.Stored) immutableRule {
	return immutableRule{Action: "immutable", Disabled: r.Disabled, ID: r.ID, Template: "immutable_template",
		Scope: map[string][]selector.Selector{"repository": {r.Repository}}, TagSelectors: []selector.Selector{r.Tag}}
}

// rule reads the wire format, which has room for more than there is.
func (b immutableRule) rule() (r immutability.Rule, err error) {
	switch {
	case b.Action != "" && b.Action != "immutable":
		return r, fault.New(fault.Invalid, "a rule's action is immutable, not %q", b.Action).On("action")
	case b.Template != "" && b.Template != "immutable_template":
		return r, fault.New(fault.Invalid, "a rule's template is immutable_template, not %q", b.Template).On("template")
	case len(b.TagSelectors) != 1:
		return r, fault.New(fault.Invalid, "a rule has exactly one selector of tags").On("tag_selectors")
	case len(b.Scope) != 1 || len(b.Scope["repository"]) != 1:
		return r, fault.New(fault.Invalid, "a rule has exactly one selector of repositories").On("scope_selectors")
	}
	return immutability.Rule{Tag: b.TagSelectors[0], Repository: b.Scope["repository"][0]}, nil
}

type immutablePath struct {
	inProjectPath
	ID int64 `path:"immutable_rule_id"`
}

func (a *API) listImmutable(r *request, in struct {
	paging
	inProjectPath
}) (list[immutableRule], error) {
	q, err := in.query()
	if err != nil {
		return list[immutableRule]{}, err
	}
	page, err := a.Immutability.List(r.Context(), r.target.ProjectID, q)
	return paged(page, err, in.paging, immutableOf)
}

func (a *API) createImmutable(r *request, in struct {
	inProjectPath
	Body immutableRule `body:""`
}) (created, error) {
	rule, err := in.Body.rule()
	if err != nil {
		return created{}, err
	}
	id, err := a.Immutability.Create(r.Context(), r.target.ProjectID, rule, in.Body.Disabled)
	return created{location: strings.TrimSuffix(r.URL.EscapedPath(), "/") + fmt.Sprintf("/%d", id)}, err
}

// updateImmutable replaces a rule. As in Harbor's portal, a body that only
// switches the rule off or on need not say the rest.
func (a *API) updateImmutable(r *request, in struct {
	immutablePath
	Body immutableRule `body:""`
}) (empty, error) {
	if len(in.Body.TagSelectors) == 0 && len(in.Body.Scope) == 0 {
		return empty{}, a.Immutability.Disable(r.Context(), r.target.ProjectID, in.ID, in.Body.Disabled)
	}
	rule, err := in.Body.rule()
	if err != nil {
		return empty{}, err
	}
	return empty{}, a.Immutability.Update(r.Context(), r.target.ProjectID, in.ID, rule, in.Body.Disabled)
}

func (a *API) deleteImmutable(r *request, in struct{ immutablePath }) (empty, error) {
	return empty{}, a.Immutability.Delete(r.Context(), r.target.ProjectID, in.ID)
}
