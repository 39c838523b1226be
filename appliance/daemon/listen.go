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

	"chancery/issuance/configuration"
)

// Time and size limits of both listeners.
const (
	headerWithin  = 10 * time.Second
	requestWithin = 30 * time.Second
	// answerWithin leaves room for a signature that waits for the token.
	answerWithin   = 60 * time.Second
	idleWithin     = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

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
	var servers []*server
	for _, want := range []struct {
		name, address, certificate, key string
		handler                         http.Handler
	}{
		{"wallet", d.cfg.Issuer.Listen, d.cfg.Issuer.TLSCertificate, d.cfg.Issuer.TLSKey, d.issuer.Handler()},
		{"admin", d.cfg.Admin.Listen, d.cfg.Admin.TLSCertificate, d.cfg.Admin.TLSKey, d.operators(configurations)},
	} {
		s, err := d.newServer(given, want.name, want.address, want.certificate, want.key, want.handler)
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

func (d *appliance) newServer(given map[string]net.Listener, name, address, certificateFile, keyFile string, handler http.Handler) (*server, error) {
	c, err := loadCertificate(name, certificateFile, keyFile)
	if err != nil {
		return nil, err
	}
	d.metrics.watch(c)
	l := given[name]
	if l == nil {
		if len(given) > 0 {
			return nil, fmt.Errorf("the service manager gave sockets, but none is named %q: set FileDescriptorName= in its socket unit", name)
		}
		if l, err = net.Listen("tcp", address); err != nil {
			return nil, fmt.Errorf("the %s listener: %w", name, err)
		}
	}
	return &server{listener: l, certificate: c, http: &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerWithin, ReadTimeout: requestWithin, WriteTimeout: answerWithin, IdleTimeout: idleWithin,
		MaxHeaderBytes: maxHeaderBytes,
		TLSConfig:      &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get},
		// Handshakes that strangers break off are no news.
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}}, nil
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
