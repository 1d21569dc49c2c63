package cert

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"slices"
	"strings"

	"berth/appliance/fault"
)

// maxPEM is the size of the longest text that Repair takes: vSphere's limit for a
// property with room for three of them.
const maxPEM = 256 << 10

// maxBlocks bounds how many certificates and keys one text may have.
const maxBlocks = 100

// Repair makes proper PEM of what people paste: PEM that has become one line, with
// spaces or literal "\n" for its line breaks, with CRLF, in quotes, with the dashes
// of a word processor, with text between its blocks; base64 of PEM or of DER
// (certificate, key, PKCS #7); and any of these one after the other.
//
// It does not look into the blocks beyond what tells their kind, and an encrypted
// key stays encrypted. Its faults are Invalid, say what is wrong, and never repeat
// the text, which may be a key.
func Repair(text string) (string, error) {
	blocks, err := repair(text, true)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			return "", fault.New(fault.Invalid, "the PEM has headers that cannot be understood")
		}
	}
	return b.String(), nil
}

var (
	// boundary finds a BEGIN or END line, in whatever shape it is. A label is words
	// of capital letters and digits (RFC 7468, section 2).
	boundary = regexp.MustCompile(`[-\x{2010}-\x{2015}\x{2212}]{2,}\s*(BEGIN|END)\s+([A-Z0-9]+(?:\s+[A-Z0-9]+)*)\s*[-\x{2010}-\x{2015}\x{2212}]{2,5}`)
	// The headers of keys that OpenSSL has encrypted (RFC 1421, sections 4.6.1.1 and 4.6.1.3).
	procType = regexp.MustCompile(`Proc-Type:\s*4\s*,\s*ENCRYPTED`)
	dekInfo  = regexp.MustCompile(`DEK-Info:\s*(DES-EDE3-CBC|DES-CBC|AES-128-CBC|AES-192-CBC|AES-256-CBC)\s*,\s*([0-9A-Fa-f]+)`)
)

// repair gives the blocks of a text. wrapped allows the whole to be base64 of PEM.
func repair(text string, wrapped bool) ([]*pem.Block, error) {
	if len(text) > maxPEM {
		return nil, fault.New(fault.Invalid, "it is longer than %d KiB", maxPEM>>10)
	}
	text = strings.NewReplacer("\ufeff", "", "\u00a0", " ", "\u200b", "", `\r\n`, "\n", `\n`, "\n", `\r`, "\n", `\/`, "/").Replace(text)
	marks := boundary.FindAllStringSubmatchIndex(text, 2*maxBlocks+1)
	if len(marks) == 0 {
		return repairBase64(text, wrapped)
	}
	var blocks []*pem.Block
	for i := 0; i < len(marks); i += 2 {
		kind, label := text[marks[i][2]:marks[i][3]], label(text[marks[i][4]:marks[i][5]])
		if kind == "END" {
			return nil, fault.New(fault.Invalid, "the BEGIN line of a block (%s) is missing", label).WithHint("copy the whole file, with its first line")
		}
		if i+1 == len(marks) || text[marks[i+1][2]:marks[i+1][3]] == "BEGIN" {
			return nil, fault.New(fault.Invalid, "the END line of a block (%s) is missing", label).
				WithHint("the text was cut off: copy the whole file; if the form does not take it, paste it as base64")
		}
		block, err := repairBlock(label, text[marks[i][1]:marks[i+1][0]])
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block...)
		if len(blocks) > maxBlocks {
			return nil, fault.New(fault.Invalid, "it has more than %d certificates and keys", maxBlocks)
		}
	}
	return blocks, nil
}

// label makes a label of one: with single spaces, and today's word for old ones.
func label(s string) string {
	switch s = strings.Join(strings.Fields(s), " "); s {
	case "X509 CERTIFICATE":
		return "CERTIFICATE"
	case "NEW CERTIFICATE REQUEST":
		return "CERTIFICATE REQUEST"
	}
	return s
}

// repairBlock reads what stands between BEGIN and END.
func repairBlock(label, body string) ([]*pem.Block, error) {
	block := &pem.Block{Type: label}
	if m := dekInfo.FindStringSubmatchIndex(body); m != nil {
		cipher, iv := body[m[2]:m[3]], body[m[4]:m[5]]
		digits := 32
		if strings.HasPrefix(cipher, "DES") {
			digits = 16
		}
		if len(iv) < digits { // a longer one runs into the base64, when all spaces were lost
			return nil, fault.New(fault.Invalid, "the header DEK-Info of the encrypted key is damaged")
		}
		block.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": cipher + "," + strings.ToUpper(iv[:digits])}
		body = body[:m[0]] + body[m[4]+digits:]
	}
	der, ok := decode(procType.ReplaceAllString(body, ""))
	if !ok || len(der) == 0 {
		return nil, fault.New(fault.Invalid, "a block (%s) is damaged: what stands between its BEGIN and END is not base64", label)
	}
	if label == "PKCS7" || label == "CMS" {
		return certificatesOf(der)
	}
	block.Bytes = der
	return []*pem.Block{block}, nil
}

