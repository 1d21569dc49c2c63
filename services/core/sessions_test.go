package core_test

import (
	"net/http"
	"strings"
	"testing"
)

// browser has cookies, and the CSRF token of the last answer.
type browser struct {
	b       *bundle
	cookies map[string]string
	token   string
}

func (w *browser) headers(given []string, cookies bool) []string {
	all := append([]string{}, given...)
	for i, h := range all {
		if h == "<CSRF>" {
			all[i] = w.token
		}
	}
	if cookies {
		var list []string
		for name, value := range w.cookies {
			list = append(list, name+"="+value)
		}
		all = append(all, "Cookie", strings.Join(list, "; "))
	}
	return all
}

func (w *browser) keep(a answer) {
	if t := a.header.Get("X-Harbor-Csrf-Token"); t != "" {
		w.token = t
	}
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if w.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(w.cookies, c.Name)
		}
	}
}

// do sends a request as a page of ours would.
func (w *browser) do(method, path, body string, headers ...string) answer {
	w.b.t.Helper()
	if method != "GET" {
		headers = append(headers, "X-Harbor-CSRF-Token", "<CSRF>")
	}
	if strings.HasPrefix(path, "/c/") {
		headers = append(headers, "Content-Type", "application/x-www-form-urlencoded")
	}
	a := w.b.do(method, path, "", body, w.headers(headers, true)...)
	w.keep(a)
	return a
}

func (b *bundle) browser() *browser {
	w := &browser{b: b, cookies: map[string]string{}}
	w.keep(b.do("GET", "/c/login", "", "")) // any answer below /c/ has a token
	return w
}

const form = "principal=admin&password=" + password

func TestLogin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.browser()
	b.want(w.do("POST", "/c/login", "principal=admin&password=wrong"), 401)
	a := b.want(w.do("POST", "/c/login", form, "X-Forwarded-Proto", "https"), 200)
	if c := a.header.Get("Set-Cookie"); !strings.HasPrefix(c, "sid=") || !strings.Contains(c, "; Path=/; HttpOnly; Secure; SameSite=Lax") {
		t.Errorf("cookie %s", c)
	}
	first := w.cookies["sid"]
	b.want(w.do("GET", "/api/v2.0/users/current", ""), 200)
	b.want(w.do("POST", "/api/v2.0/projects", `{"project_name":"made"}`), 201)
	// Another login makes another id, and the old one means nothing any more.
	b.want(w.do("POST", "/c/login", form), 200)
	if w.cookies["sid"] == first {
		t.Error("the session's id is the same after a login")
	}
	b.want(b.do("GET", "/api/v2.0/users/current", "", "", "Cookie", "sid="+first), 401)
	b.want(b.do("GET", "/api/v2.0/users/current", root, "", "Cookie", "sid="+first), 200)
	b.want(w.do("GET", "/c/log_out", ""), 200)
	if w.cookies["sid"] != "" {
		t.Error("the cookie stays")
	}
	b.want(w.do("GET", "/api/v2.0/users/current", ""), 401)
	var events string
	if err := b.pool.QueryRow(t.Context(), `SELECT string_agg((args->>'operation') || ' ' || (args->>'success'), ', ' ORDER BY id) FROM river_job WHERE args->>'operation' LIKE 'log%'`).Scan(&events); err != nil ||
		events != "login false, login true, logout true, login true, logout true" {
		t.Errorf("events %s, %v", events, err)
	}
}

// Requests without a cookie leave no session, and need no token.
func TestNoSessionWithoutLogin(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, user := range []string{"", root} {
		if a := b.do("GET", "/api/v2.0/systeminfo", user, ""); len(a.header["Set-Cookie"]) != 0 || a.header.Get("X-Harbor-Csrf-Token") != "" {
			t.Errorf("%v", a.header)
		}
	}
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"made"}`), 201)
}

func TestCSRF(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w, other := b.browser(), b.browser()
	b.want(w.do("POST", "/c/login", form), 200)
	try := func(why string, status int, headers ...string) {
		t.Helper()
		a := b.do("POST", "/api/v2.0/projects", "", `{"project_name":"p`+why+`"}`, headers...)
		if a.status != status {
			t.Errorf("%s: %d %s", why, a.status, a.body)
		}
		if a.header.Get("X-Harbor-Csrf-Token") == "" {
			t.Errorf("%s: the answer has no token", why)
		}
	}
	sid, csrf := "sid="+w.cookies["sid"], "_gorilla_csrf="+w.cookies["_gorilla_csrf"]
	try("good", 201, "Cookie", sid+"; "+csrf, "X-Harbor-CSRF-Token", w.token)
	try("no-token", 403, "Cookie", sid+"; "+csrf)
	try("no-cookie", 403, "Cookie", sid, "X-Harbor-CSRF-Token", w.token)
	try("another-token", 403, "Cookie", sid+"; "+csrf, "X-Harbor-CSRF-Token", other.token)
	try("made-up-cookie", 403, "Cookie", sid+"; _gorilla_csrf="+strings.Repeat("A", 86), "X-Harbor-CSRF-Token", w.token)
	try("garbage", 403, "Cookie", sid+"; "+csrf, "X-Harbor-CSRF-Token", "%%%")
	try("short", 403, "Cookie", sid+"; "+csrf, "X-Harbor-CSRF-Token", "AAAA")
	// The other browser's own pair is good: the check is against other sites' pages.
	try("another-pair", 201, "Cookie", sid+"; _gorilla_csrf="+other.cookies["_gorilla_csrf"], "X-Harbor-CSRF-Token", other.token)
	// A client with a session's cookie and a password is asked, too, as in Harbor.
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"x"}`, "Cookie", "sid=x"), 403)
	if a := b.do("GET", "/api/v2.0/ping", "", "", "Cookie", sid+"; "+csrf); a.header.Get("X-Harbor-Csrf-Token") == w.token || len(a.header["Set-Cookie"]) != 0 {
		t.Errorf("%v", a.header)
	}
}

func TestUserExists(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.user("anna")
	w := b.browser()
	b.want(w.do("POST", "/c/userExists", "target=username&value=anna"), 401)
	b.want(w.do("POST", "/c/login", form), 200)
	for form, want := range map[string]string{"target=username&value=ANNA": "true", "target=username&value=x": "false", "target=email&value=anna@example.com": "true"} {
		if a := b.want(w.do("POST", "/c/userExists", form), 200); strings.TrimSpace(a.body) != want {
			t.Errorf("%s: %s", form, a.body)
		}
	}
	b.want(w.do("POST", "/c/userExists", "target=x&value=x"), 400)
	b.want(w.do("POST", "/c/userExists", "target=username&value=%ff"), 422)
}

func FuzzCSRFToken(f *testing.F) {
	b := setup(f)
	w := b.browser()
	f.Add("", "")
	f.Add("AAAA", strings.Repeat("A", 86))
	good := w.cookies["_gorilla_csrf"]
	f.Fuzz(func(t *testing.T, token, cookie string) {
		if strings.ContainsFunc(token+cookie, func(r rune) bool { return r < ' ' || r >= 0x7f }) || strings.ContainsAny(cookie, `;", \`) {
			return
		}
		b := *b
		b.t = t
		a := b.do("POST", "/c/login", "", "principal=x&password=x", "Content-Type", "application/x-www-form-urlencoded", "X-Harbor-CSRF-Token", token, "Cookie", "_gorilla_csrf="+cookie)
		if a.status != 403 && cookie != good {
			t.Errorf("token %q, cookie %q: %d %s", token, cookie, a.status, a.body)
		}
	})
}
