package trust

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance/issuancetest"
)

// server is a status list's, over TLS on the loopback address.
type server struct {
	*httptest.Server
	requests atomic.Int64
	handler  atomic.Value // func(http.ResponseWriter, *http.Request)
	root     trusttest.Certificate
	leaf     trusttest.Certificate
	now      time.Time
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{root: trusttest.Root(t, "Root"), now: trusttest.Now}
	s.leaf = s.root.Leaf(t, "Status", nil)
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.handler.Load().(func(http.ResponseWriter, *http.Request))(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// status is a Status that believes the server's root and may ask it.
func (s *server) status(t testing.TB, change func(*StatusOptions)) *Status {
	t.Helper()
	o := StatusOptions{
		Providers:  providers(t, Provider{Name: "P", Anchors: []*x509.Certificate{s.root.Certificate}}),
		FailClosed: true, AllowedHosts: []string{"127.0.0.1"}, RootCAs: x509.NewCertPool(), Now: func() time.Time { return s.now },
	}
	o.RootCAs.AddCert(s.Certificate())
	if change != nil {
		change(&o)
	}
	return NewStatus(o)
}

func (s *server) header() map[string]any {
	return map[string]any{"typ": "statuslist+jwt", "x5c": trusttest.X5C(s.leaf)}
}

// claims are those of a list of 2-bit entries 0, 1, 2, 3, 0, 0, 0, 0.
func (s *server) claims() map[string]any {
	return map[string]any{"sub": s.URL + "/list", "iss": "https://lists.example", "iat": s.now.Unix(), "exp": s.now.Add(time.Hour).Unix(), "ttl": 600,
		"status_list": map[string]any{"bits": 2, "lst": deflated([]byte{0b11100100, 0})}}
}

func (s *server) serve(t testing.TB, header, claims map[string]any) {
	compact := trusttest.Token(t, s.leaf.Key, header, claims)
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", statusListType)
		_, _ = w.Write([]byte(compact))
	})
}

// answer sets how the server answers from now on and returns how it did.
func (s *server) answer(handler func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) {
	before, _ := s.handler.Swap(handler).(func(http.ResponseWriter, *http.Request))
	return before
}

func deflated(list []byte) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write(list)
	_ = w.Close()
	return base64.RawURLEncoding.EncodeToString(b.Bytes())
}

func claim(uri string, index any) any {
	return map[string]any{"status_list": map[string]any{"uri": uri, "idx": json.Number(fmt.Sprint(index))}}
}

// A list says of each index what is so; it is fetched once for its ttl.
func TestStatusList(t *testing.T) {
	s := newServer(t)
	s.serve(t, s.header(), s.claims())
	status := s.status(t, nil)
	for index, want := range []error{nil, ErrNotValid, ErrNotValid, ErrNotValid, nil, nil, nil, nil, ErrList} {
		if err := status.Check(context.Background(), claim(s.URL+"/list", index)); err != want {
			t.Errorf("%d: %v", index, err)
		}
	}
	if n := s.requests.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	s.now = s.now.Add(599 * time.Second)
	if err := status.Check(context.Background(), claim(s.URL+"/list", 0)); err != nil || s.requests.Load() != 1 {
		t.Errorf("within ttl: %v, %d", err, s.requests.Load())
	}
	s.now = s.now.Add(time.Second)
	if err := status.Check(context.Background(), claim(s.URL+"/list", 0)); err != nil || s.requests.Load() != 2 {
		t.Errorf("after ttl: %v, %d", err, s.requests.Load())
	}
	if err := status.Check(context.Background(), nil); err != nil {
		t.Error(err)
	}
	if err := (*Status)(nil).Check(context.Background(), "anything"); err != nil {
		t.Error(err)
	}
}

// Many who ask for a list at once wait for one fetch.
func TestStatusFetchedOnce(t *testing.T) {
	s := newServer(t)
	s.serve(t, s.header(), s.claims())
	served, open := s.answer(nil), make(chan struct{})
	s.answer(func(w http.ResponseWriter, r *http.Request) {
		<-open
		served(w, r)
	})
	status := s.status(t, nil)
	gone, leave := context.WithCancel(context.Background())
	leave()
	if err := status.Check(gone, claim(s.URL+"/list", 0)); err != ErrUnreachable {
		t.Errorf("who leaves: %v", err)
	}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if err := status.Check(context.Background(), claim(s.URL+"/list", 0)); err != nil {
				t.Error(err)
			}
		})
	}
	close(open)
	wait.Wait()
	if n := s.requests.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// What is not the list of a trusted provider for this URI and this time is refused.
