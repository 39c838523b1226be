package signer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
)

// limits bound a connection in time.
type limits struct {
	// idle is how long it may stay without a request; one that paused the signer
	// may stay so for pause.
	idle, pause time.Duration
	// frame is how long a begun frame may take, either way.
	frame time.Duration
}

var usualLimits = limits{idle: 10 * time.Minute, pause: 4 * time.Hour, frame: 10 * time.Second}

// connection is one peer's.
type connection struct {
	*net.UnixConn
	socket *socket
	reader *bufio.Reader
	busy   bool // a request is under way; guarded by socket.mu
	closed bool // no further request is read; guarded by socket.mu
}

// serve accepts until ctx ends, and returns when the last connection is closed.
func (k *socket) serve(ctx context.Context, s *Server) {
	stop := context.AfterFunc(ctx, func() { k.Close(); k.drain() })
	defer stop()
	var wait sync.WaitGroup
	for {
		c, err := k.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			break
		}
		if err != nil {
			s.logger.Error("accept", "socket", k.name(), "error", err.Error())
			time.Sleep(10 * time.Millisecond) // out of descriptors: let some close
			continue
		}
		cn := &connection{UnixConn: c, socket: k, reader: bufio.NewReaderSize(c, 16<<10)}
		if refused := k.admit(s, cn); refused != nil {
			cn.SetDeadline(time.Now().Add(time.Second))
			wire.WriteFrame(cn, wire.Response{Error: refused})
			cn.Close()
			continue
		}
		wait.Go(func() {
			defer func() { <-k.slots }()
			cn.serve(ctx, s)
			k.forget(cn)
			s.gone(ctx, cn)
		})
	}
	wait.Wait()
	k.close()
}

// admit checks the peer and counts the connection.
func (k *socket) admit(s *Server, cn *connection) *wire.Error {
	uid, err := peer(cn.UnixConn)
	if err != nil || !k.users[uid] {
		s.logger.Warn("peer refused", "socket", k.name(), "uid", uid)
		return &wire.Error{Code: wire.CodeDenied, Message: fmt.Sprintf("user %d may not use this socket: see sign_users and admin_users", uid)}
	}
	select {
	case k.slots <- struct{}{}:
	default:
		return &wire.Error{Code: wire.CodeBusy, Message: fmt.Sprintf("%d connections are open already", connectionLimit), RetryAfter: 1}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.drained {
		<-k.slots
		return &wire.Error{Code: wire.CodeUnavailable, Message: "the signer is stopping", RetryAfter: 1}
	}
	k.conns[cn] = struct{}{}
	return nil
}

func (k *socket) forget(cn *connection) {
	cn.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, cn)
}

// drain closes idle connections and lets the others answer first.
func (k *socket) drain() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drained = true
	for cn := range k.conns {
		cn.closed = true
		if !cn.busy {
			cn.Close()
		}
	}
}

// begin marks a request as under way, unless the connection is to be closed.
func (cn *connection) begin() bool {
	cn.socket.mu.Lock()
	defer cn.socket.mu.Unlock()
	cn.busy = !cn.closed
	return cn.busy
}

func (cn *connection) end() (closed bool) {
	cn.socket.mu.Lock()
	defer cn.socket.mu.Unlock()
	cn.busy = false
	return cn.closed
}

// serve answers requests one after the other until the peer has no more.
func (cn *connection) serve(ctx context.Context, s *Server) {
	for {
		if err := cn.wait(s); err != nil || !cn.begin() {
			return
		}
		var request wire.Request
		cn.SetDeadline(time.Now().Add(s.limits.frame))
		if err := wire.ReadFrame(cn.reader, &request); err != nil {
			if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				wire.WriteFrame(cn, wire.Response{Error: bad("the frame cannot be read: %v", err)})
			}
			return
		}
		response := s.answer(ctx, cn, request)
		cn.SetDeadline(time.Now().Add(s.limits.frame))
		if err := wire.WriteFrame(cn, response); err != nil || cn.end() {
			return
		}
	}
}

// wait waits for the first byte of a request.
func (cn *connection) wait(s *Server) error {
	limit := s.limits.idle
	s.life.RLock()
	if s.pauser == cn {
		limit = s.limits.pause
	}
	s.life.RUnlock()
	cn.SetDeadline(time.Now().Add(limit))
	_, err := cn.reader.Peek(1)
	return err
}

// operation is what a socket can be asked.
type operation struct {
	sign, admin bool
	run         func(ctx context.Context, s *Server, cn *connection, body cbor.RawMessage) (any, error)
}

// operations by name. sign.sock is chanceryd's, admin.sock the operators': nobody
// signs through the latter or pauses through the former.
var operations map[wire.Op]operation

