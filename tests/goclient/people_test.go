package goclient

import (
	"strings"

	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/member"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/permissions"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/robot"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/user"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/client/usergroup"
	"github.com/goharbor/go-client/pkg/sdk/v2.0/models"

	"berth/tests/berthtest"
)

const password = "Harbor12345"

// newUser makes a user and finds its id by the Location.
func (w *world) newUser(name string) int64 {
	w.Helper()
	made, err := w.User.CreateUser(w.Context(), user.NewCreateUserParams().WithUserReq(&models.UserCreationReq{
		Username: name, Email: name + "@example.com", Realname: name, Password: password}))
	w.need(err)
	return lastID(w, made.Location)
}

func users(w *world) {
	ctx := w.Context()
	id := w.newUser("alice")
	got, err := w.User.GetUser(ctx, user.NewGetUserParams().WithUserID(id))
	w.need(err)
	if got.Payload.Username != "alice" || got.Payload.SysadminFlag {
		w.Errorf("%+v", got.Payload)
	}
	list, err := w.User.ListUsers(ctx, user.NewListUsersParams().WithQ(pointer("username=~ali")))
	w.need(err)
	if len(list.Payload) != 1 || list.XTotalCount != 1 {
		w.Errorf("%d of %d users", len(list.Payload), list.XTotalCount)
	}
	found, err := w.User.SearchUsers(ctx, user.NewSearchUsersParams().WithUsername("ali"))
	w.need(err)
	if len(found.Payload) != 1 || found.Payload[0].UserID != id {
		w.Errorf("%+v", found.Payload)
	}
	_, err = w.User.UpdateUserProfile(ctx, user.NewUpdateUserProfileParams().WithUserID(id).
		WithProfile(&models.UserProfile{Email: "a@example.com", Realname: "Alice", Comment: "c"}))
	w.need(err)
	_, err = w.User.UpdateUserPassword(ctx, user.NewUpdateUserPasswordParams().WithUserID(id).
		WithPassword(&models.PasswordReq{NewPassword: "Changed12345"}))
	w.need(err)
	alice := w.as(berthtest.Login{User: "alice", Password: "Changed12345"})
	me, err := alice.User.GetCurrentUserInfo(ctx, user.NewGetCurrentUserInfoParams())
	w.need(err)
	if me.Payload.Realname != "Alice" {
		w.Errorf("%+v", me.Payload)
	}
	_, err = alice.User.ListUsers(ctx, user.NewListUsersParams())
	w.refused(403, err)
	_, err = w.User.SetUserSysAdmin(ctx, user.NewSetUserSysAdminParams().WithUserID(id).WithSysadminFlag(&models.UserSysAdminFlag{SysadminFlag: true}))
	w.need(err)
	_, err = alice.User.ListUsers(ctx, user.NewListUsersParams())
	w.need(err)
	rights, err := w.User.GetCurrentUserPermissions(ctx, user.NewGetCurrentUserPermissionsParams().WithScope(pointer("/project/1")).WithRelative(pointer(true)))
	w.need(err)
	if len(rights.Payload) < 50 {
		w.Errorf("%d permissions", len(rights.Payload))
	}
	_, err = alice.User.SetCliSecret(ctx, user.NewSetCliSecretParams().WithUserID(id).WithSecret(&models.OIDCCliSecretReq{Secret: "Secret12345"}))
	w.refused(412, err) // only who comes from an OIDC provider has one
	_, err = w.User.DeleteUser(ctx, user.NewDeleteUserParams().WithUserID(id))
	w.need(err)
	_, err = w.User.GetUser(ctx, user.NewGetUserParams().WithUserID(id))
	w.refused(404, err)
}

func members(w *world) {
	ctx := w.Context()
	w.newProject("crew", false)
	id := w.newUser("bob")
	bob := w.as(berthtest.Login{User: "bob", Password: password})
	made, err := w.Member.CreateProjectMember(ctx, member.NewCreateProjectMemberParams().WithProjectNameOrID("crew").
		WithProjectMember(&models.ProjectMember{RoleID: 3, MemberUser: &models.UserEntity{Username: "bob"}}))
	w.need(err)
	mid := lastID(w, made.Location)
	list, err := w.Member.ListProjectMembers(ctx, member.NewListProjectMembersParams().WithProjectNameOrID("crew").WithEntityname(pointer("bo")))
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].EntityID != id || list.Payload[0].RoleName != "guest" {
		w.Errorf("%+v", list.Payload)
	}
	_, err = bob.Member.ListProjectMembers(ctx, member.NewListProjectMembersParams().WithProjectNameOrID("crew"))
	w.need(err)
	_, err = w.Member.UpdateProjectMember(ctx, member.NewUpdateProjectMemberParams().WithProjectNameOrID("crew").WithMid(mid).WithRole(&models.RoleRequest{RoleID: 4}))
	w.need(err)
	one, err := w.Member.GetProjectMember(ctx, member.NewGetProjectMemberParams().WithProjectNameOrID("crew").WithMid(mid))
	w.need(err)
	if one.Payload.RoleID != 4 || one.Payload.EntityType != "u" {
		w.Errorf("%+v", one.Payload)
	}
	_, err = w.Member.DeleteProjectMember(ctx, member.NewDeleteProjectMemberParams().WithProjectNameOrID("crew").WithMid(mid))
	w.need(err)
	_, err = bob.Member.ListProjectMembers(ctx, member.NewListProjectMembersParams().WithProjectNameOrID("crew"))
	w.refused(403, err)
}

