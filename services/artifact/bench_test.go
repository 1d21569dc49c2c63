package artifact_test

import (
	"crypto/rand"
	"fmt"
	"testing"

	"berth/services/artifact"
)

// BenchmarkPush answers what the bookkeeping of a push costs: five layers, a
// config and a manifest with a tag, without bytes and without syncing.
func BenchmarkPush(b *testing.B) {
	s := setup(b, artifact.Options{})
	n := 0
	for b.Loop() {
		n++
		blobs := s.blobs("p/app", 6)
		s.mustPush("p/app", image(nil, blobs...), fmt.Sprint("v", n))
	}
}

// BenchmarkPushAgain is a push of what is there already.
func BenchmarkPushAgain(b *testing.B) {
	s := setup(b, artifact.Options{})
	payload := image(nil, s.blobs("p/app", 6)...)
	for b.Loop() {
		s.mustPush("p/app", payload, "v1")
	}
}

// BenchmarkPushTogether is BenchmarkPush by many at once into one project.
func BenchmarkPushTogether(b *testing.B) {
	s := setup(b, artifact.Options{})
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		repo := "p/" + fmt.Sprintf("%x", rand.Text()[:8])
		for n := 0; pb.Next(); n++ {
			blobs := s.blobs(repo, 6)
			s.mustPush(repo, image(nil, blobs...), fmt.Sprint("v", n))
		}
	})
}
