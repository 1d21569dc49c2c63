package core

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/account"
	"berth/services/oidc"
)

// oidcRoutes are for logging in at an OIDC provider, as in Harbor.
var oidcRoutes = []route{
	{"GET", "/c/oidc/login", open(), "Go to the OIDC provider's login page", handle((*API).oidcLogin)},
	{"GET", "/c/oidc/callback", open(), "Come back from the OIDC provider's login page", handle((*API).oidcCallback)},
	{"GET", "/c/oidc/onboard", open(), "Ask for the user name of who has come for the first time", handle((*API).oidcOnboardPage)},
	{"POST", "/c/oidc/onboard", open(), "Choose the user name (form field or JSON: username)", handle((*API).oidcOnboard)},
	{"GET", "/c/oidc/logout", open(), "Log out here and at the OIDC provider", handle((*API).oidcLogout)},
	{"POST", v2 + "/system/oidc/ping", sysadmins(), "Try the address of an OIDC provider", handle((*API).pingOIDC)},
}

// The cookies of a login that is under way. Lax: the provider sends the browser
// back from another site.
const (
	attemptCookie = "berth_oidc_attempt"
	pendingCookie = "berth_oidc_pending"
	attemptLife   = 10 * time.Minute
	oidcPath      = "/c/oidc"
	maxBack       = 1024 // of a path to go to afterwards; a cookie carries it
)

// attempt is what the browser keeps, sealed, while it is at the provider.
type attempt struct {
	oidc.Attempt
	Back    string // where to go when all is done
	Expires time.Time
}

// pending is who has logged in at the provider and has no user here yet.
type pending struct {
	account.External
	SubIss  string
	IDToken string
	Back    string
}

func (a *API) callback() string {
	return strings.TrimSuffix(a.ExternalURL, "/") + oidcPath + "/callback"
}

func (a *API) cookie(r *request, name, value string) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: oidcPath, MaxAge: int(attemptLife / time.Second), HttpOnly: true,
		Secure: overTLS(r.Request), SameSite: http.SameSiteLaxMode}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// local accepts a place on this server to go to, and nothing else: an open
// redirect would lend our name to phishing.
func local(back string) string {
	u, err := url.Parse(back)
	if err != nil || len(back) > maxBack || u.IsAbs() || u.Host != "" || !strings.HasPrefix(back, "/") || strings.HasPrefix(back, "//") ||
		strings.ContainsFunc(back, func(r rune) bool { return r <= ' ' || r == '\\' || r == 0x7f }) {
		return "/"
	}
	return back
}

func (a *API) requireOIDC(r *request) error {
	settings, err := a.Configuration.Current(r.Context())
	if err == nil && settings.AuthMode != "oidc_auth" {
		err = fault.New(fault.Precondition, "the authentication mode is %s, not oidc_auth", settings.AuthMode)
	}
	return err
}

func (a *API) oidcLogin(r *request, in struct {
	Back string `query:"redirect_url" doc:"a path to go to afterwards"`
}) (browser, error) {
	if err := a.requireOIDC(r); err != nil {
		return browser{}, err
	}
	begun, page, err := a.OIDC.Begin(r.Context(), a.callback())
	if err != nil {
		return browser{}, err
	}
	value, err := a.sealed(attempt{begun, local(in.Back), time.Now().Add(attemptLife)})
	return browser{[]*http.Cookie{a.cookie(r, attemptCookie, value)}, page}, err
}

func (a *API) sealed(v attempt) (string, error) {
	plain, err := json.Marshal(v)
	return base64.RawURLEncoding.EncodeToString(a.Key.Seal("oidc attempt", plain)), err
}

func (a *API) attempt(r *request) (v attempt) {
	c, err := r.Cookie(attemptCookie)
	if err != nil {
		return v
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return v
	}
	plain, err := a.Key.Open("oidc attempt", sealed)
	if err != nil || json.Unmarshal(plain, &v) != nil || time.Now().After(v.Expires) {
		return attempt{}
	}
	return v
}

func (a *API) oidcCallback(r *request, _ none) (browser, error) {
	if err := a.requireOIDC(r); err != nil {
		return browser{}, err
	}
	tried := a.attempt(r)
	person, err := a.OIDC.Finish(r.Context(), tried.Attempt, r.URL.Query(), a.callback())
	if err != nil {
		return browser{}, err
	}
	who, err := a.Accounts.LoginOIDC(r.Context(), person.SubIss, person.External)
	if fault.Is(err, fault.NotFound) {
		return a.welcome(r, person, tried.Back)
	}
	if err != nil {
		return browser{}, err
	}
	reply, err := a.begin(r, who, person.IDToken, local(tried.Back))
	reply.cookies = append(reply.cookies, a.cookie(r, attemptCookie, ""))
	return reply, err
}

