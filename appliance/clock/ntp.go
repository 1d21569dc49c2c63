package clock

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"berth/appliance/fault"
)

// An Answer is what an NTP server says of the time.
type Answer struct {
	Server  string     `json:"server"`
	Address netip.Addr `json:"address"`
	// Offset is how far the server is ahead of this machine; negative: behind.
	Offset time.Duration `json:"offset"`
	// RTT is how long the question and the answer were under way.
	RTT time.Duration `json:"rtt"`
	// Stratum is 1 for a server with a clock of its own, and one more for each
	// server between.
	Stratum int    `json:"stratum"`
	Text    string `json:"text"` // all of it in words
}

const (
	ntpPort = "123"
	// answerTime is how long one address of a server may take.
	answerTime = 3 * time.Second
	// maxAddresses is how many addresses of a name are asked.
	maxAddresses = 4
	// questions is how often an address that answers is asked: the answer that was
	// under way for the shortest time tells most (RFC 5905, section 10).
	questions = 3
)

// Test asks an NTP server for the time, and changes nothing. A server that does not
// answer is Unavailable, one whose answer must not be used is a Precondition.
func Test(ctx context.Context, server string) (Answer, error) {
	return test(ctx, server, ntpPort)
}

func test(ctx context.Context, server, port string) (Answer, error) {
	server = strings.TrimSpace(server)
	addresses := []netip.Addr{}
	if a, err := netip.ParseAddr(strings.Trim(server, "[]")); err == nil {
		addresses = append(addresses, a)
	} else {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		if addresses, err = net.DefaultResolver.LookupNetIP(ctx, "ip", server); err != nil || len(addresses) == 0 {
			return Answer{}, fault.Wrap(fault.Unavailable, err, "the name of the NTP server %q has no address", server).
				WithHint("is the name right, and do the DNS servers answer?")
		}
	}
	var first error
	for _, a := range addresses[:min(len(addresses), maxAddresses)] {
		answer, err := ask(ctx, server, net.JoinHostPort(a.Unmap().String(), port))
		if err == nil {
			answer.Server, answer.Address = server, a.Unmap()
			answer.Text = answer.words()
			return answer, nil
		}
		if first == nil {
			first = err
		}
	}
	return Answer{}, first
}

// ask asks one address some times, and gives the best answer.
func ask(ctx context.Context, server, address string) (best Answer, err error) {
	for i := range questions {
		a, err := once(ctx, server, address)
		switch {
		case err != nil && i == 0:
			return Answer{}, err
		case err != nil:
			return best, nil // it may limit how often it is asked
		case i == 0 || a.RTT < best.RTT:
			best = a
		}
	}
	return best, nil
}

func once(ctx context.Context, server, address string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	silent := func(err error) (Answer, error) {
		return Answer{}, fault.Wrap(fault.Unavailable, err, "the NTP server %s does not answer", server).
			WithHint("is it one, and does a firewall let UDP port 123 through?")
	}
	c, err := new(net.Dialer).DialContext(ctx, "udp", address)
	if err != nil {
		return silent(err)
	}
	defer c.Close()
	if end, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(end); err != nil {
			return silent(err)
		}
	}
	var q question
	rand.Read(q.cookie[:]) // never fails (crypto/rand, Go 1.24)
	q.sent = time.Now()
	if _, err := c.Write(q.packet()); err != nil {
		return silent(err)
	}
	b := make([]byte, 1024)
	for {
		n, err := c.Read(b)
		if err != nil {
			return silent(err)
		}
		answer, err := q.read(b[:n], time.Now())
		if errors.Is(err, errNotOurs) {
			continue // somebody guesses; the answer may still come
		}
		if err != nil {
			f := fault.Of(err)
			f.Text = fmt.Sprintf("the NTP server %s %s", server, f.Text)
			return Answer{}, f
		}
		return answer, nil
	}
}

