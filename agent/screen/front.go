package screen

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
	"berth/appliance/fault"
)

// front is what everybody sees who opens the console, logged in or not.
type front struct {
	m      *Model
	status api.Status
	known  bool  // there was an answer once
	err    error // the last look's
}

func (f *front) title() string { return "" }
func (f *front) keys() string  { return "" }

func (f *front) take(l looked) {
	f.err = l.err
	if l.err == nil {
		f.status, f.known = l.status, true
	}
}

func (f *front) update(msg tea.Msg) tea.Cmd {
	key, ok := msg.(tea.KeyPressMsg)
	if !ok {
		return nil
	}
	switch key.String() {
	case "f2", "c", "C", "enter":
		if f.open() {
			return to(push{newSetup(f.m)})
		}
		return to(push{newLogin(f.m, newMenu(f.m))})
	case "f12", "p", "P":
		if f.open() {
			return to(push{newPower(f.m)})
		}
		return to(push{newLogin(f.m, newPower(f.m))})
	}
	return nil
}

// open reports whether the setup is not done: then there may be no password yet,
// and this very screen shows the code that lets anybody in.
func (f *front) open() bool { return f.status.Phase == api.Waiting || f.status.Code != "" }

func (f *front) view(int, int) ([]line, *tea.Cursor) { return nil, nil }

// lowScreen is the height below which the head is one line: a remote console's window
// may be small, and what stands below is what somebody came for.
const lowScreen = 20

// tight is how many rows are too few for empty ones.
const tight = 12

// paint fills the whole screen: what it is above, how it is below, keys at the end.
func (f *front) paint(w, h int) []string {
	top := f.head()
	if h < lowScreen {
		top = []line{say(head, " Berth "+plain(f.status.Version)+"  "+plain(f.status.Hostname))}
	}
	rows := sheet(top, w, len(top), head)
	body := f.body(w, h-len(rows)-1)
	rows = append(rows, sheet(body, w, h-len(rows)-1, paper)...)
	return append(rows, f.bar(w))
}

func (f *front) head() []line {
	s := f.status
	title := "Berth " + plain(s.Version)
	machine := ""
	if s.Machine.Processors > 0 {
		machine = fmt.Sprintf("%d x %s", s.Machine.Processors, plain(s.Machine.Processor))
		if s.Machine.Processor == "" {
			machine = fmt.Sprintf("%d processors", s.Machine.Processors)
		}
		machine += fmt.Sprintf(", %s of memory", bytes(s.Machine.MemoryBytes))
	}
	return []line{nil, say(head, "  "+title), say(head, "  Container registry for vSphere"), nil,
		say(head, "  "+plain(s.Hostname)), say(head, "  "+machine)}
}

func (f *front) bar(w int) string {
	left, right := " <F2> or <C> Customize", "<F12> or <P> Shut down / Restart "
	if f.open() {
		left = " <F2> or <C> Set up here"
	}
	gap := w - len(left) - len(right)
	if gap < 1 {
		left, right = " <C> Customize", "<P> Power "
		if f.open() {
			left = " <C> Set up"
		}
		gap = max(1, w-len(left)-len(right))
	}
	return say(head, left+strings.Repeat(" ", gap)+right).render(w, head)
}

func (f *front) body(w, h int) []line {
	var out []line
	if f.err != nil {
		out = append(out, f.silent(w)...)
		if !f.known {
			return out
		}
	}
	if h > tight {
		out = append(out, nil)
	}
	switch f.status.Phase {
	case api.Waiting:
		out = append(out, f.waiting(w, h-len(out))...)
	case api.Running, api.Failed:
		out = append(out, f.progress(w, h-len(out))...)
	case api.Ready:
		out = append(out, f.ready(w, h-len(out))...)
	default:
		out = append(out, say(paper, "  The appliance is starting."))
	}
	return out
}

// silent says that the agent does not answer. The state below is then the last known.
func (f *front) silent(w int) []line {
	text, _ := words(f.err)
	out := []line{nil}
	if !f.known {
		out = append(out, say(strong, "  The appliance is starting."), nil)
		return append(out, prose(faded, 2, "Its management agent does not answer yet: "+text, w)...)
	}
	out = append(out, say(bad, "  The management agent does not answer."))
	out = append(out, prose(paper, 2, "It is started again by itself; what stands here is the last that was known. "+text, w)...)
	return out
}

