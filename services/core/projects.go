package core

import (
	"fmt"
	"reflect"
	"strings"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/account"
	"berth/services/project"
	"berth/services/query"
)

// projectWire is a project in Harbor's form.
type projectWire struct {
	Created      moment            `json:"creation_time"`
	RoleID       access.Role       `json:"current_user_role_id,omitempty"`
	RoleIDs      []access.Role     `json:"current_user_role_ids"`
	CVEAllowlist allowlist         `json:"cve_allowlist"`
	Metadata     map[string]string `json:"metadata"`
	Name         string            `json:"name"`
	OwnerID      int64             `json:"owner_id,omitempty"`
	OwnerName    string            `json:"owner_name,omitempty"`
	ID           int64             `json:"project_id"`
	Repositories int               `json:"repo_count"`
	Updated      moment            `json:"update_time"`
}

// allowlist carries Harbor's times of a table row that we do not have: never.
type allowlist struct {
	Created   moment               `json:"creation_time"`
	ExpiresAt int64                `json:"expires_at,omitempty"`
	ID        int64                `json:"id,omitempty"`
	Items     []project.AllowedCVE `json:"items"`
	ProjectID int64                `json:"project_id,omitempty"`
	Updated   moment               `json:"update_time"`
}

func projectOf(p project.Project) projectWire {
	w := projectWire{
		Created: moment(p.Created), Metadata: p.Metadata, Name: p.Name, OwnerID: p.OwnerID, OwnerName: p.OwnerName, ID: p.ID,
		CVEAllowlist: allowlist{ExpiresAt: p.Allowlist.Expires, ID: p.ID, Items: p.Allowlist.Items, ProjectID: p.ID},
		Repositories: p.Repositories, Updated: moment(p.Updated),
	}
	if len(p.Roles) > 0 {
		w.RoleIDs, w.RoleID = p.Roles, strongest(p.Roles)
	}
	return w
}

// foundProject is a project as a search shows it: with less.
func foundProject(p project.Project) projectWire {
	w := projectOf(p)
	w.OwnerName, w.CVEAllowlist = "", allowlist{}
	return w
}

// strongest gives the role that Harbor shows of several.
func strongest(roles []access.Role) access.Role {
	has := map[access.Role]bool{}
	for _, r := range roles {
		has[r] = true
	}
	for _, r := range []access.Role{access.ProjectAdmin, access.Maintainer, access.Developer, access.Guest} {
		if has[r] {
			return r
		}
	}
	return access.LimitedGuest
}

// inProjectPath and namedProjectPath are the paths to a project; admit has
// resolved them by the time a handler runs.
type inProjectPath struct {
	Project string `path:"project_name_or_id" doc:"a number is an id, unless the header X-Is-Resource-Name is true"`
}

type namedProjectPath struct {
	Project string `path:"project_name"`
}

func (a *API) listProjects(r *request, in struct {
	paging
	Name   string `query:"name" doc:"part of a name"`
	Public *bool  `query:"public"`
	Owner  string `query:"owner" doc:"the owner's user name"`
	Detail *bool  `query:"with_detail" doc:"always given"`
}) (list[projectWire], error) {
	q, err := in.query()
	if err != nil {
		return list[projectWire]{}, err
	}
	if in.Name != "" {
		q.Terms = append(q.Terms, query.Term{Field: "name", Op: query.Contains, Values: []string{in.Name}})
	}
	if in.Public != nil {
		q.Terms = append(q.Terms, query.Term{Field: "public", Values: []string{fmt.Sprint(*in.Public)}})
	}
	if in.Owner != "" {
		q.Terms = append(q.Terms, query.Term{Field: "owner", Values: []string{in.Owner}})
	}
	page, err := a.Projects.List(r.Context(), r.principal, q)
	return paged(page, err, in.paging, projectOf)
}

func (a *API) headProject(r *request, in struct {
	Name string `query:"project_name,required"`
}) (empty, error) {
	_, err := a.Projects.Target(r.Context(), r.principal, in.Name)
	return empty{}, err
}

