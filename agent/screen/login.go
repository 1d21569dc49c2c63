package screen

import (
	"context"

	tea "charm.land/bubbletea/v2"

	"berth/appliance/secret"
)

// newLogin asks for a password before next is shown.
func newLogin(m *Model, next page) page {
	f := &form{m: m, heading: "Authentication required"}
	account := newField("account", "User", "admin", "admin with the password of the appliance console, or root with that of root.")
	account.choices = []string{"admin", "root"}
	password := newField("password", "Password", "", "After several wrong ones the next try has to wait.")
	password.secret = true
	f.fields, f.focus = []*field{account, password}, 1
	f.intro = "To look at or change this appliance, give a password."
	f.buttons = []string{"Log in", "Lost the password?", "Cancel"}
	f.submit = func(button int) tea.Cmd {
		if button == 1 {
			return to(replace{newProof(m)})
		}
		given := secret.Text(f.raw("password"))
		password.text, password.at = nil, 0
		f.busy = "Checking the password"
		who := f.get("account")
		return m.ask(patience, func(ctx context.Context) tea.Msg {
			if err := m.agent.Verify(ctx, who, given); err != nil {
				return faulted{f, err}
			}
			return replace{next}
		})
	}
	return &loginPage{f}
}

// loginPage is a form in which Enter behind the password logs in.
type loginPage struct{ *form }

func (p *loginPage) update(msg tea.Msg) tea.Cmd {
	if k, ok := msg.(tea.KeyPressMsg); ok && k.String() == "enter" && p.busy == "" && p.focus == 1 {
		p.fault, p.hint = "", ""
		return p.submit(0)
	}
	cmd := p.form.update(msg)
	if f, ok := msg.(faulted); ok && f.form == p.form {
		p.focus = 1
	}
	return cmd
}

// replace puts another page in the place of the one at the top.
type replace struct{ page page }
