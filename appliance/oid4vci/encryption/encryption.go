// Package encryption is OpenID4VCI 1.0 §10: encrypted credential and deferred
// requests, encrypted answers to them, and the keys that requests are encrypted
// to. The messages are JWEs in compact form; go-jose does their cryptography,
// after this package has read the header strictly.
//
// Wallets encrypt requests to the keys in the metadata: one P-256 key for each
// key management algorithm, as a JWK has one alg and a JWE's alg must be its
// key's. ECDH-ES comes first, for wallets that take the first key they see.
// Only the keys in force are published; one that was replaced still decrypts
// for the overlap, which must be longer than metadata is cached.
//
// Errors are never encrypted (§8.3.1.2); writing them is the handler's work.
package encryption

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
)

// Policy says whether a message is encrypted.
type Policy string

// The policies.
const (
	// Off: encryption is neither advertised nor taken.
	Off Policy = "off"
	// Optional: the wallet chooses.
	Optional Policy = "optional"
	// Required: what is not encrypted is refused.
	Required Policy = "required"
)

func (p Policy) known() bool { return p == Off || p == Optional || p == Required }

// keyAlgorithms are the key management algorithms of requests and answers, in
// the order in which they are advertised.
var keyAlgorithms = []jose.KeyAlgorithm{jose.ECDH_ES, jose.ECDH_ES_A128KW, jose.ECDH_ES_A256KW}

// contentAlgorithms are the content encryption algorithms of requests and
// answers, in the order in which they are advertised.
var contentAlgorithms = []jose.ContentEncryption{jose.A128GCM, jose.A256GCM, jose.A128CBC_HS256, jose.A256CBC_HS512}

// Options are what encryption is made of.
type Options struct {
	// Request is the policy for requests, Response for answers. Where answers may
	// be encrypted requests must be allowed to be: a wallet that asks for an
	// encrypted answer has to encrypt the request for it (OpenID4VCI 1.0 §8.2).
	Request, Response Policy
	// Zip takes and makes compressed messages (zip "DEF").
	Zip bool
	// Drafts tolerates what wallets of drafts up to 15 do: they ask for an
	// encrypted answer in a plain request, and have alg beside the jwk.
	Drafts bool
	// Rotation is how long a key is published. Overlap is how long it still
	// decrypts after its successor was made.
	Rotation, Overlap time.Duration
	// Store keeps the keys; not needed where Request is [Off].
	Store KeyStore
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log is told when keys cannot be loaded or made, and when they can again; nil is allowed.
	Log *slog.Logger
}

// Encryption decrypts requests and encrypts answers. It is safe for concurrent use.
type Encryption struct {
	options Options
	log     *slog.Logger
	now     func() time.Time

	refreshing sync.Mutex // one Refresh at a time; guards failing
	failing    bool       // the last Refresh failed
	// keys changes as a whole; never nil.
	keys atomic.Pointer[keyset]
}

// New checks the options. It loads no keys: until the first [Encryption.Refresh]
// that finds or makes some, nothing is advertised and what needs them is
// answered with 503.
func New(o Options) (*Encryption, error) {
	switch {
	case !o.Request.known() || !o.Response.known():
		return nil, fmt.Errorf("encryption: the policies are %q for requests and %q for answers: each must be off, optional or required", o.Request, o.Response)
	case o.Request == Off && o.Response != Off:
		return nil, errors.New("encryption: answers cannot be encrypted while requests are off: make requests optional or required")
	case o.Request != Off && (o.Rotation <= 0 || o.Overlap <= 0):
		return nil, errors.New("encryption: rotation and overlap must be positive")
	case o.Request != Off && o.Store == nil:
		return nil, errors.New("encryption: there is no store for the keys")
	}
	e := &Encryption{options: o, log: o.Log, now: o.Now}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	e.keys.Store(&keyset{})
	return e, nil
}

// Metadata returns the values of credential_request_encryption and
// credential_response_encryption (OpenID4VCI 1.0 §12.2.4). A nil one is not to
// be published. Both are nil while there are no keys.
func (e *Encryption) Metadata() (request, response map[string]any) {
	keys := e.keys.Load()
	if len(keys.published) == 0 {
		return nil, nil
	}
	jwks := make([]any, len(keys.published))
	for n, k := range keys.published {
		jwks[n] = k.public
	}
	request = map[string]any{
		"jwks":                 map[string]any{"keys": jwks},
		"enc_values_supported": contentAlgorithms,
		"encryption_required":  e.options.Request == Required,
	}
	if e.options.Response != Off {
		response = map[string]any{
			"alg_values_supported": keyAlgorithms,
			"enc_values_supported": contentAlgorithms,
			"encryption_required":  e.options.Response == Required,
		}
	}
	if e.options.Zip {
		for _, m := range []map[string]any{request, response} {
			if m != nil {
				m["zip_values_supported"] = []jose.CompressionAlgorithm{jose.DEFLATE}
			}
		}
	}
	return request, response
}

// Version grows whenever [Encryption.Metadata] changes. It is 0 before there are keys.
func (e *Encryption) Version() uint64 { return e.keys.Load().version }

// Require refuses a request that is less encrypted than the policies want:
// encrypted tells whether it was, response is what it asked for, nil for a
// plain answer (OpenID4VCI 1.0 §8.2, §8.3.1.2, §9.1). The error is a
// [*refusal.Refusal].
func (e *Encryption) Require(encrypted bool, response *Recipient) error {
	var r *refusal.Refusal
	switch {
	case !encrypted && e.options.Request == Required:
		r = refuse("Content-Type", "requests must be encrypted: see credential_request_encryption in the metadata", "OpenID4VCI 1.0 §10")
	case response == nil && e.options.Response == Required:
		r = refuse("credential_response_encryption", "credential_response_encryption is missing: see the metadata", "OpenID4VCI 1.0 §8.3.1.2")
	case response != nil && !encrypted && !e.options.Drafts:
		r = refuse("credential_response_encryption", "a request with credential_response_encryption must be encrypted", "OpenID4VCI 1.0 §8.2")
	default:
		return nil
	}
	if len(e.keys.Load().published) == 0 {
		return away() // the wallet cannot know, as nothing was advertised
	}
	return r
}

func refuse(member, description, section string) *refusal.Refusal {
	return refusal.New("invalid_encryption_parameters", member, description, section)
}

// away is the answer while there are no keys: the token has not opened them yet.
func away() *refusal.Refusal {
	r := refusal.New("temporarily_unavailable", "", "encryption is not possible now: try again later", "").With(http.StatusServiceUnavailable)
	r.RetryAfter = 5
	return r
}
