package core

import (
	"fmt"

	"berth/services/account"
)

// groupRoutes are for groups of users.
var groupRoutes = []route{
	{"GET", v2 + "/usergroups", system("user-group", "list"), "List user groups", handle((*API).listGroups)},
	{"POST", v2 + "/usergroups", system("user-group", "create"), "Create a user group", handle((*API).createGroup)},
	{"GET", v2 + "/usergroups/search", login(), "Search user groups by name", handle((*API).searchGroups)},
	{"GET", v2 + "/usergroups/{group_id}", system("user-group", "read"), "Get a user group", handle((*API).getGroup)},
	{"PUT", v2 + "/usergroups/{group_id}", system("user-group", "update"), "Rename a user group", handle((*API).renameGroup)},
	{"DELETE", v2 + "/usergroups/{group_id}", system("user-group", "delete"), "Delete a user group", handle((*API).deleteGroup)},
}

type userGroup struct {
	Name   string            `json:"group_name"`
	Type   account.GroupType `json:"group_type"`
	ID     int64             `json:"id,omitempty"`
	LDAPDN string            `json:"ldap_group_dn,omitempty"`
}

func groupOf(g account.Group) userGroup { return userGroup{g.Name, g.Type, g.ID, g.LDAPDN} }

func (g userGroup) domain() account.Group {
	return account.Group{Name: g.Name, Type: g.Type, LDAPDN: g.LDAPDN}
}

type groupPath struct {
	ID int64 `path:"group_id"`
}

func (a *API) listGroups(r *request, in struct {
	paging
	Name string `query:"group_name" doc:"part of a group's name"`
	DN   string `query:"ldap_group_dn" doc:"the whole distinguished name of an LDAP group"`
}) (list[userGroup], error) {
	q, err := in.query()
	if err != nil {
		return list[userGroup]{}, err
	}
	page, err := a.Accounts.ListGroups(r.Context(), in.Name, in.DN, q)
	return paged(page, err, in.paging, groupOf)
}

type foundGroup struct {
	Name string            `json:"group_name"`
	Type account.GroupType `json:"group_type"`
	ID   int64             `json:"id"`
}

func (a *API) searchGroups(r *request, in struct {
	paging
	Name string `query:"groupname,required" doc:"part of a group's name"`
}) (list[foundGroup], error) {
	q, err := in.query()
	if err != nil {
		return list[foundGroup]{}, err
	}
	page, err := a.Accounts.ListGroups(r.Context(), in.Name, "", q)
	return paged(page, err, in.paging, func(g account.Group) foundGroup { return foundGroup{g.Name, g.Type, g.ID} })
}

func (a *API) createGroup(r *request, in struct {
	Body userGroup `body:""`
}) (created, error) {
	if err := a.requireGroup(r, in.Body); err != nil {
		return created{}, err
	}
	id, err := a.Accounts.CreateGroup(r.Context(), in.Body.domain())
	return created{location: fmt.Sprintf("%s/usergroups/%d", v2, id)}, err
}

func (a *API) getGroup(r *request, in struct{ groupPath }) (userGroup, error) {
	g, err := a.Accounts.Group(r.Context(), in.ID)
	return groupOf(g), err
}

func (a *API) renameGroup(r *request, in struct {
	groupPath
	Body userGroup `body:""`
}) (empty, error) {
	return empty{}, a.Accounts.RenameGroup(r.Context(), in.ID, in.Body.Name)
}

func (a *API) deleteGroup(r *request, in struct{ groupPath }) (empty, error) {
	return empty{}, a.Accounts.DeleteGroup(r.Context(), in.ID)
}
