package limit

import (
	"errors"
	"net"
	"time"

	"github.com/pires/go-proxyproto"
)

// proxyHeaderWithin bounds the wait for the PROXY protocol's header.
const proxyHeaderWithin = 5 * time.Second

// errProxyAddress is why a connection is closed whose header names no TCP client.
var errProxyAddress = errors.New("the PROXY header's client is not on TCP")

// Listen returns the listener on which a trusted proxy's connections begin with
// the PROXY protocol's header and have the client's address as their remote
// address; l itself when the proxies do not speak the protocol. A trusted
// proxy's connection without a correct header is closed: behind it everybody would
// look like the proxy. Everybody else's connection is direct; no header is
// looked for in it. At most 107 bytes (version 1) or 4 KiB (version 2) are read.
func (a *Addresses) Listen(l net.Listener) net.Listener {
	if !a.protocol {
		return l
	}
	return &proxyproto.Listener{
		Listener: l, ReadHeaderTimeout: a.headerWithin,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if a.Trusted(peer(o.Upstream.String())) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
		ValidateHeader: func(h *proxyproto.Header) error {
			// LOCAL, and UNKNOWN in version 1, are the proxy's own connections.
			if _, tcp := h.SourceAddr.(*net.TCPAddr); !tcp && h.Command.IsProxy() {
				return errProxyAddress
			}
			return nil
		},
	}
}