func TestStatusListRefused(t *testing.T) {
	s := newServer(t)
	uri := s.URL + "/list"
	list := func(bits, lst any) map[string]any { return map[string]any{"bits": bits, "lst": lst} }
	good := deflated([]byte{0, 0})
	for name, c := range map[string]struct {
		header, claims map[string]any
		want           error
	}{
		"good":                  {s.header(), s.claims(), nil},
		"no exp and no ttl":     {s.header(), trusttest.With(trusttest.With(s.claims(), "exp", nil), "ttl", nil), nil},
		"typ":                   {trusttest.With(s.header(), "typ", "JWT"), s.claims(), ErrList},
		"no chain":              {trusttest.With(s.header(), "x5c", nil), s.claims(), ErrList},
		"another's chain":       {trusttest.With(s.header(), "x5c", trusttest.X5C(s.root.Leaf(t, "Other", nil))), s.claims(), ErrList},
		"untrusted chain":       {trusttest.With(s.header(), "x5c", trusttest.X5C(trusttest.Root(t, "Root").Leaf(t, "Status", nil))), s.claims(), ErrList},
		"another sub":           {s.header(), trusttest.With(s.claims(), "sub", uri+"/"), ErrList},
		"no sub":                {s.header(), trusttest.With(s.claims(), "sub", nil), ErrList},
		"no iat":                {s.header(), trusttest.With(s.claims(), "iat", nil), ErrList},
		"iat ahead":             {s.header(), trusttest.With(s.claims(), "iat", s.now.Add(61*time.Second).Unix()), ErrList},
		"expired":               {s.header(), trusttest.With(s.claims(), "exp", s.now.Unix()), ErrList},
		"exp no date":           {s.header(), trusttest.With(s.claims(), "exp", "tomorrow"), ErrList},
		"ttl zero":              {s.header(), trusttest.With(s.claims(), "ttl", 0), ErrList},
		"ttl text":              {s.header(), trusttest.With(s.claims(), "ttl", "1"), ErrList},
		"three bits":            {s.header(), trusttest.With(s.claims(), "status_list", list(3, good)), ErrList},
		"bits text":             {s.header(), trusttest.With(s.claims(), "status_list", list("1", good)), ErrList},
		"no list":               {s.header(), trusttest.With(s.claims(), "status_list", nil), ErrList},
		"padded":                {s.header(), trusttest.With(s.claims(), "status_list", list(1, good+"=")), ErrList},
		"not zlib":              {s.header(), trusttest.With(s.claims(), "status_list", list(1, "AAAA")), ErrList},
		"cut off":               {s.header(), trusttest.With(s.claims(), "status_list", list(1, good[:len(good)-4])), ErrList},
		"nothing in it":         {s.header(), trusttest.With(s.claims(), "status_list", list(1, deflated(nil))), ErrList},
		"as long as may be":     {s.header(), trusttest.With(s.claims(), "status_list", list(1, deflated(make([]byte, maxList)))), nil},
		"one byte too long":     {s.header(), trusttest.With(s.claims(), "status_list", list(1, deflated(make([]byte, maxList+1)))), ErrList},
		"a million years' list": {s.header(), trusttest.With(s.claims(), "ttl", 1e18), nil},
	} {
		s.serve(t, c.header, c.claims)
		if err := s.status(t, func(o *StatusOptions) { o.FailClosed = false }).Check(context.Background(), claim(uri, 0)); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := s.root.Leaf(t, "Other", nil)
	s.leaf.Key = other.Key // signs, while x5c stays the old one's
	s.serve(t, s.header(), s.claims())
	if err := s.status(t, nil).Check(context.Background(), claim(uri, 0)); err != ErrList {
		t.Errorf("another's signature: %v", err)
	}
}

// What cannot be fetched is refused or let by, as the operator wants; what was
// fetched and is no list is refused always.
func TestStatusUnreachable(t *testing.T) {
	s := newServer(t)
	s.serve(t, s.header(), s.claims())
	served := s.answer(nil)
	uri := s.URL + "/list"
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	typed := func(media, body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			_, _ = w.Write([]byte(body))
		}
	}
	elsewhere := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		answer       func(http.ResponseWriter, *http.Request)
		closed, open error
	}{
		"404":                {status(404), ErrUnreachable, nil},
		"503":                {status(503), ErrUnreachable, nil},
		"204":                {status(204), ErrUnreachable, nil},
		"cut off":            {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrUnreachable, nil},
		"another type":       {typed("application/jwt", "x"), ErrList, ErrList},
		"no token":           {typed(statusListType, "x"), ErrList, ErrList},
		"too long":           {typed(statusListType, strings.Repeat("x", maxToken+1)), ErrList, ErrList},
		"redirect elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere+"/list", http.StatusFound) }, ErrUnreachable, nil},
		"redirect without s": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http"+s.URL[5:]+"/list", http.StatusFound)
		}, ErrUnreachable, nil},
		"redirected for ever": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, ErrUnreachable, nil},
		"redirected once": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/list" {
				http.Redirect(w, r, "/there", http.StatusFound)
				return
			}
			served(w, r)
		}, nil, nil},
		"with parameters, gzip": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept") != statusListType {
				w.WriteHeader(406)
			}
			inner := httptest.NewRecorder()
			served(inner, r)
			w.Header().Set("Content-Type", statusListType+"; charset=us-ascii")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(inner.Body.Bytes())
			_ = z.Close()
		}, nil, nil},
	} {
		s.answer(c.answer)
		if err := s.status(t, nil).Check(context.Background(), claim(uri, 0)); err != c.closed {
			t.Errorf("%s, closed: %v", name, err)
		}
		if err := s.status(t, func(o *StatusOptions) { o.FailClosed = false }).Check(context.Background(), claim(uri, 0)); err != c.open {
			t.Errorf("%s, open: %v", name, err)
		}
	}
}

