package login_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"berth/appliance/fault"
	"berth/appliance/login"
	"berth/appliance/setting"
)

// publicKey gives the line of a new key of a kind.
func publicKey(t testing.TB, kind string) string {
	t.Helper()
	var public any
	switch kind {
	case "ed25519":
		k, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public = k
	case "ecdsa":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		public = k.Public()
	case "rsa2048", "rsa1024":
		t.Setenv("GODEBUG", "rsa1024min=0")
		bits := 2048
		if kind == "rsa1024" {
			bits = 1024
		}
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		public = k.Public()
	}
	k, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k)))
}

func TestParseKeys(t *testing.T) {
	one, two := publicKey(t, "ed25519"), publicKey(t, "ecdsa")
	good := []string{one + " me@example.org", "", "# comment", "  " + two + "  \n", one, publicKey(t, "rsa2048"),
		`from="10.0.0.0/8,192.0.2.1",no-pty,command="echo \"hello, world\"" ` + publicKey(t, "ed25519") + " robot of mine"}
	keys, err := login.ParseKeys(good)
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if keys[0].Comment != "me@example.org" || !strings.HasPrefix(keys[0].Fingerprint, "SHA256:") || keys[0].Type != "ssh-ed25519" {
		t.Errorf("%+v", keys[0])
	}
	if k := keys[3]; len(k.Options) != 3 || k.Options[2] != `command="echo \"hello, world\""` || k.Comment != "robot of mine" {
		t.Errorf("%+v", k)
	}
	for bad, why := range map[string]string{
		"nonsense": "not a public key", one[:len(one)-8]: "not a public key", one + "\n" + two: "line break",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nsecret": "private key", "---- BEGIN SSH2 PUBLIC KEY ----\nx": "RFC 4716",
		publicKey(t, "rsa1024"):             "1024 bits",
		`environment="A=B" ` + one:          "not allowed",
		"cert-authority " + one:             "not allowed",
		`tunnel="0" ` + one:                 "not allowed",
		"ssh-dss AAAAB3NzaC1kc3MAAAAA x":    "not a public key",
		one + strings.Repeat(" long", 5000): "too long",
	} {
		_, err := login.ParseKeys([]string{one, bad})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "in place 2") {
			t.Errorf("%.60q: %v, want it to say %q", bad, err, why)
		}
	}
	if _, err := login.ParseKeys([]string{"-----BEGIN OPENSSH PRIVATE KEY-----", "b3BlbnNzaC1rZXktdjEAAAAA", "-----END OPENSSH PRIVATE KEY-----"}); strings.Count(err.Error(), "in place") != 1 {
		t.Errorf("the lines of a private key are told as: %v", err)
	}
	if _, err := login.ParseKeys([]string{"a", one, "b"}); strings.Count(err.Error(), "in place") != 2 {
		t.Errorf("two faults are told as: %v", err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(publicKey(f, "ed25519") + " me")
	f.Add(`from="10.0.0.0/8",command="a \" b" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFRw x`)
	f.Add("-----BEGIN OPENSSH PRIVATE KEY-----")
	f.Fuzz(func(t *testing.T, text string) {
		root := t.TempDir()
		accounts := login.In(root)
		keys, err := accounts.SetAuthorizedKeys([]string{text})
		if err != nil {
			return
		}
		again, others, err := accounts.AuthorizedKeys()
		if err != nil || others != 0 || len(again) != len(keys) {
			t.Errorf("%q is written as %d keys and read as %v, %d others, %v", text, len(keys), again, others, err)
		}
	})
}

// units notes what is asked of systemd.
type units struct{ asked []string }

func (u *units) note(what string, names ...string) error {
	u.asked = append(u.asked, strings.TrimSpace(what+" "+strings.Join(names, " ")))
	return nil
}
func (u *units) Start(_ context.Context, n string) error      { return u.note("start", n) }
func (u *units) Stop(_ context.Context, n string) error       { return u.note("stop", n) }
func (u *units) Reload(_ context.Context, n string) error     { return u.note("reload", n) }
func (u *units) Enable(_ context.Context, n ...string) error  { return u.note("enable", n...) }
func (u *units) Disable(_ context.Context, n ...string) error { return u.note("disable", n...) }
func (u *units) Load(context.Context) error                   { return u.note("load") }

func (u *units) take() []string {
	a := u.asked
	u.asked = nil
	return a
}

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sshRoot is a system's directory with host keys already there.
func sshRoot(t *testing.T, unit string) string {
	root := t.TempDir()
	write(t, root, "usr/lib/systemd/system/"+unit, "[Service]\n")
	write(t, root, "etc/ssh/sshd_config", "UsePAM yes\n")
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		write(t, root, "etc/ssh/ssh_host_"+kind+"_key", "private")
		write(t, root, "etc/ssh/ssh_host_"+kind+"_key.pub", publicKey(t, "ed25519"))
	}
	return root
}

