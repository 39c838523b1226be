package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// idleLimit is how many connections a client keeps for later.
const idleLimit = 64

// defaultTimeout bounds a request whose context has no deadline.
const defaultTimeout = 30 * time.Second

// Client asks the signer. It is safe for concurrent use; each request has a
// connection to itself. An error answer is an *[Error]; a signer that cannot be
// reached is one with [CodeUnavailable].
type Client struct {
	path string

	mu     sync.Mutex // guards idle and closed
	idle   []*conn
	closed bool
}

type conn struct {
	net.Conn
	r *bufio.Reader
}

// NewClient returns a client for a socket's path. It connects when it is asked.
func NewClient(path string) *Client { return &Client{path: path} }

// Close closes the idle connections; requests under way end on their own.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, idle := range c.idle {
		idle.Close()
	}
	c.idle = nil
}

// take returns an idle connection, or a new one; reused tells which.
func (c *Client) take(ctx context.Context) (cn *conn, reused bool, err error) {
	for {
		c.mu.Lock()
		n := len(c.idle)
		if n == 0 {
			c.mu.Unlock()
			break
		}
		cn = c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		if cn.alive() {
			return cn, true, nil
		}
		cn.Close()
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, false, err
	}
	return &conn{raw, bufio.NewReaderSize(raw, 16<<10)}, false, nil
}

// alive tells whether the peer has not closed an idle connection: the signer
// was restarted, and what is sent there would be lost.
func (cn *conn) alive() bool {
	raw, err := cn.Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, e := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		open = errors.Is(e, unix.EAGAIN)
		return true
	})
	return err == nil && open
}

// give keeps a connection for the next request. Its deadline is taken away, or a
// later look at whether it is alive would fail.
func (c *Client) give(cn *conn) {
	failed := cn.SetDeadline(time.Time{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if failed != nil || c.closed || len(c.idle) >= idleLimit {
		cn.Close()
		return
	}
	c.idle = append(c.idle, cn)
}

// call sends a request and reads its answer into out. A request on an idle
// connection that the signer closed meanwhile (it was restarted) is sent again
// on a new one, unless it may have been carried out: then again is false.
func (c *Client) call(ctx context.Context, op Op, in, out any, again bool) error {
	request := Request{Op: op}
	if in != nil {
		body, err := Marshal(in)
		if err != nil {
			return err
		}
		request.Body = body
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	for {
		cn, reused, err := c.take(ctx)
		if err != nil {
			return unavailable(err)
		}
		response, reuse, err := cn.exchange(ctx, request)
		if reuse {
			c.give(cn)
		} else {
			cn.Close()
		}
		if e := AsError(err); e != nil {
			return e
		}
		if err != nil {
			if reused && again && ctx.Err() == nil {
				continue
			}
			return unavailable(err)
		}
		if response.Error != nil {
			return response.Error
		}
		if out == nil {
			return nil
		}
		if err := Unmarshal(response.Body, out); err != nil {
			return &Error{Code: CodeInternal, Message: fmt.Sprintf("the answer to %s cannot be read: %v", op, err)}
		}
		return nil
	}
}

func unavailable(err error) error {
	return &Error{Code: CodeUnavailable, Message: fmt.Sprintf("the signer does not answer: %v", err), RetryAfter: 2}
}

// exchange sends a request and reads the answer. A signer that refuses the peer
// answers without having read the request, and closes: then sending fails, but
// the answer is there. reuse tells whether the connection may serve again.
func (cn *conn) exchange(ctx context.Context, request Request) (response Response, reuse bool, err error) {
	deadline, _ := ctx.Deadline()
	if err := cn.SetDeadline(deadline); err != nil {
		return Response{}, false, err
	}
	stop := context.AfterFunc(ctx, func() { cn.SetDeadline(time.Unix(1, 0)) })
	sent := WriteFrame(cn, request)
	if errors.Is(sent, ErrTooLong) {
		return Response{}, stop(), &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%s: %v", request.Op, sent)}
	}
	if err := ReadFrame(cn.r, &response); err != nil {
		stop()
		return Response{}, false, errors.Join(sent, err)
	}
	return response, stop() && sent == nil, nil
}

// AsError returns the signer's error answer within err, or nil.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return nil
}

// Sign asks for the signatures of one credential request.
func (c *Client) Sign(ctx context.Context, r SignRequest) (SignResponse, error) {
	var out SignResponse
	// Sent again it would be signed twice: the caller decides.
	err := c.call(ctx, OpSign, r, &out, false)
	if err == nil && len(out.Results) != len(r.Items) {
		err = &Error{Code: CodeInternal, Message: "the answer has another number of signatures than the request"}
	}
	return out, err
}

// Identities lists the keys.
func (c *Client) Identities(ctx context.Context) (IdentitiesResponse, error) {
	var out IdentitiesResponse
	return out, c.call(ctx, OpIdentities, nil, &out, true)
}

// NewDataKey asks for a fresh data key, bound to context.
func (c *Client) NewDataKey(ctx context.Context, context string) (DataKeyResponse, error) {
	var out DataKeyResponse
	return out, c.call(ctx, OpNewDataKey, NewDataKeyRequest{context}, &out, true)
}

// OpenDataKey asks for a wrapped data key's plain form.
func (c *Client) OpenDataKey(ctx context.Context, context string, wrapped []byte) (DataKeyResponse, error) {
	var out DataKeyResponse
	return out, c.call(ctx, OpOpenDataKey, OpenDataKeyRequest{context, wrapped}, &out, true)
}

// Append hands events to the audit log; the signer drops what it already has.
func (c *Client) Append(ctx context.Context, r AppendRequest) (AppendResponse, error) {
	var out AppendResponse
	return out, c.call(ctx, OpAppend, r, &out, true)
}

// Status asks how the signer is.
func (c *Client) Status(ctx context.Context) (StatusResponse, error) {
	var out StatusResponse
	return out, c.call(ctx, OpStatus, nil, &out, true)
}

// Checkpoint asks for a checkpoint over everything in the log (admin.sock).
func (c *Client) Checkpoint(ctx context.Context) (CheckpointResponse, error) {
	var out CheckpointResponse
	return out, c.call(ctx, OpCheckpoint, nil, &out, true)
}

// Evidence asks what the token and its keys are (admin.sock).
func (c *Client) Evidence(ctx context.Context) (EvidenceResponse, error) {
	var out EvidenceResponse
	return out, c.call(ctx, OpEvidence, nil, &out, true)
}

// Pause makes the signer drain and let token and log go (admin.sock), until
// [Client.Resume], or until its connection is closed.
func (c *Client) Pause(ctx context.Context) error { return c.call(ctx, OpPause, nil, nil, true) }

// Resume makes a paused signer open token and log again (admin.sock).
func (c *Client) Resume(ctx context.Context) error { return c.call(ctx, OpResume, nil, nil, true) }
