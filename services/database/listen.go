package database

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Channel is what a process wants to hear of (NOTIFY). Its functions are called
// from one goroutine.
type Channel struct {
	Name string
	// State is told when notifications begin to come, and when they may be missed:
	// whatever depends on them is then out of date.
	State func(hearing bool)
	// Heard is given each payload.
	Heard func(payload string)
}

// Listen keeps one connection that hears of all these channels, until ctx ends.
func Listen(ctx context.Context, pool *pgxpool.Pool, channels ...Channel) error {
	for ctx.Err() == nil {
		err := listen(ctx, pool, channels)
		tell(channels, false)
		if ctx.Err() != nil {
			break
		}
		if err != nil && !Down(err) {
			return fmt.Errorf("cannot listen to notifications: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

func tell(channels []Channel, hearing bool) {
	for _, c := range channels {
		c.State(hearing)
	}
}

// quietPing is how long a silent connection is believed to be alive.
const quietPing = 20 * time.Second

func listen(ctx context.Context, pool *pgxpool.Pool, channels []Channel) error {
	conn, err := pgx.ConnectConfig(ctx, pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	heard := map[string]func(string){}
	for _, c := range channels {
		if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{c.Name}.Sanitize()); err != nil {
			return err
		}
		heard[c.Name] = c.Heard
	}
	tell(channels, true)
	for {
		// A server that vanished without a word is noticed by the ping.
		quiet, cancel := context.WithTimeout(ctx, quietPing)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			heard[n.Channel](n.Payload)
		case ctx.Err() != nil || quiet.Err() == nil:
			return err
		default:
			if err := conn.Ping(ctx); err != nil {
				return err
			}
		}
	}
}