func TestSSHForEverAndOff(t *testing.T) {
	t.Parallel()
	root, u := sshRoot(t, "ssh.service"), &units{}
	s := login.NewSSH(root, u)
	expect := func(what string, want ...string) {
		t.Helper()
		if got := u.take(); !slices.Equal(got, want) {
			t.Errorf("%s: asked for %q, want %q", what, got, want)
		}
	}
	if err := s.Apply(t.Context(), setting.SSH{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	expect("on", "enable ssh.service", "reload ssh.service")
	if main := read(t, root, "etc/ssh/sshd_config"); main != "Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n" {
		t.Errorf("sshd_config is %q", main)
	}
	if part := read(t, root, "etc/ssh/sshd_config.d/10-berth.conf"); !strings.Contains(part, "\nPasswordAuthentication yes\n") {
		t.Errorf("without keys: %s", part)
	}
	if err := s.Apply(t.Context(), setting.SSH{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	expect("on again", "enable ssh.service", "start ssh.service")
	if _, err := s.SetAuthorizedKeys([]string{publicKey(t, "ecdsa")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), setting.SSH{Enabled: true}); err != nil {
		t.Fatal(err)
	}
	expect("with a key", "enable ssh.service", "reload ssh.service")
	part := read(t, root, "etc/ssh/sshd_config.d/10-berth.conf")
	if !strings.Contains(part, "\nPasswordAuthentication no\n") || !strings.Contains(part, "\nPermitRootLogin prohibit-password\n") {
		t.Errorf("with a key: %s", part)
	}
	if main := read(t, root, "etc/ssh/sshd_config"); strings.Count(main, "Include") != 1 {
		t.Errorf("sshd_config is %q", main)
	}
	if err := s.Apply(t.Context(), setting.SSH{}); err != nil {
		t.Fatal(err)
	}
	expect("off", "disable ssh.service", "stop ssh.service")
	if keys, err := s.HostKeys(); err != nil || len(keys) != 3 {
		t.Errorf("host keys: %v, %v", keys, err)
	}
}

func TestSSHUntil(t *testing.T) {
	t.Parallel()
	root, u := sshRoot(t, "sshd.service"), &units{}
	s := login.NewSSH(root, u)
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	for range 2 { // and once more, as after a restart of the agent
		if err := s.Apply(t.Context(), setting.SSH{Enabled: true, Until: until}); err != nil {
			t.Fatal(err)
		}
		asked := u.take()
		if timer, sshd := slices.Index(asked, "start berth-ssh-end.timer"), slices.IndexFunc(asked, func(a string) bool { return a == "start sshd.service" || a == "reload sshd.service" }); timer < 0 || sshd < timer {
			t.Errorf("asked for %q: sshd must not run before its end is set", asked)
		}
		if slices.Contains(asked, "enable sshd.service") {
			t.Errorf("asked for %q: it would start at every boot", asked)
		}
	}
	timer := read(t, root, "run/systemd/system/berth-ssh-end.timer")
	if !strings.Contains(timer, "\nOnCalendar="+until.UTC().Format("2006-01-02 15:04:05")+" UTC\n") {
		t.Error(timer)
	}
	if !strings.Contains(read(t, root, "run/systemd/system/berth-ssh-end.service"), "systemctl stop sshd.service\n") {
		t.Error("the timer ends something else")
	}
	if err := s.Apply(t.Context(), setting.SSH{Enabled: true, Until: time.Now().Add(-time.Second)}); err != nil {
		t.Fatal(err)
	}
	if asked := u.take(); !slices.Equal(asked, []string{"stop berth-ssh-end.timer", "load", "disable sshd.service", "stop sshd.service"}) {
		t.Errorf("after its time: asked for %q", asked)
	}
	if _, err := os.Stat(filepath.Join(root, "run/systemd/system/berth-ssh-end.timer")); err == nil {
		t.Error("the timer is still there")
	}
}

func TestNoSSHServer(t *testing.T) {
	t.Parallel()
	if err := login.NewSSH(t.TempDir(), &units{}).Apply(t.Context(), setting.SSH{Enabled: true}); !fault.Is(err, fault.Unsupported) {
		t.Error(err)
	}
}

// TestHostKeys makes keys with the real ssh-keygen, also in place of an empty file.
func TestHostKeys(t *testing.T) {
	if !ownEtc(t, "/usr/bin/ssh-keygen") {
		return
	}
	if err := exec.Command("sh", "-c", "mkdir -p /etc/ssh && rm -f /etc/ssh/ssh_host_* && : > /etc/ssh/ssh_host_rsa_key").Run(); err != nil {
		t.Fatal(err)
	}
	s := login.NewSSH("/", &units{})
	if err := s.MakeHostKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, err := s.HostKeys()
	if err != nil || len(first) != 3 {
		t.Fatalf("%v, %v", first, err)
	}
	if err := s.MakeHostKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	if second, err := s.HostKeys(); err != nil || first[0].Fingerprint != second[0].Fingerprint {
		t.Errorf("the keys have changed: %v", err)
	}
	left, _ := filepath.Glob("/etc/ssh/*.new*")
	if info, err := os.Stat("/etc/ssh/ssh_host_rsa_key"); err != nil || info.Mode() != 0o600 || left != nil {
		t.Errorf("%v, %v, left %v", info.Mode(), err, left)
	}
}
