// Package syslog is the form in which all log messages travel: RFC 5424, and
// what is left of RFC 3164 in the world.
package syslog

import "time"

// Severity is how bad it is: 0 is the worst (RFC 5424 section 6.2.1, table 2).
type Severity uint8

const (
	Emergency Severity = iota
	Alert
	Critical
	Error
	Warning
	Notice
	Informational
	Debug
)

// Facility is what kind of program speaks (RFC 5424 section 6.2.1, table 1).
type Facility uint8

const (
	Kernel      Facility = 0
	User        Facility = 1
	Daemon      Facility = 3
	Auth        Facility = 4
	AuthPriv    Facility = 10
	Audit       Facility = 13
	Local0      Facility = 16 // Berth's own services
	maxFacility Facility = 23
)

// Message is one line of a log. Strings may hold anything that a stranger sent;
// only their length is bounded, and they are valid UTF-8.
type Message struct {
	Time      time.Time
	Facility  Facility
	Severity  Severity
	Host      string // HOSTNAME; "" = unknown
	Component string // APP-NAME: registry, token, core, jobs, proxy, postgres, sshd …
	PID       string // PROCID
	ID        string // MSGID
	Attrs     []Attr // structured data, in its order
	Text      string
}

// Attr is a fact beside the text: a parameter of structured data. Berth's own
// have plain keys (request_id); those of others have their element's name
// before them (timeQuality.isSynced).
type Attr struct{ Key, Value string }

// The attributes by which messages are found without reading all of them.
const (
	// RequestID is the id that the front door gave the request, or its client.
	RequestID = "request_id"
	// TokenRequest is the id of the request that got the token which this one was
	// made with: all requests of one push share it.
	TokenRequest = "token_request"
	// TraceID is the W3C trace of the request, where traces are on.
	TraceID = "trace_id"
)

// Get gives the value of an attribute, "" if there is none.
func (m *Message) Get(key string) string {
	for _, a := range m.Attrs {
		if a.Key == key {
			return a.Value
		}
	}
	return ""
}
