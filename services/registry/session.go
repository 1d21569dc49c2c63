package registry

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"berth/appliance/fault"
	"berth/services/reference"
)

// sessionLife is how long an upload may take from POST to PUT.
const sessionLife = 48 * time.Hour

// session is an upload session. It is wholly in the Location that clients carry
// around, so a POST touches neither disk nor database, and any node that has
// the key accepts it:
//
//	base64url(uuid[16] algorithm[1] expiry[5] mac[16]), mac over these and the repository
type session struct {
	id        uuid.UUID
	algorithm reference.Algorithm
	expires   time.Time
}

const (
	sessionBody = 16 + 1 + 5
	sessionMAC  = 16
)

func newSession(a reference.Algorithm, now time.Time) (session, error) {
	id, err := uuid.NewV7()
	return session{id, a, now.Add(sessionLife)}, err
}

func (s session) token(key []byte, repo string) string {
	buf := make([]byte, 0, sessionBody+sha256.Size)
	buf = append(buf, s.id[:]...)
	buf = append(buf, byte(s.algorithm))
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], uint64(s.expires.Unix()))
	buf = append(buf, t[3:]...)
	buf = sessionSum(key, repo, buf)
	return base64.RawURLEncoding.EncodeToString(buf[:sessionBody+sessionMAC])
}

func sessionSum(key []byte, repo string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body)
	mac.Write([]byte(repo))
	return mac.Sum(body)
}

var errUploadUnknown = fault.Wrap(fault.NotFound, errSession, "the upload session is unknown or has expired").
	WithHint("start the upload again")

// parseSession checks a session's token. Whatever is wrong with it, the session
// is unknown.
func parseSession(token string, key []byte, repo string, now time.Time) (session, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) != sessionBody+sessionMAC {
		return session{}, errUploadUnknown
	}
	sum := sessionSum(key, repo, b[:sessionBody:sessionBody])
	if !hmac.Equal(sum[sessionBody:sessionBody+sessionMAC], b[sessionBody:]) {
		return session{}, errUploadUnknown
	}
	var t [8]byte
	copy(t[3:], b[17:sessionBody])
	s := session{algorithm: reference.Algorithm(b[16]), expires: time.Unix(int64(binary.BigEndian.Uint64(t[:])), 0)}
	copy(s.id[:], b)
	if now.After(s.expires) {
		return session{}, errUploadUnknown
	}
	return s, nil
}
