package oidc

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"

	gooidc "github.com/coreos/go-oidc/v3/oidc"

	"berth/appliance/secret"
	"berth/services/account"
	"berth/services/configuration"
)

// Settings say which provider people log in at, and what its claims mean.
type Settings struct {
	Endpoint     string // the issuer, letter by letter
	ClientID     string
	ClientSecret secret.Text
	Scope        string // joined by commas
	Verify       bool   // believe a certificate only from an authority that is trusted
	CA           string // PEM of authorities to trust beside the system's

	UserClaim   string // that holds the user name; "" = preferred_username, or name
	GroupsClaim string // that holds the groups; "" = none
	GroupFilter string // regular expression that groups must match; "" = all
	AdminGroup  string // its members are system administrators; "" = none
	Extra       string // JSON object of more parameters for the login page
}

// From takes the settings of the provider out of all settings.
func From(s configuration.Settings) Settings {
	return Settings{
		Endpoint: s.OIDCEndpoint, ClientID: s.OIDCClientID, ClientSecret: s.OIDCClientSecret, Scope: s.OIDCScope,
		Verify: s.OIDCVerifyCert, CA: s.OIDCCA, UserClaim: s.OIDCUserClaim, GroupsClaim: s.OIDCGroupsClaim,
		GroupFilter: s.OIDCGroupFilter, AdminGroup: s.OIDCAdminGroup, Extra: s.OIDCExtraParameters,
	}
}

func (s Settings) scopes() []string {
	all := strings.FieldsFunc(s.Scope, func(r rune) bool { return r == ',' || r == ' ' })
	if !slices.Contains(all, gooidc.ScopeOpenID) {
		all = append(all, gooidc.ScopeOpenID)
	}
	return all
}

func (s Settings) extra() map[string]string {
	var all map[string]string
	json.Unmarshal([]byte(s.Extra), &all) // configuration has checked it
	for _, ours := range []string{"client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method"} {
		delete(all, ours) // what the login's safety rests on
	}
	return all
}

// maxGroups is how many groups of one person are taken over.
const maxGroups = 1000

// person reads the claims.
func (s Settings) person(claims map[string]any) Person {
	text := func(name string) string { v, _ := claims[name].(string); return strings.TrimSpace(v) }
	p := Person{External: account.External{Source: account.OIDC, Email: text("email"), Realname: text("name")}, Named: s.UserClaim != "" && text(s.UserClaim) != ""}
	for _, claim := range []string{s.UserClaim, "preferred_username", "name"} {
		if claim != "" && p.Username == "" {
			p.Username = strings.ReplaceAll(text(claim), " ", "_")
		}
	}
	if p.Realname == "" {
		p.Realname = p.Username
	}
	groups := groupsOf(claims, s.GroupsClaim)
	p.Admin = s.AdminGroup != "" && slices.Contains(groups, s.AdminGroup)
	filter, err := regexp.Compile(s.GroupFilter)
	if err != nil {
		return p // configuration has checked it
	}
	for _, name := range groups {
		if filter.MatchString(name) && len(p.Groups) < maxGroups {
			p.Groups = append(p.Groups, account.Group{Name: name, Type: account.OIDCGroup})
		}
	}
	return p
}

// groupsOf reads a claim that is a list of names, or one name. They are put in
// order: logins at the same time then lock the groups' rows in the same order.
func groupsOf(claims map[string]any, claim string) (names []string) {
	switch v := claims[claim].(type) {
	case string:
		names = append(names, v)
	case []any:
		for _, item := range v {
			if name, ok := item.(string); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(slices.DeleteFunc(names, func(n string) bool { return strings.TrimSpace(n) == "" }))
}
