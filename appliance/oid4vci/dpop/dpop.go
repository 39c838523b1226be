// Package dpop checks proofs that a sender holds a key (RFC 9449): at the token
// endpoint, where the access token becomes bound to the key, and at the
// endpoints that such a token opens.
//
// A proof is used once. Its jti is consumed last, after everything else holds,
// and remembered apart for the token endpoint and for the others, in bounded
// memory. Anybody can make proofs for the token endpoint, 90 µs of our time each,
// so that memory forgets its older half when it is full: refusing instead would
// let a thousand requests a second keep every wallet out, and whoever floods it
// to show a captured proof again gets nothing, as codes are single-use and the
// token is bound to a key that he lacks. Behind the token endpoint a proof shown
// again could fetch somebody's credential: there, when no more can be
// remembered, requests are answered 503; and only who has a token that is bound
// to his key gets anything remembered.
package dpop

import (
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/replay"
	"chancery/issuance"
	"chancery/issuance/jws"
)

// Error codes (RFC 9449 §12.2, RFC 6750 §3.1).
const (
	InvalidProof = "invalid_dpop_proof"
	UseNonce     = "use_dpop_nonce"
	InvalidToken = "invalid_token"
)

// Bounds of a proof, in bytes.
const (
	maxProof = 8 << 10
	maxJTI   = 1024
)

// clockStep is how far the clock may be set back without a proof passing twice.
const clockStep = 10 * time.Second

// Options configure a [Checker].
type Options struct {
	// Window is how far a proof's iat may be from now, either way. Default 60 s.
	Window time.Duration
	// Algorithms are accepted. Default ES256, ES384, ES512, EdDSA.
	Algorithms []issuance.Algorithm
	// Nonces demands a nonce of the server's in every proof (RFC 9449 §8, §9).
	Nonces bool
	// NonceLifetime is how long a nonce is accepted. Default 5 min.
	NonceLifetime time.Duration
	// Challenges are attestation challenges. A wallet whose DPoP proof is also
	// its proof of possession puts one in place of the nonce (ABCA -10 §5.2), so
	// at the token endpoint they are nonces too. Nil for none.
	Challenges *challenge.Source
	// MaxEntries bounds the proofs remembered, each for the token endpoint and
	// for the others, about 40 bytes each. Default 524288: 1800 requests a second
	// with such tokens.
	MaxEntries int
	// Now is the clock; nil for time.Now.
	Now func() time.Time
}

// Checker checks proofs. Any number of goroutines may use it.
type Checker struct {
	options Options
	algs    string // as a challenge lists them
	// nonces and seen are of the token endpoint [0] and of the others [1]: an
	// authorization server's nonces are none of a resource server's (RFC 9449 §9).
	nonces [2]*challenge.Source
	seen   [2]*replay.Cache
}

// New returns a Checker.
func New(o Options) *Checker {
	if o.Window <= 0 {
		o.Window = time.Minute
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA}
	}
	if o.NonceLifetime <= 0 {
		o.NonceLifetime = 5 * time.Minute
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 1 << 19
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Checker{options: o}
	names := make([]string, len(o.Algorithms))
	for n, algorithm := range o.Algorithms {
		names[n] = string(algorithm)
	}
	c.algs = strings.Join(names, " ")
	for n := range c.nonces {
		c.nonces[n] = challenge.New(o.NonceLifetime)
	}
	// A proof from the far end of the window is good for two windows.
	lifetime := 2*o.Window + clockStep
	c.seen = [2]*replay.Cache{replay.NewForgetful(lifetime, o.MaxEntries), replay.New(lifetime, o.MaxEntries)}
	return c
}

// Request is what a proof is checked against.
type Request struct {
	// Values are the request's DPoP headers.
	Values []string
	// Method and URL are the request's method and the endpoint's external URL as
	// the metadata has it; what the request's own line says does not count.
	Method, URL string
	// Resource is false at the token endpoint.
	Resource bool
	// AccessToken is the token that came with the request, Bound the thumbprint
	// that it is bound to; at the token endpoint "" and nil.
	AccessToken string
	Bound       *[32]byte
}

