package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"berth/tests/cmd/bench/load"
	"berth/tests/cmd/bench/server"
)

func artifactsRepo(int) []string { return []string{"library/artifacts"} }

func fillArtifacts(ctx context.Context, st *stage) error {
	if !st.once("artifacts") {
		return nil
	}
	return st.server.(*server.Berth).Artifacts(ctx, st.repos[0], st.rows)
}

// artifactPage asks for the first pages of a repository's list, or with 0 for
// pages all over it.
func artifactPage(first int) func(context.Context, *stage, *load.Client, int) error {
	return func(ctx context.Context, st *stage, c *load.Client, i int) error {
		pages := st.rows / 100
		if first > 0 {
			pages = min(first, pages)
		}
		return c.Get(ctx, fmt.Sprintf("/api/v2.0/projects/library/repositories/artifacts/artifacts?with_tag=true&with_label=true&page_size=100&page=%d",
			1+i*7919%pages), -1)
	}
}

func fillTrail(ctx context.Context, st *stage) error {
	return st.server.(*server.Berth).Trail(ctx, st.rows)
}

// trailPage asks for the newest entries, of everybody or of one user.
func trailPage(ctx context.Context, _ *stage, c *load.Client, i int) error {
	path := "/api/v2.0/auditlog-exts?page_size=100"
	if i%2 == 1 {
		path += "&q=operation%3Dpull"
	}
	return c.Get(ctx, path, -1)
}

// hook has the pushes to the project told to a server of ours.
func hook(ctx context.Context, st *stage) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	st.heard = make(chan struct{}, 100)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { st.heard <- struct{}{} })}
	go srv.Serve(l)
	st.ends = func() { srv.Close() }
	if err := st.server.(*server.Berth).Webhook(ctx, "library", "http://"+l.Addr().String()); err != nil {
		return err
	}
	if err := pushOneImage(ctx, st); err != nil {
		return err
	}
	return st.hear(ctx)
}

func pushAndHear(ctx context.Context, st *stage, c *load.Client, i int) error {
	if err := pushManifest(ctx, st, c, i); err != nil {
		return err
	}
	return st.hear(ctx)
}

// hear waits for one delivery.
func (st *stage) hear(ctx context.Context) error {
	select {
	case <-st.heard:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(30 * time.Second):
		return errors.New("no webhook was delivered within 30 s")
	}
}
