package command

import (
	"net"
	"sync"

	"berth/appliance/backoff"
)

// limitListener takes no more connections than most at a time, and closes those
// above each from one place at once: an address, in IPv6 a network of 64 bits.
func limitListener(l net.Listener, most, each int) net.Listener {
	return &limited{Listener: l, each: each, turns: make(chan struct{}, most), closed: make(chan struct{}), from: map[string]int{}}
}

type limited struct {
	net.Listener
	each   int
	turns  chan struct{}
	closed chan struct{}

	mu   sync.Mutex
	from map[string]int // connections, by place
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.turns <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.turns
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			host = c.RemoteAddr().String()
		}
		place := backoff.On("", host).Source
		if l.enter(place) {
			return &counted{Conn: c, done: func() { l.leave(place); <-l.turns }}, nil
		}
		c.Close()
	}
}

func (l *limited) enter(place string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from[place] >= l.each {
		return false
	}
	l.from[place]++
	return true
}

func (l *limited) leave(place string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from[place]--; l.from[place] == 0 {
		delete(l.from, place)
	}
}

func (l *limited) Close() error {
	close(l.closed)
	return l.Listener.Close()
}

// counted is a connection that gives its turn back when it is closed.
type counted struct {
	net.Conn
	once sync.Once
	done func()
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.done)
	return err
}
