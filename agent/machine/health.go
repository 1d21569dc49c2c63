package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"berth/agent/api"
	"berth/appliance/cert"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/health"
	"berth/appliance/setting"
	"berth/firstboot"
)

// look makes all checks.
func (m *Machine) look(ctx context.Context) api.Health {
	report := health.Run(ctx, m.checks())
	w := api.Health{State: string(report.State), Checks: []api.Check{}}
	for _, r := range report.Results {
		w.Checks = append(w.Checks, api.Check{Name: r.Name, About: r.About, State: string(r.State), Text: r.Text(), Hint: r.Hint,
			Causes: r.Causes, Explains: r.Explains, Millis: r.Took.Milliseconds()})
	}
	return w
}

// Problems are what is wrong by itself.
func problems(h api.Health) []api.Problem {
	list := []api.Problem{}
	for _, c := range h.Checks {
		if c.State != string(health.Healthy) && len(c.Causes) == 0 {
			list = append(list, api.Problem{Name: c.Name, State: c.State, Text: c.Text, Hint: c.Hint, Explains: c.Explains})
		}
	}
	return list
}

func (m *Machine) checks() []health.Check {
	settings, err := m.Settings()
	list := []health.Check{
		{Name: "settings", About: "the settings can be used", Probe: func(context.Context) error {
			if err != nil {
				return broken(err)
			}
			return nil
		}},
		{Name: "first boot", About: "every step of the boot was done", DependsOn: []string{"settings"}, Probe: m.probeFirstboot},
	}
	for _, place := range mounts() {
		needs := []string{"first boot"}
		if place.role == diskrole.System {
			needs = nil
		}
		list = append(list, health.Check{Name: string(place.role) + " disk", About: "there is room on " + place.mount, DependsOn: needs,
			Probe: func(context.Context) error { return m.probeDisk(place.role, place.mount, settings.Disks) }})
	}
	if local := strings.Contains(settings.Database, "/run/postgresql"); local {
		list = append(list, health.Check{Name: "database", About: "PostgreSQL takes connections", DependsOn: []string{"first boot", "database disk"},
			Probe: health.Answers("unix", m.below("/run/postgresql/.s.PGSQL.5432")), Hint: "look at the journal of berth-postgres, and restart it"})
	}
	for _, s := range serviceTitles {
		switch s.name {
		case "berth-firstboot", "berth-postgres", "berth-agent", "berth-screen", "ssh":
			continue
		}
		list = append(list, health.Check{Name: strings.TrimPrefix(s.name, "berth-"), About: s.title, DependsOn: needs(s.name),
			Probe: func(ctx context.Context) error { return m.probeUnit(ctx, s.name) }, Hint: "start it again, under Services; the logs (journalctl -u " + s.name + ") say why it stopped"})
	}
	list = append(list,
		health.Check{Name: "registry's own checks", About: "what the registry says of itself", DependsOn: []string{"core", "registry", "token", "jobs"},
			Probe: func(ctx context.Context) error { return m.probeCore(ctx, settings) }},
		health.Check{Name: "certificate", About: "clients can trust it", DependsOn: []string{"first boot"}, Probe: func(context.Context) error { return m.probeCertificate(settings) }},
		health.Check{Name: "clock", About: "the time is right", Probe: m.probeClock},
	)
	return list
}

// needs are what a service cannot work without.
func needs(name string) []string {
	if name == "berth-logs" {
		return []string{"first boot", "log disk"}
	}
	return []string{"first boot", "data disk", "database"}
}

func (m *Machine) probeFirstboot(context.Context) error {
	state := m.state()
	switch state.Phase {
	case firstboot.Ready:
		if len(state.Warnings) > 0 {
			return health.Warning(fault.New(fault.Precondition, "%s", strings.Join(state.Warnings, "; ")))
		}
		return nil
	case firstboot.Waiting:
		return fault.New(fault.Precondition, "the appliance has not been set up yet").
			WithHint("open https://ADDRESS:%d, or set it up at the VM's console; the code is shown there", setting.ConsolePort)
	case firstboot.Running:
		return fault.New(fault.Unavailable, "the boot is under way").WithHint("wait a moment")
	}
	if step, ok := state.Failure(); ok {
		return fault.New(fault.Unavailable, "%s: %s", step.Title, step.Text).WithHint("%s", step.Hint)
	}
	text, hint := state.Text, state.Hint
	if text == "" {
		text, hint = "the boot has failed", "look at the journal of "+firstbootUnit
	}
	return fault.New(fault.Unavailable, "%s", text).WithHint("%s", hint)
}

