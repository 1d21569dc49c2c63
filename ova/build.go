// Package ova makes, checks and takes apart the appliance's OVA, without ovftool and
// without vSphere. Its parts are vmdk, descriptor, archive and lint; here they are put
// together for the command line, cmd/ova.
package ova

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"berth/appliance/diskrole"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/ova/archive"
	"berth/ova/descriptor"
	"berth/ova/lint"
	"berth/ova/vmdk"
)

//go:embed eula.txt
var defaultEULA string

// Build says what an OVA is made of.
type Build struct {
	Out         string                   // the file to make; its name without .ova is that of the files in it
	Disks       map[diskrole.Role]string // raw images; a role that has none gets a blank disk
	Blank       map[diskrole.Role]int64  // the blank disks' sizes in bytes, if not BlankSizes
	Version     string
	FullVersion string          // with the commit; empty: Version
	OS          descriptor.OS   // the base of the image
	UEFI        bool            // boot by UEFI; false is BIOS
	Network     string          // as the form calls it; empty: VM Network
	EULA        string          // empty: the one in this package
	Annotation  string          // the VM's notes; empty: what the appliance is
	Level       int             // of compression, 1 to 9; 0 means 6
	Time        time.Time       // of the files in the archive; zero: 1970
	Key         *rsa.PrivateKey // with Certificate, the manifest is signed
	Certificate []byte          // PEM
}

// BlankSizes are the sizes of the disks that come blank. They only take what is
// written to them, if the VM is deployed with thin disks, and can be grown later.
func BlankSizes() map[diskrole.Role]int64 {
	return map[diskrole.Role]int64{diskrole.Data: 100 << 30, diskrole.Database: 20 << 30, diskrole.Log: 10 << 30}
}

// Made says what Run has made.
type Made struct {
	File   string     `json:"file"`
	Size   int64      `json:"size"`
	SHA256 string     `json:"sha256"`
	Disks  []MadeDisk `json:"disks"`
}

// MadeDisk is a disk in it.
type MadeDisk struct {
	Role     diskrole.Role `json:"role"`
	Capacity int64         `json:"capacity"`
	Data     int64         `json:"data"` // bytes that are not zeros, in grains of 64 KiB
	Size     int64         `json:"size"` // of the VMDK
	Blank    bool          `json:"blank"`
}

// Run makes the OVA, checks it by all rules of lint, and only then gives it its name.
// While it works it needs room for twice the result, beside it.
func (b Build) Run(ctx context.Context) (Made, error) {
	if err := b.check(); err != nil {
		return Made{}, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(b.Out), ".ova-")
	if err != nil {
		return Made{}, fmt.Errorf("cannot make a folder for the disks: %w", err)
	}
	defer os.RemoveAll(dir)
	stem := strings.TrimSuffix(filepath.Base(b.Out), ".ova")
	made := Made{File: b.Out}
	m := b.machine()
	var sums []archive.Sum
	for _, role := range diskrole.All() {
		name := stem + "-" + string(role) + ".vmdk"
		w, sum, err := b.disk(ctx, role, filepath.Join(dir, name))
		if err != nil {
			return Made{}, err
		}
		_, imaged := b.Disks[role]
		made.Disks = append(made.Disks, MadeDisk{role, w.Capacity, w.Populated(), w.Size, !imaged})
		m.Disks = append(m.Disks, descriptor.SourceDisk{ID: string(role), File: name, Size: w.Size, Capacity: w.Capacity, Populated: w.Populated()})
		sums = append(sums, archive.Sum{Name: name, Hex: sum})
	}
	path := filepath.Join(dir, filepath.Base(b.Out))
	if made.Size, made.SHA256, err = b.assemble(path, dir, stem, m, sums); err != nil {
		return Made{}, err
	}
	if err := b.gate(ctx, path); err != nil {
		return Made{}, err
	}
	if err := os.Rename(path, b.Out); err != nil {
		return Made{}, err
	}
	return made, durable.SyncDir(filepath.Dir(b.Out))
}

func (b Build) check() error {
	if !strings.HasSuffix(b.Out, ".ova") || !archive.PlainName(filepath.Base(b.Out)) || len(filepath.Base(b.Out)) > 80 {
		return fault.New(fault.Invalid, "%q is no name for an OVA: it must end in .ova and have letters, digits, '.', '-' and '_' alone", filepath.Base(b.Out)).On("--out")
	}
	if b.Disks[diskrole.System] == "" {
		return fault.New(fault.Invalid, "there is no image of the system disk").On("--disk").WithHint("--disk system=FILE, a raw image")
	}
	if b.Version == "" {
		return fault.New(fault.Invalid, "the version is missing").On("--version")
	}
	if (b.Key == nil) != (b.Certificate == nil) {
		return fault.New(fault.Invalid, "a key and a certificate go together").On("--sign-key")
	}
	return nil
}

func (b Build) machine() descriptor.Machine {
	m := descriptor.Machine{ID: "berth", Product: lint.Product, Vendor: "Berth", Version: b.Version, FullVersion: b.FullVersion,
		Annotation: b.Annotation, EULA: strings.TrimSpace(b.EULA), OS: b.OS, UEFI: b.UEFI, Network: b.Network, Sizes: descriptor.Sizes()}
	if m.FullVersion == "" {
		m.FullVersion = b.Version
	}
	if m.Annotation == "" {
		m.Annotation = "Berth " + b.Version + ", a container registry.\nRegistry: https://ADDRESS   Appliance console: https://ADDRESS:5480"
	}
	if m.EULA == "" {
		m.EULA = strings.TrimSpace(defaultEULA)
	}
	if m.Network == "" {
		m.Network = "VM Network"
	}
	return m
}

