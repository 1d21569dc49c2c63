package health

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
)

// Answers asks whether somebody accepts connections: "tcp" and host:port, or
// "unix" and a path.
func Answers(network, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return Unanswered(err)
		}
		return c.Close()
	}
}

// UserAgent is what Berth calls itself when it asks its own services whether they
// live; the access log leaves such questions out.
const UserAgent = "berth-health"

// Serves asks a service on a unix socket for a path. Every answer will do but one
// that says that the service cannot (5xx).
func Serves(socket, path string) func(context.Context) error {
	return func(ctx context.Context) error {
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://berth"+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", UserAgent)
		res, err := transport.RoundTrip(req)
		if err != nil {
			return Unanswered(err)
		}
		res.Body.Close()
		if res.StatusCode >= 500 {
			return fault.New(fault.Unavailable, "it answers %s", res.Status)
		}
		return nil
	}
}

// Unanswered says in words why nobody answers; nil stays nil.
func Unanswered(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return fault.Wrap(fault.Unavailable, err, "it does not run: its socket is missing")
	case errors.Is(err, unix.ECONNREFUSED):
		return fault.Wrap(fault.Unavailable, err, "it does not run: nobody listens")
	case errors.Is(err, unix.EACCES):
		return fault.Wrap(fault.Unavailable, err, "it cannot be asked: its socket belongs to another user").WithHint("ask as root, or as the user that Berth runs as")
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Unavailable, err, "it does not answer in time")
	}
	return fault.Wrap(fault.Unavailable, err, "it does not answer")
}

// Writable asks whether files can be made in a directory, by making one.
func Writable(dir string) func(context.Context) error {
	return func(context.Context) error {
		f, err := os.CreateTemp(dir, ".health-")
		if err != nil {
			return unwritable(dir, err)
		}
		defer os.Remove(f.Name())
		_, err = f.WriteString("berth\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return unwritable(dir, err)
		}
		return nil
	}
}

func unwritable(dir string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fault.Wrap(fault.Unavailable, err, "the directory is missing").On(dir).WithHint("mount it, or restore it, and restart Berth")
	case errors.Is(err, fs.ErrPermission):
		return fault.Wrap(fault.Unavailable, err, "it cannot be written to").On(dir).WithHint("give it back to the user that Berth runs as (ls -ld %s; chown, chmod)", dir)
	case errors.Is(err, unix.EROFS):
		return fault.Wrap(fault.Unavailable, err, "it is mounted read-only").On(dir).WithHint("look for disk errors (dmesg), repair it, and mount it again")
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.Wrap(fault.NoSpace, err, "there is no room left").On(dir).WithHint("%s", roomHint)
	}
	return fault.Wrap(fault.Unavailable, err, "it cannot be written to").On(dir).WithHint("look for disk errors (dmesg)")
}

const roomHint = "make the disk larger, or delete artifacts and run berth gc (what is in the recycle bin stays there for trash_days)"

// The marks of a disk. Below full PostgreSQL is about to stop.
const (
	lowShare, fullShare = 0.10, 0.01
	lowBytes, fullBytes = 20 << 30, 64 << 20
)

// Room asks how much is left of the file system that a directory is on: bytes
// and files. Less than a tenth is a warning, unless that is more than 20 GiB; a
// hundredth, or 64 MiB, is too little.
func Room(dir string) func(context.Context) error {
	return func(context.Context) error {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return unwritable(dir, err)
		}
		return room(dir, s.Bavail*uint64(s.Bsize), s.Blocks*uint64(s.Bsize), s.Ffree, s.Files)
	}
}

func room(dir string, free, size, freeFiles, files uint64) error {
	share := func(part, whole uint64) float64 {
		if whole == 0 {
			return 1 // it knows no such limit
		}
		return float64(part) / float64(whole)
	}
	bytes, inodes := share(free, size), share(freeFiles, files)
	left := fault.New(fault.NoSpace, "%s of %s are left (%.0f %%)", inBytes(free), inBytes(size), 100*bytes).On(dir).WithHint("%s", roomHint)
	if inodes < bytes {
		left = fault.New(fault.NoSpace, "%d of %d files are left (%.0f %%)", freeFiles, files, 100*inodes).On(dir).WithHint("make the file system larger: it has room for bytes but not for files")
	}
	switch least := min(bytes, inodes); {
	case least < fullShare || free < fullBytes:
		return left
	case bytes < lowShare && free < lowBytes, inodes < lowShare:
		return Warning(left)
	}
	return nil
}

func inBytes(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

// soon is when a certificate's end should be seen to: Berth's own are renewed
// before that, so whoever is warned has one that nothing renews.
const soon = 21 * 24 * time.Hour

// Certificate asks whether the certificate in a PEM file is valid now. One that
// ends within three weeks is a warning.
func Certificate(file string) func(context.Context) error {
	return func(context.Context) error { return certificate(file, time.Now()) }
}

func certificate(file string, now time.Time) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the certificate cannot be read").On(file).WithHint("restore %s, or remove the directory %s: the next start makes a new one", file, filepath.Dir(file))
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return fault.New(fault.Unavailable, "it holds no certificate in PEM").On(file).WithHint("put a PEM certificate there")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "it holds no certificate").On(file).WithHint("put a PEM certificate there")
	}
	const hint = "put a new certificate and its key into the files that the settings name; they are served within seconds"
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		return fault.New(fault.Unavailable, "the certificate has expired on %s: clients refuse it", c.NotAfter.UTC().Format(time.DateOnly)).On(file).WithHint(hint)
	case now.Before(c.NotBefore):
		return fault.New(fault.Unavailable, "the certificate is not valid before %s: clients refuse it", c.NotBefore.UTC().Format(time.RFC3339)).On(file).
			WithHint("check this machine's clock (timedatectl), or put in another certificate")
	case left < soon:
		return Warning(fault.New(fault.Precondition, "the certificate ends on %s, in %d days", c.NotAfter.UTC().Format(time.DateOnly), int(left.Hours()/24)).On(file).WithHint(hint))
	}
	return nil
}
