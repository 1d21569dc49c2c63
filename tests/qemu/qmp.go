package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// qmp is a connection to QEMU's machine protocol (docs/interop/qmp-spec.txt): a line of JSON each way.
type qmp struct {
	mu      sync.Mutex
	conn    net.Conn
	answers *bufio.Reader
}

// dial waits for the socket, at most ten seconds, and does the greeting.
func dial(ctx context.Context, path string, exited <-chan struct{}) (*qmp, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			q := &qmp{conn: conn, answers: bufio.NewReader(conn)}
			conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := q.answers.ReadBytes('\n'); err != nil {
				return nil, err
			}
			return q, q.do("qmp_capabilities", nil)
		}
		select {
		case <-exited:
			return nil, errors.New("it ended at once")
		case <-ctx.Done():
			return nil, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (q *qmp) do(command string, arguments any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	line, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if arguments == nil {
		line, err = json.Marshal(map[string]any{"execute": command})
	}
	if err != nil {
		return err
	}
	q.conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return err
	}
	for {
		line, err := q.answers.ReadBytes('\n')
		if err != nil {
			return err
		}
		var answer struct {
			Return json.RawMessage
			Event  string
			Error  *struct{ Class, Desc string }
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return err
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Desc)
		case answer.Event == "":
			return nil
		}
	}
}

func (q *qmp) Close() { q.conn.Close() }

// Do gives QEMU a command, such as system_reset, which must succeed.
func (m *Machine) Do(t *testing.T, command string, arguments any) {
	t.Helper()
	if err := m.qmp.do(command, arguments); err != nil {
		t.Fatal(err)
	}
}

// Picture takes a picture of the VM's console, NAME.png beside the serial line's log, and gives its path.
func (m *Machine) Picture(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(m.out, name+".png")
	if err := m.qmp.do("screendump", map[string]any{"filename": path, "format": "png"}); err != nil {
		t.Logf("no picture: %v", err)
	}
	return path
}

// Shows is a question for Wait: is there more on the VM's console than a cursor?
func (m *Machine) Shows(context.Context) error {
	path := filepath.Join(m.dir, "look.png")
	if err := m.qmp.do("screendump", map[string]any{"filename": path, "format": "png"}); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		return err
	}
	lit, size := 0, picture.Bounds().Size()
	for y := range size.Y {
		for x := range size.X {
			if r, g, b, _ := picture.At(x, y).RGBA(); r|g|b > 0x2000 {
				lit++
			}
		}
	}
	if lit < size.X*size.Y/100 {
		return errors.New("the console is black")
	}
	return nil
}

// Keys presses keys one after the other, by QEMU's names of them: "e", "ret", "f2", "ctrl-alt-delete" as "ctrl", ...
func (m *Machine) Keys(t *testing.T, keys ...string) {
	t.Helper()
	for _, k := range keys {
		m.Do(t, "send-key", map[string]any{"keys": []any{map[string]any{"type": "qcode", "data": k}}})
	}
}
