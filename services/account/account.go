// Package account knows the users and robots, and checks who a caller is.
//
// Authenticate is on the path of every request with basic auth, so a verified
// credential is remembered in memory for a few minutes, under a keyed hash.
// Any change of an account makes every process forget it at once: the tables'
// triggers notify the channel berth_accounts, which Run listens to. While Run
// cannot listen, credentials are remembered for seconds only.
//
// Passwords are stored as argon2id, random secrets (robots', personal access
// tokens) as a keyed hash, and what its owner may look at again (an OIDC user's
// CLI secret) sealed. Nothing here logs any of them.
//
// A user has a source. Local users have a password here. Users of an LDAP
// directory log in with their password there, and are made here at their first
// login; users of an OIDC provider log in at the provider, and elsewhere with
// their CLI secret. Each login refreshes what is known of the user: e-mail
// address, groups, and whether a group makes the user system administrator. The
// setting auth_mode says where users who are not known yet are looked for.
package account

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/singleflight"

	"berth/appliance/backoff"
	"berth/appliance/secret"
	"berth/services/configuration"
	"berth/services/database"
	"berth/services/directory"
	"berth/services/event"
	"berth/services/metric"
)

// Store is the accounts in the database and what this process remembers of them.
type Store struct {
	pool    *pgxpool.Pool
	outbox  *event.Outbox
	key     secret.Key
	robots  []byte // keys the hash of robots' secrets
	tokens  []byte // keys the hash of personal access tokens
	process []byte // keys the names under which credentials are remembered; random

	cache   *cache
	backoff *backoff.Backoff
	hasher  *hasher
	flights singleflight.Group

	usedMu sync.Mutex
	used   map[used]time.Time // last uses that are not written yet

	hits   metric.Hits
	logins logins

	settings  *configuration.Store // nil: all users are local
	directory Directory
}

// Directory is where the users of ldap_auth are.
type Directory interface {
	// Login gives the person that a name and a password are right for. Its fault
	// is Unauthenticated if they are not, and another if it cannot tell.
	Login(ctx context.Context, username, password string) (directory.Person, error)
	// Find gives the person of a login name. Its fault is NotFound if there is
	// none, and another if it cannot tell.
	Find(ctx context.Context, username string) (directory.Person, error)
}

// Consult makes the store follow the settings' authentication mode, and ask a
// directory for the users of ldap_auth. It is called before the store is used.
func (s *Store) Consult(settings *configuration.Store, d Directory) {
	s.settings, s.directory = settings, d
}

// New makes a store. Its Channel should be listened to, and WriteUses run, as long
// as it is used.
func New(pool *pgxpool.Pool, key secret.Key, outbox *event.Outbox) *Store {
	process := make([]byte, 32)
	rand.Read(process) // never fails (crypto/rand, Go 1.24)
	return &Store{
		pool: pool, outbox: outbox, key: key, robots: key.For("robot secret"), tokens: key.For("personal access token"), process: process,
		logins: newLogins(nil), cache: newCache(), backoff: backoff.New(), hasher: newHasher(), used: map[used]time.Time{},
	}
}

// Channel tells of changes of accounts. Whenever nothing can be heard, and when
// it can again, what is remembered may be out of date and is dropped. Without it
// the store works, but remembers briefly.
func (s *Store) Channel() database.Channel {
	return database.Channel{Name: "berth_accounts", Heard: s.forget, State: func(hearing bool) {
		if hearing {
			s.cache.hearing()
		} else {
			s.cache.deaf()
		}
	}}
}

// forget drops what is remembered of an account: "user <name>", "robot <login>"
// or "all".
func (s *Store) forget(account string) {
	if account == "all" {
		s.cache.clear()
		return
	}
	s.cache.forget(account)
}

// The names under which accounts are remembered; the triggers on users and
// robots build the same.
func userAccount(name string) string   { return "user " + strings.ToLower(name) }
func robotAccount(login string) string { return "robot " + login }
