// Package daemon is chanceryd: it joins the store, the signer's client, the
// wallet-facing protocol and the operators' API to their listeners, and does
// what a service does: readiness, metrics, certificates that are read again,
// draining. It holds no issuing key and no PIN (promise P8).
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"chancery/appliance/admin"
	"chancery/appliance/foresight"
	"chancery/appliance/oid4vci"
	"chancery/appliance/process"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance/configuration"
)

const (
	// refreshEvery is the time between two looks at the signer's keys;
	// refreshSoon is it until the first one succeeded.
	refreshEvery = 2 * time.Second
	refreshSoon  = 50 * time.Millisecond
	// settleWithin is the time for first requests on new connections when the
	// daemon stops.
	settleWithin = 500 * time.Millisecond
	// drainWithin bounds the wait for requests under way when the daemon stops.
	drainWithin = 25 * time.Second
	// retryWindow is how long after the last credential a wallet may repeat its
	// request, if its access token lives so long.
	retryWindow = 5 * time.Minute
	// lastEvents bounds the wait for the outbox at the end.
	lastEvents = 3 * time.Second
)

// Options are what the daemon needs besides its configuration.
type Options struct {
	Logger *slog.Logger
	// Version goes into the audit log's entry of each start.
	Version string
}

// appliance is the running daemon.
type appliance struct {
	cfg     *config.Config
	log     *slog.Logger
	store   *store.Store
	signer  *wire.Client
	issuer  *oid4vci.Issuer
	metrics *metrics
	// foreseen is the latest look ahead; nil before the first.
	foreseen atomic.Pointer[foresight.Report]
}

// Run serves until ctx ends, and closes everything in order: listeners first,
// then what requests began, then the outbox, then the database, then the signer
// if it is a child. A nil error means a clean end.
func Run(ctx context.Context, cfg *config.Config, o Options) error {
	configurations, err := configuration.LoadDir(cfg.Issuer.Configurations)
	if err != nil {
		return err
	}
	d := &appliance{cfg: cfg, log: o.Logger, signer: wire.NewClient(cfg.Signer.SignSocket)}
	defer d.signer.Close()
	d.metrics = newMetrics(d)
	if err := d.openStore(); err != nil {
		return err
	}
	child, err := spawn(cfg, o.Logger)
	if err != nil {
		return errors.Join(err, d.store.Close())
	}
	// The signer ends last: the outbox needs it.
	defer child.stop()
	err = d.run(ctx, configurations, o.Version)
	return errors.Join(err, d.store.Close())
}

// openStore opens chancery.db with the signer as the guard of its data keys.
func (d *appliance) openStore() error {
	var retries time.Duration
	if *d.cfg.Issuer.Retries {
		retries = retryWindow
	}
	s, err := store.Open(d.cfg.Store.Database, store.Options{
		DataKeys: store.DataKeys{
			New: func(ctx context.Context, binding string) (key, wrapped []byte, err error) {
				r, err := d.signer.NewDataKey(ctx, binding)
				return r.Key, r.Wrapped, err
			},
			Open: func(ctx context.Context, binding string, wrapped []byte) ([]byte, error) {
				r, err := d.signer.OpenDataKey(ctx, binding, wrapped)
				return r.Key, err
			},
		},
		DataKeyLifetime: d.cfg.Store.DataKeyLifetime.Std(), Retention: d.cfg.Store.Retention.Std(),
		RetryWindow: retries, Attempts: d.cfg.Offers.TransactionCodeAttempts, Log: d.log,
	})
	d.store = s
	return err
}

