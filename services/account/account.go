// Package account knows the users and robots, and checks who a caller is.
//
// Authenticate is on the path of every request with basic auth, so a verified
// credential is remembered in memory for a few minutes, under a keyed hash.
// Any change of an account makes every process forget it at once: the tables'
// triggers notify the channel berth_accounts, which Run listens to. While Run
// cannot listen, credentials are remembered for seconds only.
//
// Passwords are stored as argon2id, robots' random secrets as a keyed hash.
// Nothing here logs or returns either.
package account

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"berth/appliance/secret"
	"berth/services/database"
	"berth/services/event"
)

// Store is the accounts in the database and what this process remembers of them.
type Store struct {
	pool    *pgxpool.Pool
	outbox  *event.Outbox
	robots  []byte // keys the hash of robots' secrets
	process []byte // keys the names under which credentials are remembered; random

	cache   *cache
	backoff *backoff
	hasher  *hasher
	flights singleflight.Group

	usedMu sync.Mutex
	used   map[int64]time.Time // robots' last use, not written yet
}

// New makes a store. Its Run should run as long as it is used.
func New(pool *pgxpool.Pool, key secret.Key, outbox *event.Outbox) *Store {
	process := make([]byte, 32)
	rand.Read(process) // never fails (crypto/rand, Go 1.24)
	return &Store{
		pool: pool, outbox: outbox, robots: key.For("robot secret"), process: process,
		cache: newCache(), backoff: newBackoff(), hasher: newHasher(), used: map[int64]time.Time{},
	}
}

// Run listens for changes of accounts and writes down when robots were last
// used, until ctx is done. Without it the store works, but remembers briefly.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.listen(ctx) })
	g.Go(func() error { return s.writeUses(ctx) })
	return g.Wait()
}

// listen keeps a connection that hears of changes. Whenever there is none, or a
// new one, what is remembered may be out of date and is dropped.
func (s *Store) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		err := s.hear(ctx)
		s.cache.deaf()
		if ctx.Err() != nil {
			break
		}
		if err != nil && !database.Down(err) {
			return fmt.Errorf("cannot listen for changes of accounts: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func (s *Store) hear(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN berth_accounts"); err != nil {
		return err
	}
	s.cache.hearing()
	for {
		// A server that vanished without a word is noticed by the ping.
		quiet, cancel := context.WithTimeout(ctx, 20*time.Second)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			s.forget(n.Payload)
		case ctx.Err() != nil || quiet.Err() == nil:
			return err
		default:
			if err := conn.Ping(ctx); err != nil {
				return err
			}
		}
	}
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
