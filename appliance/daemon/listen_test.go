package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"chancery/appliance/limit"
)

// listening serves handler with a certificate of its own; with may change what
// the listener is made of.
func listening(t *testing.T, handler http.Handler, with ...func(*front)) *server {
	t.Helper()
	dir := t.TempDir()
	writePair(t, dir, "localhost")
	d := &appliance{log: slog.New(slog.DiscardHandler)}
	d.metrics = newMetrics(d)
	f := front{name: "wallet", address: "127.0.0.1:0", certificate: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"),
		handler: handler, clients: &limit.Addresses{}, connections: 1000, patience: usual}
	for _, change := range with {
		change(&f)
	}
	s, err := d.newServer(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.http.Close() })
	go s.serve()
	return s
}

// client speaks HTTP/1.1 or HTTP/2 on connections of its own.
func client(t *testing.T, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// answer returns what a request was answered, or why it was not.
func answer(c *http.Client, url string) string {
	r, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %d %s", r.Proto, r.StatusCode, body)
}

// once dials a single connection and tells when its handshake is over.
func once(http2 bool, shaken chan<- struct{}) func(context.Context, string, string) (net.Conn, error) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	if http2 {
		config.NextProtos = []string{"h2"}
	}
	dialled := false
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if dialled {
			return nil, errors.New("the connection was closed without an answer")
		}
		dialled = true
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
		shaken <- struct{}{}
		return conn, err
	}
}

// TestDrain stops a server that has a request under way and a connection that
// was made but not used yet: both are answered, and nobody comes after them.
func TestDrain(t *testing.T) {
	for _, c := range []struct {
		http2 bool
		want  string
	}{{false, "HTTP/1.1 200 done"}, {true, "HTTP/2.0 200 done"}} {
		t.Run(c.want, func(t *testing.T) {
			begun, finish := make(chan struct{}), make(chan struct{})
			s := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					close(begun)
					<-finish
				}
				io.WriteString(w, "done")
			}))
			url := "https://" + s.listener.Addr().String()
			slow := make(chan string, 1)
			go func() { slow <- answer(client(t, c.http2), url+"/slow") }()
			<-begun
			fresh, shaken := client(t, c.http2), make(chan struct{}, 1)
			fresh.Transport.(*http.Transport).DialTLSContext = once(c.http2, shaken)
			first := make(chan string, 1)
			go func() { first <- answer(fresh, url) }()
			<-shaken
			settled, drained := make(chan time.Time), make(chan struct{})
			go func() { drain([]*server{s}, settled, slog.New(slog.DiscardHandler)); close(drained) }()
			if got := <-first; got != c.want {
				t.Errorf("on a connection that was just made: %s", got)
			}
			close(settled)
			for refused := false; !refused; {
				conn, err := net.Dial("tcp", s.listener.Addr().String())
				if refused = err != nil; !refused {
					conn.Close()
				}
			}
			select {
			case <-drained:
				t.Error("the server ended before its request did")
			default:
			}
			close(finish)
			if got := <-slow; got != c.want {
				t.Errorf("under way: %s", got)
			}
			<-drained
		})
	}
}
