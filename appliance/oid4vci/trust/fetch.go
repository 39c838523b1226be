package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

const statusListType = "application/statuslist+jwt"

var (
	errAddress  = errors.New("the host has an address that is not public")
	errRedirect = errors.New("redirected to another host, or too often")
)

// guardedClient fetches from https servers with public addresses alone: the
// URI is somebody else's, and behind the appliance's own network are services
// that must not be asked on their behalf.
func guardedClient(o StatusOptions) *http.Client {
	plain := &net.Dialer{Timeout: o.Timeout}
	// Control sees the address that is really connected to, after every name
	// service; so a name that changes its address between two look-ups gains nothing.
	guarded := &net.Dialer{Timeout: o.Timeout, Control: func(_, address string, _ syscall.RawConn) error {
		if to, err := netip.ParseAddrPort(address); err != nil || !public(to.Addr()) {
			return errAddress
		}
		return nil
	}}
	transport := &http.Transport{
		Proxy: nil,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(o.AllowedHosts, func(allowed string) bool { return strings.EqualFold(allowed, host) }) {
				return plain.DialContext(ctx, network, address)
			}
			return guarded.DialContext(ctx, network, address)
		},
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    o.Timeout,
		ResponseHeaderTimeout:  o.Timeout,
		MaxResponseHeaderBytes: 32 << 10,
		MaxIdleConns:           4,
		IdleConnTimeout:        30 * time.Second,
		ForceAttemptHTTP2:      true,
	}
	return &http.Client{Transport: transport, Timeout: o.Timeout, CheckRedirect: func(to *http.Request, via []*http.Request) error {
		if len(via) > 3 || to.URL.Scheme != "https" || to.URL.Host != via[0].URL.Host {
			return errRedirect
		}
		return nil
	}}
}

// notPublic are the prefixes of special use (IANA registries, RFC 6890) that
// package net has no word for: "this network", shared addresses, protocol
// assignments, benchmarks, reserved; IPv4 within IPv6 by translation and 6to4,
// site-local.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("::/96"),
}

// public tells whether an address is one of the public Internet.
func public(address netip.Addr) bool {
	address = address.Unmap().WithZone("")
	if !address.IsGlobalUnicast() || address.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(notPublic, func(p netip.Prefix) bool { return p.Contains(address) })
}

// get fetches a list's token (draft-ietf-oauth-status-list §8.1, §8.2). Every
// failure is [ErrUnreachable], but an answer that is no list is [ErrList].
func (s *Status) get(ctx context.Context, uri string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return "", ErrReference
	}
	request.Header.Set("Accept", statusListType)
	response, err := s.client.Do(request)
	if err != nil {
		return "", ErrUnreachable
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", ErrUnreachable
	}
	if media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || media != statusListType {
		return "", ErrList
	}
	// The transport takes gzip off, so the bound holds for what comes out.
	body, err := io.ReadAll(io.LimitReader(response.Body, maxToken+1))
	if err != nil {
		return "", ErrUnreachable
	}
	if len(body) > maxToken {
		return "", ErrList
	}
	return string(body), nil
}
