package screen

import (
	"context"
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
	"berth/agent/wizard"
	"berth/appliance/diskrole"
	"berth/appliance/fault"
	"berth/appliance/property"
	"berth/appliance/setting"
)

// setup is the wizard on this screen: the pages of package wizard, a check of all
// of them together, and the start. The web has the same; the network comes first
// here, because without it nobody reaches the web.
type setup struct {
	*list
	m       *Model
	answers wizard.Answers
	faults  []*fault.Error
	checked bool
	disks   []api.SetupDisk
	secrets []string // that are known already
	known   bool
	err     error
}

type (
	checked struct {
		faults []*fault.Error
		err    error
		apply  bool
	}
	setupSeen struct {
		setup api.Setup
		err   error
	}
)

func newSetup(m *Model) page {
	s := &setup{m: m}
	s.list = &list{m: m, heading: "Set up", intro: s.show, onBegin: s.start, onMsg: s.take}
	s.build()
	return s
}

func (s *setup) start() tea.Cmd {
	s.build()
	if s.known {
		return nil
	}
	return s.m.ask(patience, func(ctx context.Context) tea.Msg {
		seen, err := s.m.agent.Setup(ctx)
		return setupSeen{seen, err}
	})
}

// learn begins with what is known already, from the OVF environment or the web.
func (s *setup) learn(seen api.Setup) {
	s.known, s.disks, s.secrets = true, seen.Disks, seen.Secrets
	for name, value := range seen.Answers.Values {
		_ = s.answers.Set(name, value) // what is refused was no answer
	}
	for role, device := range seen.Answers.Disks {
		s.answers.Choose(diskrole.Role(role), device)
	}
	s.build()
}

// build makes the list of pages anew, with what is wrong on each.
func (s *setup) build() {
	s.items = nil
	for _, p := range wizard.Pages() {
		mark := "    "
		about := p.Text
		for _, f := range s.faults {
			if wizard.PageOf(f.Field).Name == p.Name {
				mark = " !! "
				about = fault.Sentence(f.Text) + "\n" + about
			}
		}
		for _, f := range p.Fields {
			if mark == "    " && (s.answers.Given(f) || slices.Contains(s.secrets, f)) {
				mark = " ok "
			}
		}
		if mark == "    " && p.Name == wizard.Storage && s.known && len(s.answers.CheckDisks(s.disks)) == 0 {
			mark = " ok "
		}
		s.items = append(s.items, item{mark + p.Title, about, func() tea.Cmd { return s.open(p) }})
	}
	apply := item{"    Apply", "Check everything, then set the appliance up. It takes about half a minute.", s.apply}
	if s.m.front.status.Phase == api.Failed {
		apply.label, apply.about = "    Try again", "Go on at the step that failed, with the answers as they are here."
	}
	s.items = append(s.items,
		item{"    Look at the network", "Addresses as they are, ping, and looking names up.", func() tea.Cmd { return to(push{newNetwork(s.m)}) }},
		item{"    Look at the logs", "What the first boot and the services have written.", func() tea.Cmd { return to(push{newLogs(s.m)}) }},
		item{"    Check", "See everything that is missing or wrong, without changing anything.", func() tea.Cmd { return s.check(false) }},
		apply,
		item{"    Back", "The answers are kept until somebody leaves this page.", back})
}

func (s *setup) show(w int) []line {
	switch {
	case s.err != nil:
		text, hint := words(s.err)
		return append(prose(bad, 2, text, w), prose(paper, 2, hint, w)...)
	case s.checked && len(s.faults) == 0:
		return []line{say(strong, "  Nothing is missing and nothing is wrong: choose Apply.")}
	case len(s.faults) > 0:
		return []line{say(bad, fmt.Sprintf("  %d answers are missing or wrong, on the pages marked with !!", len(s.faults)))}
	}
	must := "Only the passwords must be set."
	if len(s.answers.CheckDisks(s.disks)) > 0 {
		must = "Only the passwords must be set, and where data is stored."
	}
	return prose(paper, 2, "The same questions are on the web, where certificates can be pasted. "+must, w)
}

