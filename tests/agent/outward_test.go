package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"time"

	"berth/appliance/webproxy/webproxytest"
	"berth/tests/berthtest"
)

// api asks the registry's REST API as its administrator.
func (a appliance) api(method, path, body string, want int) string {
	a.t.Helper()
	code, got := a.ask(method, "/api/v2.0"+path, "application/json", body)
	if code != want {
		a.t.Fatalf("%s %s: %d %s", method, path, code, got)
	}
	return got
}

// What the administrator sets for the proxy is in force at once: a webhook for a name that the proxy alone knows arrives.
// No push is cut off by it, and the password is nowhere but where it must be.
func outward(a appliance) {
	arrived := make(chan string, 100)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		arrived <- r.Header.Get("Proxy-Authorization") + string(b)
	}))
	a.t.Cleanup(target.Close)
	l, err := a.Listen(a.t.Context(), "tcp", a.Net(1).String()+":0")
	if err != nil {
		a.t.Fatal(err)
	}
	p := webproxytest.StartOn(a.t, l, map[string]string{"hooks.example.com": target.Listener.Addr().String()})
	a.api("POST", "/projects/library/webhook/policies", `{"name":"out","enabled":true,"event_types":["PUSH_ARTIFACT"],
		"targets":[{"type":"http","address":"http://hooks.example.com/hook"}]}`, http.StatusCreated)
	set := func(password string, args ...string) {
		a.t.Helper()
		if out, err := a.Input(password+"\n", "berth-agent", append([]string{"proxy", "set"}, args...)...); err != nil {
			a.t.Fatalf("%s %v", out, err)
		}
	}
	a.during(func() {
		set("wrong-9Q", "--http", p.URL, "--username", webproxytest.Username, "--password-file", "-")
	})
	if out, err := a.Try("berth-agent", "proxy", "test", "http://hooks.example.com/"); err == nil || !strings.Contains(out, "does not accept the user name") {
		a.t.Errorf("%s %v", out, err)
	}
	registry := berthtest.NewRegistry("https://"+a.Address().String(), berthtest.Login{User: "admin", Password: registryPassword}, a.Client(nil))
	registry.PushImage(a.t, "library/outward", "refused", berthtest.NewImage(1, 1000))
	a.Wait(a.t, "the webhook is refused by the proxy", 30*time.Second, func() error {
		var jobs []struct {
			Status string
			ID     int64
		}
		var policies []struct{ ID int64 }
		if err := json.Unmarshal([]byte(a.api("GET", "/projects/library/webhook/policies", "", 200)), &policies); err != nil || len(policies) != 1 {
			return fmt.Errorf("%+v, %w", policies, err)
		}
		at := fmt.Sprintf("/projects/library/webhook/policies/%d/executions", policies[0].ID)
		text := a.api("GET", at, "", 200)
		if err := json.Unmarshal([]byte(text), &jobs); err != nil || len(jobs) != 1 || jobs[0].Status != "Error" {
			return fmt.Errorf("%s, %w", text, err)
		}
		if text = a.api("GET", fmt.Sprintf("%s/%d/tasks", at, jobs[0].ID), "", 200); !strings.Contains(text, "the proxy "+l.Addr().String()+" does not accept") {
			a.t.Errorf("it says %s", text)
		}
		return nil
	})
	set(webproxytest.Password, "--password-file", "-") // nothing else has changed
	registry.PushImage(a.t, "library/outward", "passed", berthtest.NewImage(2, 1000))
	select {
	case body := <-arrived:
		if !strings.Contains(body, "library/outward:passed") || strings.Contains(body, "Basic") {
			a.t.Errorf("the target got %s", body)
		}
	case <-time.After(30 * time.Second):
		a.t.Errorf("the webhook does not arrive; the proxy was asked for %q", p.Asked())
	}
	if !slices.Contains(p.Asked(), "POST hooks.example.com") {
		a.t.Errorf("the proxy was asked for %q", p.Asked())
	}
	a.nowhere(webproxytest.Password, "wrong-9Q")
	set("", "--http", "", "--username", "")
	a.ready()
}

// nowhere sees that words are in no log, environment, command line or property of a unit.
func (a appliance) nowhere(words ...string) {
	a.t.Helper()
	var all bytes.Buffer
	for _, c := range [][]string{{"journalctl", "--no-pager", "-o", "cat"}, {"berth", "logs", "-n", "5000", "-o", "json"}, {"systemctl", "show", "berth-core", "berth-jobs", "berth-registry", "berth-token"},
		{"sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"}} {
		out, err := a.Try(c[0], c[1:]...)
		if err != nil && out == "" {
			a.t.Errorf("%q: %v", c, err)
		}
		all.WriteString(out)
	}
	for _, word := range words {
		for _, form := range []string{word, url.QueryEscape(word), url.UserPassword("", word).String()[1:]} {
			if strings.Contains(all.String(), form) {
				a.t.Errorf("%q is where everybody reads it", form)
			}
		}
	}
}
