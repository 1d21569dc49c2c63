package core

import (
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/version"
	"berth/services/access"
	"berth/services/artifact"
	"berth/services/project"
	"berth/services/query"
)

// harborVersion is the Harbor whose API this is; clients decide by it what they
// can ask for.
const harborVersion = "v2.16.0"

func (a *API) ping(*request, none) (text, error) { return text{"text/plain", "Pong"}, nil }

func (a *API) describe(*request, none) (rawJSON, error) { return a.openAPI, nil }

// apiVersion is plain text in Harbor, with JSON in it.
func (a *API) apiVersion(*request, none) (text, error) {
	return text{"text/plain; charset=utf-8", `{"version":"v2.0"}` + "\n"}, nil
}

type systemInfo struct {
	AuthMode         string `json:"auth_mode"`
	Banner           string `json:"banner_message"`
	OIDCName         string `json:"oidc_provider_name"`
	PrimaryAuthMode  bool   `json:"primary_auth_mode"`
	SelfRegistration bool   `json:"self_registration"`
	*systemDetails
}

// systemDetails is for whoever has logged in.
type systemDetails struct {
	CurrentTime     moment `json:"current_time"`
	ExternalURL     string `json:"external_url"`
	RegistryURL     string `json:"registry_url"`
	HasCARoot       bool   `json:"has_ca_root"`
	Version         string `json:"harbor_version"`
	ProjectCreation string `json:"project_creation_restriction"`
	ReadOnly        bool   `json:"read_only"`
	Notifications   bool   `json:"notification_enable"`
	StorageName     string `json:"registry_storage_provider_name"`
}

func (a *API) systemInfo(r *request, _ none) (systemInfo, error) {
	s, err := a.Configuration.Current(r.Context())
	if err != nil {
		return systemInfo{}, err
	}
	info := systemInfo{AuthMode: s.AuthMode, Banner: s.Banner, OIDCName: s.OIDCName, PrimaryAuthMode: s.PrimaryAuthMode, SelfRegistration: s.SelfRegistration}
	if r.principal.Kind == access.Anonymous {
		return info, nil
	}
	_, host, _ := strings.Cut(a.ExternalURL, "://")
	ca, err := a.ca()
	info.systemDetails = &systemDetails{
		CurrentTime: moment(time.Now()), ExternalURL: a.ExternalURL, RegistryURL: host, HasCARoot: len(ca) > 0,
		Version: harborVersion + "-berth." + version.Version, ProjectCreation: s.ProjectCreation, ReadOnly: s.ReadOnly,
		Notifications: s.Notifications, StorageName: a.StorageName,
	}
	return info, err
}

func (a *API) ca() ([]byte, error) {
	if a.CA == nil {
		return nil, nil
	}
	return a.CA()
}

func (a *API) getCert(*request, none) (file, error) {
	ca, err := a.ca()
	if err == nil && len(ca) == 0 {
		err = fault.New(fault.NotFound, "there is no certificate authority of our own to download")
	}
	return file{"ca.crt", ca}, err
}

type volumes struct {
	Storage []storage `json:"storage"`
}

type storage struct {
	Total uint64 `json:"total,omitempty"`
	Free  uint64 `json:"free,omitempty"`
}

func (a *API) volumes(*request, none) (volumes, error) {
	if a.Volume == nil {
		return volumes{[]storage{{}}}, nil // an object store has no size
	}
	total, free, err := a.Volume()
	return volumes{[]storage{{total, free}}}, err
}

type statistics struct {
	PrivateProjects int    `json:"private_project_count"`
	PrivateRepos    int    `json:"private_repo_count"`
	PublicProjects  int    `json:"public_project_count"`
	PublicRepos     int    `json:"public_repo_count"`
	TotalProjects   *int   `json:"total_project_count,omitempty"`
	TotalRepos      *int   `json:"total_repo_count,omitempty"`
	Storage         *int64 `json:"total_storage_consumption,omitempty"`
}

func (a *API) statistics(r *request, _ none) (statistics, error) {
	c, err := a.Projects.Counts(r.Context(), r.principal)
	s := statistics{PrivateProjects: c.PrivateProjects, PrivateRepos: c.PrivateRepositories, PublicProjects: c.PublicProjects, PublicRepos: c.PublicRepositories}
	if err != nil || !r.principal.Sysadmin {
		return s, err
	}
	used, err := a.Artifacts.StorageUsed(r.Context())
	projects, repos := c.PublicProjects+c.PrivateProjects, c.PublicRepositories+c.PrivateRepositories
	s.TotalProjects, s.TotalRepos, s.Storage = &projects, &repos, &used
	return s, err
}

type searchResult struct {
	Projects     []projectWire     `json:"project"`
	Repositories []foundRepository `json:"repository"`
}

type foundRepository struct {
	Artifacts int    `json:"artifact_count"`
	ProjectID int64  `json:"project_id"`
	Project   string `json:"project_name"`
	Public    bool   `json:"project_public"`
	Pulls     int64  `json:"pull_count"`
	Name      string `json:"repository_name"`
}

// searchLimit is how many of each kind a search finds.
const searchLimit = 100

func (a *API) search(r *request, in struct {
	Q string `query:"q,required" doc:"part of a name"`
}) (searchResult, error) {
	found := searchResult{Projects: []projectWire{}, Repositories: []foundRepository{}}
	like := query.Query{Terms: []query.Term{{Field: "name", Op: query.Contains, Values: []string{in.Q}}}, Page: 1, Size: searchLimit}
	projects, err := a.Projects.List(r.Context(), r.principal, like)
	if err != nil {
		return found, err
	}
	for _, p := range projects.Items {
		found.Projects = append(found.Projects, foundProject(p))
	}
	repos, err := a.Artifacts.ListRepositories(r.Context(), like, r.visible)
	for _, repo := range repos.Items {
		found.Repositories = append(found.Repositories, foundRepository{repo.Artifacts, repo.ProjectID, repo.Project, repo.Public, repo.Pulls, repo.Name})
	}
	return found, err
}

// visible restricts a list of repositories to those that the caller may list.
func (r *request) visible(w *query.Where) { project.Visible(w, r.principal, "p") }

type permissions struct {
	Project []access.Pair `json:"project"`
	System  []access.Pair `json:"system"`
}

// permissions lists what may be granted. As in Harbor only a system
// administrator sees the system's.
func (a *API) permissions(r *request, _ none) (permissions, error) {
	system, project := access.Grantable()
	if !r.principal.Sysadmin {
		system = []access.Pair{}
	}
	return permissions{project, system}, nil
}

// trashEntries is how much of a recycle bin is listed.
const trashEntries = 1000

func (a *API) listTrash(r *request, in struct{ inProjectPath }) ([]artifact.Deleted, error) {
	return a.Artifacts.Trash(r.Context(), r.target.ProjectID, trashEntries)
}

func (a *API) restore(r *request, in struct {
	inProjectPath
	Body struct {
		ID   int64  `json:"id"`
		Kind string `json:"kind"`
	} `body:""`
}) (empty, error) {
	return empty{}, a.Artifacts.Restore(r.Context(), r.target.ProjectID, in.Body.Kind, in.Body.ID)
}
