package signer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// socket is a listener with those who may use it.
type socket struct {
	*net.UnixListener
	admin bool
	users map[uint32]bool
	slots chan struct{} // one for each connection that is open

	mu      sync.Mutex // guards conns and drained
	conns   map[*connection]struct{}
	drained bool     // no further connection is served
	lock    *os.File // keeps other processes from the same path; nil under systemd
}

// connectionLimit bounds each socket's open connections.
const connectionLimit = 1024

// listen opens both sockets: those of the service manager when it gave any, else its own.
func (s *Server) listen() (sockets []*socket, err error) {
	given, err := activated()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, k := range sockets {
				k.close()
			}
		}
	}()
	for _, want := range []struct {
		name, path string
		admin      bool
		users      []string
	}{
		{"sign", s.cfg.Signer.SignSocket, false, s.cfg.Signer.SignUsers},
		{"admin", s.cfg.Signer.AdminSocket, true, s.cfg.Signer.AdminUsers},
	} {
		users, err := userIDs(want.users)
		if err != nil {
			return sockets, fmt.Errorf("signer.%s_users: %w", want.name, err)
		}
		k := &socket{admin: want.admin, users: users, slots: make(chan struct{}, connectionLimit), conns: map[*connection]struct{}{}}
		if k.UnixListener = given[want.name]; k.UnixListener == nil {
			if len(given) > 0 {
				return sockets, fmt.Errorf("the service manager gave sockets, but none is named %q: set FileDescriptorName= in its socket unit", want.name)
			}
			mode := os.FileMode(0o600)
			if len(want.users) > 0 {
				mode = 0o660
			}
			if k.UnixListener, k.lock, err = listenUnix(want.path, mode); err != nil {
				return sockets, err
			}
		}
		sockets = append(sockets, k)
	}
	return sockets, nil
}

// close lets the socket's path go.
func (k *socket) close() {
	k.Close()
	if k.lock != nil {
		k.lock.Close()
	}
}

// activated returns the service manager's sockets by name (sd_listen_fds).
func activated() (map[string]*net.UnixListener, error) {
	given := map[string]*net.UnixListener{}
	for _, f := range activation.Files(true) {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("the service manager's descriptor %q: %w", f.Name(), err)
		}
		unixListener, ok := l.(*net.UnixListener)
		if !ok {
			return nil, fmt.Errorf("the service manager's descriptor %q is no Unix socket", f.Name())
		}
		unixListener.SetUnlinkOnClose(false)
		given[f.Name()] = unixListener
	}
	return given, nil
}

// longestSocket is what a Unix socket's address holds, in bytes (unix(7)).
const longestSocket = 107

// listenUnix binds a socket under a name of its own, gives it its mode, and
// renames it: nobody sees it with other rights, and what an earlier process left
// is replaced at once.
func listenUnix(path string, mode os.FileMode) (_ *net.UnixListener, lock *os.File, err error) {
	fresh := path + ".new"
	if len(fresh) > longestSocket {
		return nil, nil, fmt.Errorf("socket %s: a path of %d bytes: at most %d can be served", path, len(path), longestSocket-len(".new"))
	}
	lock, err = os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, fmt.Errorf("socket %s: another signer serves it", path)
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	before := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	unix.Umask(before)
	if err != nil {
		return nil, nil, fmt.Errorf("socket %s: %w: its folder must exist and be writable", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, mode); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, lock, nil
}

// userIDs resolves names and numbers. Nobody named means the signer's own user
// alone; root has no right that is not given.
func userIDs(names []string) (map[uint32]bool, error) {
	ids := map[uint32]bool{}
	for _, n := range names {
		number := n
		if _, err := strconv.ParseUint(n, 10, 32); err != nil {
			u, err := user.Lookup(n)
			if err != nil {
				return nil, fmt.Errorf("%w: create the user or correct the name", err)
			}
			number = u.Uid
		}
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, err
		}
		ids[uint32(id)] = true
	}
	if len(names) == 0 {
		ids[uint32(os.Geteuid())] = true
	}
	return ids, nil
}

// peer returns the user at the other end, as the kernel knows it.
func peer(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return credentials.Uid, nil
}

// alive tells that requests would be answered: it takes the lock that each of
// them takes.
func (s *Server) alive(context.Context) bool {
	s.current()
	return true
}

// name is the socket's name in the daemon's log.
func (k *socket) name() string { return filepath.Base(k.Addr().String()) }
