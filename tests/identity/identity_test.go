// Package identity lets people from elsewhere into a whole Berth: users of an LDAP directory and of an OpenID Connect
// provider, both of them real servers, as docker and as a browser.
package identity

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/services/directory/slapdtest"
	"berth/services/oidc/oidctest"
	"berth/tests/berthtest"
)

// start runs a Berth that may connect to the test's servers, which are on this machine's loopback interface.
func start(t *testing.T) *berthtest.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "berth.yaml")
	if err := os.WriteFile(file, []byte("allow_targets: [127.0.0.0/8]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return berthtest.Start(t, berthtest.Options{Args: []string{"--config", file}})
}

func configure(t *testing.T, s *berthtest.Server, values map[string]any) {
	t.Helper()
	s.API(t, s.Admin(t), "PUT", "/configurations", values, http.StatusOK)
}

func ldap(dir *slapdtest.Server) map[string]any {
	return map[string]any{"auth_mode": "ldap_auth", "ldap_url": dir.TLS, "ldap_ca_certificate": dir.CA, "ldap_base_dn": slapdtest.People, "ldap_uid": "uid",
		"ldap_search_dn": slapdtest.SearchDN, "ldap_search_password": slapdtest.Password, "ldap_group_base_dn": slapdtest.Groups}
}

// push sends an image through the registry with tokens of the token service, as docker does.
func push(t *testing.T, s *berthtest.Server, who berthtest.Login, repository string) int {
	t.Helper()
	image := berthtest.NewImage(1, 1000)
	reply := s.Registry(t, who).Do(t, "POST", "/v2/"+repository+"/blobs/uploads/", nil)
	if reply.StatusCode != http.StatusAccepted {
		return reply.StatusCode
	}
	s.Registry(t, who).PushImage(t, repository, "v1", image)
	return http.StatusCreated
}

func TestLDAP(t *testing.T) {
	t.Parallel()
	dir := slapdtest.Start(t)
	s := start(t)
	configure(t, s, ldap(dir))
	s.CreateProject(t, "team", false)
	anna, carl := berthtest.Login{User: "anna", Password: slapdtest.Password}, berthtest.Login{User: "carl", Password: slapdtest.Password}
	if status := push(t, s, anna, "team/app"); status != http.StatusUnauthorized && status != http.StatusForbidden {
		t.Errorf("a push before there is a role: %d", status)
	}
	s.API(t, s.Admin(t), "POST", "/projects/team/members", map[string]any{"role_id": berthtest.Developer,
		"member_group": map[string]any{"ldap_group_dn": "cn=developers," + slapdtest.Groups}}, http.StatusCreated)
	if status := push(t, s, anna, "team/app"); status != http.StatusCreated {
		t.Errorf("a push by a member of the group: %d", status)
	}
	if status := push(t, s, carl, "team/app"); status == http.StatusCreated {
		t.Error("somebody else has pushed, too")
	}
	// A token of her own, for a machine that only pulls.
	var me struct {
		ID int64 `json:"user_id"`
	}
	if err := json.Unmarshal(s.API(t, anna, "GET", "/users/current", nil, http.StatusOK), &me); err != nil {
		t.Fatal(err)
	}
	var made struct{ Secret string }
	if err := json.Unmarshal(berthAPI(t, s, anna, "POST", fmt.Sprintf("/users/%d/tokens", me.ID), `{"name":"ci","scope":"read","projects":["team"],"duration":1}`), &made); err != nil {
		t.Fatal(err)
	}
	machine := berthtest.Login{User: "anna", Password: made.Secret}
	if reply := s.Registry(t, machine).Do(t, "GET", "/v2/team/app/manifests/v1", nil); reply.StatusCode != http.StatusOK {
		t.Errorf("a pull with the token: %d %s", reply.StatusCode, reply.Data)
	}
	if status := push(t, s, machine, "team/app"); status == http.StatusCreated {
		t.Error("the token that only reads has pushed")
	}
	// Whoever leaves the directory is out. What was verified a moment ago is remembered for a minute, and this spelling of
	// the name was not.
	dir.Delete(t, slapdtest.PersonDN("anna"))
	for _, password := range []string{anna.Password, machine.Password} {
		if status := token(t, s, berthtest.Login{User: "ANNA", Password: password}); status != http.StatusUnauthorized {
			t.Errorf("she is gone from the directory, and a login is a %d", status)
		}
	}
}

// token asks the token service, as `docker login` does, and gives the status.
func token(t *testing.T, s *berthtest.Server, who berthtest.Login) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/service/token?service=harbor-registry", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(who.User, who.Password)
	res, err := s.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func berthAPI(t *testing.T, s *berthtest.Server, who berthtest.Login, method, path, body string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/berth/v1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(who.User, who.Password)
	res, err := s.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, res.Status, out, err)
	}
	return out
}

