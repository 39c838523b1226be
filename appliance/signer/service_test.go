package signer_test

import (
	"bytes"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"chancery/appliance/signer"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
)

// manager is as much of a service manager as the daemon sees: sockets that it
// hands over, and one that it is told on.
type manager struct {
	process
	socket *net.UnixConn

	mu   sync.Mutex
	told []string
}

// manage runs the daemon with handed-over sockets of these names.
func manage(t *testing.T, f *fixture, names string, files ...*os.File) *manager {
	t.Helper()
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{process: process{ended: make(chan struct{})}}
	path := filepath.Join(f.Dir, rand.Text()[:8])
	if m.socket, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.socket.Close() })
	// LISTEN_PID must name the process that takes the descriptors over.
	m.Cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, own)
	m.Env = append(os.Environ(), signer.ServeVariable+"="+f.Config.Path, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000",
		"LISTEN_FDS="+string(rune('0'+len(files))), "LISTEN_FDNAMES="+names)
	m.ExtraFiles, m.Stderr = files, &m.errors
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Process.Kill(); <-m.ended })
	go func() { m.Wait(); close(m.ended) }()
	go func() {
		for {
			b := make([]byte, 256)
			n, err := m.socket.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, string(bytes.TrimSpace(b[:n])))
			m.mu.Unlock()
		}
	}()
	return m
}

// heard counts how often the manager was told something.
func (m *manager) heard(what string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.told {
		if t == what {
			n++
		}
	}
	return n
}

// bound is a socket that is bound at path before the daemon runs.
func bound(t *testing.T, path string) *os.File {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close(); os.Remove(path) })
	return file
}

// TestServiceManager runs the daemon as systemd does: on sockets that are there
// before it and after it, telling when it is ready, alive and stopping.
func TestServiceManager(t *testing.T) {
	f := prepare(t, signertest.Options{})
	sign, admin := bound(t, f.Config.Signer.SignSocket), bound(t, f.Config.Signer.AdminSocket)
	// A request waits in the socket while nobody serves it.
	early := make(chan error, 1)
	go func() {
		_, err := f.Sign.Status(soon(t))
		early <- err
	}()
	for run := range 2 {
		m := manage(t, f, "sign:admin", sign, admin)
		until(t, "ready", func() bool { return m.heard("READY=1") == 1 })
		if m.heard("EXTEND_TIMEOUT_USEC=60000000") == 0 {
			t.Error("the manager was not told that the log is being read")
		}
		if run == 0 {
			if err := <-early; err != nil {
				t.Errorf("the request that waited: %v", err)
			}
		}
		if _, err := f.Admin.Identities(soon(t)); err != nil {
			t.Error(err)
		}
		if err := f.Sign.Pause(soon(t)); code(err) != wire.CodeDenied {
			t.Errorf("the sockets are mixed up: %v", err)
		}
		until(t, "three signs of life", func() bool { return m.heard("WATCHDOG=1") >= 3 })
		m.Process.Signal(syscall.SIGTERM)
		if status := m.wait(t); status != 0 || m.heard("STOPPING=1") != 1 {
			t.Errorf("status %d, %q: %s", status, m.told, m.errors.String())
		}
		if _, err := os.Stat(f.Config.Signer.SignSocket); err != nil {
			t.Errorf("the manager's socket was removed: %v", err)
		}
	}
}

// TestWrongDescriptors hands over what the daemon cannot use.
func TestWrongDescriptors(t *testing.T) {
	f := prepare(t, signertest.Options{})
	sign, admin := bound(t, filepath.Join(f.Dir, "a")), bound(t, filepath.Join(f.Dir, "b"))
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()
	plain, err := os.Open(f.Config.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for name, c := range map[string]struct {
		names string
		files []*os.File
		want  string
	}{
		"another name":  {"sign:operators", []*os.File{sign, admin}, `none is named "admin"`},
		"one of them":   {"sign", []*os.File{sign}, `none is named "admin"`},
		"a TCP socket":  {"sign:admin", []*os.File{sign, tcpFile}, `descriptor "admin" is no Unix socket`},
		"no socket":     {"sign:admin", []*os.File{sign, plain}, `descriptor "admin"`},
		"without names": {"", []*os.File{sign, admin}, "none is named"},
	} {
		t.Run(name, func(t *testing.T) {
			m := manage(t, f, c.names, c.files...)
			if status := m.wait(t); status != signer.ExitFailure || !strings.Contains(m.errors.String(), c.want) {
				t.Errorf("status %d, want %q: %s", status, c.want, m.errors.String())
			}
			if m.heard("READY=1") != 0 {
				t.Error("it said that it was ready")
			}
		})
	}
}
