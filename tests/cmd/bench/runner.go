package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"berth/tests/cmd/bench/load"
	"berth/tests/cmd/bench/server"
	"berth/tests/cmd/bench/usage"
)

// A runner has the servers and measures.
type runner struct {
	options
	dir      string
	progress io.Writer
	servers  []server.Server
	report   report
}

// start makes the machine ready, then the servers.
func (r *runner) start(ctx context.Context) error {
	r.report.Machine.LoadBefore = loadAverage()
	cncf, err := server.CNCFBinary()
	if err != nil {
		return err
	}
	if err := touchMemory(ctx, filepath.Join(r.dir, "scratch"), r.quick); err != nil {
		return err
	}
	fmt.Fprintln(r.progress, "starting the servers in", r.dir)
	b, err := server.StartBerth(ctx, r.dir)
	if err != nil {
		return err
	}
	r.servers = append(r.servers, b)
	pair, err := server.NewKeyPair(r.dir)
	if err != nil {
		return err
	}
	c, err := server.StartCNCF(ctx, r.dir, cncf, pair)
	if err != nil {
		return err
	}
	r.servers = append(r.servers, c)
	bare, err := server.StartBare(ctx, r.dir, pair, bareArg)
	if err != nil {
		return err
	}
	r.servers = append(r.servers, bare)
	return r.report.Machine.fill(ctx, r.dir, b, cncf)
}

// touchMemory writes and removes a file of about what a round writes. In a virtual machine the first touch of a page
// costs as much again as writing it; without this the server that is measured first would pay for all.
func touchMemory(ctx context.Context, path string, quick bool) error {
	size := int64(4 << 30)
	if quick {
		size = 512 << 20
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	buf := make([]byte, 1<<20)
	for n := int64(0); n < size && ctx.Err() == nil; n += int64(len(buf)) {
		if _, err := f.Write(buf); err != nil {
			return fmt.Errorf("cannot write a scratch file of %d MiB: %w", size>>20, err)
		}
	}
	return context.Cause(ctx)
}

func (r *runner) stop() error {
	var errs []error
	for _, s := range r.servers {
		errs = append(errs, s.Stop())
	}
	r.servers = nil
	return errors.Join(errs...)
}

// measure runs the scenarios.
func (r *runner) measure(ctx context.Context) error {
	began := time.Now()
	prepared := map[string]bool{}
	for _, s := range scenarios() {
		if !r.scenarios.MatchString(s.name) {
			continue
		}
		if r.quick {
			s.ops = max(s.ops/10, min(s.ops, s.workers))
			s.rows /= 100
		}
		fmt.Fprintf(r.progress, "%5.0f s  %s\n", time.Since(began).Seconds(), s.title)
		row, err := r.scenario(ctx, s, prepared)
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		r.report.Rows = append(r.report.Rows, row)
	}
	if len(r.report.Rows) == 0 {
		return errors.New("no scenario has such a name; they are " + scenarioNames())
	}
	r.report.Took = time.Since(began).Round(time.Second)
	return nil
}

// scenario measures one on every server that it is for, in turns.
func (r *runner) scenario(ctx context.Context, s scenario, prepared map[string]bool) (row, error) {
	out := row{Name: s.name, Title: s.title, Unit: s.unit, Workers: s.workers, Ops: s.ops, Target: s.target, Results: map[string]*result{}}
	var stages []*stage
	defer func() {
		for _, st := range stages {
			st.close()
		}
	}()
	for _, srv := range r.servers {
		if !slices.Contains(s.servers, srv.Name()) {
			continue
		}
		st, err := newStage(ctx, srv, s, prepared)
		if err != nil {
			return out, fmt.Errorf("cannot prepare %s: %w", srv.Name(), err)
		}
		stages = append(stages, st)
		out.Results[srv.Name()] = &result{}
	}
	for round := range r.rounds {
		for _, st := range stages {
			if round == 0 {
				// Connections, prepared statements and caches are made before the clock runs.
				if _, err := r.round(ctx, st, min(s.ops, 4*s.workers)); err != nil {
					return out, fmt.Errorf("%s: %w", st.server.Name(), err)
				}
			}
			figure, err := r.round(ctx, st, s.ops)
			if err != nil {
				return out, fmt.Errorf("%s: %w", st.server.Name(), err)
			}
			out.Results[st.server.Name()].Rounds = append(out.Results[st.server.Name()].Rounds, figure)
		}
	}
	return out, nil
}

// round measures once: the clock and the processor time of the operations and of what they leave to be done.
func (r *runner) round(ctx context.Context, st *stage, ops int) (figure, error) {
	var f figure
	if err := st.freshen(ops); err != nil {
		return f, err
	}
	before, err := settle(ctx, st.server)
	if err != nil {
		return f, err
	}
	for _, pid := range st.server.Pids() {
		if err := usage.ResetPeak(pid); err != nil {
			return f, fmt.Errorf("cannot reset the peak of memory: %w", err)
		}
	}
	took, err := load.Run(ctx, st.clients, ops, func(ctx context.Context, c *load.Client, i int) error { return st.do(ctx, st, c, i) })
	if err != nil {
		return f, err
	}
	m, err := usage.Of(st.server.Pids()[0])
	if err != nil {
		return f, err
	}
	answered, err := usage.CPU(st.server.Pids()...)
	if err != nil {
		return f, err
	}
	select {
	case <-ctx.Done():
		return f, context.Cause(ctx)
	case <-time.After(st.late):
	}
	after, err := settle(ctx, st.server)
	if err != nil {
		return f, err
	}
	f = figure{CPU: after - before, Deferred: after - answered, Took: took, Peak: m.Peak, Database: m.Database, Ops: ops, Bytes: int64(ops) * st.bytes}
	return f, st.forget(ctx)
}

// settle waits until a server has done its deferred work and rests, and gives the processor time that it has used.
func settle(ctx context.Context, s server.Server) (time.Duration, error) {
	const pause, rest, most = 250 * time.Millisecond, 10 * time.Millisecond, 40
	if err := s.Settle(ctx); err != nil {
		return 0, err
	}
	last, err := usage.CPU(s.Pids()...)
	for range most {
		if err != nil {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(pause):
		}
		var now time.Duration
		now, err = usage.CPU(s.Pids()...)
		if err == nil && now-last <= rest {
			return now, nil
		}
		last = now
	}
	return last, err
}