// Without the administrator's word Berth connects to nothing on its own machine, and says why.
func TestLoopbackIsRefused(t *testing.T) {
	t.Parallel()
	dir := slapdtest.Start(t)
	s := berthtest.Start(t, berthtest.Options{})
	out := s.API(t, s.Admin(t), "POST", "/ldap/ping", map[string]any{"ldap_url": dir.URL, "ldap_base_dn": slapdtest.Base}, http.StatusOK)
	if !strings.Contains(string(out), `"success":false`) || !strings.Contains(string(out), "allow_targets") {
		t.Errorf("%s", out)
	}
}

// A page is a browser: it keeps cookies, and repeats the CSRF token of the last answer.
type page struct {
	s      *berthtest.Server
	client *http.Client
	csrf   string
}

func browse(t *testing.T, s *berthtest.Server) *page {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := *s.Client(t)
	c.Jar = jar
	return &page{s: s, client: &c}
}

func (p *page) do(t *testing.T, method, target, body, contentType string) (*http.Response, string) {
	t.Helper()
	if strings.HasPrefix(target, "/") {
		target = p.s.URL + target
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Harbor-CSRF-Token", p.csrf)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if token := res.Header.Get("X-Harbor-CSRF-Token"); token != "" {
		p.csrf = token
	}
	return res, string(out)
}

func TestOIDC(t *testing.T) {
	t.Parallel()
	s := start(t)
	idp := oidctest.Start(t, s.URL+"/c/oidc/callback")
	configure(t, s, map[string]any{"auth_mode": "oidc_auth", "oidc_endpoint": idp.URL, "oidc_client_id": oidctest.Client, "oidc_client_secret": oidctest.Secret,
		"oidc_scope": "openid,profile,email", "oidc_ca_certificate": idp.CA, "oidc_groups_claim": "groups", "oidc_user_claim": "preferred_username", "oidc_auto_onboard": true})
	s.CreateProject(t, "team", false)
	s.API(t, s.Admin(t), "POST", "/projects/team/members", map[string]any{"role_id": berthtest.Developer,
		"member_group": map[string]any{"group_name": "developers", "group_type": 3}}, http.StatusCreated)

	p := browse(t, s)
	res, _ := p.do(t, "GET", "/c/oidc/login", "", "")
	res, out := p.do(t, "GET", idp.Login(t, res.Header.Get("Location"), "anna").String(), "", "")
	if res.StatusCode != http.StatusFound || res.Header.Get("Location") != "/" {
		t.Fatalf("after the login: %s %s %s", res.Status, res.Header.Get("Location"), out)
	}
	for _, c := range res.Cookies() {
		if c.Name == "sid" && (!c.Secure || !c.HttpOnly) {
			t.Errorf("cookie %v", c)
		}
	}
	res, out = p.do(t, "GET", "/api/v2.0/users/current", "", "")
	var me struct {
		ID   int64 `json:"user_id"`
		Meta struct {
			Secret string `json:"secret"`
		} `json:"oidc_user_meta"`
	}
	if err := json.Unmarshal([]byte(out), &me); err != nil || me.Meta.Secret == "" {
		t.Fatalf("%s %s", res.Status, out)
	}
	// The browser may change things with its CSRF token; docker comes with the CLI secret.
	if res, out := p.do(t, "PUT", fmt.Sprintf("/api/v2.0/users/%d/cli_secret", me.ID), `{"secret":"MyDocker12345"}`, "application/json"); res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", res.Status, out)
	}
	docker := berthtest.Login{User: "anna", Password: "MyDocker12345"}
	if status := push(t, s, docker, "team/app"); status != http.StatusCreated {
		t.Errorf("a push with the CLI secret: %d", status)
	}
	if status := token(t, s, berthtest.Login{User: "anna", Password: me.Meta.Secret}); status != http.StatusUnauthorized {
		t.Errorf("the secret of before: %d", status)
	}
	if res, out := p.do(t, "GET", "/c/log_out", "", ""); res.StatusCode != http.StatusOK {
		t.Errorf("%s %s", res.Status, out)
	}
	if res, _ := p.do(t, "GET", "/api/v2.0/users/current", "", ""); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the logout: %s", res.Status)
	}
	// The administrator's own way in is as it was.
	form := url.Values{"principal": {"admin"}, "password": {s.AdminPassword(t)}}.Encode()
	if res, out := p.do(t, "POST", "/c/login", form, "application/x-www-form-urlencoded"); res.StatusCode != http.StatusOK {
		t.Errorf("%s %s", res.Status, out)
	}
}
