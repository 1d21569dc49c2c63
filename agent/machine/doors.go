package machine

import (
	"context"
	"net/netip"
	"time"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/firewall"
	"berth/appliance/login"
	"berth/appliance/setting"
)

// Time is what was set, and how it is.
func (m *Machine) Time(ctx context.Context) (api.Time, error) {
	s, err := m.Settings()
	if err != nil {
		return api.Time{}, broken(err)
	}
	t, err := m.o.System.TimeNow(ctx)
	t.Settings = s.Time
	t.Settings.NTP = some(s.Time.NTP)
	return t, err
}

// SetTime changes the zone and the servers.
func (m *Machine) SetTime(ctx context.Context, t setting.Time) (api.Time, error) {
	if _, err := m.change(ctx, func(s *setting.Settings) error { s.Time = t; return nil }); err != nil {
		return api.Time{}, err
	}
	return m.Time(ctx)
}

// maxServers is how many time servers are asked at once.
const maxServers = 8

// TestTime asks a server for the time, or those of the settings.
func (m *Machine) TestTime(ctx context.Context, server string) ([]api.TimeAnswer, error) {
	servers := []string{server}
	if server == "" {
		s, err := m.Settings()
		if err != nil {
			return nil, broken(err)
		}
		if servers = s.Time.NTP; len(servers) == 0 {
			return nil, fault.New(fault.Precondition, "no time server is set").On("server").WithHint("name one, or set time.ntp")
		}
	}
	probe := setting.Appliance()
	probe.Time.NTP = servers
	if err := probe.Check(); err != nil {
		return nil, err
	}
	answers := []api.TimeAnswer{}
	for _, name := range servers[:min(len(servers), maxServers)] {
		a, err := m.o.System.TestTime(ctx, name)
		if a.Server = name; err != nil {
			f := fault.Of(err)
			a.Fault = &api.Fault{Kind: f.Kind.String(), Text: f.Text, Hint: f.Hint}
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// Firewall gives the networks that may reach each port.
func (m *Machine) Firewall(context.Context) (setting.Firewall, error) {
	s, err := m.Settings()
	if err != nil {
		return setting.Firewall{}, broken(err)
	}
	f := s.Firewall
	f.Registry, f.Console, f.SSH = some(f.Registry), some(f.Console), some(f.SSH)
	return f, nil
}

// SetFirewall changes them. from is who asks, the zero value at the machine
// itself: one that would shut itself out of the console is refused unless it
// insists (force).
func (m *Machine) SetFirewall(ctx context.Context, f setting.Firewall, from netip.Addr, force bool) (setting.Firewall, error) {
	_, err := m.change(ctx, func(s *setting.Settings) error {
		s.Firewall = f
		if err := s.Check(); err != nil {
			return err
		}
		if from.IsValid() && !force && !firewall.Allows(f.Console, from) {
			return fault.New(fault.Precondition, "%s, from where you ask, could not reach the console any more", from).On("firewall.console").
				WithHint("add its network, or insist (force)")
		}
		return nil
	})
	if err != nil {
		return setting.Firewall{}, err
	}
	return m.Firewall(ctx)
}

// SSH is whether sshd runs, and for whom.
func (m *Machine) SSH(context.Context) (api.SSH, error) {
	s, err := m.Settings()
	if err != nil {
		return api.SSH{}, broken(err)
	}
	w := api.SSH{Enabled: s.SSH.Enabled, Until: s.SSH.Until, Keys: []string{}, Fingerprints: []string{}}
	if w.Enabled && !w.Until.IsZero() && !w.Until.After(m.o.Now()) {
		w.Enabled, w.Until = false, time.Time{} // its end has come this moment
	}
	accounts := login.In(m.o.Root)
	keys, _, err := accounts.AuthorizedKeys()
	if err != nil {
		return w, err
	}
	for _, k := range keys {
		w.Keys = append(w.Keys, k.Line())
	}
	own, err := accounts.HostKeys()
	for _, k := range own {
		w.Fingerprints = append(w.Fingerprints, k.Type+" "+k.Fingerprint)
	}
	return w, err
}

// longestSSH is how long SSH can be switched on for a time; longer is for ever.
const longestSSH = 31 * 24 * time.Hour

// SetSSH switches sshd and sets root's keys.
func (m *Machine) SetSSH(ctx context.Context, in api.SetSSH) (api.SSH, error) {
	if in.Hours != nil && in.Until != nil {
		return api.SSH{}, fault.New(fault.Invalid, "it is either hours or until").On("hours")
	}
	if in.Hours != nil && (*in.Hours < 0 || *in.Hours > longestSSH.Hours()) {
		return api.SSH{}, fault.New(fault.Invalid, "it must be between 0 (for ever) and %.0f", longestSSH.Hours()).On("hours")
	}
	if in.Until != nil && !in.Until.IsZero() && !in.Until.After(m.o.Now()) {
		return api.SSH{}, fault.New(fault.Invalid, "it is in the past").On("until")
	}
	if in.Keys != nil {
		if _, err := login.In(m.o.Root).SetAuthorizedKeys(*in.Keys); err != nil {
			return api.SSH{}, err
		}
	}
	done, err := m.change(ctx, func(s *setting.Settings) error {
		if in.Enabled != nil {
			s.SSH = setting.SSH{Enabled: *in.Enabled}
		}
		switch {
		case !s.SSH.Enabled:
		case in.Until != nil:
			s.SSH.Until = in.Until.UTC().Truncate(time.Second)
		case in.Hours != nil && *in.Hours > 0:
			s.SSH.Until = m.o.Now().Add(time.Duration(*in.Hours * float64(time.Hour))).UTC().Truncate(time.Second)
		case in.Hours != nil:
			s.SSH.Until = time.Time{}
		}
		return nil
	})
	if err == nil && in.Keys != nil && len(done.Changes) == 0 {
		err = m.applySSH(ctx) // whether passwords are accepted depends on the keys
	}
	if err != nil {
		return api.SSH{}, err
	}
	return m.SSH(ctx)
}

func (m *Machine) applySSH(ctx context.Context) error {
	s, err := m.Settings()
	if err != nil {
		return broken(err)
	}
	return m.o.System.ApplySSH(ctx, s.SSH)
}

// endSSH switches SSH off in the settings when its time has come. systemd has a
// timer that stops sshd by then; this closes its port and lets the next boot know.
func (m *Machine) endSSH(ctx context.Context) error {
	return every(ctx, 5*time.Second, func(ctx context.Context) {
		s, err := m.Settings()
		if err != nil || !s.SSH.Enabled || s.SSH.Until.IsZero() || s.SSH.Until.After(m.o.Now()) {
			return
		}
		if _, err := m.change(ctx, func(s *setting.Settings) error { s.SSH = setting.SSH{}; return nil }); err != nil {
			m.o.Log.Error("cannot switch SSH off", "err", err)
			return
		}
		m.o.Log.Info("SSH was switched off: its time was over")
	})
}
