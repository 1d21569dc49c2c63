package syslog

import (
	"strings"
	"time"
)

// parse3164 reads what follows the priority, if there was one, in the forms of
// RFC 3164 that are in use:
//
//	Oct 11 22:14:15 host tag[pid]: text      RFC 3164
//	Oct 11 22:14:15 tag[pid]: text           syslog(3): without a host
//	2003-10-11T22:14:15.003Z host tag: text  rsyslog's forward format
//	*Mar  1 18:46:11.123: %SYS-5-CONFIG: …   Cisco: fractions, years, colons
//	tag[pid]: text                           after a priority only
//
// Everything else is text.
func (m *Message) parse3164(s string, priority bool, now time.Time) {
	s = strings.TrimLeft(s, " ")
	t, n, ok := parseStamp(s, now)
	if ok && n < len(s) && s[n] == ':' {
		n++
	}
	switch {
	case ok && (n == len(s) || s[n] == ' '):
		if inRange(t) {
			m.Time = t
		}
		s = strings.TrimLeft(s[n:], " ")
		if host, rest, ok := strings.Cut(s, " "); ok && isHost(host) {
			m.Host = cut(host, MaxHost)
			s = strings.TrimLeft(rest, " ")
		}
	case !priority:
		m.Text = strings.TrimPrefix(s, bom)
		return
	}
	if tag, pid, n := parseTag(s); n > 0 {
		m.Component, m.PID = cut(tag, MaxComponent), cut(pid, MaxPID)
		s = strings.TrimPrefix(s[n:], " ")
	}
	m.Text = strings.TrimPrefix(s, bom)
}

// isHost tells a name or an address from a tag ("su:", "cron[7]:") and from
// words of a text.
func isHost(s string) bool {
	if s == "" || s[len(s)-1] == ':' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c == ':' || c == '%') {
			return false
		}
	}
	return true
}

// parseTag reads "tag:" or "tag[pid]:", n bytes of it; 0 if there is none. The
// colon may be missing after a pid.
func parseTag(s string) (tag, pid string, n int) {
	for i := 0; i < len(s) && i <= MaxComponent; i++ {
		switch c := s[i]; {
		case c == ':':
			if i == 0 || i+1 < len(s) && s[i+1] != ' ' {
				return "", "", 0
			}
			return s[:i], "", i + 1
		case c == '[':
			end := strings.IndexByte(s[i:min(len(s), i+MaxPID+2)], ']')
			if i == 0 || end < 0 || strings.IndexByte(s[i:i+end], ' ') >= 0 {
				return "", "", 0
			}
			n := i + end + 1
			pid = s[i+1 : n-1]
			switch {
			case n < len(s) && s[n] == ':':
				n++
			case n < len(s) && s[n] != ' ':
				return "", "", 0
			}
			return s[:i], pid, n
		case c <= ' ' || c == 0x7f:
			return "", "", 0
		}
	}
	return "", "", 0
}

// parseStamp reads the time at the beginning of s, n bytes of it.
func parseStamp(s string, now time.Time) (t time.Time, n int, ok bool) {
	if s == "" {
		return t, 0, false
	}
	if s[0] >= '0' && s[0] <= '9' {
		return parseISO(s, now.Location())
	}
	start := 0
	if s[0] == '*' || s[0] == '.' { // Cisco: the clock is not synchronised
		start = 1
	}
	t, n, ok = parseBSD(s[start:], now)
	return t, start + n, ok
}

// parseISO reads an RFC 3339 time, and the forms of ISO 8601 around it: a space
// instead of the T, a comma before the fraction, a zone without colon or none.
func parseISO(s string, zone *time.Location) (t time.Time, n int, ok bool) {
	if len(s) < 19 || s[4] != '-' || s[7] != '-' || s[10] != 'T' && s[10] != ' ' && s[10] != 't' || s[13] != ':' || s[16] != ':' {
		return t, 0, false
	}
	year, month, day := number(s[0:4]), number(s[5:7]), number(s[8:10])
	hour, minute, second := number(s[11:13]), number(s[14:16]), number(s[17:19])
	if year < 0 || !isDate(year, month, day) || !isClock(hour, minute, second) {
		return t, 0, false
	}
	nanos, n := fraction(s, 19)
	t = time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	switch {
	case n == len(s) || s[n] == ' ' || s[n] == ':':
		if zone != time.UTC {
			t = time.Date(year, time.Month(month), day, hour, minute, second, nanos, zone).UTC()
		}
		return t, n, true
	case s[n] == 'Z' || s[n] == 'z':
		return t, n + 1, true
	case s[n] == '+' || s[n] == '-':
		east, m := offset(s[n+1:])
		if m == 0 {
			return t, 0, false
		}
		if s[n] == '-' {
			east = -east
		}
		return t.Add(-east), n + 1 + m, true
	}
	return t, 0, false
}

