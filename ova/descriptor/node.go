// Package descriptor writes and reads OVF descriptors: DSP0243 1.1 with VMware's
// additions, the only version that vSphere takes.
//
// A descriptor is a tree of elements, the same for writing and reading. New makes
// the appliance's from a Machine; Parse reads anybody's, within limits, and keeps the
// line of each element, so that a finding can say where it is; Read gives the parts
// that matter as values. Parse knows no document types and resolves no entities but
// XML's own five: what makes XML dangerous is refused before it is looked at.
package descriptor

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The namespaces (DSP0243 1.1 table 1, and VMware's).
const (
	nsOVF  = "http://schemas.dmtf.org/ovf/envelope/1"
	nsRASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
	nsVSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
	nsVMW  = "http://www.vmware.com/schema/ovf"
	nsXSI  = "http://www.w3.org/2001/XMLSchema-instance"
)

// The limits of Parse. VMware's largest descriptors have some 500 KiB.
const (
	MaxBytes    = 4 << 20
	maxDepth    = 32
	maxElements = 50_000
)

// A Node is an element: its name with one of the usual prefixes (rasd:Parent,
// vmw:Config; none for OVF's own), its attributes likewise, and either text or
// elements.
type Node struct {
	Name     string
	Attrs    []Attr
	Text     string
	Children []*Node
	Line     int // where Parse found it; 1 is the first
}

// An Attr is an attribute; OVF's own, and those without a prefix, have the prefix ovf.
type Attr struct{ Name, Value string }

// Attr gives an attribute's value, "" if it is not there.
func (n *Node) Attr(name string) string {
	v, _ := n.Lookup(name)
	return v
}

// Lookup gives an attribute's value, and whether it is there.
func (n *Node) Lookup(name string) (string, bool) {
	if n != nil {
		for _, a := range n.Attrs {
			if a.Name == name {
				return a.Value, true
			}
		}
	}
	return "", false
}

// Child gives the first element of a name below n, nil if there is none.
func (n *Node) Child(name string) *Node {
	if n != nil {
		for _, c := range n.Children {
			if c.Name == name {
				return c
			}
		}
	}
	return nil
}

// All gives the elements of a name directly below n.
func (n *Node) All(name string) []*Node {
	var list []*Node
	if n != nil {
		for _, c := range n.Children {
			if c.Name == name {
				list = append(list, c)
			}
		}
	}
	return list
}

// Value gives the text of the first element of a name below n.
func (n *Node) Value(name string) string {
	if c := n.Child(name); c != nil {
		return c.Text
	}
	return ""
}

// ErrXML is in the chain of Parse's errors.
var ErrXML = errors.New("not an OVF descriptor")

// Parse reads a descriptor.
func Parse(b []byte) (*Node, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrXML, MaxBytes)
	}
	p := &parser{dec: xml.NewDecoder(bytes.NewReader(b))}
	p.dec.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("it is in %s: UTF-8 is all that every importer takes", charset)
	}
	for {
		t, err := p.dec.Token()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = p.take(t)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrXML, p.line(), err)
		}
	}
	if p.root == nil {
		return nil, fmt.Errorf("%w: it is empty", ErrXML)
	}
	return p.root, nil
}

type parser struct {
	dec   *xml.Decoder
	root  *Node
	stack []*open
	count int
}

// open is an element whose end has not come yet.
type open struct {
	*Node
	text strings.Builder
}

func (p *parser) line() int {
	line, _ := p.dec.InputPos()
	return line
}

func (p *parser) take(t xml.Token) error {
	switch t := t.(type) {
	case xml.Directive:
		return errors.New("it has a document type, which no descriptor needs")
	case xml.StartElement:
		if p.count++; p.count > maxElements {
			return fmt.Errorf("it has more than %d elements", maxElements)
		}
		if len(p.stack) >= maxDepth {
			return fmt.Errorf("its elements are more than %d deep", maxDepth)
		}
		n := &Node{Name: prefixed(t.Name, false), Line: p.line()}
		for _, a := range t.Attr {
			if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
				n.Attrs = append(n.Attrs, Attr{prefixed(a.Name, true), a.Value})
			}
		}
		switch {
		case len(p.stack) > 0:
			top := p.stack[len(p.stack)-1]
			top.Children = append(top.Children, n)
		case p.root != nil:
			return errors.New("something follows its last element")
		default:
			p.root = n
		}
		p.stack = append(p.stack, &open{Node: n})
	case xml.EndElement:
		top := p.stack[len(p.stack)-1]
		if len(top.Children) == 0 {
			top.Text = strings.TrimSpace(top.text.String())
		}
		p.stack = p.stack[:len(p.stack)-1]
	case xml.CharData:
		if len(p.stack) > 0 {
			top := p.stack[len(p.stack)-1]
			if len(top.Children) == 0 {
				top.text.Write(t)
			}
		}
	}
	return nil
}

// prefixed gives a name its usual prefix; a namespace that is not known stays as it
// is, in braces.
func prefixed(n xml.Name, attr bool) string {
	switch n.Space {
	case nsOVF:
		if attr {
			return "ovf:" + n.Local
		}
		return n.Local
	case nsRASD:
		return "rasd:" + n.Local
	case nsVSSD:
		return "vssd:" + n.Local
	case nsVMW:
		return "vmw:" + n.Local
	case nsXSI:
		return "xsi:" + n.Local
	case "":
		if attr { // the schema wants a prefix; VMware's own descriptors do without, too
			return "ovf:" + n.Local
		}
	}
	return "{" + n.Space + "}" + n.Local
}

// Render writes the tree as a document, two spaces a level.
func (n *Node) Render() []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	n.render(&b, 0)
	return b.Bytes()
}

func (n *Node) render(b *bytes.Buffer, depth int) {
	indent := strings.Repeat("  ", depth)
	b.WriteString(indent + "<" + n.Name)
	if depth == 0 {
		fmt.Fprintf(b, " xmlns=%q xmlns:ovf=%q xmlns:rasd=%q xmlns:vssd=%q xmlns:vmw=%q xmlns:xsi=%q", nsOVF, nsOVF, nsRASD, nsVSSD, nsVMW, nsXSI)
	}
	for _, a := range n.Attrs {
		b.WriteString(" " + a.Name + `="` + escape(a.Value) + `"`)
	}
	switch {
	case len(n.Children) > 0:
		b.WriteString(">\n")
		for _, c := range n.Children {
			c.render(b, depth+1)
		}
		b.WriteString(indent)
	case n.Text != "":
		b.WriteString(">" + escape(n.Text))
	default:
		b.WriteString("/>\n")
		return
	}
	b.WriteString("</" + n.Name + ">\n")
}

// escape makes s good for text and attributes. Line breaks stay as they are in text,
// where readers show them; attributes of ours have none.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(strings.ToValidUTF8(s, "\uFFFD"))
}
