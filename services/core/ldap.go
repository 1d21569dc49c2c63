package core

import (
	"cmp"
	"time"

	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/services/account"
	"berth/services/directory"
)

// ldapRoutes are for the LDAP directory.
var ldapRoutes = []route{
	{"POST", v2 + "/ldap/ping", sysadmins(), "Try settings of an LDAP directory, or those that are set", handle((*API).pingLDAP)},
	{"GET", v2 + "/ldap/users/search", system("ldap-user", "list"), "Search the LDAP directory's users", handle((*API).searchLDAPUsers)},
	{"POST", v2 + "/ldap/users/import", system("ldap-user", "create"), "Make users of entries of the LDAP directory", handle((*API).importLDAPUsers)},
	{"GET", v2 + "/ldap/groups/search", system("ldap-user", "list"), "Search the LDAP directory's groups", handle((*API).searchLDAPGroups)},
}

// ldapConf is settings to try. What is absent is as it is set.
type ldapConf struct {
	URL      string `json:"ldap_url"`
	SearchDN string `json:"ldap_search_dn"`
	Password string `json:"ldap_search_password"`
	BaseDN   string `json:"ldap_base_dn"`
	Filter   string `json:"ldap_filter"`
	UID      string `json:"ldap_uid"`
	Scope    *int   `json:"ldap_scope"`
	Timeout  int    `json:"ldap_connection_timeout"`
	Verify   *bool  `json:"ldap_verify_cert"`
	StartTLS *bool  `json:"ldap_start_tls"`
	CA       string `json:"ldap_ca_certificate"`
}

// over gives the settings to try: those of the request over those that are set.
func (c ldapConf) over(s directory.Settings) directory.Settings {
	if c.URL != "" && c.URL != s.URL && c.Password == "" {
		s.SearchPassword = "" // the password that is set is not sent to just any address
	}
	if c.URL != "" {
		s.SearchDN, s.Filter = c.SearchDN, c.Filter
	}
	s.URL, s.BaseDN, s.UID, s.CA = cmp.Or(c.URL, s.URL), cmp.Or(c.BaseDN, s.BaseDN), cmp.Or(c.UID, s.UID), cmp.Or(c.CA, s.CA)
	s.SearchPassword = cmp.Or(secret.Text(c.Password), s.SearchPassword)
	if c.Scope != nil {
		s.Scope = *c.Scope
	}
	if c.Timeout > 0 {
		s.Timeout = time.Duration(min(c.Timeout, 60)) * time.Second
	}
	if c.Verify != nil {
		s.Verify = *c.Verify
	}
	if c.StartTLS != nil {
		s.StartTLS = *c.StartTLS
	}
	return s
}

type pong struct {
	Message string `json:"message,omitempty"`
	Success bool   `json:"success"`
}

// pingLDAP answers 200 whatever comes of it, as Harbor does: the message says
// what is wrong.
func (a *API) pingLDAP(r *request, in struct {
	Body ldapConf `body:",optional"`
}) (pong, error) {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil {
		return pong{}, err
	}
	if err := directory.Ping(r.Context(), in.Body.over(directory.From(settings)), a.Dialer.DialContext); err != nil {
		return pong{directory.Message(err), false}, nil
	}
	return pong{"", true}, nil
}

type ldapUser struct {
	Email    string `json:"email,omitempty"`
	Realname string `json:"realname,omitempty"`
	Username string `json:"username"`
}

func (a *API) searchLDAPUsers(r *request, in struct {
	Username string `query:"username" doc:"a login name; absent: all"`
}) ([]ldapUser, error) {
	people, err := a.Directory.Search(r.Context(), in.Username)
	err = unset(err)
	users := make([]ldapUser, len(people))
	for i, p := range people {
		users[i] = ldapUser{p.Email, p.Realname, p.Username}
	}
	return users, err
}

// unset makes a directory that is not set up a 400, which is what Harbor's
// clients know of these routes.
func unset(err error) error {
	if f := fault.Of(err); err != nil && f.Kind == fault.Precondition {
		return &fault.Error{Kind: fault.Invalid, Field: f.Field, Text: f.Text, Hint: f.Hint, Err: err}
	}
	return err
}

type failedImport struct {
	Error string `json:"error"`
	UID   string `json:"uid"`
}

// maxImport is how many users are imported by one request.
const maxImport = 500

func (a *API) importLDAPUsers(r *request, in struct {
	Body struct {
		UIDs []string `json:"ldap_uid_list"`
	} `body:""`
}) (any, error) {
	if n := len(in.Body.UIDs); n == 0 || n > maxImport {
		return nil, fault.New(fault.Invalid, "it names 1 to %d users", maxImport).On("ldap_uid_list")
	}
	var failed []failedImport
	for _, uid := range in.Body.UIDs {
		if err := a.Accounts.Import(r.Context(), uid); err != nil {
			if kind := fault.Of(err).Kind; kind == fault.Unavailable || kind == fault.Precondition || kind == fault.Internal {
				return nil, unset(err) // no use in trying the others
			}
			failed = append(failed, failedImport{fault.Of(err).Text, uid})
		}
	}
	if failed != nil {
		return missing{failed}, nil
	}
	return empty{}, nil
}

func (a *API) searchLDAPGroups(r *request, in struct {
	Name string `query:"groupname" doc:"part of a group's name"`
	DN   string `query:"groupdn" doc:"a group's whole distinguished name"`
}) ([]userGroup, error) {
	var found []directory.Group
	var err error
	if in.DN != "" && in.Name == "" {
		var g directory.Group
		g, err = a.Directory.Group(r.Context(), in.DN)
		found = append(found, g)
	} else {
		found, err = a.Directory.SearchGroups(r.Context(), in.Name)
	}
	err = unset(err)
	groups := make([]userGroup, len(found))
	for i, g := range found {
		groups[i] = userGroup{Name: g.Name, Type: account.LDAPGroup, LDAPDN: g.DN}
	}
	return groups, err
}
