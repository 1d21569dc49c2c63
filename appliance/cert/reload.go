package cert

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often Run looks whether the files have changed.
const lookEvery = 3 * time.Second

// Reloader serves a certificate from files, and goes over to what they hold
// when they change. Connections that are open stay as they are.
type Reloader struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu     sync.Mutex // guards what follows
	loaded stamp      // of what current was read from
	failed stamp      // of what could not be used
	told   bool       // that it could not
}

// stamp tells one state of the two files from another.
type stamp struct{ cert, key fileStamp }

type fileStamp struct {
	modified time.Time
	size     int64
}

// NewReloader reads the pair for the first time; that it can be used is a
// condition for serving at all.
func NewReloader(certFile, keyFile string, log *slog.Logger) (*Reloader, error) {
	r := &Reloader{certFile: certFile, keyFile: keyFile, log: log}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// GetCertificate is for tls.Config.
func (r *Reloader) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return r.current.Load(), nil
}

// Certificate is the pair that is served now.
func (r *Reloader) Certificate() *tls.Certificate { return r.current.Load() }

// Reload reads the files now. When they cannot be used, the pair that was
// served before is kept.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reload(r.look())
}

func (r *Reloader) reload(now stamp) error {
	pair, err := tls.LoadX509KeyPair(r.certFile, r.keyFile)
	if err != nil {
		return fmt.Errorf("cannot use the certificate %s with the key %s: %w", r.certFile, r.keyFile, err)
	}
	r.loaded, r.failed, r.told = now, stamp{}, false
	r.current.Store(&pair)
	return nil
}

func (r *Reloader) look() stamp {
	return stamp{lookAt(r.certFile), lookAt(r.keyFile)}
}

func lookAt(name string) fileStamp {
	info, err := os.Stat(name)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.ModTime(), info.Size()}
}

// Run follows the files until ctx ends.
func (r *Reloader) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.follow()
		}
	}
}

// follow reloads if the files have changed. A new pair that cannot be used is
// tried again at each look, and told of at the second one, once: the first may
// fall between the writing of the two files.
func (r *Reloader) follow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.look()
	if now == r.loaded {
		return
	}
	err := r.reload(now)
	switch {
	case err == nil:
		c := r.current.Load().Leaf
		r.log.Info("new certificate in use", "fingerprint", Fingerprint(c), "ends", c.NotAfter)
	case now != r.failed:
		r.failed, r.told = now, false
	case !r.told:
		r.told = true
		r.log.Error("the new certificate cannot be used; the old one is kept", "err", err)
	}
}
