package redact

import (
	"strings"
	"testing"

	"berth/appliance/syslog"
)

// Whatever form a secret comes in, it is not kept; and what is no secret stays.
func TestRedact(t *testing.T) {
	const s = "S3cr3t-Value+42/x="
	for _, line := range []string{
		`password=` + s, `Password: ` + s, `passwd="` + s + `"`, `db_pass=` + s, `{"password":"` + s + `","x":1}`, `{"robot_secret": "` + s + `"}`,
		`PGPASSWORD=` + s + ` psql`, `mysql --password ` + s, `curl -u x --token ` + s, `client_secret=` + s + `&grant_type=password`,
		`Authorization: Basic YWRtaW46U2VjcmV0MTIz` + s, `"Authorization": "Bearer ` + s + `"`, `proxy-authorization=Negotiate ` + s,
		`got header bearer ` + s, `Cookie: sid=` + s, `set-cookie: sid=` + s + `; Path=/`,
		`cannot reach https://jane:S3cr3t-Value+42%2Fx=@registry.example.org/v2/`, `postgres://berth:S3cr3t-Value+42@db:5432/berth`,
		`ALTER ROLE berth PASSWORD '` + s + `'`, `create user x with password '` + s + `' login`,
		`api_key=` + s, `X-API-Key: ` + s, `access-key: ` + s, `private_key=` + s, `refresh_token=` + s, `id_token: ` + s,
		`passphrase=` + s, `key_passphrase: '` + s + `'`, `ldap_search_password="` + s + `"`,
		`<Property oe:key="appliance.admin_password" oe:value="` + s + `"/>`, `<Property oe:value="x" /><Property oe:key='tls.private_key' oe:value='` + s + `'/>`,
		`<Property oe:key="install.config_b64" oe:value="` + s + `"/>`,
		"-----BEGIN EC PRIVATE KEY-----\n" + s + "\n-----END EC PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n" + s,
	} {
		m := syslog.Message{Text: line}
		if !Suspicious(line) || !Message(&m) || strings.Contains(m.Text, s) || strings.Contains(m.Text, "S3cr3t") {
			t.Errorf("%q became %q", line, m.Text)
		}
		a := syslog.Message{Text: "x", Attrs: []syslog.Attr{{Key: "err", Value: line}}}
		if !Message(&a) || strings.Contains(a.Attrs[0].Value, "S3cr3t") {
			t.Errorf("the attribute %q became %q", line, a.Attrs[0].Value)
		}
	}
	jwt := `eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJoYXJib3IifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ`
	m := syslog.Message{Text: "token " + jwt + " was refused", Attrs: []syslog.Attr{{Key: "password", Value: s}, {Key: "robot.secret", Value: s}, {Key: "token", Value: s}}}
	if !Message(&m) || m.Text != "token [redacted] was refused" || m.Attrs[0].Value+m.Attrs[1].Value+m.Attrs[2].Value != "[redacted][redacted][redacted]" {
		t.Errorf("became %+v", m)
	}
	for _, line := range []string{
		"a password was wrong", "the secret is gone", "token issued", "GET /service/token", "the authorization has failed", "passed: 12",
		"https://registry.example.org/v2/", "cannot dial 10.0.0.1:443", "mailto jane@example.org", `<Property oe:key="network.hostname" oe:value="berth"/>`,
		"the token has expired", "bearer of bad news", "basic login",
	} {
		if m := (syslog.Message{Text: line}); Message(&m) {
			t.Errorf("%q became %q", line, m.Text)
		}
	}
	own := syslog.Message{Text: "request", Attrs: []syslog.Attr{{Key: syslog.TokenRequest, Value: "0190-abc"}, {Key: syslog.RequestID, Value: "x"}}}
	if Message(&own) {
		t.Errorf("became %+v", own)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("password=x https://a:b@c eyJhbGciOi.J9.x PASSWORD 'y'")
	f.Fuzz(func(t *testing.T, line string) {
		m := syslog.Message{Text: line}
		Message(&m)
		again := m
		Message(&again)
		if len(m.Text) > 16*len(line)+64 {
			t.Errorf("%d bytes became %d", len(line), len(m.Text))
		}
	})
}

var accessLine = `<134>1 2026-11-21T14:56:50.123456Z registry proxy 4711 access [berth@32473 method="PUT" path="/v2/library/app/manifests/1.0" status="201" ms="12.345" client="192.0.2.17" user="robot$ci" agent="docker/28.2.2 go/go1.23.9" host="registry.example.org" received="1573" protocol="HTTP/1.1" request_id="0b6c6df0-3a5e-4d7f-9c1e-2f4b8a6d1c3e" token_request="7d1f8a90-1b2c-4d3e-8f90-a1b2c3d4e5f6"] request`

func BenchmarkSuspicious(b *testing.B) {
	b.SetBytes(int64(len(accessLine)))
	for b.Loop() {
		if Suspicious(accessLine) {
			b.Fatal("it has no secret")
		}
	}
}
