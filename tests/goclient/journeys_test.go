package goclient

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestJourneys goes through Harbor's API as its users do, and then checks that
// nothing of it was left out.
func TestJourneys(t *testing.T) {
	w := start(t)
	for _, j := range []struct {
		name string
		run  func(*world)
	}{
		{"information", information}, {"users", users}, {"members", members}, {"groups", groups}, {"robots", robots},
		{"projects", projects}, {"images", images}, {"labels", labels}, {"quotas", quotas}, {"trail", trail}, {"search", searching},
		{"immutability", immutability}, {"retention", retain}, {"webhooks", webhooks},
		{"garbage", garbage}, {"purge", purging}, {"workers", workers}, {"settings", settings}, {"coming", coming},
	} {
		w.in(j.name, j.run)
	}
	t.Run("everything", func(t *testing.T) {
		for _, op := range operations(t) {
			if !slices.ContainsFunc(w.calls.seen, op.is) && !op.coming() {
				t.Errorf("no journey calls %s %s (%s)", op.method, op.path, op.id)
			}
		}
	})
}

// operation is one of the client's.
type operation struct {
	pkg, id, method, path string
	pattern               *regexp.Regexp
}

func (o operation) is(call [2]string) bool {
	return call[0] == o.method && o.pattern.MatchString(strings.TrimPrefix(call[1], "/api/v2.0"))
}

// coming says that Berth answers, but has nothing to do yet.
func (o operation) coming() bool {
	switch o.pkg {
	case "registry", "replication", "scan", "scan_all", "scan_data_export", "scanner", "securityhub", "preheat":
		return true
	case "robotv1": // Harbor's own predecessor of /robots
		return true
	}
	return false
}

var described = regexp.MustCompile(`ID:\s+"(\w+)",\s+Method:\s+"(\w+)",\s+PathPattern:\s+"([^"]+)"`)
var placeholder = regexp.MustCompile(`\\\{[a-z_]+\\\}`)

// operations reads the client's source: what there is to call.
func operations(t *testing.T) (all []operation) {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/goharbor/go-client").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "pkg/sdk/v2.0/client/*/*_client.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range described.FindAllStringSubmatch(string(source), -1) {
			pattern := "^" + placeholder.ReplaceAllString(regexp.QuoteMeta(m[3]), "[^/]+") + "/?$"
			all = append(all, operation{filepath.Base(filepath.Dir(file)), m[1], m[2], m[3], regexp.MustCompile(pattern)})
		}
	}
	if len(all) < 200 {
		t.Fatalf("only %d operations", len(all))
	}
	return all
}

// TestDocument checks that the table of compatibility names every operation of
// Harbor, and none besides.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/harbor-compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range operations(t) {
		if row := fmt.Sprintf("| `%s %s` |", op.method, op.path); strings.Count(string(text), row) != 1 && op.pkg != "robotv1" {
			t.Errorf("docs/harbor-compatibility.md has not one row %s", row)
		}
	}
}
