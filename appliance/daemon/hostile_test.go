package daemon

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// dialTLS opens a connection that speaks one protocol.
func dialTLS(t *testing.T, s *server, protocol string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// HTTP/2 frames (RFC 9113 §6) that the tests write by hand: clients that keep the
// rules would not.
const (
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9
	endStream         = 0x1
	endHeaders        = 0x4
	preface           = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	enhanceYourCalm   = 0xb
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// The methods' places in HPACK's static table (RFC 7541 App. A).
const (
	get  = 0x82
	post = 0x83
)

// headerBlock is a request for https://a and a path of less than 127 bytes.
func headerBlock(method byte, path string) []byte {
	return append([]byte{method, 0x87, 0x01, 1, 'a', 0x04, byte(len(path))}, path...)
}

// opening is how an HTTP/2 client begins; settings are pairs of identifier and
// value.
func opening(settings ...uint32) []byte {
	var b []byte
	for i := 0; i < len(settings); i += 2 {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(settings[i])), settings[i+1])
	}
	return append([]byte(preface), frame(frameSettings, 0, 0, b)...)
}

// readFrame returns the next frame.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(r, payload)
	return head[3], payload, err
}

// TestTLS: BCP 195. Nothing under TLS 1.2, and there no suite without forward
// secrecy and authenticated encryption.
func TestTLS(t *testing.T) {
	s := listening(t, http.NotFoundHandler())
	shake := func(c *tls.Config) error {
		c.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", s.listener.Addr().String(), c)
		if err == nil {
			conn.Close()
		}
		return err
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if shake(&tls.Config{MinVersion: version, MaxVersion: version}) == nil {
			t.Errorf("%s is spoken", tls.VersionName(version))
		}
	}
	if err := shake(&tls.Config{MinVersion: tls.VersionTLS13}); err != nil {
		t.Errorf("TLS 1.3: %v", err)
	}
	good := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		err := shake(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}})
		// The test's certificate is ECDSA.
		want := strings.HasPrefix(suite.Name, "TLS_ECDHE_ECDSA_") && (strings.Contains(suite.Name, "GCM") || strings.Contains(suite.Name, "POLY1305"))
		if (err == nil) != want {
			t.Errorf("%s: %v", suite.Name, err)
		}
		if err == nil {
			good++
		}
	}
	if good != 3 {
		t.Errorf("%d suites of TLS 1.2 are spoken", good)
	}
}

// TestHeaderLimit: 16 KiB of attestation pass, 10 MB get 431, in little memory.
func TestHeaderLimit(t *testing.T) {
	s := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.Header.Get("OAuth-Client-Attestation")))
	}))
	for _, http2 := range []bool{false, true} {
		c := client(t, http2)
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.listener.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("OAuth-Client-Attestation", strings.Repeat("a", 16<<10))
		a, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Body.Close(); a.StatusCode != 200 {
			t.Errorf("16 KiB: %s %d", a.Proto, a.StatusCode)
		}
	}
	chunk := bytes.Repeat([]byte("a"), 16<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t.Run("HTTP/1.1", func(t *testing.T) {
		conn := dialTLS(t, s, "http/1.1")
		go func() {
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nX: ")
			flood(conn, chunk)
		}()
		a, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.StatusCode != http.StatusRequestHeaderFieldsTooLarge || !a.Close {
			t.Errorf("%d, closed %v", a.StatusCode, a.Close)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		conn := dialTLS(t, s, "h2")
		go func() {
			conn.Write(opening())
			// One header field that is announced as 10 MB: x: aaaa…
			field := append(headerBlock(get, "/"), 0x00, 1, 'x', 0x7f, 0x81, 0xac, 0xe2, 0x04)
			conn.Write(frame(frameHeaders, endStream, 1, field))
			flood(conn, frame(frameContinuation, 0, 1, chunk[:16<<10-1]))
		}()
		var away uint32
		for {
			kind, payload, err := readFrame(conn)
			if err != nil {
				break
			}
			if kind == frameGoAway {
				away = binary.BigEndian.Uint32(payload[4:])
			}
		}
		if away == 0 {
			t.Error("the connection was not ended with an error")
		}
	})
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("both floods of 10 MB cost %d KiB", used>>10)
	}
}

