// Package screen is the appliance's text screen on the virtual machine's console.
//
// Who opens the console in vCenter sees what the appliance is, how to reach it,
// whether it is well and if not why, and can repair what would otherwise keep
// everybody out: network, passwords, certificate, services. It runs as root on
// tty1 in place of a login, and has no way to a shell: every key either does what
// the last line of the screen says or nothing.
//
// The screen holds no rules. It asks the agent over its socket and shows what the
// agent answers; if the agent is not there, it says so and goes on trying.
package screen

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
	"berth/appliance/fault"
)

const (
	// idleAfter is when whoever has logged in and went away is logged out.
	idleAfter = 10 * time.Minute
	// lookEvery is how often the front is brought up to date.
	lookEvery = 2 * time.Second
	// redrawEvery repairs what the kernel has written over the screen.
	redrawEvery = time.Minute
	// patience is how long the agent may take for an ordinary answer, and
	// longPatience for what restarts services or waits for an address.
	patience     = 15 * time.Second
	longPatience = 3 * time.Minute
)

// A page is what fills the screen below its title. Pages lie on a stack; the
// lowest is the front.
type page interface {
	title() string
	// keys is the last line of the screen: what can be pressed.
	keys() string
	// update takes a key or an answer. It may change the page itself.
	update(msg tea.Msg) tea.Cmd
	// view gives the page's lines for a space, and where the cursor is.
	view(w, h int) ([]line, *tea.Cursor)
}

// What pages ask of the screen.
type (
	push   struct{ page page }
	pop    struct{ n int }     // pages off the stack
	report struct{ m message } // instead of the page at the top
	home   struct{}            // back to the front, logged out
)

type (
	tick   time.Time
	looked struct {
		status api.Status
		err    error
	}
)

// Model is the whole screen, for bubbletea.
type Model struct {
	ctx      context.Context
	agent    Agent
	proof    Proof
	stack    []page
	front    *front
	w, h     int
	now      time.Time
	touched  time.Time // the last key
	redrawn  time.Time
	looking  bool
	lookedAt time.Time
}

// New makes the screen of an appliance. Everything that it does ends with ctx.
func New(ctx context.Context, a Agent, p Proof) *Model {
	m := &Model{ctx: ctx, agent: a, proof: p, w: 80, h: 25}
	m.front = &front{m: m}
	m.stack = []page{m.front}
	return m
}

// Init begins the clock and the first look at the agent.
func (m *Model) Init() tea.Cmd { return tea.Batch(m.look(), nextTick()) }

func nextTick() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tick(t) })
}

func (m *Model) look() tea.Cmd {
	if m.looking {
		return nil
	}
	m.looking = true
	return m.ask(patience, func(ctx context.Context) tea.Msg {
		s, err := m.agent.Status(ctx)
		return looked{s, err}
	})
}

// ask runs a call to the agent beside the screen. The answer comes back as a message.
func (m *Model) ask(limit time.Duration, f func(context.Context) tea.Msg) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, limit)
		defer cancel()
		return f(ctx)
	}
}

// Update takes a message: a key, the clock, the size of the terminal, an answer.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = max(msg.Width, 20), max(msg.Height, 8)
		if msg.Width == 0 || msg.Height == 0 { // a serial line does not know
			m.w, m.h = 80, 24
		}
		return m, tea.ClearScreen
	case tick:
		return m, tea.Batch(m.tick(time.Time(msg)), nextTick())
	case looked:
		m.looking = false
		m.front.take(msg)
		return m, m.pass(msg)
	case push:
		m.stack = append(m.stack, msg.page)
		return m, m.begin(msg.page)
	case replace:
		m.drop(1)
		m.stack = append(m.stack, msg.page)
		return m, m.begin(msg.page)
	case pop:
		m.drop(msg.n)
		return m, m.begin(m.top())
	case report:
		m.drop(1)
		m.stack = append(m.stack, &msg.m)
		return m, nil
	case home:
		m.stack = m.stack[:1]
		return m, m.look()
	case tea.KeyPressMsg:
		m.touched = m.now
		switch msg.String() {
		case "ctrl+l":
			return m, tea.ClearScreen
		case "ctrl+c", "ctrl+z", "ctrl+\\", "ctrl+d":
			return m, nil // there is nothing behind this screen
		}
		return m, m.top().update(msg)
	case tea.PasteMsg:
		m.touched = m.now
		return m, m.top().update(msg)
	}
	return m, m.pass(msg)
}

// pass gives an answer to every page: the one that asked knows it by its type, and
// a page that has been left is not there to mind.
func (m *Model) pass(msg tea.Msg) tea.Cmd {
	var all []tea.Cmd
	for _, p := range m.stack {
		all = append(all, p.update(msg))
	}
	return tea.Batch(all...)
}

func (m *Model) tick(now time.Time) tea.Cmd {
	m.now = now
	if m.touched.IsZero() {
		m.touched, m.redrawn = now, now
	}
	cmds := []tea.Cmd{m.pass(tick(now))}
	if len(m.stack) > 1 && now.Sub(m.touched) >= idleAfter {
		m.stack = m.stack[:1]
	}
	if now.Sub(m.redrawn) >= redrawEvery {
		m.redrawn = now
		cmds = append(cmds, tea.ClearScreen)
	}
	if now.Sub(m.lookedAt) >= lookEvery {
		m.lookedAt = now
		cmds = append(cmds, m.look())
	}
	return tea.Batch(cmds...)
}

func (m *Model) top() page { return m.stack[len(m.stack)-1] }

func (m *Model) drop(n int) { m.stack = m.stack[:max(1, len(m.stack)-n)] }

// begin lets a page fetch what it shows, when it comes to the top.
func (m *Model) begin(p page) tea.Cmd {
	if b, ok := p.(interface{ begin() tea.Cmd }); ok {
		return b.begin()
	}
	return nil
}

// View paints the page at the top.
func (m *Model) View() tea.View {
	rows, cursor := m.paint()
	v := tea.NewView(join(rows))
	v.AltScreen = true
	v.Cursor = cursor
	v.DisableBracketedPasteMode = true
	return v
}

func (m *Model) paint() ([]string, *tea.Cursor) {
	if len(m.stack) == 1 {
		return m.front.paint(m.w, m.h), nil
	}
	p := m.top()
	rows := []string{say(head, " Berth - "+plain(p.title())).render(m.w, head)}
	lines, cursor := p.view(m.w, m.h-3)
	rows = append(rows, sheet(append([]line{nil}, lines...), m.w, m.h-2, paper)...)
	rows = append(rows, say(head, " "+p.keys()).render(m.w, head))
	if cursor != nil {
		cursor.Y += 2
		if cursor.X >= m.w || cursor.Y >= m.h-1 {
			cursor = nil
		}
	}
	return rows, cursor
}

func join(rows []string) string {
	s := ""
	for i, r := range rows {
		if i > 0 {
			s += "\n"
		}
		s += r
	}
	return s
}

// to makes the command that gives the screen a message.
func to(msg tea.Msg) tea.Cmd { return func() tea.Msg { return msg } }

func back() tea.Cmd { return to(pop{1}) }

// words are a fault's text and hint for the person at the console. Root sits there,
// so a cause that would be kept from others is shown.
func words(err error) (text, hint string) {
	f := fault.Of(err)
	text, hint = f.Text, f.Hint
	if f.Kind == fault.Internal && f.Err != nil {
		text, hint = f.Err.Error(), ""
	}
	return fault.Sentence(text), fault.Sentence(hint)
}
