package core

import "slices"

const (
	v2    = "/api/v2.0"
	berth = "/api/berth/v1"

	ofProject    = v2 + "/projects/{project_name_or_id}"
	repository   = v2 + "/projects/{project_name}/repositories/{repository_name}"
	ofArtifact   = repository + "/artifacts/{reference}"
	projectTrash = berth + "/projects/{project_name_or_id}/trash"
)

// routes is the whole API.
var routes = slices.Concat(
	systemRoutes,
	sessionRoutes,
	userRoutes,
	groupRoutes,
	tokenRoutes,
	ldapRoutes,
	oidcRoutes,
	projectRoutes,
	artifactRoutes,
	robotRoutes,
	auditRoutes,
	trashRoutes,
	quotaRoutes,
	immutableRoutes,
	labelRoutes,
	allowlistRoutes,
	retentionRoutes,
	configurationRoutes,
	upkeepRoutes,
	jobserviceRoutes,
	webhookRoutes,
	logRoutes,
	comingRoutes,
)

// systemRoutes are for what the system tells of itself.
var systemRoutes = []route{
	{"GET", v2 + "/ping", open(), "Answer at once", handle((*API).ping)},
	{"GET", "/api/version", open(), "Name the version of the API", handle((*API).apiVersion)},
	{"GET", v2 + "/health", open(), "Tell how the components are", handle((*API).health)},
	{"GET", v2 + "/openapi.json", open(), "Describe this API", handle((*API).describe)},
	{"GET", v2 + "/systeminfo", open(), "Tell what this registry is and can do", handle((*API).systemInfo)},
	{"GET", v2 + "/systeminfo/volumes", system("system-volumes", "read"), "Tell how much room there is", handle((*API).volumes)},
	{"GET", v2 + "/systeminfo/getcert", open(), "Download the certificate authority", handle((*API).getCert)},
	{"GET", v2 + "/statistics", login(), "Count projects and repositories", handle((*API).statistics)},
	{"GET", v2 + "/search", open(), "Search projects and repositories by name", handle((*API).search)},
	{"GET", v2 + "/permissions", login(), "List what a robot may be given", handle((*API).permissions)},
	{"GET", v2 + "/icons/{digest}", login(), "Get the picture of a kind of artifact", handle((*API).getIcon)},
}

// userRoutes are for people.
var userRoutes = []route{
	{"GET", v2 + "/users", system("user", "list"), "List users", handle((*API).listUsers)},
	{"POST", v2 + "/users", open(), "Create a user, or register oneself where that is allowed", handle((*API).createUser)},
	{"GET", v2 + "/users/current", login(), "Get one's own user", handle((*API).currentUser)},
	{"GET", v2 + "/users/current/permissions", login(), "List one's own permissions", handle((*API).currentPermissions)},
	{"GET", v2 + "/users/search", login(), "Search users by name", handle((*API).searchUsers)},
	{"GET", v2 + "/users/{user_id}", self("user", "read"), "Get a user", handle((*API).getUser)},
	{"PUT", v2 + "/users/{user_id}", self("user", "update"), "Change a user's profile", handle((*API).updateUser)},
	{"DELETE", v2 + "/users/{user_id}", system("user", "delete"), "Delete a user", handle((*API).deleteUser)},
	{"PUT", v2 + "/users/{user_id}/password", self("user", "update"), "Change a user's password", handle((*API).changePassword)},
	{"PUT", v2 + "/users/{user_id}/cli_secret", self("user", "update"), "Give an OIDC user another CLI secret", handle((*API).setCLISecret)},
	{"PUT", v2 + "/users/{user_id}/sysadmin", sysadmins(), "Make a user system administrator, or no longer one", handle((*API).setSysadmin)},
}

