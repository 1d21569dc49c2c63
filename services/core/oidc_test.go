package core_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"berth/services/oidc/oidctest"
)

const callback = "https://registry.example.com/c/oidc/callback"

func oidcMode(t *testing.T, more map[string]any) (*bundle, *oidctest.Provider) {
	t.Helper()
	t.Parallel()
	b, p := setup(t), oidctest.Start(t, callback)
	values := map[string]any{"auth_mode": "oidc_auth", "oidc_endpoint": p.URL, "oidc_client_id": oidctest.Client, "oidc_client_secret": oidctest.Secret,
		"oidc_scope": "openid,profile,email", "oidc_ca_certificate": p.CA, "oidc_groups_claim": "groups", "oidc_user_claim": "preferred_username", "oidc_auto_onboard": true}
	for k, v := range more {
		values[k] = v
	}
	b.configure(values)
	return b, p
}

// signIn goes to the provider and comes back, and gives what the callback answers.
func (w *browser) signIn(p *oidctest.Provider, user string) answer {
	w.b.t.Helper()
	a := w.b.want(w.do("GET", "/c/oidc/login?redirect_url=/projects", ""), 302)
	back := p.Login(w.b.t, a.header.Get("Location"), user)
	if !strings.HasPrefix(back.String(), callback+"?") {
		w.b.t.Fatalf("sent back to %s", back)
	}
	return w.do("GET", "/c/oidc/callback?"+back.RawQuery, "")
}

func TestOIDC(t *testing.T) {
	b, p := oidcMode(t, map[string]any{"oidc_admin_group": "admins", "oidc_group_filter": "^dev"})
	w := b.browser()
	if a := b.want(w.signIn(p, "anna"), 302); a.header.Get("Location") != "/projects" {
		t.Errorf("sent to %s", a.header.Get("Location"))
	}
	me := decode[object](b.want(w.do("GET", "/api/v2.0/users/current", ""), 200), t)
	meta, _ := me["oidc_user_meta"].(object)
	if me["username"] != "anna" || me["email"] != "anna@example.com" || me["realname"] != "Anna Alt" || me["admin_role_in_auth"] != true || me["sysadmin_flag"] != false || meta["subiss"] != "id1"+p.URL {
		t.Errorf("%v", me)
	}
	if a := b.want(b.do("GET", "/api/v2.0/usergroups", root, ""), 200); !strings.Contains(a.body, `"group_name":"developers"`) || strings.Contains(a.body, "admins") {
		t.Errorf("%s", a.body)
	}
	// The CLI secret is a password for clients, and is shown to its owner alone.
	cli := fmt.Sprintf("anna:%v", meta["secret"])
	b.want(b.do("GET", "/api/v2.0/users", cli, ""), 200)
	b.want(b.browser().do("POST", "/c/login", fmt.Sprintf("principal=anna&password=%v", meta["secret"])), 401)
	path := fmt.Sprintf("/api/v2.0/users/%v", me["user_id"])
	if a := b.want(b.do("GET", path, root, ""), 200); strings.Contains(a.body, fmt.Sprint(meta["secret"])) || !strings.Contains(a.body, "subiss") {
		t.Errorf("%s", a.body)
	}
	b.want(w.do("PUT", path+"/cli_secret", `{"secret":"MyOwn12345"}`), 200)
	b.want(b.do("GET", "/api/v2.0/users/current", cli, ""), 401)
	b.want(b.do("GET", "/api/v2.0/users/current", "anna:MyOwn12345", ""), 200)
	b.want(w.do("PUT", path+"/cli_secret", `{}`), 200)
	b.want(b.do("GET", "/api/v2.0/users/current", "anna:MyOwn12345", ""), 401)
	b.want(b.do("POST", "/api/v2.0/users", root, `{"username":"x","email":"x@example.com","realname":"x","password":"Another12345"}`), 403)
	// A token of the provider's is as good, but for the user's credentials.
	again := b.browser()
	b.want(again.signIn(p, "anna"), 302)
	token, err := b.options.Sessions.End(t.Context(), again.cookies["sid"])
	if err != nil || token == "" {
		t.Fatal(err)
	}
	b.want(b.do("GET", "/api/v2.0/users/current", "", "", "Authorization", "Bearer "+token.Reveal()), 200)
	b.want(b.do("PUT", path+"/cli_secret", "", `{}`, "Authorization", "Bearer "+token.Reveal()), 403)
	b.want(b.do("GET", "/api/v2.0/users/current", "", "", "Authorization", "Bearer "+token.Reveal()+"x"), 401)
	b.want(b.do("GET", "/api/v2.0/users/current", "", "", "Authorization", "Bearer x"), 401)
	// What the provider says counts from the next login.
	p.Set(t, "id1", oidctest.User{Username: "renamed", FirstName: "A", LastName: "B", Email: "anna@example.com"})
	b.want(w.signIn(p, "renamed"), 302)
	me = decode[object](b.want(w.do("GET", "/api/v2.0/users/current", ""), 200), t)
	if me["username"] != "anna" || me["admin_role_in_auth"] != false || me["realname"] != "A B" {
		t.Errorf("%v", me)
	}
	b.want(w.do("GET", "/api/v2.0/users", ""), 403)
	// The first administrator comes in as ever.
	b.want(b.browser().do("POST", "/c/login", form), 200)
}

