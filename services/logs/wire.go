package logs

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/appliance/fault"
	"berth/appliance/setting"
	"berth/appliance/syslog"
	"berth/services/segment"
)

// AppendRecord renders a stored message as JSON: as syslog.AppendJSON does, with
// its number before it.
func AppendRecord(b []byte, r *segment.Record) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, r.Seq, 10)
	b = append(b, ',')
	at := len(b)
	b = syslog.AppendJSON(b, &r.Message)
	return slices.Delete(b, at, at+1) // its {
}

// recordWire is what AppendRecord writes.
type recordWire struct {
	Seq        uint64     `json:"seq"`
	Time       time.Time  `json:"time"`
	Severity   string     `json:"severity"`
	Facility   string     `json:"facility"`
	Host       string     `json:"host"`
	Component  string     `json:"component"`
	PID        string     `json:"pid"`
	ID         string     `json:"id"`
	Message    string     `json:"message"`
	Attributes attributes `json:"attributes"`
}

// ParseRecord reads what AppendRecord has written.
func ParseRecord(b []byte) (segment.Record, error) {
	var w recordWire
	if err := json.Unmarshal(b, &w); err != nil {
		return segment.Record{}, err
	}
	severity, _ := syslog.ParseSeverity(w.Severity)
	return segment.Record{Seq: w.Seq, Message: syslog.Message{Time: w.Time, Facility: facility(w.Facility), Severity: severity,
		Host: w.Host, Component: w.Component, PID: w.PID, ID: w.ID, Text: w.Message, Attrs: w.Attributes}}, nil
}

func facility(name string) syslog.Facility {
	for f := range syslog.Facility(24) {
		if f.String() == name {
			return f
		}
	}
	return syslog.User
}

// attributes are an object whose order counts.
type attributes []syslog.Attr

// UnmarshalJSON takes members in their order; a list is several of one name.
func (a *attributes) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return err
		}
		var values []string
		if len(v) > 0 && v[0] == '[' {
			err = json.Unmarshal(v, &values)
		} else {
			values = []string{""}
			err = json.Unmarshal(v, &values[0])
		}
		if err != nil {
			return err
		}
		for _, value := range values {
			*a = append(*a, syslog.Attr{Key: key, Value: value})
		}
	}
	return nil
}

// maxWireLimit is how many messages a page has at most over HTTP.
const maxWireLimit = 1000

// parseQuery reads the parameters of /v1/messages and /v1/tail. One that is not
// known is a fault too: a filter that was misspelt must not find everything.
func parseQuery(v url.Values, now time.Time, also ...string) (q segment.Query, err error) {
	known := append([]string{"component", "level", "since", "until", "text", "request", "attr"}, also...)
	for name, values := range v {
		if !slices.Contains(known, name) {
			return q, fault.New(fault.Invalid, "there is no such parameter").On(name).WithHint("there are %s", strings.Join(known, ", "))
		}
		if name != "component" && name != "attr" && len(values) > 1 {
			return q, fault.New(fault.Invalid, "it is there %d times", len(values)).On(name)
		}
	}
	q.Text, q.ID, q.Cursor = v.Get("text"), v.Get("request"), v.Get("cursor")
	for _, list := range v["component"] {
		for c := range strings.SplitSeq(list, ",") {
			if c = strings.TrimSpace(c); c != "" {
				q.Components = append(q.Components, c)
			}
		}
	}
	if q.Severity, err = parseLevel(v.Get("level")); err != nil {
		return q, err
	}
	if q.Since, err = ParseTime("since", v.Get("since"), now); err == nil {
		q.Until, err = ParseTime("until", v.Get("until"), now)
	}
	if err != nil {
		return q, err
	}
	if q.Attrs, err = ParseAttrs(v["attr"]); err != nil {
		return q, err
	}
	q.Limit, err = parseLimit(v.Get("limit"))
	q.OldestFirst = v.Get("order") == "asc"
	if order := v.Get("order"); err == nil && order != "" && order != "asc" && order != "desc" {
		err = fault.New(fault.Invalid, "it must be asc or desc, not %q", order).On("order")
	}
	return q, err
}

func parseLevel(s string) (*syslog.Severity, error) {
	if s == "" {
		return nil, nil
	}
	level, ok := syslog.ParseSeverity(s)
	if !ok {
		return nil, fault.New(fault.Invalid, "it must be one of %s, not %q", strings.Join(setting.Levels(), ", "), s).On("level")
	}
	return &level, nil
}

func parseLimit(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxWireLimit {
		return 0, fault.New(fault.Invalid, "it must be a number from 1 to %d, not %q", maxWireLimit, s).On("limit")
	}
	return n, nil
}

// ParseAttrs reads attributes that must be there, each as key=value.
func ParseAttrs(list []string) ([]syslog.Attr, error) {
	var attrs []syslog.Attr
	for _, s := range list {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, fault.New(fault.Invalid, "it must be KEY=VALUE, not %q", s).On("attr")
		}
		attrs = append(attrs, syslog.Attr{Key: key, Value: value})
	}
	return attrs, nil
}

// ParseTime reads a time in one of the forms that people write: RFC 3339, a date
// with or without a time of day (in now's zone), today, yesterday, or how long ago
// ("90s", "2h30m", "7d", "2w"). "" is the zero time. The field is for the fault.
func ParseTime(field, s string, now time.Time) (time.Time, error) {
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch s {
	case "":
		return time.Time{}, nil
	case "now":
		return now, nil
	case "today":
		return midnight, nil
	case "yesterday":
		return midnight.AddDate(0, 0, -1), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.DateTime, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{time.TimeOnly, "15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	ago, ok := parseAgo(s)
	if !ok {
		return time.Time{}, fault.New(fault.Invalid, "%q is no time", s).On(field).
			WithHint("write 2h or 7d for that long ago, today, 2006-01-02 15:04, or 2006-01-02T15:04:05Z")
	}
	return now.Add(-ago), nil
}

// parseAgo reads a duration, of days and weeks too.
func parseAgo(s string) (time.Duration, bool) {
	for unit, d := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			n, err := strconv.ParseFloat(number, 64)
			return time.Duration(n * float64(d)), err == nil && n >= 0 && n <= 36500
		}
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}

// values is parseQuery's other direction.
func values(q segment.Query) url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("text", q.Text)
	set("request", q.ID)
	set("cursor", q.Cursor)
	if q.Severity != nil {
		set("level", q.Severity.String())
	}
	if !q.Since.IsZero() {
		set("since", q.Since.Format(time.RFC3339Nano))
	}
	if !q.Until.IsZero() {
		set("until", q.Until.Format(time.RFC3339Nano))
	}
	if q.Limit > 0 {
		set("limit", strconv.Itoa(min(q.Limit, maxWireLimit)))
	}
	if q.OldestFirst {
		set("order", "asc")
	}
	for _, c := range q.Components {
		v.Add("component", c)
	}
	for _, a := range q.Attrs {
		v.Add("attr", a.Key+"="+a.Value)
	}
	return v
}
