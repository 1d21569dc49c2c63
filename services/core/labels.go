package core

import (
	"fmt"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/artifact"
	"berth/services/label"
	"berth/services/query"
)

// labelRoutes are for labels, and for those of artifacts.
var labelRoutes = []route{
	{"GET", v2 + "/labels", login(), "List labels", handle((*API).listLabels)},
	{"POST", v2 + "/labels", login(), "Create a label", handle((*API).createLabel)},
	{"GET", v2 + "/labels/{label_id}", login(), "Get a label", handle((*API).getLabel)},
	{"PUT", v2 + "/labels/{label_id}", login(), "Change a label", handle((*API).updateLabel)},
	{"DELETE", v2 + "/labels/{label_id}", login(), "Delete a label", handle((*API).deleteLabel)},
	{"POST", ofArtifact + "/labels", inProject("artifact-label", "create"), "Give an artifact a label", handle((*API).addLabel)},
	{"DELETE", ofArtifact + "/labels/{label_id}", inProject("artifact-label", "delete"), "Take a label from an artifact", handle((*API).removeLabel)},
}

// The scopes of labels: the whole system, and a project.
const (
	scopeGlobal  = "g"
	scopeProject = "p"
)

type labelWire struct {
	Color       string `json:"color,omitempty"`
	Created     moment `json:"creation_time"`
	Description string `json:"description,omitempty"`
	ID          int64  `json:"id"`
	Name        string `json:"name"`
	ProjectID   int64  `json:"project_id,omitempty"`
	Scope       string `json:"scope"`
	Updated     moment `json:"update_time"`
}

func labelOf(l label.Label) labelWire {
	w := labelWire{l.Color, moment(l.Created), l.Description, l.ID, l.Name, l.ProjectID, scopeGlobal, moment(l.Updated)}
	if l.ProjectID != 0 {
		w.Scope = scopeProject
	}
	return w
}

type labelPath struct {
	ID int64 `path:"label_id"`
}

// labelTarget finds what a label of a scope belongs to.
func (a *API) labelTarget(r *request, scope string, project int64) (access.Target, error) {
	switch scope {
	case scopeGlobal:
		return access.Target{}, nil
	case scopeProject:
		if project == 0 {
			return access.Target{}, fault.New(fault.Invalid, "the scope p goes with a project").On("project_id")
		}
		t, err := a.Projects.TargetByID(r.Context(), r.principal, project)
		return t, r.hidden(err)
	}
	return access.Target{}, fault.New(fault.Invalid, "invalid scope: %s", scope).On("scope").WithHint("it is g (global) or p (of a project)")
}

func (a *API) listLabels(r *request, in struct {
	paging
	Scope   string `query:"scope" doc:"g: of the whole system; p: of a project"`
	Project int64  `query:"project_id" doc:"goes with scope p"`
	Name    string `query:"name" doc:"part of a name"`
}) (list[labelWire], error) {
	q, err := in.query()
	if err != nil {
		return list[labelWire]{}, err
	}
	t, err := a.labelTarget(r, in.Scope, in.Project)
	if err != nil {
		return list[labelWire]{}, err
	}
	if t.ProjectID != 0 { // whoever logs in may know the names of global labels
		if err := r.require(t, "label", "list"); err != nil {
			return list[labelWire]{}, err
		}
	}
	if in.Name != "" {
		q.Terms = append(q.Terms, query.Term{Field: "name", Op: query.Contains, Values: []string{in.Name}})
	}
	page, err := a.Labels.List(r.Context(), t.ProjectID, q)
	return paged(page, err, in.paging, labelOf)
}

type labelBody struct {
	Color       string `json:"color"`
	Description string `json:"description"`
	Name        string `json:"name"`
	ProjectID   int64  `json:"project_id"`
	Scope       string `json:"scope"`
}

func (a *API) createLabel(r *request, in struct {
	Body labelBody `body:""`
}) (created, error) {
	b := in.Body
	t, err := a.labelTarget(r, b.Scope, b.ProjectID)
	if err != nil {
		return created{}, err
	}
	if err := r.require(t, "label", "create"); err != nil {
		return created{}, err
	}
	id, err := a.Labels.Create(r.Context(), label.Label{ProjectID: t.ProjectID, Name: b.Name, Description: b.Description, Color: b.Color})
	return created{location: fmt.Sprintf("%s/labels/%d", v2, id)}, err
}

// labelFor finds a label that the caller may do something with.
func (a *API) labelFor(r *request, id int64, action string) (label.Label, error) {
	l, err := a.Labels.Label(r.Context(), id)
	if err != nil {
		return l, r.hidden(err)
	}
	if l.ProjectID == 0 {
		if action == "read" {
			return l, nil
		}
		return l, r.require(access.Target{}, "label", action)
	}
	t, err := a.Projects.TargetByID(r.Context(), r.principal, l.ProjectID)
	if err != nil {
		return l, r.hidden(err)
	}
	return l, r.require(t, "label", action)
}

func (a *API) getLabel(r *request, in struct{ labelPath }) (labelWire, error) {
	l, err := a.labelFor(r, in.ID, "read")
	return labelOf(l), err
}

func (a *API) updateLabel(r *request, in struct {
	labelPath
	Body labelBody `body:""`
}) (empty, error) {
	l, err := a.labelFor(r, in.ID, "update")
	if err != nil {
		return empty{}, err
	}
	l.Name, l.Description, l.Color = in.Body.Name, in.Body.Description, in.Body.Color
	return empty{}, a.Labels.Update(r.Context(), l)
}

func (a *API) deleteLabel(r *request, in struct{ labelPath }) (empty, error) {
	if _, err := a.labelFor(r, in.ID, "delete"); err != nil {
		return empty{}, err
	}
	return empty{}, a.Labels.Delete(r.Context(), in.ID)
}

func (a *API) addLabel(r *request, in struct {
	artifactPath
	Body struct {
		ID int64 `json:"id"`
	} `body:""`
}) (empty, error) {
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{})
	if err != nil {
		return empty{}, err
	}
	return empty{}, a.Labels.Add(r.Context(), r.target.ProjectID, i.ID, in.Body.ID)
}

func (a *API) removeLabel(r *request, in struct {
	artifactPath
	Label int64 `path:"label_id"`
}) (empty, error) {
	i, err := a.Artifacts.Artifact(r.Context(), in.whole(), in.Reference, artifact.With{})
	if err != nil {
		return empty{}, err
	}
	return empty{}, a.Labels.Remove(r.Context(), i.ID, in.Label)
}
