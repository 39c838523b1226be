package signer

import (
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chancery-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestListenUnix binds, is refused a second time, and takes over what a process
// that died has left.
func TestListenUnix(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, lock, err := listenUnix(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, _, err := listenUnix(path, 0o600); err == nil || !strings.Contains(err.Error(), "another signer") {
		t.Errorf("a second signer on the path: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the refused one has broken the first: %v", err)
	} else {
		c.Close()
	}
	l.Close()
	lock.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the path must stay: whoever comes next replaces it at once: %v", err)
	}
	l, lock, err = listenUnix(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if uid, err := peer(served); err != nil || uid != uint32(os.Getuid()) {
		t.Errorf("peer %d, %v", uid, err)
	}
}

func TestListenUnixRefusals(t *testing.T) {
	dir := shortDir(t)
	if err := os.Mkdir(filepath.Join(dir, "taken.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "taken.new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"no folder":      {filepath.Join(dir, "none", "s"), "no such file"},
		"too long":       {filepath.Join(dir, strings.Repeat("x", 100)), "at most 103"},
		"in the way":     {filepath.Join(dir, "taken"), "not empty"},
		"a folder there": {filepath.Join(dir, "folder"), "file exists"},
	} {
		t.Run(name, func(t *testing.T) {
			l, _, err := listenUnix(c.path, 0o600)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want %q", l, err, c.want)
			}
		})
	}
}

func TestUserIDs(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	own, err := strconv.ParseUint(me.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		names []string
		want  []uint32
		err   string
	}{
		"nobody named":   {nil, []uint32{uint32(own)}, ""},
		"by name":        {[]string{me.Username}, []uint32{uint32(own)}, ""},
		"by number":      {[]string{"4242", "4243"}, []uint32{4242, 4243}, ""},
		"unknown name":   {[]string{"no-such-user"}, nil, "create the user"},
		"out of range":   {[]string{"4294967296"}, nil, "unknown user"},
		"negative":       {[]string{"-1"}, nil, "unknown user"},
		"good and wrong": {[]string{"4242", "no-such-user"}, nil, "no-such-user"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := userIDs(c.names)
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			if len(got) != len(c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			for _, id := range c.want {
				if !got[id] {
					t.Errorf("%d may not", id)
				}
			}
		})
	}
}
