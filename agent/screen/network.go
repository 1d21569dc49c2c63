package screen

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
	"berth/agent/reach"
	"berth/appliance/setting"
)

// networkPage shows how the machine is reached, and leads to changing it.
type networkPage struct {
	*list
	m     *Model
	state api.Network
	known bool
	err   error
}

type networkSeen struct {
	n   api.Network
	err error
}

func newNetwork(m *Model) page {
	p := &networkPage{m: m}
	p.list = &list{m: m, heading: "Network", intro: p.show, onMsg: p.take, onBegin: p.fetch}
	p.items = []item{
		{"Change", "Addresses, gateway, DNS and host name.", func() tea.Cmd { return to(push{networkForm(m, p.state.Settings)}) }},
		{"Restart the network", "Apply the settings again: asks DHCP for an address anew.", func() tea.Cmd {
			return to(push{&waitPage{heading: "Network", text: "Restarting the network", do: m.ask(longPatience, func(ctx context.Context) tea.Msg {
				pending, err := m.agent.ChangeNetwork(ctx, p.state.Settings)
				if err == nil && pending.ID != "" {
					err = m.agent.ConfirmNetwork(ctx, pending.ID)
				}
				return report{outcome("Network", "The network was restarted.", err)}
			})}})
		}},
		{"Ping", "See whether a gateway or another machine answers.", func() tea.Cmd {
			return to(push{testForm(m, "Ping", "Address or name", p.state.Now.Gateway4, reach.Ping)})
		}},
		{"Look up a name", "See whether the DNS servers know a name.", func() tea.Cmd {
			return to(push{testForm(m, "Look up a name", "Name", "", reach.Lookup)})
		}},
		{"Back", "", back},
	}
	return p
}

func (p *networkPage) fetch() tea.Cmd {
	return p.m.ask(patience, func(ctx context.Context) tea.Msg {
		n, err := p.m.agent.Network(ctx)
		return networkSeen{n, err}
	})
}

func (p *networkPage) take(msg tea.Msg) tea.Cmd {
	seen, ok := msg.(networkSeen)
	if !ok {
		return nil
	}
	if p.err = seen.err; seen.err != nil {
		return nil
	}
	p.state, p.known = seen.n, true
	if pending := seen.n.Pending; pending != nil && p.m.top() == page(p) {
		return to(push{newPending(p.m, *pending)})
	}
	return nil
}

func (p *networkPage) show(w int) []line {
	if p.err != nil {
		text, hint := words(p.err)
		return append(prose(bad, 2, text, w), prose(paper, 2, hint, w)...)
	}
	if !p.known {
		return []line{say(faded, "  Asking ...")}
	}
	n, set := p.state.Now, p.state.Settings
	link := pair("Link", good, " up ")
	if !n.Up {
		link = pair("Link", bad, "down: the virtual machine's network adapter is not connected")
	}
	how := "DHCP"
	if set.Static() {
		how = "static"
	}
	or := func(list []string, otherwise string) string {
		if len(list) == 0 {
			return otherwise
		}
		return strings.Join(list, "  ")
	}
	out := []line{link, pair("Adapter", paper, n.Interface+"  "+n.MAC), pair("Host name", paper, n.Hostname), pair("Assignment", paper, how)}
	if len(n.Addresses) == 0 {
		out = append(out, pair("Addresses", bad, "none"))
	}
	out = append(out, several("Addresses", n.Addresses, 4)...)
	return append(out, pair("Gateways", paper, or(present(n.Gateway4, n.Gateway6), "none")), pair("DNS", paper, or(n.DNS, "none")), pair("Search", paper, or(n.Search, "none")))
}

