// Package ovfenv reads the OVF environment: the document (DSP0243 section 11) by
// which vSphere hands the values of an administrator's form to the guest.
//
// The document is somebody else's. vCenter makes it anew at each power-on, a host
// that restarts a virtual machine on its own makes none, tools that deploy to a
// bare ESXi write it without escaping, and whoever may edit the virtual machine
// may put anything there. So Parse is bounded, takes what can be understood, and
// says in words what cannot; and nothing but the first boot depends on it.
package ovfenv

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"berth/appliance/fault"
)

// The limits of a document.
const (
	// MaxSize is in bytes: all properties with their longest values, each byte
	// escaped, would still fit.
	MaxSize       = 16 << 20
	maxProperties = 1000
	maxDepth      = 64
)

// An Environment is what the document says to this machine.
type Environment struct {
	// Properties are the values by their names: class.key. A name with an instance
	// (class.key.instance, DSP0243 section 9.5) is kept, and stands for class.key
	// too if that is not there itself.
	Properties map[string]string
	// Instance is vSphere's name of the virtual machine: ve:vCenterId or ve:esxId
	// of the root ("vm-42"); empty if there is none.
	Instance string
	// Duplicates are names that came more than once with different values; the
	// last one counts.
	Duplicates []string
	// Repaired is true if the document is not well-formed and was read anyway: a
	// value with a bare & in it.
	Repaired bool
}

// Parse reads a document. Properties of other entities (the other machines of a
// vApp) and sections that mean nothing to us are passed over. Every error is a
// fault.Invalid that quotes no value.
func Parse(b []byte) (Environment, error) {
	text, err := decode(b)
	if err != nil {
		return Environment{}, err
	}
	e, err := parse(text, true)
	if err == nil {
		return e, nil
	}
	// govc's InjectOvfEnv, for one, writes values as they are.
	lenient, lerr := parse(text, false)
	if lerr != nil {
		return Environment{}, err
	}
	lenient.Repaired = true
	return lenient, nil
}

// decode gives the document as UTF-8 without a byte order mark.
func decode(b []byte) ([]byte, error) {
	if len(b) > MaxSize {
		return nil, fault.New(fault.Invalid, "the OVF environment has more than %d MiB", MaxSize>>20)
	}
	big := bytes.HasPrefix(b, []byte{0xfe, 0xff})
	switch {
	case bytes.HasPrefix(b, []byte{0xef, 0xbb, 0xbf}):
		b = b[3:]
	case big || bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		units := make([]uint16, 0, len(b)/2)
		for i := 2; i+1 < len(b); i += 2 {
			if big {
				units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
			} else {
				units = append(units, uint16(b[i+1])<<8|uint16(b[i]))
			}
		}
		b = []byte(string(utf16.Decode(units)))
	}
	// VMware's tools hand out C strings.
	b = bytes.TrimRight(bytes.TrimSpace(b), "\x00")
	if len(b) == 0 {
		return nil, fault.New(fault.Invalid, "the OVF environment is empty")
	}
	return b, nil
}

func parse(b []byte, strict bool) (Environment, error) {
	p := parser{env: Environment{Properties: map[string]string{}}, instances: map[string]string{}}
	d := decoder(b, strict)
	for {
		t, err := d.Token()
		if err == io.EOF {
			return p.end()
		}
		if err != nil {
			return Environment{}, syntaxFault(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := p.start(t); err != nil {
				return Environment{}, err
			}
		case xml.EndElement:
			p.path = p.path[:len(p.path)-1]
		}
	}
}

func decoder(b []byte, strict bool) *xml.Decoder {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = strict
	d.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(label) {
		case "utf-8", "utf8", "us-ascii", "utf-16", "utf-16le", "utf-16be": // decode has seen to it
			return in, nil
		case "iso-8859-1", "latin1":
			rest, err := io.ReadAll(in)
			runes := make([]rune, len(rest))
			for i, c := range rest {
				runes[i] = rune(c)
			}
			return strings.NewReader(string(runes)), err
		}
		return nil, fmt.Errorf("the encoding %.20q is not supported", label)
	}
	return d
}

// syntaxFault says what is wrong without quoting the document: it has passwords.
func syntaxFault(err error) error {
	f := fault.New(fault.Invalid, "the OVF environment is not XML")
	if s, ok := errors.AsType[*xml.SyntaxError](err); ok {
		f = fault.New(fault.Invalid, "the OVF environment is not XML: line %d", s.Line)
		if strings.Contains(s.Msg, "unexpected EOF") {
			f = fault.New(fault.Invalid, "the OVF environment ends too early, in line %d", s.Line)
		}
	}
	return f.WithHint("power the virtual machine off and on, so that vCenter makes it again")
}

