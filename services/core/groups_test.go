package core_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestUserGroups(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const groups = "/api/v2.0/usergroups"
	ops := b.id(b.do("POST", groups, root, `{"group_name":"ops","group_type":3}`))
	b.want(b.do("POST", groups, root, `{"group_name":"ops","group_type":3}`), 409)
	b.id(b.do("POST", groups, root, `{"group_name":"ops","group_type":2}`))
	devs := b.id(b.do("POST", groups, root, `{"group_type":1,"ldap_group_dn":"CN=Devs, DC=example,DC=com"}`))
	b.want(b.do("POST", groups, root, `{"group_type":1,"ldap_group_dn":"cn=devs,dc=example,dc=com","group_name":"x"}`), 409)
	for _, body := range []string{`{"group_type":9,"group_name":"x"}`, `{"group_type":1,"group_name":"x"}`, `{"group_type":1,"ldap_group_dn":"x"}`, `{"group_type":3}`, `{"group_type":3,"group_name":"a\u0001"}`} {
		b.want(b.do("POST", groups, root, body), 400)
	}
	a := b.want(b.do("GET", fmt.Sprintf("%s/%d", groups, devs), root, ""), 200)
	if want := fmt.Sprintf(`{"group_name":"Devs","group_type":1,"id":%d,"ldap_group_dn":"CN=Devs, DC=example,DC=com"}`, devs); strings.TrimSpace(a.body) != want {
		t.Errorf("%s, want %s", a.body, want)
	}
	if a := b.want(b.do("GET", groups+"?ldap_group_dn=cn%3Ddevs,dc%3Dexample,dc%3Dcom", root, ""), 200); a.header.Get("X-Total-Count") != "1" {
		t.Errorf("%s", a.body)
	}
	b.want(b.do("PUT", fmt.Sprintf("%s/%d", groups, devs), root, `{"group_name":"developers"}`), 200)
	b.want(b.do("PUT", groups+"/99", root, `{"group_name":"developers"}`), 404)
	user := b.user("anna")
	if a := b.want(b.do("GET", groups+"/search?groupname=DEV", user, ""), 200); strings.TrimSpace(a.body) != fmt.Sprintf(`[{"group_name":"developers","group_type":1,"id":%d}]`, devs) {
		t.Errorf("%s", a.body)
	}
	b.want(b.do("GET", groups, user, ""), 403)

	// Members: by id, by name, by DN; what is not known yet becomes so.
	const members = "/api/v2.0/projects/library/members"
	mid := b.id(b.do("POST", members, root, fmt.Sprintf(`{"role_id":2,"member_group":{"id":%d}}`, ops)))
	b.want(b.do("POST", members, root, `{"role_id":2,"member_group":{"group_name":"ops","group_type":3}}`), 409)
	b.id(b.do("POST", members, root, `{"role_id":3,"member_group":{"group_name":"new","group_type":3}}`))
	b.id(b.do("POST", members, root, `{"role_id":1,"member_group":{"ldap_group_dn":"cn=devs,dc=EXAMPLE,dc=com"}}`))
	b.want(b.do("POST", members, root, `{"role_id":1,"member_group":{"id":99}}`), 404)
	b.want(b.do("POST", members, root, `{"role_id":1}`), 400)
	want := fmt.Sprintf(`{"entity_id":%d,"entity_name":"ops","entity_type":"g","id":%d,"project_id":1,"role_id":2,"role_name":"developer"}`, ops, mid)
	if a := b.want(b.do("GET", fmt.Sprintf("%s/%d", members, mid), root, ""), 200); strings.TrimSpace(a.body) != want {
		t.Errorf("%s, want %s", a.body, want)
	}
	if a := b.want(b.do("GET", members, root, ""), 200); a.header.Get("X-Total-Count") != "4" {
		t.Errorf("%s", a.body)
	}
	// A group that goes leaves all projects.
	b.want(b.do("DELETE", fmt.Sprintf("%s/%d", groups, ops), root, ""), 200)
	b.want(b.do("GET", fmt.Sprintf("%s/%d", members, mid), root, ""), 404)
	b.want(b.do("DELETE", fmt.Sprintf("%s/%d", groups, ops), root, ""), 404)
}
