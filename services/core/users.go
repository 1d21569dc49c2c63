package core

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/account"
	"berth/services/query"
)

type user struct {
	AdminRoleInAuth bool   `json:"admin_role_in_auth"`
	Comment         string `json:"comment,omitempty"`
	Created         moment `json:"creation_time"`
	Email           string `json:"email,omitempty"`
	Realname        string `json:"realname,omitempty"`
	Sysadmin        bool   `json:"sysadmin_flag"`
	Updated         moment `json:"update_time"`
	ID              int64  `json:"user_id"`
	Username        string `json:"username"`

	OIDC *oidcMeta `json:"oidc_user_meta,omitempty"`
}

// oidcMeta shows an OIDC user's CLI secret to the user alone.
type oidcMeta struct {
	Created moment `json:"creation_time"`
	ID      int64  `json:"id"`
	Secret  string `json:"secret,omitempty"`
	SubIss  string `json:"subiss"`
	Updated moment `json:"update_time"`
	UserID  int64  `json:"user_id"`
}

func userOf(u account.User) user {
	return user{AdminRoleInAuth: u.AdminByGroup, Comment: u.Comment, Created: moment(u.Created), Email: u.Email, Realname: u.Realname,
		Sysadmin: u.Sysadmin, Updated: moment(u.Updated), ID: u.ID, Username: u.Username}
}

type userPath struct {
	ID int64 `path:"user_id"`
}

func (a *API) listUsers(r *request, in struct{ paging }) (list[user], error) {
	q, err := in.query()
	if err != nil {
		return list[user]{}, err
	}
	page, err := a.Accounts.ListUsers(r.Context(), q)
	return paged(page, err, in.paging, userOf)
}

type foundUser struct {
	ID       int64  `json:"user_id"`
	Username string `json:"username"`
}

func (a *API) searchUsers(r *request, in struct {
	paging
	Username string `query:"username,required" doc:"part of a user name"`
}) (list[foundUser], error) {
	q, err := in.query()
	if err != nil {
		return list[foundUser]{}, err
	}
	q.Terms = []query.Term{{Field: "username", Op: query.Contains, Values: []string{in.Username}}}
	page, err := a.Accounts.ListUsers(r.Context(), q)
	return paged(page, err, in.paging, func(u account.User) foundUser { return foundUser{u.ID, u.Username} })
}

func (a *API) createUser(r *request, in struct {
	Body struct {
		Username string `json:"username"`
		Email    string `json:"email"`
		Realname string `json:"realname"`
		Comment  string `json:"comment"`
		Password string `json:"password"`
	} `body:""`
}) (created, error) {
	if err := a.mayRegister(r); err != nil {
		return created{}, err
	}
	b := in.Body
	id, err := a.Accounts.CreateUser(r.Context(), account.NewUser{Username: b.Username, Password: b.Password,
		Profile: account.Profile{Email: b.Email, Realname: b.Realname, Comment: b.Comment}})
	return created{location: fmt.Sprintf("%s/users/%d", v2, id)}, err
}

// mayRegister lets through whoever may make users, and strangers who make
// themselves one where the configuration says so.
func (a *API) mayRegister(r *request) error {
	s, err := a.Configuration.Current(r.Context())
	if err != nil {
		return err
	}
	stranger := r.principal.Kind == access.Anonymous && s.SelfRegistration && s.AuthMode == "db_auth"
	if err := r.require(access.Target{}, "user", "create"); err != nil && !stranger {
		return err
	}
	if s.AuthMode != "db_auth" {
		return fault.New(fault.Forbidden, "users are made elsewhere: the authentication mode is %s", s.AuthMode)
	}
	return nil
}

func (a *API) currentUser(r *request, _ none) (user, error) {
	if r.principal.Kind != access.User {
		return user{}, fault.New(fault.Precondition, "a robot is no user")
	}
	return a.userByID(r, r.principal.ID)
}

