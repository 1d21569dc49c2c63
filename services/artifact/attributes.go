package artifact

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"berth/appliance/fault"
)

// maxConfig is the largest config that is read for an artifact's attributes.
const maxConfig = 4 << 20

// Open opens a blob's bytes by storage key.
type Open func(ctx context.Context, key string) (io.ReadCloser, error)

// ReadConfig reads an artifact's config.
func (s *Store) ReadConfig(ctx context.Context, i Info, open Open) ([]byte, error) {
	blob, err := s.Blob(ctx, i.Repository, i.Config)
	if err != nil {
		return nil, err
	}
	if blob.Size > maxConfig {
		return nil, fault.New(fault.TooLarge, "the config of %s is larger than %d bytes", i.Digest, maxConfig)
	}
	r, err := open(ctx, blob.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot read the config of %s: %w", i.Digest, err)
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxConfig))
}

// FillAttributes reads the attributes of artifacts that have none stored yet
// from their configs, and stores them. An artifact whose config cannot be read
// stays without.
func (s *Store) FillAttributes(ctx context.Context, page []Info, open Open) error {
	var b pgx.Batch
	for n := range page {
		i := &page[n]
		if i.Attributes != nil || i.Config.IsZero() {
			continue
		}
		config, err := s.ReadConfig(ctx, *i, open)
		if err != nil {
			s.Log.Warn("cannot read an artifact's config", "repository", i.Repository, "digest", i.Digest, "err", err)
			continue
		}
		if i.Attributes = attributes(i.Type, config); i.Attributes != nil {
			b.Queue(`UPDATE manifests SET extra_attrs = $2 WHERE id = $1`, i.ID, i.Attributes)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return wrap(s.Pool.SendBatch(ctx, &b).Close(), "store attributes")
}

// attributes takes from a config what lists show: a few fields of an image's,
// the whole of any other that is a JSON object.
func attributes(kind string, config []byte) json.RawMessage {
	if strings.Contains(string(config), `\u0000`) { // which jsonb cannot hold
		return nil
	}
	if kind != "IMAGE" {
		var object map[string]json.RawMessage
		if len(config) > 64<<10 || json.Unmarshal(config, &object) != nil || len(object) == 0 {
			return nil
		}
		return config
	}
	image := struct {
		Architecture string          `json:"architecture"`
		Author       string          `json:"author"`
		Config       json.RawMessage `json:"config"`
		Created      time.Time       `json:"created"`
		OS           string          `json:"os"`
	}{Config: json.RawMessage("{}")}
	if json.Unmarshal(config, &image) != nil {
		return nil
	}
	attrs, err := json.Marshal(image)
	if err != nil {
		return nil
	}
	return attrs
}
