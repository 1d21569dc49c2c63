package chart_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"reflect"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/services/chart"
)

// pack makes an archive of names and contents.
func pack(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestRead(t *testing.T) {
	t.Parallel()
	c, err := chart.Read(bytes.NewReader(pack(t,
		"app/Chart.yaml", "name: app\ndependencies:\n- name: db\n  version: 1.x\n  repository: oci://r.example.com/charts\n",
		"app/values.yaml", "a: 1\n", "app/README.md", "# App\n",
		"app/charts/db/values.yaml", "inner: true\n", "app/templates/README.md", "no\n", "values.yaml", "outside\n")))
	want := chart.Chart{Values: []byte("a: 1\n"), Readme: []byte("# App\n"),
		Dependencies: []chart.Dependency{{Name: "db", Version: "1.x", Repository: "oci://r.example.com/charts"}}}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = chart.Read(bytes.NewReader(pack(t, "app/Chart.yaml", "name: app", "app/requirements.yaml", "dependencies: [{name: x}]")))
	if err != nil || len(c.Dependencies) != 1 || c.Values != nil || c.Readme != nil {
		t.Errorf("version 1: %+v, %v", c, err)
	}
}

func TestBad(t *testing.T) {
	t.Parallel()
	good := pack(t, "app/Chart.yaml", "name: app")
	for name, b := range map[string][]byte{
		"empty":     {},
		"no gzip":   []byte("hello"),
		"cut off":   good[:len(good)/2],
		"no tar":    pack(t)[:10],
		"bad YAML":  pack(t, "app/Chart.yaml", "a: [", "app/values.yaml", "x"),
		"huge file": pack(t, "app/values.yaml", strings.Repeat("a", 5<<20)),
		"bomb":      pack(t, "app/x", strings.Repeat("a", 65<<20), "app/values.yaml", "x"),
	} {
		if _, err := chart.Read(bytes.NewReader(b)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pack(f, "app/Chart.yaml", "name: app", "app/values.yaml", "a: 1"))
	f.Add(pack(f, "app/requirements.yaml", "dependencies: [{name: &a x, version: *a}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := chart.Read(bytes.NewReader(b)); err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("not a fault of the chart: %v", err)
		}
	})
}
