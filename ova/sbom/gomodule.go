package sbom

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"berth/appliance/fault"
)

// goModules reads what the linker has put into the programs: the programs themselves,
// the modules of all of them, what links what, and the modules' licences.
func goModules(in Input) (programs, modules []cdx.Component, links []cdx.Dependency, texts []Licence, err error) {
	seen := map[string]bool{}
	var without []string
	for _, file := range in.Binaries {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return nil, nil, nil, nil, fault.Wrap(fault.Invalid, err, "cannot read the build information of %s", file).On("--binary")
		}
		ref := "program:" + filepath.Base(file)
		programs = append(programs, cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeApplication, Name: filepath.Base(file), Version: in.Version})
		link := cdx.Dependency{Ref: ref, Dependencies: &[]string{}}
		parts := []part{{name: "stdlib", version: strings.TrimPrefix(info.GoVersion, "go"), dir: in.Go}}
		for _, d := range info.Deps {
			for d.Replace != nil {
				d = d.Replace
			}
			parts = append(parts, part{d.Path, d.Version, d.Sum, moduleDir(in.Modules, d.Path, d.Version)})
		}
		for _, p := range parts {
			*link.Dependencies = append(*link.Dependencies, p.url())
			if seen[p.url()] {
				continue
			}
			seen[p.url()] = true
			found := p.licences()
			if len(found) == 0 {
				without = append(without, p.name+"@"+p.version)
			}
			texts = append(texts, found...)
			modules = append(modules, p.component(found))
		}
		slices.Sort(*link.Dependencies)
		links = append(links, link)
	}
	if len(without) > 0 {
		return nil, nil, nil, nil, fault.New(fault.Precondition, "Go modules without a licence: %s", strings.Join(without, ", ")).
			On("--modules").WithHint("the texts are in the module cache: go mod download")
	}
	slices.SortFunc(modules, func(a, b cdx.Component) int { return cmp.Compare(a.PackageURL, b.PackageURL) })
	return programs, modules, links, texts, nil
}

// A part is a module, or the standard library.
type part struct{ name, version, sum, dir string }

func (p part) url() string { return "pkg:golang/" + p.name + "@" + p.version }

func (p part) component(found []Licence) cdx.Component {
	var names []string
	for _, l := range found {
		if n := recognise(l.Text); n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return cdx.Component{BOMRef: p.url(), Type: cdx.ComponentTypeLibrary, Name: p.name, Version: p.version, PackageURL: p.url(),
		Licenses: licences(names), Properties: properties("go.sum", p.sum)}
}

// licences are the texts in the module's top directory: licences, and the notices that
// the Apache License (section 4d) wants to be passed on.
func (p part) licences() []Licence {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil
	}
	var list []Licence
	only := false // notices alone are no licence
	for _, e := range entries {
		n := strings.ToUpper(e.Name())
		licence := strings.HasPrefix(n, "LICEN") || strings.HasPrefix(n, "COPYING") || strings.HasPrefix(n, "UNLICENSE")
		if !e.Type().IsRegular() || !licence && !strings.HasPrefix(n, "NOTICE") && !strings.HasPrefix(n, "PATENTS") || strings.HasSuffix(n, ".GO") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.dir, e.Name()))
		if err != nil {
			continue
		}
		only = only || licence
		list = append(list, Licence{Path: path.Join("go", p.name+"@"+p.version, e.Name()), Text: text})
	}
	if !only {
		return nil
	}
	return list
}

// moduleDir is where the module cache has a module: capital letters are an exclamation
// mark and the small letter (golang.org/x/mod/module.EscapePath). A module without a
// licence of its own has that of the module that it lies in, if that one is there.
func moduleDir(cache, name, version string) string {
	return filepath.Join(cache, filepath.FromSlash(escapeModule(name))+"@"+escapeModule(version))
}

func escapeModule(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
			r = unicode.ToLower(r)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// recognise names a licence by sentences that only it has. Two or more in one file, or
// none that is known, give no name: the text is there to be read.
func recognise(text []byte) string {
	t := strings.ToLower(string(bytes.Join(bytes.Fields(text), []byte(" "))))
	var found []string
	for _, k := range []struct{ name, says, not string }{
		{"Apache-2.0", "apache license version 2.0", ""},
		{"Apache-2.0", "licensed under the apache license, version 2.0", "apache license version 2.0"},
		{"MPL-2.0", "mozilla public license version 2.0", ""},
		{"MPL-2.0", "mozilla public license, version 2.0 1. definitions", ""},
		{"ISC", "permission to use, copy, modify, and/or distribute this software for any purpose", ""},
		{"ISC", "permission to use, copy, modify, and distribute this software for any purpose", ""},
		{"MIT", "permission is hereby granted, free of charge, to any person obtaining a copy", ""},
		{"BSD-3-Clause", "may be used to endorse or promote products", "apache license"},
		{"BSD-2-Clause", "redistributions in binary form must reproduce the above copyright notice", "may be used to endorse or promote"},
		{"Unlicense", "this is free and unencumbered software released into the public domain", ""},
	} {
		if strings.Contains(t, k.says) && (k.not == "" || !strings.Contains(t, k.not)) && !slices.Contains(found, k.name) {
			found = append(found, k.name)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// Available says whether the module cache is there at all, for an error that helps.
func Available(cache string) error {
	if _, err := os.Stat(cache); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "there is no module cache at %s", cache).On("--modules").WithHint("go env GOMODCACHE says where it is")
	}
	return nil
}
