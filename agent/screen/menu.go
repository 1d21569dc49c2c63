package screen

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/secret"
)

// newMenu is what F2 leads to.
func newMenu(m *Model) page {
	open := func(make func(*Model) page) func() tea.Cmd {
		return func() tea.Cmd { return to(push{make(m)}) }
	}
	return &list{m: m, heading: "Customize", items: []item{
		{"Network", "Addresses, host name and DNS. A change is taken back by itself unless it is confirmed.", open(newNetwork)},
		{"Passwords", "Set the password of the appliance console or of root.", open(newPasswords)},
		{"SSH", "Switch the SSH server on or off, also for a limited time.", open(newSSH)},
		{"Services", "What runs and what does not; start, stop and restart.", open(newServices)},
		{"Logs", "Read the newest messages of the operating system and of the registry.", open(newLogs)},
		{"Certificate", "The fingerprint to compare, names and dates; make a new certificate.", open(newCertificate)},
		{"Support bundle", "Collect logs, settings and state, without secrets, in one file.", open(newBundle)},
		{"Restore access", "If nobody reaches the console any more: addresses from DHCP, and the firewall lets everybody to port 5480.", open(newRestore)},
		{"Setup", "What the setup has done, and another try if it could not be finished.", open(newProgress)},
		{"Shut down / Restart", "", open(newPower)},
	}}
}

// newPower shuts the machine down or starts it again.
func newPower(m *Model) page {
	act := func(verb, label, text string) item {
		return item{label, text, func() tea.Cmd {
			return to(push{&waitPage{heading: label, text: "The appliance goes down", do: m.ask(patience, func(ctx context.Context) tea.Msg {
				if _, err := m.agent.Power(ctx, verb, api.Power{Reason: "from the VM's console"}); err != nil {
					return report{outcome(label, "", err)}
				}
				return report{message{heading: label, leave: to(home{}), lines: func(w int) []line {
					return prose(strong, 2, "The appliance goes down. Uploads that are under way are given a moment to end.", w)
				}}}
			})}})
		}}
	}
	return &list{m: m, heading: "Shut down / Restart", items: []item{
		{"Cancel", "Leave it running.", back},
		act("reboot", "Restart", "Stop all services in order and start the machine again. Clients cannot push or pull for about a minute."),
		act("shutdown", "Shut down", "Stop all services in order and power the virtual machine off."),
	}}
}

func newPasswords(m *Model) page {
	of := func(account, label, about string) item {
		return item{label, about, func() tea.Cmd { return to(push{passwordForm(m, account, label, 1)}) }}
	}
	return &list{m: m, heading: "Passwords", items: []item{
		of("console", "Appliance console", "The user admin at https://ADDRESS:5480 and of this screen."),
		of("root", "root", "For this screen and, if it is on and allows passwords, SSH."),
	}}
}

// passwordForm sets a password; leave is how many pages are left when it is set.
func passwordForm(m *Model, account, label string, leave int) page {
	f := &form{m: m, heading: "Password: " + label, buttons: []string{"Set", "Cancel"}}
	for _, x := range []struct{ name, label string }{{"password", "New password"}, {"again", "The same again"}} {
		in := newField(x.name, x.label, "", property.PasswordRule+" Mind the keyboard's layout, which is US here.")
		in.secret = true
		f.fields = append(f.fields, in)
	}
	f.submit = func(int) tea.Cmd {
		given, again := f.raw("password"), f.raw("again")
		if given != again {
			return to(faulted{f, fault.New(fault.Invalid, "the two are not the same").On("again")})
		}
		f.busy = "Setting the password"
		return m.ask(patience, func(ctx context.Context) tea.Msg {
			if err := m.agent.SetPassword(ctx, account, secret.Text(given)); err != nil {
				return faulted{f, err}
			}
			done := outcome(f.heading, "The new password is set.", nil)
			done.leave = to(pop{leave})
			return report{done}
		})
	}
	return f
}

func newBundle(m *Model) page {
	return confirm(m, "Support bundle", "Logs, settings and the state of services are collected in one file; passwords and keys are left out or blackened. It can be fetched from the console on port 5480.",
		"Collect", "Collecting; this takes a minute", func() tea.Cmd {
			return m.ask(longPatience, func(ctx context.Context) tea.Msg {
				b, err := bundle(ctx, m.agent)
				return report{outcome("Support bundle", "The bundle "+plain(b.ID)+" is ready: "+bytes(uint64(b.Bytes))+".", err)}
			})
		})
}

// bundle makes a support bundle and waits for its end.
func bundle(ctx context.Context, a Agent) (api.Bundle, error) {
	b, err := a.CreateBundle(ctx)
	for err == nil && b.State == "running" {
		select {
		case <-ctx.Done():
			return b, fault.New(fault.Unavailable, "the bundle is not ready yet").WithHint("fetch it later from the console on port 5480")
		case <-time.After(time.Second):
			b, err = a.Bundle(ctx, b.ID)
		}
	}
	if err == nil && b.Fault != nil {
		err = fault.New(fault.Unavailable, "%s", b.Fault.Text).WithHint("%s", b.Fault.Hint)
	}
	return b, err
}

func newRestore(m *Model) page {
	return confirm(m, "Restore access", "Addresses are taken from DHCP and router advertisements again, the static ones are forgotten, and the firewall lets everybody to port 5480. Registry, disks and passwords stay as they are.",
		"Restore access", "Restoring", func() tea.Cmd {
			return m.ask(longPatience, func(ctx context.Context) tea.Msg {
				err := m.agent.RestoreAccess(ctx)
				return report{outcome("Restore access", "The network uses DHCP, and the firewall is open for port 5480.", err)}
			})
		})
}

// newProgress is the first boot's list of steps behind the login, with another try.
func newProgress(m *Model) page {
	l := &list{m: m, heading: "Setup"}
	l.intro = func(w int) []line {
		s := m.front.status
		var out []line
		out = append(out, stepLines(s.Steps, 14)...)
		for _, st := range s.Steps {
			if st.Status == api.Failed {
				out = append(out, nil)
				out = append(out, prose(bad, 2, st.Title+": "+st.Text, w)...)
				out = append(out, prose(paper, 2, fault.Sentence(st.Hint), w)...)
			}
		}
		return out
	}
	l.items = []item{{"Back", "", back}}
	if m.front.status.Phase == api.Failed {
		l.items = []item{
			{"Try again", "Go on at the step that failed.", func() tea.Cmd {
				l.items = []item{{"Back", "", back}}
				return m.ask(longPatience, func(ctx context.Context) tea.Msg {
					if err := again(ctx, m.agent); err != nil {
						return report{outcome("Setup", "", err)}
					}
					return home{}
				})
			}},
			{"Back", "", back},
		}
	}
	return l
}

// again begins at the step that has failed, with the answers that it had. An
// appliance that was set up before has none; there the boot's steps are repeated.
func again(ctx context.Context, a Agent) error {
	err := a.ApplySetup(ctx, api.Answers{})
	if fault.Is(err, fault.Conflict) {
		_, err = a.Act(ctx, "berth-firstboot", "restart")
	}
	return err
}
