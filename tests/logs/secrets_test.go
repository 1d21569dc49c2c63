package logs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/syslog"
	"berth/services/directory/slapdtest"
	"berth/services/segment"
	"berth/tests/berthtest"
)

// secrets are what must not be found, by where each was used.
type secrets map[string]string

func (s secrets) add(where, value string) string {
	s[where] = value
	return value
}

// caller sends requests that are out of the ordinary.
type caller struct {
	*testing.T
	*berthtest.Server
}

// send gives the answer's body and header; the status does not matter.
func (c caller) send(method, path, contentType, body string, header ...string) (string, http.Header) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.URL+path, strings.NewReader(body))
	if err != nil {
		c.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := *c.Client(c.T)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.Fatal(err)
	}
	return string(b), res.Header
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// No secret that goes through Berth is in what its log service keeps, in any
// file of it, nor on standard error or in the access log's file, even with
// everything logged that there is.
func TestSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	found := secrets{}
	dir := slapdtest.Start(t)
	temp := t.TempDir()
	config, password, access := filepath.Join(temp, "berth.yaml"), filepath.Join(temp, "password"), filepath.Join(temp, "access.log")
	for name, text := range map[string]string{
		config:   "allow_targets: [127.0.0.0/8]\nlog_level: debug\nlogs: {listen: 127.0.0.1:0}\naccess_log: " + access + "\n",
		password: found.add("the administrator's password", "Adm1n-"+berthtest.Name()) + "\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := berthtest.Start(t, berthtest.Options{Args: []string{"--config", config, "--admin-password-file", password}})
	c := caller{t, s}
	c.logins(found)
	c.users(found)
	c.settings(found, dir)
	c.webhooks(found)
	c.pushes(found)
	c.strangers(found)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"berth.key", "token.key"} {
		b, err := os.ReadFile(filepath.Join(s.Dir, "keys", file))
		if err != nil {
			t.Fatal(err)
		}
		found.add(file, string(bytes.TrimSpace(b)))
	}
	heap := map[string]string{"standard error and output": s.Log()}
	b, err := os.ReadFile(access)
	if err != nil {
		t.Fatal(err)
	}
	heap["the access log's file"] = string(b)
	heap["the store"] = readStore(t, filepath.Join(s.Dir, "logs"))
	for file, text := range readFiles(t, filepath.Join(s.Dir, "logs")) {
		heap[file] = text
	}
	if len(heap["the store"]) < 20_000 || len(heap["the access log's file"]) < 5000 {
		t.Errorf("only %d bytes were logged, and %d of access", len(heap["the store"]), len(b))
	}
	for _, secret := range found {
		if len(secret) < 8 {
			t.Errorf("%q is too short to look for", secret)
		}
	}
	for where, secret := range found {
		for _, form := range []string{secret, url.QueryEscape(secret), base64.StdEncoding.EncodeToString([]byte(secret))} {
			for place, text := range heap {
				if i := strings.Index(text, form); i >= 0 {
					t.Errorf("%s (%s) is in %s: …%s…", where, form, place, text[max(0, i-200):min(len(text), i+200)])
				}
			}
		}
	}
}

