package core

import (
	"net/http"
	"time"

	"berth/appliance/fault"
	"berth/appliance/rest"
	"berth/appliance/secret"
	"berth/services/access"
)

// sessionRoutes are the browser's, as in Harbor, beside the API.
var sessionRoutes = []route{
	{"POST", "/c/login", open(), "Log in with the form fields principal and password", handle((*API).logIn)},
	{"GET", "/c/log_out", open(), "Log out", handle((*API).logOut)},
	{"POST", "/c/userExists", open(), "Ask whether a user name or an e-mail address (form fields target, value) is taken", handle((*API).userExists)},
}

const (
	sessionCookie = "sid"
	maxForm       = 64 << 10
)

// browser is a reply to a browser: cookies, and perhaps where to go next.
type browser struct {
	cookies  []*http.Cookie
	location string // "" = 200
}

func (a *API) sid(r *request, id secret.Text) *http.Cookie {
	c := &http.Cookie{Name: sessionCookie, Value: id.Reveal(), Path: "/", HttpOnly: true, Secure: overTLS(r.Request), SameSite: http.SameSiteLaxMode}
	if id == "" {
		c.MaxAge = -1
	}
	return c
}

// idleTime is how long a session lives without use.
func (a *API) idleTime(r *http.Request) (time.Duration, error) {
	settings, err := a.Configuration.Current(r.Context())
	return time.Duration(settings.SessionTimeout) * time.Minute, err
}

func (a *API) logIn(r *request, _ none) (browser, error) {
	name, password, err := r.form("principal", "password")
	if err != nil {
		return browser{}, err
	}
	who, err := a.Accounts.Authenticate(r.Context(), name, password, sourceOf(r.Request))
	if err == nil && who.Kind != access.User {
		err = fault.New(fault.Unauthenticated, "a robot has no session")
	}
	if err == nil && who.Limit != nil {
		err = fault.New(fault.Unauthenticated, "a personal access token is for clients, not for the login page")
	}
	if fault.Is(err, fault.Unauthenticated) {
		if told := a.Sessions.Failed(r.Context(), clipped(name)); told != nil {
			return browser{}, told
		}
	}
	if err != nil {
		return browser{}, err
	}
	return a.begin(r, who, "", "")
}

// clipped keeps what a stranger types in as a name from filling the audit trail.
func clipped(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}

// begin gives who has logged in a session. The id is a new one, whatever came
// with the request, and a session that the browser had ends.
func (a *API) begin(r *request, who access.Principal, idToken secret.Text, location string) (browser, error) {
	idle, err := a.idleTime(r.Request)
	if err != nil {
		return browser{}, err
	}
	if old, err := r.Cookie(sessionCookie); err == nil {
		if _, err := a.Sessions.End(r.Context(), old.Value); err != nil {
			return browser{}, err
		}
	}
	id, err := a.Sessions.Begin(r.Context(), who, idle, idToken)
	if err != nil {
		return browser{}, err
	}
	return browser{[]*http.Cookie{a.sid(r, id)}, location}, nil
}

// form reads two fields of a form.
func (r *request) form(one, other string) (string, string, error) {
	if err := r.ParseForm(); err != nil { // guard has bounded the body
		return "", "", rest.Unreadable("cannot read the form: %v", err)
	}
	first, second := r.PostForm.Get(one), r.PostForm.Get(other)
	if !rest.IsText(first) || !rest.IsText(second) {
		return "", "", rest.Unreadable("the form must be text")
	}
	return first, second, nil
}

func (a *API) logOut(r *request, _ none) (browser, error) {
	reply := browser{cookies: []*http.Cookie{a.sid(r, "")}}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return reply, nil // nobody is logged in
	}
	settings, err := a.Configuration.Current(r.Context())
	if err != nil {
		return browser{}, err
	}
	if settings.OIDCLogout && settings.AuthMode == "oidc_auth" {
		found, _, err := a.Sessions.Find(r.Context(), c.Value, time.Duration(settings.SessionTimeout)*time.Minute)
		if err != nil || found.OIDC {
			return browser{location: oidcPath + "/logout"}, err
		}
	}
	_, err = a.Sessions.End(r.Context(), c.Value)
	return reply, err
}

// userExists is for the form with which one registers oneself.
func (a *API) userExists(r *request, _ none) (bool, error) {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil {
		return false, err
	}
	if settings.AuthMode != "db_auth" {
		return false, fault.New(fault.Precondition, "users are made elsewhere: the authentication mode is %s", settings.AuthMode)
	}
	if !settings.SelfRegistration && !r.principal.Sysadmin {
		return false, r.denied()
	}
	target, value, err := r.form("target", "value")
	if err != nil {
		return false, err
	}
	return a.Accounts.Exists(r.Context(), target, value)
}
