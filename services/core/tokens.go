package core

import (
	"fmt"
	"time"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/account"
)

// tokenRoutes are for personal access tokens, which Harbor has not. A token
// itself can call none of them.
var tokenRoutes = []route{
	{"GET", berth + "/users/{user_id}/tokens", self("user", "update"), "List a user's personal access tokens", handle((*API).listTokens)},
	{"POST", berth + "/users/{user_id}/tokens", self("user", "update"), "Make oneself a personal access token", handle((*API).createToken)},
	{"DELETE", berth + "/users/{user_id}/tokens/{token_id}", self("user", "update"), "Revoke a personal access token", handle((*API).deleteToken)},
}

type token struct {
	Created  moment   `json:"creation_time"`
	Expires  *moment  `json:"expires_at"` // null = never
	ID       int64    `json:"id"`
	LastUsed *moment  `json:"last_used_time"`
	Name     string   `json:"name"`
	Projects []string `json:"projects"` // null = all
	Scope    string   `json:"scope"`    // read, write
	Secret   string   `json:"secret,omitempty"`
}

// The scopes of tokens.
const (
	scopeRead  = "read"
	scopeWrite = "write"
)

func tokenOf(t account.Token) token {
	w := token{Created: moment(t.Created), Expires: momentOf(t.Expires), ID: t.ID, LastUsed: momentOf(t.LastUsed), Name: t.Name, Projects: t.Projects, Scope: scopeWrite}
	if t.ReadOnly {
		w.Scope = scopeRead
	}
	return w
}

func momentOf(t time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	m := moment(t)
	return &m
}

func (a *API) listTokens(r *request, in struct{ userPath }) ([]token, error) {
	tokens, err := a.Accounts.Tokens(r.Context(), in.ID)
	wire := make([]token, len(tokens))
	for i, t := range tokens {
		wire[i] = tokenOf(t)
	}
	return wire, err
}

func (a *API) createToken(r *request, in struct {
	userPath
	Body struct {
		Name     string   `json:"name"`
		Scope    string   `json:"scope" doc:"read, write"`
		Projects []string `json:"projects" doc:"names of the only projects that it is for; absent: all"`
		Duration int      `json:"duration" doc:"days; -1: for ever"`
	} `body:""`
}) (created, error) {
	if r.principal.Kind != access.User || r.principal.ID != in.ID {
		return created{}, r.denied() // nobody makes secrets in another's name
	}
	b := in.Body
	if b.Scope != scopeRead && b.Scope != scopeWrite {
		return created{}, fault.New(fault.Invalid, "it must be read or write, not %q", b.Scope).On("scope")
	}
	projects, err := a.tokenProjects(r, b.Projects)
	if err != nil {
		return created{}, err
	}
	n := account.NewToken{Name: b.Name, ReadOnly: b.Scope == scopeRead, Days: b.Duration}
	id, secret, err := a.Accounts.CreateToken(r.Context(), r.principal, n, projects)
	return created{location: fmt.Sprintf("%s/users/%d/tokens/%d", berth, in.ID, id),
		body: map[string]any{"id": id, "name": n.Name, "secret": secret.Reveal()}}, err
}

// tokenProjects gives the ids of projects that the user can see.
func (a *API) tokenProjects(r *request, names []string) ([]int64, error) {
	var ids []int64
	for _, name := range names {
		t, err := a.Projects.Target(r.Context(), r.principal, name)
		if fault.Is(err, fault.NotFound) || err == nil && !access.May(r.principal, t, "project", "read") {
			return nil, fault.New(fault.Invalid, "there is no project %s", name).On("projects")
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, t.ProjectID)
	}
	return ids, nil
}

func (a *API) deleteToken(r *request, in struct {
	userPath
	Token int64 `path:"token_id"`
}) (empty, error) {
	return empty{}, a.Accounts.DeleteToken(r.Context(), in.ID, in.Token)
}
