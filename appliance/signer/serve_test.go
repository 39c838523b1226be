package signer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/appliance/audit"
	"chancery/appliance/database"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
)

// serving runs both sockets of a daemon that has no token and no log: as long as
// nothing needs them it answers as it always does.
func serving(t *testing.T, change func(s *Server)) *Server {
	t.Helper()
	dir := shortDir(t)
	cfg := &config.Config{Signer: config.Signer{Module: "/dev/null", Queue: 4, Sessions: 1,
		SignSocket: filepath.Join(dir, "sign"), AdminSocket: filepath.Join(dir, "admin")}}
	s, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	sockets, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	for _, k := range sockets {
		wait.Go(func() { k.serve(ctx, s) })
	}
	t.Cleanup(func() { stop(); wait.Wait() })
	return s
}

// dial opens a connection that gives up after a while.
func dial(t *testing.T, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

// ask sends a request and reads the answer, which a signer that refuses the peer
// gives without reading.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, request wire.Request) wire.Response {
	t.Helper()
	sent := wire.WriteFrame(c, request)
	var response wire.Response
	if err := wire.ReadFrame(r, &response); err != nil {
		t.Fatal(sent, err)
	}
	return response
}

func body(t *testing.T, v any) cbor.RawMessage {
	t.Helper()
	data, err := wire.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestFramesOnTheSocket sends what is no request: it is told why where that is
// possible, and the connection ends.
func TestFramesOnTheSocket(t *testing.T) {
	s := serving(t, nil)
	frame := func(data []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)
	}
	for name, c := range map[string]struct {
		sent []byte
		want string // "" when there is nobody to answer
	}{
		"too long":               {binary.BigEndian.AppendUint32(nil, wire.MaxFrame+1), "too long"},
		"HTTP":                   {[]byte("GET / HTTP/1.1\r\n\r\n"), "too long"},
		"empty":                  {[]byte{0, 0, 0, 0}, "too long"},
		"not CBOR":               {frame([]byte("\xff\xff")), "cannot be read"},
		"an unknown member":      {frame(body(t, map[string]any{"op": "status", "x": 1})), "unknown field"},
		"a body that is no CBOR": {frame([]byte("\xa2\x62op\x66status\x64body\xff")), "cannot be read"},
		"a cut frame":            {frame(body(t, wire.Request{Op: wire.OpStatus}))[:9], ""},
		"a cut length":           {[]byte{0, 0}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			conn, r := dial(t, s.cfg.Signer.SignSocket)
			if _, err := conn.Write(c.sent); err != nil {
				t.Fatal(err)
			}
			conn.(*net.UnixConn).CloseWrite()
			var response wire.Response
			err := wire.ReadFrame(r, &response)
			if c.want == "" {
				if !errors.Is(err, io.EOF) {
					t.Errorf("%+v, %v", response, err)
				}
				return
			}
			if err != nil || response.Error == nil || response.Error.Code != wire.CodeBadRequest || !strings.Contains(response.Error.Message, c.want) {
				t.Fatalf("%+v, %v; want %q", response.Error, err, c.want)
			}
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) && !isReset(err) {
				t.Errorf("the connection stays: %v", err)
			}
		})
	}
}

// isReset: a connection that is closed with bytes unread ends so.
func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset") }

// TestSocketsAreApart asks every operation on both sockets.
func TestSocketsAreApart(t *testing.T) {
	s := serving(t, nil)
	both := []wire.Op{wire.OpIdentities, wire.OpStatus}
	only := map[string][]wire.Op{
		s.cfg.Signer.SignSocket:  {wire.OpSign, wire.OpNewDataKey, wire.OpOpenDataKey, wire.OpAppend},
		s.cfg.Signer.AdminSocket: {wire.OpCheckpoint, wire.OpEvidence, wire.OpPause, wire.OpResume},
	}
	if want := len(both) + 8; len(operations) != want {
		t.Errorf("%d operations, %d are known here", len(operations), want)
	}
	// No core is there, so nothing is carried out: pausing is refused by its body.
	nonsense := body(t, map[string]int{"nonsense": 1})
	for path := range only {
		c, r := dial(t, path)
		for op := range operations {
			allowed := op == wire.OpIdentities || op == wire.OpStatus
			for _, o := range only[path] {
				allowed = allowed || o == op
			}
			got := ask(t, c, r, wire.Request{Op: op, Body: nonsense})
			if got.Error == nil || (got.Error.Code == wire.CodeDenied) == allowed || allowed && got.Error.Code != wire.CodeBadRequest {
				t.Errorf("%s at %s: %+v", op, filepath.Base(path), got.Error)
			}
		}
		for _, op := range []wire.Op{"", "shutdown", "Sign"} {
			if got := ask(t, c, r, wire.Request{Op: op}); got.Error == nil || got.Error.Code != wire.CodeBadRequest || !strings.Contains(got.Error.Message, "no such operation") {
				t.Errorf("operation %q: %+v", op, got.Error)
			}
		}
	}
}

