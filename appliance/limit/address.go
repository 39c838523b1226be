package limit

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"chancery/config"
)

// Headers that may name the client, as the configuration writes them.
const (
	// Forwarded is the header of RFC 7239.
	Forwarded = "forwarded"
	// XForwardedFor is the header that came before it.
	XForwardedFor = "x-forwarded-for"
)

// maxHops bounds the addresses in one header line.
const maxHops = 64

// Proxies are what stands between the clients and a listener.
type Proxies struct {
	// Trusted are the proxies' addresses, CIDR prefixes or single ones. What
	// anybody else says about the client is ignored.
	Trusted []string
	// Header is the header in which they name the client: [Forwarded],
	// [XForwardedFor], or "" for none.
	Header string
	// Protocol tells that they begin each connection with the PROXY protocol's
	// header, version 1 or 2.
	Protocol bool
}

// Addresses tell who the client is. The zero value trusts nobody: the client is
// the connection's peer.
type Addresses struct {
	trusted  []netip.Prefix
	header   string // canonical, "" for none
	split    func(line string) (nodes []string, ok bool)
	protocol bool
	// headerWithin bounds the wait for the PROXY protocol's header.
	headerWithin time.Duration
}

// NewAddresses checks the proxies' description. The error names the member of
// the configuration.
func NewAddresses(p Proxies) (*Addresses, error) {
	a := &Addresses{protocol: p.Protocol, headerWithin: proxyHeaderWithin}
	for _, s := range p.Trusted {
		prefix, err := config.ParseProxy(s)
		if err != nil {
			return nil, fmt.Errorf("trusted_proxies: %w", err)
		}
		a.trusted = append(a.trusted, prefix)
	}
	switch p.Header {
	case "":
	case Forwarded:
		a.header, a.split = "Forwarded", splitForwarded
	case XForwardedFor:
		a.header, a.split = "X-Forwarded-For", splitList
	default:
		return nil, fmt.Errorf("forwarded_header is %q: set %q, %q or nothing", p.Header, Forwarded, XForwardedFor)
	}
	if len(a.trusted) == 0 && (a.protocol || a.header != "") {
		return nil, fmt.Errorf("trusted_proxies is empty: with proxy_protocol or forwarded_header it must name the proxies that may be believed")
	}
	return a, nil
}

// Trusted tells whether the address is one of the proxies'.
func (a *Addresses) Trusted(address netip.Addr) bool {
	return slices.ContainsFunc(a.trusted, func(p netip.Prefix) bool { return p.Contains(address) })
}

// Client returns the client's address without port and zone; the invalid address
// when the connection has none. Each proxy appends the address it was called
// from, so the list is read from its end, and what stands left of the first
// address that is no proxy's was written by the client. Where an entry cannot be
// read, or a proxy does not say, the last proxy that is known stands for the
// client.
func (a *Addresses) Client(r *http.Request) netip.Addr {
	client := peer(r.RemoteAddr)
	if a.header == "" || !a.Trusted(client) {
		return client
	}
	for _, line := range slices.Backward(r.Header[a.header]) {
		if strings.Count(line, ",") >= maxHops {
			return client
		}
		nodes, ok := a.split(line)
		if !ok {
			return client
		}
		for _, node := range slices.Backward(nodes) {
			address, ok := parseNode(node)
			if !ok {
				return client
			}
			client = address
			if !a.Trusted(address) {
				return client
			}
		}
	}
	return client
}

// peer reads a connection's remote address.
func peer(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
