package limit

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func everybody(netip.Addr) bool { return true }
func nobody(netip.Addr) bool    { return false }

// bounded serves h with at most so many connections.
func bounded(t *testing.T, h http.Handler, http2 bool, most int, exempt func(netip.Addr) bool) (string, *Connections) {
	t.Helper()
	var c *Connections
	address := serve(t, h, http2, func(l net.Listener, s *http.Server) net.Listener {
		c = NewConnections(l, most, exempt)
		s.ConnState = c.State
		return c
	})
	return address, c
}

// from dials from a loopback address and keeps what it dialled.
func from(address string, kept chan<- net.Conn) func(string) (net.Conn, error) {
	return func(to string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		conn, err := d.Dial("tcp", to)
		if err == nil && kept != nil {
			kept <- conn
		}
		return conn, err
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestIdleConnectionsMakeRoom: a listener that is full of idle connections
// serves the next client on the place of the one that was idle longest.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			const most = 4
			address, c := bounded(t, served, http2, most, everybody)
			clients := make([]*http.Client, most+1)
			idle := func() int {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.idle.Len()
			}
			dialled := make([]int, most+1)
			for i := range clients {
				clients[i] = dialling(t, http2, func(to string) (net.Conn, error) { dialled[i]++; return net.Dial("tcp", to) })
			}
			for i := range most {
				if got := answered(clients[i], address); got != "served" {
					t.Fatalf("client %d: %s", i, got)
				}
				until(t, "the connection is not idle", func() bool { return idle() == i+1 })
			}
			// The first client comes again: the second is idle longest now.
			answered(clients[0], address)
			until(t, "the connection is not idle", func() bool { return idle() == most })
			if got := answered(clients[most], address); got != "served" {
				t.Errorf("a client too many: %s", got)
			}
			until(t, "the connection is not idle", func() bool { return idle() == most })
			for i := range most {
				if i != 1 {
					answered(clients[i], address)
				}
			}
			answered(clients[1], address)
			if want := []int{1, 2, 1, 1, 1}; fmt.Sprint(dialled) != fmt.Sprint(want) {
				t.Errorf("connections of each client: %v, want %v", dialled, want)
			}
			if c.Open() > c.Limit() || c.Limit() != most {
				t.Errorf("%d of %d connections are open", c.Open(), c.Limit())
			}
		})
	}
}

// TestFullListenerWaits: when every connection is busy, the next one waits for
// the first that is not.
func TestFullListenerWaits(t *testing.T) {
	const most = 2
	begun, finish := make(chan struct{}, most+1), make(chan struct{})
	address, c := bounded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-finish
		fmt.Fprint(w, "done")
	}), false, most, everybody)
	results := make(chan string, most+1)
	for range most {
		go func() { results <- answered(dialling(t, false, from("127.0.0.1", nil)), address) }()
		<-begun
	}
	kept := make(chan net.Conn, 1)
	late := dialling(t, false, from("127.0.0.1", kept))
	go func() { results <- answered(late, address) }()
	<-kept
	until(t, "nothing waits", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.waiting
	})
	select {
	case <-begun:
		t.Error("a connection too many is served")
	default:
	}
	if c.Open() != most {
		t.Errorf("%d connections are open", c.Open())
	}
	close(finish)
	for range most + 1 {
		if got := <-results; got != "done" {
			t.Errorf("got %s", got)
		}
	}
}

// TestShare: one address has a quarter of the connections, which leaves room for
// others; what it opens above that is closed. An exempt address may have all.
func TestShare(t *testing.T) {
	const most = 8
	address, c := bounded(t, served, false, most, func(a netip.Addr) bool { return a == netip.MustParseAddr("127.0.0.3") })
	answers := func(local string, clients int) (got []string) {
		for range clients {
			got = append(got, answered(dialling(t, false, from(local, nil)), address))
		}
		return got
	}
	if got, want := answers("127.0.0.1", 4), "[served served closed closed]"; fmt.Sprint(got) != want {
		t.Errorf("one address: %v, want %s", got, want)
	}
	if got, want := answers("127.0.0.2", 1), "[served]"; fmt.Sprint(got) != want {
		t.Errorf("another: %v, want %s", got, want)
	}
	if got, want := answers("127.0.0.3", 5), "[served served served served served]"; fmt.Sprint(got) != want {
		t.Errorf("a proxy: %v, want %s", got, want)
	}
	if c.Open() != most || c.Refused() != 2 {
		t.Errorf("%d connections are open, %d were refused", c.Open(), c.Refused())
	}
}

// TestConnectionsAreGivenBack: after many clients at once, more than there is room for, nothing
// stays counted.
func TestConnectionsAreGivenBack(t *testing.T) {
	const most = 8
	var c *Connections
	address, c := bounded(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if open := c.Open(); open > most {
			t.Errorf("%d connections are open", open)
		}
		fmt.Fprint(w, "done")
	}), false, most, everybody)
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			client := dialling(t, false, from("127.0.0.1", nil))
			defer client.CloseIdleConnections()
			for range 5 {
				if got := answered(client, address); got != "done" {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	wait.Wait()
	until(t, "connections stay open", func() bool { return c.Open() == 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.held) > 0 || c.idle.Len() > 0 || len(c.element) > 0 {
		t.Errorf("still counted: %v, %d idle, %d found", c.held, c.idle.Len(), len(c.element))
	}
}

// TestCloseEndsWaiting: a listener that is closed while a connection waits for room
// does not wait on.
func TestCloseEndsWaiting(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := NewConnections(l, 1, nobody)
	dial := func(local string) net.Conn {
		conn, err := from(local, nil)(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	defer dial("127.0.0.1").Close()
	first, err := c.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	waiting := dial("127.0.0.2")
	defer waiting.Close()
	accepted := make(chan error, 1)
	go func() { _, err := c.Accept(); accepted <- err }()
	until(t, "nothing waits", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.waiting
	})
	c.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := waiting.Read(make([]byte, 1)); err == nil {
		t.Error("the connection that waited is open")
	}
}

// BenchmarkState is what the bound on connections costs a request: it makes its
// connection active and idle again, among a thousand idle ones.
func BenchmarkState(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c := NewConnections(l, 10_000, nobody)
	defer c.Close()
	for range 1000 {
		c.State(&net.TCPConn{}, http.StateIdle)
	}
	conn := &net.TCPConn{}
	for b.Loop() {
		c.State(conn, http.StateActive)
		c.State(conn, http.StateIdle)
	}
}