// present are those that are not empty.
func present(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

// networkForm changes the settings of the network.
func networkForm(m *Model, s setting.Network) page {
	f := &form{m: m, heading: "Network: change", buttons: []string{"Apply", "Cancel"}}
	mode := newField("mode", "IPv4 assignment", "dhcp", "dhcp: address, gateway and DNS come from the network. static: from the fields below.")
	mode.choices = []string{"dhcp", "static"}
	if s.Static() {
		mode.text = []rune("static")
	}
	f.fields = []*field{mode,
		newField("ip4", "IPv4 address / prefix", s.IP4, "Such as 192.0.2.10/24; for static alone."),
		newField("gateway4", "IPv4 gateway", s.Gateway4, "The default route, such as 192.0.2.1; for static alone."),
		newField("ip6", "IPv6 address / prefix", s.IP6, "Such as 2001:db8::10/64. Empty: router advertisements and DHCPv6."),
		newField("gateway6", "IPv6 gateway", s.Gateway6, "Empty: from router advertisements."),
		newField("dns", "DNS servers", strings.Join(s.DNS, " "), "Addresses with spaces between them. Empty: from DHCP."),
		newField("search", "DNS search domains", strings.Join(s.Search, " "), "Domains with spaces between them."),
		newField("hostname", "Host name", s.Hostname, "Fully qualified. The appliance's own certificate is renewed for it."),
	}
	f.submit = func(int) tea.Cmd {
		n := setting.Network{Mode: f.get("mode"), IP4: f.get("ip4"), Gateway4: f.get("gateway4"), IP6: f.get("ip6"), Gateway6: f.get("gateway6"),
			DNS: parts(f.get("dns")), Search: parts(f.get("search")), Hostname: f.get("hostname")}
		if !n.Static() { // what the fields of the other choice still hold is not meant
			n.IP4, n.Gateway4 = "", ""
		}
		f.busy = "Applying; this waits for an address"
		return m.ask(longPatience, func(ctx context.Context) tea.Msg {
			pending, err := m.agent.ChangeNetwork(ctx, n)
			if err != nil {
				return faulted{f, err}
			}
			if pending.ID == "" {
				done := outcome("Network", "The network settings are applied.", nil)
				return report{done}
			}
			return replace{newPending(m, pending)}
		})
	}
	return f
}

// parts parts a list that was typed with spaces, commas or semicolons.
func parts(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == ';' || r == '\t' })
}

// pendingPage waits for the confirmation of a change, and says when it is taken back.
type pendingPage struct {
	*list
	left time.Duration
}

func newPending(m *Model, change api.Pending) page {
	p := &pendingPage{left: change.Until.Sub(m.now)}
	act := func(done string, f func(context.Context) error) func() tea.Cmd {
		return func() tea.Cmd {
			return m.ask(longPatience, func(ctx context.Context) tea.Msg { return report{outcome("Network", done, f(ctx))} })
		}
	}
	p.list = &list{m: m, heading: "Network: keep the change?"}
	p.list.intro = func(w int) []line {
		out := prose(paper, 2, "The new settings are in use. If the console on port 5480 and this page are what you expect, keep them.", w)
		out = append(out, nil)
		if p.left <= 0 {
			return append(out, say(bad, "  The time is up: the settings from before are in use again."))
		}
		return append(out, say(strong, fmt.Sprintf("  Unless they are kept, the settings from before come back in %d s.", int(p.left.Seconds()))))
	}
	p.list.onMsg = func(msg tea.Msg) tea.Cmd {
		if now, ok := msg.(tick); ok {
			p.left = change.Until.Sub(time.Time(now))
		}
		return nil
	}
	p.items = []item{
		{"Keep the new settings", "", act("The new settings are kept.", func(ctx context.Context) error { return m.agent.ConfirmNetwork(ctx, change.ID) })},
		{"Take them back now", "", act("The settings from before come back; if no DHCP server answers, that takes half a minute.", m.agent.RevertNetwork)},
	}
	return p
}

// testForm asks for a name or address, and shows what a test of it says.
func testForm(m *Model, heading, label, value string, test func(context.Context, string) (string, error)) page {
	f := &form{m: m, heading: heading, buttons: []string{"Test", "Back"}}
	f.fields = []*field{newField("target", label, value, "Press <Enter> to test.")}
	f.submit = func(int) tea.Cmd {
		target := f.get("target")
		if target == "" {
			return nil
		}
		f.busy = "Testing"
		return m.ask(patience, func(ctx context.Context) tea.Msg {
			text, err := test(ctx, target)
			return push{newMessage(outcome(heading, text, err))}
		})
	}
	return f
}

func newMessage(m message) *message { return &m }
