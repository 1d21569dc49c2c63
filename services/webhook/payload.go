package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"berth/services/event"
)

// Payload is what Harbor's default format has. CloudEvents carries its
// event_data.
type Payload struct {
	Type     string          `json:"type"`
	OccurAt  int64           `json:"occur_at"` // Unix seconds
	Operator string          `json:"operator"`
	Data     json.RawMessage `json:"event_data,omitempty"`
}

// eventData is Harbor's event_data of what happens to artifacts.
type eventData struct {
	Resources  []resource  `json:"resources,omitempty"`
	Repository *repository `json:"repository,omitempty"`
}

type resource struct {
	Digest string `json:"digest,omitempty"`
	Tag    string `json:"tag"` // the digest, if it has none
	URL    string `json:"resource_url,omitempty"`
}

type repository struct {
	Created   int64  `json:"date_created,omitempty"` // Unix seconds
	Name      string `json:"name"`                   // without the project
	Namespace string `json:"namespace"`              // the project
	FullName  string `json:"repo_full_name"`
	Type      string `json:"repo_type"` // public or private
}

// typeOf gives the type of webhook event that an event is; "" is none.
func typeOf(e event.Event) string {
	switch e.Operation + " " + e.ResourceType {
	case "create artifact":
		return "PUSH_ARTIFACT"
	case "pull artifact":
		return "PULL_ARTIFACT"
	case "delete artifact", "delete repository":
		return "DELETE_ARTIFACT"
	case event.QuotaExceed + " quota":
		return "QUOTA_EXCEED"
	case event.QuotaWarning + " quota":
		return "QUOTA_WARNING"
	case event.Retained + " tag_retention":
		return "TAG_RETENTION"
	}
	return ""
}

// place is what a payload says of where an event happened.
type place struct {
	project string
	public  bool
	created time.Time // of the repository; zero: it has none, or is gone
}

func payloadOf(kind string, e event.Event, at place, host string) (Payload, error) {
	var d eventData
	if e.Repository != "" {
		d.Repository = &repository{Namespace: at.project, FullName: e.Repository, Name: strings.TrimPrefix(e.Repository, at.project+"/"), Type: "private"}
		if at.public {
			d.Repository.Type = "public"
		}
		if !at.created.IsZero() {
			d.Repository.Created = at.created.Unix()
		}
	}
	list := e.Artifacts
	if len(list) == 0 && e.Digest != "" {
		list = []event.Artifact{{Digest: e.Digest, Tag: e.Tag}}
	}
	for _, a := range list {
		r := resource{Digest: a.Digest, Tag: a.Tag, URL: host + "/" + e.Repository + ":" + a.Tag}
		if a.Tag == "" {
			r.Tag, r.URL = a.Digest, host+"/"+e.Repository+"@"+a.Digest
		}
		d.Resources = append(d.Resources, r)
	}
	more := e.Notice
	if more == nil && e.ResourceType == "quota" {
		var err error
		if more, err = json.Marshal(map[string]any{"custom_attributes": map[string]string{"Details": e.Description}}); err != nil {
			return Payload{}, err
		}
	}
	data, err := merge(d, more)
	return Payload{kind, e.Time.Unix(), e.User, data}, err
}

// merge adds the fields of a notice to an event's data.
func merge(d eventData, notice json.RawMessage) (json.RawMessage, error) {
	data, err := json.Marshal(d)
	if err != nil || len(notice) == 0 {
		return data, err
	}
	var fields, more map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(notice, &more); err != nil {
		return nil, fmt.Errorf("a notice is not a JSON object: %w", err)
	}
	for k, v := range more {
		fields[k] = v
	}
	return json.Marshal(fields)
}

