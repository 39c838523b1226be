package wire

import (
	"bufio"
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// peer is a signer's end of a real socket, with answers as a test wants them.
type peer struct {
	path        string
	listener    *net.UnixListener
	connections atomic.Int64
	requests    atomic.Int64

	mu   sync.Mutex
	open []net.Conn
}

// listen serves at path, or in a new folder; answer may write what it likes, and
// tells whether the connection stays.
func listen(t *testing.T, path string, answer func(c net.Conn, r Request) bool) *peer {
	t.Helper()
	if path == "" {
		dir, err := os.MkdirTemp("", "chancery-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		path = filepath.Join(dir, "s")
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{path: path, listener: l}
	t.Cleanup(p.close)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.connections.Add(1)
			p.mu.Lock()
			p.open = append(p.open, c)
			p.mu.Unlock()
			go p.serve(c, answer)
		}
	}()
	return p
}

func (p *peer) serve(c net.Conn, answer func(net.Conn, Request) bool) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var request Request
		if ReadFrame(r, &request) != nil {
			return
		}
		p.requests.Add(1)
		if !answer(c, request) {
			return
		}
	}
}

// close ends the peer as a signer that is stopped does.
func (p *peer) close() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.open {
		c.Close()
	}
}

// ok answers with a body.
func ok(t testing.TB, c net.Conn, body any) bool {
	data, err := Marshal(body)
	if err != nil {
		t.Error(err)
	}
	return WriteFrame(c, Response{Body: data}) == nil
}

func client(t *testing.T, path string) *Client {
	c := NewClient(path)
	t.Cleanup(c.Close)
	return c
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func code(err error) Code {
	if e := AsError(err); e != nil {
		return e.Code
	}
	return ""
}

// TestEveryCall asks each operation and looks at what arrives and what returns.
func TestEveryCall(t *testing.T) {
	var got Request
	answers := map[Op]any{
		OpSign:       SignResponse{Results: []SignResult{{Signature: []byte{1}, Intent: 2, Outcome: 3}}},
		OpIdentities: IdentitiesResponse{Generation: 4}, OpNewDataKey: DataKeyResponse{Key: []byte{5}}, OpOpenDataKey: DataKeyResponse{Key: []byte{6}},
		OpAppend: AppendResponse{LastSeq: 7}, OpStatus: StatusResponse{PID: 8}, OpCheckpoint: CheckpointResponse{Note: []byte{9}},
		OpEvidence: EvidenceResponse{JSON: []byte{10}},
	}
	p := listen(t, "", func(c net.Conn, r Request) bool {
		got = r
		if answers[r.Op] == nil {
			return WriteFrame(c, Response{}) == nil
		}
		return ok(t, c, answers[r.Op])
	})
	c, ctx := client(t, p.path), soon(t)
	for _, call := range []struct {
		op   Op
		body any // what arrives
		ask  func() (any, error)
		want any // a member of the answer
	}{
		{OpSign, SignRequest{Offer: "o", Items: []SignItem{{Key: "k", TBS: []byte{1}}}}, func() (any, error) {
			r, err := c.Sign(ctx, SignRequest{Offer: "o", Items: []SignItem{{Key: "k", TBS: []byte{1}}}})
			return r.Results[0].Outcome, err
		}, int64(3)},
		{OpIdentities, nil, func() (any, error) { r, err := c.Identities(ctx); return r.Generation, err }, uint64(4)},
		{OpNewDataKey, NewDataKeyRequest{"x"}, func() (any, error) { r, err := c.NewDataKey(ctx, "x"); return r.Key[0], err }, byte(5)},
		{OpOpenDataKey, OpenDataKeyRequest{"x", []byte{2}}, func() (any, error) { r, err := c.OpenDataKey(ctx, "x", []byte{2}); return r.Key[0], err }, byte(6)},
		{OpAppend, AppendRequest{Source: "s"}, func() (any, error) { r, err := c.Append(ctx, AppendRequest{Source: "s"}); return r.LastSeq, err }, uint64(7)},
		{OpStatus, nil, func() (any, error) { r, err := c.Status(ctx); return r.PID, err }, 8},
		{OpCheckpoint, nil, func() (any, error) { r, err := c.Checkpoint(ctx); return r.Note[0], err }, byte(9)},
		{OpEvidence, nil, func() (any, error) { r, err := c.Evidence(ctx); return r.JSON[0], err }, byte(10)},
		{OpPause, nil, func() (any, error) { return nil, c.Pause(ctx) }, nil},
		{OpResume, nil, func() (any, error) { return nil, c.Resume(ctx) }, nil},
	} {
		answer, err := call.ask()
		if err != nil || answer != call.want {
			t.Errorf("%s: %v, %v", call.op, answer, err)
		}
		var body []byte
		if call.body != nil {
			if body, err = Marshal(call.body); err != nil {
				t.Fatal(err)
			}
		}
		if got.Op != call.op || string(got.Body) != string(body) {
			t.Errorf("%s arrived as %s with %x, want %x", call.op, got.Op, got.Body, body)
		}
	}
	if n := p.connections.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other", n)
	}
}