func (f *front) waiting(w, h int) []line {
	out := []line{say(strong, "  This appliance is waiting to be set up.")}
	if h > tight {
		out = append(out, nil)
	}
	print := fingerprint(f.status.Fingerprint, w-7)
	urls := first(byAddress(f.status.Console), max(1, min(3, h-6-len(print)))) // the code has to be seen
	if len(urls) == 0 {
		out = append(out, prose(bad, 2, "It has no address: no DHCP server has answered on its network.", w)...)
		out = append(out, prose(paper, 2, "Press <F2> or <C> to set the address here, or connect the virtual machine's network adapter to the right port group.", w)...)
		return out
	}
	out = append(out, say(paper, "  1. Open in a browser"))
	for _, u := range urls {
		out = append(out, say(strong, "       "+plain(u)))
	}
	out = append(out, say(paper, "  2. Go on only if the certificate's SHA-256 fingerprint is"))
	for _, l := range print {
		out = append(out, say(strong, "       "+l))
	}
	out = append(out, say(paper, "  3. Type this setup code"))
	return append(out, codeBox(f.status.Code, h-len(out) >= 6)...)
}

// byAddress puts URLs with an address before those with a name, which nobody's DNS
// need know yet, and leaves out names without a domain.
func byAddress(urls []string) []string {
	var addresses, names []string
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil {
			continue
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			addresses = append(addresses, s)
		} else if strings.Contains(u.Hostname(), ".") {
			names = append(names, s)
		}
	}
	return append(addresses, names...)
}

// codeBox shows a code letter by letter, in a frame if there is room.
func codeBox(c string, frame bool) []line {
	if c == "" {
		return []line{say(faded, "       (it comes in a moment)")}
	}
	text := "  " + strings.Join(strings.Split(plain(c), ""), " ") + "  "
	blank := strings.Repeat(" ", len([]rune(text)))
	l := line{{paper, "       "}, {code, text}}
	if !frame {
		return []line{l}
	}
	edge := line{{paper, "       "}, {code, blank}}
	return []line{edge, l, edge}
}

func (f *front) progress(w, h int) []line {
	s := f.status
	doing, not := "The appliance is being set up.", "The setup could not be finished."
	if s.Installed {
		doing, not = "The appliance is starting.", "The appliance could not be started."
	}
	title := say(strong, "  "+doing)
	if s.Phase == api.Failed {
		title = line{{paper, "  "}, {failed, " " + not + " "}}
	}
	out := []line{title, nil}
	var why []line
	if s.Phase == api.Failed {
		for _, st := range s.Steps {
			if st.Status == api.Failed {
				why = append(why, nil)
				why = append(why, prose(bad, 2, st.Title+": "+st.Text, w)...)
				if st.Hint != "" {
					why = append(why, prose(paper, 2, "What to do: "+fault.Sentence(st.Hint), w)...)
				}
				why = append(why, say(paper, "  Press <F2> or <C> to look at the network and the logs, or to try again."))
			}
		}
	}
	var where []line
	if urls := byAddress(s.Console); len(urls) > 0 {
		where = append(where, nil, pair("Console", strong, urls[0]))
	}
	if s.Code != "" {
		where = append(where, line{{paper, "  " + pad("Setup code", labelWidth)}, {code, " " + plain(s.Code) + " "}})
	}
	out = append(out, stepLines(s.Steps, max(3, h-len(out)-len(why)-len(where)))...)
	return append(append(out, why...), where...)
}

// stepLines shows as many steps as there is room for, those around the one at work.
func stepLines(steps []api.Step, room int) []line {
	at := 0
	for i, s := range steps {
		if s.Status == "done" {
			at = i + 1
		}
	}
	from := max(0, min(at-room/2, len(steps)-room))
	var out []line
	for i := from; i < min(len(steps), from+room); i++ {
		s := steps[i]
		mark, ink := "[    ]", faded
		switch s.Status {
		case "running":
			mark, ink = "[ .. ]", strong
		case "done":
			mark, ink = "[ ok ]", good
		case "failed":
			mark, ink = "[FAIL]", failed
		}
		text := paper
		if s.Status == "pending" {
			text = faded
		}
		l := line{{paper, "  "}, {ink, mark}, {text, " " + plain(s.Title)}}
		if s.Status == "running" && s.Text != "" {
			l = append(l, span{faded, " - " + plain(s.Text)})
		}
		out = append(out, l)
	}
	return out
}

