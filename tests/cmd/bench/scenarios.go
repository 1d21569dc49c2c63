package main

import (
	"context"
	"strings"
	"time"

	"berth/tests/cmd/bench/load"
)

// A unit is what a scenario's processor time is counted by.
type unit string

const (
	perOp  unit = "ms"      // for one operation
	perGiB unit = "s/GiB"   // for what was moved
	memory unit = "MiB RSS" // the peak; processor time is beside the point
	clock  unit = "ms wait" // for one operation, by the clock
)

// A scenario is one line of the table.
type scenario struct {
	name    string // for -scenarios, and the repository's
	title   string
	unit    unit
	workers int
	ops     int           // a round's, on every server
	bytes   int64         // that one operation moves, for perGiB
	secure  bool          // over TLS
	admin   bool          // needs the administrator's password
	lasting bool          // the first repository is not emptied between rounds
	rows    int           // of the list that is read; a hundredth of them with -quick
	late    time.Duration // what is done on a timer after an operation, and belongs to it, is done by then
	servers []string
	target  float64 // in units, from the design; 0: none

	repos func(ops int) []string                                            // default: one, called as the scenario
	begin func(context.Context, *stage) error                               // once for a server
	fresh func(*stage) error                                                // before each round: what it pushes
	do    func(ctx context.Context, st *stage, c *load.Client, i int) error // one operation
}

