package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"

	"berth/appliance/fault"
	"berth/services/configuration"
	"berth/services/query"
	"berth/services/task"
	"berth/services/webhook"
)

func TestNotificationsOff(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback)
	var off configuration.Change
	check(t, json.Unmarshal([]byte(`{"notification_enable":false}`), &off))
	check(t, b.settings.Update(t.Context(), off))
	url, _ := target(t, false, 200)
	id := b.policy([]webhook.Target{{Type: "http", Address: url}}, "PUSH_ARTIFACT")
	check(t, b.hooks.Consume(t.Context(), push()))
	page, err := b.tasks.Executions(t.Context(), task.Of{Vendor: task.Webhook, VendorID: id}, query.Query{})
	if err != nil || page.Total != 0 {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestTestDelivery(t *testing.T) {
	t.Parallel()
	b := setup(t, loopback).run()
	url, got := target(t, false, 200)
	id := b.policy([]webhook.Target{{Type: "http", Address: url}}, "DELETE_ARTIFACT")
	execution, err := b.hooks.Test(t.Context(), 1, id)
	check(t, err)
	if r := wait(t, got); !strings.Contains(r.body, `"type":"DELETE_ARTIFACT"`) || !strings.Contains(r.body, "nothing has happened") {
		t.Errorf("%s", r.body)
	}
	if e, _, _ := b.ends(id, task.Success); e.ID != execution || e.Trigger != task.Manual {
		t.Errorf("%+v", e)
	}
	if _, err := b.hooks.Test(t.Context(), 2, id); !fault.Is(err, fault.NotFound) {
		t.Errorf("another project's: %v", err)
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ok := webhook.Policy{ProjectID: 1, Name: "p", EventTypes: []string{"PUSH_ARTIFACT"}, Targets: []webhook.Target{{Type: "http", Address: "https://h/", Secret: "k1", AuthHeader: "x"}}}
	id, err := b.hooks.Create(t.Context(), ok)
	check(t, err)
	if _, err := b.hooks.Create(t.Context(), ok); !fault.Is(err, fault.Conflict) {
		t.Errorf("twice: %v", err)
	}
	var raw []byte
	check(t, b.pool.QueryRow(t.Context(), `SELECT targets FROM webhook_policies`).Scan(&raw))
	if strings.Contains(string(raw), "https://h/") || strings.Contains(string(raw), "k1") {
		t.Error("targets are not sealed")
	}
	// A secret stays until it is changed or taken away.
	secretOf := func() string {
		p, err := b.hooks.Get(t.Context(), 1, id)
		check(t, err)
		return p.Targets[0].Secret + p.Targets[0].PayloadFormat
	}
	ok.ID, ok.Targets[0].Secret = id, ""
	check(t, b.hooks.Update(t.Context(), ok, nil))
	if got := secretOf(); got != "k1Default" {
		t.Error(got)
	}
	check(t, b.hooks.Update(t.Context(), ok, map[int]bool{0: true}))
	if got := secretOf(); got != "Default" {
		t.Error(got)
	}
	for field, change := range map[string]func(*webhook.Policy){
		"name":                   func(p *webhook.Policy) { p.Name = " " },
		"event_types":            func(p *webhook.Policy) { p.EventTypes = []string{"NOPE"} },
		"targets":                func(p *webhook.Policy) { p.Targets = nil },
		"targets.type":           func(p *webhook.Policy) { p.Targets[0].Type = "pigeon" },
		"targets.address":        func(p *webhook.Policy) { p.Targets[0].Address = "ftp://h" },
		"targets.payload_format": func(p *webhook.Policy) { p.Targets[0].PayloadFormat = "XML" },
		"targets.auth_header":    func(p *webhook.Policy) { p.Targets[0].AuthHeader = "a\r\nX-Evil: b" },
	} {
		p := ok
		p.Targets = []webhook.Target{ok.Targets[0]}
		change(&p)
		if f := fault.Of(b.hooks.Update(t.Context(), p, nil)); f == nil || f.Kind != fault.Invalid || f.Field != field {
			t.Errorf("%s: %+v", field, f)
		}
	}
	ok.ProjectID = 2
	for _, err := range []error{b.hooks.Update(t.Context(), ok, nil), b.hooks.Delete(t.Context(), 2, id), b.hooks.Delete(t.Context(), 1, 99)} {
		if !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	}
}
