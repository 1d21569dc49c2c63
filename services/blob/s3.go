package blob

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/credentials"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/s3"
	s3driver "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
	"go.yaml.in/yaml/v3"

	"berth/appliance/fault"
	"berth/appliance/secret"
)

// S3Settings say where an S3 bucket is and how to reach it. In a file they are
// YAML, under the names given here; one that is unknown is refused.
type S3Settings struct {
	// Region of the bucket. For Amazon it is required; other servers take any.
	Region string `yaml:"region"`
	// Endpoint is the server's URL, for example https://minio.example.org:9000.
	// Empty means Amazon's own for the region.
	Endpoint string `yaml:"endpoint"`
	// Bucket must exist.
	Bucket string `yaml:"bucket"`
	// RootDirectory is a prefix for all keys, so that a bucket can be shared.
	RootDirectory string `yaml:"root_directory"`
	// AccessKey and SecretKey sign the requests. Both empty means what the
	// machine's own role gives (EC2, EKS).
	AccessKey string      `yaml:"access_key"`
	SecretKey secret.Text `yaml:"secret_key"`
	// ForcePathStyle puts the bucket into the path instead of the host name;
	// most servers other than Amazon's need it.
	ForcePathStyle bool `yaml:"force_path_style"`
	// Secure uses TLS where Endpoint does not say http or https. Default true.
	Secure bool `yaml:"secure"`
	// SkipVerify accepts any certificate. It gives up all that TLS is for.
	SkipVerify bool `yaml:"skip_verify"`
	// ChunkSize is the length of one part in bytes, 5 MiB to 1 GiB; an upload
	// under way has one in memory. Default 8 MiB.
	ChunkSize int `yaml:"chunk_size"`
	// Redirect sends clients to the bucket to fetch blobs themselves, by an
	// address that is signed for 20 minutes. They must be able to reach it.
	Redirect bool `yaml:"redirect"`
}

const (
	minChunk     = 5 << 20 // S3's own limit
	maxChunk     = 1 << 30
	defaultChunk = 8 << 20
)

// ReadS3 reads settings from a YAML file. Every fault in it is told at once.
func ReadS3(path string) (S3Settings, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return S3Settings{}, fmt.Errorf("cannot read the S3 settings: %w", err)
	}
	s := S3Settings{Secure: true, ChunkSize: defaultChunk}
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	decoder.KnownFields(true)
	if err := decoder.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return S3Settings{}, fault.New(fault.Invalid, "cannot read the S3 settings in %s: %s", path, redactYAML(err)).On("storage")
	}
	return s, s.Check()
}

// redactYAML gives the lines at fault without the values that yaml quotes,
// since one of them may be a secret.
func redactYAML(err error) string {
	te, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return err.Error()
	}
	faults := make([]string, len(te.Errors))
	for i, f := range te.Errors {
		before, _, quoted := strings.Cut(f, " `")
		faults[i] = before
		if quoted {
			faults[i] += " this value"
			if _, after, ok := strings.Cut(f, "` into "); ok {
				faults[i] += " as " + after
			}
		}
	}
	return strings.Join(faults, "; ")
}

// Check reports every fault of the settings in one.
func (s S3Settings) Check() error {
	var faults []string
	add := func(wrong bool, text string) {
		if wrong {
			faults = append(faults, text)
		}
	}
	add(s.Bucket == "", "bucket is missing")
	add(s.Region == "" && s.Endpoint == "", "region is missing (it may be left out only with an endpoint)")
	if s.Endpoint != "" {
		u, err := url.Parse(s.Endpoint)
		add(err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil,
			"endpoint is not an address like https://s3.example.org:9000")
	}
	add((s.AccessKey == "") != (s.SecretKey == ""), "access_key and secret_key must be given together, or neither")
	add(s.ChunkSize < minChunk || s.ChunkSize > maxChunk, fmt.Sprintf("chunk_size must be from %d to %d", minChunk, maxChunk))
	add(s.RootDirectory != "" && !validPath("/"+strings.Trim(s.RootDirectory, "/")), "root_directory has characters other than letters, digits, '.', '_', '-' and '/'")
	if len(faults) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "the S3 settings are wrong: %s", strings.Join(faults, "; ")).On("storage")
}

// OpenS3 makes a store over an S3 bucket, and asks the bucket once, so that a
// wrong address or key is found at the start.
func OpenS3(ctx context.Context, settings S3Settings) (*Store, error) {
	if settings.ChunkSize == 0 {
		settings.ChunkSize = defaultChunk
	}
	if err := settings.Check(); err != nil {
		return nil, err
	}
	driver, err := s3driver.FromParameters(ctx, settings.parameters())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot use the S3 settings").On("storage")
	}
	s := New(driver)
	s.redirect = settings.Redirect
	if s.abandon, err = settings.abandoned(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot use the S3 settings").On("storage")
	}
	if _, err := driver.List(ctx, "/"); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot reach the bucket %s", settings.Bucket).
			WithHint("check the endpoint, the keys, and that the bucket exists")
	}
	return s, nil
}

// parameters are the settings as distribution's driver names them.
func (s S3Settings) parameters() map[string]any {
	region := s.Region
	if region == "" {
		region = "us-east-1" // what servers other than Amazon's expect in a signature
	}
	p := map[string]any{
		"region":         region,
		"regionendpoint": s.Endpoint,
		"bucket":         s.Bucket,
		"rootdirectory":  "",
		"accesskey":      s.AccessKey,
		"secretkey":      s.SecretKey.Reveal(),
		"forcepathstyle": s.ForcePathStyle,
		"secure":         s.Secure,
		"skipverify":     s.SkipVerify,
		"chunksize":      s.ChunkSize,
	}
	if root := strings.Trim(s.RootDirectory, "/"); root != "" {
		p["rootdirectory"] = "/" + root
	}
	return p
}

// abandoned ends the multipart uploads below our keys that were begun so long
// ago. Their parts are in no listing, but are stored and paid for; the driver,
// which can only write and read, has no way to find them.
func (s S3Settings) abandoned() (func(context.Context, time.Duration) (int, error), error) {
	p := s.parameters()
	config := aws.NewConfig().WithRegion(p["region"].(string)).WithEndpoint(s.Endpoint).
		WithS3ForcePathStyle(s.ForcePathStyle).WithDisableSSL(!s.Secure)
	if s.AccessKey != "" {
		config.WithCredentials(credentials.NewStaticCredentials(s.AccessKey, s.SecretKey.Reveal(), ""))
	}
	if s.SkipVerify {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the setting says so
		config.WithHTTPClient(&http.Client{Transport: transport})
	}
	sess, err := session.NewSession(config)
	if err != nil {
		return nil, err
	}
	client := s3.New(sess)
	prefix := strings.TrimPrefix(p["rootdirectory"].(string)+"/"+blobsTree+"/", "/")
	return func(ctx context.Context, olderThan time.Duration) (n int, err error) {
		list := &s3.ListMultipartUploadsInput{Bucket: &s.Bucket, Prefix: &prefix}
		perr := client.ListMultipartUploadsPagesWithContext(ctx, list, func(page *s3.ListMultipartUploadsOutput, _ bool) bool {
			for _, u := range page.Uploads {
				if u.Initiated == nil || time.Since(*u.Initiated) < olderThan {
					continue
				}
				abort := &s3.AbortMultipartUploadInput{Bucket: &s.Bucket, Key: u.Key, UploadId: u.UploadId}
				if _, err = client.AbortMultipartUploadWithContext(ctx, abort); err != nil {
					return false
				}
				n++
			}
			return true
		})
		return n, errors.Join(err, perr)
	}, nil
}
