package login_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/login"
	"berth/appliance/secret"
)

func TestCheckStrength(t *testing.T) {
	t.Parallel()
	for _, good := range []secret.Text{
		"Passw0rd", "With spaces 1 2", `A:b"'$%&<>\;1|`, "Grüße-Übung-7ß", " Leading1", "Trailing1 ",
		secret.Text("Aa1" + strings.Repeat("x", 125)),
	} {
		if err := login.CheckStrength(good); err != nil {
			t.Errorf("%q: %v", good.Reveal(), err)
		}
	}
	for bad, why := range map[secret.Text]string{
		"": "shorter", "Passw0r": "shorter", "passw0rd": "upper-case", "PASSW0RD": "lower-case", "Password": "digit",
		"Passw0rd\n": "cannot be typed", "Pass\tw0rd": "cannot be typed", "Passw0rd\x00": "cannot be typed", "Passw0rd\xff": "cannot be typed",
		"Aa1ÄÖÜä": "shorter", "ÄÖÜäöü12": "upper-case", "Pass\u200bw0rd": "cannot be typed",
		secret.Text("Aa1" + strings.Repeat("x", 126)): "longer",
	} {
		err := login.CheckStrength(bad)
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want it to say %q", bad.Reveal(), err, why)
		}
		if err != nil && bad != "" && strings.Contains(err.Error()+fault.Of(err).Hint, bad.Reveal()) {
			t.Errorf("%q is in its own fault", bad.Reveal())
		}
	}
}

func TestConsolePassword(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "console-password")
	if ok, err := login.VerifyPassword(path, "Passw0rd"); ok || err != nil {
		t.Errorf("without a file: %v, %v", ok, err)
	}
	if err := login.WritePassword(path, "short"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a weak one: %v", err)
	}
	if err := login.WritePassword(path, "Passw0rd"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for p, want := range map[secret.Text]bool{"Passw0rd": true, "Passw0rD": false, "": false} {
		if ok, err := login.VerifyPassword(path, p); ok != want || err != nil {
			t.Errorf("%q: %v, %v", p.Reveal(), ok, err)
		}
	}
	if err := os.WriteFile(path, []byte("Passw0rd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ok, err := login.VerifyPassword(path, "Passw0rd"); ok || err == nil {
		t.Errorf("a file that holds no hash: %v, %v", ok, err)
	}
}

// ownEtc runs the rest of a test in a process that has a copy of /etc of its own,
// in a mount namespace that ends with it. It reports whether this is that process.
func ownEtc(t *testing.T, programs ...string) bool {
	t.Helper()
	if os.Getenv("BERTH_OWN_ETC") == t.Name() {
		dir := t.TempDir()
		for _, step := range []func() error{
			func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
			func() error { return unix.Mount("none", dir, "tmpfs", 0, "mode=0755") },
			func() error { return exec.Command("cp", "-a", "/etc", dir+"/etc").Run() },
			func() error { return unix.Mount(dir+"/etc", "/etc", "", unix.MS_BIND, "") },
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { // the directory is removed before the namespace ends
			if err := unix.Unmount("/etc", 0); err != nil {
				t.Error(err)
			}
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("skipped: it changes a copy of /etc in a mount namespace, which takes root")
	}
	for _, p := range programs {
		if _, err := os.Stat(p); err != nil {
			t.Skipf("skipped: %s is not installed", p)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "BERTH_OWN_ETC="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestRootPassword sets and checks passwords with the distribution's programs.
func TestRootPassword(t *testing.T) {
	if !ownEtc(t, "/usr/sbin/chpasswd", "/usr/sbin/unix_chkpwd", "/usr/bin/chage") {
		return
	}
	ctx := t.Context()
	shadow := func() string {
		b, err := os.ReadFile("/etc/shadow")
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		return line
	}
	// As after Photon's installer, and locked.
	b, err := os.ReadFile("/etc/shadow")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\n")
	if err := os.WriteFile("/etc/shadow", []byte("root:!:18000:0:90:7:14:19000:\n"+rest), 0o640); err != nil {
		t.Fatal(err)
	}
	if ok, err := login.Verify(ctx, "root", "Passw0rd"); ok || err != nil {
		t.Errorf("with a locked account: %v, %v", ok, err)
	}
	for _, p := range []secret.Text{"Passw0rd", `a:B 1"'$(reboot)%&<>\;|`, "Grüße-Übung-7ß", secret.Text("Aa1" + strings.Repeat("x", 125))} {
		if err := login.SetPassword(ctx, "root", p); err != nil {
			t.Fatalf("%q: %v", p.Reveal(), err)
		}
		if ok, err := login.Verify(ctx, "root", p); !ok || err != nil {
			t.Errorf("%q: %v, %v", p.Reveal(), ok, err)
		}
		for _, wrong := range []secret.Text{p + "x", p[1:], "", "Passw0rd\x00"} {
			if ok, err := login.Verify(ctx, "root", wrong); ok || err != nil {
				t.Errorf("%q instead of %q: %v, %v", wrong.Reveal(), p.Reveal(), ok, err)
			}
		}
	}
	if f := strings.Split(shadow(), ":"); !strings.HasPrefix(f[1], "$y$") && !strings.HasPrefix(f[1], "$6$rounds=500000$") || f[4] != "99999" || f[6] != "" || f[7] != "" {
		t.Errorf("shadow has %q", f[1:])
	}
	if err := login.In("/").SetExpiry(ctx, "root", 60); err != nil || strings.Split(shadow(), ":")[4] != "60" {
		t.Errorf("an expiry that is set: %v, %s", err, shadow())
	}
	for _, user := range []string{"nobody", "stranger", "root:x", "-R", ""} {
		if ok, err := login.Verify(ctx, user, "Passw0rd"); ok || err != nil {
			t.Errorf("%q: %v, %v", user, ok, err)
		}
	}
	if err := login.SetPassword(ctx, "root\nnobody", "Passw0rd"); !fault.Is(err, fault.Invalid) {
		t.Errorf("an account that is none: %v", err)
	}
	if err := login.SetPassword(ctx, "stranger", "Passw0rd"); err == nil || strings.Contains(err.Error(), "Passw0rd") {
		t.Errorf("an account that is not there: %v", err)
	}
}