// offset reads hh:mm or hhmm.
func offset(s string) (d time.Duration, n int) {
	n = 4
	if len(s) > 2 && s[2] == ':' {
		n = 5
	}
	if len(s) < n {
		return 0, 0
	}
	hours, minutes := number(s[:2]), number(s[n-2:n])
	if hours < 0 || hours > 23 || minutes < 0 || minutes > 59 {
		return 0, 0
	}
	return time.Duration(hours)*time.Hour + time.Duration(minutes)*time.Minute, n
}

// parseBSD reads "Oct 11 22:14:15", with a year before or after the clock and a
// fraction if they are there.
func parseBSD(s string, now time.Time) (t time.Time, n int, ok bool) {
	month := monthOf(s)
	if month == 0 || len(s) < 14 || s[3] != ' ' {
		return t, 0, false
	}
	n = 4
	if s[n] == ' ' {
		n++
	}
	day, n := digits(s, n, 2)
	year := -1
	if n+5 < len(s) && s[n] == ' ' && s[n+5] == ' ' {
		if year = number(s[n+1 : n+5]); year >= 0 {
			n += 5
		}
	}
	if n+9 > len(s) || s[n] != ' ' || s[n+3] != ':' || s[n+6] != ':' {
		return t, 0, false
	}
	hour, minute, second := number(s[n+1:n+3]), number(s[n+4:n+6]), number(s[n+7:n+9])
	if !isDate(2000, month, day) || !isClock(hour, minute, second) {
		return t, 0, false
	}
	nanos, n := fraction(s, n+9)
	if year < 0 && n+5 < len(s) && s[n] == ' ' && (s[n+5] == ' ' || s[n+5] == ':') {
		if y := number(s[n+1 : n+5]); y >= 1970 && y < 2200 { // else it may be a host's name
			year, n = y, n+5
		}
	}
	date := func(year int) time.Time {
		return time.Date(year, time.Month(month), day, hour, minute, second, nanos, now.Location())
	}
	if year < 0 {
		year = nearest(now, date)
	}
	return date(year).UTC(), n, true
}

// nearest is the year in which date is nearest to now: messages of December
// arrive in January.
func nearest(now time.Time, date func(year int) time.Time) int {
	best, least := now.Year(), date(now.Year()).Sub(now).Abs()
	for _, year := range [2]int{now.Year() - 1, now.Year() + 1} {
		if d := date(year).Sub(now).Abs(); d < least {
			best, least = year, d
		}
	}
	return best
}

// monthOf is 1 to 12 by the three letters that s begins with, 0 if they are no
// month.
func monthOf(s string) int {
	if len(s) < 3 {
		return 0
	}
	const months = "janfebmaraprmayjunjulaugsepoctnovdec"
	a, b, c := s[0]|0x20, s[1]|0x20, s[2]|0x20
	for i := 0; i < len(months); i += 3 {
		if months[i] == a && months[i+1] == b && months[i+2] == c {
			return i/3 + 1
		}
	}
	return 0
}

// fraction reads ".123" at n, nanoseconds of it, and gives where it ends.
func fraction(s string, n int) (nanos, end int) {
	if n+1 >= len(s) || s[n] != '.' && s[n] != ',' || s[n+1] < '0' || s[n+1] > '9' {
		return 0, n
	}
	unit := 100_000_000
	for n++; n < len(s) && s[n] >= '0' && s[n] <= '9'; n++ {
		nanos += int(s[n]-'0') * unit
		unit /= 10
	}
	return nanos, n
}

// digits reads up to limit digits at n; -1 if there is none.
func digits(s string, n, limit int) (v, end int) {
	end = n
	for end < len(s) && end < n+limit && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	return number(s[n:end]), end
}

// number is what s says, -1 if it is not all digits.
func number(s string) int {
	if s == "" {
		return -1
	}
	v := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		v = v*10 + int(s[i]-'0')
	}
	return v
}

// isDate knows how long months are. Year 2000 has a 29 February.
func isDate(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 {
		return false
	}
	days := [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		days = 29
	}
	return day <= days
}

// isClock allows the leap second.
func isClock(hour, minute, second int) bool {
	return hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second <= 60
}

// inRange reports whether UnixNano can express t.
func inRange(t time.Time) bool { return t.Year() >= 1678 && t.Year() < 2262 }