// logins come in all the ways there are, right and wrong.
func (c caller) logins(found secrets) {
	right, wrong := found["the administrator's password"], found.add("a wrong password", "Wr0ng-"+berthtest.Name())
	found.add("a Basic header", strings.TrimPrefix(basic("admin", wrong), "Basic "))
	for _, p := range []string{right, wrong} {
		c.send("GET", "/service/token?service=harbor-registry", "", "", "Authorization", basic("admin", p))
		c.send("POST", "/service/token", "application/x-www-form-urlencoded",
			url.Values{"grant_type": {"password"}, "service": {"harbor-registry"}, "username": {"admin"}, "password": {p}}.Encode())
		c.send("GET", "/v2/", "", "", "Authorization", basic("admin", p))
		c.send("GET", "/api/v2.0/projects", "", "", "Authorization", basic("admin", p))
		_, h := c.send("POST", "/c/login", "application/x-www-form-urlencoded", url.Values{"principal": {"admin"}, "password": {p}}.Encode())
		for i, cookie := range h.Values("Set-Cookie") {
			if _, value, _ := strings.Cut(strings.Split(cookie, ";")[0], "="); len(value) > 10 {
				found.add(fmt.Sprint("cookie ", i, p == right), value)
				c.send("GET", "/api/v2.0/users/current", "", "", "Cookie", strings.Split(cookie, ";")[0])
			}
		}
		// In the wrong place: a query, and a URL's user.
		c.send("GET", "/service/token?service=harbor-registry&account=admin&password="+url.QueryEscape(p), "", "")
		c.send("GET", "/api/v2.0/projects?q=password%3D"+url.QueryEscape(p)+"&access_token="+url.QueryEscape(p), "", "", "Authorization", basic("admin", right))
	}
	body, _ := c.send("GET", "/service/token?service=harbor-registry&scope=repository:library/app:push,pull", "", "", "Authorization", basic("admin", right))
	var token struct{ Token string }
	if err := json.Unmarshal([]byte(body), &token); err != nil || token.Token == "" {
		c.Fatalf("no token: %s", body)
	}
	found.add("a token", token.Token)
	found.add("a token's signature", token.Token[strings.LastIndexByte(token.Token, '.')+1:])
	c.send("GET", "/v2/library/app/tags/list", "", "", "Authorization", "Bearer "+token.Token)
	c.send("GET", "/v2/library/app/tags/list", "", "", "Authorization", "Bearer "+token.Token[:len(token.Token)-4]+"AAAA")
	c.send("GET", "/v2/library/app/tags/list?access_token="+token.Token, "", "")
}

// users and robots are made, with their passwords, secrets and tokens.
func (c caller) users(found secrets) {
	admin := c.Admin(c.T)
	first, next := found.add("a user's password", "Us3r-"+berthtest.Name()), found.add("a user's next password", "N3xt-"+berthtest.Name())
	user := map[string]any{"username": "jane", "email": "jane@example.org", "realname": "Jane", "password": first}
	c.API(c.T, admin, "POST", "/users", user, 201)
	user["password"] = found.add("a password that is refused", "tooweak-"+berthtest.Name()[:4])
	user["username"] = "jim"
	c.API(c.T, admin, "POST", "/users", map[string]any{"username": "jim", "email": "x", "realname": "x", "password": found["a password that is refused"]}, 400)
	jane := berthtest.Login{User: "jane", Password: first}
	var me struct {
		ID int64 `json:"user_id"`
	}
	decode(c.T, c.API(c.T, jane, "GET", "/users/current", nil, 200), &me)
	c.API(c.T, jane, "PUT", fmt.Sprintf("/users/%d/password", me.ID), map[string]any{"old_password": first, "new_password": next}, 200)
	body, _ := c.send("POST", fmt.Sprintf("/api/berth/v1/users/%d/tokens", me.ID), "application/json", `{"name":"ci","scope":"read","duration":1}`, "Authorization", basic("jane", next))
	var made struct {
		ID           int64
		Name, Secret string
	}
	decode(c.T, []byte(body), &made)
	found.add("a personal token", made.Secret)
	c.send("GET", "/v2/", "", "", "Authorization", basic("jane", made.Secret))
	robot := map[string]any{"name": "ci", "level": "system", "duration": 7, "permissions": []any{map[string]any{"kind": "project", "namespace": "*",
		"access": []any{map[string]any{"resource": "repository", "action": "pull"}, map[string]any{"resource": "repository", "action": "push"}}}}}
	decode(c.T, c.API(c.T, admin, "POST", "/robots", robot, 201), &made)
	c.send("GET", "/service/token?service=harbor-registry&scope=repository:library/app:pull", "", "", "Authorization", basic(made.Name, found.add("a robot's secret", made.Secret)))
	chosen := found.add("a robot's chosen secret", "R0bot-"+berthtest.Name())
	c.API(c.T, admin, "PATCH", fmt.Sprintf("/robots/%d", made.ID), map[string]any{"secret": chosen}, 200)
	c.send("GET", "/v2/", "", "", "Authorization", basic(made.Name, chosen))
	c.send("GET", "/v2/", "", "", "Authorization", basic(made.Name, made.Secret))
}