func groups(w *world) {
	ctx := w.Context()
	w.newProject("grouped", false)
	made, err := w.Usergroup.CreateUserGroup(ctx, usergroup.NewCreateUserGroupParams().WithUsergroup(&models.UserGroup{GroupName: "ops", GroupType: 3}))
	if err != nil && strings.Contains(err.Error(), "409") {
		w.Fatalf("a fresh Berth has a group: %v", err)
	}
	w.need(err)
	id := lastID(w, made.Location)
	list, err := w.Usergroup.ListUserGroups(ctx, usergroup.NewListUserGroupsParams())
	w.need(err)
	if len(list.Payload) != 1 || list.Payload[0].GroupName != "ops" {
		w.Errorf("%+v", list.Payload)
	}
	found, err := w.Usergroup.SearchUserGroups(ctx, usergroup.NewSearchUserGroupsParams().WithGroupname("op"))
	w.need(err)
	if len(found.Payload) != 1 || found.Payload[0].ID != id {
		w.Errorf("%+v", found.Payload)
	}
	_, err = w.Usergroup.UpdateUserGroup(ctx, usergroup.NewUpdateUserGroupParams().WithGroupID(id).WithUsergroup(&models.UserGroup{GroupName: "operators", GroupType: 3}))
	w.need(err)
	one, err := w.Usergroup.GetUserGroup(ctx, usergroup.NewGetUserGroupParams().WithGroupID(id))
	w.need(err)
	if one.Payload.GroupName != "operators" {
		w.Errorf("%+v", one.Payload)
	}
	_, err = w.Member.CreateProjectMember(ctx, member.NewCreateProjectMemberParams().WithProjectNameOrID("grouped").
		WithProjectMember(&models.ProjectMember{RoleID: 2, MemberGroup: &models.UserGroup{ID: id}}))
	w.need(err)
	in, err := w.Member.ListProjectMembers(ctx, member.NewListProjectMembersParams().WithProjectNameOrID("grouped").WithEntityname(pointer("operators")))
	w.need(err)
	if len(in.Payload) != 1 || in.Payload[0].EntityType != "g" {
		w.Errorf("%+v", in.Payload)
	}
	_, err = w.Usergroup.DeleteUserGroup(ctx, usergroup.NewDeleteUserGroupParams().WithGroupID(id))
	w.need(err)
}

func robots(w *world) {
	ctx := w.Context()
	w.newProject("machines", false)
	w.newProject("others", false)
	all, err := w.Permissions.GetPermissions(ctx, permissions.NewGetPermissionsParams())
	w.need(err)
	if len(all.Payload.System) < 60 || len(all.Payload.Project) < 60 {
		w.Errorf("%d and %d permissions", len(all.Payload.System), len(all.Payload.Project))
	}
	made, err := w.Robot.CreateRobot(ctx, robot.NewCreateRobotParams().WithRobot(&models.RobotCreate{
		Name: "ci", Level: "system", Duration: 7, Permissions: []*models.RobotPermission{
			{Kind: "project", Namespace: "machines", Access: []*models.Access{{Resource: "repository", Action: "list"}, {Resource: "repository", Action: "pull"}, {Resource: "repository", Action: "push"}}},
		}}))
	w.need(err)
	id := made.Payload.ID
	if made.Payload.Name != "robot$ci" || made.Payload.Secret == "" {
		w.Errorf("%+v", made.Payload)
	}
	ci := w.as(berthtest.Login{User: made.Payload.Name, Password: made.Payload.Secret})
	w.need(w.repositories(ci, "machines"))
	w.refused(403, w.repositories(ci, "others"))
	list, err := w.Robot.ListRobot(ctx, robot.NewListRobotParams().WithQ(pointer("Level=system")))
	w.need(err)
	if len(list.Payload) != 1 {
		w.Errorf("%+v", list.Payload)
	}
	got, err := w.Robot.GetRobotByID(ctx, robot.NewGetRobotByIDParams().WithRobotID(id))
	w.need(err)
	got.Payload.Disable = true
	_, err = w.Robot.UpdateRobot(ctx, robot.NewUpdateRobotParams().WithRobotID(id).WithRobot(got.Payload))
	w.need(err)
	w.refused(401, w.repositories(ci, "machines"))
	got.Payload.Disable = false
	_, err = w.Robot.UpdateRobot(ctx, robot.NewUpdateRobotParams().WithRobotID(id).WithRobot(got.Payload))
	w.need(err)
	fresh, err := w.Robot.RefreshSec(ctx, robot.NewRefreshSecParams().WithRobotID(id).WithRobotSec(&models.RobotSec{}))
	w.need(err)
	w.refused(401, w.repositories(ci, "machines"))
	w.need(w.repositories(w.as(berthtest.Login{User: made.Payload.Name, Password: fresh.Payload.Secret}), "machines"))
	_, err = w.Robot.DeleteRobot(ctx, robot.NewDeleteRobotParams().WithRobotID(id))
	w.need(err)
}