// Without auto-onboarding the person chooses a name, once.
func TestOIDCOnboarding(t *testing.T) {
	b, p := oidcMode(t, map[string]any{"oidc_auto_onboard": false})
	b.want(b.do("GET", "/c/oidc/onboard", "", ""), 412)
	w := b.browser()
	if a := b.want(w.signIn(p, "anna"), 302); a.header.Get("Location") != "/c/oidc/onboard" {
		t.Errorf("sent to %s", a.header.Get("Location"))
	}
	b.want(w.do("GET", "/api/v2.0/users/current", ""), 401)
	a := b.want(w.do("GET", "/c/oidc/onboard", ""), 200)
	_, rest, _ := strings.Cut(a.body, `name="gorilla.csrf.Token" value="`)
	token, _, _ := strings.Cut(rest, `"`)
	if token == "" || !strings.Contains(a.body, `value="anna"`) || !strings.Contains(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Fatalf("%v %s", a.header, a.body)
	}
	post := func(name string) answer {
		headers := w.headers([]string{"Content-Type", "application/x-www-form-urlencoded"}, true)
		a := b.do("POST", "/c/oidc/onboard", "", url.Values{"username": {name}, "gorilla.csrf.Token": {strings.ReplaceAll(token, "&#43;", "+")}}.Encode(), headers...)
		w.keep(a)
		return a
	}
	b.want(post("admin"), 409)
	b.want(post("a$b"), 400)
	if a := b.want(post("annie"), 302); a.header.Get("Location") != "/projects" {
		t.Errorf("sent to %s", a.header.Get("Location"))
	}
	if me := decode[object](b.want(w.do("GET", "/api/v2.0/users/current", ""), 200), t); me["username"] != "annie" {
		t.Errorf("%v", me)
	}
	b.want(post("again"), 412)
	// The next login knows the name; a script chooses one in JSON, as Harbor's portal does.
	if a := b.want(b.browser().signIn(p, "anna"), 302); a.header.Get("Location") != "/projects" {
		t.Errorf("sent to %s", a.header.Get("Location"))
	}
	w = b.browser()
	b.want(w.signIn(p, "ben"), 302)
	b.want(b.do("POST", "/c/oidc/onboard", "", `{"username":"ben"}`, w.headers([]string{"Content-Type", "application/json", "X-Harbor-CSRF-Token", "<CSRF>"}, true)...), 200)
}

