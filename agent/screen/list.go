package screen

import (
	tea "charm.land/bubbletea/v2"
)

// An item is one line of a list: what it is called, what is said about it, and
// what happens when it is chosen.
type item struct {
	label  string
	about  string
	choose func() tea.Cmd
}

// A list is a page to choose from, the explanation beside or below it.
type list struct {
	m       *Model
	heading string
	intro   func(w int) []line // above the items; may be nil
	items   []item
	at      int
	onBegin func() tea.Cmd
	onMsg   func(tea.Msg) tea.Cmd
}

func (l *list) title() string { return l.heading }
func (l *list) keys() string {
	return "<Up> <Down> Move   <Enter> Choose   <Esc> Back   <Ctrl-L> Redraw"
}

func (l *list) begin() tea.Cmd {
	if l.onBegin != nil {
		return l.onBegin()
	}
	return nil
}

func (l *list) update(msg tea.Msg) tea.Cmd {
	key, ok := msg.(tea.KeyPressMsg)
	if !ok {
		if l.onMsg != nil {
			return l.onMsg(msg)
		}
		return nil
	}
	l.at = max(0, min(l.at, len(l.items)-1))
	switch key.String() {
	case "esc", "q":
		return back()
	case "up", "k", "shift+tab":
		l.at = max(0, l.at-1)
	case "down", "j", "tab":
		l.at = min(len(l.items)-1, l.at+1)
	case "home", "pgup":
		l.at = 0
	case "end", "pgdown":
		l.at = len(l.items) - 1
	case "enter":
		if l.at < len(l.items) && l.items[l.at].choose != nil {
			return l.items[l.at].choose()
		}
	}
	return nil
}

// width is that of the longest label, within bounds.
func (l *list) width() int {
	n := 24
	for _, i := range l.items {
		n = max(n, len([]rune(i.label))+2)
	}
	return min(n, 46)
}

func (l *list) view(w, h int) ([]line, *tea.Cursor) {
	var top []line
	if l.intro != nil {
		top = append(l.intro(w), nil)
	}
	l.at = max(0, min(l.at, len(l.items)-1))
	wide := w >= 64
	width := l.width()
	if !wide {
		width = w - 4
	}
	var about []string
	if l.at < len(l.items) {
		about = wrap(l.items[l.at].about, max(10, w-width-8))
		if !wide {
			about = wrap(l.items[l.at].about, w-4)
		}
	}
	room := max(1, h-len(top))
	from := max(0, min(l.at-room/2, len(l.items)-room))
	out := top
	for i := from; i < min(len(l.items), from+room); i++ {
		ink := paper
		if i == l.at {
			ink = chosen
		}
		row := line{{paper, "  "}, {ink, " " + pad(plain(l.items[i].label), width-1)}}
		if n := i - from; wide && n < len(about) {
			row = append(row, span{paper, "    " + about[n]})
		}
		out = append(out, row)
	}
	for n := min(len(l.items)-from, room); wide && n < len(about) && len(out) < h; n++ {
		out = append(out, line{{paper, pad("", 2+width+4) + about[n]}})
	}
	if !wide {
		out = append(out, nil)
		for _, a := range about {
			out = append(out, say(paper, "  "+a))
		}
	}
	return out, nil
}

// A message says something, and takes one answer: Enter.
type message struct {
	heading string
	lines   func(w int) []line
	leave   tea.Cmd // instead of going back one page
}

func (m *message) title() string { return m.heading }
func (m *message) keys() string  { return "<Enter> Go on" }

func (m *message) update(msg tea.Msg) tea.Cmd {
	if key, ok := msg.(tea.KeyPressMsg); ok {
		switch key.String() {
		case "enter", "esc", "q", "space":
			if m.leave != nil {
				return m.leave
			}
			return back()
		}
	}
	return nil
}

func (m *message) view(w, h int) ([]line, *tea.Cursor) { return m.lines(w), nil }

// outcome is the message for the end of an action: that it is done, or why not.
func outcome(heading, done string, err error) message {
	return message{heading: heading, lines: func(w int) []line {
		if err == nil {
			return prose(strong, 2, done, w)
		}
		var out []line
		for _, e := range each(err) {
			text, hint := words(e)
			out = append(out, prose(bad, 2, text, w)...)
			if hint != "" {
				out = append(out, prose(paper, 2, hint, w)...)
			}
		}
		return out
	}}
}

// confirm asks before something that cannot be taken back by a key.
func confirm(m *Model, heading, question, yes, working string, act func() tea.Cmd) *list {
	l := &list{m: m, heading: heading}
	busy := false
	l.intro = func(w int) []line {
		if busy {
			return []line{say(strong, "  "+working+" ...")}
		}
		return prose(paper, 2, question, w)
	}
	l.items = []item{
		{label: "Cancel", about: "Leave everything as it is.", choose: back},
		{label: yes, choose: func() tea.Cmd { busy, l.items = true, nil; return act() }},
	}
	return l
}

// waitPage shows that something takes a while.
type waitPage struct {
	heading, text string
	do            tea.Cmd
	begun         bool
}

func (p *waitPage) title() string { return p.heading }
func (p *waitPage) keys() string  { return "Please wait" }
func (p *waitPage) begin() tea.Cmd {
	if p.begun {
		return nil
	}
	p.begun = true
	return p.do
}
func (p *waitPage) update(tea.Msg) tea.Cmd { return nil }
func (p *waitPage) view(w, h int) ([]line, *tea.Cursor) {
	return prose(strong, 2, p.text+" ...", w), nil
}
