package screen

import (
	"context"
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"

	"berth/agent/api"
)

// newLogs chooses whose messages to read.
func newLogs(m *Model) page {
	open := func(source, label, about string) item {
		return item{label, about, func() tea.Cmd { return to(push{&logPage{m: m, source: source, name: label, follow: true}}) }}
	}
	return &list{m: m, heading: "Logs", items: []item{
		open("", "Everything", "The journal: kernel, operating system and all services."),
		open("berth-firstboot.service", "Setup", "What the first boot has done."),
		open("berth-agent.service", "Agent", "What this screen and the console on port 5480 talk to."),
		open("berth-registry.service", "Registry", "Pushes, pulls and the front door."),
		open("berth-core.service", "Core", "REST API and users."),
		open("berth-jobs.service", "Jobs", "Work in the background."),
		open("berth-postgres.service", "Database", "PostgreSQL."),
		open("berth-logs.service", "Log service", "The one that keeps the registry's messages."),
		open("systemd-networkd.service", "Network", "Addresses, DHCP and router advertisements."),
		{"Back", "", back},
	}}
}

// logLines is how many lines are fetched; who needs more takes a support bundle.
const logLines = 500

// logPage shows the end of a log, and scrolls in it.
type logPage struct {
	m            *Model
	source, name string
	lines        []string
	err          error
	known        bool
	follow       bool // stay at the end, and fetch again and again
	from         int  // the line at the top
	right        int  // columns that are scrolled away
	rows         int  // of the last view
	asked        int  // seconds ago
}

type logSeen struct {
	page  *logPage
	lines []api.Line
	err   error
}

func (p *logPage) title() string { return "Logs: " + p.name }

func (p *logPage) keys() string {
	state := "<F> Follow"
	if p.follow {
		state = "(following)"
	}
	return "<Arrows> <PgUp> <PgDn> <Home> <End> Scroll   " + state + "   <Esc> Back"
}

func (p *logPage) begin() tea.Cmd {
	return p.m.ask(patience, func(ctx context.Context) tea.Msg {
		lines, err := p.m.agent.Logs(ctx, "journal", p.source, logLines)
		return logSeen{p, lines, err}
	})
}

func (p *logPage) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case logSeen:
		if msg.page == p {
			p.take(msg)
		}
	case tick:
		if p.asked++; p.follow && p.asked >= 2 {
			p.asked = 0
			return p.begin()
		}
	case tea.KeyPressMsg:
		return p.key(msg.String())
	}
	return nil
}

func (p *logPage) take(msg logSeen) {
	p.known, p.err = true, msg.err
	if msg.err == nil {
		p.lines = nil
		for _, l := range msg.lines {
			p.lines = append(p.lines, l.Time.Local().Format("Jan 02 15:04:05 ")+l.Component+": "+l.Text)
		}
		if p.follow {
			p.from = len(p.lines)
		}
	}
}

func (p *logPage) key(k string) tea.Cmd {
	end := max(0, len(p.lines)-p.rows)
	p.from = min(p.from, end)
	switch k {
	case "esc", "q":
		return back()
	case "f", "F":
		p.follow = !p.follow
		return nil
	case "up", "k":
		p.from--
	case "down", "j":
		p.from++
	case "pgup", "b":
		p.from -= p.rows - 1
	case "pgdown", "space":
		p.from += p.rows - 1
	case "home", "g":
		p.from = 0
	case "end", "G":
		p.from = end
	case "left":
		p.right = max(0, p.right-20)
	case "right":
		p.right += 20
	default:
		return nil
	}
	p.from = max(0, min(p.from, end))
	p.follow = p.from == end && k != "left" && k != "right" || p.follow && (k == "left" || k == "right")
	return nil
}

func (p *logPage) view(w, h int) ([]line, *tea.Cursor) {
	p.rows = max(1, h-1)
	switch {
	case p.err != nil:
		text, hint := words(p.err)
		return append(prose(bad, 2, text, w), prose(paper, 2, hint, w)...), nil
	case !p.known:
		return []line{say(faded, "  Asking ...")}, nil
	case len(p.lines) == 0:
		return []line{say(faded, "  There are no messages.")}, nil
	}
	from := max(0, min(p.from, len(p.lines)-p.rows))
	var out []line
	for _, l := range p.lines[from:min(len(p.lines), from+p.rows)] {
		r := []rune(plain(l))
		out = append(out, say(paper, " "+string(r[min(p.right, len(r)):])))
	}
	for len(out) < p.rows {
		out = append(out, nil)
	}
	where := fmt.Sprintf(" lines %d-%d of the last %d", from+1, min(len(p.lines), from+p.rows), len(p.lines))
	return append(out, say(faded, where+strings.Repeat(" ", 4)+"in full: console on port 5480, support bundle")), nil
}