// cloudTypes are the types of CloudEvents, by Harbor's.
var cloudTypes = map[string]string{
	"PUSH_ARTIFACT": "harbor.artifact.pushed", "PULL_ARTIFACT": "harbor.artifact.pulled", "DELETE_ARTIFACT": "harbor.artifact.deleted",
	"QUOTA_EXCEED": "harbor.quota.exceeded", "QUOTA_WARNING": "harbor.quota.warned", "REPLICATION": "harbor.replication.status.changed",
	"SCANNING_FAILED": "harbor.scan.failed", "SCANNING_COMPLETED": "harbor.scan.completed", "SCANNING_STOPPED": "harbor.scan.stopped",
	"TAG_RETENTION": "harbor.tag_retention.finished",
}

// cloudEvent is CloudEvents 1.0 in the JSON format, structured mode. Its id is
// the event's, so that a receiver knows one that comes twice.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	ContentType string          `json:"datacontenttype"`
	Time        time.Time       `json:"time"`
	Data        json.RawMessage `json:"data,omitempty"`
	Operator    string          `json:"operator,omitempty"`
	RequestID   string          `json:"requestid,omitempty"`
}

// notice is what an execution carries: all that its deliveries say.
type notice struct {
	Type      string    `json:"event_type"`
	Payload   string    `json:"payload"` // a Payload, as JSON: Harbor's portal shows it
	EventID   uuid.UUID `json:"event_id"`
	RequestID string    `json:"request_id,omitempty"`
	// TokenRequest is that of the event (see event.Origin).
	TokenRequest string `json:"token_request,omitempty"`
	Trace        string `json:"trace,omitempty"`
}

// body renders what a target of a policy is sent, and its media type.
func (n notice) body(t Target, project, policy int64) (body []byte, contentType string, err error) {
	if t.Type == HTTP && t.PayloadFormat != CloudEvents {
		return []byte(n.Payload), "application/json", nil
	}
	var p Payload
	if err := json.Unmarshal([]byte(n.Payload), &p); err != nil {
		return nil, "", fmt.Errorf("cannot read the payload of a delivery: %w", err)
	}
	if t.Type == Slack {
		body, err = slackMessage(p)
		return body, "application/json", err
	}
	body, err = json.Marshal(cloudEvent{
		SpecVersion: "1.0", ID: n.EventID.String(), Source: fmt.Sprintf("/projects/%d/webhook/policies/%d", project, policy),
		Type: cloudTypes[n.Type], ContentType: "application/json", Time: time.Unix(p.OccurAt, 0).UTC(), Data: p.Data,
		Operator: p.Operator, RequestID: n.RequestID,
	})
	return body, "application/cloudevents+json", err
}

// maxSlackText is Slack's limit of a section's text, less the fence around it.
const maxSlackText = 3000 - 20

// slackMessage says the same in Slack's blocks.
func slackMessage(p Payload) ([]byte, error) {
	type mrkdwn struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	type block struct {
		Type string `json:"type"`
		Text mrkdwn `json:"text"`
	}
	section := func(format string, args ...any) block {
		return block{"section", mrkdwn{"mrkdwn", fmt.Sprintf(format, args...)}}
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, p.Data, "", "  "); err != nil {
		pretty.Reset()
		pretty.Write(p.Data)
	}
	data := slackEscape.Replace(pretty.String())
	if len(data) > maxSlackText {
		data = strings.ToValidUTF8(data[:maxSlackText], "") + "\n…"
	}
	at := time.Unix(p.OccurAt, 0).UTC().Format(time.RFC1123)
	return json.Marshal(struct {
		Text   string  `json:"text"` // what a notification shows
		Blocks []block `json:"blocks"`
	}{"Registry: " + p.Type, []block{
		section("*Registry event* `%s`", p.Type),
		section("*When:* <!date^%d^{date_num} {time_secs}|%s>", p.OccurAt, at),
		section("*Who:* %s", slackEscape.Replace(p.Operator)),
		section("```%s```", strings.ReplaceAll(data, "```", "'''")),
	}})
}

// slackEscape keeps what users have named from becoming mentions and links.
var slackEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
