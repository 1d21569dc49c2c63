package screen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	uv "github.com/charmbracelet/ultraviolet"
	"golang.org/x/sys/unix"
)

// Run shows the screen on a terminal until ctx ends. It does not end by itself, and
// no key ends it; the signals that a terminal sends are not for it.
func Run(ctx context.Context, a Agent, proof Proof, in io.Reader, out io.Writer) error {
	term := os.Getenv("TERM")
	if term == "" || term == "dumb" {
		term = "linux"
	}
	if f, ok := out.(*os.File); ok {
		size(f)
	}
	// The console has sixteen colours; what the environment says of more is about
	// somebody else's terminal. SSH_TTY keeps the library from asking the terminal
	// for abilities that no console has.
	p := tea.NewProgram(New(ctx, a, proof), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler(),
		tea.WithEnvironment([]string{"TERM=" + term, "SSH_TTY=console"}),
		tea.WithColorProfile(colorprofile.ANSI), tea.WithWindowSize(80, 24), tea.WithFilter(consoleKeys()))
	if _, err := p.Run(); err != nil && !errors.Is(err, tea.ErrProgramKilled) && ctx.Err() == nil {
		return fmt.Errorf("cannot show the screen: %w", err)
	}
	if ctx.Err() == nil {
		return errors.New("the screen has ended unasked")
	}
	return nil
}

// size gives a terminal that does not know its size that of the oldest ones: a
// serial line has none, and nothing would be drawn on it.
func size(f *os.File) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err == nil && (ws.Row == 0 || ws.Col == 0) {
		_ = unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}) // if it cannot be, the screen stays empty as before
	}
}

// consoleKeys reads the Linux console's F1 to F5. They come as ESC [ [ and a
// letter, which no other terminal sends and the library takes for an unknown
// sequence and that letter.
func consoleKeys() func(tea.Model, tea.Msg) tea.Msg {
	begun := false
	return func(_ tea.Model, msg tea.Msg) tea.Msg {
		if s, ok := msg.(uv.UnknownCsiEvent); ok && s == "\x1b[[" {
			begun = true
			return nil
		}
		if k, ok := msg.(tea.KeyPressMsg); ok && begun {
			begun = false
			if len(k.Text) == 1 && k.Text >= "A" && k.Text <= "E" {
				return tea.KeyPressMsg{Code: tea.KeyF1 + rune(k.Text[0]-'A')}
			}
		}
		return msg
	}
}
