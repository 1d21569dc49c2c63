package setting

import (
	"fmt"
	"regexp"
	"strings"

	"berth/appliance/fault"
)

// What package yaml says of a key that no field has, and of a value of another type.
var (
	unknownKey = regexp.MustCompile(`(?s)^line (\d+): field (.*) not found in type \S+$`)
	otherType  = regexp.MustCompile("(?s)^line (\\d+): cannot unmarshal !!(\\w+)(?: `(.*)`)? into (\\S+)$")
)

// misread says in an administrator's words what package yaml says in a programmer's,
// and repeats little of it: it may be the wrong file.
func misread(text string) error {
	if m := unknownKey.FindStringSubmatch(text); m != nil {
		return fault.New(fault.Invalid, "line %s: there is no setting %.60q", m[1], m[2]).WithHint("berth-agent config export shows those that there are")
	}
	m := otherType.FindStringSubmatch(text)
	if m == nil {
		return fault.New(fault.Invalid, "%.200s", text)
	}
	want := "another form"
	switch kind := m[4]; {
	case kind == "string":
		want = "a text"
	case kind == "bool":
		want = "true or false"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"), strings.HasPrefix(kind, "float"):
		want = "a number"
	case kind == "time.Time":
		want = "a time, such as 2026-01-31T12:00:00Z"
	case strings.HasPrefix(kind, "[]"):
		want = "a list"
	case strings.HasPrefix(kind, "setting."):
		want = "a section with settings of its own"
	}
	have := map[string]string{"seq": "a list", "map": "a section"}[m[2]]
	if have == "" {
		have = fmt.Sprintf("%.40q", m[3])
	}
	return fault.New(fault.Invalid, "line %s: it must be %s, not %s", m[1], want, have)
}
