// Package tests checks the repository as a whole: what may import what, that
// every package says what it is for, that nothing is replaced in go.mod.
package tests

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"berth/appliance/setting"
)

type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Doc          string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Doc", "berth/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("only %d packages were found", len(list))
	}
	return list
}

// layers are the top-level folders that hold Go. Each may import those that it
// names, and itself; the list is the architecture.
var layers = map[string][]string{
	"appliance": {},
	"services":  {"appliance"},
	"agent":     {"appliance", "firstboot"},
	"firstboot": {"appliance"},
	"ova":       {"appliance"},
	"tests":     {"appliance", "services", "agent", "firstboot", "ova"},
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range packages(t) {
		from := layer(p.ImportPath)
		allowed, known := layers[from]
		if !known {
			t.Errorf("%s is in no known folder", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			to := layer(imp)
			if to == "" || to == from || contains(allowed, to) {
				continue
			}
			t.Errorf("%s imports %s: %s may import only %v", p.ImportPath, imp, from, allowed)
		}
	}
}

func layer(path string) string {
	rest, ours := strings.CutPrefix(path, "berth/")
	if !ours {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Some packages have rules of their own, each with its reason.
func TestForbiddenImports(t *testing.T) {
	rules := []struct{ pkg, forbidden, why string }{
		{"berth/services/registry", "berth/services/core", "the data path does not depend on the REST API"},
		{"berth/services/artifact", "net/http", "the domain knows no transport"},
		{"berth/services/access", "github.com/jackc/pgx/v5", "decisions are a function of what they are given"},
		{"berth/services/access", "net/http", "decisions are a function of what they are given"},
		{"berth/services/registry", "github.com/jackc/pgx/v5", "SQL stands in the package that owns the table"},
		{"berth/services/proxy", "github.com/jackc/pgx/v5", "the front door needs no database"},
		{"berth/services/reference", "regexp", "it runs on every request"},
		{"berth/services/registry", "regexp", "it runs on every request"},
	}
	for _, p := range packages(t) {
		for _, r := range rules {
			if p.ImportPath != r.pkg {
				continue
			}
			for _, imp := range p.Imports {
				if imp == r.forbidden || strings.HasPrefix(imp, r.forbidden+"/") {
					t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.why)
				}
			}
		}
	}
}

// Test helpers stay out of what is shipped.
func TestNoTestPackagesInTheProduct(t *testing.T) {
	for _, p := range packages(t) {
		if layer(p.ImportPath) == "tests" || strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for _, imp := range p.Imports {
			if imp == "testing" || strings.HasPrefix(imp, "berth/") && strings.HasSuffix(imp, "test") {
				t.Errorf("%s imports %s", p.ImportPath, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && hasProductFiles(p.Dir) {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func hasProductFiles(dir string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			return true
		}
	}
	return false
}

func TestNoBannedNames(t *testing.T) {
	banned := map[string]bool{"util": true, "utils": true, "common": true, "helpers": true, "models": true, "manager": true, "controller": true, "dao": true, "types": true}
	for _, p := range packages(t) {
		if banned[filepath.Base(p.ImportPath)] {
			t.Errorf("%s: a package is named for what it provides", p.ImportPath)
		}
	}
}

// Only main packages' own Main may end the process, and nothing is wired in init.
func TestNoExitAndNoInit(t *testing.T) {
	root := moduleRoot(t)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "tools" || d.Name() == "data" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		checkFile(t, rel, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, rel string, f *ast.File) {
	for _, decl := range f.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			t.Errorf("%s has an init function", rel)
		}
	}
	if f.Name.Name == "main" || strings.HasPrefix(rel, "tests/") || strings.HasSuffix(filepath.Dir(rel), "test") {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "os" && sel.Sel.Name == "Exit" || x.Name == "log" && strings.HasPrefix(sel.Sel.Name, "Fatal")) {
			t.Errorf("%s calls %s.%s", rel, x.Name, sel.Sel.Name)
		}
		return true
	})
}

func TestNothingIsReplaced(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(moduleRoot(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "\nreplace") {
		t.Error("go.mod replaces a module: whoever installs Berth as a module gets another one")
	}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// Every setting is in a guide, and those of the log service in the one for operators.
func TestSettingsAreDocumented(t *testing.T) {
	for _, c := range []struct {
		guide  string
		form   string // how it names a setting
		fields reflect.Type
	}{
		{"admin.md", "`%s`", reflect.TypeFor[setting.Settings]()},
		{"operations.md", " %s: ", reflect.TypeFor[setting.Logs]()},
		{"operations.md", " %s: ", reflect.TypeFor[setting.Forward]()},
		{"admin-guide.md", "`network.%s`", reflect.TypeFor[setting.Network]()},
		{"admin-guide.md", "`time.%s`", reflect.TypeFor[setting.Time]()},
		{"admin-guide.md", "`ssh.%s`", reflect.TypeFor[setting.SSH]()},
		{"admin-guide.md", "`firewall.%s`", reflect.TypeFor[setting.Firewall]()},
		{"admin-guide.md", "`proxy.%s`", reflect.TypeFor[setting.Proxy]()},
		{"admin-guide.md", "`vcenter.%s`", reflect.TypeFor[setting.VCenter]()},
		{"admin-guide.md", "`disks.%s`", reflect.TypeFor[setting.Disks]()},
	} {
		guide, err := os.ReadFile(filepath.Join(moduleRoot(t), "docs", c.guide))
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.fields.NumField() {
			name, _, _ := strings.Cut(c.fields.Field(i).Tag.Get("yaml"), ",")
			text := strings.ReplaceAll(string(guide), ":\n", ": \n") // of a list
			if name == "" || !strings.Contains(text, fmt.Sprintf(c.form, name)) {
				t.Errorf("docs/%s does not name the setting %s (field %s of %s)", c.guide, name, c.fields.Field(i).Name, c.fields)
			}
		}
	}
}

// The documents name only folders that are there.
func TestTheMapIsTrue(t *testing.T) {
	root := moduleRoot(t)
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ours := layers[e.Name()]; ours && e.IsDir() && !strings.Contains(string(readme), e.Name()+"/") {
			t.Errorf("README.md does not show the folder %s", e.Name())
		}
	}
	services, err := os.ReadDir(filepath.Join(root, "services"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range services {
		if e.IsDir() && !strings.Contains(string(readme), e.Name()) {
			t.Errorf("README.md does not name services/%s", e.Name())
		}
	}
}