// A server that does not answer holds a request up for the timeout and no
// longer, and is left alone for a while.
func TestStatusSlowServer(t *testing.T) {
	s := newServer(t)
	release := make(chan struct{})
	s.answer(func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	status := s.status(t, func(o *StatusOptions) { o.Timeout = 100 * time.Millisecond })
	for range 3 {
		if err := status.Check(context.Background(), claim(s.URL+"/list", 0)); err != ErrUnreachable {
			t.Error(err)
		}
	}
	// On a busy machine the time may be over before the server sees anything.
	if n := s.requests.Load(); n > 1 {
		t.Errorf("asked %d times", n)
	}
	s.serve(t, s.header(), s.claims())
	if err := status.Check(context.Background(), claim(s.URL+"/list", 0)); err != ErrUnreachable {
		t.Errorf("asked again at once: %v", err)
	}
	s.now = s.now.Add(retryAfter)
	status.client.Timeout, status.options.Timeout = time.Minute, time.Minute
	if err := status.Check(context.Background(), claim(s.URL+"/list", 0)); err != nil {
		t.Errorf("not asked again: %v", err)
	}
}

// The appliance's own network is not asked for anybody.
func TestStatusAddresses(t *testing.T) {
	s := newServer(t)
	s.serve(t, s.header(), s.claims())
	status := s.status(t, func(o *StatusOptions) { o.AllowedHosts = nil })
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"} {
		_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
		if err := status.Check(context.Background(), claim("https://"+host+":"+port+"/list", 0)); err != ErrUnreachable {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := s.requests.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2001:4860:4860::8888": true, "172.32.0.1": true, "100.128.0.1": true,
		"127.0.0.1": false, "127.9.9.9": false, "10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.1": false, "0.0.0.0": false, "192.0.0.1": false, "198.18.0.1": false, "224.0.0.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::1": false, "::": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd12::1": false, "fec0::1": false, "ff02::1": false,
		"::ffff:10.0.0.1": false, "::127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "64:ff9b:1::1": false,
	} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}

// Where a status claim cannot be followed it is refused, whatever the switch.
func TestStatusClaim(t *testing.T) {
	status := NewStatus(StatusOptions{})
	object := func(uri, index any) any {
		return map[string]any{"status_list": map[string]any{"uri": uri, "idx": index}}
	}
	one := json.Number("1")
	for name, value := range map[string]any{
		"no object": "x", "empty": map[string]any{}, "another mechanism": map[string]any{"identifier_list": map[string]any{}}, "no list": map[string]any{"status_list": 1},
		"no uri": object(nil, one), "uri no text": object(1, one), "http": object("http://a.example/", one), "no host": object("https:///a", one), "opaque": object("https:a", one),
		"user": object("https://u:p@a.example/", one), "fragment": object("https://a.example/#f", one), "file": object("file:///etc/passwd", one), "long": object("https://a.example/"+strings.Repeat("a", 2048), one),
		"control": object("https://a.example/\n", one), "no index": object("https://a.example/", nil), "text index": object("https://a.example/", "1"),
		"negative": object("https://a.example/", json.Number("-1")), "fraction": object("https://a.example/", json.Number("1.5")), "huge": object("https://a.example/", json.Number("99999999999999999999")),
	} {
		if err := status.Check(context.Background(), value); err != ErrReference {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A decompression bomb costs bounded memory: 16 MiB of zeros in 16 KiB.
func TestStatusBomb(t *testing.T) {
	bomb := deflated(make([]byte, 16<<20))
	if len(bomb) > 32<<10 {
		t.Fatalf("%d bytes are no bomb", len(bomb))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := inflate(bomb); err == nil {
		t.Error("inflated")
	}
	runtime.ReadMemStats(&after)
	if total := after.TotalAlloc - before.TotalAlloc; total > 8*maxList {
		t.Errorf("%d bytes allocated in all", total)
	}
}

// The lists kept stay within both bounds; the newest is always among them.
func TestStatusCacheBounds(t *testing.T) {
	c := cache{lists: map[string]list{}, maxEntries: 8, maxBytes: 40_000}
	now := trusttest.Now
	for n := range 1000 {
		uri := fmt.Sprint("u", n)
		l := list{width: 1, bits: make([]byte, n*7919%20_000), until: now.Add(time.Duration(n%13) * time.Minute)}
		c.put(uri, l, now)
		total := 0
		for _, kept := range c.lists {
			total += cost(kept)
		}
		if len(c.lists) > 8 || total > 40_000 || total != c.bytes {
			t.Fatalf("%d lists of %d bytes, said to be %d", len(c.lists), total, c.bytes)
		}
		if _, ok := c.get(uri, now); ok != (n%13 > 0) {
			t.Fatalf("%d: kept %t", n, ok)
		}
	}
	c.put("large", list{bits: make([]byte, 50_000), until: now.Add(time.Hour)}, now)
	if _, ok := c.get("large", now); ok {
		t.Error("a list larger than the cache is kept")
	}
}

// The draft's own encodings say what it says they do.
func TestStatusListVectors(t *testing.T) {
	var file struct {
		Vectors []struct {
			Name     string
			Bits     int
			Entries  uint64
			JSON     struct{ Lst string }
			Statuses map[string]byte `json:"nonzero_or_listed_statuses"`
		}
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "token-status-list-encoding.json"), &file); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, v := range file.Vectors {
		if v.JSON.Lst == "" {
			continue
		}
		bits, err := inflate(v.JSON.Lst)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		l := list{width: v.Bits, bits: bits}
		for text, want := range v.Statuses {
			index, err := json.Number(text).Int64()
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := l.at(uint64(index)); !ok || got != want {
				t.Errorf("%s: %s: %d, %t", v.Name, text, got, ok)
			}
			checked++
		}
		if _, ok := l.at(v.Entries); ok {
			t.Errorf("%s: an entry after the last", v.Name)
		}
	}
	if checked < 28 {
		t.Errorf("only %d statuses checked", checked)
	}
}

// The draft's own Status List Token is read, and only at its URI.
func TestStatusTokenVector(t *testing.T) {
	var file struct {
		Key   json.RawMessage `json:"public_key_jwk"`
		Token struct {
			Compact string `json:"compact"`
		} `json:"status_list_token_jwt"`
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "token-status-list-tokens.json"), &file); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(write(t, file.Key))
	if err != nil {
		t.Fatal(err)
	}
	s := NewStatus(StatusOptions{Providers: providers(t, Provider{Name: "P", Keys: keys}), Now: func() time.Time { return time.Unix(1686920170, 0) }})
	l, err := s.read(file.Token.Compact, "https://example.com/statuslists/1")
	if err != nil || l.width != 1 || !l.until.Equal(time.Unix(1686920170+43200, 0)) {
		t.Fatalf("%+v, %v", l, err)
	}
	if got, ok := l.at(0); !ok || got != 1 {
		t.Errorf("%d, %t", got, ok)
	}
	if _, err := s.read(file.Token.Compact, "https://example.com/statuslists/2"); !errors.Is(err, errList) {
		t.Error(err)
	}
}
