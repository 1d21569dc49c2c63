package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"berth/agent/api"
	"berth/agent/session"
	"berth/agent/wizard"
	"berth/appliance/diskrole"
)

// How the certificate comes about.
const (
	ownCertificate       = "own"
	uploadedCertificate  = "upload"
	requestedCertificate = "request"
)

// A draft is what somebody has answered so far. It is in memory alone, for it has
// passwords in it, and goes with its session.
type draft struct {
	answers     wizard.Answers
	known       []string // secrets that the agent has already, from the OVF environment
	certificate string
	request     string // PEM of the request whose key waits
	seen        map[string]bool
	used        time.Time
}

const (
	maxDrafts = 64        // as many as there are sessions
	draftLife = time.Hour // without a change; a session without a request is shorter
)

type drafts struct {
	mu  sync.Mutex
	all map[string]*draft // by the session's hash
	key [sha256.Size]byte // of mark
}

func newDrafts() *drafts {
	d := &drafts{all: map[string]*draft{}}
	rand.Read(d.key[:]) // never fails (crypto/rand, Go 1.24)
	return d
}

// mark tells a draft's answers from others. The review has it in its form: what is
// applied is what was looked at, also if another window has changed an answer since,
// or the agent has been restarted and has forgotten them. It tells nothing of the
// passwords among them.
func (d *drafts) mark(x *draft) string {
	b, _ := json.Marshal(x.final()) // maps of texts, in the order of their keys
	m := hmac.New(sha256.New, d.key[:])
	m.Write(b)
	return hex.EncodeToString(m.Sum(nil))
}

// of gives a copy of the session's draft, or one that begins with what the agent
// knows.
func (d *drafts) of(s *session.Session, known api.Setup) draft {
	d.mu.Lock()
	defer d.mu.Unlock()
	if have := d.all[s.Hash]; have != nil {
		return have.copy()
	}
	made := draft{certificate: ownCertificate, seen: map[string]bool{}, known: slices.Clone(known.Secrets)}
	for name, value := range known.Answers.Values {
		_ = made.answers.Set(name, value) // what is refused was no answer
	}
	for role, device := range known.Answers.Disks {
		made.answers.Choose(diskrole.Role(role), device)
	}
	if made.answers.Given("tls.certificate") || slices.Contains(made.known, "tls.private_key") {
		made.certificate = uploadedCertificate
	}
	return made
}

func (d *drafts) keep(s *session.Session, next draft) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next.used = time.Now()
	kept := next.copy()
	d.all[s.Hash] = &kept
	for id, x := range d.all {
		if next.used.Sub(x.used) > draftLife {
			delete(d.all, id)
		}
	}
	for len(d.all) > maxDrafts {
		oldest := ""
		for id, x := range d.all {
			if oldest == "" || x.used.Before(d.all[oldest].used) {
				oldest = id
			}
		}
		delete(d.all, oldest)
	}
}

// forget drops a draft: its session has ended, or the appliance has its answers.
func (d *drafts) forget(s *session.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, s.Hash)
}

func (d *draft) copy() draft {
	c := *d
	c.answers = d.answers.Copy()
	c.seen = map[string]bool{}
	for k, v := range d.seen {
		c.seen[k] = v
	}
	return c
}

// given reports whether a question has an answer, here or at the agent.
func (d *draft) given(name string) bool {
	if v, here := d.answers.Values[name]; here {
		return v != ""
	}
	return slices.Contains(d.known, name)
}

// uncertified is the fault of somebody who wants a certificate from elsewhere and has
// given none: the appliance would make one of its own, and nobody had asked for that.
func (d *draft) uncertified() []api.Fault {
	f := api.Fault{Field: "tls.certificate", Text: "there is no certificate yet"}
	switch {
	case d.certificate == ownCertificate || d.given("tls.certificate"):
		return nil
	case d.certificate == requestedCertificate:
		f.Hint = "bring the one that your authority makes of the request; or let the appliance make one, and request yours later"
	default:
		f.Hint = "paste it or choose its file, or let the appliance make one"
	}
	return []api.Fault{f}
}

// final are the answers as the agent gets them: without what belongs to a choice
// that was not made.
func (d *draft) final() api.Answers {
	a := d.answers.Final()
	if d.certificate == ownCertificate {
		for _, name := range []string{"tls.certificate", "tls.private_key", "tls.ca_chain", "tls.key_passphrase"} {
			a.Forget(name)
		}
	}
	if d.certificate == requestedCertificate {
		a.Forget("tls.private_key")
		a.Forget("tls.key_passphrase")
	}
	out := api.Answers{Values: a.Values, Disks: map[string]string{}}
	for role, device := range a.Disks {
		out.Disks[string(role)] = device
	}
	return out
}
