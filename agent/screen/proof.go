package screen

import (
	"context"

	tea "charm.land/bubbletea/v2"
)

// proofPage resets lost passwords. Who may edit the virtual machine in vCenter owns
// it anyway, so that is what has to be shown: a code from this screen, set as one of
// the machine's advanced settings.
type proofPage struct {
	*list
	m      *Model
	code   string
	proved bool
	err    error
	asked  int
}

type (
	proofBegun struct {
		code string
		err  error
	}
	proofSeen struct {
		proved bool
		err    error
	}
)

func newProof(m *Model) page {
	p := &proofPage{m: m}
	p.list = &list{m: m, heading: "Lost password", intro: p.show, onMsg: p.take, onBegin: p.start, items: []item{{"Cancel", "", back}}}
	return p
}

func (p *proofPage) start() tea.Cmd {
	if p.code != "" {
		return nil
	}
	return p.m.ask(patience, func(ctx context.Context) tea.Msg {
		code, err := p.m.proof.Begin(ctx)
		return proofBegun{code.Reveal(), err}
	})
}

func (p *proofPage) take(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case proofBegun:
		p.code, p.err = msg.code, msg.err
	case tick:
		if p.asked++; p.code != "" && !p.proved && p.asked >= 3 {
			p.asked = 0
			return p.m.ask(patience, func(ctx context.Context) tea.Msg {
				proved, err := p.m.proof.Shown(ctx)
				return proofSeen{proved, err}
			})
		}
	case proofSeen:
		p.err = msg.err
		if msg.proved && !p.proved {
			p.proved = true
			p.items = []item{
				{"Set the console's password", "The user admin at https://ADDRESS:5480 and of this screen.", func() tea.Cmd { return to(push{passwordForm(p.m, "console", "Appliance console", 1)}) }},
				{"Set root's password", "For this screen and, if it is on and allows passwords, SSH.", func() tea.Cmd { return to(push{passwordForm(p.m, "root", "root", 1)}) }},
				{"Done", "", func() tea.Cmd { return to(home{}) }},
			}
		}
	}
	return nil
}

func (p *proofPage) show(w int) []line {
	if p.err != nil && p.code == "" {
		text, hint := words(p.err)
		return append(prose(bad, 2, text, w), prose(paper, 2, hint, w)...)
	}
	if p.proved {
		return prose(strong, 2, "vCenter has shown the code: the passwords may be set anew.", w)
	}
	if p.code == "" {
		return []line{say(faded, "  Asking ...")}
	}
	out := prose(paper, 2, "Show that you administer this virtual machine: give it this advanced setting. While it runs, by govc or PowerCLI:", w)
	out = append(out, nil, say(strong, "  govc vm.change -vm NAME -e guestinfo.berth.reset="+plain(p.code)), nil)
	out = append(out, prose(paper, 2, "or in the vSphere Client: Edit Settings, Advanced Parameters, Add. If the virtual machine must be off for that, start it afterwards and come back here.", w)...)
	out = append(out, nil, pair("  Attribute", strong, "guestinfo.berth.reset"), line{{paper, "  " + pad("  Value", labelWidth)}, {code, " " + plain(p.code) + " "}}, nil)
	out = append(out, prose(paper, 2, "This page goes on by itself when the setting is there. The code is good once and for an hour.", w)...)
	if p.err != nil {
		text, hint := words(p.err)
		out = append(out, prose(bad, 2, text+". "+hint, w)...)
	}
	return out
}
