// Package proof holds the key proofs of a credential request against OpenID4VCI
// 1.0 App. F and the key attestations in or in place of them against App. D. It
// says which keys credentials are to be bound to and which nonces their freshness
// rests on; whether a nonce is good is its caller's matter.
//
// Nobody is believed because of what he sent: a key is bound when its holder
// signed with it, or when one of the wallet providers that the operator trusts
// vouches for it.
package proof

import (
	"context"
	"crypto"
	"fmt"
	"slices"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// Bounds on what is read.
const (
	maxAttestation = 32 << 10
	// maxProof leaves room for a key attestation in the header, in base64 again.
	maxProof = maxAttestation*4/3 + 16<<10
	maxKeys  = 64
	// maxAhead is how far the clocks of wallets and wallet providers may be off.
	maxAhead = 60 * time.Second
	// minPast is how old a proof may be at least.
	minPast = 5 * time.Minute
)

// Where the specification says what it wants.
const (
	sectionRequest     = "OpenID4VCI 1.0 §8.2"
	sectionMetadata    = "OpenID4VCI 1.0 §12.2.4"
	sectionAttestation = "OpenID4VCI 1.0 App. D.1"
	sectionJWT         = "OpenID4VCI 1.0 App. F.1"
	sectionDIVP        = "OpenID4VCI 1.0 App. F.2"
	sectionAttested    = "OpenID4VCI 1.0 App. F.3"
	sectionVerify      = "OpenID4VCI 1.0 App. F.4"
)

// Type is one member of a configuration's proof_types_supported (OpenID4VCI 1.0 §12.2.4).
type Type struct {
	// Algorithms are proof_signing_alg_values_supported; cryptosuites for di_vp.
	Algorithms []string
	// Attestation is key_attestations_required, nil when none is. An empty list in
	// it constrains nothing; of another, the attestation must name a value.
	Attestation *configuration.KeyAttestation
}

// Rules are what the proofs of one request are held against. [RulesFor] fills in
// what a configuration says; they may be kept and copied.
type Rules struct {
	// Methods are the configuration's cryptographic_binding_methods_supported.
	Methods []string
	// Types are its proof_types_supported.
	Types map[string]Type
	// BatchSize is how many credentials one request may ask for; less than 1
	// counts as 1.
	BatchSize int

	// MaxProofs is the metadata's batch_size: how many proofs one request may hold;
	// less than BatchSize counts as BatchSize.
	MaxProofs int
	// Audience is the Credential Issuer Identifier.
	Audience string
	// Client is the access token's client_id; "" when it was issued to nobody in
	// particular (anonymous access).
	Client string
	// Strict refuses an iss in a proof made under an anonymous token.
	Strict bool
	// InnerNonce demands a nonce of a key attestation within a jwt proof too, as
	// App. F.1 does. Without it one that has none is tolerated, as EU wallets make
	// their attestations ahead of the request; the proof's own nonce is demanded
	// in any case.
	InnerNonce bool
	// LegacyTyp takes key attestations with draft 15's typ, too.
	LegacyTyp bool
	// Past is how old a proof may be, when that is more than five minutes.
	Past time.Duration
	Now  time.Time

	// Providers are whose word on keys is believed. When there are none, key
	// attestations that are not required are passed over, as if they were not there.
	Providers *trust.Providers
	// Status judges a key attestation's status claim, as [trust.Status.Check] does;
	// nil when that is not checked.
	Status func(ctx context.Context, claim any) error
}

// RulesFor returns what a configuration says about proofs. The rest is for the
// caller to fill in.
func RulesFor(c *configuration.Configuration) Rules {
	algorithms := make([]string, len(configuration.ProofAlgorithms))
	for n, a := range configuration.ProofAlgorithms {
		algorithms[n] = string(a)
	}
	r := Rules{Methods: c.BindingMethods(), Types: map[string]Type{}, BatchSize: c.BatchSize}
	for _, name := range c.ProofTypes {
		t := Type{algorithms, c.KeyAttestation}
		if name == configuration.ProofDIVP {
			t.Algorithms = configuration.Cryptosuites
		}
		r.Types[name] = t
	}
	return r
}

// Holder is a key that a credential is to be bound to.
type Holder struct {
	Key crypto.PublicKey
	// DID is what the key came under, without fragment; "" for a bare key.
	DID string
	// Thumbprint is the key's RFC 7638 thumbprint, SHA-256, base64url.
	Thumbprint string
}

// Set is what a request's proofs amount to.
type Set struct {
	// Type is the proof type.
	Type string
	// Holders are at least one and at most the batch size, no two with the same
	// thumbprint: first the keys that signed, in the order of the proofs, then
	// the others that are attested, in the order of the attestations.
	Holders []Holder
	// Nonces are all that the proofs and attestations hold, each once. Every one
	// must be judged.
	Nonces []string
	// Attested tells that every holder's key is vouched for.
	Attested bool
	// Attestations are what the key attestations say, each once.
	Attestations []Statement
}

// Statement is what a wallet provider says about keys.
type Statement struct {
	// Provider is the name that the operator gave to who signed it.
	Provider string
	// KeyStorage and UserAuthentication are empty when it does not say.
	KeyStorage, UserAuthentication []string
	// Keys is how many keys it is about.
	Keys int
}

// Check holds the proofs member of a credential request, as [jws.Object] decoded
// it and nil when it is missing, against the rules. One bad proof fails them all.
// Its errors are [*refusal.Refusal]: invalid_credential_request when proofs is
// not put together as OpenID4VCI 1.0 §8.2 wants it, else invalid_proof.
func Check(ctx context.Context, proofs any, rules Rules) (*Set, error) {
	rules.BatchSize = max(rules.BatchSize, 1)
	rules.MaxProofs = max(rules.MaxProofs, rules.BatchSize)
	kind, list, err := read(proofs, rules)
	if err != nil {
		return nil, err
	}
	c := &checker{rules: rules, settings: rules.Types[kind], set: &Set{Type: kind, Holders: make([]Holder, 0, len(list))}}
	for n, element := range list {
		if err := c.proof(place{kind: kind, n: n}, element); err != nil {
			return nil, err
		}
	}
	for _, a := range c.attestations {
		if err := a.checkStatus(ctx, rules); err != nil {
			return nil, err
		}
	}
	c.finish()
	return c.set, nil
}

// read takes proofs apart: exactly one member, named after a proof type of the
// configuration, with a non-empty array that is no longer than the metadata allows.
func read(proofs any, rules Rules) (kind string, list []any, err error) {
	if proofs == nil {
		return "", nil, refusal.New("invalid_proof", "proofs", "proofs is missing", "OpenID4VCI 1.0 §8.3.1.2")
	}
	members, ok := proofs.(map[string]any)
	if !ok || len(members) != 1 {
		return "", nil, badRequest("proofs", "proofs must be an object with exactly one member", sectionRequest)
	}
	var value any
	for kind, value = range members {
	}
	if _, ok := rules.Types[kind]; !ok {
		return "", nil, badRequest("proofs", "the proof type is not one of the metadata's", sectionMetadata)
	}
	list, ok = value.([]any)
	if !ok || len(list) == 0 {
		return "", nil, badRequest("proofs."+kind, "the proofs must be an array with elements", sectionRequest)
	}
	if kind == configuration.ProofAttestation && len(list) > 1 {
		return "", nil, badRequest("proofs."+kind, "there must be exactly one key attestation", sectionAttested)
	}
	if len(list) > rules.MaxProofs {
		return "", nil, badRequest("proofs."+kind, "there are more proofs than one request may have", sectionMetadata)
	}
	for n, element := range list {
		if _, isText := element.(string); kind != configuration.ProofDIVP && !isText {
			return "", nil, badRequest(place{kind: kind, n: n}.member(""), "the proof is not a string", sectionRequest)
		}
		if _, isObject := element.(map[string]any); kind == configuration.ProofDIVP && !isObject {
			return "", nil, badRequest(place{kind: kind, n: n}.member(""), "the presentation is not an object", sectionRequest)
		}
	}
	return kind, list, nil
}

func badRequest(member, description, section string) error {
	return refusal.New("invalid_credential_request", member, description, section)
}

// place is where in a request a proof stands.
type place struct {
	kind string
	n    int
	// attestation is set within the key attestation of a jwt proof.
	attestation bool
}

// member names a member of what stands at the place.
func (p place) member(name string) string {
	s := fmt.Sprintf("proofs.%s[%d]", p.kind, p.n)
	if p.attestation {
		s += " key_attestation"
	}
	if name != "" {
		s += " " + name
	}
	return s
}

// wrong is an invalid_proof.
func (p place) wrong(member, description, section string) error {
	return refusal.New("invalid_proof", p.member(member), description, section)
}

// checker goes through the proofs of one request.
type checker struct {
	rules    Rules
	settings Type
	set      *Set
	// attestations are the key attestations that hold, each once.
	attestations []*attestation
}

// proof checks one element of the array.
func (c *checker) proof(at place, element any) error {
	switch at.kind {
	case configuration.ProofJWT:
		compact, _ := element.(string)
		return c.jwt(at, compact)
	case configuration.ProofAttestation:
		compact, _ := element.(string)
		_, err := c.attestation(at, compact)
		return err
	case configuration.ProofDIVP:
		presentation, _ := element.(map[string]any)
		return c.presentation(at, presentation)
	}
	return badRequest("proofs."+at.kind, "the proof type is not supported", sectionMetadata)
}

// signed notes a key that signed a proof.
func (c *checker) signed(at place, h Holder) error {
	if slices.ContainsFunc(c.set.Holders, h.same) {
		return at.wrong("", "two proofs have the same key", "OpenID4VCI 1.0 §8.3")
	}
	c.set.Holders = append(c.set.Holders, h)
	return nil
}

func (h Holder) same(other Holder) bool { return h.Thumbprint == other.Thumbprint }

// nonce notes a nonce that must be judged.
func (c *checker) nonce(nonce string) {
	if !slices.Contains(c.set.Nonces, nonce) {
		c.set.Nonces = append(c.set.Nonces, nonce)
	}
}

// finish adds the attested keys that did not sign and keeps to the batch size
// (OpenID4VCI 1.0 App. F.1, F.3: a credential for each; §8.3: or for fewer).
func (c *checker) finish() {
	s := c.set
	for _, a := range c.attestations {
		s.Attestations = append(s.Attestations, a.statement)
		for _, k := range a.keys {
			if len(s.Holders) < c.rules.BatchSize && !slices.ContainsFunc(s.Holders, k.same) {
				s.Holders = append(s.Holders, k.Holder)
			}
		}
	}
	s.Holders = s.Holders[:min(len(s.Holders), c.rules.BatchSize)]
	s.Attested = !slices.ContainsFunc(s.Holders, func(h Holder) bool {
		return !slices.ContainsFunc(c.attestations, func(a *attestation) bool { return a.find(h) >= 0 })
	})
}

// bare returns the holder of a key that came as such.
func bare(key crypto.PublicKey) (Holder, error) {
	thumbprint, err := jws.Thumbprint(key)
	return Holder{Key: key, Thumbprint: thumbprint}, err
}

// checkDates holds the dates that an object may have against the clock.
func (c *checker) checkDates(at place, claims map[string]any, what, section string) error {
	if value, has := claims["exp"]; has {
		if expires, ok := jwt.Date(value); !ok || !c.rules.Now.Before(expires.Add(maxAhead)) {
			return at.wrong("exp", what+" has expired", section)
		}
	}
	if value, has := claims["nbf"]; has {
		if from, ok := jwt.Date(value); !ok || from.After(c.rules.Now.Add(maxAhead)) {
			return at.wrong("nbf", what+" is not valid yet", section)
		}
	}
	return nil
}

// checkMade refuses what was made in the future or too long ago.
func (c *checker) checkMade(at place, member string, made time.Time) error {
	switch {
	case made.After(c.rules.Now.Add(maxAhead)):
		return at.wrong(member, member+" is in the future", sectionVerify)
	case made.Before(c.rules.Now.Add(-max(c.rules.Past, minPast))):
		return at.wrong(member, member+" is too long ago", sectionVerify)
	}
	return nil
}
