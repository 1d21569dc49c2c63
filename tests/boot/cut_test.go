package boot_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"berth/tests/berthtest"
	"berth/tests/boot"
)

// acknowledged are images whose pushes were answered with 201, by repository and tag.
type acknowledged struct {
	mu     sync.Mutex
	images map[string]*berthtest.Image
}

func (a *acknowledged) add(name string, i *berthtest.Image) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.images[name] = i
}

func (a *acknowledged) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.images)
}

// The power is cut in the middle of pushes, again and again, also so soon after the start that the machine is still
// mending. What was acknowledged is there afterwards, and whole; what was not is not half there.
func TestPowerCutInMidPush(t *testing.T) {
	t.Parallel()
	m := started(t, boot.Options{})
	a := &acknowledged{images: map[string]*berthtest.Image{}}
	for n := range 3 {
		before := a.count()
		stop := pushers(t, m, a, n, 4)
		m.Wait(t, "some pushes are acknowledged", time.Minute, func() error {
			if a.count() < before+10 {
				return fmt.Errorf("%d are", a.count()-before)
			}
			return nil
		})
		m.Kill(t)
		stop()
		m.On(t)
		serving(t, m)
	}
	r := berthtest.NewRegistry("https://"+m.Address().String(), administrator, m.Client(nil))
	for name, i := range a.images {
		if err := pull(t, r, name, i); err != nil {
			t.Errorf("library/%s was acknowledged: %v", name, err)
		}
	}
	t.Logf("%d acknowledged images are whole", len(a.images))
	m.Command(t, "berth", "verify")
	healthy(t, m)
}

// pushers push small images until stop, or until the machine is gone.
func pushers(t *testing.T, m *boot.Machine, a *acknowledged, round, count int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for p := range count {
		r := berthtest.NewRegistry("https://"+m.Address().String(), administrator, m.Client(nil))
		r.HTTP.Timeout = 30 * time.Second
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("cut%d/manifests/%d-%d", p, round, n)
				i := berthtest.NewImage(2, 200_000)
				if err := push(t, r, name, i); err != nil {
					return // the power is gone
				}
				a.add(name, i)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// push sends an image to library/NAME, where NAME is REPOSITORY/manifests/TAG.
func push(t *testing.T, r *berthtest.Registry, name string, i *berthtest.Image) error {
	repository := "/v2/library/" + name[:len("cut0")]
	for _, b := range i.Blobs() {
		post, err := r.Try(t, "POST", repository+"/blobs/uploads/", nil)
		if err != nil || post.StatusCode != http.StatusAccepted {
			return errors.Join(err, errors.New("POST"))
		}
		put, err := r.Try(t, "PUT", berthtest.WithQuery(post.Header.Get("Location"), "digest", b.Digest), b.Data, "Content-Type", "application/octet-stream")
		if err != nil || put.StatusCode != http.StatusCreated {
			return errors.Join(err, errors.New("PUT"))
		}
	}
	put, err := r.Try(t, "PUT", "/v2/library/"+name, i.Manifest.Data, "Content-Type", i.Manifest.MediaType)
	if err != nil || put.StatusCode != http.StatusCreated {
		return errors.Join(err, errors.New("PUT manifest"))
	}
	return nil
}

// pull reads all of an image and compares its digests.
func pull(t *testing.T, r *berthtest.Registry, name string, i *berthtest.Image) error {
	got, err := r.Try(t, "GET", "/v2/library/"+name, nil)
	if err != nil {
		return err
	}
	if got.StatusCode != http.StatusOK || berthtest.Digest(got.Data) != i.Manifest.Digest {
		return fmt.Errorf("the manifest: %s, %d bytes", got.Status, len(got.Data))
	}
	for _, b := range i.Blobs() {
		got, err := r.Try(t, "GET", "/v2/library/"+name[:len("cut0")]+"/blobs/"+b.Digest, nil)
		if err != nil {
			return err
		}
		if got.StatusCode != http.StatusOK || berthtest.Digest(got.Data) != b.Digest {
			return fmt.Errorf("the blob %s: %s, %d bytes", b.Digest, got.Status, len(got.Data))
		}
	}
	return nil
}
