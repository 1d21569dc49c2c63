package screen

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
)

// newSSH switches the SSH server.
func newSSH(m *Model) page {
	type seen struct {
		s   api.SSH
		err error
	}
	var state seen
	known := false
	l := &list{m: m, heading: "SSH"}
	set := func(label, about string, on bool, hours float64, done string) item {
		return item{label, about, func() tea.Cmd {
			return to(push{&waitPage{heading: "SSH", text: "Switching", do: m.ask(patience, func(ctx context.Context) tea.Msg {
				_, err := m.agent.SetSSH(ctx, api.SetSSH{Enabled: &on, Hours: &hours})
				return report{outcome("SSH", done, err)}
			})}})
		}}
	}
	l.items = []item{
		set("On for two hours", "It is switched off by itself after that.", true, 2, "SSH is on for two hours."),
		set("On", "Until somebody switches it off.", true, 0, "SSH is on."),
		set("Off", "Sessions that are open go on.", false, 0, "SSH is off."),
		{"Back", "", back},
	}
	l.onBegin = func() tea.Cmd {
		return m.ask(patience, func(ctx context.Context) tea.Msg {
			s, err := m.agent.SSH(ctx)
			return seen{s, err}
		})
	}
	l.onMsg = func(msg tea.Msg) tea.Cmd {
		if s, ok := msg.(seen); ok {
			state, known = s, true
		}
		return nil
	}
	l.intro = func(w int) []line {
		switch {
		case !known:
			return []line{say(faded, "  Asking ...")}
		case state.err != nil:
			text, _ := words(state.err)
			return prose(bad, 2, text, w)
		}
		return sshLines(state.s, w)
	}
	return l
}

// sshLines says whether SSH is on, who may come, and which keys of the machine's own
// a client should be shown.
func sshLines(s api.SSH, w int) []line {
	on := "off"
	switch {
	case s.Enabled && !s.Until.IsZero():
		on = "on until " + s.Until.UTC().Format("2006-01-02 15:04 MST")
	case s.Enabled:
		on = "on"
	}
	with := "root's password"
	if n := len(s.Keys); n > 0 {
		with = fmt.Sprintf("root's authorized keys (%d); passwords are not accepted", n)
	}
	out := []line{pair("SSH", strong, on), pair("Log in with", paper, with)}
	for i, f := range s.Fingerprints {
		label := ""
		if i == 0 {
			label = "Host keys"
		}
		for _, l := range wrap(f, w-labelWidth-4) {
			out, label = append(out, pair(label, paper, l)), ""
		}
	}
	return out
}

// servicesPage is the list of units and their states.
type servicesPage struct {
	*list
	m *Model
}

type servicesSeen struct {
	list []api.Service
	err  error
}

func newServices(m *Model) page {
	p := &servicesPage{m: m}
	p.list = &list{m: m, heading: "Services", onMsg: p.take, onBegin: p.fetch, intro: func(int) []line { return []line{say(faded, "  Asking ...")} }}
	return p
}

func (p *servicesPage) fetch() tea.Cmd {
	return p.m.ask(patience, func(ctx context.Context) tea.Msg {
		list, err := p.m.agent.Services(ctx)
		return servicesSeen{list, err}
	})
}

func (p *servicesPage) take(msg tea.Msg) tea.Cmd {
	seen, ok := msg.(servicesSeen)
	if !ok {
		return nil
	}
	p.intro = nil
	if seen.err != nil {
		text, hint := words(seen.err)
		p.intro = func(w int) []line { return append(prose(bad, 2, text, w), prose(paper, 2, hint, w)...) }
		return nil
	}
	p.items = nil
	for _, s := range seen.list {
		about := s.Title + "\nState: " + s.State
		if s.Detail != "" {
			about += " (" + s.Detail + ")"
		}
		if !s.Since.IsZero() {
			about += "\nSince: " + s.Since.UTC().Format("2006-01-02 15:04 MST")
		}
		if s.MemoryBytes > 0 {
			about += "\nMemory: " + bytes(s.MemoryBytes)
		}
		p.items = append(p.items, item{pad(s.Name, 20) + " " + s.State, about, func() tea.Cmd { return to(push{newService(p.m, s)}) }})
	}
	return nil
}

