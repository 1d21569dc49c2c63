package command

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"berth/appliance/fault"
	"berth/appliance/secret"
)

// table writes rows in columns for people. The first row has the columns' names.
func (a *app) table(rows ...[]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for i, row := range rows {
		if i == 0 {
			for j := range row {
				row[j] = strings.ToUpper(row[j])
			}
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// facts writes pairs of a name and a value; those without a value are left out.
func (a *app) facts(pairs ...string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], strings.ReplaceAll(pairs[i+1], "\n", " "))
		}
	}
	return w.Flush()
}

// show prints an answer: as JSON, or by what writes it for people.
func show[T any](a *app, v T, err error, people func(T) error) error {
	switch {
	case err != nil:
		return err
	case a.json:
		return a.printJSON(v)
	}
	return people(v)
}

// said prints a sentence for people who have changed something; programs have the
// exit status.
func (a *app) said(err error, format string, args ...any) error {
	if err != nil || a.json {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func list(values []string) string { return strings.Join(values, " ") }

func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

// maxInput bounds what is read from a file or standard input.
const maxInput = 1 << 20

// input reads a file; "-" is standard input.
func (a *app) input(path string) (string, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "cannot read the file").On(path)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "cannot read the file").On(path)
	}
	if len(b) > maxInput {
		return "", fault.New(fault.TooLarge, "it is larger than %d bytes", maxInput).On(path)
	}
	return string(b), nil
}

// password reads a new password: from a file, from standard input, or at a terminal
// twice, without showing it, until ctx ends. It is never an argument, where every
// user of the machine could read it.
func (a *app) password(ctx context.Context, file, prompt string) (secret.Text, error) {
	if file != "" {
		text, err := a.input(file)
		line, _, _ := strings.Cut(text, "\n")
		return secret.Text(strings.TrimRight(line, "\r")), err
	}
	terminal, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(terminal) {
		line, err := bufio.NewReader(io.LimitReader(a.stdin, 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", fault.Wrap(fault.Invalid, err, "cannot read the password")
		}
		return secret.Text(strings.TrimRight(line, "\r\n")), nil
	}
	first, err := a.ask(ctx, terminal, prompt+": ")
	if err != nil {
		return "", err
	}
	again, err := a.ask(ctx, terminal, "once more: ")
	if err == nil && again != first {
		err = fault.New(fault.Invalid, "the two are not the same")
	}
	return first, err
}

// ask reads a line from a terminal whose echo is off meanwhile, and on again also
// after a Ctrl-C.
func (a *app) ask(ctx context.Context, terminal *os.File, prompt string) (secret.Text, error) {
	fd := int(terminal.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("cannot use the terminal: %w", err)
	}
	quiet := *was
	quiet.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return "", fmt.Errorf("cannot use the terminal: %w", err)
	}
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, was) }()
	fmt.Fprint(a.stderr, prompt)
	defer fmt.Fprintln(a.stderr)
	line := make(chan secret.Text, 1)
	go func() { line <- readLine(terminal) }() // a read of a terminal cannot be cut off: it ends with the program
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// readLine reads one byte at a time: what follows the line is the next question's.
func readLine(r io.Reader) secret.Text {
	var line []byte
	for b := make([]byte, 1); len(line) < 4096; {
		n, err := r.Read(b)
		if n == 0 || err != nil || b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	return secret.Text(strings.TrimRight(string(line), "\r"))
}
