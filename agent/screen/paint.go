package screen

import (
	"strings"
	"unicode"

	"charm.land/lipgloss/v2"
)

// The inks. Linux's console has eight colours. A bright one sets its bold bit as a
// side effect, which then stays for the text after it; so white is bold grey here,
// grey is faint black, and the change between them is said in full.
var (
	blue  = lipgloss.Color("4")
	grey  = lipgloss.Color("7")
	black = lipgloss.Color("0")

	head   = lipgloss.NewStyle().Background(blue).Foreground(grey).Bold(true)
	paper  = lipgloss.NewStyle().Background(grey).Foreground(black)
	strong = lipgloss.NewStyle().Background(grey).Foreground(blue)
	faded  = lipgloss.NewStyle().Background(grey).Foreground(black).Faint(true)
	bad    = lipgloss.NewStyle().Background(grey).Foreground(lipgloss.Color("1"))
	good   = lipgloss.NewStyle().Background(lipgloss.Color("2")).Foreground(grey).Bold(true)
	failed = lipgloss.NewStyle().Background(lipgloss.Color("1")).Foreground(grey).Bold(true)
	chosen = head
	entry  = lipgloss.NewStyle().Background(black).Foreground(grey).Bold(true)
	code   = head
)

// A span is text in one ink, a line is spans, and a page is lines: whoever
// makes them does not care for the width of the screen nor for the paper's colour
// behind the end of a line.
type (
	span struct {
		ink  lipgloss.Style
		text string
	}
	line []span
)

// say makes a line of one ink.
func say(ink lipgloss.Style, text string) line { return line{{ink, text}} }

// render paints a line w columns wide, cut or filled up with the paper's ink.
func (l line) render(w int, paper lipgloss.Style) string {
	var b strings.Builder
	left := w
	for _, s := range l {
		text := []rune(s.text)
		if len(text) > left {
			text = text[:left]
		}
		if len(text) > 0 {
			b.WriteString(s.ink.Render(string(text)))
		}
		left -= len(text)
	}
	if left > 0 {
		b.WriteString(paper.Render(strings.Repeat(" ", left)))
	}
	return b.String()
}

// plain makes text from elsewhere harmless and one column a rune: what would
// steer the terminal becomes a space, and what the console's font does not have a
// question mark. Messages in the log are written by strangers.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0xad:
			return -1
		case r < 0x180 || r >= 0x2500 && r < 0x25a0: // Latin, box drawing
			return r
		case r == '‘' || r == '’':
			return '\''
		case r == '“' || r == '”':
			return '"'
		case r == '–' || r == '—':
			return '-'
		case unicode.Is(unicode.Mn, r):
			return -1
		}
		return '?'
	}, text)
}

// wrap breaks text into lines of at most w columns, at spaces where there are any.
func wrap(text string, w int) []string {
	w = max(w, 1)
	var out []string
	for _, paragraph := range strings.Split(text, "\n") {
		current := ""
		for _, word := range strings.Fields(plain(paragraph)) {
			for len([]rune(word)) > w {
				room := w - len([]rune(current))
				if current != "" {
					room--
				}
				if room < 8 && current != "" {
					out, current = append(out, current), ""
					continue
				}
				r := []rune(word)
				out, current, word = append(out, strings.TrimSpace(current+" "+string(r[:room]))), "", string(r[room:])
			}
			switch {
			case current == "":
				current = word
			case len([]rune(current))+1+len([]rune(word)) <= w:
				current += " " + word
			default:
				out, current = append(out, current), word
			}
		}
		out = append(out, current)
	}
	return out
}

// prose wraps text into lines of one ink with a margin before each.
func prose(ink lipgloss.Style, margin int, text string, w int) []line {
	var out []line
	for _, l := range wrap(text, w-margin-2) {
		out = append(out, say(ink, strings.Repeat(" ", margin)+l))
	}
	return out
}

// pair is a line with a label of a fixed width in front.
func pair(label string, ink lipgloss.Style, text string) line {
	return line{{paper, "  " + pad(label, labelWidth)}, {ink, plain(text)}}
}

const labelWidth = 14

// pad fills up or cuts to w columns.
func pad(s string, w int) string {
	r := []rune(s)
	if len(r) >= w {
		return string(r[:w])
	}
	return s + strings.Repeat(" ", w-len(r))
}

// sheet paints lines as h rows of w columns, and fills up with paper.
func sheet(lines []line, w, h int, paper lipgloss.Style) []string {
	out := make([]string, 0, h)
	for i := range h {
		var l line
		if i < len(lines) {
			l = lines[i]
		}
		out = append(out, l.render(w, paper))
	}
	return out
}
