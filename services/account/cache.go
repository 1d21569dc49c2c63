package account

import (
	"sync"
	"time"

	"berth/services/access"
)

// How long a credential is remembered: the rule, and while changes of accounts
// cannot be heard of.
const (
	rememberFor     = 5 * time.Minute
	rememberForDeaf = 5 * time.Second
)

// maxRemembered bounds each of the cache's two halves.
const maxRemembered = 4096

// credential is the keyed hash of a user name and a password.
type credential [32]byte

// verdict is what became of a credential.
type verdict struct {
	account   string // see userAccount
	principal access.Principal
	ok        bool
	expires   time.Time
}

// cache remembers verdicts. The bad ones are remembered too, in a half of their
// own so that guesses cannot push the good ones out: a machine that repeats an
// old password then costs no hashing and is not taken for one that guesses.
type cache struct {
	mu       sync.Mutex
	good     map[credential]verdict
	bad      map[credential]verdict
	lifetime time.Duration
	changes  uint64 // counts what has been forgotten
}

func newCache() *cache {
	return &cache{good: map[credential]verdict{}, bad: map[credential]verdict{}, lifetime: rememberForDeaf}
}

func (c *cache) get(k credential, now time.Time) (verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.good[k]
	if !ok {
		v, ok = c.bad[k]
	}
	return v, ok && now.Before(v.expires)
}

// version is asked before an account is read from the database; put compares it.
func (c *cache) version() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// put remembers v, unless something was forgotten since version: then v may
// have been read before the change that is to be forgotten.
func (c *cache) put(k credential, v verdict, version uint64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != version {
		return
	}
	if end := now.Add(c.lifetime); v.expires.IsZero() || v.expires.After(end) {
		v.expires = end
	}
	half := c.bad
	if v.ok {
		half = c.good
	}
	if len(half) >= maxRemembered {
		makeRoom(half, now)
	}
	half[k] = v
}

// makeRoom drops what has expired, or else any sixteenth.
func makeRoom(half map[credential]verdict, now time.Time) {
	for k, v := range half {
		if !now.Before(v.expires) {
			delete(half, k)
		}
	}
	for k := range half { // in random order
		if len(half) < maxRemembered*15/16 {
			return
		}
		delete(half, k)
	}
}

func (c *cache) forget(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	for _, half := range []map[credential]verdict{c.good, c.bad} {
		for k, v := range half {
			if v.account == account {
				delete(half, k)
			}
		}
	}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

func (c *cache) drop() {
	c.changes++
	clear(c.good)
	clear(c.bad)
}

// hearing says that changes are heard of from now on.
func (c *cache) hearing() { c.restart(rememberFor) }

// deaf says that changes are not heard of.
func (c *cache) deaf() { c.restart(rememberForDeaf) }

func (c *cache) restart(lifetime time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
	c.lifetime = lifetime
}
