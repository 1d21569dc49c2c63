package cert

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"

	"golang.org/x/crypto/scrypt"

	"berth/appliance/fault"
	"berth/appliance/secret"
)

// parseKey reads a private key, decrypting it if it is encrypted. Faults are on the
// field private_key or key_passphrase.
func parseKey(block *pem.Block, passphrase secret.Text) (crypto.Signer, error) {
	der, kind, err := decryptBlock(block, passphrase)
	if err != nil {
		return nil, err
	}
	var key any
	switch kind {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(der)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "OPENSSH PRIVATE KEY":
		return nil, fault.New(fault.Invalid, "it is a key for SSH, not for TLS").On("private_key")
	default:
		return nil, fault.New(fault.Invalid, "keys of the kind %q are not supported", kind).On("private_key").
			WithHint("RSA and ECDSA are: openssl pkey -in FILE converts to PKCS #8")
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fault.Wrap(fault.Invalid, err, "the private key is damaged, or of a kind that is not supported").On("private_key").
			WithHint("RSA and ECDSA (P-256, P-384, P-521) are supported")
	}
	return signer, nil
}

// decryptBlock gives a key's DER in clear, and its kind.
func decryptBlock(block *pem.Block, passphrase secret.Text) (der []byte, kind string, err error) {
	//lint:ignore SA1019 it is weak, but people have such files
	legacy := x509.IsEncryptedPEMBlock(block)
	if !legacy && block.Type != "ENCRYPTED PRIVATE KEY" {
		return block.Bytes, block.Type, nil
	}
	if passphrase == "" {
		return nil, "", fault.New(fault.Invalid, "the private key is encrypted, and its passphrase is missing").On("key_passphrase")
	}
	if legacy {
		//lint:ignore SA1019 as above
		der, err = x509.DecryptPEMBlock(block, []byte(passphrase.Reveal()))
		kind = block.Type
	} else {
		der, err = decryptPKCS8(block.Bytes, passphrase)
		kind = "PRIVATE KEY"
	}
	if _, ours := errors.AsType[*fault.Error](err); ours {
		return nil, "", err
	}
	// A wrong passphrase may pass the check of the padding by chance.
	if err == nil && labelOf(der) == "" {
		err = x509.IncorrectPasswordError
	}
	if err != nil {
		return nil, "", fault.Wrap(fault.Invalid, err, "the passphrase is not that of the private key").On("key_passphrase")
	}
	return der, kind, nil
}

// encryptedKey is EncryptedPrivateKeyInfo (RFC 5958, section 3).
type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

// pbes2 are the parameters of PBES2 (RFC 8018, appendix A.4).
type pbes2 struct{ KDF, Cipher pkix.AlgorithmIdentifier }

// pbkdf2Params are those of PBKDF2 (RFC 8018, appendix A.2).
type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

// scryptParams are those of scrypt (RFC 7914, section 7).
type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

// The limits of what a file may make us compute: some seconds.
const (
	maxIterations   = 10_000_000
	maxScryptMemory = 256 << 20
)

func parseEncrypted(der []byte) (encryptedKey, error) {
	var k encryptedKey
	rest, err := asn1.Unmarshal(der, &k)
	if err == nil && (len(rest) > 0 || len(k.Data) == 0 || len(k.Algorithm.Algorithm) < 6) {
		err = errors.New("not an encrypted key")
	}
	return k, err
}

// decryptPKCS8 undoes PBES2, which all programs write today. It is here because
// the standard library does not have it.
func decryptPKCS8(der []byte, passphrase secret.Text) ([]byte, error) {
	unsupported := func(what string) error {
		return fault.New(fault.Unsupported, "the private key is encrypted in a way that is not supported (%s)", what).On("private_key").
			WithHint("openssl pkcs8 -topk8 -v2 aes256 -in FILE encrypts it anew")
	}
	k, err := parseEncrypted(der)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the encrypted private key is damaged").On("private_key")
	}
	if name := k.Algorithm.Algorithm.String(); name != "1.2.840.113549.1.5.13" {
		return nil, unsupported(name)
	}
	var p pbes2
	if _, err := asn1.Unmarshal(k.Algorithm.Parameters.FullBytes, &p); err != nil {
		return nil, unsupported("PBES2 without parameters")
	}
	var length int
	var block func([]byte) (cipher.Block, error)
	switch name := p.Cipher.Algorithm.String(); name {
	case "2.16.840.1.101.3.4.1.2":
		length, block = 16, aes.NewCipher
	case "2.16.840.1.101.3.4.1.22":
		length, block = 24, aes.NewCipher
	case "2.16.840.1.101.3.4.1.42":
		length, block = 32, aes.NewCipher
	case "1.2.840.113549.3.7":
		length, block = 24, des.NewTripleDESCipher
	default:
		return nil, unsupported("cipher " + name)
	}
	key, err := derive(p.KDF, passphrase, length)
	if err != nil {
		return nil, unsupported(err.Error())
	}
	b, err := block(key)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if _, err := asn1.Unmarshal(p.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != b.BlockSize() || len(k.Data)%b.BlockSize() != 0 {
		return nil, fault.New(fault.Invalid, "the encrypted private key is damaged").On("private_key")
	}
	plain := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(b, iv).CryptBlocks(plain, k.Data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > b.BlockSize() {
		return nil, x509.IncorrectPasswordError
	}
	return plain[:len(plain)-pad], nil
}

// derive makes the key out of a passphrase. Its errors are clauses.
func derive(kdf pkix.AlgorithmIdentifier, passphrase secret.Text, length int) ([]byte, error) {
	switch name := kdf.Algorithm.String(); name {
	case "1.2.840.113549.1.5.12":
		var p pbkdf2Params
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, errors.New("PBKDF2 with parameters that cannot be read")
		}
		if p.Iterations < 1 || p.Iterations > maxIterations {
			return nil, fmt.Errorf("PBKDF2 with %d iterations", p.Iterations)
		}
		prf, ok := prfs[p.PRF.Algorithm.String()]
		if !ok {
			return nil, fmt.Errorf("PBKDF2 with the function %s", p.PRF.Algorithm)
		}
		return pbkdf2.Key(prf, passphrase.Reveal(), p.Salt, p.Iterations, length)
	case "1.3.6.1.4.1.11591.4.11":
		var p scryptParams
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil {
			return nil, errors.New("scrypt with parameters that cannot be read")
		}
		if p.N < 2 || p.R < 1 || p.P < 1 || p.P > 16 || p.R > 64 || p.N > maxScryptMemory/128/p.R {
			return nil, errors.New("scrypt with a cost that is too high")
		}
		return scrypt.Key([]byte(passphrase.Reveal()), p.Salt, p.N, p.R, p.P, length)
	default:
		return nil, errors.New("key derivation " + name)
	}
}

// prfs are PBKDF2's functions by their object identifiers; SHA-1's is the default.
var prfs = map[string]func() hash.Hash{
	"":                    sha1.New,
	"1.2.840.113549.2.7":  sha1.New,
	"1.2.840.113549.2.8":  sha256.New224,
	"1.2.840.113549.2.9":  sha256.New,
	"1.2.840.113549.2.10": sha512.New384,
	"1.2.840.113549.2.11": sha512.New,
}

// isKey reports whether a label is that of a private key.
func isKey(label string) bool { return strings.HasSuffix(label, "PRIVATE KEY") }
