package cli

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"chancery/appliance/signer/wire"
)

// pausable is the admin socket of a signer that can be paused; it writes down
// what happened, like the one-shot process does.
type pausable struct {
	t       *testing.T
	journal string
	refuse  *wire.Error
	wait    sync.WaitGroup
}

func (p *pausable) note(what string) {
	file, err := os.OpenFile(p.journal, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(file, what)
		file.Close()
	}
	if err != nil {
		p.t.Error(err)
	}
}

func (p *pausable) serve(connection net.Conn) {
	defer p.wait.Done()
	defer connection.Close()
	reader, paused := bufio.NewReader(connection), false
	for {
		var request wire.Request
		if wire.ReadFrame(reader, &request) != nil {
			if paused {
				p.note("resumed by the end of the connection")
			}
			return
		}
		paused = request.Op == wire.OpPause && p.refuse == nil
		p.note(string(request.Op))
		if err := wire.WriteFrame(connection, wire.Response{Error: p.refuse}); err != nil {
			p.t.Error(err)
		}
	}
}

// ceremonyHost makes a folder as a host has it, with a signer on its admin socket.
func ceremonyHost(t *testing.T, refuse *wire.Error) (dir string, p *pausable) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ceremony-") // a Unix socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(filepath.Join("..", "examples", "chancery.toml"))
	if err != nil {
		t.Fatal(err)
	}
	p = &pausable{t: t, journal: filepath.Join(dir, "journal"), refuse: refuse}
	for name, content := range map[string]string{"chancery.toml": string(example), "plan.toml": "", "failing.toml": "", "data/signer.db": "",
		"fake": "#!/bin/sh\necho ceremony >>" + p.journal + "\ncase \"$*\" in *failing.toml) exit 1 ;; esac\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "data", "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			p.wait.Add(1)
			go p.serve(connection)
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		p.wait.Wait()
		os.RemoveAll(dir)
	})
	return dir, p
}

func TestCeremonyPausesARunningSigner(t *testing.T) {
	for _, c := range []struct {
		name, plan string
		refuse     *wire.Error
		status     int
		words      string
		journal    []string
	}{
		{"success", "plan.toml", nil, 0, "The signer has resumed", []string{"status", "pause", "ceremony", "resume"}},
		{"failure", "failing.toml", nil, 1, "the ceremony did not take place", []string{"status", "pause", "ceremony", "resume"}},
		{"denied", "plan.toml", &wire.Error{Code: wire.CodeDenied, Message: "no"}, 1, "one of admin_users", []string{"status", "pause"}},
		{"busy", "plan.toml", &wire.Error{Code: wire.CodeBusy, Message: "later"}, 1, "does not pause", []string{"status", "pause"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, p := ceremonyHost(t, c.refuse)
			status, _, errs := run(t, nil, "ceremony", "--config", filepath.Join(dir, "chancery.toml"), "--signer", filepath.Join(dir, "fake"), filepath.Join(dir, c.plan))
			if status != c.status || !strings.Contains(errs, c.words) {
				t.Errorf("%d: %s", status, errs)
			}
			data, err := os.ReadFile(p.journal)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Fields(string(data)); !slices.Equal(got, c.journal) {
				t.Errorf("what happened: %q", got)
			}
		})
	}
}

// TestCeremonyWithoutASigner has a socket that is open, as the service manager
// keeps it, and a signer that ends as soon as it is started.
func TestCeremonyWithoutASigner(t *testing.T) {
	dir, p := ceremonyHost(t, nil)
	path := filepath.Join(dir, "data", "admin.sock")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connection.Close()
		}
	}()
	status, _, errs := run(t, nil, "ceremony", "--config", filepath.Join(dir, "chancery.toml"), "--signer", filepath.Join(dir, "fake"), filepath.Join(dir, "plan.toml"))
	if status != 1 || !strings.Contains(errs, "no signer answers") || !strings.Contains(errs, "systemctl stop") {
		t.Errorf("%d: %s", status, errs)
	}
	if _, err := os.Stat(p.journal); err == nil {
		t.Error("the ceremony took place beside a signer that might start")
	}
}