// settings have passwords of other services in them, which are used, too.
func (c caller) settings(found secrets, dir *slapdtest.Server) {
	admin := c.Admin(c.T)
	found.add("the directory's password", slapdtest.Password)
	c.API(c.T, admin, "PUT", "/configurations", map[string]any{"oidc_client_secret": found.add("the OIDC client's secret", "0idc-"+berthtest.Name()),
		"uaa_client_secret": found.add("the UAA client's secret", "uaa1-"+berthtest.Name()), "oidc_endpoint": "https://127.0.0.1:1/"}, 200, 400)
	for _, password := range []string{slapdtest.Password, found.add("a wrong search password", "S3arch-"+berthtest.Name())} {
		c.API(c.T, admin, "POST", "/ldap/ping", map[string]any{"ldap_url": dir.TLS, "ldap_base_dn": slapdtest.People, "ldap_search_dn": slapdtest.SearchDN,
			"ldap_search_password": password, "ldap_ca_certificate": dir.CA}, 200)
	}
	c.API(c.T, admin, "POST", "/system/oidc/ping", map[string]any{"url": "https://user:" + found.add("a password in a URL", "Ur1-"+berthtest.Name()) + "@127.0.0.1:1/", "verify_cert": true}, 200, 400)
	c.API(c.T, admin, "PUT", "/configurations", map[string]any{"ldap_url": dir.TLS, "ldap_ca_certificate": dir.CA, "ldap_base_dn": slapdtest.People, "ldap_uid": "uid",
		"ldap_search_dn": slapdtest.SearchDN, "ldap_search_password": slapdtest.Password}, 200)
	c.send("GET", "/api/v2.0/configurations", "", "", "Authorization", basic("admin", admin.Password))
}

// webhooks have headers and addresses that are secrets.
func (c caller) webhooks(found secrets) {
	admin := c.Admin(c.T)
	told := make(chan struct{}, 100)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot) // which is logged
		told <- struct{}{}
	}))
	defer target.Close()
	c.API(c.T, admin, "POST", "/projects/library/webhook/policies", map[string]any{"name": "x", "enabled": true, "event_types": []string{"PUSH_ARTIFACT"},
		"targets": []map[string]any{
			{"type": "http", "address": target.URL + "/" + found.add("a webhook's address", "Addr-"+berthtest.Name()), "auth_header": "Bearer " + found.add("a webhook's header", "H3ader-"+berthtest.Name())},
			{"type": "slack", "address": target.URL + "/services/" + found.add("a Slack address", "Slack-"+berthtest.Name())},
		}}, 201)
	c.Server.Registry(c.T, admin).PushImage(c.T, "library/hooked", "1", berthtest.NewImage(1, 1000))
	for range 2 {
		await(c.T, told, "a delivery")
	}
}

// pushes have upload states in their addresses, with which anyone could go on with them.
func (c caller) pushes(found secrets) {
	r := c.Server.Registry(c.T, c.Admin(c.T))
	reply := r.Do(c.T, "POST", "/v2/library/app/blobs/uploads/", nil)
	location := reply.Header.Get("Location")
	if u, err := url.Parse(location); err == nil {
		last := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
		if len(last) > 36 { // more than a UUID: the state itself
			found.add("an upload's state", last)
		}
		for key, values := range u.Query() {
			found.add("an upload's "+key, values[0])
		}
	}
	r.Do(c.T, "PATCH", location, []byte("hello"), "Content-Type", "application/octet-stream")
}

// strangers send what looks like other programs' lines to the port for syslog,
// as a machine's shell scripts do with an OVF environment.
func (c caller) strangers(found secrets) {
	conn, err := net.Dial("unix", filepath.Join(c.Dir, "run", "syslog.sock"))
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	ovf, pgp, db := found.add("an OVF property", "0vf-"+berthtest.Name()), found.add("an environment's password", "Env1-"+berthtest.Name()), found.add("a password in SQL", "Sq1-"+berthtest.Name())
	for _, line := range []string{
		`<14>vmtoolsd[1]: got <PropertySection><Property oe:key="appliance.admin_password" oe:value="` + ovf + `"/></PropertySection>`,
		`<14>setup[1]: + PGPASSWORD=` + pgp + ` psql`,
		`<14>postgres[1]: STATEMENT: ALTER ROLE berth WITH PASSWORD '` + db + `'`,
		`<14>1 2026-11-21T12:00:00Z h curl 1 - [x password="` + pgp + `"] Authorization: Bearer ` + ovf,
	} {
		if _, err := fmt.Fprintf(conn, "%s\n", line); err != nil {
			c.Fatal(err)
		}
	}
}

// readStore gives all messages, as they would be shown.
func readStore(t *testing.T, dir string) string {
	t.Helper()
	var b []byte
	messages(t, dir, func(r *segment.Record) bool {
		b = append(syslog.AppendJSON(b, &r.Message), '\n')
		return false
	})
	return string(b)
}

func readFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
