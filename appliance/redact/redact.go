// Package redact takes what looks like a secret out of text that others have
// written.
//
// Secrets of our own are kept out of logs where lines are written: they are of a
// type that does not print. This is the net below that, for lines of others:
// PostgreSQL, sshd, whatever the machine runs. It knows the forms in which
// secrets end up in logs, and would rather hide a word too many.
package redact

import (
	"regexp"
	"slices"
	"strings"

	"berth/appliance/syslog"
)

// Mark stands where a secret was.
const Mark = "[redacted]"

// grams are four letters, in lower case, of which any line with a secret in one
// of these forms has some.
var grams = []string{"assw", "assp", "ass=", "ass:", "ass\"", "ass'", "secr", "eyjh", "eyjr", "eyj0", "hori", "eare", "asic", "priv",
	"cook", "cred", "ikey", "_key", "-key", "oken", "pwd=", "pwd:", "_b64"}

// sieve lets almost nothing through but grams: it is true at their hashes.
var sieve, gramValues = func() (bits [4096]bool, values []uint32) {
	for _, g := range grams {
		bits[hash(gram(g))] = true
		values = append(values, gram(g))
	}
	return bits, values
}()

// hash gives twelve bits.
func hash(w uint32) uint32 { return w * 0x9e3779b1 >> 20 & 4095 }

var lower = func() (to [256]byte) {
	for i := range to {
		to[i] = byte(i)
	}
	for c := 'A'; c <= 'Z'; c++ {
		to[c] = byte(c - 'A' + 'a')
	}
	return to
}()

func gram(s string) (w uint32) {
	for _, c := range []byte(s) {
		w = w<<8 | uint32(c)
	}
	return w
}

// Suspicious reports whether a line may have a secret in it. It looks at every
// line, so it is quick, and wrong now and then.
func Suspicious(line string) bool {
	var w uint32
	for i := range len(line) {
		c := lower[line[i]]
		w = w<<8 | uint32(c)
		if sieve[hash(w)] && slices.Contains(gramValues, w) {
			if w == ownToken && strings.HasPrefix(line[i+1:], "_request=") {
				continue
			}
			return true
		}
		if c == '/' && w&0xffffff == schemeEnd && strings.IndexByte(line[i:min(len(line), i+256)], '@') > 0 {
			return true
		}
	}
	return false
}

var ownToken, schemeEnd = gram("oken"), gram("://")

const word = `(?:pass(?:word|wd|phrase)?|pwd|secret|client_secret|api[_-]?key|access[_-]?key|private[_-]?key|(?:access|refresh|id|bearer|auth)?[_-]?token|credentials?)`

// forms are the shapes of secrets: what the first group matches stays.
var forms = []*regexp.Regexp{
	// Keys in PEM, whole or cut.
	regexp.MustCompile(`(?s)(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----).*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`),
	// JSON web tokens.
	regexp.MustCompile(`()eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?`),
	// HTTP's headers.
	regexp.MustCompile(`(?i)((?:proxy-)?authorization["']?\s*[:=]\s*["']?(?:(?:basic|bearer|negotiate|digest|token)\s+)?)[^\s"',;]+`),
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9+/_=.~-]{8,}`),
	regexp.MustCompile(`(?i)((?:set-)?cookie["']?\s*[:=]\s*["']?)[^\s"']+`),
	// URLs with a password.
	regexp.MustCompile(`(://[^\s/:@"']*:)[^\s/@"']+@`),
	// An OVF environment's properties: <Property oe:key="…password…" oe:value="…"/>.
	regexp.MustCompile(`(?is)(<[^<>]*key=["'][^"'<>]*(?:pass|secret|token|private_key|credential|config_b64)[^"'<>]*["'][^<>]*?value=)(?:"[^"]*"|'[^']*')`),
	// PASSWORD 'x' in SQL.
	regexp.MustCompile(`(?i)(\bpassword\s+)'(?:[^']|'')*'`),
	// key=value, key: value, "key": "value", key='value'.
	regexp.MustCompile(`(?i)([\w.-]*` + word + `["']?\s*[:=]\s*)(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"',;&)\]}]+)`),
	// --password x.
	regexp.MustCompile(`(?i)(\s--?[\w-]*` + word + `\s+)[^\s-]\S*`),
}

// names are attributes whose whole value is a secret.
var names = regexp.MustCompile(`(?i)^(?:.*[._-])?(?:` + word + `|authorization|cookie|set-cookie)$`)

// Text takes what looks like a secret out of a text of any length.
func Text(s string) string {
	if !Suspicious(s) {
		return s
	}
	for _, f := range forms {
		s = f.ReplaceAllStringFunc(s, func(hit string) string {
			if g := f.FindStringSubmatch(hit); g != nil && !strings.Contains(hit, Mark) {
				end := ""
				if strings.HasSuffix(hit, "@") {
					end = "@"
				}
				return g[1] + Mark + end
			}
			return hit
		})
	}
	return s
}

// Message takes what looks like a secret out of a message. It reports whether it
// has found any.
func Message(m *syslog.Message) bool {
	found := false
	clean := func(was string) string {
		s := Text(was)
		found = found || s != was
		return s
	}
	m.Text = clean(m.Text)
	for i := range m.Attrs {
		a := &m.Attrs[i]
		if names.MatchString(a.Key) && a.Value != "" && a.Value != "redacted" {
			a.Value, found = Mark, true
			continue
		}
		a.Value = clean(a.Value)
	}
	return found
}
