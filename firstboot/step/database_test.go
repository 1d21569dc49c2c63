package step

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/appliance/fault"
)

// What berth says is what people see, with its hint, and without the way there.
func TestInItsWords(t *testing.T) {
	program := filepath.Join(t.TempDir(), "berth")
	for script, want := range map[string]string{
		"#!/bin/sh\necho 'berth: the keys are not here' >&2\necho '  hint: bring them back' >&2\nexit 1\n": "the keys are not here|bring them back",
		"#!/bin/sh\necho 'berth: --x: no such flag' >&2\nexit 2\n":                                         "--x: no such flag|",
	} {
		if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := run(t.Context(), nil, program)
		f := fault.Of(inItsWords(err))
		if got := f.Text + "|" + f.Hint; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	_, err := run(t.Context(), nil, "/nonexistent")
	if f := fault.Of(inItsWords(err)); !strings.HasPrefix(f.Text, "the database cannot be prepared") {
		t.Errorf("got %q", f.Text)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	for mib, want := range map[int64]string{512: "shared_buffers = 64MB", 4096: "shared_buffers = 256MB", 65536: "shared_buffers = 1024MB"} {
		if got := memoryConf(mib); !strings.Contains(got, want) {
			t.Errorf("%d MiB: %s", mib, got)
		}
	}
}