// projectBody is what a project is made from and changed by. Other keys of the
// metadata, such as the read-only ones that a client sends back, are ignored.
type projectBody struct {
	Name         string             `json:"project_name"`
	Public       *bool              `json:"public"` // the old place of metadata.public
	Metadata     metadataBody       `json:"metadata"`
	CVEAllowlist *project.Allowlist `json:"cve_allowlist"`
	StorageLimit *int64             `json:"storage_limit"`
	RegistryID   *int64             `json:"registry_id"`
}

type metadataBody struct {
	Public               *string `json:"public"`
	ContentTrust         *string `json:"enable_content_trust"`
	ContentTrustCosign   *string `json:"enable_content_trust_cosign"`
	PreventVul           *string `json:"prevent_vul"`
	Severity             *string `json:"severity"`
	AutoScan             *string `json:"auto_scan"`
	AutoSBOM             *string `json:"auto_sbom_generation"`
	ReuseAllowlist       *string `json:"reuse_sys_cve_allowlist"`
	ProxySpeed           *string `json:"proxy_speed_kb"`
	MaxUpstream          *string `json:"max_upstream_conn"`
	ProxyFilterPattern   *string `json:"proxy_cache_filter_pattern"`
	ProxyFilterKind      *string `json:"proxy_cache_filter_kind"`
	ProxyReferrer        *string `json:"proxy_referrer_api"`
	ProxyLocalOnNotFound *string `json:"proxy_cache_local_on_not_found"`
	ReadOnly             *string `json:"read_only"`
	ImmutableStrict      *string `json:"immutable_strict"`
	DeleteUntagged       *string `json:"delete_untagged"`
}

// values gives the keys that are there.
func (m metadataBody) values() map[string]string {
	values := map[string]string{}
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		if p := v.Field(i).Interface().(*string); p != nil {
			values[v.Type().Field(i).Tag.Get("json")] = *p
		}
	}
	return values
}

func (b projectBody) settings() project.Settings {
	set := project.Settings{Metadata: b.Metadata.values(), Allowlist: b.CVEAllowlist}
	if _, ok := set.Metadata["public"]; !ok && b.Public != nil {
		set.Metadata["public"] = fmt.Sprint(*b.Public)
	}
	return set
}

func (a *API) createProject(r *request, in struct {
	Body projectBody `body:""`
}) (created, error) {
	s, err := a.Configuration.Current(r.Context())
	if err != nil {
		return created{}, err
	}
	if !access.MayCreateProject(r.principal, s.ProjectCreation == "everyone") {
		return created{}, fault.New(fault.Forbidden, "only system administrators may create projects")
	}
	if in.Body.RegistryID != nil && *in.Body.RegistryID != 0 {
		return created{}, fault.New(fault.NotFound, "registry %d not found", *in.Body.RegistryID)
	}
	set := in.Body.settings()
	set.StorageLimit = &s.StoragePerProject
	if r.principal.Sysadmin && in.Body.StorageLimit != nil && *in.Body.StorageLimit != 0 {
		set.StorageLimit = in.Body.StorageLimit
	}
	id, err := a.Projects.Create(r.Context(), r.principal, in.Body.Name, set)
	location := fmt.Sprintf("%s/projects/%d", v2, id)
	if isTrue(r.Header.Get("X-Resource-Name-In-Location")) {
		location = v2 + "/projects/" + in.Body.Name
	}
	return created{location: location}, err
}

func (a *API) getProject(r *request, in struct{ inProjectPath }) (projectWire, error) {
	p, err := a.Projects.Project(r.Context(), r.principal, r.target.ProjectID)
	return projectOf(p), err
}

func (a *API) updateProject(r *request, in struct {
	inProjectPath
	Body projectBody `body:""`
}) (empty, error) {
	return empty{}, a.Projects.Update(r.Context(), r.target.ProjectID, in.Body.settings())
}

