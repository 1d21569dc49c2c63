package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/tests/berthtest"
	"berth/tests/cmd/bench/load"
)

// CNCF is the CNCF's registry on a directory, with its cache in memory, without authentication and without logs: as
// fast as it can be set up. A second process on the same directory serves TLS.
type CNCF struct {
	plain, tls         *child
	dir                string
	plainAddr, tlsAddr string
	roots              *x509.CertPool
}

const cncfSettings = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  cache: {blobdescriptor: inmemory}
http:
  addr: %s
`

// StartCNCF starts it on an empty directory below dir.
func StartCNCF(ctx context.Context, dir, bin string, pair KeyPair) (c *CNCF, err error) {
	c = &CNCF{dir: filepath.Join(dir, "cncf")}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if c.roots, err = rootsOf(pair.Certificate); err != nil {
		return nil, err
	}
	if c.plain, c.plainAddr, err = c.run(ctx, filepath.Join(dir, "cncf"), bin, ""); err != nil {
		return nil, err
	}
	more := fmt.Sprintf("  tls: {certificate: %q, key: %q, minimumtls: tls1.3}\n  http2: {disabled: true}\n", pair.Certificate, pair.Key)
	c.tls, c.tlsAddr, err = c.run(ctx, filepath.Join(dir, "cncf-tls"), bin, more)
	return c, err
}

func (c *CNCF) run(ctx context.Context, name, bin, more string) (*child, string, error) {
	addr, err := berthtest.FreeAddr("127.0.0.1")
	if err != nil {
		return nil, "", err
	}
	file := name + ".yaml"
	if err := write(file, []byte(fmt.Sprintf(cncfSettings, c.dir, addr)+more)); err != nil {
		return nil, "", err
	}
	p, err := start("the CNCF registry", name+".out", []string{"OTEL_TRACES_EXPORTER=none"}, bin, "serve", file)
	if err != nil {
		return nil, "", err
	}
	return p, addr, p.ready(ctx, func() bool { return listening(addr) })
}

// Name is what the table calls it.
func (c *CNCF) Name() string { return "CNCF" }

// Pids are its two processes.
func (c *CNCF) Pids() []int { return []int{c.plain.pid(), c.tls.pid()} }

// Address is where it listens.
func (c *CNCF) Address(tls bool) string {
	if tls {
		return "https://" + c.tlsAddr
	}
	return "http://" + c.plainAddr
}

// Roots has the certificate made for the benchmark.
func (c *CNCF) Roots() *x509.CertPool { return c.roots }

// Auth is not needed.
func (c *CNCF) Auth(context.Context, ...string) (string, error) { return "", nil }

// The registry's tree of files, as its package storage has it.
func (c *CNCF) repo(name string) string {
	return filepath.Join(c.dir, "docker/registry/v2/repositories", name)
}

func (c *CNCF) blob(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(c.dir, "docker/registry/v2/blobs/sha256", hex[:2], hex)
}

// Tags writes the files that pushes would have made: ten thousand pushes take half a minute.
func (c *CNCF) Tags(_ context.Context, repo string, count int) error {
	digest := load.Digest(note)
	_, hex, _ := strings.Cut(digest, ":")
	err := errors.Join(
		write(filepath.Join(c.blob(digest), "data"), note),
		write(filepath.Join(c.repo(repo), "_manifests/revisions/sha256", hex, "link"), []byte(digest)))
	for n := range count {
		tag := filepath.Join(c.repo(repo), "_manifests/tags", TagName(n))
		err = errors.Join(err,
			write(filepath.Join(tag, "current/link"), []byte(digest)),
			write(filepath.Join(tag, "index/sha256", hex, "link"), []byte(digest)))
		if err != nil {
			return fmt.Errorf("cannot write tags for the CNCF registry: %w", err)
		}
	}
	return err
}

// Repositories writes the files of pushes, too.
func (c *CNCF) Repositories(ctx context.Context, count int) error {
	for n := range count {
		if err := c.Tags(ctx, RepoName(n), 1); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes directories.
func (c *CNCF) Forget(_ context.Context, repos, digests []string) error {
	var paths []string
	for _, r := range repos {
		paths = append(paths, c.repo(r))
	}
	for _, d := range digests {
		paths = append(paths, c.blob(d))
	}
	return removeAll(paths)
}

// Settle has nothing to wait for.
func (c *CNCF) Settle(context.Context) error { return nil }

// Stop ends it.
func (c *CNCF) Stop() error { return errors.Join(c.plain.stop(), c.tls.stop()) }

// CNCFBinary finds the program that tests/tools/build.sh has built.
func CNCFBinary() (string, error) {
	dir := os.Getenv("BERTH_TOOLS_DIR")
	if dir == "" {
		return "", errors.New("BERTH_TOOLS_DIR is not set, so there is no CNCF registry to compare with; say `make bench`")
	}
	bin := filepath.Join(dir, "registry")
	_, err := os.Stat(bin)
	return bin, err
}
