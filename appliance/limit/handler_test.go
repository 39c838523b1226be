package limit

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

var served = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "served") })

// ask sends a request from an address through a handler.
func ask(h http.Handler, method, from string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/token", strings.NewReader("body"))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestFlood is check 143: a flood from one address gets 429, another address is
// served as before, and the flood is served again when it has waited.
func TestFlood(t *testing.T) {
	now := epoch
	refused := map[string]int{}
	h := New(Options{PerAddress: Rate{Requests: 1, Burst: 3}, Now: func() time.Time { return now },
		Refused: func(class string) { refused[class]++ }}).Handler(served)
	for i := range 3 {
		if w := ask(h, "POST", "192.0.2.1:1000"); w.Code != 200 {
			t.Fatalf("request %d: %d", i, w.Code)
		}
	}
	w := ask(h, "POST", "192.0.2.1:2000")
	if w.Code != 429 || w.Body.String() != `{"error":"too_many_requests","error_description":"slow down: try again in 1 s"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for name, want := range map[string]string{"Retry-After": "1", "Cache-Control": "no-store", "Content-Type": "application/json",
		"Strict-Transport-Security": "max-age=31536000", "X-Content-Type-Options": "nosniff",
		"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After", "Content-Length": fmt.Sprint(w.Body.Len())} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if w := ask(h, "POST", "192.0.2.2:1000"); w.Code != 200 {
		t.Errorf("another address: %d", w.Code)
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		if w := ask(h, method, "192.0.2.1:1000"); w.Code != 200 {
			t.Errorf("%s counts with POST: %d", method, w.Code)
		}
	}
	if w := ask(h, "GET", "192.0.2.1:1000"); w.Code != 429 {
		t.Errorf("the fourth document: %d", w.Code)
	}
	if refused[Read] != 1 || refused[Write] != 1 {
		t.Errorf("refused: %v", refused)
	}
	now = now.Add(time.Second)
	if w := ask(h, "POST", "192.0.2.1:1000"); w.Code != 200 {
		t.Errorf("after Retry-After: %d", w.Code)
	}
}

// TestWhatSharesABucket: an IPv4 address in either form, an IPv6 /64.
func TestWhatSharesABucket(t *testing.T) {
	for _, c := range []struct {
		first, second string
		shared        bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:1:ffff:ffff:ffff:ffff]:1", true},
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::1%eth1]:1", true},
		{"@", "", true}, // no address at all: one bucket for them together
	} {
		h := New(Options{PerAddress: Rate{Requests: 1}, Now: func() time.Time { return epoch }}).Handler(served)
		ask(h, "GET", c.first)
		if got := ask(h, "GET", c.second).Code == 429; got != c.shared {
			t.Errorf("%s and %s share a bucket: %v, want %v", c.first, c.second, got, c.shared)
		}
	}
}

// TestZeroIsNoLimit: a load generator with 64 clients on one address is not
// slowed down when nothing is configured.
func TestZeroIsNoLimit(t *testing.T) {
	h := New(Options{}).Handler(served)
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			for range 100 {
				if w := ask(h, "POST", "127.0.0.1:1"); w.Code != 200 {
					t.Errorf("%d", w.Code)
				}
			}
		})
	}
	wait.Wait()
}

// BenchmarkHandler is what the middleware costs a request: for the connection's
// address, for one in the Forwarded header, and for a refused request.
func BenchmarkHandler(b *testing.B) {
	clients, err := NewAddresses(Proxies{Trusted: []string{"192.0.2.0/24"}, Header: Forwarded})
	if err != nil {
		b.Fatal(err)
	}
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"limited", Options{PerAddress: Rate{Requests: 1 << 30}}},
		{"forwarded", Options{PerAddress: Rate{Requests: 1 << 30}, Addresses: clients}},
		{"refused", Options{PerAddress: Rate{Requests: 1, Per: time.Hour}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := New(c.o).Handler(nothing)
			r := httptest.NewRequest("POST", "/token", nil)
			r.Header.Set("Forwarded", `for="[2001:db8::1]:4711";proto=https`)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				w.Body.Reset()
				h.ServeHTTP(w, r)
			}
		})
	}
}
