package webhook

import (
	"encoding/json"
	"testing"

	"berth/services/event"
)

// Whatever names and notices events carry, each format is valid JSON, and Slack's
// texts are short enough and mention nobody.
func FuzzPayload(f *testing.F) {
	f.Add("library/app", "1.0", "jane", `{"custom_attributes":{"Details":"x"}}`)
	f.Add("a/<!channel>", "```", "&", `{"retention":{}}`)
	f.Add("", "", "", "")
	f.Fuzz(func(t *testing.T, repo, tag, user, extra string) {
		e := event.Event{Repository: repo, Tag: tag, Digest: "sha256:00", User: user}
		if json.Valid([]byte(extra)) && len(extra) > 0 && extra[0] == '{' {
			e.Notice = json.RawMessage(extra)
		}
		p, err := payloadOf("PUSH_ARTIFACT", e, place{project: "library"}, "reg")
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		n := notice{Type: p.Type, Payload: string(text)}
		for _, target := range []Target{{Type: HTTP, PayloadFormat: Default}, {Type: HTTP, PayloadFormat: CloudEvents}, {Type: Slack}} {
			body, _, err := n.body(target, 1, 2)
			if err != nil || !json.Valid(body) {
				t.Errorf("%s %s: %s, %v", target.Type, target.PayloadFormat, body, err)
			}
		}
		body, err := slackMessage(p)
		var m struct {
			Blocks []struct{ Text struct{ Text string } }
		}
		if err != nil || json.Unmarshal(body, &m) != nil {
			t.Fatal(err)
		}
		for _, b := range m.Blocks {
			if len([]rune(b.Text.Text)) > 3000 && len(user) < 1000 {
				t.Errorf("%d characters", len(b.Text.Text))
			}
		}
	})
}
