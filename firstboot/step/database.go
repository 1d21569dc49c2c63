package step

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"berth/appliance/diskrole"
	"berth/appliance/durable"
	"berth/appliance/fault"
	"berth/appliance/secret"
	"berth/appliance/setting"
	"berth/firstboot"
)

// The database's places. The programs' directory is a link that install.sh makes:
// the distributions have them in different ones.
const (
	cluster    = setting.DatabaseMount + "/pgdata"
	memoryFile = "/etc/berth/postgres/memory.conf"
	initdb     = "/usr/lib/berth/postgresql/initdb"
	berth      = "/usr/bin/berth"
	superuser  = "host=/run/postgresql user=postgres dbname=postgres connect_timeout=10"
)

// database makes the cluster, the role and the schema, and the registry's
// administrator; what is there already stays.
func (m Machine) database(ctx context.Context, w *firstboot.Work) (string, error) {
	said := "prepared"
	if internal(w.Answers.Settings) {
		made, err := m.cluster(ctx)
		if err != nil {
			return "", err
		}
		if !made {
			said = "there already"
		} else if slices.Contains(takenOver(w.Disks), diskrole.Data) {
			w.Warn("the disk for data is an earlier appliance's and the database is new: what is on that disk cannot be seen; attach the database's disk before the setup, too")
		}
	} else {
		said = "an external one"
	}
	password := strings.NewReader(w.Answers.RegistryPassword.Reveal() + "\n")
	if _, err := run(ctx, password, berth, "admin", "init", "--config", setting.File, "--password-file", "-"); err != nil {
		return "", inItsWords(err)
	}
	if slices.Contains(takenOver(w.Disks), diskrole.Database) {
		// The accounts of the earlier appliance are there; its administrator's password
		// need not be known to whoever has just chosen a new one.
		if err := resetPassword(ctx, w.Answers.RegistryPassword); err != nil {
			return "", err
		}
		said = "taken over from an earlier appliance; admin has the new password"
	}
	if mode := w.Answers.AuthMode; mode != "" && mode != "db_auth" {
		if _, err := run(ctx, nil, berth, "configuration", "set", "--config", setting.File, "auth_mode="+mode); err != nil {
			return "", inItsWords(err)
		}
	}
	return said, nil
}

func internal(s setting.Settings) bool { return s.Database == setting.Appliance().Database }

func resetPassword(ctx context.Context, password secret.Text) error {
	_, err := run(ctx, strings.NewReader(password.Reveal()+"\n"), berth, "admin", "reset-password", "admin", "--config", setting.File, "--password-file", "-")
	if err != nil {
		return inItsWords(err)
	}
	return nil
}

// inItsWords makes berth's own words the fault's.
func inItsWords(err error) error {
	if errors.As(err, new(*exec.ExitError)) {
		_, text, ok := strings.Cut(err.Error(), ": berth: ") // behind the program's path and its exit status
		text, hint, _ := strings.Cut(text, ";   hint: ")
		if ok {
			return fault.New(fault.Unavailable, "%s", strings.TrimRight(text, "; ")).WithHint("%s", hint)
		}
	}
	return fault.New(fault.Unavailable, "the database cannot be prepared: %v", err)
}

// cluster makes PostgreSQL's cluster if there is none, starts it, and makes the
// role and the database.
func (m Machine) cluster(ctx context.Context) (made bool, err error) {
	if err := writeMemory(); err != nil {
		return false, err
	}
	_, err = os.Stat(filepath.Join(cluster, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		made, err = true, makeCluster(ctx)
	}
	if err != nil {
		return false, err
	}
	if err := m.start(ctx, database); err != nil {
		return false, err
	}
	return made, makeRole(ctx)
}

// makeCluster runs initdb in a directory of its own, which gets its name when it is
// whole and on disk: a cut leaves no half cluster.
func makeCluster(ctx context.Context) error {
	draft := cluster + ".new"
	if err := os.RemoveAll(draft); err != nil {
		return fmt.Errorf("cannot remove an unfinished database: %w", err)
	}
	postgres, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("cannot make the database: %w", err)
	}
	uid, uerr := strconv.ParseUint(postgres.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(postgres.Gid, 10, 32)
	if err := errors.Join(uerr, gerr); err != nil {
		return fmt.Errorf("cannot make the database: %w", err)
	}
	if err = os.Mkdir(draft, 0o700); err == nil {
		err = os.Chown(draft, int(uid), int(gid))
	}
	if err != nil {
		return fmt.Errorf("cannot make the database: %w", err)
	}
	cmd := exec.CommandContext(ctx, initdb, "--pgdata="+draft, "--username=postgres", "--auth=peer", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-sync")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if _, err := runCommand(ctx, cmd, nil); err != nil {
		return fault.New(fault.Unavailable, "the database cannot be made: %v", err)
	}
	dir, err := os.Open(draft)
	if err != nil {
		return fmt.Errorf("cannot make the database: %w", err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("cannot make the database durable: %w", err)
	}
	// The directory of the name is there already, and empty; or it has something in
	// it that is no cluster, and rmdir(2) refuses.
	if err := os.Remove(cluster); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Precondition, "%s has files in it that are no database: %v", cluster, err).WithHint("look at what they are, and move them away")
	}
	if err := os.Rename(draft, cluster); err != nil {
		return fmt.Errorf("cannot put the database in its place: %w", err)
	}
	return durable.SyncDir(filepath.Dir(cluster))
}

// makeRole makes the role and the database that the services use.
func makeRole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, superuser)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "PostgreSQL does not let us in: %v", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, thing := range []struct{ look, make string }{
		{"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'berth')", "CREATE ROLE berth LOGIN"},
		{"SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'berth')", "CREATE DATABASE berth OWNER berth"},
	} {
		var there bool
		if err := conn.QueryRow(ctx, thing.look).Scan(&there); err != nil {
			return fmt.Errorf("cannot look into PostgreSQL: %w", err)
		}
		if there {
			continue
		}
		if _, err := conn.Exec(ctx, thing.make); err != nil {
			return fmt.Errorf("cannot %s: %w", strings.ToLower(thing.make), err)
		}
	}
	return nil
}

// writeMemory fits PostgreSQL to the machine's memory, at every boot: it may have
// more than at the last one. The services and the page cache need most of it.
func writeMemory() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("cannot tell how much memory there is: %w", err)
	}
	text := memoryConf(int64(info.Totalram) * int64(info.Unit) >> 20)
	if old, err := os.ReadFile(memoryFile); err == nil && string(old) == text {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(memoryFile), 0o755); err != nil {
		return fmt.Errorf("cannot write PostgreSQL's settings: %w", err)
	}
	return durable.WriteFile(memoryFile, []byte(text), 0o644)
}

func memoryConf(mib int64) string {
	return fmt.Sprintf("# Written by Berth at every boot from the machine's memory; changes here are lost.\nshared_buffers = %dMB\neffective_cache_size = %dMB\nmaintenance_work_mem = %dMB\n",
		min(max(mib/16, 64), 1024), max(mib/2, 512), min(max(mib/64, 32), 512))
}
