package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// An event is one line of `go test -json`: see `go doc test2json`. The build-* events carry ImportPath only.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// A run is a test that has begun and not ended.
type run struct {
	name   string
	output []string
}

// A pkg gathers what happened in one package.
type pkg struct {
	running                 map[string]*run
	order                   []string // names in running, in the order they began
	output                  []string // of no test in particular: a panic, a race, TestMain
	passed, failed, skipped int
}

// A skip is a test that did not run, and why.
type skip struct{ pkg, test, reason string }

// report copies the story told by in to out. It is true when all went well; an empty story did not go well.
func report(in io.Reader, out io.Writer) (bool, error) {
	r := &reporter{out: out, pkgs: map[string]*pkg{}, build: map[string][]string{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, fmt.Errorf("cannot read the test events: %w", err)
		}
	}
	return r.finish(), nil
}

type reporter struct {
	out                     io.Writer
	pkgs                    map[string]*pkg
	build                   map[string][]string // compiler output by import path
	skips                   []skip
	failures                []string
	passed, failed, skipped int
}

func (r *reporter) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		// Not an event: the go command speaking for itself ("no packages to test").
		fmt.Fprintf(r.out, "%s", line)
		return
	}
	switch {
	case e.Action == "build-output":
		r.build[e.ImportPath] = append(r.build[e.ImportPath], e.Output)
	case e.Action == "build-fail":
		// Told with the package that wanted it, below.
	case e.Test != "":
		r.test(r.pkg(e.Package), e)
	default:
		r.pack(r.pkg(e.Package), e)
	}
}

func (r *reporter) pkg(name string) *pkg {
	p := r.pkgs[name]
	if p == nil {
		p = &pkg{running: map[string]*run{}}
		r.pkgs[name] = p
	}
	return p
}

// test handles an event of one test or subtest.
func (r *reporter) test(p *pkg, e event) {
	t := p.running[e.Test]
	if t == nil {
		t = &run{name: e.Test}
		p.running[e.Test] = t
		p.order = append(p.order, e.Test)
	}
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass":
		p.passed++
		p.end(e.Test)
	case "skip":
		p.skipped++
		r.skips = append(r.skips, skip{e.Package, e.Test, reason(t.output)})
		p.end(e.Test)
	case "fail":
		p.failed++
		r.fail(e.Package, e.Test, t.output)
		p.end(e.Test)
	}
}

func (p *pkg) end(test string) {
	delete(p.running, test)
	p.order = slices.DeleteFunc(p.order, func(s string) bool { return s == test })
}

// pack handles an event of a package as a whole.
func (r *reporter) pack(p *pkg, e event) {
	switch e.Action {
	case "output":
		p.output = append(p.output, e.Output)
	case "skip":
		delete(r.pkgs, e.Package) // no test files: not worth a line
	case "pass", "fail":
		if e.Action == "fail" {
			r.packFailed(p, e)
		}
		r.passed += p.passed
		r.failed += p.failed
		r.skipped += p.skipped
		word := "ok  "
		if e.Action == "fail" {
			word = "FAIL"
		}
		fmt.Fprintf(r.out, "%s  %-44s %7.1fs  %4d passed", word, e.Package, e.Elapsed, p.passed)
		if p.failed > 0 {
			fmt.Fprintf(r.out, ", %d failed", p.failed)
		}
		if p.skipped > 0 {
			fmt.Fprintf(r.out, ", %d skipped", p.skipped)
		}
		fmt.Fprintln(r.out)
		delete(r.pkgs, e.Package)
	}
}

// packFailed finds out why a package failed when no single test says so.
func (r *reporter) packFailed(p *pkg, e event) {
	if e.FailedBuild != "" {
		p.failed++
		r.fail(e.Package, "(build)", r.build[e.FailedBuild])
		return
	}
	for _, name := range slices.Clone(p.order) { // cut off by a panic, os.Exit or the time limit
		p.failed++
		r.fail(e.Package, name, append(p.running[name].output, "did not finish\n"))
		p.end(name)
	}
	if p.failed == 0 {
		p.failed++
		r.fail(e.Package, "(package)", p.output)
	} else if told := strings.Join(p.output, ""); strings.Contains(told, "panic:") || strings.Contains(told, "DATA RACE") {
		fmt.Fprintf(r.out, "%s", told)
	}
}

func (r *reporter) fail(pkg, test string, output []string) {
	r.failures = append(r.failures, pkg+" "+test)
	fmt.Fprintf(r.out, "\n--- FAIL: %s %s\n%s\n", pkg, test, strings.TrimRight(strings.Join(output, ""), "\n"))
}

// finish prints the summary. A package that never ended (the go command was killed) is a failure.
func (r *reporter) finish() bool {
	for name, p := range r.pkgs {
		r.passed += p.passed
		r.failed += p.failed + 1
		r.skipped += p.skipped
		r.fail(name, "(package)", append(p.output, "did not finish\n"))
	}
	if len(r.skips) > 0 {
		fmt.Fprintf(r.out, "\nSkipped:\n")
		for _, s := range r.skips {
			fmt.Fprintf(r.out, "  %s %s: %s\n", s.pkg, s.test, s.reason)
		}
	}
	if len(r.failures) > 0 {
		fmt.Fprintf(r.out, "\nFailed:\n")
		for _, f := range r.failures {
			fmt.Fprintf(r.out, "  %s\n", f)
		}
	}
	fmt.Fprintf(r.out, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return r.failed == 0 && r.passed > 0
}

var (
	frame    = regexp.MustCompile(`^\s*(=== |--- )`)
	position = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
)

// reason is what a skipped test gave as its reason: the last thing that it logged.
func reason(output []string) string {
	var last []string
	for _, line := range output {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || frame.MatchString(line):
		case position.MatchString(line):
			last = []string{position.ReplaceAllString(line, "")}
		default:
			last = append(last, text) // a reason of several lines
		}
	}
	if len(last) == 0 {
		return "no reason given"
	}
	last[0] = strings.TrimSpace(last[0])
	return strings.Join(last, " ")
}