type parser struct {
	env       Environment
	path      []string // local names of the open elements
	instances map[string]string
	seen      int
	rooted    bool
}

func (p *parser) start(t xml.StartElement) error {
	p.path = append(p.path, t.Name.Local)
	switch {
	case len(p.path) > maxDepth:
		return fault.New(fault.Invalid, "the OVF environment is nested too deeply")
	case len(p.path) == 1:
		if t.Name.Local != "Environment" {
			return fault.New(fault.Invalid, "the document is not an OVF environment: its root is <%.40s>", t.Name.Local)
		}
		p.rooted = true
		for _, a := range t.Attr {
			if n := a.Name.Local; a.Value != "" && (n == "vCenterId" || n == "esxId" && p.env.Instance == "") {
				p.env.Instance = a.Value
			}
		}
	case len(p.path) == 3 && p.path[1] == "PropertySection" && p.path[2] == "Property":
		return p.property(t)
	}
	return nil
}

func (p *parser) property(t xml.StartElement) error {
	if p.seen++; p.seen > maxProperties {
		return fault.New(fault.Invalid, "the OVF environment has more than %d properties", maxProperties)
	}
	name, value := keyOf(t.Attr), attribute(t.Attr, "value")
	if name == "" {
		return nil
	}
	if !utf8.ValidString(name) || !utf8.ValidString(value) {
		return fault.New(fault.Invalid, "a property of the OVF environment is not UTF-8")
	}
	if old, ok := p.env.Properties[name]; ok && old != value && !slices.Contains(p.env.Duplicates, name) {
		p.env.Duplicates = append(p.env.Duplicates, name)
	}
	p.env.Properties[name] = value
	if parts := strings.SplitN(name, ".", 3); len(parts) == 3 {
		p.instances[parts[0]+"."+parts[1]] = name
	}
	return nil
}

func (p *parser) end() (Environment, error) {
	if !p.rooted {
		return Environment{}, fault.New(fault.Invalid, "the document is not an OVF environment: it has no elements")
	}
	for short, long := range p.instances {
		if _, ok := p.env.Properties[short]; !ok {
			p.env.Properties[short] = p.env.Properties[long]
		}
	}
	slices.Sort(p.env.Duplicates)
	return p.env, nil
}

func keyOf(attrs []xml.Attr) string { return strings.TrimSpace(attribute(attrs, "key")) }

func attribute(attrs []xml.Attr, local string) string {
	for _, a := range attrs {
		if a.Name.Local == local {
			return a.Value
		}
	}
	return ""
}

// Blank gives the document with the values of some properties emptied, for an
// environment that stays readable to the whole guest after its secrets have been
// taken. A name covers all its instances. The rest stays as it was, byte for byte;
// only a document that had to be repaired comes out well-formed.
func Blank(b []byte, names []string) ([]byte, error) {
	text, err := decode(b)
	if err != nil {
		return nil, err
	}
	e, err := Parse(b)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	d := decoder(text, !e.Repaired)
	kept := int64(0)
	for {
		begin := d.InputOffset()
		t, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, syntaxFault(err)
		}
		switch t := t.(type) {
		case xml.ProcInst:
			if t.Target == "xml" { // it may name an encoding that no longer is
				out.Write(text[kept:begin])
				kept = d.InputOffset()
			}
		case xml.StartElement:
			covered := covers(names, keyOf(t.Attr))
			if t.Name.Local != "Property" || !covered && !e.Repaired {
				continue
			}
			end := d.InputOffset()
			if end <= begin || end > int64(len(text)) {
				return nil, fault.New(fault.Invalid, "the OVF environment cannot be rewritten")
			}
			out.Write(text[kept:begin])
			element(&out, t, covered, bytes.HasSuffix(text[begin:end], []byte("/>")))
			kept = end
		}
	}
	out.Write(text[kept:])
	return out.Bytes(), nil
}

func covers(names []string, key string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return key == n || strings.HasPrefix(key, n+".") })
}

// element writes a start tag; RawToken has left the prefix in Name.Space.
func element(out *bytes.Buffer, t xml.StartElement, blank, empty bool) {
	name := func(n xml.Name) string {
		if n.Space != "" {
			return n.Space + ":" + n.Local
		}
		return n.Local
	}
	out.WriteString("<" + name(t.Name))
	for _, a := range t.Attr {
		out.WriteString(" " + name(a.Name) + `="`)
		if !blank || a.Name.Local != "value" {
			_ = xml.EscapeText(out, []byte(a.Value)) // a Buffer takes everything
		}
		out.WriteString(`"`)
	}
	if empty {
		out.WriteString("/")
	}
	out.WriteString(">")
}

// Names are the properties' names, sorted.
func (e Environment) Names() []string { return slices.Sorted(maps.Keys(e.Properties)) }
