package core

import (
	"io"
	"net/http"
	"net/url"
	"time"

	"berth/appliance/fault"
	"berth/services/logs"
)

// logRoutes are what the log service keeps. They are for system administrators:
// messages tell who does what in every project.
var logRoutes = []route{
	{"GET", berth + "/logs", sysadmins(), "Find log messages, the newest first", handle((*API).findLogs)},
	{"GET", berth + "/logs/tail", sysadmins(), "Follow log messages, as server-sent events", handle((*API).tailLogs)},
	{"GET", berth + "/logs/stats", sysadmins(), "Tell what the log service has, and what it had to drop", handle((*API).logStats)},
	{"GET", berth + "/logs/collectors", sysadmins(), "List the collectors that messages are forwarded to", handle((*API).listCollectors)},
	{"POST", berth + "/logs/collectors/{collector_name}/test", sysadmins(), "Send a test message to a collector", handle((*API).testCollector)},
}

// logFilter says which messages are wanted. The log service reads and checks it.
type logFilter struct {
	Component string `query:"component" doc:"registry, token, core, jobs, logs, proxy, postgres, sshd …; may be repeated"`
	Level     string `query:"level" doc:"the least severe that is wanted: error, warning, notice, info, debug …"`
	Since     string `query:"since" doc:"a time (RFC 3339), or how long ago: 90s, 2h, 7d"`
	Until     string `query:"until" doc:"as since"`
	Text      string `query:"text" doc:"a part of the message, in any case"`
	Request   string `query:"request" doc:"the id of a request, of the request that got its token, or of a trace"`
	Attribute string `query:"attr" doc:"key=value; may be repeated"`
}

type logSearch struct {
	logFilter
	Order  string `query:"order" doc:"newest (default) or oldest first"`
	Limit  string `query:"limit" doc:"of messages on a page"`
	Cursor string `query:"cursor" doc:"next of the page before"`
}

type logTail struct {
	logFilter
	From string `query:"from" doc:"the number of the message to begin with; what comes from now on if absent. Last-Event-ID goes before it"`
}

// logService is how the log service is asked, if there is one.
func (a *API) logService() (*logs.Client, error) {
	if a.Logs == nil {
		return nil, fault.New(fault.Precondition, "the log service is turned off").WithHint("logs.off in the settings file does that")
	}
	return a.Logs, nil
}

func (a *API) findLogs(r *request, _ logSearch) (rawJSON, error) {
	return a.askLogs(r, http.MethodGet, "/messages")
}
func (a *API) logStats(r *request, _ none) (rawJSON, error) {
	return a.askLogs(r, http.MethodGet, "/stats")
}
func (a *API) listCollectors(r *request, _ none) (rawJSON, error) {
	return a.askLogs(r, http.MethodGet, "/collectors")
}

type namedCollector struct {
	Name string `path:"collector_name"`
}

func (a *API) testCollector(r *request, in namedCollector) (rawJSON, error) {
	return a.askLogs(r, http.MethodPost, "/collectors/"+url.PathEscape(in.Name)+"/test")
}

func (a *API) askLogs(r *request, method, path string) (rawJSON, error) {
	c, err := a.logService()
	if err != nil {
		return nil, err
	}
	b, err := c.Raw(r.Context(), method, path, r.URL.Query())
	return rawJSON(b), err
}

func (a *API) tailLogs(r *request, _ logTail) (stream, error) {
	c, err := a.logService()
	if err != nil {
		return stream{}, err
	}
	body, err := c.Events(r.Context(), r.URL.Query(), r.Header.Get("Last-Event-ID"))
	return stream{"text/event-stream", body}, err
}

// stream is a body that goes on for as long as the client stays.
type stream struct {
	contentType string
	body        io.ReadCloser
}

// copy sends what comes at once.
func (s stream) copy(w http.ResponseWriter) {
	defer s.body.Close()
	w.Header().Set("Content-Type", s.contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	to := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		if err := to.Flush(); err != nil {
			return
		}
		n, err := s.body.Read(buf)
		if n > 0 {
			// A client that does not read is not waited for.
			if to.SetWriteDeadline(time.Now().Add(streamPatience)) != nil {
				return
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// streamPatience is how long a stream's client may take to read something.
const streamPatience = 30 * time.Second
