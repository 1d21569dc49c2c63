package main

import (
	"context"
	"fmt"

	"berth/tests/cmd/bench/load"
	"berth/tests/cmd/bench/server"
)

func tagsRepo(count int) func(int) []string {
	return func(int) []string { return []string{fmt.Sprintf("library/tags-%d", count)} }
}

// fillTags gives a repository tags, once.
func fillTags(count int) func(context.Context, *stage) error {
	return func(ctx context.Context, st *stage) error {
		if !st.once("tags %d", count) {
			return nil
		}
		return st.server.Tags(ctx, st.repos[0], count)
	}
}

func fillCatalog(ctx context.Context, st *stage) error {
	if !st.once("catalog") {
		return nil
	}
	return st.server.Repositories(ctx, 5000)
}

// getTag asks for this many of a repository's tags in turn, far apart.
func getTag(count, different int) func(context.Context, *stage, *load.Client, int) error {
	return func(ctx context.Context, st *stage, c *load.Client, i int) error {
		return c.Get(ctx, "/v2/"+st.repos[0]+"/manifests/"+server.TagName(i%different*(count/different)), -1)
	}
}

// page asks for pages all over a list.
func page(count int) func(context.Context, *stage, *load.Client, int) error {
	return func(ctx context.Context, st *stage, c *load.Client, i int) error {
		path := "/v2/" + st.repos[0] + "/tags/list?n=100"
		if count > 100 {
			path += "&last=" + server.TagName(i*7919%(count-100))
		}
		return c.Get(ctx, path, -1)
	}
}

// walk reads a list to its end and sees that it had about as many pages as it should.
func walk(path string, pages int) func(context.Context, *stage, *load.Client, int) error {
	return func(ctx context.Context, _ *stage, c *load.Client, _ int) error {
		n, err := c.Walk(ctx, path)
		if err == nil && (n < pages || n > pages+2) {
			return fmt.Errorf("%s had %d pages instead of %d", path, n, pages)
		}
		return err
	}
}

func getToken(ctx context.Context, st *stage, c *load.Client, _ int) error {
	return c.Get(ctx, server.TokenPath(st.repos...), -1)
}

// pushBlobs makes blobs to pull. The bare server gets them as files.
func pushBlobs(count, size int) func(context.Context, *stage) error {
	return func(ctx context.Context, st *stage) error {
		source := load.NewSource(size)
		for range count {
			b := source.New()
			st.blobs = append(st.blobs, b)
			if bare, ok := st.server.(*server.Bare); ok {
				if err := bare.Put(b); err != nil {
					return err
				}
			} else if err := st.clients[0].PushBlob(ctx, st.repos[0], b, load.Monolithic); err != nil {
				return err
			}
		}
		return nil
	}
}

func pullBlob(ctx context.Context, st *stage, c *load.Client, i int) error {
	b := st.blobs[i%len(st.blobs)]
	path := "/v2/" + st.repos[0] + "/blobs/" + b.Digest
	if _, ok := st.server.(*server.Bare); ok {
		path = "/" + b.Digest
	}
	return c.Get(ctx, path, b.Size)
}

func freshBlobs(size int) func(*stage) error {
	return func(st *stage) error {
		if st.source == nil {
			st.source = load.NewSource(size)
		}
		st.fresher = st.fresher[:0]
		for range st.ops {
			st.fresher = append(st.fresher, st.brings(st.source.New()))
		}
		return nil
	}
}

func pushBlob(how load.How) func(context.Context, *stage, *load.Client, int) error {
	return func(ctx context.Context, st *stage, c *load.Client, i int) error {
		return c.PushBlob(ctx, st.repos[0], st.fresher[i], how)
	}
}

const layers = 5

// freshImages makes images that share nothing.
func freshImages(st *stage) error {
	if st.source == nil {
		st.source = load.NewSource(16 * kib)
	}
	st.images = st.images[:0]
	for range st.ops {
		var blobs []load.Blob
		for range 1 + layers {
			blobs = append(blobs, st.brings(st.source.New()))
		}
		st.images = append(st.images, load.NewImage(blobs, ""))
	}
	return nil
}

func pushImage(ctx context.Context, st *stage, c *load.Client, i int) error {
	return c.PushImage(ctx, st.repos[0], fmt.Sprintf("v%d", i), st.images[i], load.LikeDocker)
}

// pushOneImage makes the image that is pulled, or whose blobs manifests are made of.
func pushOneImage(ctx context.Context, st *stage) error {
	source := load.NewSource(64 * kib)
	var blobs []load.Blob
	for range 1 + layers {
		blobs = append(blobs, source.New())
	}
	image := load.NewImage(blobs, "")
	st.images = []load.Image{image}
	return st.clients[0].PushImage(ctx, st.repos[0], "latest", image, load.Monolithic)
}

// pullImage does what a client does that has nothing yet.
func pullImage(ctx context.Context, st *stage, c *load.Client, _ int) error {
	image, path := st.images[0], "/v2/"+st.repos[0]
	if _, err := c.Do(ctx, load.Request{Method: "HEAD", Target: path + "/manifests/latest", Accept: load.ManifestType, Want: 200}); err != nil {
		return err
	}
	if err := c.Get(ctx, path+"/manifests/"+image.Digest, int64(len(image.Manifest))); err != nil {
		return err
	}
	for _, b := range image.Blobs {
		if err := c.Get(ctx, path+"/blobs/"+b.Digest, b.Size); err != nil {
			return err
		}
	}
	return nil
}

// freshManifests makes manifests over the blobs of the first image.
func freshManifests(st *stage) error {
	base := st.images[0]
	st.images = st.images[:1]
	for range st.ops {
		st.serial++
		st.images = append(st.images, load.NewImage(base.Blobs, fmt.Sprint("manifest ", st.serial)))
	}
	return nil
}

func pushManifest(ctx context.Context, st *stage, c *load.Client, i int) error {
	image := st.images[1+i]
	return c.PushManifest(ctx, st.repos[0], "t-"+image.Digest[7:27], load.ManifestType, image.Manifest, "")
}

// Each of mountBlobs is mounted into as many repositories as a round needs.
const mountBlobs = 100

func mountRepos(ops int) []string {
	list := []string{"library/mount"}
	for n := range (ops + mountBlobs - 1) / mountBlobs {
		list = append(list, fmt.Sprintf("library/mount-%d", n))
	}
	return list
}

func mountBlob(ctx context.Context, st *stage, c *load.Client, i int) error {
	b, to := st.blobs[i%mountBlobs], st.repos[1+i/mountBlobs]
	_, err := c.Do(ctx, load.Request{Method: "POST", Want: 201, Body: nil,
		Target: "/v2/" + to + "/blobs/uploads/?mount=" + b.Digest + "&from=" + st.repos[0]})
	return err
}
