package health

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// says checks that an error has a text and says what to do.
func says(t *testing.T, err error, want string) {
	t.Helper()
	f, ok := errors.AsType[*fault.Error](err)
	if want == "" && err != nil || want != "" && (!ok || !strings.Contains(f.Text, want)) {
		t.Errorf("%v, not %q", err, want)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	says(t, Answers("unix", socket)(t.Context()), "its socket is missing")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	status := http.StatusOK
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	says(t, Answers("unix", socket)(t.Context()), "")
	says(t, Serves(socket, "/x")(t.Context()), "")
	status = http.StatusServiceUnavailable
	says(t, Serves(socket, "/x")(t.Context()), "503")
	srv.Close()
	<-done
	says(t, Answers("unix", socket)(t.Context()), "nobody listens")
	says(t, Serves(socket, "/x")(t.Context()), "nobody listens")
}

func TestWritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	says(t, Writable(dir)(t.Context()), "")
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	says(t, Writable(filepath.Join(dir, "missing"))(t.Context()), "the directory is missing")
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, Writable(file)(t.Context()), "the directory is missing")
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	if os.Getuid() == 0 {
		// Permissions do not bind root; for this thread they do.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, err := unix.SetfsuidRetUid(65534); err != nil {
			t.Fatal(err)
		}
		defer unix.SetfsuidRetUid(0)
	}
	err := Writable(dir)(t.Context())
	says(t, err, "it cannot be written to")
	if f := fault.Of(err); !strings.Contains(f.Hint, "chown") {
		t.Errorf("hint %q", f.Hint)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	const g = 1 << 30
	for _, c := range []struct {
		free, size, freeFiles, files uint64
		want                         string
		warning                      bool
	}{
		{50 * g, 100 * g, 50, 100, "", false},
		{50 * g, 100 * g, 0, 0, "", false}, // btrfs: no limit of files
		{9 * g, 100 * g, 50, 100, "9.0 GiB of 100.0 GiB are left (9 %)", true},
		{24 * g, 252 * g, 50, 100, "", false},
		{g / 2, 100 * g, 50, 100, "512.0 MiB of 100.0 GiB are left (0 %)", false},
		{50 << 20, 100 << 20, 50, 100, "50.0 MiB of 100.0 MiB are left", false},
		{50 * g, 100 * g, 5, 100, "5 of 100 files are left", true},
		{50 * g, 100 * g, 0, 100, "0 of 100 files are left", false},
	} {
		err := room("/d", c.free, c.size, c.freeFiles, c.files)
		says(t, err, c.want)
		if got := errors.As(err, new(*warning)); got != c.warning {
			t.Errorf("%+v: warning %v", c, got)
		}
	}
	says(t, Room(t.TempDir()+"/missing")(t.Context()), "the directory is missing")
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	day := 24 * time.Hour
	for _, c := range []struct {
		from, until time.Duration
		want        string
		warning     bool
	}{
		{-day, 90 * day, "", false},
		{-day, 20 * day, "the certificate ends on", true},
		{-9 * day, -day, "the certificate has expired on", false},
		{day, 90 * day, "not valid before", false},
	} {
		file := filepath.Join(dir, "c.pem")
		if err := os.WriteFile(file, selfSigned(t, now.Add(c.from), now.Add(c.until)), 0o600); err != nil {
			t.Fatal(err)
		}
		err := certificate(file, now)
		says(t, err, c.want)
		if got := errors.As(err, new(*warning)); got != c.warning {
			t.Errorf("%+v: warning %v", c, got)
		}
		if err != nil && fault.Of(err).Hint == "" {
			t.Errorf("%v: nothing to do", err)
		}
	}
	says(t, certificate(filepath.Join(dir, "missing"), now), "cannot be read")
	for _, text := range []string{"", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		file := filepath.Join(dir, "bad.pem")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		says(t, certificate(file, now), "it holds no certificate")
	}
}

func selfSigned(t *testing.T, from, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