// userByID gives a user, and of one who logs in with OIDC what is kept for that.
func (a *API) userByID(r *request, id int64) (user, error) {
	u, err := a.Accounts.User(r.Context(), id)
	wire := userOf(u)
	if err != nil || u.Source != account.OIDC {
		return wire, err
	}
	m, err := a.Accounts.OIDCMeta(r.Context(), id)
	wire.OIDC = &oidcMeta{moment(m.Created), m.ID, "", m.SubIss, moment(m.Updated), m.UserID}
	if p := r.principal; p.Kind == access.User && p.ID == id && (p.Limit == nil || p.Limit.Token == 0) {
		wire.OIDC.Secret = m.Secret.Reveal()
	}
	return wire, err
}

func (a *API) setCLISecret(r *request, in struct {
	userPath
	Body struct {
		Secret string `json:"secret" doc:"absent: one is made"`
	} `body:""`
}) (empty, error) {
	return empty{}, a.Accounts.SetCLISecret(r.Context(), in.ID, in.Body.Secret)
}

func (a *API) currentPermissions(r *request, in struct {
	Scope    string `query:"scope" doc:"/project/<id>; absent: the system"`
	Relative bool   `query:"relative" doc:"leave the scope out of the resources"`
}) ([]access.Pair, error) {
	if in.Scope == "" {
		return r.systemPermissions(), nil
	}
	id, err := strconv.ParseInt(strings.TrimPrefix(in.Scope, "/project/"), 10, 64)
	if err != nil {
		return []access.Pair{}, nil
	}
	t, err := a.Projects.TargetByID(r.Context(), r.principal, id)
	if err != nil {
		return nil, r.hidden(err)
	}
	held := access.Held(r.principal, t)
	pairs := make([]access.Pair, len(held))
	for i, p := range held {
		pairs[i] = access.Pair{Resource: scoped(in.Scope, p.Resource, in.Relative), Action: p.Action}
	}
	return pairs, nil
}

// scoped names a resource as Harbor's portal does: "." is the project itself.
func scoped(scope, resource string, relative bool) string {
	switch {
	case relative && resource == "project":
		return "."
	case relative:
		return resource
	case resource == "project":
		return scope
	}
	return scope + "/" + resource
}

func (r *request) systemPermissions() []access.Pair {
	held := []access.Pair{}
	all, _ := access.Grantable()
	for _, p := range all {
		if access.May(r.principal, access.Target{}, p.Resource, p.Action) {
			held = append(held, p)
		}
	}
	return held
}

func (a *API) getUser(r *request, in struct{ userPath }) (user, error) {
	return a.userByID(r, in.ID)
}

func (a *API) updateUser(r *request, in struct {
	userPath
	Body struct {
		Email    string `json:"email"`
		Realname string `json:"realname"`
		Comment  string `json:"comment"`
	} `body:""`
}) (empty, error) {
	return empty{}, a.Accounts.UpdateUser(r.Context(), in.ID, account.Profile(in.Body))
}

func (a *API) deleteUser(r *request, in struct{ userPath }) (empty, error) {
	if r.principal.Kind == access.User && r.principal.ID == in.ID {
		return empty{}, fault.New(fault.Forbidden, "an account cannot delete itself")
	}
	return empty{}, a.Accounts.DeleteUser(r.Context(), in.ID)
}

func (a *API) changePassword(r *request, in struct {
	userPath
	Body struct {
		Old string `json:"old_password"`
		New string `json:"new_password"`
	} `body:""`
}) (empty, error) {
	if r.principal.Kind == access.User && r.principal.ID == in.ID {
		return empty{}, a.Accounts.ChangePassword(r.Context(), in.ID, in.Body.Old, in.Body.New)
	}
	// A robot that may change users must not become an administrator that way.
	if u, err := a.Accounts.User(r.Context(), in.ID); err != nil || u.Sysadmin && !r.principal.Sysadmin {
		return empty{}, cmp.Or(err, r.denied())
	}
	return empty{}, a.Accounts.ResetPassword(r.Context(), in.ID, in.Body.New)
}

func (a *API) setSysadmin(r *request, in struct {
	userPath
	Body struct {
		Sysadmin bool `json:"sysadmin_flag"`
	} `body:""`
}) (empty, error) {
	return empty{}, a.Accounts.SetSysadmin(r.Context(), in.ID, in.Body.Sysadmin)
}