func newService(m *Model, s api.Service) page {
	l := &list{m: m, heading: "Service: " + s.Name}
	act := func(verb, label, about string) item {
		return item{label, about, func() tea.Cmd {
			return to(replace{&waitPage{heading: l.heading, text: label + ": " + s.Name, do: m.ask(longPatience, func(ctx context.Context) tea.Msg { return m.act(ctx, l.heading, s.Name, verb) })}})
		}}
	}
	l.items = []item{{"Back", s.Title + "\nState: " + s.State, back}}
	for _, x := range []item{act("restart", "Restart", "Stop it in order, then start it again."),
		act("start", "Start", "Start it if it does not run."),
		act("stop", "Stop", "It stays stopped until it is started or the machine is.")} {
		if slices.Contains(s.Actions, strings.ToLower(x.label)) {
			l.items = append(l.items, x)
		}
	}
	return l
}

// act does something to a service and says how that ended.
func (m *Model) act(ctx context.Context, heading, service, verb string) tea.Msg {
	s, err := m.agent.Act(ctx, service, verb)
	return report{outcome(heading, "Done. "+service+" is "+s.State+" now.", err)}
}

// newCertificate shows the served certificate, and makes a new one.
func newCertificate(m *Model) page {
	type seen struct {
		c   api.Certificates
		err error
	}
	var state *seen
	l := &list{m: m, heading: "Certificate"}
	l.onBegin = func() tea.Cmd {
		return m.ask(patience, func(ctx context.Context) tea.Msg {
			c, err := m.agent.Certificates(ctx)
			return seen{c, err}
		})
	}
	l.onMsg = func(msg tea.Msg) tea.Cmd {
		if s, ok := msg.(seen); ok {
			state = &s
		}
		return nil
	}
	l.intro = func(w int) []line {
		if state == nil {
			return []line{say(faded, "  Asking ...")}
		}
		if state.err != nil {
			text, _ := words(state.err)
			return prose(bad, 2, text, w)
		}
		return certificateLines(state.c, m.now, w)
	}
	l.items = []item{
		{"Back", "", back},
		{"Renew", "Make a new certificate for the present names and addresses, signed by the appliance's own authority. One that was uploaded is replaced in the console on port 5480.", func() tea.Cmd {
			return to(push{confirm(m, "Certificate", "A new certificate gets another fingerprint. Who trusts the appliance's authority (ca.crt) notices nothing.", "Renew", "Renewing", func() tea.Cmd {
				return m.ask(patience, func(ctx context.Context) tea.Msg {
					_, err := m.agent.RenewCertificate(ctx)
					return report{outcome("Certificate", "A new certificate is served.", err)}
				})
			})})
		}},
	}
	return l
}

func certificateLines(all api.Certificates, now time.Time, w int) []line {
	c := all.Server
	out := []line{}
	for i, f := range fingerprint(c.Fingerprint, w-labelWidth-2) {
		label := ""
		if i == 0 {
			label = "SHA-256"
		}
		out = append(out, pair(label, strong, f))
	}
	by := "the appliance's own authority"
	if all.Supplied {
		by = c.Issuer
	}
	until := pair("Valid until", paper, fmt.Sprintf("%s (%d days)", c.Until.UTC().Format("2006-01-02 15:04 MST"), int(c.Until.Sub(now).Hours()/24)))
	if c.Until.Before(now) {
		until = pair("Valid until", bad, c.Until.UTC().Format("2006-01-02 15:04 MST")+": it has ended")
	}
	out = append(out, pair("Issued by", paper, by), until)
	for i, l := range wrap(strings.Join(c.Names, "  "), w-labelWidth-4) {
		label := ""
		if i == 0 {
			label = "Names"
		}
		if i == 4 {
			break
		}
		out = append(out, pair(label, paper, l))
	}
	return out
}
