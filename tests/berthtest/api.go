package berthtest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A Login is a user name and a password. The zero value is nobody in particular.
type Login struct{ User, Password string }

// Admin is the system administrator.
func (s *Server) Admin(t testing.TB) Login {
	t.Helper()
	return Login{"admin", s.AdminPassword(t)}
}

// API sends a request to Berth's REST API and returns the answer's body. Path is what follows /api/v2.0; a body other
// than nil is sent as JSON. The test fails if the answer's status is none of want.
func (s *Server) API(t testing.TB, who Login, method, path string, body any, want ...int) []byte {
	t.Helper()
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+"/api/v2.0"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if who.User != "" {
		req.SetBasicAuth(who.User, who.Password)
	}
	resp, err := s.Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if !slices.Contains(want, resp.StatusCode) {
		t.Fatalf("%s /api/v2.0%s as %q: %s, want %v: %s", method, path, who.User, resp.Status, want, bytes.TrimSpace(out))
	}
	return out
}

// CreateProject makes a project as the administrator.
func (s *Server) CreateProject(t testing.TB, name string, public bool) {
	t.Helper()
	value := "false"
	if public {
		value = "true"
	}
	s.API(t, s.Admin(t), "POST", "/projects", map[string]any{
		"project_name": name,
		"metadata":     map[string]string{"public": value},
	}, http.StatusCreated)
}

// Roles of a project's members, with Harbor's numbers.
const (
	ProjectAdmin = 1
	Developer    = 2
	Guest        = 3
	Maintainer   = 4
	LimitedGuest = 5
)

// CreateUser makes a user with a password that no other user has.
func (s *Server) CreateUser(t testing.TB, name string) Login {
	t.Helper()
	login := Login{name, "Pw1-" + Name()}
	s.API(t, s.Admin(t), "POST", "/users", map[string]string{
		"username": name, "email": name + "@example.test", "realname": name, "password": login.Password,
	}, http.StatusCreated)
	return login
}

// AddMember gives a user a role in a project.
func (s *Server) AddMember(t testing.TB, project, user string, role int) {
	t.Helper()
	s.API(t, s.Admin(t), "POST", "/projects/"+project+"/members", map[string]any{
		"role_id": role, "member_user": map[string]string{"username": user},
	}, http.StatusCreated)
}

// CreateRobot makes a robot account that may do these things with the repositories of one project ("pull", "push" ...).
func (s *Server) CreateRobot(t testing.TB, project, name string, actions ...string) Login {
	t.Helper()
	var access []map[string]string
	for _, a := range actions {
		access = append(access, map[string]string{"resource": "repository", "action": a})
	}
	out := s.API(t, s.Admin(t), "POST", "/robots", map[string]any{
		"name": name, "level": "project", "duration": -1,
		"permissions": []map[string]any{{"kind": "project", "namespace": project, "access": access}},
	}, http.StatusCreated)
	var robot struct{ Name, Secret string }
	if err := json.Unmarshal(out, &robot); err != nil || robot.Name == "" || robot.Secret == "" {
		t.Fatalf("creating a robot was answered with %q", out)
	}
	return Login{robot.Name, robot.Secret}
}

// DeleteArtifact deletes an artifact through the REST API, as the UI does. Repository has no project in front.
func (s *Server) DeleteArtifact(t testing.TB, who Login, project, repository, reference string) {
	t.Helper()
	// A slash in a repository's name is escaped twice: Harbor's clients do, for proxies undo one layer.
	repository = strings.ReplaceAll(repository, "/", "%252F")
	s.API(t, who, "DELETE", "/projects/"+project+"/repositories/"+repository+"/artifacts/"+reference, nil, http.StatusOK)
}
