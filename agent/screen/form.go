package screen

import (
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"

	"berth/appliance/fault"
)

// A field is one input of a form: text, a password, or one of a few choices.
type field struct {
	name, label, help string
	secret            bool
	choices           []string
	text              []rune
	at                int    // the cursor, in runes
	fault             string // what the last check said
}

func newField(name, label, value, help string) *field {
	return &field{name: name, label: label, help: help, text: []rune(value), at: len([]rune(value))}
}

func (f *field) value() string { return string(f.text) }

// key edits the field, and reports whether the key was for it.
func (f *field) key(k tea.KeyPressMsg) bool {
	if f.choices != nil {
		return f.choose(k)
	}
	switch k.String() {
	case "left":
		f.at = max(0, f.at-1)
	case "right":
		f.at = min(len(f.text), f.at+1)
	case "home", "ctrl+a":
		f.at = 0
	case "end", "ctrl+e":
		f.at = len(f.text)
	case "backspace", "ctrl+h":
		if f.at > 0 {
			f.text = append(f.text[:f.at-1], f.text[f.at:]...)
			f.at--
		}
	case "delete":
		if f.at < len(f.text) {
			f.text = append(f.text[:f.at], f.text[f.at+1:]...)
		}
	case "ctrl+u":
		f.text, f.at = nil, 0
	default:
		if k.Text == "" {
			return false
		}
		f.insert(k.Text)
	}
	f.fault = ""
	return true
}

func (f *field) choose(k tea.KeyPressMsg) bool {
	at := 0
	for i, c := range f.choices {
		if c == f.value() {
			at = i
		}
	}
	switch k.String() {
	case "left":
		at += len(f.choices) - 1
	case "right", "space":
		at++
	default:
		return false
	}
	f.text, f.fault = []rune(f.choices[at%len(f.choices)]), ""
	return true
}

// maxText bounds a field: nobody types more, and a cable that sends noise may not
// fill the memory.
const maxText = 4096

func (f *field) insert(s string) {
	for _, r := range s {
		if unicode.IsPrint(r) && len(f.text) < maxText {
			f.text = append(f.text[:f.at], append([]rune{r}, f.text[f.at:]...)...)
			f.at++
		}
	}
}

// show gives the field's box, w columns wide, and the cursor's column in it.
func (f *field) show(w int) (string, int) {
	if f.choices != nil {
		var parts []string
		for _, c := range f.choices {
			mark := "( ) "
			if c == f.value() {
				mark = "(*) "
			}
			parts = append(parts, mark+c)
		}
		return " " + pad(strings.Join(parts, "   "), w-1), 2
	}
	shown := f.text
	if f.secret {
		shown = []rune(strings.Repeat("*", len(f.text)))
	}
	from := max(0, f.at-(w-2))
	return " " + blank(plain(string(shown[from:])), w-1), f.at - from + 1
}

// blank fills a box up with underscores, by which it is seen without colours too.
func blank(s string, w int) string {
	r := []rune(s)
	if len(r) >= w {
		return string(r[:w])
	}
	return s + strings.Repeat("_", w-len(r))
}

// A form is a page of fields with buttons below.
type form struct {
	m       *Model
	heading string
	intro   string
	fields  []*field
	buttons []string // the last one leaves
	focus   int      // fields first, then buttons
	busy    string   // what is being waited for
	fault   string   // what is wrong with no field in particular
	hint    string
	// submit is called with the button that was pressed, unless that is the last.
	submit func(button int) tea.Cmd
}

// faulted brings the answer of a check to the form.
type faulted struct {
	form *form
	err  error
}

func (f *form) title() string { return f.heading }
func (f *form) keys() string {
	return "<Tab> <Up> <Down> Move  <Left> <Right> Choose  <Enter> Next, press  <Esc> Back"
}

func (f *form) get(name string) string {
	for _, x := range f.fields {
		if x.name == name {
			return strings.TrimSpace(x.value())
		}
	}
	return ""
}

// raw is get for passwords, in which spaces count.
func (f *form) raw(name string) string {
	for _, x := range f.fields {
		if x.name == name {
			return x.value()
		}
	}
	return ""
}

// begin is called when the form is shown, also when a page above it has gone.
func (f *form) begin() tea.Cmd { f.busy = ""; return nil }

func (f *form) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case faulted:
		if msg.form == f {
			f.blame(msg.err)
		}
	case tea.PasteMsg:
		if f.busy == "" && f.focus < len(f.fields) {
			f.fields[f.focus].insert(msg.Content)
		}
	case tea.KeyPressMsg:
		return f.key(msg)
	}
	return nil
}

