// Command oidcprovider is an OpenID provider for tests: zitadel's example server, on one loopback address, with users
// and their groups from a file that is read again at each login.
//
//	oidcprovider ADDRESS CERTIFICATE KEY USERS REDIRECT_URI
//
// USERS is a JSON object of users by id: {"id1": {"Username", "Password", "FirstName", "LastName", "Email", "Groups"}}.
// The client is berth with the secret "secret".
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("usage: oidcprovider ADDRESS CERTIFICATE KEY USERS REDIRECT_URI")
	}
	storage.RegisterClients(storage.WebClient("berth", "secret", args[4]))
	people := users{args[3]}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	router := exampleop.SetupServer("https://"+args[0], &store{storage.NewStorage(people), people}, log, false)
	fmt.Println("ready")
	return http.ServeTLS(l, router, args[1], args[2])
}

type user struct {
	storage.User
	Groups []string
}

// users are read from the file each time.
type users struct{ file string }

func (u users) all() map[string]*user {
	all := map[string]*user{}
	text, err := os.ReadFile(u.file)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for id, one := range all {
		one.ID, one.EmailVerified = id, true
	}
	return all
}

func (u users) GetUserByID(id string) *storage.User {
	if one := u.all()[id]; one != nil {
		return &one.User
	}
	return nil
}

func (u users) GetUserByUsername(name string) *storage.User {
	for _, one := range u.all() {
		if one.Username == name {
			return &one.User
		}
	}
	return nil
}

func (u users) ExampleClientID() string { return "" }

// store adds the claim groups to what the example says of a user.
type store struct {
	*storage.Storage
	users users
}

func (s *store) SetUserinfoFromScopes(ctx context.Context, info *oidc.UserInfo, userID, clientID string, scopes []string) error {
	s.groups(info, userID)
	return s.Storage.SetUserinfoFromScopes(ctx, info, userID, clientID, scopes)
}

func (s *store) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, r op.IDTokenRequest, scopes []string) error {
	s.groups(info, r.GetSubject())
	return s.Storage.SetUserinfoFromRequest(ctx, info, r, scopes)
}

func (s *store) SetUserinfoFromToken(ctx context.Context, info *oidc.UserInfo, tokenID, subject, origin string) error {
	s.groups(info, subject)
	return s.Storage.SetUserinfoFromToken(ctx, info, tokenID, subject, origin)
}

func (s *store) groups(info *oidc.UserInfo, userID string) {
	if one := s.users.all()[userID]; one != nil {
		info.AppendClaims("groups", one.Groups)
	}
}