func (a *API) renameProject(r *request, in struct {
	inProjectPath
	Body struct {
		Name string `json:"name"`
	} `body:""`
}) (empty, error) {
	return empty{}, a.Projects.Rename(r.Context(), r.target.ProjectID, in.Body.Name)
}

func (a *API) deleteProject(r *request, in struct{ inProjectPath }) (empty, error) {
	return empty{}, a.Projects.Delete(r.Context(), r.target.ProjectID)
}

type deletable struct {
	Deletable bool   `json:"deletable"`
	Message   string `json:"message,omitempty"`
}

func (a *API) projectDeletable(r *request, in struct{ inProjectPath }) (deletable, error) {
	ok, reason, err := a.Projects.Deletable(r.Context(), r.target.ProjectID)
	return deletable{ok, reason}, err
}

type projectSummary struct {
	Admins        int          `json:"project_admin_count,omitempty"`
	Maintainers   int          `json:"maintainer_count,omitempty"`
	Developers    int          `json:"developer_count,omitempty"`
	Guests        int          `json:"guest_count,omitempty"`
	LimitedGuests int          `json:"limited_guest_count,omitempty"`
	Quota         projectQuota `json:"quota"`
	Repositories  int          `json:"repo_count"`
}

type projectQuota struct {
	Hard storageQuota `json:"hard"`
	Used storageQuota `json:"used"`
}

type storageQuota struct {
	Storage int64 `json:"storage"`
}

func (a *API) projectSummary(r *request, in struct{ inProjectPath }) (projectSummary, error) {
	s, err := a.Projects.Summary(r.Context(), r.target.ProjectID)
	w := projectSummary{Repositories: s.Repositories, Quota: projectQuota{storageQuota{s.StorageLimit}, storageQuota{s.StorageUsed}}}
	if access.May(r.principal, r.target, "member", "list") {
		w.Admins, w.Maintainers, w.Developers = s.Members[access.ProjectAdmin], s.Members[access.Maintainer], s.Members[access.Developer]
		w.Guests, w.LimitedGuests = s.Members[access.Guest], s.Members[access.LimitedGuest]
	}
	return w, err
}

func (a *API) listMetadata(r *request, in struct{ inProjectPath }) (map[string]string, error) {
	return a.Projects.Metadata(r.Context(), r.target.ProjectID)
}

func (a *API) addMetadata(r *request, in struct {
	inProjectPath
	Body map[string]string `body:""`
}) (empty, error) {
	return empty{}, a.Projects.Update(r.Context(), r.target.ProjectID, project.Settings{Metadata: in.Body})
}

type metadataPath struct {
	inProjectPath
	Name string `path:"meta_name"`
}

func (a *API) getMetadata(r *request, in struct{ metadataPath }) (map[string]string, error) {
	all, err := a.Projects.Metadata(r.Context(), r.target.ProjectID)
	if err != nil {
		return nil, err
	}
	value, ok := all[in.Name]
	if !ok {
		return nil, fault.New(fault.NotFound, "the project has no metadata %s", in.Name)
	}
	return map[string]string{in.Name: value}, nil
}

func (a *API) setMetadata(r *request, in struct {
	metadataPath
	Body map[string]string `body:""`
}) (empty, error) {
	value, ok := in.Body[in.Name]
	if !ok || len(in.Body) != 1 {
		return empty{}, fault.New(fault.Invalid, "the body must hold %s and nothing else", in.Name)
	}
	return empty{}, a.Projects.Update(r.Context(), r.target.ProjectID, project.Settings{Metadata: map[string]string{in.Name: value}})
}

func (a *API) deleteMetadata(r *request, in struct{ metadataPath }) (empty, error) {
	return empty{}, a.Projects.DeleteMetadata(r.Context(), r.target.ProjectID, in.Name)
}

type member struct {
	EntityID   int64       `json:"entity_id"`
	EntityName string      `json:"entity_name"`
	EntityType string      `json:"entity_type"` // u: a user, g: a group
	ID         int64       `json:"id"`
	ProjectID  int64       `json:"project_id"`
	RoleID     access.Role `json:"role_id"`
	RoleName   string      `json:"role_name"`
}

