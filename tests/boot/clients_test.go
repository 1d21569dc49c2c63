package boot_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/berthtest"
	"berth/tests/boot"
)

// authority is the appliance's CA as a client gets it: over HTTPS that it cannot check yet. It is a file's path.
func authority(t *testing.T, m *boot.Machine) string {
	t.Helper()
	client := m.Client(nil)
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + m.Address().String() + "/api/v2.0/systeminfo/getcert")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	ca, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(ca), "BEGIN CERTIFICATE") {
		t.Fatalf("the CA: %s %q %v", res.Status, ca, err)
	}
	path := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(path, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Clients on another machine get the CA from the appliance and then use it as any registry; a reboot later everything is
// there.
func TestPushRebootPull(t *testing.T) {
	t.Parallel()
	crane := berthtest.Tool(t, "crane")
	skopeo := berthtest.Program(t, "skopeo")
	m := started(t, boot.Options{})
	ca, dir := authority(t, m), t.TempDir()
	env := []string{"env", "HOME=" + dir, "SSL_CERT_FILE=" + ca}
	run := func(args ...string) string { return m.Outside(t, env[0], append(env[1:], args...)...) }
	name := m.Address().String() + "/library/app"
	layout := filepath.Join(dir, "layout")
	i := berthtest.NewImage(3, 1_000_000)
	berthtest.WriteLayout(t, layout, "1", i.Manifest, i)
	if out, err := m.TryOutside(administrator.Password, env[0], append(env[1:], crane, "auth", "login", m.Address().String(), "-u", administrator.User, "--password-stdin")...); err != nil {
		t.Fatal(out, err)
	}
	run(crane, "push", layout, name+":1")
	run(skopeo, "copy", "--dest-cert-dir", filepath.Dir(ca), "--dest-creds", administrator.User+":"+administrator.Password, "oci:"+layout+":1", "docker://"+name+":2")
	m.Command(t, "berth", "verify") // as root, who leaves nothing behind that the services cannot change
	if out := m.Command(t, "find", "/storage/data/storage", "(", "-type", "d", "!", "-perm", "2770", "-o", "-type", "f", "!", "-perm", "0660", "-o", "!", "-group", "berth-blobs", ")", "-ls"); out != "" {
		t.Errorf("not all services may change what one of them has made:\n%s", out)
	}
	m.Reboot(t)
	serving(t, m)
	for _, tag := range []string{"1", "2"} {
		if got := strings.TrimSpace(run(crane, "digest", name+":"+tag)); got != i.Manifest.Digest {
			t.Errorf("%s is %s now, and was %s", tag, got, i.Manifest.Digest)
		}
	}
	// By IPv6, too. That address comes seconds after the first certificate was made, and within a minute the agent has
	// made one with it.
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	r := berthtest.NewRegistry("https://["+m.Address6().String()+"]", administrator, m.Client(pem))
	m.Wait(t, "it answers by IPv6", 2*time.Minute, func() error {
		got, err := r.Try(t, "GET", "/v2/library/app/manifests/1", nil)
		if err == nil && berthtest.Digest(got.Data) != i.Manifest.Digest {
			return errors.New(got.Status)
		}
		return err
	})
	run(crane, "pull", "--format=oci", name+":2", filepath.Join(dir, "back"))
	run(skopeo, "copy", "--src-cert-dir", filepath.Dir(ca), "docker://"+name+":1", "dir:"+filepath.Join(dir, "back-too"))
}
