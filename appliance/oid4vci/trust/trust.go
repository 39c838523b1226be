// Package trust knows whose attestations are believed: wallet providers and
// those who attest keys, each by public keys or by X.509 anchors that the
// operator configured. It also asks their status lists whether an attestation
// still stands.
//
// The files it reads are trusted; attestations, chains within them and whatever
// a status list's server answers are not.
package trust

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/issuance"
)

// Key is a public key that an attester signs with.
type Key struct {
	// KeyID is the kid that tokens name it by; "" when the file has none.
	KeyID string
	// Public is an EC or Ed25519 key that [issuance.AlgorithmFor] knows.
	Public crypto.PublicKey
}

// Provider is somebody who attests wallets or keys.
type Provider struct {
	// Name is shown to operators.
	Name string
	// Keys are its public keys, Anchors the CA certificates that its signing
	// certificates lead to; at least one of them.
	Keys    []Key
	Anchors []*x509.Certificate
	// RequireChain demands an x5c header that leads to an anchor (HAIP 1.0
	// §4.4.1, §4.5.1). Without it a token may name a key by kid, and a chain
	// whose leaf holds one of Keys is as good as that key.
	RequireChain bool
	// ClientIDs limits what a wallet provider may vouch for; empty means any.
	ClientIDs []string
}

// Errors of [Providers.Resolve]. They show nothing of what was read.
var (
	ErrNoChain      = errors.New("x5c is missing: the signer must be named by a certificate chain")
	ErrChain        = errors.New("x5c is not an array of 1 to 8 certificates in base64")
	ErrAnchorInside = errors.New("x5c must not contain the trust anchor or any self-signed certificate")
	ErrLeaf         = errors.New("the first certificate of x5c is not one for signatures: an EC or Ed25519 key, no CA, key usage digitalSignature")
	ErrUntrusted    = errors.New("the certificate chain leads to no configured anchor, or is not valid now")
	ErrUnknownKey   = errors.New("kid names no configured key")
	ErrAmbiguousKey = errors.New("without kid and x5c the signer's key is not known")
)

// Source is who signed a token, when its signature verifies under Key.
type Source struct {
	// Provider is the provider's name.
	Provider string
	// Key is what the signature must verify under.
	Key crypto.PublicKey

	clientIDs []string
}

// Allows tells whether the provider may vouch for a client.
func (s Source) Allows(clientID string) bool {
	return len(s.clientIDs) == 0 || slices.Contains(s.clientIDs, clientID)
}

// Providers are all whose word counts, in the order of the configuration. They
// do not change and may be used by any number of goroutines. Nil trusts nobody.
type Providers struct {
	list   []Provider
	pools  []*x509.CertPool // of each provider's anchors
	chains chains
}

// New checks and takes providers; none at all is allowed and trusts nobody.
func New(providers ...Provider) (*Providers, error) {
	p := &Providers{}
	names := map[string]bool{}
	for n, provider := range providers {
		if provider.Name == "" || names[provider.Name] {
			return nil, fmt.Errorf("trust: provider %d has no name or another one's: give each a name of its own", n)
		}
		names[provider.Name] = true
		if err := provider.check(); err != nil {
			return nil, fmt.Errorf("trust: provider %q: %w", provider.Name, err)
		}
		pool := x509.NewCertPool()
		for _, anchor := range provider.Anchors {
			pool.AddCert(anchor)
		}
		p.list, p.pools = append(p.list, provider), append(p.pools, pool)
	}
	return p, nil
}

func (p *Provider) check() error {
	if len(p.Keys)+len(p.Anchors) == 0 {
		return errors.New("it has neither keys nor anchors: configure at least one")
	}
	if p.RequireChain && len(p.Anchors) == 0 {
		return errors.New("a chain is required and there is no anchor: configure CA certificates, or do not require the chain")
	}
	seen := map[string]bool{}
	for n, key := range p.Keys {
		if _, err := issuance.AlgorithmFor(key.Public); err != nil {
			return fmt.Errorf("key %d: %w", n, err)
		}
		if key.KeyID != "" && seen[key.KeyID] {
			return fmt.Errorf("key %d: its kid is there twice: give each key one of its own", n)
		}
		seen[key.KeyID] = true
	}
	for n, anchor := range p.Anchors {
		if !anchor.BasicConstraintsValid || !anchor.IsCA || anchor.KeyUsage != 0 && anchor.KeyUsage&x509.KeyUsageCertSign == 0 {
			return fmt.Errorf("anchor %d is no CA certificate: configure the certificate of the CA that issues the signing certificates", n)
		}
	}
	return nil
}

// Len returns the number of providers.
func (p *Providers) Len() int {
	if p == nil {
		return 0
	}
	return len(p.list)
}

// Resolve finds who must have signed a token: by its x5c header, else by kid.
// Whether the signature verifies under the key is for the caller to ask, with
// [jwt.Token.Verify]. Where several providers match, the first that is
// configured counts.
func (p *Providers) Resolve(t *jwt.Token, now time.Time) (Source, error) {
	if p == nil {
		return Source{}, ErrUntrusted
	}
	var matches []match
	var err error
	if value, has := t.Header["x5c"]; has {
		matches, err = p.chains.judge(value, now, p.byChain)
	} else {
		matches, err = p.byKeyID(t)
	}
	if err != nil {
		return Source{}, err
	}
	chosen := matches[0]
	for _, m := range matches[1:] {
		// Two providers may use the same kid; the signature tells whose it is.
		if !t.Verify(chosen.key) && t.Verify(m.key) {
			chosen = m
		}
	}
	return Source{chosen.provider.Name, chosen.key, chosen.provider.ClientIDs}, nil
}

