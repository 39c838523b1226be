package oid4vci

import (
	"fmt"
	"time"

	"chancery/appliance/limit"
	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/clientauth"
	"chancery/appliance/oid4vci/dpop"
	"chancery/appliance/oid4vci/encryption"
	"chancery/appliance/oid4vci/proof"
	"chancery/appliance/oid4vci/trust"
	"chancery/config"
)

const (
	// proofWindow is how far the iat of a DPoP proof or proof of possession may be
	// from now: a clock may be off by a minute, and a request takes its time.
	proofWindow = 65 * time.Second
	// challengeLifetime is how long an attestation challenge is accepted.
	challengeLifetime = 5 * time.Minute
	// metadataCache is how long wallets and caches may keep the metadata.
	metadataCache = time.Minute
	// keyOverlap is how long a request key that was replaced still decrypts.
	keyOverlap = time.Hour
	// throttled is how many offers' requests are counted at a time.
	throttled = 1 << 16
)

// guards are what requests are held against besides the store.
type guards struct {
	dpop       *dpop.Checker
	clients    *clientauth.Authenticator
	encryption *encryption.Encryption
	// rules are what proofs are held against, by configuration.
	rules    map[string]proof.Rules
	perOffer *limit.Buckets[[16]byte]
}

// setUp makes the guards from the configuration, and reads the files that it names.
func (i *Issuer) setUp() error {
	o := i.options
	var challenges *challenge.Source
	if o.WalletAttestation.Challenges {
		challenges = challenge.New(challengeLifetime)
	}
	i.dpop = dpop.New(dpop.Options{Window: proofWindow, Nonces: o.DPoP.Nonces, Challenges: challenges, Now: i.now})
	i.perOffer = limit.NewBuckets[[16]byte](limit.Rate{Requests: o.HTTP.OfferRequestsPerMinute, Per: time.Minute}, throttled)
	if err := i.setUpClients(challenges); err != nil {
		return err
	}
	if err := i.setUpProofs(); err != nil {
		return err
	}
	var err error
	i.encryption, err = encryption.New(encryption.Options{
		Request: encryption.Policy(o.Encryption.Request), Response: encryption.Policy(o.Encryption.Response), Zip: *o.Encryption.Compression,
		Drafts: o.Compatibility != "", Rotation: o.Encryption.Rotation.Std(), Overlap: keyOverlap, Store: i.store, Now: i.now, Log: i.log,
	})
	return err
}

func (i *Issuer) setUpClients(challenges *challenge.Source) error {
	o := i.options
	providers, err := attesters("issuer.wallet_attestation.providers", o.WalletAttestation.Providers, *o.WalletAttestation.RequireChain)
	if err != nil {
		return err
	}
	clients := make([]clientauth.Client, len(o.Clients))
	for n, c := range o.Clients {
		clients[n].ID = c.ID
		if clients[n].Keys, err = trust.LoadKeys(c.Keys); err != nil {
			return fmt.Errorf("issuer.clients[%d].keys: %w", n, err)
		}
	}
	i.clients, err = clientauth.New(clientauth.Options{
		Audience: i.identifier, Anonymous: *o.AnonymousAccess, Clients: clients, Providers: providers,
		Status: i.status(providers, o.WalletAttestation.Status), MaxAge: o.WalletAttestation.MaxAge.Std(), Window: proofWindow, Challenges: challenges, Now: i.now,
	})
	return err
}

func (i *Issuer) setUpProofs() error {
	o := i.options
	providers, err := attesters("issuer.key_attestation.providers", o.KeyAttestation.Providers, *o.KeyAttestation.RequireChain)
	if err != nil {
		return err
	}
	status := i.status(providers, o.KeyAttestation.Status)
	i.rules = map[string]proof.Rules{}
	for _, c := range i.ordered {
		rules := proof.RulesFor(c)
		_, attestation := rules.Types["attestation"]
		if (attestation || c.KeyAttestation != nil) && providers.Len() == 0 {
			return fmt.Errorf("configuration %s wants key attestations, and nobody's are believed: add issuer.key_attestation.providers", c.ID)
		}
		rules.MaxProofs, rules.Audience, rules.Past = i.batchSize(), i.identifier, o.NonceLifetime.Std()
		rules.Strict = o.Strictness == "strict"
		rules.InnerNonce, rules.LegacyTyp = o.KeyAttestation.Nonce, o.Compatibility != ""
		rules.Providers, rules.Status = providers, status.Check // a nil Status checks nothing
		i.rules[c.ID] = rules
	}
	return nil
}

// attesters reads those whose attestations are believed.
func attesters(name string, list []config.Attester, requireChain bool) (*trust.Providers, error) {
	providers := make([]trust.Provider, len(list))
	for n, a := range list {
		p := trust.Provider{Name: a.Name, RequireChain: requireChain, ClientIDs: a.ClientIDs}
		var err error
		if a.Keys != "" {
			if p.Keys, err = trust.LoadKeys(a.Keys); err != nil {
				return nil, fmt.Errorf("%s[%d].keys: %w", name, n, err)
			}
		}
		if a.Anchors != "" {
			if p.Anchors, err = trust.LoadAnchors(a.Anchors); err != nil {
				return nil, fmt.Errorf("%s[%d].anchors: %w", name, n, err)
			}
		}
		providers[n] = p
	}
	return trust.New(providers...)
}

// status asks attestations' status lists, or is nil when they are not looked at.
func (i *Issuer) status(providers *trust.Providers, policy string) *trust.Status {
	if policy == "off" || providers.Len() == 0 {
		return nil
	}
	return trust.NewStatus(trust.StatusOptions{Providers: providers, FailClosed: policy == "closed", Now: i.now})
}

// batchSize is the largest of the configurations'.
func (i *Issuer) batchSize() int {
	largest := 1
	for _, c := range i.ordered {
		largest = max(largest, c.BatchSize)
	}
	return largest
}