var (
	both    = []string{"Berth", "CNCF"}
	all     = []string{"Berth", "CNCF", "bare"}
	oneself = []string{"Berth"}
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// scenarios are the table's lines, in its order. The targets are those of the design ("Registry: the hot path").
func scenarios() []scenario {
	var list []scenario
	list = append(list, smallReads()...)
	list = append(list, blobReads()...)
	list = append(list, pushes()...)
	list = append(list, lists()...)
	list = append(list, api()...)
	return append(list, crowd())
}

func scenarioNames() string {
	var names []string
	for _, s := range scenarios() {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

func smallReads() []scenario {
	return []scenario{
		{name: "manifest-20", title: "GET manifest by tag, repository of 20 tags", unit: perOp, workers: 8, ops: 8000, servers: both,
			target: .10, repos: tagsRepo(20), begin: fillTags(20), do: getTag(20, 20)},
		{name: "manifest-10000", title: "GET manifest by tag, repository of 10,000 tags", unit: perOp, workers: 8, ops: 8000, servers: both,
			target: .10, repos: tagsRepo(10_000), begin: fillTags(10_000), do: getTag(10_000, 20)},
		{name: "manifest-audit", title: "the same, every time another tag, with the audit entries", unit: perOp, workers: 8, ops: 1000, servers: oneself,
			late: 11 * time.Second, repos: tagsRepo(10_000), begin: fillTags(10_000), do: getTag(10_000, 1000)},
		{name: "base", title: "GET /v2/", unit: perOp, workers: 4, ops: 12_000, servers: both,
			do: func(ctx context.Context, _ *stage, c *load.Client, _ int) error { return c.Get(ctx, "/v2/", 2) }},
		{name: "token", title: "token for a repeated user", unit: perOp, workers: 4, ops: 4000, servers: oneself, admin: true, target: .30, do: getToken},
		{name: "image-pull", title: "image pull: HEAD and GET manifest, 6 blobs of 64 KiB", unit: perOp, workers: 4, ops: 600, servers: both,
			target: 2, begin: pushOneImage, do: pullImage},
	}
}

func blobReads() []scenario {
	return []scenario{
		{name: "get-1m", title: "GET blob, 1 MiB", unit: perOp, workers: 8, ops: 1600, bytes: mib, servers: all, target: .35, begin: pushBlobs(8, mib), do: pullBlob},
		{name: "get-64m", title: "GET blob, 64 MiB", unit: perGiB, workers: 4, ops: 64, bytes: 64 * mib, servers: all, target: .22, begin: pushBlobs(4, 64*mib), do: pullBlob},
		{name: "get-64m-tls", title: "GET blob, 64 MiB, TLS 1.3", unit: perGiB, workers: 4, ops: 64, bytes: 64 * mib, secure: true, servers: all, target: .85, begin: pushBlobs(4, 64*mib), do: pullBlob},
	}
}

func pushes() []scenario {
	return []scenario{
		{name: "put-1m", title: "PUT blob, 1 MiB, durable (POST, PUT)", unit: perOp, workers: 4, ops: 400, bytes: mib, servers: both, target: 2.3, fresh: freshBlobs(mib), do: pushBlob(load.Monolithic)},
		{name: "put-64m", title: "PUT blob, 64 MiB, durable (POST, PUT)", unit: perGiB, workers: 2, ops: 20, bytes: 64 * mib, servers: both, target: 1.6, fresh: freshBlobs(64 * mib), do: pushBlob(load.Monolithic)},
		{name: "patch-64m", title: "the same, streamed (POST, PATCH, PUT)", unit: perGiB, workers: 2, ops: 20, bytes: 64 * mib, servers: both, target: 1.6, fresh: freshBlobs(64 * mib), do: pushBlob(load.Streamed)},
		{name: "image-push", title: "image push as docker does, 5 layers of 16 KiB and config", unit: perOp, workers: 2, ops: 80, servers: both, target: 8, fresh: freshImages, do: pushImage},
		{name: "manifest-put", title: "manifest PUT, new tag", unit: perOp, workers: 4, ops: 800, servers: both, target: 1, lasting: true,
			begin: pushOneImage, fresh: freshManifests, do: pushManifest},
		{name: "mount", title: "cross-repository mount", unit: perOp, workers: 4, ops: 1000, servers: both, target: .35, lasting: true,
			repos: mountRepos, begin: pushBlobs(mountBlobs, kib), fresh: func(*stage) error { return nil }, do: mountBlob},
	}
}

func lists() []scenario {
	return []scenario{
		{name: "tags-walk", title: "10,000 tags, 100 a page, whole walk", unit: perOp, workers: 1, ops: 5, servers: both, target: 30,
			repos: tagsRepo(10_000), begin: fillTags(10_000), do: walk("/v2/library/tags-10000/tags/list?n=100", 100)},
		{name: "page-100", title: "a page of 100 tags out of 100", unit: perOp, workers: 1, ops: 1500, servers: oneself,
			repos: tagsRepo(100), begin: fillTags(100), do: page(100)},
		{name: "page-10000", title: "a page of 100 tags out of 10,000", unit: perOp, workers: 1, ops: 1500, servers: oneself,
			repos: tagsRepo(10_000), begin: fillTags(10_000), do: page(10_000)},
		{name: "page-100000", title: "a page of 100 tags out of 100,000", unit: perOp, workers: 1, ops: 1500, servers: oneself,
			repos: tagsRepo(100_000), begin: fillTags(100_000), do: page(100_000)},
		{name: "catalog-walk", title: "catalog of 5,000 repositories, 100 a page, walk", unit: perOp, workers: 1, ops: 8, servers: both, admin: true, target: 15,
			begin: fillCatalog, do: walk("/v2/_catalog?n=100", 50)},
	}
}

// api is Harbor's REST API, with a name and a password in every request.
func api() []scenario {
	return []scenario{
		{name: "api-basic", title: "REST call with name and password, after the first", unit: perOp, workers: 4, ops: 4000, servers: oneself, admin: true, target: 2,
			do: func(ctx context.Context, _ *stage, c *load.Client, _ int) error {
				return c.Get(ctx, "/api/v2.0/users/current", -1)
			}},
		{name: "api-artifacts", title: "a page of 100 artifacts out of 100,000, one of the first ten, with tags and labels", unit: perOp, workers: 1, ops: 200, servers: oneself, admin: true, target: 10,
			rows: 100_000, repos: artifactsRepo, begin: fillArtifacts, do: artifactPage(10)},
		{name: "api-artifacts-deep", title: "the same, pages from all over the list", unit: perOp, workers: 1, ops: 100, servers: oneself, admin: true,
			rows: 100_000, repos: artifactsRepo, begin: fillArtifacts, do: artifactPage(0)},
		{name: "api-audit", title: "a page of 100 audit entries out of 10 million", unit: perOp, workers: 1, ops: 200, servers: oneself, admin: true, target: 20,
			rows: 10_000_000, begin: fillTrail, do: trailPage},
		{name: "webhook", title: "from a push to its webhook's delivery", unit: clock, workers: 1, ops: 40, servers: oneself, target: 1000, lasting: true,
			begin: hook, fresh: freshManifests, do: pushAndHear},
	}
}

// crowd is 64 clients at once, whose traffic is only there to see what it takes of memory.
func crowd() scenario {
	return scenario{name: "memory", title: "RSS under 32 pulls of 64 MiB and 32 pushes of 32 MiB at once", unit: memory, workers: 64, ops: 64,
		servers: both, target: 60, begin: pushBlobs(4, 64*mib), fresh: freshBlobs(32 * mib),
		repos: func(int) []string { return []string{"library/get-64m", "library/memory"} }, lasting: true,
		do: func(ctx context.Context, st *stage, c *load.Client, i int) error {
			if i%2 == 0 {
				return pullBlob(ctx, st, c, i)
			}
			return c.PushBlob(ctx, "library/memory", st.fresher[i], load.Streamed)
		}}
}