func (m *Machine) probeDisk(role diskrole.Role, mount string, limits setting.Disks) error {
	d := m.usage(role, mount, limits)
	hint := "delete what is not needed, or make the disk larger in vCenter and let it grow here (berth-agent disks grow " + string(role) + ")"
	if role == diskrole.System {
		hint = "look what fills it (du -x /): the appliance itself writes little there"
	}
	switch d.State {
	case diskMissing:
		return fault.New(fault.Unavailable, "%s", d.Text).WithHint("is the disk attached to the virtual machine?")
	case diskWarning:
		return health.Warning(fault.New(fault.NoSpace, "%s", d.Text).WithHint("%s", hint))
	case diskReadOnly:
		return fault.New(fault.NoSpace, "%s: the registry takes no pushes", d.Text).WithHint("%s", hint)
	case diskFull:
		return fault.New(fault.NoSpace, "%s", d.Text).WithHint("%s", hint)
	}
	return nil
}

func (m *Machine) probeUnit(ctx context.Context, name string) error {
	units, err := m.o.System.Units(ctx, name+".service")
	if err != nil {
		return err
	}
	u, ok := unitOf(name, units)
	switch {
	case !ok:
		return fault.New(fault.Unavailable, "this machine has no %s", name)
	case u.Active == "active":
		return nil
	case u.Active == "failed":
		return fault.New(fault.Unavailable, "%s has failed (%s)", name, u.Result)
	}
	return fault.New(fault.Unavailable, "%s does not run (%s)", name, u.Active)
}

// probeCore asks the registry how it is: its REST API answers with its own checks.
func (m *Machine) probeCore(ctx context.Context, s setting.Settings) error {
	resp, err := m.over(ctx, s.Socket("core"), http.MethodGet, "/api/v2.0/health")
	if err != nil {
		return health.Unanswered(err)
	}
	defer resp.Body.Close()
	var w struct {
		Components []struct{ Name, Status, Error string }
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&w); err != nil {
		return fault.Wrap(fault.Unavailable, err, "its answer cannot be read")
	}
	var all []error
	for _, c := range w.Components {
		if c.Status != "healthy" {
			all = append(all, fault.New(fault.Unavailable, "%s: %s", c.Name, c.Error))
		}
	}
	if len(all) > 1 {
		texts := make([]string, len(all))
		for i, e := range all {
			texts[i] = fault.Of(e).Text
		}
		return fault.New(fault.Unavailable, "%s", strings.Join(texts, "; "))
	}
	return errors.Join(all...)
}

// endsSoon is when it is time to see why the appliance's own certificate has not been
// renewed. One that was supplied, which others have to renew, gets renewBefore.
const endsSoon = 21 * 24 * time.Hour

func (m *Machine) probeCertificate(s setting.Settings) error {
	c, err := m.served(s)
	if errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(fault.Unavailable, err, "there is no certificate").WithHint("restart berth-firstboot, which makes one")
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the certificate cannot be used").WithHint("upload it again, or reset it (berth-agent certificate reset)")
	}
	soon, hint := endsSoon, "renew it (berth-agent certificate renew)"
	if r, err := cert.Look(m.below(s.TLS())); err == nil && r.Supplied {
		soon, hint = renewBefore, "have it issued anew (berth-agent certificate csr) and upload that, or go back to the appliance's own (berth-agent certificate reset)"
	}
	now := m.o.Now()
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		return fault.New(fault.Unavailable, "the certificate has expired on %s: clients refuse it", c.NotAfter.UTC().Format(time.DateOnly)).WithHint("%s", hint)
	case now.Before(c.NotBefore):
		return fault.New(fault.Unavailable, "the certificate is not valid before %s", c.NotBefore.UTC().Format(time.DateTime)).WithHint("check the machine's clock")
	case left < soon:
		return health.Warning(fault.New(fault.Precondition, "the certificate ends on %s", c.NotAfter.UTC().Format(time.DateOnly)).WithHint("%s", hint))
	}
	for _, n := range s.Hostnames {
		if c.VerifyHostname(bracket(n)) != nil {
			return health.Warning(fault.New(fault.Precondition, "the certificate is not for %s", n).WithHint("upload one that is, or take the name out"))
		}
	}
	return nil
}

// released is before any release: a clock that is earlier has not been set.
var released = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (m *Machine) probeClock(ctx context.Context) error {
	if now := m.o.Now(); now.Before(released) {
		return fault.New(fault.Unavailable, "the clock says %s", now.UTC().Format(time.DateOnly)).WithHint("set a time server (berth-agent time set --ntp …), or mend the ESXi host's clock")
	}
	t, err := m.o.System.TimeNow(ctx)
	if err != nil {
		return err
	}
	s, err := m.Settings()
	if err == nil && len(s.Time.NTP) > 0 && !t.Synchronized {
		return health.Warning(fault.New(fault.Unavailable, "the clock is not synchronised with %s", strings.Join(s.Time.NTP, ", ")).
			WithHint("test the servers: berth-agent time test"))
	}
	return nil
}
