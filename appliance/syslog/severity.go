package syslog

import (
	"strconv"
	"strings"
)

// String is the name of a severity in settings, queries and output: emergency,
// alert, critical, error, warning, notice, info, debug.
func (s Severity) String() string {
	switch s {
	case Emergency:
		return "emergency"
	case Alert:
		return "alert"
	case Critical:
		return "critical"
	case Error:
		return "error"
	case Warning:
		return "warning"
	case Notice:
		return "notice"
	case Informational:
		return "info"
	default:
		return "debug"
	}
}

// ParseSeverity understands String's names in any case, and those that others
// use for the same: emerg, panic, crit, err, warn, informational, information.
func ParseSeverity(name string) (Severity, bool) {
	switch strings.ToLower(name) {
	case "emergency", "emerg", "panic":
		return Emergency, true
	case "alert":
		return Alert, true
	case "critical", "crit":
		return Critical, true
	case "error", "err":
		return Error, true
	case "warning", "warn":
		return Warning, true
	case "notice":
		return Notice, true
	case "info", "informational", "information":
		return Informational, true
	case "debug":
		return Debug, true
	}
	return Debug, false
}

// String is the short name of a facility, as syslog(3) and rsyslog have it:
// kern, user, daemon, local0 …
func (f Facility) String() string {
	names := [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
		"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
	if int(f) < len(names) {
		return names[f]
	}
	return strconv.Itoa(int(f))
}
