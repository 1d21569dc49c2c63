package step

import (
	"os"
	"path/filepath"
	"testing"
)

// A file system that was cut off from its state is nobody's earlier one; one with a file is, and one that cannot be read.
func TestUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(want bool, what string) {
		t.Helper()
		if got := used(dir); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	at(false, "nothing")
	if err := os.Mkdir(filepath.Join(dir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	at(false, "what mke2fs makes")
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at(true, "a file")
	dir = filepath.Join(dir, "none")
	at(true, "no directory")
}