// run serves with an open store.
func (d *appliance) run(ctx context.Context, configurations []*configuration.Configuration, version string) error {
	if err := d.announce(ctx, configurations, version); err != nil {
		return err
	}
	var err error
	if d.issuer, err = oid4vci.New(oid4vci.Options{Issuer: d.cfg.Issuer, Store: d.store, Signer: d.signer,
		Configurations: configurations, Log: d.log, Observe: d.metrics.observe}); err != nil {
		return err
	}
	servers, err := d.listen(configurations)
	if err != nil {
		return err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wait sync.WaitGroup
	wait.Go(func() { d.store.Run(background, d.send) })
	wait.Go(func() { d.refresh(background) })
	wait.Go(func() { process.Watchdog(background, d.alive) })
	failed := make(chan error, len(servers))
	for _, s := range servers {
		wait.Go(func() { s.certificate.watch(background, d.log) })
		go func() { failed <- s.serve() }()
	}
	process.Tell(process.Ready)
	d.log.Info("serving", "issuer", d.cfg.Issuer.Identifier, "configurations", len(configurations))
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	process.Tell(process.Stopping)
	d.log.Info("draining")
	drain(servers, time.After(settleWithin), d.log)
	stop()
	wait.Wait()
	last, cancel := context.WithTimeout(context.Background(), lastEvents)
	defer cancel()
	if err := d.store.Drain(last, d.send); err != nil {
		d.log.Warn("events stay in the outbox for the next start", "error", err.Error())
	}
	return err
}

// announce records the start, and each configuration that is not as it was at
// the last one.
func (d *appliance) announce(ctx context.Context, configurations []*configuration.Configuration, version string) error {
	versions := map[string]string{}
	for _, c := range configurations {
		versions[c.ID] = c.Version
	}
	if err := d.store.SetConfigurations(ctx, versions); err != nil {
		return err
	}
	return d.store.Append(ctx, store.Event{Kind: "appliance.started", Actor: "appliance", Detail: map[string]string{"version": version}})
}

// send hands the outbox's events to the signer's log.
func (d *appliance) send(ctx context.Context, source string, events []store.Event) (uint64, error) {
	request := wire.AppendRequest{Source: source, Events: make([]wire.Event, len(events))}
	for i, e := range events {
		request.Events[i] = wire.Event{Seq: uint64(e.Seq), Time: e.Time.UnixMilli(), Kind: e.Kind, Actor: e.Actor, Subject: e.Subject, Detail: e.Detail}
	}
	r, err := d.signer.Append(ctx, request)
	if e := wire.AsError(err); e != nil && e.Code == wire.CodeBadRequest {
		err = fmt.Errorf("%w: %w", store.ErrOutOfStep, err)
	}
	return r.LastSeq, err
}

// refresh publishes what follows from the signer's keys, again and again, and
// looks ahead. A signer that is away changes nothing of what is published.
func (d *appliance) refresh(ctx context.Context) {
	pause, quiet := refreshSoon, true
	ahead := &outlook{at: time.Now()}
	for {
		err := d.issuer.Refresh(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause, quiet = refreshEvery, false
		case !quiet:
			quiet = true // once for each outage
			d.log.Warn("the signer's keys cannot be read", "error", err.Error())
		}
		d.foresee(ctx, ahead)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// operators returns the handler of the admin listener.
func (d *appliance) operators(configurations []*configuration.Configuration) http.Handler {
	byID := map[string]*configuration.Configuration{}
	for _, c := range configurations {
		byID[c.ID] = c
	}
	api := admin.New(admin.Config{
		Store: d.store, Configurations: byID, Identities: d.signer.Identities, Links: d.links,
		DefaultExpiry: d.cfg.Offers.DefaultExpiry.Std(), LongestExpiry: d.cfg.Offers.LongestExpiry.Std(),
		CodeLength: d.cfg.Offers.TransactionCodeLength, Now: time.Now, Log: d.log, Doctor: d.issuer.Doctor(), Foresight: d.lookAhead,
		ClientAuthentication: len(d.cfg.Issuer.Clients)+len(d.cfg.Issuer.WalletAttestation.Providers) > 0,
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", d.readyz)
	mux.Handle("GET /metrics", d.metrics.handler())
	mux.Handle("/", api)
	return mux
}

// links makes the ways in which an offer reaches a wallet.
func (d *appliance) links(c store.Created) (admin.Links, error) {
	identifier := d.cfg.Issuer.Identifier
	object, err := oid4vci.OfferObject(identifier, c.Offer, c.Code)
	if err != nil {
		return admin.Links{}, err
	}
	uri := oid4vci.OfferURI(identifier, c.URISecret)
	return admin.Links{
		URI: oid4vci.LinkByReference(oid4vci.SchemeOpenID, uri), HAIP: oid4vci.LinkByReference(oid4vci.SchemeHAIP, uri),
		ByValue: oid4vci.LinkByValue(oid4vci.SchemeOpenID, object),
	}, nil
}