// TestPausedAnswers asks a daemon that has let token and log go.
func TestPausedAnswers(t *testing.T) {
	s := serving(t, nil)
	c, r := dial(t, s.cfg.Signer.SignSocket)
	for op, in := range map[wire.Op]any{
		wire.OpSign: wire.SignRequest{}, wire.OpNewDataKey: wire.NewDataKeyRequest{Context: "x"},
		wire.OpOpenDataKey: wire.OpenDataKeyRequest{Context: "x"}, wire.OpAppend: wire.AppendRequest{Source: "x"},
	} {
		if got := ask(t, c, r, wire.Request{Op: op, Body: body(t, in)}); got.Error == nil || got.Error.Code != wire.CodeUnavailable || got.Error.RetryAfter == 0 {
			t.Errorf("%s: %+v", op, got.Error)
		}
	}
	if got := ask(t, c, r, wire.Request{Op: wire.OpIdentities}); got.Error == nil || got.Error.Code != wire.CodeUnavailable {
		t.Errorf("identities: %+v", got.Error)
	}
	got := ask(t, c, r, wire.Request{Op: wire.OpStatus})
	var status wire.StatusResponse
	if err := wire.Unmarshal(got.Body, &status); err != nil || status.State != "paused" || status.PID != os.Getpid() || status.QueueLimit != 4 {
		t.Errorf("%+v, %v", status, err)
	}
}

// TestTimeLimits has peers that say nothing, or stop in the middle.
func TestTimeLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits limits
		sent   []byte
	}{
		"idle":              {limits{idle: 50 * time.Millisecond, frame: time.Minute}, nil},
		"idle after length": {limits{idle: time.Minute, frame: 50 * time.Millisecond}, []byte{0, 0, 0, 9}},
		"half a frame":      {limits{idle: time.Minute, frame: 50 * time.Millisecond}, []byte{0, 0, 0, 9, 0xa1}},
		"a byte":            {limits{idle: time.Minute, frame: 50 * time.Millisecond}, []byte{0}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serving(t, func(s *Server) { s.limits = c.limits })
			conn, _ := dial(t, s.cfg.Signer.SignSocket)
			conn.Write(c.sent)
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !isReset(err) {
				t.Errorf("%d bytes, %v; want the end", n, err)
			}
		})
	}
}

// TestPeerThatDoesNotRead stops reading: the signer gives up writing.
func TestPeerThatDoesNotRead(t *testing.T) {
	s := serving(t, func(s *Server) { s.limits.frame = 50 * time.Millisecond })
	conn, _ := dial(t, s.cfg.Signer.SignSocket)
	var b bytes.Buffer
	if err := wire.WriteFrame(&b, wire.Request{Op: wire.OpStatus}); err != nil {
		t.Fatal(err)
	}
	for range 1 << 20 {
		if _, err := conn.Write(b.Bytes()); err != nil {
			if os.IsTimeout(err) {
				t.Errorf("the signer waits for a peer that does not read")
			}
			return
		}
	}
	t.Error("a million requests whose answers nobody reads were taken")
}

// TestConnectionLimit opens more connections than are served.
func TestConnectionLimit(t *testing.T) {
	s := serving(t, nil)
	status := func() *wire.Error {
		c, r := dial(t, s.cfg.Signer.SignSocket)
		return ask(t, c, r, wire.Request{Op: wire.OpStatus}).Error
	}
	for i := range connectionLimit {
		if e := status(); e != nil {
			t.Fatalf("connection %d: %v", i, e)
		}
	}
	if e := status(); e == nil || e.Code != wire.CodeBusy || e.RetryAfter == 0 {
		t.Errorf("one more: %+v", e)
	}
	if c, r := dial(t, s.cfg.Signer.AdminSocket); ask(t, c, r, wire.Request{Op: wire.OpStatus}).Error != nil {
		t.Error("the operators' socket is full as well")
	}
}