func init() {
	operations = map[wire.Op]operation{
		wire.OpSign:        {sign: true, run: withCore((*Server).sign)},
		wire.OpNewDataKey:  {sign: true, run: withCore((*Server).newDataKey)},
		wire.OpOpenDataKey: {sign: true, run: withCore((*Server).openDataKey)},
		wire.OpAppend:      {sign: true, run: withCore((*Server).appendEvents)},
		wire.OpIdentities:  {sign: true, admin: true, run: withCore((*Server).identities)},
		wire.OpStatus: {sign: true, admin: true, run: func(_ context.Context, s *Server, _ *connection, body cbor.RawMessage) (any, error) {
			return s.status(), empty(body)
		}},
		wire.OpCheckpoint: {admin: true, run: withCore((*Server).checkpoint)},
		wire.OpEvidence:   {admin: true, run: withCore((*Server).evidence)},
		wire.OpPause: {admin: true, run: func(_ context.Context, s *Server, cn *connection, body cbor.RawMessage) (any, error) {
			if err := empty(body); err != nil {
				return nil, err
			}
			return nil, s.pause(cn)
		}},
		wire.OpResume: {admin: true, run: func(ctx context.Context, s *Server, _ *connection, body cbor.RawMessage) (any, error) {
			if err := empty(body); err != nil {
				return nil, err
			}
			return nil, s.resume(ctx)
		}},
	}
}

// nothing is the body of an operation without one.
type nothing struct{}

func empty(body cbor.RawMessage) error {
	if len(body) > 0 {
		return bad("the operation takes no body")
	}
	return nil
}

// withCore decodes the body and runs fn within a generation, which stays until
// fn returns.
func withCore[In, Out any](fn func(s *Server, ctx context.Context, c *core, in In) (Out, error)) func(context.Context, *Server, *connection, cbor.RawMessage) (any, error) {
	return func(ctx context.Context, s *Server, _ *connection, body cbor.RawMessage) (any, error) {
		var in In
		if _, none := any(in).(nothing); none {
			if err := empty(body); err != nil {
				return nil, err
			}
		} else if err := wire.Unmarshal(body, &in); err != nil {
			return nil, bad("the body cannot be read: %v", err)
		}
		s.life.RLock()
		defer s.life.RUnlock()
		if s.core == nil {
			return nil, &wire.Error{Code: wire.CodeUnavailable, RetryAfter: 5, Message: "the signer is paused for a ceremony"}
		}
		return fn(s, ctx, s.core, in)
	}
}

// answer carries a request out. A request that has begun is carried to its end
// even when the daemon is stopping.
func (s *Server) answer(ctx context.Context, cn *connection, request wire.Request) wire.Response {
	op, known := operations[request.Op]
	if !known {
		return wire.Response{Error: bad("there is no such operation")}
	}
	if (cn.socket.admin && !op.admin) || (!cn.socket.admin && !op.sign) {
		return wire.Response{Error: &wire.Error{Code: wire.CodeDenied, Message: fmt.Sprintf("%s is not for this socket", request.Op)}}
	}
	out, err := op.run(context.WithoutCancel(ctx), s, cn, request.Body)
	if err != nil {
		return wire.Response{Error: s.explain(request.Op, err)}
	}
	if out == nil {
		return wire.Response{}
	}
	body, err := wire.Marshal(out)
	if err != nil {
		return wire.Response{Error: s.explain(request.Op, err)}
	}
	return wire.Response{Body: body}
}

// explain maps every error to an answer, in this one place.
func (s *Server) explain(op wire.Op, err error) *wire.Error {
	if e := wire.AsError(err); e != nil {
		return e
	}
	class := hsm.ClassOf(err)
	switch {
	case class == hsm.ClassBusy:
		return &wire.Error{Code: wire.CodeBusy, RetryAfter: 1, Message: "the token is busy"}
	case class == hsm.ClassSessionLost || class == hsm.ClassTokenGone || class == hsm.ClassHung || class == hsm.ClassPINRefused || class == hsm.ClassClosed:
		return &wire.Error{Code: wire.CodeUnavailable, RetryAfter: 2, Message: "the token is not available: " + string(class)}
	case errors.Is(err, audit.ErrLocked):
		return &wire.Error{Code: wire.CodeBusy, RetryAfter: 1, Message: "the ceremony's process still has token and log"}
	case errors.Is(err, audit.ErrFailed):
		s.logger.Error("failed", "op", string(op), "error", err.Error())
		return &wire.Error{Code: wire.CodeUnavailable, RetryAfter: 5, Message: "the audit log takes no entries, so nothing is signed"}
	}
	s.logger.Error("failed", "op", string(op), "error", err.Error())
	message := "the signer failed: see its log"
	if class != "" {
		message = "the token failed: " + string(class)
	}
	return &wire.Error{Code: wire.CodeInternal, Message: message}
}
