package encryption

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// maxKid bounds the kid that a wallet wants back, in bytes.
const maxKid = 512

var errKey = errors.New("it is not a valid public EC key")

// Recipient is to whom and how an answer is encrypted.
type Recipient struct {
	key  *ecdsa.PublicKey
	alg  jose.KeyAlgorithm
	enc  jose.ContentEncryption
	zips bool
	kid  any // string, or nil for none
}

// ParseResponse reads the member credential_response_encryption of a request
// that has it, from strictly decoded JSON: jwk with alg, enc, and zip where the
// answer is to be compressed. The key may be on P-256, P-384 or P-521. Unknown
// members are ignored. The error is a [*refusal.Refusal] with
// invalid_encryption_parameters. OpenID4VCI 1.0 §8.2, §10.
func (e *Encryption) ParseResponse(value any) (*Recipient, error) {
	const at, section = "credential_response_encryption", "OpenID4VCI 1.0 §8.2"
	if e.options.Response == Off {
		return nil, refuse(at, "encrypted responses are not supported", "OpenID4VCI 1.0 §12.2.4")
	}
	members, ok := value.(map[string]any)
	if !ok {
		return nil, refuse(at, "credential_response_encryption must be an object", section)
	}
	r := &Recipient{}
	enc, _ := members["enc"].(string)
	if r.enc = jose.ContentEncryption(enc); !slices.Contains(contentAlgorithms, r.enc) {
		return nil, refuse(at+".enc", "enc is not one of enc_values_supported in the metadata", section)
	}
	zip, has := members["zip"]
	if has && (!e.options.Zip || zip != string(jose.DEFLATE)) {
		return nil, refuse(at+".zip", "zip is not one of zip_values_supported in the metadata", section)
	}
	r.zips = has
	jwk, _ := members["jwk"].(map[string]any)
	alg, _ := jwk["alg"].(string)
	if outer, has := members["alg"]; has && e.options.Drafts {
		if _, inner := jwk["alg"]; inner && outer != alg {
			return nil, refuse(at+".alg", "alg is another than the alg of the jwk", "OpenID4VCI draft 15 §8.2")
		}
		alg, _ = outer.(string)
	}
	if r.alg = jose.KeyAlgorithm(alg); !slices.Contains(keyAlgorithms, r.alg) {
		return nil, refuse(at+".jwk.alg", "alg of the jwk is not one of alg_values_supported in the metadata", "OpenID4VCI 1.0 §10")
	}
	if use, has := jwk["use"]; has && use != "enc" {
		return nil, refuse(at+".jwk.use", "use of the jwk must be enc", "RFC 7517 §4.2")
	}
	if r.kid, has = jwk["kid"]; has {
		if kid, ok := r.kid.(string); !ok || len(kid) > maxKid {
			return nil, refuse(at+".jwk.kid", "kid of the jwk must be a short text", "RFC 7517 §4.5")
		}
	}
	var err error
	if r.key, err = publicKey(jwk); err != nil {
		return nil, refuse(at+".jwk", "jwk must be a valid public EC key on P-256, P-384 or P-521", "OpenID4VCI 1.0 §10")
	}
	return r, nil
}

// Encrypt returns an answer's JSON as a JWE in compact form, to be sent with
// the media type application/jwt. Its header holds alg, enc, epk, kid if the
// wallet's key has one, and zip if the wallet asked for it (OpenID4VCI 1.0 §10).
func (r *Recipient) Encrypt(plaintext []byte) (string, error) {
	o := &jose.EncrypterOptions{}
	if r.zips {
		o.Compression = jose.DEFLATE
	}
	if r.kid != nil {
		o = o.WithHeader("kid", r.kid)
	}
	encrypter, err := jose.NewEncrypter(r.enc, jose.Recipient{Algorithm: r.alg, Key: r.key}, o)
	if err != nil {
		return "", fmt.Errorf("encrypt the answer: %w", err)
	}
	object, err := encrypter.Encrypt(plaintext)
	if err != nil {
		return "", fmt.Errorf("encrypt the answer: %w", err)
	}
	return object.CompactSerialize()
}
