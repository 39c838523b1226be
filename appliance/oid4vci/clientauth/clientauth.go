// Package clientauth finds out which client sends a token request: nobody that
// says so, a registered client with a signed assertion (private_key_jwt, RFC
// 7523), or an instance of a wallet that its provider vouches for (wallet
// attestation, OpenID4VCI 1.0 App. E), in the form of draft -07 of
// attestation-based client authentication, which OpenID4VCI 1.0 pins, or -10.
//
// ABCA in comments is draft-ietf-oauth-attestation-based-client-auth. A failed
// authentication consumes nothing but the jti it has seen.
package clientauth

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/dpop"
	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/replay"
	"chancery/appliance/oid4vci/trust"
	"chancery/issuance"
)

// Method is a token endpoint authentication method as metadata names it.
type Method string

// The methods.
const (
	None          Method = "none"
	PrivateKeyJWT Method = "private_key_jwt"
	// Attestation is a wallet attestation with a proof of possession of its own.
	Attestation Method = "attest_jwt_client_auth"
	// AttestationDPoP is a wallet attestation whose proof of possession is the
	// request's DPoP proof (ABCA -10 §5.2).
	AttestationDPoP Method = "attest_jwt_client_auth_dpop"
)

// Headers of wallet attestation (ABCA -07 §6.1, §8.1).
const (
	AttestationHeader = "OAuth-Client-Attestation"
	PoPHeader         = "OAuth-Client-Attestation-PoP"
	ChallengeHeader   = "OAuth-Client-Attestation-Challenge"
)

// Error codes (RFC 6749 §5.2, ABCA -07 §6.2).
const (
	InvalidClient   = "invalid_client"
	InvalidRequest  = "invalid_request"
	UseChallenge    = "use_attestation_challenge"
	UseFresh        = "use_fresh_attestation"
	unavailable     = "temporarily_unavailable"
	maxID           = 512
	maxToken        = 16 << 10
	maxJTI          = 1024
	clockSkew       = time.Minute // FAPI 2.0 §5.3.2.1: 10 s at least, 60 s at most
	maxAssertionAge = time.Hour
	// soon is when nearly all assertions have expired.
	soon = 5 * time.Minute
)

// Client is a registered client of private_key_jwt.
type Client struct {
	// ID is its client_id.
	ID string
	// Keys are its public keys.
	Keys []trust.Key
}

