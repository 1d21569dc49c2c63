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

func fillArtifacts(ctx context.Context, st *stage) error {
	return st.server.(*server.Berth).Artifacts(ctx, st.repos[0], st.rows)
}

// artifactPage asks for pages all over a repository's list.
func artifactPage(ctx context.Context, st *stage, c *load.Client, i int) error {
	return c.Get(ctx, fmt.Sprintf("/api/v2.0/projects/library/repositories/api-artifacts/artifacts?with_tag=true&with_label=true&page_size=100&page=%d",
		1+i*7919%(st.rows/100)), -1)
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

// hook makes a project whose pushes are told to a server of ours.
func hook(ctx context.Context, st *stage) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	st.heard = make(chan struct{}, 100)
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { st.heard <- struct{}{} })}
	go srv.Serve(l)
	st.ends = func() { srv.Close() }
	if err := st.server.(*server.Berth).Webhook(ctx, "hooked", "http://"+l.Addr().String()); err != nil {
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
