package core

import (
	"berth/services/project"
)

// allowlistRoutes are for vulnerabilities that do not count.
var allowlistRoutes = []route{
	{"GET", v2 + "/system/CVEAllowlist", login(), "List the vulnerabilities that do not count anywhere", handle((*API).getAllowlist)},
	{"PUT", v2 + "/system/CVEAllowlist", sysadmins(), "Set the vulnerabilities that do not count anywhere", handle((*API).setAllowlist)},
}

func (a *API) getAllowlist(r *request, _ none) (allowlist, error) {
	l, created, updated, err := a.Projects.SystemAllowlist(r.Context())
	return allowlist{Created: moment(created), ExpiresAt: l.Expires, Items: l.Items, Updated: moment(updated)}, err
}

func (a *API) setAllowlist(r *request, in struct {
	Body project.Allowlist `body:""`
}) (empty, error) {
	return empty{}, a.Projects.SetSystemAllowlist(r.Context(), in.Body)
}
