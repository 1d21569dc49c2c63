package ovfenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
)

// Key is where vSphere puts the document among guestinfo's variables.
const Key = "guestinfo.ovfEnv"

// FileName is the document's name on a CD (DSP0243 section 11.2).
const FileName = "ovf-env.xml"

// A Source is a place where the document may be.
type Source interface {
	// Name says where, for people: "guestinfo", "CD /dev/sr0".
	Name() string
	// Document gives the document as it is. fault.NotFound: there is none, and the
	// next source is asked.
	Document(ctx context.Context) ([]byte, error)
}

// A Scrubber is a source from which secrets can be taken away, where others than
// root could read them for as long as they are there.
type Scrubber interface {
	// Scrub empties the values of the names; document is what the source gave.
	Scrub(ctx context.Context, document []byte, names []string) error
}

// A Found is a document with the place that it came from.
type Found struct {
	Environment Environment
	Source      Source
	Raw         []byte
}

// Read asks the sources in their order and gives the first document that can be
// read. None at all is a fault.NotFound; if there was one and it is broken, that
// is a fault.Invalid, and so is a source that could not be asked.
func Read(ctx context.Context, sources ...Source) (Found, error) {
	var broken []error
	for _, s := range sources {
		b, err := s.Document(ctx)
		if err == nil {
			var e Environment
			if e, err = Parse(b); err == nil {
				return Found{e, s, b}, nil
			}
		}
		if !fault.Is(err, fault.NotFound) {
			broken = append(broken, fmt.Errorf("%s: %w", s.Name(), err))
		}
	}
	if broken != nil {
		return Found{}, fault.Wrap(fault.Invalid, errors.Join(broken...), "the OVF environment cannot be read: %s", fault.Of(errors.Unwrap(broken[0])).Text)
	}
	return Found{}, fault.New(fault.NotFound, "there is no OVF environment")
}

// GuestInfo is the document among guestinfo's variables.
func GuestInfo(c *guestinfo.Client) Source { return guestInfo{c} }

type guestInfo struct{ client *guestinfo.Client }

func (guestInfo) Name() string { return "guestinfo" }

func (g guestInfo) Document(ctx context.Context) ([]byte, error) {
	v, err := g.client.Get(ctx, Key)
	if errors.Is(err, guestinfo.ErrUnavailable) {
		return nil, fault.New(fault.NotFound, "guestinfo is not there")
	}
	return []byte(v), err
}

const (
	// maxRewritten is how long a document may be that goes through an argument of
	// VMware's tool; a longer one is replaced by an empty one.
	maxRewritten     = 100 << 10
	emptyEnvironment = `<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"><PropertySection/></Environment>`
)

// Scrub writes the document back without the values. vCenter makes it anew, with
// them, at the next power-on.
func (g guestInfo) Scrub(ctx context.Context, document []byte, names []string) error {
	b, err := Blank(document, names)
	if err != nil {
		return err
	}
	if len(b) > maxRewritten {
		b = []byte(emptyEnvironment)
	}
	return g.client.Set(ctx, Key, string(b))
}

// File is the document in a file.
func File(path string) Source { return file(path) }

type file string

func (f file) Name() string { return string(f) }

func (f file) Document(context.Context) ([]byte, error) {
	h, err := os.Open(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.NotFound, err, "there is no file %s", string(f))
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "%s cannot be read", string(f))
	}
	defer h.Close()
	info, err := h.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, fault.Wrap(fault.Invalid, err, "%s is not a file", string(f))
	}
	b, err := io.ReadAll(io.LimitReader(h, MaxSize+1))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "%s cannot be read", string(f))
	}
	return b, nil
}

// Scrub rewrites the file without the values, unless it is on a file system that
// cannot be written to: then it was lent to this machine from outside.
func (f file) Scrub(_ context.Context, document []byte, names []string) error {
	b, err := Blank(document, names)
	if err != nil {
		return err
	}
	if err = durable.WriteFile(string(f), b, 0o600); errors.Is(err, unix.EROFS) || errors.Is(err, unix.EBUSY) { // EBUSY: a mount point itself
		return nil
	}
	return err
}