// projectRoutes are for projects.
var projectRoutes = []route{
	{"GET", v2 + "/projects", open(), "List projects", handle((*API).listProjects)},
	{"HEAD", v2 + "/projects", login(), "Ask whether a project exists", handle((*API).headProject)},
	{"POST", v2 + "/projects", login(), "Create a project", handle((*API).createProject)},
	{"GET", ofProject, inProject("project", "read"), "Get a project", handle((*API).getProject)},
	{"PUT", ofProject, inProject("project", "update"), "Change a project", handle((*API).updateProject)},
	{"PUT", berth + "/projects/{project_name_or_id}/name", inProject("project", "update"), "Rename a project, and its repositories and robots with it", handle((*API).renameProject)},
	{"DELETE", ofProject, inProject("project", "delete"), "Delete a project without repositories", handle((*API).deleteProject)},
	{"GET", ofProject + "/_deletable", inProject("project", "delete"), "Ask whether a project can be deleted", handle((*API).projectDeletable)},
	{"GET", ofProject + "/summary", inProject("project", "read"), "Count what is in a project", handle((*API).projectSummary)},
	{"GET", ofProject + "/metadatas", inProject("metadata", "read"), "List a project's metadata", handle((*API).listMetadata)},
	{"POST", ofProject + "/metadatas", inProject("metadata", "create"), "Add to a project's metadata", handle((*API).addMetadata)},
	{"GET", ofProject + "/metadatas/{meta_name}", inProject("metadata", "read"), "Get one key of a project's metadata", handle((*API).getMetadata)},
	{"PUT", ofProject + "/metadatas/{meta_name}", inProject("metadata", "update"), "Set one key of a project's metadata", handle((*API).setMetadata)},
	{"DELETE", ofProject + "/metadatas/{meta_name}", inProject("metadata", "delete"), "Remove one key of a project's metadata", handle((*API).deleteMetadata)},
	{"GET", ofProject + "/members", inProject("member", "list"), "List a project's members", handle((*API).listMembers)},
	{"POST", ofProject + "/members", inProject("member", "create"), "Add a member to a project", handle((*API).addMember)},
	{"GET", ofProject + "/members/{mid}", inProject("member", "read"), "Get a member of a project", handle((*API).getMember)},
	{"PUT", ofProject + "/members/{mid}", inProject("member", "update"), "Change a member's role", handle((*API).updateMember)},
	{"DELETE", ofProject + "/members/{mid}", inProject("member", "delete"), "Remove a member from a project", handle((*API).removeMember)},
	{"GET", ofProject + "/artifacts", inProject("artifact", "list"), "List the artifacts of all of a project's repositories", handle((*API).listProjectArtifacts)},
	{"GET", v2 + "/projects/{project_name}/logs", inProject("log", "list"), "List a project's audit trail in the old form", handle((*API).projectLogs)},
	{"GET", v2 + "/projects/{project_name}/auditlog-exts", inProject("log", "list"), "List a project's audit trail", handle((*API).projectAuditLogs)},
}

// artifactRoutes are for repositories and artifacts.
var artifactRoutes = []route{
	{"GET", v2 + "/repositories", open(), "List repositories", handle((*API).listAllRepositories)},
	{"GET", v2 + "/projects/{project_name}/repositories", inProject("repository", "list"), "List a project's repositories", handle((*API).listRepositories)},
	{"GET", repository, inProject("repository", "read"), "Get a repository", handle((*API).getRepository)},
	{"PUT", repository, inProject("repository", "update"), "Describe a repository", handle((*API).updateRepository)},
	{"DELETE", repository, inProject("repository", "delete"), "Delete a repository", handle((*API).deleteRepository)},
	{"GET", repository + "/artifacts", inProject("artifact", "list"), "List a repository's artifacts", handle((*API).listArtifacts)},
	{"POST", repository + "/artifacts", inProject("artifact", "create"), "Copy an artifact from another repository", handle((*API).copyArtifact)},
	{"GET", ofArtifact, inProject("artifact", "read"), "Get an artifact", handle((*API).getArtifact)},
	{"DELETE", ofArtifact, inProject("artifact", "delete"), "Delete an artifact", handle((*API).deleteArtifact)},
	{"GET", ofArtifact + "/tags", inProject("tag", "list"), "List an artifact's tags", handle((*API).listTags)},
	{"POST", ofArtifact + "/tags", inProject("tag", "create"), "Tag an artifact", handle((*API).createTag)},
	{"DELETE", ofArtifact + "/tags/{tag_name}", inProject("tag", "delete"), "Remove a tag", handle((*API).deleteTag)},
	{"GET", ofArtifact + "/accessories", inProject("accessory", "list"), "List what refers to an artifact", handle((*API).listAccessories)},
	{"GET", ofArtifact + "/additions/{addition}", inProject("artifact-addition", "read"), "Get what an artifact has in addition", handle((*API).getAddition)},
}

// robotRoutes are for robots.
var robotRoutes = []route{
	{"GET", v2 + "/robots", login(), "List robots", handle((*API).listRobots)},
	{"POST", v2 + "/robots", login(), "Create a robot", handle((*API).createRobot)},
	{"GET", v2 + "/robots/{robot_id}", login(), "Get a robot", handle((*API).getRobot)},
	{"PUT", v2 + "/robots/{robot_id}", login(), "Change a robot", handle((*API).updateRobot)},
	{"PATCH", v2 + "/robots/{robot_id}", login(), "Give a robot a new secret", handle((*API).refreshSecret)},
	{"DELETE", v2 + "/robots/{robot_id}", login(), "Delete a robot", handle((*API).deleteRobot)},
}

// auditRoutes are for the audit trail.
var auditRoutes = []route{
	{"GET", v2 + "/auditlog-exts", login(), "List the audit trail", handle((*API).auditLogs)},
	{"GET", v2 + "/auditlog-exts/events", login(), "List the types of events in the audit trail", handle((*API).auditEvents)},
	{"GET", v2 + "/audit-logs", login(), "List the audit trail in the old form", handle((*API).oldAuditLogs)},
}

// trashRoutes are for the recycle bin.
var trashRoutes = []route{
	{"GET", projectTrash, inProject("artifact", "delete"), "List a project's recycle bin", handle((*API).listTrash)},
	{"POST", projectTrash + "/restore", inProject("artifact", "delete"), "Restore something from a project's recycle bin", handle((*API).restore)},
}
