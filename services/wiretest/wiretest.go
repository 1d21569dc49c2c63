// Package wiretest reads captures of a real Harbor, a request and its answer in
// each, and compares an answer of ours with Harbor's: the status, which headers
// there are, and the shape of the JSON: fields, types, what is null, how times
// are written. Texts and numbers may differ.
package wiretest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Capture is a request to Harbor and its answer, as curl showed them.
type Capture struct {
	Name                     string   // of the file
	Method, Path, User, Body string   // User is name:password, or ""
	Headers                  []string // names and values in turn
	Cookies                  bool     // it was sent with the browser's cookies
	Answer                   Answer
}

// Answer is a response, read.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Read reads the file of a capture.
func Read(t testing.TB, file string) Capture {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	command, rest, _ := strings.Cut(string(text), "\n")
	head, body, _ := strings.Cut(rest, "\n\n")
	c := Capture{Name: filepath.Base(file), Method: http.MethodGet, Answer: Answer{Header: http.Header{}, Body: strings.TrimSpace(body)}}
	lines := strings.Split(head, "\n")
	if fields := strings.Fields(lines[0]); len(fields) > 1 {
		c.Answer.Status, _ = strconv.Atoi(fields[1]) // a capture without a status equals no answer
	}
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, ":"); ok {
			c.Answer.Header.Add(name, strings.TrimSpace(value))
		}
	}
	c.request(strings.TrimPrefix(command, "# curl "))
	return c
}

// request reads curl's arguments, which have lost their quotes.
func (c *Capture) request(command string) {
	if before, data, ok := strings.Cut(command, " -d "); ok {
		command, c.Body = before, data
		if i := strings.LastIndex(data, " /"); i >= 0 { // a form; the path comes last
			command, c.Body = before+data[i:], data[:i]
			c.Headers = append(c.Headers, "Content-Type", "application/x-www-form-urlencoded")
		}
	}
	words := strings.Fields(command)
	for i := 0; i < len(words); i++ {
		switch word := words[i]; word {
		case "-u":
			i++
			c.User = words[i]
		case "-X":
			i++
			c.Method = words[i]
		case "-b":
			i++
			c.Cookies = true
		case "-c":
			i++
		case "-I":
			c.Method = http.MethodHead
		case "-H":
			i++
			name, value, _ := strings.Cut(words[i], ":")
			if value == "" {
				i++
				value = words[i]
			}
			c.Headers = append(c.Headers, name, value)
		default:
			c.Path = word
		}
	}
}

// transport are the headers that belong to the connection, not to the answer.
var transport = []string{"Content-Length", "Transfer-Encoding", "Date", "Connection"}

// Compare reports where an answer differs from Harbor's. Excused gives the
// differences that are meant, with their reasons: by "status", "code", "body",
// "header NAME", or the path of a field such as "[].name". An excuse for what
// does not differ is reported, too.
func Compare(t testing.TB, c Capture, a Answer, excused map[string]string) {
	t.Helper()
	used := map[string]bool{}
	differ := func(what, format string, args ...any) {
		t.Helper()
		if used[what] = true; excused[what] == "" {
			t.Errorf("%s: %s\n%s %s\nHarbor: %.600s\nBerth:  %.600s", what, fmt.Sprintf(format, args...), c.Method, c.Path, c.Answer.Body, a.Body)
		}
	}
	compare(c, a, differ)
	for what := range excused {
		if !used[what] {
			t.Errorf("%s does not differ from Harbor's any more", what)
		}
	}
}

func compare(c Capture, a Answer, differ func(what, format string, args ...any)) {
	if a.Status != c.Answer.Status {
		differ("status", "%d, Harbor %d", a.Status, c.Answer.Status)
		return
	}
	theirs, ours := c.Answer.Header, a.Header
	if theirs.Get("Content-Type") != ours.Get("Content-Type") {
		differ("header Content-Type", "%q, Harbor %q", ours.Get("Content-Type"), theirs.Get("Content-Type"))
	}
	for _, name := range slices.Sorted(mapKeys(theirs, ours)) {
		if name != "Content-Type" && !slices.Contains(transport, name) && (theirs.Get(name) != "") != (ours.Get(name) != "") {
			differ("header "+name, "%q, Harbor %q", ours.Get(name), theirs.Get(name))
		}
	}
	if c.Method == http.MethodHead {
		return
	}
	var there, here any
	if json.Unmarshal([]byte(c.Answer.Body), &there) != nil {
		if strings.TrimSpace(a.Body) != c.Answer.Body {
			differ("body", "not the same text")
		}
		return
	}
	if err := json.Unmarshal([]byte(a.Body), &here); err != nil {
		differ("body", "%v", err)
		return
	}
	if errorCode(there) != errorCode(here) {
		differ("code", "%s, Harbor %s", errorCode(here), errorCode(there))
	}
	compareJSON(there, here, "", differ)
}

func errorCode(v any) string {
	object, _ := v.(map[string]any)
	list, _ := object["errors"].([]any)
	if len(list) == 0 {
		return ""
	}
	entry, _ := list[0].(map[string]any)
	code, _ := entry["code"].(string)
	return code
}

var harborTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$`)

// compareJSON compares shapes: which fields there are, of what type, null or
// not, and how times are written.
func compareJSON(there, here any, path string, differ func(what, format string, args ...any)) {
	if kind(there) != kind(here) {
		differ(path, "%s, Harbor %s", kind(here), kind(there))
		return
	}
	switch there := there.(type) {
	case map[string]any:
		here := here.(map[string]any)
		for _, name := range slices.Sorted(mapKeys(there, here)) {
			theirs, has := there[name]
			mine, ok := here[name]
			switch {
			case has && !ok:
				differ(path+"."+name, "missing")
			case ok && !has:
				differ(path+"."+name, "Harbor has no such field")
			default:
				compareJSON(theirs, mine, path+"."+name, differ)
			}
		}
	case []any:
		here := here.([]any)
		if (len(there) == 0) != (len(here) == 0) {
			differ(path, "%d elements, Harbor %d", len(here), len(there))
		} else if len(there) > 0 {
			compareJSON(there[0], here[0], path+"[]", differ)
		}
	case string:
		if harborTime.MatchString(there) && (!harborTime.MatchString(here.(string)) || strings.HasPrefix(there, "0001") != strings.HasPrefix(here.(string), "0001")) {
			differ(path, "time %q, Harbor %q", here, there)
		}
	}
}

func mapKeys[M ~map[string]V, V any](maps ...M) func(func(string) bool) {
	return func(yield func(string) bool) {
		seen := map[string]bool{}
		for _, m := range maps {
			for k := range m {
				if !seen[k] && !yield(k) {
					return
				}
				seen[k] = true
			}
		}
	}
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case map[string]any:
		return "object"
	case []any:
		return "array"
	}
	return fmt.Sprintf("%T", v)
}