// Proof is a proof that holds.
type Proof struct {
	// Thumbprint is the key's RFC 7638 thumbprint with SHA-256: the token's jkt.
	Thumbprint [32]byte
	// Key signed the proof.
	Key crypto.PublicKey
	// Nonce is the proof's nonce claim, "" when it has none.
	Nonce string
	// Fresh tells that Nonce was demanded and is the server's.
	Fresh bool
}

// Check checks a request's proof (RFC 9449 §4.3); nil when there is none. Errors
// are refusals with status 400 at the token endpoint and 401 with a challenge
// at the others, where it is 503 when no more proofs can be remembered.
func (c *Checker) Check(r Request) (*Proof, error) {
	if len(r.Values) == 0 {
		return nil, nil
	}
	if len(r.Values) > 1 {
		return nil, c.invalid(r, "DPoP", "there must be one DPoP header", "RFC 9449 §4.3 (1)")
	}
	now := c.options.Now()
	t, err := jwt.Parse(r.Values[0], maxProof)
	if err != nil {
		return nil, c.invalid(r, "DPoP", "the proof is not readable: "+err.Error(), "RFC 9449 §4.3 (2)")
	}
	proof, err := c.header(r, t)
	if err != nil {
		return nil, err
	}
	if err := c.claims(r, t, now); err != nil {
		return nil, err
	}
	if r.Bound != nil && subtle.ConstantTimeCompare(proof.Thumbprint[:], r.Bound[:]) != 1 {
		return nil, c.refuse(r, InvalidToken, "DPoP header jwk", "the access token is bound to another key", "RFC 9449 §7.1")
	}
	if c.options.Nonces && !c.fresh(r.Resource, t, now) {
		return nil, c.refuse(r, UseNonce, "DPoP nonce", "the proof needs a nonce of the server", "RFC 9449 §8, §9, §11.3")
	}
	proof.Nonce, proof.Fresh = t.String("nonce"), c.options.Nonces
	key := replay.NewKey(r.URL, string(proof.Thumbprint[:]), t.String("jti"))
	switch err := c.seen[index(r.Resource)].Add(key, now); {
	case errors.Is(err, replay.ErrSeen):
		return nil, c.invalid(r, "DPoP jti", "the proof was used before", "RFC 9449 §11.1")
	case err != nil:
		e := refusal.New("temporarily_unavailable", "DPoP", "too many proofs: try again later", "RFC 9449 §11.1").With(http.StatusServiceUnavailable)
		e.RetryAfter = max(1, int(c.options.Window/time.Second))
		return nil, e
	}
	return proof, nil
}

// header checks the JOSE header and the signature (RFC 9449 §4.3 (4) to (7)).
func (c *Checker) header(r Request, t *jwt.Token) (*Proof, error) {
	if t.Header["typ"] != "dpop+jwt" {
		return nil, c.invalid(r, "DPoP header typ", "typ must be dpop+jwt", "RFC 9449 §4.2, §4.3 (4)")
	}
	if _, err := t.Algorithm(c.options.Algorithms); err != nil {
		return nil, c.invalid(r, "DPoP header alg", "alg must be one of "+c.algs, "RFC 9449 §4.3 (5)")
	}
	key, err := jwt.PublicKey(t.Header["jwk"])
	if err != nil {
		return nil, c.invalid(r, "DPoP header jwk", "jwk must be a valid public key without private members", "RFC 9449 §4.2, §4.3 (7)")
	}
	if !t.Verify(key) {
		return nil, c.invalid(r, "DPoP signature", "the signature does not verify with jwk", "RFC 9449 §4.3 (6)")
	}
	canonical, err := jws.PublicJWK(key)
	if err != nil {
		return nil, err
	}
	return &Proof{Thumbprint: sha256.Sum256(canonical), Key: key}, nil
}

