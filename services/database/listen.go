package database

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Listen keeps a connection of its own that hears the notifications of a channel
// (LISTEN), until ctx ends. state is told when notifications begin to come and
// when they may be missed: whatever depends on them is then out of date. heard is
// given each payload. Both are called from one goroutine.
func Listen(ctx context.Context, pool *pgxpool.Pool, channel string, state func(hearing bool), heard func(payload string)) error {
	for ctx.Err() == nil {
		err := listen(ctx, pool, channel, state, heard)
		state(false)
		if ctx.Err() != nil {
			break
		}
		if err != nil && !Down(err) {
			return fmt.Errorf("cannot listen on %s: %w", channel, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// quietPing is how long a silent connection is believed to be alive.
const quietPing = 20 * time.Second

func listen(ctx context.Context, pool *pgxpool.Pool, channel string, state func(bool), heard func(string)) error {
	conn, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	state(true)
	for {
		// A server that vanished without a word is noticed by the ping.
		quiet, cancel := context.WithTimeout(ctx, quietPing)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			heard(n.Payload)
		case ctx.Err() != nil || quiet.Err() == nil:
			return err
		default:
			if err := conn.Ping(ctx); err != nil {
				return err
			}
		}
	}
}
