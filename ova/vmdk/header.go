// Package vmdk writes and reads streamOptimized VMDKs: the only form of a disk
// that vSphere takes out of an OVA.
//
// Such a file is one stream: a header, a description in text, then grains of
// 64 KiB, each deflated by itself and preceded by its address; after each 32 MiB of
// disk the table of its grains; at the end the directory of tables, a footer that
// says where it is, and an end marker. Grains of zeros are left out. The form is
// VMware's "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and
// "Stream-Optimized Compressed Sparse Extents".
//
// The same input makes the same bytes, whatever the number of cores: no time, no
// random id goes into a file. Reading trusts nothing: every offset and length is
// checked; what is held in memory is a few grains for each worker, and the directory, which
// must be in the file and has 8 MiB for the largest disk of vSphere.
package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	sector       = 512
	magic        = 0x564d444b // "KDMV"
	flagNewlines = 1 << 0     // the newline characters of the header are valid
	flagDeflate  = 1 << 16
	flagMarkers  = 1 << 17
	deflate      = 1 // compressAlgorithm
	atEnd        = ^uint64(0)

	grainSectors = 128 // what Write makes; 64 KiB
	grainBytes   = grainSectors * sector
	tableGrains  = 512 // grains of a table: fixed by the format
	tableSectors = tableGrains * 4 / sector
	overhead     = 128 // sectors before the first grain, as VMware's own tools leave

	maxGrainSectors = 2048     // Open refuses larger ones: a grain is held in memory
	maxCapacity     = 62 << 40 // bytes; the largest disk of vSphere
	maxText         = 64 << 10 // bytes of the description
	maxTables       = 4 << 20  // 62 TiB have 2 Mi in grains of 64 KiB
)

// The markers' types.
const (
	endOfStream uint32 = iota
	grainTable
	grainDirectory
	footer
)

// header is SparseExtentHeader, little-endian, at the file's beginning and, as the
// footer, before its last sector. Offsets and sizes are in sectors.
type header struct {
	Magic            uint32
	Version          uint32
	Flags            uint32
	Capacity         uint64
	GrainSize        uint64
	DescriptorOffset uint64
	DescriptorSize   uint64
	TableEntries     uint32
	RedundantOffset  uint64
	DirectoryOffset  uint64
	Overhead         uint64
	Unclean          uint8
	Newlines         [4]byte
	Compression      uint16
	_                [433]byte
}

func (h *header) encode() []byte {
	var b bytes.Buffer
	b.Grow(sector)
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		panic(err) // header has fixed-size fields alone
	}
	return b.Bytes()
}

// ErrFormat is in the chain of every error that says that a file is no
// streamOptimized VMDK, or a damaged one.
var ErrFormat = errors.New("not a whole streamOptimized VMDK")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

func decodeHeader(b []byte) (*header, error) {
	h := new(header)
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, h); err != nil {
		return nil, broken("its header is cut")
	}
	switch {
	case h.Magic != magic:
		return nil, broken("it does not begin with KDMV")
	case h.Version < 1 || h.Version > 3:
		return nil, broken("its version is %d", h.Version)
	case h.Flags&flagDeflate == 0 || h.Flags&flagMarkers == 0 || h.Compression != deflate:
		return nil, broken("its grains are not compressed (flags %#x, algorithm %d)", h.Flags, h.Compression)
	case h.Capacity == 0 || h.Capacity > maxCapacity/sector:
		return nil, broken("a capacity of %d sectors", h.Capacity)
	case h.GrainSize < 8 || h.GrainSize > maxGrainSectors || h.GrainSize&(h.GrainSize-1) != 0:
		return nil, broken("grains of %d sectors", h.GrainSize)
	case h.TableEntries != tableGrains:
		return nil, broken("tables of %d grains", h.TableEntries)
	}
	if n := h.tables(); n > maxTables {
		return nil, broken("%d tables of grains", n)
	}
	return h, nil
}

// tables is how many grain tables a disk of the header's capacity has.
func (h *header) tables() int64 {
	per := h.GrainSize * tableGrains
	return int64((h.Capacity + per - 1) / per)
}
