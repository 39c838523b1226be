package daemon

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"chancery/appliance/oid4vci"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance/configuration"
)

// walletListener serves an issuer whose signer is away, as the daemon does.
func walletListener(t *testing.T, change func(*config.Issuer)) (*server, *appliance) {
	t.Helper()
	dir := t.TempDir()
	writePair(t, dir, "localhost")
	c, err := config.Load(filepath.Join("..", "..", "examples", "chancery.toml"))
	if err != nil {
		t.Fatal(err)
	}
	issuer := c.Issuer
	issuer.Identifier, issuer.Listen, issuer.TLSCertificate, issuer.TLSKey = "https://localhost/t", "127.0.0.1:0", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	issuer.Display = []config.Display{{Name: "Bürgeramt <Musterstadt>"}}
	change(&issuer)
	configurations, err := configuration.LoadDir(filepath.Join("..", "..", "examples", "configurations"))
	if err != nil {
		t.Fatal(err)
	}
	d := &appliance{cfg: &config.Config{Issuer: issuer}, log: slog.New(slog.DiscardHandler), signer: wire.NewClient(filepath.Join(dir, "away.sock"))}
	d.metrics = newMetrics(d)
	database := filepath.Join(dir, "chancery.db")
	if err := store.Create(database); err != nil {
		t.Fatal(err)
	}
	if d.store, err = store.Open(database, store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.store.Close() })
	if d.issuer, err = oid4vci.New(oid4vci.Options{Issuer: issuer, Signer: d.signer, Configurations: configurations, Observe: d.metrics.observe}); err != nil {
		t.Fatal(err)
	}
	f, err := d.walletFront()
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.newServer(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.http.Close() })
	go s.serve()
	return s, d
}

// do sends one request and returns its answer with the body read.
func do(t *testing.T, c *http.Client, method, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(body)
}

// TestMethodsAndPaths: 405 with Allow at paths that there are, 404 elsewhere, and
// HEAD as GET without a body.
func TestMethodsAndPaths(t *testing.T) {
	s, _ := walletListener(t, func(*config.Issuer) {})
	for _, http2 := range []bool{false, true} {
		c := client(t, http2)
		for _, want := range []string{
			"GET /t/token 405 POST", "HEAD /t/token 405 POST", "OPTIONS /t/token 405 POST", "PUT /t/token 405 POST", "PROPFIND /t/token 405 POST",
			"GET /t/nonce 405 POST", "DELETE /t/credential 405 POST",
			"POST /t/offers/x 405 GET, HEAD", "OPTIONS /t/offers/x 405 GET, HEAD",
			"POST /.well-known/openid-credential-issuer/t 405 GET, HEAD",
			"GET /.well-known/openid-credential-issuer/t 200 ", "HEAD /.well-known/openid-credential-issuer/t 200 ",
			"GET /t/nothing 404 ", "POST /t/nothing 404 ", "OPTIONS /nothing 404 ", "GET /t/token/x 404 ", "POST / 404 ",
			"GET /.well-known/security.txt 404 ", "GET /.well-known/openid-credential-issuer/t/ 404 ",
		} {
			method, rest, _ := strings.Cut(want, " ")
			path, _, _ := strings.Cut(rest, " ")
			a, body := do(t, c, method, "https://"+s.listener.Addr().String()+path)
			if got := fmt.Sprintf("%s %s %d %s", method, path, a.StatusCode, a.Header.Get("Allow")); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if method == http.MethodHead && body != "" {
				t.Errorf("HEAD %s has a body", path)
			}
		}
	}
}

// TestWelcome: a person who opens the issuer's address reads something.
func TestWelcome(t *testing.T) {
	s, _ := walletListener(t, func(*config.Issuer) {})
	c := client(t, true)
	for _, path := range []string{"/", "/t", "/t/"} {
		url := "https://" + s.listener.Addr().String() + path
		a, body := do(t, c, "GET", url)
		if a.StatusCode != 404 || a.Header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %d %v", path, a.StatusCode, a.Header)
		}
		if !strings.Contains(body, "<h1>Bürgeramt &lt;Musterstadt&gt;</h1>") || !strings.Contains(body, "with your wallet") {
			t.Errorf("%s: %s", path, body)
		}
		if head, _ := do(t, c, "HEAD", url); head.StatusCode != 404 || head.ContentLength != a.ContentLength {
			t.Errorf("HEAD %s: %d, %d bytes, GET %d", path, head.StatusCode, head.ContentLength, a.ContentLength)
		}
	}
	s, _ = walletListener(t, func(i *config.Issuer) { i.Display, i.Identifier = nil, "https://issuer.example.com" })
	if _, body := do(t, c, "GET", "https://"+s.listener.Addr().String()); !strings.Contains(body, "<h1>issuer.example.com</h1>") {
		t.Errorf("without a display name: %s", body)
	}
}

