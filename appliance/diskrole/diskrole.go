// Package diskrole names the appliance's disks by what they are for.
//
// A disk is known by what is on it, never by its device name or its place at the
// controller: by the label of its file system or, before there is one, by a mark
// that the OVA's blank disks carry in their first sector. A disk that has neither
// a mark nor anything else is somebody's new one, and no role is guessed for it.
package diskrole

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// A Role is what a disk is for.
type Role string

// The roles.
const (
	System   Role = "system"   // the operating system and Berth's programs
	Data     Role = "data"     // blobs
	Database Role = "database" // PostgreSQL
	Log      Role = "log"      // log messages
)

// All are the roles in the order of their disks at the controller.
func All() []Role { return []Role{System, Data, Database, Log} }

// Parse reads a role's name.
func Parse(s string) (Role, bool) { return Role(s), slices.Contains(All(), Role(s)) }

// Label is the label of the file system on a disk of the role, as blkid shows it.
// ext4 has room for 16 bytes, XFS for 12.
func (r Role) Label() string {
	if r == Database {
		return "berth-db"
	}
	return "berth-" + string(r)
}

// MarkSize is how many bytes of the beginning of a disk ReadMark looks at.
const MarkSize = 512

const markForm = "BERTH BLANK DISK 1\nrole=%s\n"

// Mark is the first sector of a blank disk that is meant for the role. It is text,
// and neither a partition table nor a file system to anybody: blkid finds nothing.
func (r Role) Mark() []byte {
	b := make([]byte, MarkSize)
	copy(b, fmt.Sprintf(markForm, r))
	return b
}

// ReadMark gives the role of a blank disk from its first sector. A sector that is
// not exactly a mark gives none.
func ReadMark(sector []byte) (Role, bool) {
	if len(sector) < MarkSize {
		return "", false
	}
	text, rest, _ := strings.Cut(string(sector[:MarkSize]), "\x00")
	if strings.Trim(rest, "\x00") != "" {
		return "", false
	}
	for _, r := range All() {
		if bytes.Equal([]byte(text), []byte(fmt.Sprintf(markForm, r))) {
			return r, true
		}
	}
	return "", false
}
