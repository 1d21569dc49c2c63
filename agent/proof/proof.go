// Package proof shows that somebody administers this virtual machine.
//
// Who has lost the appliance's passwords but may edit the VM in vCenter owns it all
// the same. He is given a code, on the VM's console alone, and sets it as the VM's
// advanced setting guestinfo.berth.reset; the guest sees it there. Neither half is
// enough by itself: whoever only looks at the console cannot set it, and whoever
// only edits VMs, or runs a program in the guest, does not know it.
package proof

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/guestinfo"
	"berth/appliance/secret"
)

// Variable is where the code has to be set.
const Variable = "guestinfo.berth.reset"

// Life is how long a code is good for. It outlasts a restart, since the vSphere
// Client may want the machine off before it lets anybody edit its settings.
const Life = time.Hour

const file = "reset.json"

// Proof is one attempt to show it. It is for concurrent use.
type Proof struct {
	path string
	info *guestinfo.Client
	now  func() time.Time
	mu   sync.Mutex
}

// New makes a Proof whose code is kept below dir.
func New(dir string, info *guestinfo.Client, now func() time.Time) *Proof {
	if now == nil {
		now = time.Now
	}
	return &Proof{path: filepath.Join(dir, file), info: info, now: now}
}

type kept struct {
	Code  string    `json:"code"`
	Until time.Time `json:"until"`
}

// Begin gives the code, the one from before if its time is not up. It fails where
// there is no guestinfo, for then nothing could be shown.
func (p *Proof) Begin(ctx context.Context) (secret.Text, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.info.Get(ctx, Variable); err != nil && !fault.Is(err, fault.NotFound) {
		return "", fault.Wrap(fault.Unavailable, err, "this machine has no connection to vSphere through VMware Tools").
			WithHint("see whether open-vm-tools runs; without it, lost passwords cannot be set anew")
	}
	if k, ok := p.read(); ok {
		return secret.Text(k.Code), nil
	}
	raw := strings.ToUpper(secret.Random(16).Reveal())
	k := kept{raw[:4] + "-" + raw[4:8] + "-" + raw[8:12] + "-" + raw[12:], p.now().Add(Life)}
	b, err := json.Marshal(k)
	if err == nil {
		err = durable.WriteFile(p.path, b, 0o600)
	}
	return secret.Text(k.Code), err
}

// read gives the code that is still good.
func (p *Proof) read() (kept, bool) {
	var k kept
	b, err := os.ReadFile(p.path)
	if err != nil || json.Unmarshal(b, &k) != nil || len(k.Code) < 16 {
		return kept{}, false
	}
	// A clock that was set back must not make it good for longer.
	left := k.Until.Sub(p.now())
	return k, left > 0 && left <= Life
}

// Shown reports whether the code has been set. Then it is used up, and the
// variable is emptied.
func (p *Proof) Shown(ctx context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, ok := p.read()
	if !ok {
		return false, fault.New(fault.Precondition, "the code is no longer good").WithHint("leave this page and come back for a new one")
	}
	set, err := p.info.Get(ctx, Variable)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if subtle.ConstantTimeCompare([]byte(strings.ToUpper(strings.TrimSpace(set))), []byte(k.Code)) != 1 {
		return false, fault.New(fault.Invalid, "%s has another value than the code", Variable)
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err // used up must be used up
	}
	_ = p.info.Set(ctx, Variable, "") // it is worth nothing any more
	return true, nil
}