// disk makes one VMDK, and gives its digest.
func (b Build) disk(ctx context.Context, role diskrole.Role, path string) (vmdk.Written, string, error) {
	var raw io.ReaderAt = vmdk.Blank(role.Mark())
	size := b.Blank[role]
	if size == 0 {
		size = BlankSizes()[role]
	}
	if image, ok := b.Disks[role]; ok {
		f, n, err := openRaw(image)
		if err != nil {
			return vmdk.Written{}, "", err
		}
		defer f.Close()
		raw, size = f, n
	}
	if size <= 0 || size%(1<<20) != 0 {
		return vmdk.Written{}, "", fault.New(fault.Invalid, "the %s disk has %d bytes, which are no whole MiB", role, size).On("--disk").
			WithHint("truncate -s %%1M makes an image larger without changing it")
	}
	out, err := os.Create(path)
	if err != nil {
		return vmdk.Written{}, "", err
	}
	defer out.Close()
	h := sha256.New()
	w, err := vmdk.Write(ctx, io.MultiWriter(out, h), raw, size, vmdk.Options{Name: filepath.Base(path), Level: b.Level})
	if err != nil {
		return w, "", fmt.Errorf("cannot make the %s disk: %w", role, err)
	}
	return w, hex.EncodeToString(h.Sum(nil)), out.Close()
}

// openRaw opens a disk's image, and notices images that are not raw.
func openRaw(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fault.Wrap(fault.Invalid, err, "cannot read the disk's image").On("--disk")
	}
	st, err := f.Stat()
	begin := make([]byte, 4)
	if err == nil && !st.Mode().IsRegular() {
		err = fault.New(fault.Invalid, "%s is not a regular file", path).On("--disk")
	}
	if err == nil {
		_, err = f.ReadAt(begin, 0)
	}
	if kind := map[string]string{"QFI\xfb": "qcow2", "KDMV": "VMDK", "conn": "VHD", "vhdx": "VHDX"}[string(begin)]; err == nil && kind != "" {
		err = fault.New(fault.Invalid, "%s is %s, not raw", path, kind).On("--disk").WithHint("qemu-img convert -O raw %s disk.raw", path)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// assemble writes descriptor, manifest, certificate and disks into one file.
func (b Build) assemble(path, dir, stem string, m descriptor.Machine, sums []archive.Sum) (size int64, digest string, err error) {
	ovf := descriptor.New(m).Render()
	ovfSum := sha256.Sum256(ovf)
	manifest := archive.Manifest(append([]archive.Sum{{Name: stem + ".ovf", Hex: hex.EncodeToString(ovfSum[:])}}, sums...)...)
	files := []archive.File{text(stem+".ovf", ovf), text(stem+".mf", manifest)}
	if b.Key != nil {
		cert, err := archive.Sign(stem+".mf", manifest, b.Key, b.Certificate)
		if err != nil {
			return 0, "", fault.Wrap(fault.Invalid, err, "cannot sign the manifest").On("--sign-cert")
		}
		files = append(files, text(stem+".cert", cert))
	}
	for _, d := range m.Disks {
		f, err := os.Open(filepath.Join(dir, d.File))
		if err != nil {
			return 0, "", err
		}
		defer f.Close()
		files = append(files, archive.File{Name: d.File, Size: d.Size, Content: f})
	}
	out, err := os.Create(path)
	if err != nil {
		return 0, "", err
	}
	defer out.Close()
	modified := b.Time
	if modified.IsZero() {
		modified = time.Unix(0, 0)
	}
	h := sha256.New()
	if err := archive.Write(io.MultiWriter(out, h), modified, files...); err != nil {
		return 0, "", err
	}
	if err := out.Sync(); err != nil {
		return 0, "", err
	}
	st, err := out.Stat()
	if err != nil {
		return 0, "", err
	}
	return st.Size(), hex.EncodeToString(h.Sum(nil)), out.Close()
}

func text(name string, content []byte) archive.File {
	return archive.File{Name: name, Size: int64(len(content)), Content: strings.NewReader(string(content))}
}

// gate lets nothing out that the linter finds a fault in.
func (b Build) gate(ctx context.Context, path string) error {
	findings, err := lint.Check(ctx, path, time.Now())
	all := []error{err}
	for _, f := range findings {
		all = append(all, fault.New(fault.Precondition, "%s: %s", f.Where, f.What).On(f.Rule).WithHint("%s", f.Do))
	}
	return errors.Join(all...)
}

// ReadKey reads an RSA key from a PEM file, PKCS #1 or PKCS #8.
func ReadKey(path string) (*rsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot read the key").On("--sign-key")
	}
	wrong := fault.New(fault.Invalid, "%s has no RSA key in PEM, PKCS #1 or PKCS #8, without a passphrase", path).On("--sign-key")
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, wrong
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if any, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if key, ok := any.(*rsa.PrivateKey); ok {
			return key, nil
		}
	}
	return nil, wrong
}