func (f *form) key(k tea.KeyPressMsg) tea.Cmd {
	if f.busy != "" {
		return nil // the answer comes, or the call's time ends
	}
	if k.String() == "esc" {
		return back()
	}
	if f.focus < len(f.fields) && f.fields[f.focus].key(k) {
		return nil
	}
	all := len(f.fields) + len(f.buttons)
	switch k.String() {
	case "tab", "down":
		f.focus = (f.focus + 1) % all
	case "shift+tab", "up":
		f.focus = (f.focus + all - 1) % all
	case "left":
		f.focus = max(f.focus-1, 0)
	case "right":
		f.focus = min(f.focus+1, all-1)
	case "enter", "space":
		return f.press(k.String() == "enter")
	}
	return nil
}

func (f *form) press(enter bool) tea.Cmd {
	switch b := f.focus - len(f.fields); {
	case b < 0 && enter && len(f.fields) == 1:
		return f.submit(0) // nothing else could be meant
	case b < 0 && enter:
		f.focus++
	case b == len(f.buttons)-1:
		return back()
	case b >= 0:
		f.fault, f.hint = "", ""
		return f.submit(b)
	}
	return nil
}

// blame puts each fault beside its field, and goes to the first.
func (f *form) blame(err error) {
	f.busy = ""
	focused := false
	for _, e := range each(err) {
		text, hint := words(e)
		placed := false
		for i, x := range f.fields {
			if of := fault.Of(e); of.Field != "" && (x.name == of.Field || strings.HasSuffix(of.Field, "."+x.name)) {
				x.fault, placed = text, true
				if !focused {
					f.focus, focused = i, true
				}
			}
		}
		if !placed && f.fault == "" {
			f.fault, f.hint = text, hint
			if n := fault.Of(e).Field; n != "" {
				f.fault = n + ": " + fault.Of(e).Text
			}
		}
	}
}

// each takes joined errors apart.
func each(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, each(e)...)
		}
		return out
	}
	return []error{err}
}

// labels is the width of the labels.
func (f *form) labels() int {
	n := 22
	for _, x := range f.fields {
		n = max(n, len([]rune(x.label))+2)
	}
	return min(n, 40)
}

func (f *form) view(w, h int) ([]line, *tea.Cursor) {
	var top []line
	if f.intro != "" {
		top = append(prose(paper, 2, f.intro, w), nil)
	}
	if f.fault != "" {
		top = append(top, prose(bad, 2, f.fault, w)...)
		if f.hint != "" {
			top = append(top, prose(paper, 2, f.hint, w)...)
		}
		top = append(top, nil)
	}
	body, cursor, from, to := f.inputs(w)
	bottom := f.below(w)
	room := max(1, h-len(top)-len(bottom))
	skip := 0
	if to > room { // what has the focus stays in sight
		skip = min(from, max(0, to-room))
	}
	body = body[skip:]
	if len(body) > room {
		body = body[:room]
	}
	if cursor != nil {
		cursor.Y += len(top) - skip
	}
	return append(append(top, body...), bottom...), cursor
}

// inputs gives the lines of fields and buttons, and those of the one with the focus.
func (f *form) inputs(w int) (out []line, cursor *tea.Cursor, from, to int) {
	labels := f.labels()
	box := max(10, min(48, w-labels-6))
	for i, x := range f.fields {
		focused := i == f.focus
		text, col := x.show(box)
		ink, label := paper, paper
		if focused {
			label, ink = strong, entry
			from = len(out)
			if f.busy == "" {
				cursor = tea.NewCursor(2+labels+col, len(out))
			}
			if x.choices != nil {
				ink = chosen
			}
		}
		out = append(out, line{{label, "  " + pad(plain(x.label), labels)}, {ink, text}})
		if x.fault != "" {
			out = append(out, prose(bad, 3+labels, x.fault, w)...)
		}
		if focused {
			to = len(out)
		}
	}
	out = append(out, nil)
	buttons := line{{paper, "  "}}
	for i, b := range f.buttons {
		ink := entry
		if f.focus == len(f.fields)+i {
			ink = chosen
			b = "> " + b + " <"
		} else {
			b = "  " + b + "  "
		}
		buttons = append(buttons, span{ink, b}, span{paper, "  "})
	}
	out = append(out, buttons)
	if f.focus >= len(f.fields) {
		from, to, cursor = len(out)-1, len(out), nil
	}
	return out, cursor, from, to
}

func (f *form) below(w int) []line {
	out := []line{nil}
	switch {
	case f.busy != "":
		out = append(out, say(strong, "  "+f.busy+" ..."))
	case f.focus < len(f.fields):
		out = append(out, prose(faded, 2, f.fields[f.focus].help, w)...)
	}
	return out
}
