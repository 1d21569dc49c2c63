package main

import (
	"context"
	"fmt"

	"berth/tests/cmd/bench/load"
	"berth/tests/cmd/bench/server"
)

// A stage is one scenario on one server: what it needs there, and the clients.
type stage struct {
	scenario
	server   server.Server
	prepared map[string]bool // what other stages have left to be used again, by server and name
	clients  []*load.Client
	repos    []string // to be authorised for; those of a scenario that pushes are emptied after each round
	ops      int      // of this round

	blobs   []load.Blob   // to pull, or to mount
	fresher []load.Blob   // to push in this round
	images  []load.Image  // to pull, or to push in this round
	source  *load.Source  // of the blobs to push
	serial  int           // of manifests
	pushed  []string      // digests that this round brings
	heard   chan struct{} // a webhook's deliveries
	ends    func()        // what else is to be closed
}

// newStage prepares a scenario.
func newStage(ctx context.Context, srv server.Server, s scenario, prepared map[string]bool) (*stage, error) {
	st := &stage{scenario: s, server: srv, prepared: prepared, repos: []string{"library/" + s.name}}
	if s.repos != nil {
		st.repos = s.repos(s.ops)
	}
	auth, err := st.auth(ctx)
	if err != nil {
		return nil, err
	}
	for range s.workers {
		c, err := load.NewClient(srv.Address(s.secure), srv.Roots(), auth)
		if err != nil {
			return nil, err
		}
		st.clients = append(st.clients, c)
	}
	if s.begin != nil {
		if err := s.begin(ctx, st); err != nil {
			st.close()
			return nil, err
		}
	}
	return st, nil
}

// auth is what the clients send: for the administrator's lists and for tokens a password, else a token.
func (st *stage) auth(ctx context.Context) (string, error) {
	if b, ok := st.server.(*server.Berth); ok && st.admin {
		return b.Basic(), nil
	}
	return st.server.Auth(ctx, st.repos...)
}

// once tells, the first time, that something has to be prepared on this server.
func (st *stage) once(format string, args ...any) bool {
	key := st.server.Name() + " " + fmt.Sprintf(format, args...)
	first := !st.prepared[key]
	st.prepared[key] = true
	return first
}

// freshen makes a round's content.
func (st *stage) freshen(ops int) error {
	st.ops = ops
	if st.fresh != nil {
		return st.fresh(st)
	}
	return nil
}

// brings notes a blob that the round pushes.
func (st *stage) brings(b load.Blob) load.Blob {
	st.pushed = append(st.pushed, b.Digest)
	return b
}

// forget removes it from the server.
func (st *stage) forget(ctx context.Context) error {
	if st.fresh == nil {
		return nil
	}
	st.fresher = nil
	err := st.server.Forget(ctx, st.keep(), st.pushed)
	st.pushed = nil
	if err != nil {
		return fmt.Errorf("cannot remove what the round has pushed: %w", err)
	}
	return nil
}

// keep gives the repositories that Forget may empty: not the one that blobs are mounted or manifests are made from.
func (st *stage) keep() []string {
	if st.lasting {
		return st.repos[1:]
	}
	return st.repos
}

func (st *stage) close() {
	for _, c := range st.clients {
		c.Close()
	}
	if st.ends != nil {
		st.ends()
	}
}
