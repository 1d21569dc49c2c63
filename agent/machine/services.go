package machine

import (
	"context"
	"slices"
	"strings"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/systemd"
)

// serviceTitles are the units that the console shows, in this order, and what they
// are for. No other unit can be touched.
var serviceTitles = []struct{ name, title string }{
	{"berth-firstboot", "First boot and mounting of disks"},
	{"berth-postgres", "Database"},
	{"berth-logs", "Log service"},
	{"berth-token", "Token service"},
	{"berth-core", "REST API"},
	{"berth-jobs", "Background jobs"},
	{"berth-registry", "Registry and front door"},
	{"berth-agent", "Agent and console"},
	{"berth-screen", "Screen on the VM's console"},
	{"ssh", "SSH"},
}

// The actions on services.
const (
	start   = "start"
	stop    = "stop"
	restart = "restart"
)

// actions are what may be done to a unit. The agent is what answers: it can be
// restarted, and not stopped. SSH is switched by its own setting.
func actions(name string) []string {
	switch name {
	case "berth-agent", "berth-firstboot", "berth-screen":
		return []string{restart}
	case "ssh":
		return []string{}
	}
	return []string{start, stop, restart}
}

// unitOf is a service's unit. Photon calls sshd's by its own name.
func unitOf(name string, units []systemd.Unit) (systemd.Unit, bool) {
	for _, u := range units {
		plain := strings.TrimSuffix(u.Name, ".service")
		if u.Load == "loaded" && (plain == name || name == "ssh" && plain == "sshd") {
			return u, true
		}
	}
	return systemd.Unit{}, false
}

// Services gives the appliance's units.
func (m *Machine) Services(ctx context.Context) ([]api.Service, error) {
	names := []string{"sshd.service"}
	for _, s := range serviceTitles {
		names = append(names, s.name+".service")
	}
	units, err := m.o.System.Units(ctx, names...)
	if err != nil {
		return nil, err
	}
	list := []api.Service{}
	for _, s := range serviceTitles {
		if u, ok := unitOf(s.name, units); ok {
			list = append(list, wireService(s.name, s.title, u))
		}
	}
	return list, nil
}

func wireService(name, title string, u systemd.Unit) api.Service {
	w := api.Service{Name: name, Title: title, State: u.Active, Detail: u.Sub, Status: u.StatusText, Since: u.Since,
		MemoryBytes: u.MemoryBytes, PID: int(u.MainPID), Restarts: int(u.Restarts), Actions: actions(name)}
	if u.Active == "failed" && u.Result != "" {
		w.Detail = u.Result
	}
	return w
}

// Act starts, stops or restarts a service, waits for it, and gives its state then.
func (m *Machine) Act(ctx context.Context, name, action string) (api.Service, error) {
	index := slices.IndexFunc(serviceTitles, func(s struct{ name, title string }) bool { return s.name == name })
	if index < 0 {
		return api.Service{}, fault.New(fault.NotFound, "there is no service %.60q", name).WithHint("the list of services has their names")
	}
	may := actions(name)
	if !slices.Contains([]string{start, stop, restart}, action) {
		return api.Service{}, fault.New(fault.NotFound, "there is no action %.20q", action).WithHint("there are start, stop and restart")
	}
	if !slices.Contains(may, action) {
		f := fault.New(fault.Precondition, "%s cannot be told to %s", name, action)
		switch {
		case name == "ssh":
			return api.Service{}, f.WithHint("switch SSH on or off instead")
		case name == "berth-agent":
			return api.Service{}, f.WithHint("it is what answers you; restart it")
		}
		return api.Service{}, f.WithHint("there is %s", strings.Join(may, ", "))
	}
	unit := name + ".service"
	defer m.recent.forget()
	var err error
	switch {
	case name == "berth-agent": // it cannot wait for its own end
		go func() { _ = m.o.System.Restart(context.WithoutCancel(ctx), unit) }()
	case action == start:
		err = m.o.System.Start(ctx, unit)
	case action == stop:
		err = m.o.System.Stop(ctx, unit)
	default:
		err = m.o.System.Restart(ctx, unit)
	}
	if err != nil {
		return api.Service{}, err
	}
	units, err := m.o.System.Units(ctx, unit)
	if err != nil {
		return api.Service{}, err
	}
	u, ok := unitOf(name, units)
	if !ok {
		return api.Service{}, fault.New(fault.NotFound, "this machine has no %s", unit)
	}
	return wireService(name, serviceTitles[index].title, u), nil
}
