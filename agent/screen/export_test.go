package screen

import (
	"reflect"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Tick is the message of the clock.
func Tick(t time.Time) tea.Msg { return tick(t) }

// IsTick reports whether a command is the clock's, which tests turn by hand.
func IsTick(cmd tea.Cmd) bool {
	return reflect.ValueOf(cmd).Pointer() == reflect.ValueOf(nextTick()).Pointer()
}

// Chosen reports whether the bar is on an item that begins so.
func Chosen(m tea.Model, label string) bool {
	l, ok := listOf(m.(*Model).top())
	return ok && l.at < len(l.items) && strings.HasPrefix(strings.TrimLeft(l.items[l.at].label, " !ok"), label)
}

func listOf(p page) (*list, bool) {
	switch p := p.(type) {
	case *list:
		return p, true
	case *networkPage:
		return p.list, true
	case *pendingPage:
		return p.list, true
	case *servicesPage:
		return p.list, true
	case *proofPage:
		return p.list, true
	case *setup:
		return p.list, true
	}
	return nil, false
}

// ConsoleKeys is the filter for the Linux console.
var ConsoleKeys = consoleKeys

// Plain, Wrap and Fingerprint are what texts from elsewhere go through.
var (
	Plain       = plain
	Wrap        = wrap
	Fingerprint = fingerprint
)
