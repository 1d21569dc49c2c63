package ovfenv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"

	"berth/appliance/disk"
	"berth/appliance/fault"
)

// cdTime bounds the reading of all drives: one that spins up takes seconds.
const cdTime = 20 * time.Second

// CD is the document at the root of a CD (DSP0243 section 11.2): of whichever block
// device in the directory, /dev usually, has an ISO 9660 file system with it. The
// file system is read here, so that it takes neither udev nor a module in the
// kernel, and no file system code of the kernel sees what is on the CD.
func CD(dir string) Source { return &cd{dir: dir} }

type cd struct{ dir, device string }

// Name says which device it was.
func (c *cd) Name() string {
	if c.device == "" {
		return "CD"
	}
	return "CD " + c.device
}

func (c *cd) Document(ctx context.Context) ([]byte, error) {
	nodes, err := disk.Nodes(c.dir)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "there is no CD")
	}
	// A floppy drive takes its time to say that there is no disk in it; a CD drive is
	// where the CD usually is.
	nodes = slices.DeleteFunc(nodes, func(n string) bool { return strings.HasPrefix(filepath.Base(n), "fd") })
	slices.SortStableFunc(nodes, func(a, b string) int {
		drive := func(n string) int {
			if strings.HasPrefix(filepath.Base(n), "sr") {
				return 0
			}
			return 1
		}
		return drive(a) - drive(b)
	})
	ctx, cancel := context.WithTimeout(ctx, cdTime)
	defer cancel()
	type found struct {
		device string
		b      []byte
		err    error
	}
	done := make(chan found, 1)
	go func() { // a drive that does not answer holds up this goroutine, not the boot
		for _, device := range nodes {
			if b, err := readDevice(device); !fault.Is(err, fault.NotFound) {
				done <- found{device, b, err}
				return
			}
		}
		done <- found{err: fault.New(fault.NotFound, "there is no CD with %s", FileName)}
	}()
	select {
	case f := <-done:
		c.device = f.device
		return f.b, f.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "the CD drives did not answer within %v", cdTime)
	}
}

// Scrub opens the drive, so that the CD cannot be read any more; vSphere then counts
// it as disconnected.
func (c *cd) Scrub(context.Context, []byte, []string) error {
	const eject, lockDoor = 0x5309, 0x5329 // CDROMEJECT, CDROM_LOCKDOOR: linux/cdrom.h
	f, err := os.OpenFile(c.device, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("cannot eject the CD: %w", err)
	}
	defer f.Close()
	_ = unix.IoctlSetInt(int(f.Fd()), lockDoor, 0) // udev locks it; a drive without a lock has nothing to undo
	if err := unix.IoctlSetInt(int(f.Fd()), eject, 0); err != nil {
		return fmt.Errorf("cannot eject the CD in %s: %w", c.device, err)
	}
	return nil
}

// readDevice gives the document on a device. fault.NotFound: there is none on it,
// it is empty, or no CD.
func readDevice(device string) ([]byte, error) {
	// Not O_NONBLOCK, with which a drive is opened whether it is ready or not.
	f, err := os.Open(device)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "%s cannot be opened", device)
	}
	defer f.Close()
	return ReadISO(f, FileName, MaxSize)
}

// The numbers of ISO 9660 (ECMA-119); Joliet is its supplementary descriptor with
// names in UCS-2.
const (
	sector      = 2048
	firstVolume = 16 // ECMA-119 6.2.1
	maxVolumes  = 64
	maxDir      = 1 << 20
)

// ReadISO gives a file at the root of an ISO 9660 file system, with or without
// Joliet. Names are compared without regard to case, version numbers and what
// ISO 9660 does not allow in a name. fault.NotFound: this is no such file system, or
// it has no such file.
func ReadISO(r io.ReaderAt, name string, limit int64) ([]byte, error) {
	none := fault.New(fault.NotFound, "there is no %s on it", name)
	for n := int64(firstVolume); n < firstVolume+maxVolumes; n++ {
		v := make([]byte, sector)
		if _, err := r.ReadAt(v, n*sector); err != nil || string(v[1:6]) != "CD001" || v[0] == 255 { // 8.3: the terminator
			return nil, none
		}
		joliet := v[0] == 2 && bytes.HasPrefix(v[88:], []byte("%/")) && bytes.IndexByte([]byte("@CE"), v[90]) >= 0
		if v[0] != 1 && !joliet {
			continue
		}
		b, err := inDirectory(r, v[156:190], name, joliet, limit)
		if !fault.Is(err, fault.NotFound) {
			return b, err
		}
	}
	return nil, none
}

// inDirectory looks for a file in the directory that a record (9.1) describes.
func inDirectory(r io.ReaderAt, record []byte, name string, joliet bool, limit int64) ([]byte, error) {
	dir, err := extent(r, record, maxDir)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "the root directory cannot be read")
	}
	for at := 0; at < len(dir); {
		length := int(dir[at])
		if length == 0 { // records do not cross sectors (6.8.1.1)
			at = (at/sector + 1) * sector
			continue
		}
		if length < 34 || at+length > len(dir) || 33+int(dir[at+32]) > length {
			break
		}
		entry := dir[at : at+length]
		at += length
		const directory, multiExtent = 0x02, 0x80
		if entry[25]&directory != 0 || !sameName(entry[33:33+int(entry[32])], name, joliet) {
			continue
		}
		if entry[25]&multiExtent != 0 {
			return nil, fault.New(fault.Invalid, "the file %s on the CD is in several parts", name)
		}
		b, err := extent(r, entry, limit)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "the file %s on the CD cannot be read", name)
		}
		return b, nil
	}
	return nil, fault.New(fault.NotFound, "there is no %s on it", name)
}

// extent reads what a directory record points to.
func extent(r io.ReaderAt, record []byte, limit int64) ([]byte, error) {
	at, size := int64(binary.LittleEndian.Uint32(record[2:])), int64(binary.LittleEndian.Uint32(record[10:]))
	if size > limit {
		return nil, errors.New("it is too large")
	}
	// What is not there is not allocated: the size is a stranger's.
	b, err := io.ReadAll(io.NewSectionReader(r, at*sector, size))
	if err == nil && int64(len(b)) != size {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

func sameName(raw []byte, name string, joliet bool) bool {
	text := string(raw)
	if joliet {
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(raw[2*i:])
		}
		text = string(utf16.Decode(units))
	}
	text, _, _ = strings.Cut(text, ";")
	text = strings.TrimSuffix(text, ".")
	return strings.EqualFold(text, name) || strings.EqualFold(text, strings.ReplaceAll(name, "-", "_"))
}