// flood writes 10 MB, or until the other end has had enough.
func flood(w io.Writer, chunk []byte) {
	for range 10 << 20 / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// TestSmuggling sends requests that another parser might see an end elsewhere in.
// Whatever the answer, the request behind is never served.
func TestSmuggling(t *testing.T) {
	var smuggled atomic.Bool
	s := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/smuggled" {
			smuggled.Store(true)
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	const behind = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"two lengths":                    {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 400},
		"a list of lengths":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n", 400},
		"a length with a sign":           {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n", 400},
		"a negative length":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400},
		"length and chunks":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200},
		"chunks twice":                   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
		"an unknown coding":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: xchunked\r\n\r\n", 501},
		"identity":                       {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: identity\r\n\r\n", 501},
		"a space before the colon":       {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		"a folded line":                  {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 200},
		"a NUL":                          {"POST / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400},
		"two hosts":                      {"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		"no host":                        {"POST / HTTP/1.1\r\n\r\n", 400},
		"chunks in HTTP/1.0":             {"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200},
		"a chunk that ends in LF":        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\nabc\r\n0\r\n\r\n", 400},
		"a chunk of negative size":       {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400},
		"a chunk longer than its size":   {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n", 400},
		"a chunk of a size out of range": {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n", 400},
		"HTTP/0.9":                       {"GET / HTTP/0.9\r\n\r\n", 505},
		"HTTP/3.0":                       {"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
		"HTTP/1.0":                       {"POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 200},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialTLS(t, s, "http/1.1")
			if _, err := io.WriteString(conn, c.request+behind); err != nil {
				t.Fatal(err)
			}
			answers := bufio.NewReader(conn)
			a, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, a.Body); err != nil {
				t.Error(err)
			}
			if a.StatusCode != c.status || !a.Close {
				t.Errorf("%s, closed %v; want %d", a.Status, a.Close, c.status)
			}
			if _, err := answers.ReadByte(); err == nil || smuggled.Load() {
				t.Errorf("the request behind was served: %v", smuggled.Load())
			}
		})
	}
}

// TestRapidReset opens streams and resets them at once (CVE-2023-44487): no more
// handlers run than streams are allowed, and the connection is ended.
func TestRapidReset(t *testing.T) {
	var running, most atomic.Int64
	finish := make(chan struct{})
	s := listening(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := running.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-finish
		running.Add(-1)
	}))
	defer close(finish)
	conn := dialTLS(t, s, "h2")
	go func() {
		conn.Write(opening())
		for stream := uint32(1); stream < 20_000; stream += 2 {
			both := append(frame(frameHeaders, endStream|endHeaders, stream, headerBlock(get, "/")), frame(frameReset, 0, stream, []byte{0, 0, 0, 8})...)
			if _, err := conn.Write(both); err != nil {
				return
			}
		}
	}()
	var why uint32
	for {
		kind, payload, err := readFrame(conn)
		if err != nil {
			break
		}
		if kind == frameGoAway {
			why = binary.BigEndian.Uint32(payload[4:])
		}
	}
	if why != enhanceYourCalm {
		t.Errorf("the connection ended with error %#x", why)
	}
	if n := most.Load(); n == 0 || n > 100 {
		t.Errorf("%d handlers ran at once", n)
	}
}

// TestSlowClients: whatever a client is slow at, the server ends it: each case
// waits until the connection is closed, or until the handler was told.
func TestSlowClients(t *testing.T) {
	const h1, h2 = "http/1.1", "h2"
	slow := patience{header: 3 * time.Second, request: 3 * time.Second, answer: 4 * time.Second, idle: time.Second, unread: time.Second, ping: time.Second}
	wide := opening(4, 1<<31-1) // SETTINGS_INITIAL_WINDOW_SIZE
	wide = append(wide, frame(frameWindow, 0, 0, []byte{0x7f, 0, 0, 0})...)
	for _, c := range []struct {
		name, protocol string
		begin          []byte
		// drip is written again and again.
		drip string
		// reads tells that the client reads what it is sent.
		reads bool
		// told tells that a handler begins, and must be told that its client is gone.
		told bool
	}{
		{name: "no handshake", reads: true},
		{name: "no request", protocol: h1, reads: true},
		{name: "a header in drips", protocol: h1, begin: []byte("GET / HTTP/1.1\r\nHost: a\r\nX: "), drip: "a", reads: true},
		{name: "a body in drips", protocol: h1, begin: []byte("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n"), drip: "a", reads: true, told: true},
		{name: "an answer that is not read", protocol: h1, begin: []byte("GET /write HTTP/1.1\r\nHost: a\r\n\r\n"), told: true},
		{name: "idle", protocol: h1, begin: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), reads: true},
		{name: "no HTTP/2 request", protocol: h2, begin: opening(), reads: true},
		{name: "HTTP/2 headers without an end", protocol: h2, begin: append(opening(), frame(frameHeaders, endStream, 1, headerBlock(get, "/"))...), reads: true},
		{name: "an HTTP/2 answer without a window", protocol: h2, begin: append(opening(), frame(frameHeaders, endStream|endHeaders, 1, headerBlock(get, "/write"))...), reads: true, told: true},
		{name: "an HTTP/2 answer that is not read", protocol: h2, begin: append(wide, frame(frameHeaders, endStream|endHeaders, 1, headerBlock(get, "/write"))...), told: true},
		{name: "an HTTP/2 body without an end", protocol: h2, begin: append(opening(), frame(frameHeaders, endHeaders, 1, headerBlock(post, "/read"))...), reads: true, told: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			told := make(chan error, 1)
			s := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/read":
					_, err := io.ReadAll(r.Body)
					told <- err
				case "/write":
					var err error
					for block := make([]byte, 64<<10); err == nil; {
						_, err = w.Write(block)
					}
					told <- err
				}
			}), func(f *front) { f.patience = slow })
			conn, err := net.Dial("tcp", s.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if c.protocol != "" {
				conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{c.protocol}})
			}
			if _, err := conn.Write(c.begin); err != nil && c.told {
				t.Fatal(err)
			}
			for c.drip != "" {
				if _, err := io.WriteString(conn, c.drip); err != nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if c.reads {
				io.Copy(io.Discard, conn) // until the server closes
			}
			if c.told {
				if err := <-told; err == nil {
					t.Error("the handler was told nothing")
				}
			}
		})
	}
}