// apply checks and begins; if disks that somebody has chosen would be formatted, it
// asks once more.
func (s *setup) apply() tea.Cmd {
	var erased []string
	for _, p := range s.answers.Places(s.disks) {
		if p.Disk == nil && p.Chosen != "" && p.Chosen != wizard.OnSystemDisk {
			erased = append(erased, p.Chosen+" for "+string(p.Role))
		}
	}
	if len(erased) == 0 {
		return s.check(true)
	}
	return to(push{&list{m: s.m, heading: "Set up: Apply",
		intro: func(w int) []line {
			return prose(bad, 2, "These disks are formatted, and everything on them is lost: "+strings.Join(erased, ", ")+".", w)
		},
		items: []item{
			{"Cancel", "Leave everything as it is.", back},
			{"Format and apply", "Check everything, then set the appliance up.", func() tea.Cmd { return tea.Batch(back(), s.check(true)) }},
		}}})
}

func (s *setup) take(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case setupSeen:
		if s.err = msg.err; msg.err == nil && !s.known {
			s.learn(msg.setup)
		}
	case checked:
		s.err, s.faults, s.checked = msg.err, msg.faults, msg.err == nil
		s.build()
		if msg.err == nil && len(msg.faults) == 0 && msg.apply {
			return to(home{})
		}
	}
	return nil
}

func (s *setup) check(apply bool) tea.Cmd {
	final := s.answers.Final()
	a := api.Answers{Values: final.Values, Disks: map[string]string{}}
	for role, device := range final.Disks {
		a.Disks[string(role)] = device
	}
	var open []*fault.Error
	for _, f := range final.CheckDisks(s.disks) {
		open = append(open, fault.New(fault.Invalid, "%s: %s", f.Field, f.Text).On(f.Field).WithHint("%s", f.Hint))
	}
	return s.m.ask(longPatience, func(ctx context.Context) tea.Msg {
		err := s.m.agent.CheckSetup(ctx, a)
		if err == nil && apply && len(open) == 0 {
			err = s.m.agent.ApplySetup(ctx, a)
		}
		faults, err := faultsOf(err)
		return checked{append(faults, open...), err, apply}
	})
}

