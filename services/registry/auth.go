package registry

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/account"
	"berth/services/project"
	"berth/services/reference"
	"berth/services/token"
)

// Auth reads Authorization headers: bearer tokens of the token service, which
// say what they allow, and names with passwords, for which the database is
// asked (Harbor takes both on /v2/).
type Auth struct {
	Tokens   *token.Verifier
	Accounts *account.Store
	Projects *project.Store
}

// Identify implements Authenticator.
func (a *Auth) Identify(ctx context.Context, r *http.Request) (Identity, error) {
	c, err := readCredentials(r)
	switch {
	case err != nil:
		return Identity{}, err
	case c.anonymous:
		return Identity{Anonymous: true}, nil
	case c.token != "":
		t, err := a.Tokens.Verify(ctx, c.token)
		if err != nil {
			return Identity{}, err
		}
		return tokenIdentity(t), nil
	}
	who, err := a.Accounts.Authenticate(ctx, c.user, c.password, source(r))
	if err != nil {
		return Identity{Basic: true}, err
	}
	return a.basicIdentity(who), nil
}

// credentials are what an Authorization header says.
type credentials struct {
	anonymous      bool // there is no header
	token          string
	user, password string
}

func readCredentials(r *http.Request) (credentials, error) {
	header := r.Header["Authorization"]
	switch {
	case len(header) == 0 || len(header) == 1 && header[0] == "":
		return credentials{anonymous: true}, nil
	case len(header) > 1:
		// Which of two counts is what an attacker would like to choose.
		return credentials{}, fault.New(fault.Unauthenticated, "there are two Authorization headers")
	}
	if raw, ok := cutScheme(header[0], "Bearer "); ok && raw != "" {
		return credentials{token: raw}, nil
	}
	if user, password, ok := r.BasicAuth(); ok {
		return credentials{user: user, password: password}, nil
	}
	return credentials{}, fault.New(fault.Unauthenticated, "the Authorization header is neither Bearer nor Basic")
}

// cutScheme cuts an authentication scheme, whose case does not matter (RFC 9110 §11.1).
func cutScheme(header, scheme string) (string, bool) {
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimSpace(header[len(scheme):]), true
}

func tokenIdentity(t *token.Verified) Identity {
	id := Identity{User: t.User, Request: t.Request}
	limited := false
	for i := range t.Access {
		if t.Access[i].Type == "registry" && t.Access[i].Name == "catalog" {
			id.Catalog = slices.Contains(t.Access[i].Actions, "*")
		}
		limited = limited || len(t.Access[i].Tags) > 0
	}
	may := func(repo, tag string) (may Actions) {
		for i := range t.Access {
			if a := &t.Access[i]; a.Name == repo && a.Type == "repository" && (tag == "" || len(a.Tags) == 0 || access.MatchTag(a.Tags, tag)) {
				may |= actionBits(a.Actions)
			}
		}
		return may
	}
	id.May = func(_ context.Context, repo string) (Actions, error) { return may(repo, ""), nil }
	if limited {
		id.MayTag = func(_ context.Context, repo, tag string) (Actions, error) { return may(repo, tag), nil }
	}
	return id
}

func (a *Auth) basicIdentity(who access.Principal) Identity {
	may := func(ctx context.Context, repo, tag string) (Actions, error) {
		name, rest := reference.Project(repo)
		target, err := a.Projects.Target(ctx, who, name)
		if err != nil {
			return 0, err
		}
		target.Repository, target.Tag = rest, tag
		return actionBits(access.Actions(who, target)), nil
	}
	id := Identity{
		User: who.Name, Basic: true, Catalog: len(access.CatalogActions(who)) > 0,
		May: func(ctx context.Context, repo string) (Actions, error) { return may(ctx, repo, "") },
	}
	if slices.ContainsFunc(who.Permissions, func(b access.Permission) bool { return len(b.Tags) > 0 }) {
		id.MayTag = may
	}
	return id
}

func actionBits(names []string) (a Actions) {
	for _, n := range names {
		switch n {
		case "pull":
			a |= Pull
		case "push":
			a |= Push
		case "delete":
			a |= Delete
		case "*":
			a |= Pull | Push | Delete
		}
	}
	return a
}
