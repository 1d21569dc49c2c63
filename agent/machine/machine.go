// Package machine is what the agent can find out about the appliance and change on
// it: the rules behind the API, the command line and the console.
//
// A change goes one way: the settings are read, changed, checked as a whole and
// written; then what follows from the difference is done to the system (apply.go).
// So a section that is changed by its own route and the same section in a whole
// configuration mean the same. What only the operating system can do is behind the
// interface System.
//
// Everything here works, or says why not, on a machine whose disks are missing and
// whose first boot has failed: that is when it is needed.
package machine

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/agent/api"
	"berth/agent/session"
	"berth/appliance/setting"
)

// Options are what a Machine needs.
type Options struct {
	// Root is before all paths; "" is the machine's own files, anything else a test's.
	Root string
	// System is the operating system.
	System System
	// Code lets people in during the first boot.
	Code *session.Code
	Log  *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Machine is the appliance. It is for concurrent use.
type Machine struct {
	o Options

	settings sync.Mutex // held from reading the settings to the end of their application
	watch    watermarks
	power    planned
	recent   recently
}

// New makes a Machine. Nothing is touched yet.
func New(o Options) *Machine {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Machine{o: o}
}

// path puts the root before a path.
func (m *Machine) path(elements ...string) string {
	return filepath.Join(append([]string{m.o.Root, "/"}, elements...)...)
}

// Settings reads the settings; before the first boot has written them they are
// those of an appliance that nobody has touched.
func (m *Machine) Settings() (setting.Settings, error) {
	path := m.path(setting.File)
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return setting.Appliance(), nil
	}
	return setting.Read(path)
}

// About is what strangers may know.
func (m *Machine) About(context.Context) (api.About, error) {
	code := false // an appliance that is set up has none, whatever a later boot meets
	if m.o.Code != nil {
		_, err := m.o.Code.Read()
		code = err == nil
	}
	return api.About{Product: product, Phase: m.Phase(), Code: code}, nil
}

const product = "Berth"