// decode reads base64 with anything white in it, in quotes, of either alphabet and
// with or without its padding.
func decode(s string) ([]byte, bool) {
	clean := make([]byte, 0, len(s))
	for _, c := range []byte(s) {
		switch c {
		case ' ', '\t', '\r', '\n', '\v', '\f', '"', '\'', '`', '=', ',':
		case '-':
			clean = append(clean, '+')
		case '_':
			clean = append(clean, '/')
		default:
			clean = append(clean, c)
		}
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	n, err := base64.RawStdEncoding.Decode(out, clean)
	return out[:n], err == nil
}

// repairBase64 reads a text without a BEGIN line: base64 of PEM, or of DER.
func repairBase64(text string, wrapped bool) ([]*pem.Block, error) {
	none := fault.New(fault.Invalid, "it is neither PEM nor base64 of it: there is no line -----BEGIN …-----").
		WithHint("paste the whole file, or its base64 (base64 -w0 FILE)")
	der, ok := decode(text)
	if !ok || len(der) == 0 {
		return nil, none
	}
	if wrapped && boundary.Match(der) {
		return repair(string(der), false)
	}
	if label := labelOf(der); label != "" {
		return []*pem.Block{{Type: label, Bytes: der}}, nil
	}
	if list, err := x509.ParseCertificates(der); err == nil && len(list) > 0 && len(list) <= maxBlocks {
		var blocks []*pem.Block
		for _, c := range list {
			blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		}
		return blocks, nil
	}
	if blocks, err := certificatesOf(der); err == nil {
		return blocks, nil
	}
	if isPFX(der) {
		return nil, fault.New(fault.Invalid, "it is a PKCS #12 file (.pfx, .p12), which is not supported").
			WithHint("openssl pkcs12 -in FILE -out FILE.pem writes what is wanted: certificate, chain and the encrypted key in one file")
	}
	return nil, none
}

// isPFX tells a PKCS #12 file by its beginning: version 3, and what is signed or
// sealed by a password (RFC 7292, section 4).
func isPFX(der []byte) bool {
	var pfx struct {
		Version int
		Content struct {
			Type asn1.ObjectIdentifier
			Data asn1.RawValue `asn1:"explicit,optional,tag:0"`
		}
		Mac asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(der, &pfx)
	return err == nil && pfx.Version == 3
}

// labelOf tells what a single DER object is; "" if it is none of ours.
func labelOf(der []byte) string {
	if _, err := x509.ParseCertificate(der); err == nil {
		return "CERTIFICATE"
	}
	if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return "PRIVATE KEY"
	}
	if _, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return "RSA PRIVATE KEY"
	}
	if _, err := x509.ParseECPrivateKey(der); err == nil {
		return "EC PRIVATE KEY"
	}
	if _, err := parseEncrypted(der); err == nil {
		return "ENCRYPTED PRIVATE KEY"
	}
	return ""
}

// certificatesOf takes the certificates out of a PKCS #7 bundle (RFC 2315, sections
// 7 and 9.1), as Windows' CA gives them; what it signs is of no interest.
func certificatesOf(der []byte) ([]*pem.Block, error) {
	damaged := fault.New(fault.Invalid, "a PKCS #7 bundle is damaged, or has no certificates").WithHint("export the chain as PEM")
	var content struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &content); err != nil || len(bytes.Trim(rest, "\x00\r\n")) > 0 ||
		!slices.Equal(content.Type, []int{1, 2, 840, 113549, 1, 7, 2}) {
		return nil, damaged
	}
	var signed struct {
		Version      int
		Algorithms   asn1.RawValue
		Signed       asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
	}
	if _, err := asn1.Unmarshal(content.Content.Bytes, &signed); err != nil {
		return nil, damaged
	}
	list, err := x509.ParseCertificates(signed.Certificates.Bytes)
	if err != nil || len(list) == 0 || len(list) > maxBlocks {
		return nil, damaged
	}
	var blocks []*pem.Block
	for _, c := range list {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return blocks, nil
}