// TestConnectionsAreKept runs eight requests at once, twice.
func TestConnectionsAreKept(t *testing.T) {
	const n = 8
	var barrier sync.WaitGroup
	p := listen(t, "", func(c net.Conn, _ Request) bool {
		barrier.Done()
		barrier.Wait() // all eight are under way
		return ok(t, c, StatusResponse{})
	})
	c, ctx := client(t, p.path), soon(t)
	for range 2 {
		barrier.Add(n)
		var wait sync.WaitGroup
		for range n {
			wait.Go(func() {
				if _, err := c.Status(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
	}
	if got := p.connections.Load(); got != n {
		t.Errorf("%d connections, want %d", got, n)
	}
}

// TestRestartedSigner closes the kept connection: the next request finds the new
// signer by itself.
func TestRestartedSigner(t *testing.T) {
	answer := func(c net.Conn, _ Request) bool { return ok(t, c, StatusResponse{}) }
	first := listen(t, "", answer)
	c, ctx := client(t, first.path), soon(t)
	if _, err := c.Status(ctx); err != nil {
		t.Fatal(err)
	}
	first.close()
	if _, err := c.Status(ctx); code(err) != CodeUnavailable {
		t.Errorf("without a signer: %v", err)
	}
	second := listen(t, first.path, answer)
	if _, err := c.Status(ctx); err != nil || second.requests.Load() != 1 {
		t.Errorf("%v, %d requests at the new signer", err, second.requests.Load())
	}
}

// TestAskedAgain has a signer that takes a request on a kept connection and
// closes without an answer: status is asked again, a signature is not.
func TestAskedAgain(t *testing.T) {
	for _, c := range []struct {
		name     string
		ask      func(ctx context.Context, c *Client) error
		again    bool
		requests int64
	}{
		{"status", func(ctx context.Context, c *Client) error { _, err := c.Status(ctx); return err }, true, 3},
		{"sign", func(ctx context.Context, c *Client) error { _, err := c.Sign(ctx, SignRequest{}); return err }, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n atomic.Int64
			p := listen(t, "", func(conn net.Conn, _ Request) bool { return n.Add(1) != 2 && ok(t, conn, StatusResponse{}) })
			cl, ctx := client(t, p.path), soon(t)
			if _, err := cl.Status(ctx); err != nil {
				t.Fatal(err)
			}
			err := c.ask(ctx, cl)
			if (err == nil) != c.again || !c.again && code(err) != CodeUnavailable || p.requests.Load() != c.requests {
				t.Errorf("%v after %d requests", err, p.requests.Load())
			}
		})
	}
}

// TestDeadline has a signer that does not answer.
func TestDeadline(t *testing.T) {
	p := listen(t, "", func(c net.Conn, r Request) bool {
		if r.Op == OpStatus {
			return ok(t, c, StatusResponse{})
		}
		select {} // never
	})
	c := client(t, p.path)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Identities(ctx); code(err) != CodeUnavailable {
		t.Errorf("after the deadline: %v", err)
	}
	<-ctx.Done() // the connection's deadline and the context's are two clocks
	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := c.Identities(ctx); code(err) != CodeUnavailable {
		t.Errorf("after the caller left: %v", err)
	}
	if _, err := c.Status(soon(t)); err != nil {
		t.Errorf("the client is of no use afterwards: %v", err)
	}
}

// TestKeptBeyondItsDeadline uses a connection again after the deadline of the
// request before has passed.
func TestKeptBeyondItsDeadline(t *testing.T) {
	p := listen(t, "", func(c net.Conn, _ Request) bool { return ok(t, c, StatusResponse{}) })
	c := client(t, p.path)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := c.Status(ctx); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if _, err := c.Status(soon(t)); err != nil || p.connections.Load() != 1 {
		t.Errorf("%v, %d connections, want 1", err, p.connections.Load())
	}
}

// TestErrorAnswers returns the signer's own errors, and keeps the connection.
func TestErrorAnswers(t *testing.T) {
	want := &Error{Code: CodeBusy, Message: "m", RetryAfter: 3}
	p := listen(t, "", func(c net.Conn, _ Request) bool { return WriteFrame(c, Response{Error: want}) == nil })
	c, ctx := client(t, p.path), soon(t)
	for range 2 {
		if err := c.Pause(ctx); AsError(err) == nil || *AsError(err) != *want {
			t.Errorf("%v", err)
		}
	}
	if n := p.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestDeniedUnread has a signer that refuses the peer before it reads: the
// answer arrives although the request could not be sent.
func TestDeniedUnread(t *testing.T) {
	dir, err := os.MkdirTemp("", "chancery-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			WriteFrame(c, Response{Error: &Error{Code: CodeDenied, Message: "not you"}})
			c.Close()
		}
	}()
	c := client(t, filepath.Join(dir, "s"))
	for range 20 {
		// Larger than the socket's buffer: sending cannot be finished.
		_, err := c.Append(soon(t), AppendRequest{Source: string(make([]byte, 2<<20))})
		if code(err) != CodeDenied {
			t.Fatalf("%v, want the signer's refusal", err)
		}
	}
}

// TestAnswersThatCannotBe is the table of answers that are none.
func TestAnswersThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(c net.Conn) bool
		want   Code
	}{
		"not CBOR":                 {func(c net.Conn) bool { c.Write(framed([]byte("no"))); return true }, CodeUnavailable},
		"too long":                 {func(c net.Conn) bool { c.Write([]byte{0xff, 0xff, 0xff, 0xff}); return true }, CodeUnavailable},
		"the connection's end":     {func(net.Conn) bool { return false }, CodeUnavailable},
		"no body":                  {func(c net.Conn) bool { return WriteFrame(c, Response{}) == nil }, CodeInternal},
		"another message":          {func(c net.Conn) bool { return ok(t, c, CheckpointResponse{}) }, CodeInternal},
		"one signature too few":    {func(c net.Conn) bool { return ok(t, c, SignResponse{Results: make([]SignResult, 1)}) }, CodeInternal},
		"a signature too many":     {func(c net.Conn) bool { return ok(t, c, SignResponse{Results: make([]SignResult, 3)}) }, CodeInternal},
		"something in an op's own": {func(c net.Conn) bool { return ok(t, c, "text") }, CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			p := listen(t, "", func(conn net.Conn, _ Request) bool { return c.answer(conn) })
			_, err := client(t, p.path).Sign(soon(t), SignRequest{Items: make([]SignItem, 2)})
			if code(err) != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// TestRequestTooLong is refused here, and the connection stays good.
func TestRequestTooLong(t *testing.T) {
	p := listen(t, "", func(c net.Conn, _ Request) bool { return ok(t, c, StatusResponse{}) })
	c := client(t, p.path)
	if _, err := c.OpenDataKey(soon(t), "x", make([]byte, MaxFrame)); code(err) != CodeBadRequest {
		t.Errorf("%v", err)
	}
	if _, err := c.Status(soon(t)); err != nil || p.connections.Load() != 1 {
		t.Errorf("%v, %d connections", err, p.connections.Load())
	}
}

// TestClose closes what is idle; a closed client keeps nothing.
func TestClose(t *testing.T) {
	ended := make(chan struct{}, 8)
	p := listen(t, "", func(c net.Conn, _ Request) bool {
		ok(t, c, StatusResponse{})
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		c.Read(make([]byte, 1))
		ended <- struct{}{}
		return false
	})
	c := NewClient(p.path)
	for range 2 { // before and after it was closed
		if _, err := c.Status(soon(t)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection stays open")
		}
	}
}

func TestNoSigner(t *testing.T) {
	c := client(t, filepath.Join(t.TempDir(), "none"))
	_, err := c.Status(soon(t))
	if e := AsError(err); e == nil || e.Code != CodeUnavailable || e.RetryAfter == 0 {
		t.Errorf("%v: want unavailable, with a time to try again", err)
	}
}
