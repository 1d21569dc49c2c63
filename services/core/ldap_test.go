package core_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"berth/services/directory/slapdtest"
)

// ldap makes a Berth whose users are in a directory.
func ldap(t *testing.T) (*bundle, *slapdtest.Server) {
	t.Helper()
	t.Parallel()
	b, s := setup(t), slapdtest.Start(t)
	b.configure(map[string]any{"auth_mode": "ldap_auth", "ldap_url": s.URL, "ldap_base_dn": slapdtest.People, "ldap_uid": "uid",
		"ldap_search_dn": slapdtest.SearchDN, "ldap_search_password": slapdtest.Password, "ldap_group_base_dn": slapdtest.Groups})
	return b, s
}

func (b *bundle) configure(values map[string]any) {
	b.t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		b.t.Fatal(err)
	}
	b.want(b.do("PUT", "/api/v2.0/configurations", root, string(text)), 200)
}

func TestLDAP(t *testing.T) {
	b, s := ldap(t)
	const anna, ben = "anna:" + slapdtest.Password, "ben:" + slapdtest.Password
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"vault"}`), 201)
	b.want(b.do("GET", "/api/v2.0/projects/vault", anna, ""), 403)
	dn := "cn=developers," + slapdtest.Groups
	b.id(b.do("POST", "/api/v2.0/projects/vault/members", root, fmt.Sprintf(`{"role_id":1,"member_group":{"ldap_group_dn":%q}}`, strings.ToUpper(dn))))
	if a := b.want(b.do("GET", "/api/v2.0/projects/vault", anna, ""), 200); !strings.Contains(a.body, `"current_user_role_ids":[1]`) {
		t.Errorf("%s", a.body)
	}
	b.want(b.do("PUT", "/api/v2.0/projects/vault", ben, `{"metadata":{"public":"false"}}`), 200)
	b.want(b.do("GET", "/api/v2.0/projects/vault", "carl:"+slapdtest.Password, ""), 403)
	b.id(b.do("POST", "/api/v2.0/projects/vault/members", root, `{"role_id":3,"member_user":{"username":"dora"}}`))
	b.want(b.do("GET", "/api/v2.0/projects/vault", "dora:"+slapdtest.Password, ""), 200)
	b.want(b.do("POST", "/api/v2.0/projects/vault/members", root, `{"role_id":3,"member_user":{"username":"nobody"}}`), 404)
	// A project's administrator cannot make groups up.
	b.want(b.do("POST", "/api/v2.0/projects/vault/members", anna, `{"role_id":1,"member_group":{"ldap_group_dn":"cn=gone,`+slapdtest.Groups+`"}}`), 404)
	me := decode[object](b.want(b.do("GET", "/api/v2.0/users/current", anna, ""), 200), t)
	b.want(b.do("PUT", fmt.Sprintf("/api/v2.0/users/%v/password", me["user_id"]), anna, `{"old_password":"`+slapdtest.Password+`","new_password":"Another12345"}`), 403)
	b.want(b.do("PUT", fmt.Sprintf("/api/v2.0/users/%v/cli_secret", me["user_id"]), anna, `{"secret":"Another12345"}`), 412)
	b.want(b.do("POST", "/api/v2.0/users", root, `{"username":"x","email":"x@example.com","realname":"x","password":"Another12345"}`), 403)
	b.want(b.do("POST", "/api/v2.0/configurations", root, ""), 405)
	b.want(b.do("PUT", "/api/v2.0/configurations", root, `{"auth_mode":"db_auth"}`), 400)
	w := b.browser()
	b.want(w.do("POST", "/c/login", "principal=ben&password="+slapdtest.Password), 200)
	b.want(w.do("GET", "/api/v2.0/projects/vault", ""), 200)
	b.want(w.do("POST", "/c/userExists", "target=username&value=ben"), 412)
	// Whoever leaves the directory loses the session: here before it was ever used.
	carl := b.browser()
	b.want(carl.do("POST", "/c/login", "principal=carl&password="+slapdtest.Password), 200)
	s.Delete(t, slapdtest.PersonDN("carl"))
	b.want(carl.do("GET", "/api/v2.0/users/current", ""), 401)
	s.Stop()
	b.want(w.do("GET", "/api/v2.0/projects/vault", ""), 200)
	b.want(b.do("GET", "/api/v2.0/projects/vault", "o'neill (x)*:x", ""), 503)
	b.want(b.do("GET", "/api/v2.0/projects/vault", root, ""), 200)
}

func TestLDAPRoutes(t *testing.T) {
	b, s := ldap(t)
	get := func(path string) string {
		t.Helper()
		return strings.TrimSpace(b.want(b.do("GET", "/api/v2.0/ldap/"+path, root, ""), 200).body)
	}
	if got, want := get("users/search?username=ben"), `[{"email":"ben@example.com","realname":"The ben","username":"ben"}]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := get("users/search?username=nobody"); got != "[]" {
		t.Errorf("%s", got)
	}
	if got, want := get("groups/search?groupname=dev"), `[{"group_name":"developers","group_type":1,"ldap_group_dn":"cn=developers,ou=groups,dc=example,dc=com"}]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := get("groups/search?groupdn=cn%3Dstaff," + slapdtest.Groups); !strings.Contains(got, `"group_name":"staff"`) {
		t.Errorf("%s", got)
	}
	b.want(b.do("GET", "/api/v2.0/ldap/groups/search?groupdn=x", root, ""), 400)
	b.want(b.do("GET", "/api/v2.0/ldap/groups/search?groupdn=cn%3Dx,"+slapdtest.Groups, root, ""), 404)
	b.want(b.do("POST", "/api/v2.0/ldap/users/import", root, `{"ldap_uid_list":["ben","carl"]}`), 200)
	if a := b.want(b.do("POST", "/api/v2.0/ldap/users/import", root, `{"ldap_uid_list":["dora","nobody"]}`), 404); strings.TrimSpace(a.body) != `[{"error":"the directory has no user nobody","uid":"nobody"}]` {
		t.Errorf("%s", a.body)
	}
	b.want(b.do("POST", "/api/v2.0/ldap/users/import", root, `{}`), 400)
	if a := b.want(b.do("GET", "/api/v2.0/users", root, ""), 200); a.header.Get("X-Total-Count") != "3" {
		t.Errorf("%s", a.body)
	}
	ping := func(body, want string) {
		t.Helper()
		if a := b.want(b.do("POST", "/api/v2.0/ldap/ping", root, body), 200); !strings.Contains(a.body, want) {
			t.Errorf("%s: %s, want %s", body, a.body, want)
		}
	}
	ping("", `"success":true`)
	ping("{}", `"success":true`)
	ping(`{"ldap_base_dn":"ou=gone,dc=example,dc=com"}`, `does not exist`)
	// The stored password goes to the stored address and to no other.
	ping(fmt.Sprintf(`{"ldap_url":%q,"ldap_search_dn":%q,"ldap_verify_cert":false}`, s.TLS, slapdtest.SearchDN), `the search DN has no password`)
	ping(fmt.Sprintf(`{"ldap_url":%q,"ldap_search_dn":%q,"ldap_search_password":%q,"ldap_verify_cert":false}`, s.TLS, slapdtest.SearchDN, slapdtest.Password), `"success":true`)
}

func TestAccessTokens(t *testing.T) {
	t.Parallel()
	b := setup(t)
	anna := b.user("anna")
	me := decode[object](b.do("GET", "/api/v2.0/users/current", anna, ""), t)
	tokens := fmt.Sprintf("/api/berth/v1/users/%v/tokens", me["user_id"])
	b.want(b.do("POST", "/api/v2.0/projects", anna, `{"project_name":"mine"}`), 201)
	b.want(b.do("POST", "/api/v2.0/projects", anna, `{"project_name":"also"}`), 201)
	b.want(b.do("POST", "/api/v2.0/projects", root, `{"project_name":"vault"}`), 201)
	make := func(body string) (string, string) {
		t.Helper()
		a := b.want(b.do("POST", tokens, anna, body), 201)
		return a.header.Get("Location"), "anna:" + decode[struct{ Secret string }](a, t).Secret
	}
	_, reader := make(`{"name":"reader","scope":"read","duration":30}`)
	mine, writer := make(`{"name":"writer","scope":"write","projects":["mine"],"duration":-1}`)
	_, wide := make(`{"name":"wide","scope":"write","duration":1}`)
	for _, body := range []string{`{"name":"x","scope":"admin","duration":1}`, `{"name":"x","scope":"read"}`, `{"scope":"read","duration":1}`, `{"name":"x","scope":"read","duration":1,"projects":["vault"]}`, `{"name":"x","scope":"read","duration":1,"projects":["nosuch"]}`} {
		b.want(b.do("POST", tokens, anna, body), 400)
	}
	const project = "/api/v2.0/projects/"
	b.want(b.do("GET", project+"mine", reader, ""), 200)
	b.want(b.do("PUT", project+"mine", reader, `{"metadata":{"public":"true"}}`), 403)
	b.want(b.do("POST", "/api/v2.0/projects", reader, `{"project_name":"new"}`), 403)
	b.want(b.do("PUT", project+"mine", writer, `{"metadata":{"public":"false"}}`), 200)
	b.want(b.do("GET", project+"also", writer, ""), 403)
	b.want(b.do("GET", project+"vault", wide, ""), 403)
	b.want(b.do("POST", "/api/v2.0/projects", wide, `{"project_name":"new"}`), 201)
	if a := b.want(b.do("GET", "/api/v2.0/projects", writer, ""), 200); a.header.Get("X-Total-Count") != "1" {
		t.Errorf("%s", a.body)
	}
	// No token manages its user's credentials, or logs a browser in.
	user := fmt.Sprintf("/api/v2.0/users/%v", me["user_id"])
	b.want(b.do("GET", user, wide, ""), 200)
	for _, who := range []string{reader, writer, wide} {
		b.want(b.do("GET", tokens, who, ""), 403)
		b.want(b.do("POST", tokens, who, `{"name":"y","scope":"write","duration":1}`), 403)
		b.want(b.do("PUT", user+"/password", who, `{"old_password":"`+password+`","new_password":"Another12345"}`), 403)
		b.want(b.do("PUT", user, who, `{"email":"y@example.com","realname":"y"}`), 403)
		name, secret, _ := strings.Cut(who, ":")
		b.want(b.browser().do("POST", "/c/login", "principal="+name+"&password="+secret), 401)
	}
	// Not even an administrator's does that, though it manages others.
	secret := decode[struct{ Secret string }](b.want(b.do("POST", "/api/berth/v1/users/1/tokens", root, `{"name":"wide","scope":"write","duration":1}`), 201), t).Secret
	b.want(b.do("PUT", user, "admin:"+secret, `{"email":"anna@example.com","realname":"y"}`), 200)
	b.want(b.do("PUT", "/api/v2.0/users/1/password", "admin:"+secret, `{"old_password":"`+password+`","new_password":"Another12345"}`), 403)
	b.want(b.do("GET", "/api/berth/v1/users/1/tokens", "admin:"+secret, ""), 403)
	// Nor is anybody's made by somebody else; an administrator may look and revoke.
	b.want(b.do("POST", tokens, root, `{"name":"y","scope":"read","duration":1}`), 403)
	list := decode[[]object](b.want(b.do("GET", tokens, root, ""), 200), t)
	if len(list) != 3 || list[0]["name"] != "reader" || list[0]["projects"] != nil || fmt.Sprint(list[2]["projects"]) != "[mine]" || list[2]["expires_at"] != nil || list[0]["secret"] != nil {
		t.Errorf("%v", list)
	}
	b.want(b.do("GET", tokens, b.user("ben"), ""), 403)
	b.want(b.do("DELETE", mine, root, ""), 200)
	b.want(b.do("GET", project+"mine", writer, ""), 401)
}
