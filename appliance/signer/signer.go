// Package signer is the signer daemon: the one process with the token's PIN,
// the vendor's module and the audit log. It knows no HTTP.
//
// A request to sign goes one way: the to-be-signed bytes are parsed and held
// against the key's profile; what is about to be signed is written to the log
// and durable; the token signs and the signature is verified; the outcome is
// written and durable; then, and only then, the answer leaves. Requests that
// come together share the two commits. Whatever breaks the chain refuses the
// signature, and when the log's state is not known any more the process ends:
// the next start looks, and closes intents that have no outcome.
//
// A generation is the time between opening token and log and closing them. A
// ceremony, which is another process, takes place between two generations.
package signer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/process"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
)

// Exit statuses of chancery-signer, for the service manager; [process.ExitPIN] is
// the third.
const (
	// ExitFailure asks for another start.
	ExitFailure = 1
	// ExitHung says that a call into the token's module did not return.
	ExitHung = 70
)

// Options are what the daemon needs besides its configuration.
type Options struct {
	Logger *slog.Logger
	// Now is the clock; nil is the machine's.
	Now func() time.Time
	// Version goes into the log's entry of each start.
	Version string
	// Ready is called once the sockets are served; nil does nothing. Under
	// systemd the service manager is told as well.
	Ready func()
}

// Server is the running daemon.
type Server struct {
	cfg     *config.Config
	logger  *slog.Logger
	now     func() time.Time
	version string
	limits  limits // of connections

	// transition is held by whoever begins or ends a generation, for as long as
	// that takes. life is held shared by every request and exclusively for the
	// moment in which the core comes or goes; it guards core and pauser. So a
	// pause waits for the requests that are under way, those that come after it
	// find no core, and nobody waits for a log that is being read.
	transition sync.Mutex
	life       sync.RWMutex
	core       *core       // nil while paused and after the end
	pauser     *connection // who paused; its end resumes

	admitted   atomic.Int64  // requests in front of the token
	signatures atomic.Uint64 // answered since the start
	generation atomic.Uint64 // of the list of identities

	fatal chan error // the first reason to end
}

// New checks what can be checked without the token.
func New(cfg *config.Config, o Options) (*Server, error) {
	if _, err := os.Stat(cfg.Signer.Module); err != nil {
		return nil, fmt.Errorf("signer.module: %w: install the token's PKCS#11 module or correct the path", err)
	}
	s := &Server{cfg: cfg, logger: o.Logger, now: o.Now, version: o.Version, limits: usualLimits, fatal: make(chan error, 1)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	// A list of identities that anybody remembers from an earlier process is older.
	s.generation.Store(uint64(s.now().UnixMilli()))
	return s, nil
}

// Run opens token and log, serves both sockets until ctx ends, and closes
// everything in order. A nil error means a clean end.
func Run(ctx context.Context, cfg *config.Config, o Options) error {
	s, err := New(cfg, o)
	if err != nil {
		return err
	}
	if err := s.open(ctx); err != nil {
		return err
	}
	s.logger.Info("open", "log_size", s.current().log.Size(), "keys", len(s.current().keys))
	sockets, err := s.listen()
	if err != nil {
		return errors.Join(err, s.close())
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	var wait sync.WaitGroup
	for _, socket := range sockets {
		wait.Go(func() { socket.serve(serving, s) })
	}
	wait.Go(func() { process.Watchdog(serving, s.alive) })
	process.Tell(process.Ready)
	if o.Ready != nil {
		o.Ready()
	}
	select {
	case <-ctx.Done():
	case err = <-s.fatal:
		s.logger.Error("stopping", "error", err.Error())
	}
	process.Tell(process.Stopping)
	stop()
	wait.Wait()
	return errors.Join(err, s.close())
}

// fail ends the process: the state is not known any more, or nothing that this
// process can do will help.
func (s *Server) fail(err error) {
	select {
	case s.fatal <- err:
	default:
	}
}

// current returns the generation's core, nil while paused.
func (s *Server) current() *core {
	s.life.RLock()
	defer s.life.RUnlock()
	return s.core
}

// open begins a generation.
func (s *Server) open(ctx context.Context) error {
	s.transition.Lock()
	defer s.transition.Unlock()
	if s.current() != nil {
		return nil
	}
	c, err := s.begin(ctx)
	if err != nil {
		return err
	}
	s.life.Lock()
	defer s.life.Unlock()
	s.core, s.pauser = c, nil
	return nil
}

// leave takes the core away once no request uses it, for pauser; without a core
// it returns nil, and who paused it.
func (s *Server) leave(pauser *connection) (*core, *connection) {
	s.life.Lock()
	defer s.life.Unlock()
	c := s.core
	if c == nil {
		return nil, s.pauser
	}
	s.core, s.pauser = nil, pauser
	return c, pauser
}

// close ends the generation, if there is one.
func (s *Server) close() error {
	s.transition.Lock()
	defer s.transition.Unlock()
	if c, _ := s.leave(nil); c != nil {
		return c.end()
	}
	return nil
}

// pause drains and lets token and log go, for the ceremony of whoever is at the
// other end of the connection; another one's is refused meanwhile.
func (s *Server) pause(cn *connection) error {
	s.transition.Lock()
	defer s.transition.Unlock()
	c, pauser := s.leave(cn)
	if pauser != cn {
		return &wire.Error{Code: wire.CodeBusy, RetryAfter: 60, Message: "the signer is paused for another ceremony"}
	}
	if c == nil {
		return nil
	}
	s.logger.Info("paused")
	if err := c.end(); err != nil {
		s.fail(fmt.Errorf("pause: %w", err))
		return err
	}
	return nil
}

// resume begins a new generation. While the ceremony's process has the log the
// pause goes on. When it fails otherwise the process ends: what the ceremony
// left is then for the next start to explain.
func (s *Server) resume(ctx context.Context) error {
	err := s.open(ctx)
	switch {
	case err == nil:
		s.logger.Info("resumed")
	case !errors.Is(err, audit.ErrLocked):
		s.fail(fmt.Errorf("resume: %w", err))
	}
	return err
}

// resumePause is the time between two tries to resume behind a ceremony whose
// operator is gone.
const resumePause = 500 * time.Millisecond

// gone resumes when the connection that paused is closed: its process died. What
// it had started may still hold the ceremony, and is waited for.
func (s *Server) gone(ctx context.Context, cn *connection) {
	s.life.RLock()
	mine := s.pauser == cn
	s.life.RUnlock()
	if !mine {
		return
	}
	s.logger.Warn("the connection that paused the signer is gone")
	for ctx.Err() == nil {
		err := s.resume(ctx)
		if err == nil {
			return
		}
		s.logger.Error("resume", "error", err.Error())
		if !errors.Is(err, audit.ErrLocked) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(resumePause):
		}
	}
}

// status answers for readiness and metrics, also while paused.
func (s *Server) status() wire.StatusResponse {
	r := wire.StatusResponse{State: "paused", Keys: map[string]bool{}, Signatures: s.signatures.Load(),
		QueueLimit: s.cfg.Signer.Queue, PID: os.Getpid()}
	r.Queue = int(max(0, s.admitted.Load()-int64(s.cfg.Signer.Sessions)))
	s.life.RLock()
	defer s.life.RUnlock()
	if s.core == nil {
		return r
	}
	s.core.describe(&r)
	return r
}

// ExitStatus returns the process's exit status for Run's error.
func ExitStatus(err error) int {
	switch {
	case err == nil:
		return 0
	case hsm.ClassOf(err) == hsm.ClassPINRefused:
		return process.ExitPIN
	}
	return ExitFailure
}
