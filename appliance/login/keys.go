package login

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"berth/appliance/durable"
	"berth/appliance/fault"
)

// A Key is one public key, as people recognise it.
type Key struct {
	Type        string   `json:"type"`              // ssh-ed25519, ssh-rsa …
	Fingerprint string   `json:"fingerprint"`       // SHA256:…, as ssh shows it
	Comment     string   `json:"comment,omitempty"` // what stands behind the key
	Options     []string `json:"options,omitempty"` // what stands before it
	line        string   // for authorized_keys
}

// Line is the key as it stands in authorized_keys.
func (k Key) Line() string { return k.line }

// maxKeys and maxKeyLine bound authorized_keys.
const (
	maxKeys    = 100
	maxKeyLine = 16 << 10
)

// Options of authorized_keys that only take something away from whoever has the
// key (sshd(8)), or say from where and until when it counts.
var keyOptions = []string{"restrict", "no-pty", "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc",
	"pty", "port-forwarding", "agent-forwarding", "user-rc", "from", "expiry-time", "command", "permitopen", "permitlisten",
	"verify-required", "no-touch-required"}

// ParseKeys reads public keys as they stand in authorized_keys, one a text; empty
// ones and comments are skipped, a key that comes twice counts once. All that is
// wrong with any of them is reported at once.
func ParseKeys(texts []string) ([]Key, error) {
	var keys []Key
	var all []error
	for i, text := range texts {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		if strings.Contains(text, "PRIVATE KEY") { // of whose other lines nothing needs to be said
			return nil, fault.New(fault.Invalid, "the SSH key in place %d: it is a private key, which belongs to nobody but its owner; the public one is wanted", i+1).On("ssh_authorized_keys").
				WithHint("paste the one line of a file that ends with .pub, such as ~/.ssh/id_ed25519.pub")
		}
		key, err := parseKey(text)
		if err != nil {
			all = append(all, fault.New(fault.Invalid, "the SSH key in place %d: %v", i+1, err).On("ssh_authorized_keys").
				WithHint("paste the one line of a file that ends with .pub, such as ~/.ssh/id_ed25519.pub"))
		} else if !slices.ContainsFunc(keys, func(k Key) bool { return k.Fingerprint == key.Fingerprint }) {
			keys = append(keys, key)
		}
	}
	if len(keys) > maxKeys {
		all = append(all, fault.New(fault.Invalid, "there are more than %d SSH keys", maxKeys).On("ssh_authorized_keys"))
	}
	if all != nil {
		return nil, errors.Join(all...)
	}
	return keys, nil
}

// parseKey reads one line. Its errors are clauses for ParseKeys, and never repeat
// the text: it may be a private key.
func parseKey(text string) (Key, error) {
	switch {
	case strings.HasPrefix(text, "---- BEGIN SSH2 PUBLIC KEY"):
		return Key{}, errors.New("it is in the form of RFC 4716; ssh-keygen -i converts it")
	case strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text):
		return Key{}, errors.New("it has a line break or another control character in the middle")
	case len(text) > maxKeyLine:
		return Key{}, errors.New("it is too long")
	}
	public, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil || len(rest) > 0 {
		return Key{}, errors.New("it is not a public key as in authorized_keys; perhaps its end is missing")
	}
	if err := checkKey(public); err != nil {
		return Key{}, err
	}
	for _, o := range options {
		name, _, _ := strings.Cut(o, "=")
		if !slices.Contains(keyOptions, strings.ToLower(name)) {
			return Key{}, fmt.Errorf("the option %.40q is not allowed; allowed are %s", name, strings.Join(keyOptions, ", "))
		}
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public)))
	if len(options) > 0 {
		line = strings.Join(options, ",") + " " + line
	}
	if comment != "" {
		line += " " + comment
	}
	return Key{Type: public.Type(), Fingerprint: ssh.FingerprintSHA256(public), Comment: comment, Options: options, line: line}, nil
}

// checkKey refuses what sshd does not take, or what is too weak to.
func checkKey(public ssh.PublicKey) error {
	switch public.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		c, ok := public.(ssh.CryptoPublicKey)
		if !ok {
			return nil
		}
		if k, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
			return fmt.Errorf("an RSA key of %d bits is too weak; use one of 3072 bits, or ed25519", k.N.BitLen())
		}
		return nil
	}
	return fmt.Errorf("keys of the type %s are not accepted; use ed25519", public.Type())
}

const authorizedKeys = "root/.ssh/authorized_keys"

// SetAuthorizedKeys makes these the keys with which root may log in, and no
// others. None takes them all away.
func (a Accounts) SetAuthorizedKeys(texts []string) ([]Key, error) {
	keys, err := ParseKeys(texts)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(a.root, authorizedKeys)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep SSH keys: %w", err)
	}
	var b bytes.Buffer
	for _, k := range keys {
		b.WriteString(k.line + "\n")
	}
	return keys, durable.WriteFile(path, b.Bytes(), 0o600)
}

// AuthorizedKeys are the keys with which root may log in. Lines that this package
// would not have written are skipped, but counted in others.
func (a Accounts) AuthorizedKeys() (keys []Key, others int, err error) {
	b, err := os.ReadFile(filepath.Join(a.root, authorizedKeys))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read the SSH keys: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if k, err := parseKey(line); err == nil {
			keys = append(keys, k)
		} else {
			others++
		}
	}
	return keys, others, nil
}

// HostKeys are the keys by which clients know this machine.
func (a Accounts) HostKeys() ([]Key, error) {
	files, err := filepath.Glob(filepath.Join(a.root, "etc/ssh/ssh_host_*_key.pub"))
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("cannot read a host key: %w", err)
		}
		k, err := parseKey(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("cannot use the host key %s: %w", f, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}