// claims checks what the proof says about the request (RFC 9449 §4.3 (3), (8) to (12)).
func (c *Checker) claims(r Request, t *jwt.Token, now time.Time) error {
	if jti := t.String("jti"); jti == "" || len(jti) > maxJTI {
		return c.invalid(r, "DPoP jti", "jti must be a string of 1 to 1024 bytes", "RFC 9449 §4.2, §11.1")
	}
	if t.Claims["htm"] != r.Method {
		return c.invalid(r, "DPoP htm", "htm is not the method of the request", "RFC 9449 §4.3 (8)")
	}
	if !same(t.String("htu"), r.URL) {
		return c.invalid(r, "DPoP htu", "htu is not the URL of this endpoint", "RFC 9449 §4.3 (9)")
	}
	issued, ok := jwt.Date(t.Claims["iat"])
	if !ok || issued.Before(now.Add(-c.options.Window)) || issued.After(now.Add(c.options.Window)) {
		return c.invalid(r, "DPoP iat", "iat must be the time of the request", "RFC 9449 §4.3 (11), §11.1")
	}
	if r.Resource {
		sum := sha256.Sum256([]byte(r.AccessToken))
		want := base64.RawURLEncoding.EncodeToString(sum[:])
		if subtle.ConstantTimeCompare([]byte(t.String("ath")), []byte(want)) != 1 {
			return c.invalid(r, "DPoP ath", "ath must be the hash of the access token", "RFC 9449 §4.3 (12)")
		}
	}
	return nil
}

// same compares URLs after normalisation; most are the same letter for letter.
func same(htu, endpoint string) bool {
	if htu == endpoint && htu != "" {
		return true
	}
	a, ok := normal(htu)
	b, valid := normal(endpoint)
	return ok && valid && a == b
}

// fresh tells whether the proof's nonce is one of this endpoint's.
func (c *Checker) fresh(resource bool, t *jwt.Token, now time.Time) bool {
	nonce := t.String("nonce")
	if _, ok := c.nonces[index(resource)].Check(nonce, now); ok {
		return true
	}
	if resource || c.options.Challenges == nil {
		return false
	}
	_, ok := c.options.Challenges.Check(nonce, now)
	return ok
}

func index(resource bool) int {
	if resource {
		return 1
	}
	return 0
}

// Nonce returns a value for a response's DPoP-Nonce header, which may go with
// any response (RFC 9449 §8.2); "" when nonces are off. A nonce for the
// token endpoint is none for the others.
func (c *Checker) Nonce(resource bool) string {
	if !c.options.Nonces {
		return ""
	}
	return c.nonces[index(resource)].Make(c.options.Now())
}

// Challenge returns a WWW-Authenticate value for a request without a token
// (RFC 9449 §7.1).
func (c *Checker) Challenge() string { return `DPoP algs="` + c.algs + `"` }

// Algorithms returns what AS metadata lists in
// dpop_signing_alg_values_supported (RFC 9449 §5.1).
func (c *Checker) Algorithms() []string { return strings.Fields(c.algs) }

// Missing is the refusal of a request that must have a proof and has none.
func (c *Checker) Missing(resource bool) *refusal.Refusal {
	return c.invalid(Request{Resource: resource}, "DPoP", "the request needs a DPoP proof", "RFC 9449 §5, §7.1; HAIP 1.0 §4")
}

// NotBearer is the refusal of a bound token that came with the Bearer scheme
// (RFC 9449 §7.2).
func (c *Checker) NotBearer() *refusal.Refusal {
	return c.refuse(Request{Resource: true}, InvalidToken, "Authorization", "the access token is bound to a key: use the DPoP scheme", "RFC 9449 §7.2")
}

func (c *Checker) invalid(r Request, member, description, section string) *refusal.Refusal {
	return c.refuse(r, InvalidProof, member, description, section)
}

// refuse adds what RFC 9449 wants beside the code: a challenge at protected
// endpoints (§7.1), and a nonce wherever nonces are on, so that the next try has one.
func (c *Checker) refuse(r Request, code, member, description, section string) *refusal.Refusal {
	e := refusal.New(code, member, description, section)
	if r.Resource {
		e.Status = http.StatusUnauthorized
		e.Challenge = `DPoP error="` + code + `", error_description="` + description + `", algs="` + c.algs + `"`
	}
	if nonce := c.Nonce(r.Resource); nonce != "" {
		e.Header = map[string]string{"DPoP-Nonce": nonce}
	}
	return e
}
