package oidc

import (
	"encoding/json"
	"strings"
	"testing"
)

func claims(t testing.TB, text string) (all map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func names(p Person) string {
	var all []string
	for _, g := range p.Groups {
		all = append(all, g.Name)
	}
	return strings.Join(all, " ")
}

func TestPerson(t *testing.T) {
	t.Parallel()
	const anna = `{"sub":"1","preferred_username":"anna","name":"Anna Alt","email":" anna@example.com ","nick":"an na","groups":["b","a","b","",7,"admins"],"one":"solo"}`
	for name, c := range map[string]struct {
		settings                         Settings
		username, realname, email, group string
		named, admin                     bool
	}{
		"usual":                     {Settings{}, "anna", "Anna Alt", "anna@example.com", "", false, false},
		"another claim":             {Settings{UserClaim: "nick"}, "an_na", "Anna Alt", "anna@example.com", "", true, false},
		"a claim that is not there": {Settings{UserClaim: "upn"}, "anna", "Anna Alt", "anna@example.com", "", false, false},
		"groups":                    {Settings{GroupsClaim: "groups"}, "anna", "Anna Alt", "anna@example.com", "a admins b", false, false},
		"one group":                 {Settings{GroupsClaim: "one"}, "anna", "Anna Alt", "anna@example.com", "solo", false, false},
		"filter and admin":          {Settings{GroupsClaim: "groups", GroupFilter: "^b$", AdminGroup: "admins"}, "anna", "Anna Alt", "anna@example.com", "b", false, true},
		"no admin by name":          {Settings{GroupsClaim: "groups", AdminGroup: "ADMINS"}, "anna", "Anna Alt", "anna@example.com", "a admins b", false, false},
		"no groups, no admin":       {Settings{AdminGroup: "admins"}, "anna", "Anna Alt", "anna@example.com", "", false, false},
	} {
		p := c.settings.person(claims(t, anna))
		if p.Username != c.username || p.Realname != c.realname || p.Email != c.email || names(p) != c.group || p.Named != c.named || p.Admin != c.admin {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// What the login's safety rests on cannot be set from outside.
func TestExtraParameters(t *testing.T) {
	t.Parallel()
	extra := Settings{Extra: `{"prompt":"login","state":"x","nonce":"x","code_challenge":"x","redirect_uri":"https://evil.example.com"}`}.extra()
	if len(extra) != 1 || extra["prompt"] != "login" {
		t.Errorf("%v", extra)
	}
	if got := (Settings{Scope: "profile, email"}).scopes(); strings.Join(got, " ") != "profile email openid" {
		t.Errorf("%v", got)
	}
}

func FuzzPerson(f *testing.F) {
	f.Add(`{"preferred_username":"a","groups":["x"]}`, "groups", "x")
	f.Add(`{"preferred_username":7,"groups":{"a":1},"email":[]}`, "groups", "")
	f.Add(`{"name":" ","groups":"x"}`, "name", " ")
	f.Fuzz(func(t *testing.T, text, claim, admin string) {
		var all map[string]any
		if json.Unmarshal([]byte(text), &all) != nil {
			return
		}
		p := Settings{UserClaim: claim, GroupsClaim: claim, AdminGroup: admin}.person(all)
		if p.Admin && (admin == "" || !strings.Contains(names(p), admin)) {
			t.Errorf("%q: administrator without the group: %+v", text, p)
		}
	})
}