// Options configure an [Authenticator].
type Options struct {
	// Audience is the authorization server's issuer identifier (RFC 8414 §2):
	// the aud of assertions and proofs of possession.
	Audience string
	// Anonymous lets requests in that authenticate nobody.
	Anonymous bool
	// Clients authenticate by private_key_jwt; without any there is no such method.
	Clients []Client
	// Providers are those whose wallet attestations are believed; without any
	// there is no such method.
	Providers *trust.Providers
	// Status looks at an attestation's status; nil does not.
	Status *trust.Status
	// MaxAge refuses attestations issued longer ago; 0 looks at exp alone.
	MaxAge time.Duration
	// Window is how far the iat of a proof of possession may be from now, either
	// way. Default 60 s.
	Window time.Duration
	// Challenges, if there are any, are demanded in every proof of possession.
	Challenges *challenge.Source
	// Algorithms are accepted. Default ES256, ES384, ES512, EdDSA.
	Algorithms []issuance.Algorithm
	// MaxEntries bounds the proofs of possession remembered, the assertions that
	// expire within five minutes, and the others, about 40 bytes each. Only those
	// whose attester or key is trusted are. Default 524288: 1300 proofs, 600
	// assertions, 70 others a second.
	MaxEntries int
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Authenticator authenticates clients. Any number of goroutines may use it.
type Authenticator struct {
	options Options
	clients map[string]Client
	proofs  *replay.Cache // jti of proofs of possession
	// assertions are the jti of client assertions that expire soon, lasting of the
	// others: one that lasts an hour must be remembered for so long.
	assertions, lasting *replay.Cache
}

// New returns an Authenticator, or says what is wrong with a registered client.
func New(o Options) (*Authenticator, error) {
	if o.Window <= 0 {
		o.Window = time.Minute
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA}
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 1 << 19
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &Authenticator{
		options: o, clients: map[string]Client{},
		proofs:     replay.New(2*o.Window+clockSkew, o.MaxEntries),
		assertions: replay.New(soon+2*clockSkew, o.MaxEntries),
		lasting:    replay.New(maxAssertionAge+2*clockSkew, o.MaxEntries),
	}
	for _, client := range o.Clients {
		if _, twice := a.clients[client.ID]; twice || !printable(client.ID, maxID) || len(client.Keys) == 0 {
			return nil, fmt.Errorf("clientauth: client %q: it needs a client_id of its own, of at most %d printable ASCII characters, and at least one key", client.ID, maxID)
		}
		for n, key := range client.Keys {
			if _, err := issuance.AlgorithmFor(key.Public); err != nil {
				return nil, fmt.Errorf("clientauth: client %q: key %d: %w", client.ID, n, err)
			}
		}
		a.clients[client.ID] = client
	}
	return a, nil
}

// Request is what a client says of itself.
type Request struct {
	// Header and Form are the request's; the form has each parameter once.
	Header http.Header
	Form   url.Values
	// DPoP is the request's proof, checked; nil when there is none or it was
	// refused. DPoPError is why it was refused: where the proof would stand for a
	// proof of possession, that is the answer, for instance use_dpop_nonce.
	DPoP      *dpop.Proof
	DPoPError error
}

// Identity is who sends a request.
type Identity struct {
	// ID is the client_id; "" when it is not known. One that is not
	// Authenticated anybody may have sent.
	ID            string
	Authenticated bool
	Method        Method
	// InstanceKey is the RFC 7638 thumbprint, SHA-256, of the wallet instance's
	// key, which refresh tokens are bound to (ABCA -07 §10.3); nil without attestation.
	InstanceKey []byte
}

// Authenticate finds out who sends a token request (RFC 6749 §2.3, OpenID4VCI
// 1.0 §6.1). Errors are refusals.
func (a *Authenticator) Authenticate(ctx context.Context, r Request) (Identity, error) {
	id := r.Form.Get("client_id")
	if id != "" && !printable(id, maxID) {
		return Identity{}, refusal.New(InvalidRequest, "client_id", "client_id must be printable ASCII of at most 512 characters", "RFC 6749 App. A.1")
	}
	if r.Header.Get("Authorization") != "" {
		e := invalid("Authorization", "this way of client authentication is not supported", "RFC 6749 §2.3.1, §5.2").With(http.StatusUnauthorized)
		e.Challenge = `Basic realm="token"`
		return Identity{}, e
	}
	if r.Form.Get("client_secret") != "" {
		return Identity{}, invalid("client_secret", "client secrets are not supported", "RFC 6749 §2.3.1")
	}
	// Where no provider is believed the headers mean nothing, as any unknown one.
	attested := a.options.Providers.Len() > 0 && len(r.Header.Values(AttestationHeader))+len(r.Header.Values(PoPHeader)) > 0
	asserted := r.Form.Get("client_assertion") != "" || r.Form.Get("client_assertion_type") != ""
	switch {
	case attested && asserted:
		return Identity{}, refusal.New(InvalidRequest, "client_assertion", "the request uses two ways of client authentication", "RFC 6749 §2.3, §5.2")
	case attested:
		return a.attestation(ctx, r, id)
	case asserted:
		return a.assertion(r, id)
	}
	if _, registered := a.clients[id]; registered {
		return Identity{}, invalid("client_assertion", "this client must authenticate with private_key_jwt", "RFC 6749 §3.2.1")
	}
	if !a.options.Anonymous {
		return Identity{}, invalid("client_id", "the client must authenticate", "OpenID4VCI 1.0 §6.3")
	}
	return Identity{ID: id, Method: None}, nil
}

// Challenge returns a new attestation challenge for the challenge endpoint or
// the [ChallengeHeader] of any response (ABCA -07 §8); "" when there are none.
func (a *Authenticator) Challenge() string {
	if a.options.Challenges == nil {
		return ""
	}
	return a.options.Challenges.Make(a.options.Now())
}

// Methods returns the methods that are in use.
func (a *Authenticator) Methods() []Method {
	var methods []Method
	if a.options.Anonymous {
		methods = append(methods, None)
	}
	if len(a.clients) > 0 {
		methods = append(methods, PrivateKeyJWT)
	}
	if a.options.Providers.Len() > 0 {
		methods = append(methods, Attestation, AttestationDPoP)
	}
	return methods
}

// Metadata returns the members of authorization server metadata that say how
// clients authenticate (RFC 8414 §2, ABCA -07 §10.1); empty ones are left out.
// challenge_endpoint is not among them.
func (a *Authenticator) Metadata() map[string]any {
	out := map[string]any{}
	methods := a.Methods()
	if len(methods) > 0 {
		out["token_endpoint_auth_methods_supported"] = methods
	}
	if slices.Contains(methods, PrivateKeyJWT) {
		out["token_endpoint_auth_signing_alg_values_supported"] = a.options.Algorithms
	}
	if slices.Contains(methods, Attestation) {
		out["client_attestation_signing_alg_values_supported"] = a.options.Algorithms
		out["client_attestation_pop_signing_alg_values_supported"] = a.options.Algorithms
	}
	return out
}

// use consumes a jti, at the end, when all else holds.
func (a *Authenticator) use(seen *replay.Cache, member, section string, key replay.Key) error {
	switch err := seen.Add(key, a.options.Now()); {
	case errors.Is(err, replay.ErrSeen):
		return invalid(member+" jti", "jti was used before", section)
	case err != nil:
		e := refusal.New(unavailable, member, "too many requests: try again later", section).With(http.StatusServiceUnavailable)
		e.RetryAfter = max(1, int(a.options.Window/time.Second))
		return e
	}
	return nil
}

// audience tells whether aud is the authorization server alone, as a string or,
// where array allows it, as an array of one.
func (a *Authenticator) audience(aud any, array bool) bool {
	if list, ok := aud.([]any); ok && array && len(list) == 1 {
		aud = list[0]
	}
	return aud == a.options.Audience
}

// past tells whether a claim is absent or a date not later than now.
func past(t *jwt.Token, name string, now time.Time) bool {
	value, has := t.Claims[name]
	if !has {
		return true
	}
	date, ok := jwt.Date(value)
	return ok && !date.After(now.Add(clockSkew))
}

func invalid(member, description, section string) *refusal.Refusal {
	return refusal.New(InvalidClient, member, description, section)
}

// printable tells whether s is 1 to limit characters of %x20-7E (RFC 6749 App. A.1).
func printable(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.Trim(s, " ") == s &&
		strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
}

// verifies tells whether one of a client's keys signed t; kid chooses among
// them where both sides have one.
func (c Client) verifies(t *jwt.Token) bool {
	kid, _ := t.Header["kid"].(string)
	return slices.ContainsFunc(c.Keys, func(key trust.Key) bool {
		return (kid == "" || key.KeyID == "" || key.KeyID == kid) && t.Verify(key.Public)
	})
}

// equal compares public keys.
func equal(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