// A login is worth nothing in another browser, twice, or with anything changed.
func TestOIDCForgery(t *testing.T) {
	b, p := oidcMode(t, nil)
	mine, other := b.browser(), b.browser()
	a := b.want(mine.do("GET", "/c/oidc/login?redirect_url=https://evil.example.com/", ""), 302)
	b.want(other.do("GET", "/c/oidc/login", ""), 302)
	page, _ := url.Parse(a.header.Get("Location"))
	if q := page.Query(); q.Get("code_challenge_method") != "S256" || len(q.Get("state")) < 32 || len(q.Get("nonce")) < 32 || q.Get("redirect_uri") != callback {
		t.Errorf("%s", page)
	}
	query := p.Login(t, a.header.Get("Location"), "anna").Query()
	try := func(w *browser, change func(url.Values), status int) {
		t.Helper()
		q := url.Values{}
		for k := range query {
			q.Set(k, query.Get(k))
		}
		change(q)
		if a := w.do("GET", "/c/oidc/callback?"+q.Encode(), ""); a.status != status || status != 302 && w.cookies["sid"] != "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	same := func(url.Values) {}
	try(other, same, 401)
	try(b.browser(), same, 401)
	try(mine, func(q url.Values) { q.Set("state", "x") }, 401)
	try(mine, func(q url.Values) { q.Del("state") }, 401)
	try(mine, func(q url.Values) { q.Set("error", "access_denied") }, 401)
	try(mine, func(q url.Values) { q.Set("code", "x") }, 401)
	// A person is told so on a page, on which nothing that came in the address means anything.
	a = b.do("GET", "/c/oidc/callback?state=x&error=%3Cscript%3E", "", "", "Accept", "text/html,*/*")
	if a.status != 401 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || strings.Contains(a.body, "<script>") || !strings.Contains(a.body, "did not begin in this browser") {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	// An attempt with another verifier: the provider knows that the code is not its.
	q := url.Values{"code": {query.Get("code")}}
	a = b.want(other.do("GET", "/c/oidc/login", ""), 302)
	page, _ = url.Parse(a.header.Get("Location"))
	q.Set("state", page.Query().Get("state"))
	b.want(other.do("GET", "/c/oidc/callback?"+q.Encode(), ""), 401)
}

func TestOIDCOpenRedirect(t *testing.T) {
	b, p := oidcMode(t, nil)
	for _, back := range []string{"https://evil.example.com/", "//evil.example.com", `/\evil.example.com`, "javascript:alert(1)", "/%09/evil", "x"} {
		w := b.browser()
		a := b.want(w.do("GET", "/c/oidc/login?redirect_url="+url.QueryEscape(back), ""), 302)
		query := p.Login(t, a.header.Get("Location"), "anna").RawQuery
		a = b.want(w.do("GET", "/c/oidc/callback?"+query, ""), 302)
		if to := a.header.Get("Location"); to != "/" && to != "/%09/evil" {
			t.Errorf("%q leads to %q", back, to)
		}
		b.want(w.do("GET", "/c/oidc/callback?"+query, ""), 401) // no second time
	}
}

func TestOIDCLogout(t *testing.T) {
	b, p := oidcMode(t, map[string]any{"oidc_logout": true})
	w := b.browser()
	b.want(w.signIn(p, "anna"), 302)
	if a := b.want(w.do("GET", "/c/log_out", ""), 302); a.header.Get("Location") != "/c/oidc/logout" {
		t.Errorf("sent to %s", a.header.Get("Location"))
	}
	a := b.want(w.do("GET", "/c/oidc/logout", ""), 302)
	to, _ := url.Parse(a.header.Get("Location"))
	if !strings.HasPrefix(a.header.Get("Location"), p.URL) || to.Query().Get("id_token_hint") == "" || to.Query().Get("post_logout_redirect_uri") != "https://registry.example.com/" {
		t.Errorf("sent to %s", to)
	}
	b.want(w.do("GET", "/api/v2.0/users/current", ""), 401)
	// A local administrator has no session at the provider.
	w = b.browser()
	b.want(w.do("POST", "/c/login", form), 200)
	b.want(w.do("GET", "/c/log_out", ""), 200)
}

func TestOIDCPing(t *testing.T) {
	b, p := oidcMode(t, nil)
	ping := func(body string, status int, text string) {
		t.Helper()
		if a := b.want(b.do("POST", "/api/v2.0/system/oidc/ping", root, body), status); !strings.Contains(a.body, text) {
			t.Errorf("%s: %s, want %q", body, a.body, text)
		}
	}
	ping(`{}`, 200, "")
	ping(fmt.Sprintf(`{"url":%q,"verify_cert":true}`, p.URL), 200, "")
	ping(fmt.Sprintf(`{"url":"%s/"}`, p.URL), 400, "the provider calls itself otherwise")
	ping(fmt.Sprintf(`{"url":"%s/nowhere"}`, p.URL), 400, "there is no provider")
	ping(`{"url":"https://127.0.0.1:1"}`, 400, "refuses connections")
	ping(`{"url":"https://no.such.name.invalid"}`, 400, "cannot be resolved")
	b.configure(map[string]any{"oidc_ca_certificate": ""})
	ping(fmt.Sprintf(`{"url":%q}`, p.URL), 400, "not trusted: put the authority's certificate into oidc_ca_certificate")
	ping(fmt.Sprintf(`{"url":%q,"verify_cert":false}`, p.URL), 200, "")
	b.want(b.browser().do("GET", "/c/oidc/login", ""), 503)
	b.configure(map[string]any{"oidc_verify_cert": false, "oidc_client_secret": "wrong"})
	w := b.browser()
	if a := b.want(w.signIn(p, "anna"), 503); !strings.Contains(a.body, "does not accept our client id or secret") {
		t.Errorf("%s", a.body)
	}
}

// Whatever cookies and parameters come back from a login page, nobody is logged
// in by them who has not been at the provider.
func FuzzCallback(f *testing.F) {
	b := setup(f)
	b.configure(map[string]any{"auth_mode": "oidc_auth", "oidc_endpoint": "https://127.0.0.1:1", "oidc_client_id": "x"})
	f.Add("state=x&code=y", "berth_oidc_attempt=AAAA; berth_oidc_pending=BBBB; sid=CCCC", "{}")
	f.Add("state=&code=", "berth_oidc_attempt=", `{"username":"x"}`)
	f.Add("error=x&error_description=%00", "berth_oidc_pending="+strings.Repeat("A", 43), "username=x")
	f.Fuzz(func(t *testing.T, query, cookies, body string) {
		if strings.ContainsFunc(query+cookies, func(r rune) bool { return r <= ' ' && r != ' ' || r >= 0x7f }) || strings.ContainsAny(query, "# ") {
			return // no HTTP server lets these through
		}
		b := *b
		b.t = t
		w := b.browser()
		cookies += "; " + strings.Join(w.headers(nil, true)[1:], "")
		for _, a := range []answer{
			b.do("GET", "/c/oidc/callback?"+query, "", "", "Cookie", cookies),
			b.do("GET", "/c/oidc/onboard", "", "", "Cookie", cookies),
			b.do("POST", "/c/oidc/onboard", "", body, "Cookie", cookies, "Content-Type", "application/json", "X-Harbor-CSRF-Token", w.token),
		} {
			if a.status < 400 || a.status == 500 || strings.Contains(a.header.Get("Set-Cookie"), "sid=") {
				t.Errorf("%q %q %q: %d %s", query, cookies, body, a.status, a.body)
			}
		}
	})
}