// TestPeerOfAnotherUser needs root, to be somebody else.
func TestPeerOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user: run the tests as root")
	}
	const stranger = 65534
	for name, c := range map[string]struct {
		users []string
		want  wire.Code
	}{
		"the signer's user alone": {nil, wire.CodeDenied},
		"another user":            {[]string{"65533"}, wire.CodeDenied},
		"this user":               {[]string{"65533", "65534"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := serving(t, func(s *Server) { s.cfg.Signer.SignUsers = c.users })
			// The file's mode lets everybody in: it is the kernel's word that counts.
			for path, mode := range map[string]os.FileMode{filepath.Dir(s.cfg.Signer.SignSocket): 0o755, s.cfg.Signer.SignSocket: 0o666, s.cfg.Signer.AdminSocket: 0o666} {
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			if e := askAs(t, stranger, s.cfg.Signer.SignSocket); (e == nil) != (c.want == "") || e != nil && (e.Code != c.want || !strings.Contains(e.Message, "65534")) {
				t.Errorf("sign.sock: %+v, want %q", e, c.want)
			}
			if e := askAs(t, stranger, s.cfg.Signer.AdminSocket); e == nil || e.Code != wire.CodeDenied {
				t.Errorf("admin.sock, which is not for those of sign.sock: %+v", e)
			}
			conn, r := dial(t, s.cfg.Signer.SignSocket)
			response := ask(t, conn, r, wire.Request{Op: wire.OpStatus})
			if denied := response.Error != nil && response.Error.Code == wire.CodeDenied; denied != (c.users != nil) {
				t.Errorf("root, who is %v: denied %v", c.users, denied)
			}
		})
	}
}

// TestStopping ends a daemon with an idle connection, one that was accepted
// late, and a new one.
func TestStopping(t *testing.T) {
	s, err := New(&config.Config{Signer: config.Signer{Module: "/dev/null", SignSocket: filepath.Join(shortDir(t), "s"), AdminSocket: filepath.Join(shortDir(t), "a")}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { sockets[0].serve(ctx, s); close(ended) }()
	c, r := dial(t, s.cfg.Signer.SignSocket)
	ask(t, c, r, wire.Request{Op: wire.OpStatus})
	stop()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("an idle connection keeps the daemon from ending")
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	if _, err := net.Dial("unix", s.cfg.Signer.SignSocket); err == nil {
		t.Error("a stopped daemon accepts")
	}
	// A connection that was accepted just before the end.
	go func() { net.Dial("unix", s.cfg.Signer.AdminSocket) }()
	late, err := sockets[1].AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	sockets[1].drain()
	if e := sockets[1].admit(s, &connection{UnixConn: late, socket: sockets[1]}); e == nil || e.Code != wire.CodeUnavailable {
		t.Errorf("it is kept: %+v", e)
	}
	sockets[1].close()
}

// TestExplain is the whole table of errors and answers.
func TestExplain(t *testing.T) {
	s, err := New(&config.Config{Signer: config.Signer{Module: "/dev/null"}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	own := &wire.Error{Code: wire.CodeRefused, Message: "m"}
	of := func(c hsm.Class) error { return &hsm.Error{Class: c, Op: "C_Sign", Key: "k", Err: errors.New("inner")} }
	for _, c := range []struct {
		err   error
		code  wire.Code
		again bool
	}{
		{own, wire.CodeRefused, false}, {errors.Join(io.EOF, own), wire.CodeRefused, false},
		{of(hsm.ClassBusy), wire.CodeBusy, true}, {of(hsm.ClassHung), wire.CodeUnavailable, true},
		{of(hsm.ClassSessionLost), wire.CodeUnavailable, true}, {of(hsm.ClassTokenGone), wire.CodeUnavailable, true},
		{of(hsm.ClassPINRefused), wire.CodeUnavailable, true}, {of(hsm.ClassClosed), wire.CodeUnavailable, true},
		{of(hsm.ClassBadSignature), wire.CodeInternal, false}, {of(hsm.ClassKeyMissing), wire.CodeInternal, false},
		{of(hsm.ClassKeyUnsafe), wire.CodeInternal, false}, {of(hsm.ClassUnsupported), wire.CodeInternal, false}, {of(hsm.ClassRefused), wire.CodeInternal, false},
		{audit.ErrFailed, wire.CodeUnavailable, true}, {audit.ErrLocked, wire.CodeBusy, true},
		{database.ErrClosed, wire.CodeInternal, false}, {errors.New("anything"), wire.CodeInternal, false},
	} {
		got := s.explain(wire.OpSign, c.err)
		if got.Code != c.code || (got.RetryAfter > 0) != c.again {
			t.Errorf("%v: %+v", c.err, got)
		}
		if strings.Contains(got.Message, "inner") || strings.Contains(got.Message, "anything") {
			t.Errorf("%v: the answer tells too much: %s", c.err, got.Message)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(&config.Config{Signer: config.Signer{Module: "/none.so"}}, Options{}); err == nil || !strings.Contains(err.Error(), "signer.module") {
		t.Errorf("%v", err)
	}
}
