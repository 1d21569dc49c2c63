package firstboot_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/firstboot"
)

// Settings that somebody has broken by hand are a failure that names the field, and
// the next boot with them mended is ready.
func TestBrokenSettings(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.write(t, "ovf-env.xml", environment(t, minimal()))
	if _, err := m.run(t); err != nil {
		t.Fatal(err)
	}
	m.write(t, "appliance.yaml", []byte("network: {mode: sttaic}\n"))
	s, err := m.run(t)
	if err == nil || s.Phase != firstboot.Failed || !strings.Contains(s.Text, "network.mode") || !s.Done() {
		t.Errorf("%+v, %v", s, err)
	}
	m.settings(t)
	if s, err = m.run(t); err != nil || s.Phase != firstboot.Ready || s.Faults != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

// Files that a disk has damaged are told of without what is in them.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	for name, damaged := range map[string]string{"answers.json": `{"secrets":{"a":"s3cret`, "properties.json": `{"values":"s3cret"}`, "state.json": `{"phase":`} {
		m := newMachine(t)
		state := filepath.Join(m.dir, "state")
		if err := os.MkdirAll(state, 0o700); err != nil {
			t.Fatal(err)
		}
		m.write(t, filepath.Join("state", name), []byte(damaged))
		err := firstboot.Run(t.Context(), m.options())
		if err == nil || strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "cannot use") {
			t.Errorf("%s: %v", name, err)
		}
		if name != "state.json" {
			if s, err := firstboot.ReadState(state); err != nil || s.Phase != firstboot.Failed || s.Hint == "" {
				t.Errorf("%s: %+v, %v", name, s, err)
			}
		}
		if b, err := os.ReadFile(filepath.Join(state, name)); err != nil || string(b) != damaged {
			t.Errorf("%s was changed: %s, %v", name, b, err)
		}
	}
}
