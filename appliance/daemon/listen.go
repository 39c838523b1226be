package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"chancery/appliance/limit"
	"chancery/issuance/configuration"
)

// patience is how long a listener waits for its clients.
type patience struct {
	// header is for the handshake, and for a request's header; request for the
	// whole request; answer from the header to the end of the answer; idle
	// between two requests of a connection.
	header, request, answer, idle time.Duration
	// unread is how long an HTTP/2 connection may take nothing of what is sent,
	// ping how long it may be silent before it is asked whether it is still there.
	unread, ping time.Duration
}

// usual is the patience of both listeners. The answer's leaves room for a
// signature that waits for the token.
var usual = patience{header: 10 * time.Second, request: 30 * time.Second, answer: 60 * time.Second, idle: 2 * time.Minute,
	unread: 20 * time.Second, ping: 30 * time.Second}

const (
	// maxHeaderBytes is more than wallet attestations with their chains need.
	maxHeaderBytes = 32 << 10
	// adminConnections bounds the admin listener's open connections. An issuer's
	// system is one address, which may have a quarter of them.
	adminConnections = 1024
)

// http2Limits bound what one HTTP/2 connection may have under way. net/http
// itself ends connections that reset streams faster than handlers end (Go 1.21.3),
// flood with CONTINUATION frames (Go 1.22.2), or with frames that want an answer
// (Go 1.12.8).
func (p patience) http2Limits() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10,
		MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10,
		WriteByteTimeout: p.unread, SendPingTimeout: p.ping, PingTimeout: p.header,
	}
}

// suites are what RFC 9325 §4.2 (BCP 195) recommends for TLS 1.2, and ChaCha20
// for hosts without AES instructions. TLS 1.3 has no others.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// front is what a listener is made of.
type front struct {
	name, address, certificate, key string
	handler                         http.Handler
	// clients tell who is at the other end.
	clients *limit.Addresses
	// connections bounds the open ones.
	connections int
	patience    patience
}

// server is a listener with its handler.
type server struct {
	http        *http.Server
	listener    net.Listener
	certificate *certificate
}

func (s *server) serve() error {
	err := s.http.ServeTLS(s.listener, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// listen opens both listeners: the service manager's when it gave any, else the
// configuration's.
func (d *appliance) listen(configurations []*configuration.Configuration) ([]*server, error) {
	given, err := activated()
	if err != nil {
		return nil, err
	}
	wallet, err := d.walletFront()
	if err != nil {
		return nil, err
	}
	admin := front{name: "admin", address: d.cfg.Admin.Listen, certificate: d.cfg.Admin.TLSCertificate, key: d.cfg.Admin.TLSKey,
		handler: d.operators(configurations), clients: &limit.Addresses{}, connections: adminConnections, patience: usual}
	var servers []*server
	for _, f := range []front{wallet, admin} {
		s, err := d.newServer(given, f)
		if err != nil {
			for _, s := range servers {
				s.listener.Close()
			}
			return nil, err
		}
		servers = append(servers, s)
	}
	return servers, nil
}

// newServer opens a listener. From the network inwards: the bound on
// connections, the PROXY protocol's header, TLS.
func (d *appliance) newServer(given map[string]net.Listener, f front) (*server, error) {
	c, err := loadCertificate(f.name, f.certificate, f.key)
	if err != nil {
		return nil, err
	}
	d.metrics.watch(c)
	l := given[f.name]
	if l == nil {
		if len(given) > 0 {
			return nil, fmt.Errorf("the service manager gave sockets, but none is named %q: set FileDescriptorName= in its socket unit", f.name)
		}
		if l, err = net.Listen("tcp", f.address); err != nil {
			return nil, fmt.Errorf("the %s listener: %w", f.name, err)
		}
	}
	bounded := limit.NewConnections(l, f.connections, f.clients.Trusted)
	d.metrics.count(f.name, bounded)
	return &server{listener: f.clients.Listen(bounded), certificate: c, http: &http.Server{
		Handler:           framed(f.handler),
		ConnState:         bounded.State,
		ReadHeaderTimeout: f.patience.header, ReadTimeout: f.patience.request, WriteTimeout: f.patience.answer, IdleTimeout: f.patience.idle,
		MaxHeaderBytes: maxHeaderBytes,
		HTTP2:          f.patience.http2Limits(),
		TLSConfig:      &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, GetCertificate: c.get},
		// Handshakes that strangers break off are no news.
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}}, nil
}

// framed guards against request smuggling where net/http does not. Of an HTTP/1.1
// request with both it takes Transfer-Encoding and hides Content-Length, in HTTP/1.0
// it hides Transfer-Encoding; a proxy may have taken the other one for the
// request's end. So nothing is read behind such a request (RFC 9112 §6.1), nor behind
// those that cannot be told from it.
func framed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0) {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// activated returns the service manager's listeners by name (sd_listen_fds(3)).
func activated() (map[string]net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("the service manager's sockets: %w", err)
	}
	given := map[string]net.Listener{}
	for name, listeners := range named {
		if len(listeners) != 1 || listeners[0] == nil {
			return nil, fmt.Errorf("the service manager gave %d sockets named %q: there must be one, of type stream", len(listeners), name)
		}
		given[name] = listeners[0]
	}
	return given, nil
}

// drain stops accepting and waits for the requests under way. Later connections
// wait in the service manager's sockets for the next start. A connection that was just made
// has until settled for its first request: HTTP/2 turns it away afterwards.
func drain(servers []*server, settled <-chan time.Time, log *slog.Logger) {
	for _, s := range servers {
		s.listener.Close()
	}
	<-settled
	ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	var wait sync.WaitGroup
	for _, s := range servers {
		wait.Go(func() {
			if err := s.http.Shutdown(ctx); err != nil {
				log.Warn("requests did not end in time", "error", err.Error())
				s.http.Close()
			}
		})
	}
	wait.Wait()
}

// alive tells that the database answers: without it nothing can be served, and a
// restart is the remedy.
func (d *appliance) alive(ctx context.Context) bool {
	_, err := d.store.Backlog(ctx)
	if err != nil && ctx.Err() == nil {
		d.log.Error("the database does not answer", "error", err.Error())
	}
	return err == nil
}
