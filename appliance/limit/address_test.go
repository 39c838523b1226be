package limit

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func addresses(t testing.TB, p Proxies) *Addresses {
	t.Helper()
	a, err := NewAddresses(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// request comes from an address with lines of both headers.
func request(from, header string, lines ...string) *http.Request {
	return &http.Request{RemoteAddr: from, Header: http.Header{header: lines}}
}

// TestClient is the table of who the client is. The proxies are 10.0.0.0/8 and
// 2001:db8:ffff::/48.
func TestClient(t *testing.T) {
	const proxy, stranger = "10.0.0.1:443", "203.0.113.66:443"
	for _, c := range []struct {
		name, header, from string
		lines              []string
		want               string
	}{
		{"no header", XForwardedFor, proxy, nil, "10.0.0.1"},
		{"a stranger's header", XForwardedFor, stranger, []string{"198.51.100.1"}, "203.0.113.66"},
		{"a stranger who names a proxy", XForwardedFor, stranger, []string{"10.0.0.1"}, "203.0.113.66"},
		{"the client", XForwardedFor, proxy, []string{"198.51.100.1"}, "198.51.100.1"},
		{"what the client wrote itself", XForwardedFor, proxy, []string{"127.0.0.1, 198.51.100.9, 198.51.100.1"}, "198.51.100.1"},
		{"a chain of proxies", XForwardedFor, proxy, []string{"1.1.1.1, 198.51.100.1, 10.9.9.9,10.0.0.2"}, "198.51.100.1"},
		{"several lines", XForwardedFor, proxy, []string{"1.1.1.1", "198.51.100.1", "10.0.0.2"}, "198.51.100.1"},
		{"proxies alone", XForwardedFor, proxy, []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"a port", XForwardedFor, proxy, []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"IPv6", XForwardedFor, proxy, []string{"2001:db8::1"}, "2001:db8::1"},
		{"IPv6 with a port", XForwardedFor, proxy, []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"IPv6 through an IPv6 proxy", XForwardedFor, "[2001:db8:ffff::1]:443", []string{"2001:db8::1, 2001:db8:ffff::2"}, "2001:db8::1"},
		{"IPv4 in IPv6", XForwardedFor, "[::ffff:10.0.0.1]:443", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"unknown", XForwardedFor, proxy, []string{"198.51.100.1, unknown"}, "10.0.0.1"},
		{"unknown behind a proxy", XForwardedFor, proxy, []string{"198.51.100.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"rubbish", XForwardedFor, proxy, []string{"198.51.100.1, \x00\xff"}, "10.0.0.1"},
		{"a bad port", XForwardedFor, proxy, []string{"198.51.100.1:http"}, "10.0.0.1"},
		{"a zone", XForwardedFor, proxy, []string{"fe80::1%eth0"}, "10.0.0.1"},
		{"brackets around IPv4", XForwardedFor, proxy, []string{"[198.51.100.1]"}, "10.0.0.1"},
		{"an open bracket", XForwardedFor, proxy, []string{"[2001:db8::1"}, "10.0.0.1"},
		{"empty entries", XForwardedFor, proxy, []string{", ,198.51.100.1,, "}, "198.51.100.1"},
		{"too many", XForwardedFor, proxy, []string{strings.Repeat("10.0.0.2,", maxHops) + "198.51.100.1"}, "10.0.0.1"},
		{"the other header", XForwardedFor, proxy, nil, "10.0.0.1"},

		{"a stranger's header", Forwarded, stranger, []string{"for=198.51.100.1"}, "203.0.113.66"},
		{"the client", Forwarded, proxy, []string{"for=198.51.100.1;proto=https;by=10.0.0.1"}, "198.51.100.1"},
		{"upper case, spaces", Forwarded, proxy, []string{"proto=https; For=198.51.100.1 ,  for=10.0.0.2"}, "198.51.100.1"},
		{"IPv6 with a port", Forwarded, proxy, []string{`for="[2001:db8::1]:4711"`}, "2001:db8::1"},
		{"an obfuscated port", Forwarded, proxy, []string{`for="[2001:db8::1]:_p.o-r_t"`}, "2001:db8::1"},
		{"an escape", Forwarded, proxy, []string{`for="198.51.100\.1"`}, "198.51.100.1"},
		{"IPv6 without quotes", Forwarded, proxy, []string{"for=[2001:db8::1]"}, "10.0.0.1"},
		{"unknown", Forwarded, proxy, []string{"for=198.51.100.1, for=unknown"}, "10.0.0.1"},
		{"an obfuscated identifier", Forwarded, proxy, []string{"for=198.51.100.1, for=_hidden, for=10.0.0.2"}, "10.0.0.2"},
		{"an element without for", Forwarded, proxy, []string{"for=198.51.100.1, by=10.0.0.1"}, "10.0.0.1"},
		{"twice for", Forwarded, proxy, []string{"for=198.51.100.1;for=198.51.100.2"}, "10.0.0.1"},
		{"a comma in quotes", Forwarded, proxy, []string{`for=1.1.1.1;ext="a,for=1.1.1.2", for=198.51.100.1`}, "198.51.100.1"},
		{"a quote left open by the client", Forwarded, proxy, []string{`for=1.1.1.1;x=", for=198.51.100.1`}, "10.0.0.1"},
		{"a quote that swallows the proxy's", Forwarded, proxy, []string{`for=1.1.1.1;x=", for="[2001:db8::1]"`}, "10.0.0.1"},
		{"a quote left open on a line of the client's", Forwarded, proxy, []string{`for="`, "for=198.51.100.1"}, "198.51.100.1"},
		{"an escape at the end", Forwarded, proxy, []string{`for="\`}, "10.0.0.1"},
		{"no value", Forwarded, proxy, []string{"for="}, "10.0.0.1"},
		{"no name", Forwarded, proxy, []string{"=198.51.100.1"}, "10.0.0.1"},
		{"text after quotes", Forwarded, proxy, []string{`for="198.51.100.1"x`}, "10.0.0.1"},
		{"empty elements", Forwarded, proxy, []string{",;, for=198.51.100.1;;,"}, "198.51.100.1"},
		{"chain over lines", Forwarded, proxy, []string{"for=1.1.1.1", "for=198.51.100.1, for=10.0.0.3", `for="10.0.0.2:80"`}, "198.51.100.1"},
	} {
		a := addresses(t, Proxies{Trusted: []string{"10.0.0.0/8", "2001:db8:ffff::/48"}, Header: c.header})
		other := map[string]string{"X-Forwarded-For": "Forwarded", "Forwarded": "X-Forwarded-For"}[a.header]
		r := request(c.from, a.header, c.lines...)
		r.Header.Set(other, "for=6.6.6.6")
		if got := a.Client(r).String(); got != c.want {
			t.Errorf("%s: %s: %s, want %s", c.header, c.name, got, c.want)
		}
	}
}

func TestNobodyIsTrusted(t *testing.T) {
	var a Addresses
	r := request("127.0.0.1:1", "X-Forwarded-For", "198.51.100.1")
	r.Header.Set("Forwarded", "for=198.51.100.1")
	if got := a.Client(r).String(); got != "127.0.0.1" {
		t.Error(got)
	}
}

func TestProxiesAreChecked(t *testing.T) {
	for _, c := range []struct {
		p    Proxies
		want string
	}{
		{Proxies{Trusted: []string{"proxy.example.com"}, Header: Forwarded}, `trusted_proxies: "proxy.example.com" is no address`},
		{Proxies{Trusted: []string{"10.0.0.0/33"}}, "is no address"},
		{Proxies{Trusted: []string{"fe80::1%eth0"}}, "is no address"},
		{Proxies{Trusted: []string{"10.0.0.1/8"}}, `write "10.0.0.0/8"`},
		{Proxies{Trusted: []string{"0.0.0.0/0"}}, "is everybody"},
		{Proxies{Trusted: []string{"::/0"}}, "is everybody"},
		{Proxies{Trusted: []string{"::ffff:10.0.0.0/104"}}, "write it as IPv4"},
		{Proxies{Header: "x-real-ip", Trusted: []string{"::1"}}, `forwarded_header is "x-real-ip"`},
		{Proxies{Header: Forwarded}, "trusted_proxies is empty"},
		{Proxies{Protocol: true}, "trusted_proxies is empty"},
	} {
		if _, err := NewAddresses(c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.p, err, c.want)
		}
	}
	a := addresses(t, Proxies{Trusted: []string{"192.0.2.10", "::ffff:192.0.2.11", "2001:db8::1", "198.51.100.0/24"}})
	for s, want := range map[string]bool{"192.0.2.10": true, "192.0.2.11": true, "2001:db8::1": true, "198.51.100.255": true, "192.0.2.12": false, "2001:db8::2": false} {
		if got := a.Trusted(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: trusted is %v", s, got)
		}
	}
	if a.Trusted(netip.Addr{}) {
		t.Error("a peer without an address is trusted")
	}
}

// FuzzForwardedChain: whatever a client writes in front of what the proxy appends, it
// is taken for the address that the proxy saw, or for the proxy: it never
// chooses its own.
func FuzzForwardedChain(f *testing.F) {
	for _, seed := range []string{"", "198.51.100.1", "for=198.51.100.1", `for="[2001:db8::1]:4711";by=_x`, "unknown, for=unknown", `for="`, `for=1.1.1.1;x="`, `for=1.1.1.1, for="\`,
		"10.0.0.2", "for=10.0.0.2", "for=10.0.0.2;", "[2001:db8::1", ",,,", strings.Repeat("10.0.0.2,", 70), "for=a;for=b", "fe80::1%eth0", "\xff\x00", `x="a,b";for=1.1.1.1`} {
		f.Add(seed)
	}
	both := map[string]*Addresses{}
	for _, header := range []string{Forwarded, XForwardedFor} {
		both[header] = addresses(f, Proxies{Trusted: []string{"10.0.0.0/8"}, Header: header})
	}
	appended := map[string][]string{
		Forwarded:     {"for=203.0.113.9", `for="203.0.113.9:4711"`, `by=10.0.0.1;for="[::ffff:203.0.113.9]:_x";host="a"`},
		XForwardedFor: {"203.0.113.9", "203.0.113.9:4711", "::ffff:203.0.113.9"},
	}
	f.Fuzz(func(t *testing.T, written string) {
		for header, a := range both {
			alone := a.Client(request("10.0.0.1:1", a.header, written))
			if !alone.IsValid() || alone.Zone() != "" || alone.Is4In6() {
				t.Errorf("%s: %q gives %v", header, written, alone)
			}
			if got := a.Client(request("203.0.113.66:1", a.header, written)); got.String() != "203.0.113.66" {
				t.Errorf("%s: a stranger's %q gives %v", header, written, got)
			}
			for _, own := range appended[header] {
				if got := a.Client(request("10.0.0.1:1", a.header, written+", "+own)).String(); got != "203.0.113.9" && got != "10.0.0.1" {
					t.Errorf("%s: with %q in front of %s the client is %s", header, written, own, got)
				}
				if got := a.Client(request("10.0.0.1:1", a.header, written, own)).String(); got != "203.0.113.9" {
					t.Errorf("%s: with %q on the line before %s the client is %s", header, written, own, got)
				}
			}
		}
	})
}
