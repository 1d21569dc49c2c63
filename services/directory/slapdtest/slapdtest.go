// Package slapdtest runs a real OpenLDAP server for tests: with a few people and
// groups, the memberOf overlay, TLS from an authority of its own, and StartTLS.
// It listens on loopback addresses alone and ends with the test.
package slapdtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"berth/appliance/cert"
)

// What is in the directory.
const (
	Base     = "dc=example,dc=com"
	People   = "ou=people," + Base
	Groups   = "ou=groups," + Base
	AdminDN  = "cn=admin," + Base // may do everything
	SearchDN = "cn=reader," + Base
	Password = "Reader12345" // of both, and of all people
)

// Server is a running slapd.
type Server struct {
	URL   string // ldap://127.0.0.1:port, StartTLS offered
	TLS   string // ldaps://127.0.0.1:port
	Other string // ldaps://127.0.0.2:port, a name that the certificate does not have
	CA    string // PEM

	dir     string
	command *exec.Cmd
}

const config = `
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile %[1]s/pid
TLSCACertificateFile %[1]s/ca.crt
TLSCertificateFile %[1]s/server.crt
TLSCertificateKeyFile %[1]s/server.key
database mdb
suffix "` + Base + `"
rootdn "` + AdminDN + `"
rootpw ` + Password + `
directory %[1]s/db
maxsize 67108864
overlay memberof
memberof-group-oc groupOfNames
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`

// Start runs a server with the entries of ldif added to the usual ones. The test
// is skipped if slapd is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := exec.LookPath("slapd")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/slapd"); err != nil {
			t.Skip("slapd is not installed (make test-deps)")
		}
	}
	s := &Server{dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Ensure(s.dir, []string{"127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(s.dir, cert.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	s.CA = string(ca)
	file := filepath.Join(s.dir, "slapd.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, s.dir), 0o600); err != nil {
		t.Fatal(err)
	}
	s.URL, s.TLS, s.Other = "ldap://"+free(t, "127.0.0.1"), "ldaps://"+free(t, "127.0.0.1"), "ldaps://"+free(t, "127.0.0.2")
	s.command = exec.Command(program, "-h", s.URL+" "+s.TLS+" "+s.Other, "-f", file, "-d", "0")
	var output bytes.Buffer
	s.command.Stdout, s.command.Stderr = &output, &output
	s.Resume(t)
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("slapd: %s", output.String())
		}
	})
	s.fill(t)
	return s
}

// Resume starts the server again after Stop.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	c := exec.Command(s.command.Path, s.command.Args[1:]...)
	c.Stdout, c.Stderr = s.command.Stdout, s.command.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s.command = c
	for range 200 {
		if l, err := ldap.DialURL(s.URL); err == nil {
			l.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("slapd does not answer")
}

// Stop ends the server; its data stays.
func (s *Server) Stop() {
	if s.command.Process != nil && s.command.ProcessState == nil {
		s.command.Process.Kill()
		s.command.Wait()
	}
}

func free(t testing.TB, host string) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort(host, strconv.Itoa(20000+rand.IntN(12000)))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// fill makes the usual entries: anna and ben, both developers; developers are
// in staff, staff is in everyone, everyone is in developers again. anna is in
// admins. carl is in a posixGroup, dora in nothing; two entries are called twin.
func (s *Server) fill(t testing.TB) {
	t.Helper()
	s.Add(t, Base, "dcObject", "organization", "o=Example")
	s.Add(t, SearchDN, "organizationalRole", "simpleSecurityObject", "userPassword="+Password)
	for _, ou := range []string{People, Groups, "ou=other," + Base} {
		s.Add(t, ou, "organizationalUnit")
	}
	for _, name := range []string{"anna", "ben", "carl", "dora", "o'neill (x)*"} {
		s.Person(t, name, People)
	}
	s.Add(t, "cn=twin one,"+People, "inetOrgPerson", "sn=Twin", "uid=twin", "userPassword="+Password)
	s.Add(t, "cn=twin two,"+People, "inetOrgPerson", "sn=Twin", "uid=twin", "userPassword="+Password)
	s.Group(t, "developers", Groups, PersonDN("anna"), PersonDN("ben"))
	s.Group(t, "staff", Groups, "cn=developers,"+Groups)
	s.Group(t, "everyone", Groups, "cn=staff,"+Groups)
	s.Change(t, "cn=developers,"+Groups, "member", PersonDN("anna"), PersonDN("ben"), "cn=everyone,"+Groups)
	s.Group(t, "admins", "ou=other,"+Base, PersonDN("anna"))
	s.Add(t, "cn=unix,"+Groups, "posixGroup", "gidNumber=10", "memberUid=carl")
}

// PersonDN is the DN of a person in the usual place.
func PersonDN(name string) string {
	return "cn=" + ldap.EscapeDN("Person "+name) + "," + People
}

// Person adds a person whose login name is uid.
func (s *Server) Person(t testing.TB, name, base string) {
	t.Helper()
	s.Add(t, "cn="+ldap.EscapeDN("Person "+name)+","+base, "inetOrgPerson", "sn=Person", "uid="+name, "mail="+name+"@example.com",
		"displayName=The "+name, "userPassword="+Password)
}

// Group adds a groupOfNames.
func (s *Server) Group(t testing.TB, name, base string, members ...string) {
	t.Helper()
	attributes := []string{"groupOfNames"}
	for _, m := range members {
		attributes = append(attributes, "member="+m)
	}
	s.Add(t, "cn="+name+","+base, attributes...)
}

// Add adds an entry: object classes, then attributes as name=value.
func (s *Server) Add(t testing.TB, dn string, parts ...string) {
	t.Helper()
	r := ldap.NewAddRequest(dn, nil)
	values, order := map[string][]string{}, []string{}
	for _, p := range parts {
		name, value, ok := bytes.Cut([]byte(p), []byte("="))
		if !ok {
			name, value = []byte("objectClass"), []byte(p)
		}
		if values[string(name)] == nil {
			order = append(order, string(name))
		}
		values[string(name)] = append(values[string(name)], string(value))
	}
	for _, name := range order {
		r.Attribute(name, values[name])
	}
	s.do(t, func(l *ldap.Conn) error { return l.Add(r) })
}

// Change replaces an attribute's values; none removes it.
func (s *Server) Change(t testing.TB, dn, attribute string, values ...string) {
	t.Helper()
	r := ldap.NewModifyRequest(dn, nil)
	r.Replace(attribute, values)
	s.do(t, func(l *ldap.Conn) error { return l.Modify(r) })
}

// Delete removes an entry.
func (s *Server) Delete(t testing.TB, dn string) {
	t.Helper()
	s.do(t, func(l *ldap.Conn) error { return l.Del(ldap.NewDelRequest(dn, nil)) })
}

func (s *Server) do(t testing.TB, f func(*ldap.Conn) error) {
	t.Helper()
	l, err := ldap.DialURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Bind(AdminDN, Password); err != nil {
		t.Fatal(err)
	}
	if err := f(l); err != nil {
		t.Fatal(err)
	}
}
