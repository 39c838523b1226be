package limit

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

// serve serves a handler over TLS on a listener that change wraps.
func serve(t *testing.T, h http.Handler, http2 bool, change func(net.Listener, *http.Server) net.Listener) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Listener = change(s.Listener, s.Config)
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// dialling returns a client whose connections are made by dial.
func dialling(t *testing.T, http2 bool, dial func(address string) (net.Conn, error)) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) { return dial(address) }}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// answered is the body of what a client was answered, or "closed".
func answered(c *http.Client, address string) string {
	r, err := c.Get("https://" + address)
	if err != nil {
		return "closed"
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "closed"
	}
	return string(body)
}

// format writes a header as a proxy would.
func format(t *testing.T, version byte, from, to net.Addr) string {
	t.Helper()
	b, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestProxyProtocol begins connections with all kinds of headers, from a trusted
// proxy and from a stranger.
func TestProxyProtocol(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	udp := &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1}
	unix := &net.UnixAddr{Name: "/run/x", Net: "unix"}
	const self, signature = "127.0.0.1", "\r\n\r\n\x00\r\nQUIT\n"
	for _, c := range []struct{ name, header, trusted, stranger string }{
		{"none", "", "closed", self},
		{"version 1", "PROXY TCP4 198.51.100.1 203.0.113.1 4711 443\r\n", "198.51.100.1", "closed"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", "2001:db8::1", "closed"},
		{"version 1, the proxy itself", "PROXY UNKNOWN\r\n", self, "closed"},
		{"version 1, the longest line", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", self, "closed"},
		{"version 1, a byte too long", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", "closed", "closed"},
		{"version 1, without an end", "PROXY TCP4 " + strings.Repeat("1", 1<<20), "closed", "closed"},
		{"version 1, the wrong family", "PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n", "closed", "closed"},
		{"version 1, no address", "PROXY TCP4 client proxy 4711 443\r\n", "closed", "closed"},
		{"version 1, no port", "PROXY TCP4 198.51.100.1 203.0.113.1 65536 443\r\n", "closed", "closed"},
		{"version 1, LF alone", "PROXY TCP4 198.51.100.1 203.0.113.1 4711 443\n", "closed", "closed"},
		{"version 2", format(t, 2, tcp("198.51.100.1:4711"), tcp("203.0.113.1:443")), "198.51.100.1", "closed"},
		{"version 2, IPv6", format(t, 2, tcp("[2001:db8::1]:4711"), tcp("[2001:db8::2]:443")), "2001:db8::1", "closed"},
		{"version 2, IPv4 in IPv6", signature + "\x21\x21\x00\x24" + strings.Repeat("\x00", 10) + "\xff\xff\xc6\x33\x64\x01" + strings.Repeat("\x00", 20), "198.51.100.1", "closed"},
		{"version 2, the proxy itself", format(t, 2, unix, udp), self, "closed"},
		{"version 2, UDP", format(t, 2, udp, udp), "closed", "closed"},
		{"version 2, a Unix socket", format(t, 2, unix, unix), "closed", "closed"},
		{"version 2, longer than allowed", signature + "\x21\x11\xff\xff" + strings.Repeat("\x00", 1<<16), "closed", "closed"},
		{"version 2, too short for its family", signature + "\x21\x11\x00\x0b" + strings.Repeat("\x00", 11), "closed", "closed"},
		{"version 3", signature + "\x31\x11\x00\x0c" + strings.Repeat("\x00", 12), "closed", "closed"},
		{"rubbish", "GET / HTTP/1.1\r\n\r\n", "closed", "closed"},
	} {
		for trusted, want := range map[string]string{"127.0.0.0/8": c.trusted, "192.0.2.1": c.stranger} {
			a := addresses(t, Proxies{Trusted: []string{trusted}, Protocol: true})
			address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, a.Client(r)) }), false,
				func(l net.Listener, _ *http.Server) net.Listener { return a.Listen(l) })
			client := dialling(t, false, func(address string) (net.Conn, error) {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					_, err = io.WriteString(conn, c.header)
				}
				return conn, err
			})
			if got := answered(client, address); got != want {
				t.Errorf("%s, %s is trusted: %s, want %s", c.name, trusted, got, want)
			}
		}
	}
}

// TestProxyProtocolTimeLimit: a trusted proxy that begins a header and does not
// end it, or says nothing, is not waited for.
func TestProxyProtocolTimeLimit(t *testing.T) {
	for _, begun := range []string{"", "PRO", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01"} {
		a := addresses(t, Proxies{Trusted: []string{"127.0.0.1"}, Protocol: true})
		a.headerWithin = 50 * time.Millisecond
		address := serve(t, served, false, func(l net.Listener, _ *http.Server) net.Listener { return a.Listen(l) })
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, begun); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q: %d bytes came back", begun, n)
		}
		conn.Close()
	}
}

// TestWithoutProxyProtocol: the listener is the one that was given.
func TestWithoutProxyProtocol(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := addresses(t, Proxies{Trusted: []string{"127.0.0.1"}}).Listen(l); got != l {
		t.Errorf("the listener was wrapped in %T", got)
	}
}
