package main

import (
	"fmt"
	"strings"
)

// The marks in the Markdown file around what people write; all else is replaced.
const (
	prefaceBegin = "<!-- preface: written by hand, kept by bench -->"
	prefaceEnd   = "<!-- end of the preface; what follows is written by bench -->"
)

// preface finds what people wrote in an earlier file.
func preface(old string) string {
	_, rest, ok := strings.Cut(old, prefaceBegin)
	text, _, ended := strings.Cut(rest, prefaceEnd)
	if !ok || !ended {
		text = "\n# Performance\n\n"
	}
	return prefaceBegin + text + prefaceEnd + "\n"
}

// markdown is the part of the file that a run replaces.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("\n## Figures\n\n")
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(heads)
	b.WriteString("|---|--:|---|--:|--:|--:|---|--:|--:|--:|--:|--:|\n")
	for _, row := range r.Rows {
		line(row.cells())
	}
	b.WriteString("\n## Where and how\n\n")
	for _, fact := range r.facts() {
		fmt.Fprintf(&b, "- %s\n", fact)
	}
	return b.String()
}
