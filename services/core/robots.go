package core

import (
	"fmt"
	"strconv"
	"time"

	"berth/appliance/fault"
	"berth/services/access"
	"berth/services/account"
	"berth/services/query"
)

type robot struct {
	Created     moment              `json:"creation_time"`
	CreatorRef  int64               `json:"creator_ref"`
	CreatorType string              `json:"creator_type"`
	Description string              `json:"description,omitempty"`
	Disable     bool                `json:"disable"`
	Duration    int                 `json:"duration"`
	Editable    bool                `json:"editable"`
	ExpiresAt   int64               `json:"expires_at"`
	ID          int64               `json:"id"`
	LastUsed    *moment             `json:"last_used_time,omitempty"` // Harbor has no such field
	Level       string              `json:"level"`
	Name        string              `json:"name"`
	OldSecret   *moment             `json:"old_secret_until,omitempty"` // Harbor has no such field
	Permissions []access.Permission `json:"permissions"`
	Updated     moment              `json:"update_time"`
}

func robotOf(r account.Robot) robot {
	wire := robot{Created: moment(r.Created), CreatorRef: r.CreatorID, CreatorType: r.CreatorType, Description: r.Description,
		Disable: r.Disabled, Duration: r.Duration, Editable: true, ExpiresAt: expiry(r.Expires), ID: r.ID, Level: r.Level,
		Name: r.Name, Permissions: r.Permissions, Updated: moment(r.Updated)}
	if !r.LastUsed.IsZero() {
		used := moment(r.LastUsed)
		wire.LastUsed = &used
	}
	if r.OldSecretUntil.After(time.Now()) {
		until := moment(r.OldSecretUntil)
		wire.OldSecret = &until
	}
	return wire
}

// expiry is a Unix time, or -1 for never.
func expiry(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.Unix()
}

type robotPath struct {
	ID int64 `path:"robot_id"`
}

func (a *API) listRobots(r *request, in struct{ paging }) (list[robot], error) {
	q, err := in.query()
	if err != nil {
		return list[robot]{}, err
	}
	if err := a.requireRobotList(r, q); err != nil {
		return list[robot]{}, err
	}
	page, err := a.Accounts.ListRobots(r.Context(), q)
	return paged(page, err, in.paging, robotOf)
}

// requireRobotList asks for the right to list the robots of the one project
// that the query names, or else those of the system.
func (a *API) requireRobotList(r *request, q query.Query) error {
	target := access.Target{}
	level, project := exact(q, "level"), exact(q, "projectid")
	if level == "project" {
		id, err := strconv.ParseInt(project, 10, 64)
		if err != nil && !r.principal.Sysadmin {
			return fault.New(fault.Invalid, "must with project ID when to query project robots").On("q")
		}
		if err == nil {
			if target, err = a.Projects.TargetByID(r.Context(), r.principal, id); err != nil {
				return r.hidden(err)
			}
		}
	}
	return r.require(target, "robot", "list")
}

// exact gives the value of a query's only term for a field, if it is k=v.
func exact(q query.Query, field string) string {
	if terms := q.Take(field); len(terms) == 1 && terms[0].Op == query.Equal {
		return terms[0].Values[0]
	}
	return ""
}

type robotBody struct {
	Name        string              `json:"name"`
	Description string              `json:"description"`
	Level       string              `json:"level"`
	Duration    *int                `json:"duration" doc:"days; -1 is for ever; if absent, the setting robot_token_duration"`
	Disable     bool                `json:"disable"`
	Secret      string              `json:"secret"`
	Permissions []access.Permission `json:"permissions"`
}

type createdRobot struct {
	Created   moment `json:"creation_time"`
	ExpiresAt int64  `json:"expires_at"`
	ID        int64  `json:"id"`
	Name      string `json:"name"`
	Secret    string `json:"secret"`
}