// match is a provider and the key of it that a token's header leads to.
type match struct {
	provider *Provider
	key      crypto.PublicKey
}

// byKeyID finds configured keys by the kid header; a token without one is taken
// for one of the only key there is.
func (p *Providers) byKeyID(t *jwt.Token) ([]match, error) {
	kid, has := t.Header["kid"]
	id, _ := kid.(string)
	if has && id == "" {
		return nil, ErrUnknownKey
	}
	var matches []match
	chain := true // all providers demand x5c
	for n := range p.list {
		provider := &p.list[n]
		chain = chain && provider.RequireChain
		if provider.RequireChain {
			continue
		}
		for _, key := range provider.Keys {
			if !has || key.KeyID == id {
				matches = append(matches, match{provider, key.Public})
			}
		}
	}
	switch {
	case chain && len(p.list) > 0:
		return nil, ErrNoChain
	case !has && len(matches) != 1:
		return nil, ErrAmbiguousKey
	case len(matches) == 0:
		return nil, ErrUnknownKey
	}
	return matches, nil
}

// byChain judges the certificates of an x5c header (HAIP 1.0 §4.4.1): leaf first,
// leading to an anchor that is not among them, a leaf that is neither self-signed
// nor a CA.
func (p *Providers) byChain(chain []*x509.Certificate, now time.Time) ([]match, error) {
	leaf := chain[0]
	if _, err := issuance.AlgorithmFor(leaf.PublicKey); err != nil {
		return nil, ErrLeaf
	}
	var matches []match
	for n := range p.list {
		if provider := &p.list[n]; !provider.RequireChain && provider.has(leaf.PublicKey) {
			matches = append(matches, match{provider, leaf.PublicKey})
		}
	}
	if len(matches) > 0 {
		return matches, nil
	}
	if leaf.IsCA || leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, ErrLeaf
	}
	if slices.ContainsFunc(chain, p.isAnchor) {
		return nil, ErrAnchorInside
	}
	path, ok := pathOf(chain)
	if !ok {
		return nil, ErrUntrusted
	}
	top := path[len(path)-1]
	if selfSigned(top) {
		return nil, ErrAnchorInside
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range path[1:] {
		intermediates.AddCert(certificate)
	}
	for n := range p.list {
		if !p.list[n].issued(top) {
			continue
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: p.pools[n], Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil {
			matches = append(matches, match{&p.list[n], leaf.PublicKey})
		}
	}
	if len(matches) == 0 {
		return nil, ErrUntrusted
	}
	return matches, nil
}

// maxRSA bounds an RSA key among a chain's certificates, in bits: one as long as a
// request may be costs a tenth of a second.
const maxRSA = 4096

// pathOf picks from a stranger's certificates those that lead from the leaf
// upwards, one for each name. Package x509 tries all that have a name with each
// other: eight of the same name cost it a third of a second. False when one of
// them has a key that costs too much.
func pathOf(chain []*x509.Certificate) (path []*x509.Certificate, ok bool) {
	rest := slices.Clone(chain[1:])
	for at := chain[0]; ; {
		if key, isRSA := at.PublicKey.(*rsa.PublicKey); isRSA && key.N.BitLen() > maxRSA {
			return nil, false
		}
		path = append(path, at)
		rest = slices.DeleteFunc(rest, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, at.RawSubject) })
		next := slices.IndexFunc(rest, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, at.RawIssuer) })
		if next < 0 {
			return path, true
		}
		at = rest[next]
	}
}

// issued tells whether one of the provider's anchors issued a certificate. It is
// asked first, because what is below it strangers can make.
func (p *Provider) issued(top *x509.Certificate) bool {
	return slices.ContainsFunc(p.Anchors, func(anchor *x509.Certificate) bool {
		return bytes.Equal(anchor.RawSubject, top.RawIssuer) && top.CheckSignatureFrom(anchor) == nil
	})
}

func (p *Provider) has(public crypto.PublicKey) bool {
	key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && slices.ContainsFunc(p.Keys, func(k Key) bool { return key.Equal(k.Public) })
}

// isAnchor compares keys and names and not whole certificates: an anchor that
// was issued again is the same anchor.
func (p *Providers) isAnchor(certificate *x509.Certificate) bool {
	return slices.ContainsFunc(p.list, func(provider Provider) bool {
		return slices.ContainsFunc(provider.Anchors, func(anchor *x509.Certificate) bool {
			return bytes.Equal(anchor.RawSubjectPublicKeyInfo, certificate.RawSubjectPublicKeyInfo) && bytes.Equal(anchor.RawSubject, certificate.RawSubject)
		})
	})
}

// selfSigned tells whether a certificate names itself as its issuer and carries
// its own key's signature. A cheap comparison of names goes first.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