// TestRateOverTLS is check 143 on the wallet listener: a flood gets 429 while
// another client of the same proxy is served, and what was refused is counted by
// class.
func TestRateOverTLS(t *testing.T) {
	s, d := walletListener(t, func(i *config.Issuer) {
		i.HTTP = config.HTTP{TrustedProxies: []string{"127.0.0.1"}, ProxyProtocol: true, RequestsPerSecond: 1, Burst: 2, MaxConnections: 100, OfferRequestsPerMinute: 120}
	})
	// through asks as the proxy does for a client until it is refused.
	through := func(address string) (served int) {
		t.Helper()
		conn, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PROXY TCP4 %s 203.0.113.1 4711 443\r\n", address)
		secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		answers := bufio.NewReader(secured)
		for served < 1000 {
			fmt.Fprintf(secured, "POST /t/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
			a, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(a.Body)
			if err != nil {
				t.Fatal(err)
			}
			if a.StatusCode == http.StatusTooManyRequests {
				if a.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), "try again in 1 s") {
					t.Errorf("Retry-After %q, %s", a.Header.Get("Retry-After"), body)
				}
				return served
			}
			served++
		}
		t.Errorf("%s was never refused", address)
		return served
	}
	for _, address := range []string{"198.51.100.1", "198.51.100.2"} {
		if n := through(address); n < 2 {
			t.Errorf("%s had %d requests, the burst is 2", address, n)
		}
	}
	w := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	for _, want := range []string{`chancery_refused_requests_total{class="write"} 2`, `chancery_connections_limit{listener="wallet"} 100`, `chancery_connections{listener="wallet"} `, `chancery_refused_connections_total{listener="wallet"} 0`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if strings.Contains(w.Body.String(), "198.51.100") {
		t.Error("the metrics name an address")
	}
}

// TestRateByForwardedHeader: behind a proxy that is trusted, rates go by the address
// that it names, whatever the client wrote before that. Whoever is no such proxy
// is the client, whatever address it names.
func TestRateByForwardedHeader(t *testing.T) {
	const most = 100
	// flood asks until it is refused, at most so often; forwarded is what the
	// request's header says.
	flood := func(s *server, c *http.Client, forwarded func(n int) string) (served int) {
		t.Helper()
		for served < most {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.listener.Addr().String()+"/t/nothing", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Forwarded-For", forwarded(served))
			a, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			switch a.StatusCode {
			case http.StatusTooManyRequests:
				return served
			case http.StatusNotFound:
			default:
				t.Fatalf("status %d", a.StatusCode)
			}
			served++
		}
		return served
	}
	one := func(address string) func(int) string { return func(int) string { return address } }
	each := func(n int) string { return fmt.Sprintf("203.0.113.%d", n) }
	trusting := func(peer string) *server {
		s, _ := walletListener(t, func(i *config.Issuer) {
			i.HTTP = config.HTTP{TrustedProxies: []string{peer}, ForwardedHeader: "x-forwarded-for", RequestsPerSecond: 1, Burst: 2, MaxConnections: 100, OfferRequestsPerMinute: 120}
		})
		return s
	}
	for _, http2 := range []bool{false, true} {
		s, c := trusting("127.0.0.1"), client(t, http2)
		for _, address := range []string{"198.51.100.1", "198.51.100.2"} {
			if n := flood(s, c, one(address)); n < 2 || n == most {
				t.Errorf("%s had %d requests, the burst is 2", address, n)
			}
		}
		if n := flood(s, c, each); n != most {
			t.Errorf("clients with one request each were refused after %d", n)
		}
		if n := flood(s, c, func(n int) string { return each(n) + ", 198.51.100.3" }); n < 2 || n == most {
			t.Errorf("a client that names others before the proxy does had %d requests, the burst is 2", n)
		}
		if n := flood(trusting("192.0.2.1"), c, each); n < 2 || n == most {
			t.Errorf("a peer that is not trusted had %d requests under others' addresses, the burst is 2", n)
		}
	}
}

// TestWalletFrontRefuses a description of proxies that does not hold.
func TestWalletFrontRefuses(t *testing.T) {
	_, d := walletListener(t, func(*config.Issuer) {})
	d.cfg.Issuer.HTTP.TrustedProxies = []string{"0.0.0.0/0"}
	if _, err := d.walletFront(); err == nil || !strings.HasPrefix(err.Error(), "issuer.http: trusted_proxies") {
		t.Errorf("%v", err)
	}
}
