// Package oid4vci is the wallet-facing side of the appliance: OpenID for
// Verifiable Credential Issuance 1.0, pre-authorized code flow. The issuer is
// its own authorization server.
//
// Everything it reads is hostile. Whatever a request says is held against the
// offer in the store, never the other way round, and the order of the checks is
// the order of the specification's tables: nothing is spent before everything
// that may fail harmlessly has been checked.
//
// Beside the protocol the package serves what verifiers fetch from an issuer:
// its did:web document, what links that to the host, the keys of its SD-JWT VCs,
// its CRLs and its IACA certificates.
package oid4vci

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"
	"time"

	"chancery/appliance/oid4vci/doctor"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/config"
	"chancery/issuance/configuration"
)

// Options are what an issuer is made of.
type Options struct {
	// Issuer is the configuration file's part.
	Issuer         config.Issuer
	Store          *store.Store
	Signer         *wire.Client
	Configurations []*configuration.Configuration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log receives failures and one line for each credential; never personal data.
	Log *slog.Logger
	// Observe is told the endpoint, the outcome ("ok" or an error code) and the
	// time of each request; nil is allowed.
	Observe func(endpoint, outcome string, took time.Duration)
}

// Issuer serves the protocol. It is safe for concurrent use.
type Issuer struct {
	identifier     string
	path           string // the identifier's path, "" or "/…"
	options        config.Issuer
	store          *store.Store
	signer         *wire.Client
	configurations map[string]*configuration.Configuration
	ordered        []*configuration.Configuration
	now            func() time.Time
	log            *slog.Logger
	observe        func(endpoint, outcome string, took time.Duration)
	nonces         *nonces
	doctor         *doctor.Ring
	guards
	asMetadata document
	rotated    time.Time // when the keys that requests are encrypted to were last looked at

	// published changes as a whole when the signer's keys change.
	published atomic.Pointer[published]
}

// document is a resource that is built once and served often.
type document struct {
	mediaType string
	body      []byte
	etag      string
}

func newDocument(mediaType string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{mediaType, body, `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// keysEvery is the time between two looks at the keys that requests are encrypted to.
const keysEvery = time.Minute

// keptCases is how many refused requests on offers the doctor keeps, and how many
// others: 2 MiB in all.
const keptCases = 4096

// New builds an issuer. It asks the signer nothing: until the first successful
// [Issuer.Refresh] it serves metadata without signing algorithms and answers
// credential requests with 503.
func New(o Options) (*Issuer, error) {
	o.Issuer.SetDefaults()
	u, err := url.Parse(o.Issuer.Identifier)
	if err != nil {
		return nil, err
	}
	i := &Issuer{identifier: o.Issuer.Identifier, path: u.Path, options: o.Issuer, store: o.Store, signer: o.Signer, now: o.Now, log: o.Log, observe: o.Observe,
		configurations: map[string]*configuration.Configuration{}, ordered: o.Configurations, doctor: doctor.New(keptCases)}
	if i.now == nil {
		i.now = time.Now
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	if i.observe == nil {
		i.observe = func(string, string, time.Duration) {}
	}
	for _, c := range o.Configurations {
		if i.configurations[c.ID] != nil {
			return nil, fmt.Errorf("configuration %s is there twice", c.ID)
		}
		i.configurations[c.ID] = c
	}
	i.nonces = newNonces(o.Issuer.NonceLifetime.Std())
	if err = i.setUp(); err != nil {
		return nil, err
	}
	if i.asMetadata, err = i.buildASMetadata(i.clients.Metadata(), map[string]any{"dpop_signing_alg_values_supported": i.dpop.Algorithms()}); err != nil {
		return nil, err
	}
	p, err := i.publish(wire.IdentitiesResponse{})
	if err != nil {
		return nil, err
	}
	i.published.Store(p)
	return i, nil
}

// Refresh asks the signer for its keys, rotates the keys that requests are
// encrypted to, and publishes what follows from them. On an error what was
// published stays. It is called by one goroutine.
func (i *Issuer) Refresh(ctx context.Context) error {
	identities, err := i.signer.Identities(ctx)
	if err != nil {
		return err
	}
	if now := i.now(); now.Sub(i.rotated) >= keysEvery || now.Before(i.rotated) {
		if err := i.encryption.Refresh(ctx); err == nil { // it says itself what failed
			i.rotated = now
		}
	}
	var e encryptionMetadata
	e.request, e.response = i.encryption.Metadata()
	return i.update(ctx, identities, e)
}

// Identities returns the keys as of the last [Issuer.Refresh].
func (i *Issuer) Identities() []wire.Identity { return i.published.Load().identities }

// Configurations returns the credential configurations, in file order.
func (i *Issuer) Configurations() []*configuration.Configuration { return i.ordered }

// Doctor tells what was wrong with the latest refused requests.
func (i *Issuer) Doctor() *doctor.Ring { return i.doctor }