func (f *front) ready(w, h int) []line {
	s := f.status
	state := pair("State", good, " Ready ")
	if len(s.Problems) > 0 {
		state = pair("State", failed, " Needs attention ")
	}
	out := []line{state}
	out = append(out, f.problems(w, 2)...)
	out = append(out, f.planned(w)...)
	out = append(out, nil)
	out = append(out, several("Registry", s.Registry, 3)...)
	out = append(out, several("Console", s.Console, 3)...)
	if len(s.Console) == 0 {
		out = append(out, pair("Console", bad, "no address: press <F2> or <C> for the network"))
	}
	out = append(out, nil)
	for i, l := range fingerprint(s.Fingerprint, w-labelWidth-2) {
		label := ""
		if i == 0 {
			label = "Certificate"
		}
		out = append(out, pair(label, paper, l))
	}
	if s.Fingerprint != "" && len(out) < h {
		out = append(out, line{{paper, "  " + pad("", labelWidth)}, {faded, "(SHA-256 fingerprint: compare it with what the browser shows)"}})
	}
	if host := api.DockerHost(s.Registry); host != "" && len(out)+2 <= h {
		out = append(out, nil, pair("Log in with", paper, "docker login "+host))
	}
	return out
}

// planned is what will happen by itself, and what does not happen meanwhile.
func (f *front) planned(w int) []line {
	var out []line
	say := func(text string) { out = append(out, prose(bad, labelWidth+2, text, w)...) }
	s := f.status
	if s.ReadOnly != "" {
		say("The registry takes no pushes. " + fault.Sentence(s.ReadOnly))
	}
	if p := s.Pending; p != nil {
		say("A change of the network is taken back at " + p.Until.UTC().Format("15:04:05 MST") + " unless it is confirmed.")
	}
	if p := s.Power; p != nil {
		verb := map[string]string{"reboot": "restarts", "shutdown": "shuts down"}[p.Action]
		say("The appliance " + verb + " at " + p.At.UTC().Format("2006-01-02 15:04:05 MST") + ".")
	}
	return out
}

func (f *front) problems(w, limit int) []line {
	var out []line
	for i, p := range f.status.Problems {
		if i == limit {
			out = append(out, say(faded, strings.Repeat(" ", labelWidth+2)+fmt.Sprintf("and %d more: see the console", len(f.status.Problems)-limit)))
			break
		}
		out = append(out, prose(bad, labelWidth+2, fault.Sentence(p.Text), w)...)
		if p.Hint != "" {
			out = append(out, prose(paper, labelWidth+2, fault.Sentence(p.Hint), w)...)
		}
	}
	return out
}

func several(label string, values []string, limit int) []line {
	var out []line
	for i, v := range first(values, limit) {
		ink := paper
		if i == 0 {
			ink = strong
		} else {
			label = ""
		}
		out = append(out, pair(label, ink, v))
	}
	return out
}

func first(list []string, n int) []string { return list[:min(n, len(list))] }

// fingerprint breaks AA:BB:… into groups of four bytes, and those into lines of at
// most four groups, as many as there is room for in w columns.
func fingerprint(f string, w int) []string {
	if f == "" {
		return []string{"(no certificate yet)"}
	}
	pairs := strings.Split(plain(f), ":")
	const group = len("AA:BB:CC:DD")
	perLine := 4 * max(1, min(4, (w+2)/(group+2)))
	var out []string
	for len(pairs) > 0 {
		n := min(perLine, len(pairs))
		var groups []string
		for i := 0; i < n; i += 4 {
			groups = append(groups, strings.Join(pairs[i:min(i+4, n)], ":"))
		}
		out, pairs = append(out, strings.Join(groups, "  ")), pairs[n:]
	}
	return out
}

func bytes(n uint64) string {
	const unit = 1024
	switch {
	case n >= unit*unit*unit*unit:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(unit*unit*unit*unit)), ".0") + " TiB"
	case n >= unit*unit*unit:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(unit*unit*unit)), ".0") + " GiB"
	case n >= unit*unit:
		return fmt.Sprintf("%d MiB", n/(unit*unit))
	}
	return fmt.Sprintf("%d KiB", n/unit)
}