func (a *API) createRobot(r *request, in struct {
	Body robotBody `body:""`
}) (created, error) {
	b := in.Body
	target := access.Target{}
	if err := access.CheckPermissions(b.Level, b.Permissions); err != nil {
		return created{}, err
	}
	if b.Level == "project" {
		var err error
		if target, err = a.Projects.Target(r.Context(), r.principal, b.Permissions[0].Namespace); err != nil {
			return created{}, r.hidden(err)
		}
	}
	if err := r.require(target, "robot", "create"); err != nil {
		return created{}, err
	}
	days, err := a.robotDays(r, b.Duration)
	if err != nil {
		return created{}, err
	}
	made, secret, err := a.Accounts.CreateRobot(r.Context(), r.principal, account.NewRobot{Name: b.Name, Description: b.Description,
		Level: b.Level, Permissions: b.Permissions, Duration: days, Disabled: b.Disable, Secret: b.Secret})
	return created{fmt.Sprintf("%s/robots/%d", v2, made.ID),
		createdRobot{moment(made.Created), expiry(made.Expires), made.ID, made.Name, secret.Reveal()}}, err
}

// robotDays is how long a new robot lives: what is asked for, or else the setting.
func (a *API) robotDays(r *request, asked *int) (int, error) {
	if asked != nil {
		return *asked, nil
	}
	s, err := a.Configuration.Current(r.Context())
	return int(s.RobotDuration), err
}

// robotFor finds a robot that the caller may do something with.
func (a *API) robotFor(r *request, id int64, action string) (account.Robot, error) {
	found, err := a.Accounts.Robot(r.Context(), id)
	if err != nil {
		return found, r.hidden(err)
	}
	target := access.Target{}
	if found.ProjectID != 0 {
		if target, err = a.Projects.TargetByID(r.Context(), r.principal, found.ProjectID); err != nil {
			return found, r.hidden(err)
		}
	}
	return found, r.require(target, "robot", action)
}

func (a *API) getRobot(r *request, in struct{ robotPath }) (robot, error) {
	found, err := a.robotFor(r, in.ID, "read")
	return robotOf(found), err
}

func (a *API) updateRobot(r *request, in struct {
	robotPath
	Body robotBody `body:""`
}) (empty, error) {
	found, err := a.robotFor(r, in.ID, "update")
	if err != nil {
		return empty{}, err
	}
	b := in.Body
	if b.Name != found.Name || b.Level != found.Level {
		return empty{}, fault.New(fault.Invalid, "cannot update the level or name of robot")
	}
	days := found.Duration
	if b.Duration != nil {
		days = *b.Duration
	}
	return empty{}, a.Accounts.UpdateRobot(r.Context(), r.principal, in.ID,
		account.RobotChange{Description: b.Description, Permissions: b.Permissions, Duration: days, Disabled: b.Disable})
}

type robotSecret struct {
	Secret string `json:"secret,omitempty"`
}

type robotSecretBody struct {
	Secret  string `json:"secret" doc:"if absent, one is made"`
	Overlap int    `json:"overlap_hours" doc:"how long the old secret works, too; Harbor has no such field"`
}

func (a *API) refreshSecret(r *request, in struct {
	robotPath
	Body robotSecretBody `body:""`
}) (robotSecret, error) {
	if _, err := a.robotFor(r, in.ID, "update"); err != nil {
		return robotSecret{}, err
	}
	secret, err := a.Accounts.SetRobotSecret(r.Context(), in.ID, in.Body.Secret, time.Duration(min(max(in.Body.Overlap, -1), 1<<16))*time.Hour)
	return robotSecret{secret.Reveal()}, err
}

func (a *API) deleteRobot(r *request, in struct{ robotPath }) (empty, error) {
	if _, err := a.robotFor(r, in.ID, "delete"); err != nil {
		return empty{}, err
	}
	return empty{}, a.Accounts.DeleteRobot(r.Context(), in.ID)
}
