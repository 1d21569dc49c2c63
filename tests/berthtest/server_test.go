package berthtest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/tests/berthtest"
)

// `berth up` begins with nothing but a directory, ends cleanly on SIGTERM, leaves no process behind, and goes on where
// it was: after a stop, and after a kill at any moment, with everything that it had acknowledged.
func TestUpStopKillRestart(t *testing.T) {
	s := berthtest.Start(t, berthtest.Options{HTTP: true})
	project := "p-" + berthtest.Name()
	s.CreateProject(t, project, false)
	robot := s.CreateRobot(t, project, "ci", "push", "pull")
	password := s.AdminPassword(t)
	ca, err := os.ReadFile(s.CAFile())
	if err != nil {
		t.Fatal(err)
	}

	images := map[string]*berthtest.Image{}
	check := func(when string) {
		t.Helper()
		for tag, i := range images {
			registry := s.Registry(t, robot)
			got := registry.Do(t, "GET", "/v2/"+project+"/app/manifests/"+tag, nil)
			if got.StatusCode != 200 || !bytes.Equal(got.Data, i.Manifest.Data) {
				t.Fatalf("%s: manifest %s: %s %s", when, tag, got.Status, got.Data)
			}
			for _, b := range i.Blobs() {
				if got := registry.Do(t, "GET", "/v2/"+project+"/app/blobs/"+b.Digest, nil); !bytes.Equal(got.Data, b.Data) {
					t.Fatalf("%s: blob %s of %s: %s", when, b.Digest, tag, got.Status)
				}
			}
		}
		if s.AdminPassword(t) != password {
			t.Errorf("%s: the administrator's password has changed", when)
		}
		if now, err := os.ReadFile(s.CAFile()); err != nil || !bytes.Equal(now, ca) {
			t.Errorf("%s: the CA has changed (%v): all clients would have to be told", when, err)
		}
	}
	push := func(tag string) {
		t.Helper()
		images[tag] = berthtest.NewImage(3, 100_000)
		s.Registry(t, robot).PushImage(t, project+"/app", tag, images[tag])
	}

	push("1")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := processes(t, s.Dir); len(left) > 0 {
		t.Errorf("left behind by a clean stop: %v", left)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	check("after a stop")
	for n := range 3 {
		push(fmt.Sprint("k", n))
		s.Kill()
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		check("after a kill")
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := processes(t, s.Dir); len(left) > 0 {
		t.Errorf("left behind by a clean stop after kills: %v", left)
	}
}

// processes lists those whose command line or working directory speaks of dir.
func processes(t *testing.T, dir string) (found []string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		line, err := os.ReadFile(p + "/cmdline")
		if err != nil {
			continue // ended meanwhile
		}
		cwd, _ := os.Readlink(p + "/cwd")
		if strings.Contains(string(line), dir) || strings.HasPrefix(cwd, dir) {
			found = append(found, filepath.Base(p)+" "+strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		}
	}
	return found
}