// faultsOf takes the answer of a check apart: the faults, or an error that is about
// no answer.
func faultsOf(err error) ([]*fault.Error, error) {
	if err == nil {
		return nil, nil
	}
	var out []*fault.Error
	for _, e := range each(err) {
		f := fault.Of(e)
		if f.Kind != fault.Invalid && f.Field == "" {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (s *setup) open(p wizard.Page) tea.Cmd {
	if p.Name == wizard.Storage {
		return to(push{s.storage()})
	}
	f := &form{m: s.m, heading: "Set up: " + p.Title, intro: p.Text, buttons: []string{"Keep", "Cancel"}}
	if p.Name == wizard.Certificate {
		f.intro += " A certificate of yours is pasted or uploaded in the browser, here or after the setup; on this screen there is nothing to paste with."
		f.buttons = []string{"Back"}
	}
	if p.Name == wizard.NetworkPage {
		f.buttons = []string{"Keep", "Use now", "Cancel"}
	}
	for _, name := range p.Fields {
		q, ok := property.Find(name)
		if !ok || p.Name == wizard.Certificate {
			continue
		}
		f.fields = append(f.fields, s.inputs(q)...)
	}
	f.submit = func(button int) tea.Cmd { return s.keep(f, p, button == 1 && p.Name == wizard.NetworkPage) }
	return to(push{f})
}

// inputs are those of a question: passwords are typed twice.
func (s *setup) inputs(q property.Property) []*field {
	value := s.answers.Shown(q.Name())
	if wizard.Many(q.Name()) {
		value = strings.ReplaceAll(value, "\n", ";")
	}
	f := newField(q.Name(), q.Label, value, wizard.Help(q))
	for _, x := range s.faults {
		if x.Field == q.Name() {
			f.fault = fault.Sentence(x.Text)
		}
	}
	switch {
	case q.Type == property.Boolean:
		yes, _ := property.Bool(value)
		f.choices, f.text = []string{"no", "yes"}, []rune(map[bool]string{true: "yes", false: "no"}[yes])
	case q.Choices != nil:
		f.choices = q.Choices
	case q.Password:
		f.secret = true
		f.help += " Mind the keyboard's layout, which is US here."
		if s.answers.Given(q.Name()) || slices.Contains(s.secrets, q.Name()) {
			f.help = "It is set; leave it empty to keep it. " + f.help
		}
		again := newField(q.Name()+" again", "  the same again", "", f.help)
		again.secret = true
		return []*field{f, again}
	}
	return []*field{f}
}

// keep takes the form's answers, and with now uses the network's at once.
func (s *setup) keep(f *form, p wizard.Page, now bool) tea.Cmd {
	next := s.answers.Copy()
	for _, name := range p.Fields {
		q, _ := property.Find(name)
		value := f.raw(name)
		switch {
		case q.Password && value != f.raw(name+" again"):
			return to(faulted{f, fault.New(fault.Invalid, "the two are not the same").On(name + " again")})
		case q.Type == property.Boolean:
			value = map[string]string{"yes": "true", "no": ""}[value]
		}
		if err := next.Set(name, value); err != nil {
			return to(faulted{f, err})
		}
	}
	s.answers, s.checked = next, false
	s.faults = nil
	if !now {
		return back()
	}
	n := networkOf(next)
	f.busy = "Applying; this waits for an address"
	return s.m.ask(longPatience, func(ctx context.Context) tea.Msg {
		change, err := s.m.agent.ChangeNetwork(ctx, n)
		if err != nil {
			return faulted{f, err}
		}
		if change.ID == "" {
			return report{outcome("Network", "The address is in use.", nil)}
		}
		return replace{newPending(s.m, change)}
	})
}

// networkOf are the settings of the network's answers, which the agent checks.
func networkOf(a wizard.Answers) setting.Network {
	n := setting.Network{Mode: a.Shown("network.mode"), IP6: a.Shown("network.ip6"), Gateway6: a.Shown("network.gateway6"),
		DNS: parts(a.Shown("network.dns")), Search: parts(a.Shown("network.search")), Hostname: a.Shown("network.hostname")}
	if n.Static() {
		n.IP4, n.Gateway4 = a.Shown("network.ip4"), a.Shown("network.gateway4")
	}
	return n
}

// storage shows the disks that were found, and lets blank ones be taken.
func (s *setup) storage() page {
	l := &list{m: s.m, heading: "Set up: Storage"}
	var build func()
	build = func() {
		l.items = nil
		for _, p := range s.answers.Places(s.disks) {
			l.items = append(l.items, s.place(p, build))
		}
		l.items = append(l.items, item{"Back", "", back})
	}
	build()
	l.intro = func(w int) []line {
		p, _ := wizard.Find(wizard.Storage)
		out := prose(paper, 2, p.Text, w)
		for _, d := range s.disks {
			if d.State == "foreign" {
				out = append(out, prose(faded, 2, d.Device+", "+bytes(d.Bytes)+": has something of somebody else on it and is left alone.", w)...)
			}
		}
		return out
	}
	return l
}

// place is a role's line; Enter goes through the choices that there are.
func (s *setup) place(p wizard.Place, again func()) item {
	name := pad(string(p.Role), 10)
	choose := func() tea.Cmd {
		s.answers.Choose(p.Role, s.answers.Next(p))
		s.faults, s.checked = nil, false
		again()
		return nil
	}
	nothing := func() tea.Cmd { return nil }
	switch {
	case p.Disk != nil && p.Disk.State == "ours":
		return item{name + p.Disk.Device + ", " + bytes(p.Disk.Bytes), "This disk has data of a Berth appliance, which is kept.", nothing}
	case p.Disk != nil:
		return item{name + p.Disk.Device + ", " + bytes(p.Disk.Bytes), "This disk is marked for it and blank: it is formatted.", nothing}
	case p.Open():
		return item{name + "not chosen", "There are blank disks. <Enter> goes through them.", choose}
	case p.Chosen == "":
		return item{name + "on the system disk", "There is no disk for it: it becomes a directory of the system disk.", nothing}
	case p.Chosen == wizard.OnSystemDisk:
		return item{name + "on the system disk", "A directory that shares the system disk's room. <Enter> chooses a blank disk instead.", choose}
	}
	return item{name + p.Chosen + " (will be formatted)", "Chosen here. EVERYTHING ON IT IS LOST. <Enter> chooses another.", choose}
}