// A question is what was asked. Instead of this machine's time it has a random
// cookie, which the answer repeats: it tells a stranger nothing, and nobody who
// has not seen it can answer.
type question struct {
	cookie [8]byte
	sent   time.Time
}

// packet is an NTPv4 packet of mode 3 (RFC 5905, section 7.3).
func (q question) packet() []byte {
	b := make([]byte, 48)
	b[0] = 4<<3 | 3
	copy(b[40:], q.cookie[:])
	return b
}

var errNotOurs = errors.New("not an answer to this question")

// read reads an answer that came at got. Its faults are clauses about the server.
func (q question) read(b []byte, got time.Time) (Answer, error) {
	if len(b) < 48 || b[0]&7 != 4 || [8]byte(b[24:32]) != q.cookie {
		return Answer{}, errNotOurs
	}
	refuse := func(format string, args ...any) (Answer, error) {
		return Answer{}, fault.New(fault.Precondition, format, args...).WithHint("choose another server, or ask whoever runs it")
	}
	leap, version, stratum := b[0]>>6, b[0]>>3&7, int(b[1])
	switch {
	case version < 3 || version > 4:
		return refuse("speaks version %d of NTP", version)
	case stratum == 0:
		return refuse("refuses to answer (%s)", kiss(string(b[12:16])))
	case leap == 3 || stratum > 15:
		return refuse("does not know the time itself: it is not synchronized")
	case binary.BigEndian.Uint64(b[40:]) == 0 || binary.BigEndian.Uint64(b[32:]) == 0:
		return refuse("gives no time")
	}
	received, answered := ntpTime(b[32:]), ntpTime(b[40:])
	delay := fraction(b[4:])/2 + fraction(b[8:]) // half the root delay, and the root dispersion
	if delay >= 16*time.Second {
		return refuse("does not know the time well enough: it may be %s wrong", delay.Round(time.Second))
	}
	rtt := got.Sub(q.sent) - answered.Sub(received)
	if answered.Before(received) || rtt < 0 {
		rtt = got.Sub(q.sent) // its clock was set in between
	}
	// RFC 5905, section 8. Each is a difference of two machines' clocks.
	offset := received.Sub(q.sent.Round(0))/2 + answered.Sub(got.Round(0))/2
	return Answer{Offset: offset, RTT: rtt, Stratum: stratum}, nil
}

// ntpTime reads a timestamp: seconds and their fraction since 1900, or since 2036
// if the first bit is 0 (RFC 5905, section 6, figure 4).
func ntpTime(b []byte) time.Time {
	s, f := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if s < 1<<31 {
		s += 1 << 32
	}
	const from1900to1970 = 2_208_988_800
	return time.Unix(s-from1900to1970, f*1e9>>32)
}

// fraction reads NTP's short format: 16 bits of seconds, 16 of their fraction.
func fraction(b []byte) time.Duration {
	return time.Duration(int64(binary.BigEndian.Uint32(b)) * 1e9 >> 16)
}

// kiss puts a kiss code into words (RFC 5905, section 7.4).
func kiss(code string) string {
	switch code {
	case "DENY", "RSTR":
		return "this machine is not allowed to ask it"
	case "RATE":
		return "it was asked too often"
	case "INIT", "STEP":
		return "it has just started"
	}
	return fmt.Sprintf("code %q", strings.TrimRight(code, "\x00"))
}

// words says what an answer means.
func (a Answer) words() string {
	off := "this machine's time is right"
	switch size := a.Offset.Abs(); {
	case size >= 100*time.Millisecond && a.Offset > 0:
		off = "this machine's time is " + short(size) + " behind"
	case size >= 100*time.Millisecond:
		off = "this machine's time is " + short(size) + " ahead"
	}
	return fmt.Sprintf("%s (to %s; answered in %s, stratum %d)", off, short(max(a.Offset.Abs(), time.Millisecond)), short(a.RTT), a.Stratum)
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
