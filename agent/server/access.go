package server

import (
	"strings"

	"berth/agent/api"
	"berth/agent/machine"
	"berth/agent/session"
	"berth/appliance/fault"
	"berth/appliance/secret"
)

func accessRoutes() []route {
	return []route{
		{"GET", "/ssh", admin, "", "Whether sshd runs, and for whom", handle((*API).ssh)},
		{"PUT", "/ssh", admin, "switch SSH", "Switch SSH on or off, for a time or for ever, and set root's keys", handle((*API).setSSH)},
		{"PUT", "/passwords/{account}", admin, "change a password", "Change the password of console (admin here), root (the machine) or registry (admin there)", handle((*API).setPassword)},
		{"POST", "/passwords/verify", admin, "", "Check a password of admin or root; only for the VM's console", handle((*API).verify)},
	}
}

// join writes a list for the audit trail.
func join(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, " ")
}

func (a *API) ssh(r *request, _ none) (api.SSH, error) { return a.o.Machine.SSH(r.Context()) }

func (a *API) setSSH(r *request, in struct {
	Body api.SetSSH `body:""`
}) (api.SSH, error) {
	var detail []string
	if in.Body.Enabled != nil {
		detail = append(detail, map[bool]string{true: "on", false: "off"}[*in.Body.Enabled])
	}
	if in.Body.Keys != nil {
		detail = append(detail, "keys set")
	}
	r.note("", strings.Join(detail, ", "))
	return a.o.Machine.SetSSH(r.Context(), in.Body)
}

func (a *API) setPassword(r *request, in struct {
	Account string          `path:"account" doc:"console, root or registry"`
	Body    api.SetPassword `body:""`
}) (done, error) {
	r.note(in.Account, "")
	// A browser that was left open must not be enough to take the appliance over.
	if s := r.caller.session; s != nil {
		err := a.o.Sessions.Check(r.Context(), s.User, secret.Text(in.Body.Current), r.caller.address)
		if fault.Is(err, fault.Unauthenticated) {
			return done{}, fault.New(fault.Forbidden, "your own password is missing or wrong").On("current")
		}
		if err != nil {
			return done{}, err
		}
	}
	if err := a.o.Machine.SetPassword(r.Context(), in.Account, secret.Text(in.Body.Password)); err != nil {
		return done{}, err
	}
	switch in.Account {
	case machine.Console:
		a.o.Sessions.EndAll(session.Admin, r.caller.session)
	case machine.Root:
		a.o.Sessions.EndAll(session.Root, r.caller.session)
	}
	return done{}, nil
}

func (a *API) verify(r *request, in struct {
	Body api.Login `body:""`
}) (done, error) {
	if !r.caller.local {
		return done{}, fault.New(fault.Forbidden, "this is for the VM's console alone")
	}
	return done{}, a.o.Sessions.Check(r.Context(), in.Body.Username, secret.Text(in.Body.Password), "console")
}