// welcome makes a user of who has come for the first time, or asks for a name.
func (a *API) welcome(r *request, person oidc.Person, back string) (browser, error) {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil {
		return browser{}, err
	}
	done := a.cookie(r, attemptCookie, "")
	if settings.OIDCAutoOnboard && person.Username != "" && (person.Named || settings.OIDCUserClaim == "") {
		who, err := a.Accounts.OnboardOIDC(r.Context(), person.SubIss, person.External)
		if err != nil {
			return browser{}, err
		}
		reply, err := a.begin(r, who, person.IDToken, local(back))
		reply.cookies = append(reply.cookies, done)
		return reply, err
	}
	id, err := a.Sessions.Keep(r.Context(), pending{person.External, person.SubIss, person.IDToken.Reveal(), back})
	return browser{[]*http.Cookie{done, a.cookie(r, pendingCookie, id.Reveal())}, oidcPath + "/onboard"}, err
}

// pending finds who is choosing a name.
func (a *API) pending(r *request) (p pending, id string, err error) {
	c, err := r.Cookie(pendingCookie)
	if err == nil {
		var ok bool
		if ok, err = a.Sessions.Pending(r.Context(), c.Value, &p); ok || err != nil {
			return p, c.Value, err
		}
	}
	return p, "", fault.New(fault.Precondition, "nobody is about to be made a user in this browser").WithHint("log in again")
}

//go:embed onboard.html
var onboardHTML string

//go:embed refused.html
var refusedHTML string

// refusalPage tells a person in a browser, whom the provider has sent here, why
// the login came to nothing.
func (a *API) refusalPage(w http.ResponseWriter, r *http.Request, status int, message string) {
	html, err := render(refusedHTML, map[string]string{"Message": message, "Again": oidcPath + "/login"})
	if err != nil {
		a.Log.Error("cannot render a page", "err", err)
	}
	writePage(w, status, html)
}

func render(text string, values map[string]string) (string, error) {
	t, err := template.New("page").Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = t.Execute(&b, values)
	return b.String(), err
}

func (a *API) oidcOnboardPage(r *request, _ none) (page, error) {
	p, _, err := a.pending(r)
	if err != nil {
		return page{}, err
	}
	html, err := render(onboardHTML, map[string]string{"Name": p.Username, "Field": csrfField, "Token": r.csrf, "Action": oidcPath + "/onboard"})
	return page{html}, err
}

func (a *API) oidcOnboard(r *request, _ none) (browser, error) {
	p, id, err := a.pending(r)
	if err != nil {
		return browser{}, err
	}
	var asked struct {
		Username string `json:"username"`
	}
	isJSON := strings.HasPrefix(r.Header.Get("Content-Type"), "application/json")
	if isJSON {
		err = readBody(r.Request, true, &asked)
	} else {
		asked.Username, _, err = r.form("username", "")
	}
	if err != nil {
		return browser{}, err
	}
	p.Username = asked.Username
	who, err := a.Accounts.OnboardOIDC(r.Context(), p.SubIss, p.External)
	if err != nil {
		return browser{}, err
	}
	if err := a.Sessions.Complete(r.Context(), id); err != nil {
		return browser{}, err
	}
	location := local(p.Back)
	if isJSON { // a script, which goes there itself
		location = ""
	}
	reply, err := a.begin(r, who, secret.Text(p.IDToken), location)
	reply.cookies = append(reply.cookies, a.cookie(r, pendingCookie, ""))
	return reply, err
}

func (a *API) oidcLogout(r *request, _ none) (browser, error) {
	reply := browser{[]*http.Cookie{a.sid(r, "")}, "/"}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return reply, nil // nobody is logged in
	}
	token, err := a.Sessions.End(r.Context(), c.Value)
	if err != nil || token == "" {
		return reply, err
	}
	there, err := a.OIDC.LogoutPage(r.Context(), token, strings.TrimSuffix(a.ExternalURL, "/")+"/")
	if err != nil {
		a.Log.Warn("cannot end a session at the OIDC provider", "err", err)
	} else if there != "" {
		reply.location = there
	}
	return reply, nil
}

func (a *API) pingOIDC(r *request, in struct {
	Body struct {
		URL    string `json:"url" doc:"absent: the one that is set"`
		Verify *bool  `json:"verify_cert"`
		CA     string `json:"ca_certificate"`
	} `body:""`
}) (empty, error) {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil {
		return empty{}, err
	}
	s := oidc.From(settings)
	if in.Body.URL != "" {
		s.Endpoint = in.Body.URL
	}
	if in.Body.Verify != nil {
		s.Verify = *in.Body.Verify
	}
	if in.Body.CA != "" {
		s.CA = in.Body.CA
	}
	if err := oidc.Ping(r.Context(), s, a.Dialer); err != nil {
		f := fault.Of(err)
		return empty{}, fault.Wrap(fault.Invalid, err, "%s", f.Text).On(f.Field).WithHint("%s", f.Hint) // 400, as in Harbor
	}
	return empty{}, nil
}
