package console

import (
	"html/template"
	"io"
	"net/http"
	"strings"

	"berth/agent/api"
	"berth/agent/wizard"
	"berth/appliance/fault"
	"berth/appliance/property"
)

// An input is a question as a page shows it. It never has a secret in it.
type input struct {
	Name, ID, Label, Help string
	Kind                  string // text, password, choice, switch, lines
	Value                 string
	Choices               []choice
	Given                 bool // a secret that is there already
	Twice                 bool // typed a second time
	File                  bool // may come from a file
	Faults                []api.Fault
}

type choice struct {
	Value, Label string
	On           bool
}

// inWords are a choice's words.
func inWords(value string) string {
	words, ok := map[string]string{
		"dhcp": "DHCP", "static": "Static",
		"db_auth": "Users that are made in the registry", "ldap_auth": "LDAP or Active Directory", "oidc_auth": "OpenID Connect",
	}[value]
	if !ok {
		return value
	}
	return words
}

// help is what a page says about a question; of choices, with the words of inWords.
func help(q property.Property) string {
	switch q.Name() {
	case "network.mode":
		return "With DHCP, addresses, gateway and DNS come from the network; static ones are typed below."
	case "registry.auth_mode":
		return "An LDAP directory or an OpenID Connect provider is set up in the registry afterwards."
	case "tls.certificate":
		return "PEM, or the PEM in base64; it may be followed by its chain."
	}
	return wizard.Help(q)
}

// id makes a property's name fit for an HTML id and for CSS.
func id(name string) string { return strings.ReplaceAll(name, ".", "-") }

// again is the name of the field in which a password is typed a second time.
func again(name string) string { return name + ".again" }

// inputs are a page's questions with the draft's answers and what is wrong with them.
func inputs(p wizard.Page, d *draft, faults []api.Fault) []input {
	var out []input
	for _, name := range p.Fields {
		q, ok := property.Find(name)
		if !ok {
			continue
		}
		in := input{Name: name, ID: id(name), Label: q.Label, Help: help(q), Kind: "text", Value: d.answers.Shown(name)}
		switch {
		case q.Password && wizard.Many(name):
			in.Kind, in.Given, in.File = "secretlines", d.given(name), true
		case q.Password:
			in.Kind, in.Given = "password", d.given(name)
			in.Twice = q.Unattended
		case q.Type == property.Boolean:
			on, _ := property.Bool(in.Value)
			in.Kind, in.Value = "switch", ""
			in.Choices = []choice{{"true", q.Label, on}}
		case q.Choices != nil:
			in.Kind = "choice"
			for _, c := range q.Choices {
				in.Choices = append(in.Choices, choice{c, inWords(c), c == in.Value})
			}
		case wizard.Many(name):
			in.Kind, in.File = "lines", strings.HasPrefix(name, "tls.") || name == "syslog.ca"
		}
		for _, f := range faults {
			if f.Field == name {
				in.Faults = append(in.Faults, f)
			}
		}
		out = append(out, in)
	}
	return out
}

// fill takes a page's form into the draft. What cannot be taken comes back as faults.
func fill(r *http.Request, p wizard.Page, d *draft) []api.Fault {
	var faults []api.Fault
	for _, name := range p.Fields {
		q, _ := property.Find(name)
		value, err := sent(r, name)
		if err != nil {
			faults = append(faults, wire(fault.Of(err)))
			continue
		}
		switch {
		case r.PostFormValue("forget."+name) != "":
			d.answers.Forget(name)
			continue
		case q.Type == property.Boolean && value == "":
			value = "false"
		case q.Password && q.Unattended && value != r.PostFormValue(again(name)):
			faults = append(faults, api.Fault{Field: name, Text: "the two are not the same", Hint: "type it in both fields"})
			continue
		}
		if err := d.answers.Set(name, value); err != nil {
			faults = append(faults, wire(fault.Of(err)))
		}
	}
	return faults
}

// sent is a field's value: from a file, if one was chosen, else as it was typed.
// Browsers send line breaks as CR LF.
func sent(r *http.Request, name string) (string, error) {
	if r.MultipartForm != nil {
		if list := r.MultipartForm.File[name+".file"]; len(list) > 0 && list[0].Size > 0 {
			if list[0].Size > property.MaxLen {
				return "", fault.New(fault.Invalid, "the file is longer than %d bytes", property.MaxLen).On(name)
			}
			f, err := list[0].Open()
			if err != nil {
				return "", err
			}
			defer f.Close()
			b, err := io.ReadAll(io.LimitReader(f, property.MaxLen+1))
			return string(b), err
		}
	}
	return strings.ReplaceAll(r.PostFormValue(name), "\r\n", "\n"), nil
}

func wire(f *fault.Error) api.Fault {
	return api.Fault{Kind: f.Kind.String(), Field: f.Field, Text: f.Text, Hint: f.Hint}
}

// faultsOf takes the answer of a check apart: the faults, or an error that is
// about no answer.
func faultsOf(err error) ([]api.Fault, error) {
	if err == nil {
		return nil, nil
	}
	list := []error{err}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		list = j.Unwrap()
	}
	var out []api.Fault
	for _, e := range list {
		f := fault.Of(e)
		if f.Kind != fault.Invalid && f.Field == "" {
			return nil, err
		}
		out = append(out, wire(f))
	}
	return out, nil
}

// about leaves the faults that are mended on a page.
func about(faults []api.Fault, p wizard.Page) []api.Fault {
	var out []api.Fault
	for _, f := range faults {
		if wizard.PageOf(f.Field).Name == p.Name {
			out = append(out, f)
		}
	}
	return out
}

func functions() template.FuncMap {
	return template.FuncMap{
		"bytes":       bytesOf,
		"size":        func(n int64) string { return bytesOf(uint64(max(n, 0))) },
		"fingerprint": fingerprint,
		"sentence":    fault.Sentence,
		"offered":     offered,
		"id":          id,
		"label":       labelOf,
		"faultlink":   linkOf,
	}
}

// labelOf is what a fault's field is called; "" if it is no question.
func labelOf(f api.Fault) string {
	q, _ := property.Find(f.Field)
	return q.Label
}

// linkOf leads to the field that a fault is about.
func linkOf(f api.Fault) string {
	return "/setup/" + wizard.PageOf(f.Field).Name + "#" + id(f.Field)
}