func memberOf(m project.Member) member {
	kind := "u"
	if m.Group {
		kind = "g"
	}
	return member{m.EntityID, m.Name, kind, m.ID, m.ProjectID, m.Role, m.Role.String()}
}

type memberPath struct {
	inProjectPath
	ID int64 `path:"mid"`
}

func (a *API) listMembers(r *request, in struct {
	paging
	inProjectPath
	Name string `query:"entityname" doc:"part of a member's name"`
}) (list[member], error) {
	q, err := in.query()
	if err != nil {
		return list[member]{}, err
	}
	page, err := a.Projects.Members(r.Context(), r.target.ProjectID, in.Name, q)
	return paged(page, err, in.paging, memberOf)
}

func (a *API) addMember(r *request, in struct {
	inProjectPath
	Body struct {
		RoleID access.Role `json:"role_id"`
		User   struct {
			ID       int64  `json:"user_id"`
			Username string `json:"username"`
		} `json:"member_user"`
		Group userGroup `json:"member_group"`
	} `body:""`
}) (created, error) {
	b := in.Body
	var id int64
	var err error
	switch {
	case b.User.ID != 0 || b.User.Username != "":
		id, err = a.addUser(r, b.User.ID, b.User.Username, b.RoleID)
	case b.Group != userGroup{}:
		id, err = a.addGroup(r, b.Group, b.RoleID)
	default:
		err = fault.New(fault.Invalid, "the member must be a user or a user group").On("member_user").
			WithHint("name it by user_id or username in member_user, or by id, ldap_group_dn or group_name in member_group")
	}
	return created{location: strings.TrimSuffix(r.URL.EscapedPath(), "/") + fmt.Sprintf("/%d", id)}, err
}

// addUser makes a user a member, also one whom only the directory knows yet.
func (a *API) addUser(r *request, id int64, name string, role access.Role) (int64, error) {
	mid, err := a.Projects.AddMember(r.Context(), r.target, id, name, role)
	if fault.Is(err, fault.NotFound) && id == 0 && a.Accounts.Import(r.Context(), name) == nil {
		return a.Projects.AddMember(r.Context(), r.target, 0, name, role)
	}
	return mid, err
}

// addGroup makes a group a member. One that is not known yet becomes so, as in
// Harbor, whose clients name groups by DN or by name.
func (a *API) addGroup(r *request, g userGroup, role access.Role) (int64, error) {
	if g.ID == 0 {
		if g.LDAPDN != "" {
			g.Type = account.LDAPGroup
		}
		err := a.requireGroup(r, g)
		if err != nil {
			return 0, err
		}
		if g.ID, err = a.Accounts.EnsureGroup(r.Context(), g.domain()); err != nil {
			return 0, err
		}
	}
	return a.Projects.AddGroup(r.Context(), r.target, g.ID, role)
}

// requireGroup makes sure that the directory has an LDAP group, if there is one
// to ask.
func (a *API) requireGroup(r *request, g userGroup) error {
	settings, err := a.Configuration.Current(r.Context())
	if err != nil || g.Type != account.LDAPGroup || settings.AuthMode != "ldap_auth" {
		return err
	}
	_, err = a.Directory.Group(r.Context(), g.LDAPDN)
	return err
}

func (a *API) getMember(r *request, in struct{ memberPath }) (member, error) {
	m, err := a.Projects.Member(r.Context(), r.target.ProjectID, in.ID)
	return memberOf(m), err
}

func (a *API) updateMember(r *request, in struct {
	memberPath
	Body struct {
		RoleID access.Role `json:"role_id"`
	} `body:""`
}) (empty, error) {
	return empty{}, a.Projects.SetRole(r.Context(), r.target, in.ID, in.Body.RoleID)
}

func (a *API) removeMember(r *request, in struct{ memberPath }) (empty, error) {
	return empty{}, a.Projects.RemoveMember(r.Context(), r.target, in.ID)
}
