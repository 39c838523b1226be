package encryption

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
	"chancery/issuance/jws"
)

// Limits in bytes.
const (
	// MaxRequest bounds an encrypted request as it is sent.
	MaxRequest = 256 << 10
	// MaxPlaintext bounds what a request may decrypt and inflate to.
	MaxPlaintext = 256 << 10
	// maxCompressed bounds a compressed ciphertext. go-jose stops inflating at
	// ten times the ciphertext, so no request makes it produce more than 640 KiB.
	maxCompressed = 64 << 10
	maxHeader     = 4 << 10 // the protected header, decoded
	maxPartyInfo  = 256     // apu and apv, decoded
	maxWrappedKey = 64 + 8  // the longest content key, wrapped
)

// contentSizes are the sizes of initialization vector and tag (RFC 7518 §5).
var contentSizes = map[jose.ContentEncryption]struct{ iv, tag int }{
	jose.A128GCM: {12, 16}, jose.A256GCM: {12, 16}, jose.A128CBC_HS256: {16, 16}, jose.A256CBC_HS512: {16, 32},
}

// Decrypt returns the plaintext of an encrypted request: the body of a request
// with the media type application/jwt. Every fault of the request is a
// [*refusal.Refusal] with invalid_encryption_parameters; what has to do with
// keys and plaintext all reads the same. While there are no keys it is a 503.
// OpenID4VCI 1.0 §10.
func (e *Encryption) Decrypt(body []byte) ([]byte, error) {
	keys := e.keys.Load()
	switch {
	case e.options.Request == Off:
		return nil, refuse("Content-Type", "encrypted requests are not supported", "OpenID4VCI 1.0 §10")
	case len(keys.byID) == 0:
		return nil, away()
	case len(body) > MaxRequest:
		return nil, refuse("request", "the encrypted request is too long", "OpenID4VCI 1.0 §10")
	}
	parts := bytes.SplitN(body, []byte("."), 6)
	if len(parts) != 5 {
		return nil, refuse("request", "the request must be a JWE in compact serialization", "RFC 7516 §7.1")
	}
	var decoded [5][]byte
	for n, part := range parts {
		var err error
		if decoded[n], err = jws.Base64URL(string(part)); err != nil {
			return nil, refuse("request", "the parts of the JWE must be base64url without padding", "RFC 7516 §7.1")
		}
	}
	h, r := e.readHeader(decoded[0], keys)
	if r == nil {
		r = h.checkParts(decoded)
	}
	if r != nil {
		return nil, r
	}
	object, err := jose.ParseEncryptedCompact(string(body), []jose.KeyAlgorithm{h.key.algorithm}, []jose.ContentEncryption{h.enc})
	if err != nil {
		return nil, undecryptable()
	}
	plaintext, err := object.Decrypt(h.key.private)
	if err != nil || len(plaintext) > MaxPlaintext {
		return nil, undecryptable()
	}
	return plaintext, nil
}

// undecryptable is one answer for whatever fails once the key is used, so that
// nobody learns anything about a message that is not his.
func undecryptable() *refusal.Refusal {
	return refuse("request", "the request cannot be decrypted", "OpenID4VCI 1.0 §10")
}

// header is what a protected header says that passed.
type header struct {
	key  *key
	enc  jose.ContentEncryption
	zips bool
}

// readHeader checks the protected header (RFC 7516 §4.1, RFC 7518 §4.6.1)
// before go-jose sees the message.
func (e *Encryption) readHeader(data []byte, keys *keyset) (*header, *refusal.Refusal) {
	if len(data) > maxHeader {
		return nil, refuse("JWE header", "the JWE header is too long", "RFC 7516 §4")
	}
	members, err := jws.Object(data)
	if err != nil {
		return nil, refuse("JWE header", "the JWE header must be one JSON object without a member twice", "RFC 7516 §4")
	}
	if _, has := members["crit"]; has {
		return nil, refuse("JWE header crit", "critical header parameters are not supported", "RFC 7516 §4.1.13")
	}
	kid, _ := members["kid"].(string)
	h := &header{key: keys.find(kid, e.now())}
	if h.key == nil {
		return nil, refuse("JWE header kid", "kid is not one of the keys in the metadata: fetch the metadata again", "OpenID4VCI 1.0 §10")
	}
	if members["alg"] != string(h.key.algorithm) {
		return nil, refuse("JWE header alg", "alg must be the alg of the key that kid names", "OpenID4VCI 1.0 §10")
	}
	enc, _ := members["enc"].(string)
	if h.enc = jose.ContentEncryption(enc); !slices.Contains(contentAlgorithms, h.enc) {
		return nil, refuse("JWE header enc", "enc is not one of enc_values_supported in the metadata", "OpenID4VCI 1.0 §12.2.4")
	}
	zip, zips := members["zip"]
	if zips && (!e.options.Zip || zip != string(jose.DEFLATE)) {
		return nil, refuse("JWE header zip", "zip is not one of zip_values_supported in the metadata", "OpenID4VCI 1.0 §12.2.4")
	}
	h.zips = zips
	epk, err := publicKey(members["epk"])
	if err != nil || epk.Curve != h.key.private.Curve {
		return nil, refuse("JWE header epk", "epk must be a public key on the curve of the key that kid names", "RFC 7518 §4.6.1.1")
	}
	for _, name := range []string{"apu", "apv"} {
		if value, has := members[name]; has && !partyInfo(value) {
			return nil, refuse("JWE header "+name, name+" must be a short text in base64url", "RFC 7518 §4.6.1.2")
		}
	}
	return h, nil
}

// partyInfo tells whether an apu or apv is well formed.
func partyInfo(value any) bool {
	text, ok := value.(string)
	if !ok {
		return false
	}
	data, err := jws.Base64URL(text)
	return err == nil && len(data) <= maxPartyInfo
}

// checkParts checks the sizes of what follows the header. Where the key is
// agreed on directly there is no encrypted key (RFC 7516 §5.2 step 10).
func (h *header) checkParts(parts [5][]byte) *refusal.Refusal {
	wrapped, iv, ciphertext, tag := parts[1], parts[2], parts[3], parts[4]
	size := contentSizes[h.enc]
	direct := h.key.algorithm == jose.ECDH_ES
	switch {
	case direct != (len(wrapped) == 0) || len(wrapped) > maxWrappedKey:
		return refuse("JWE encrypted key", "the JWE's encrypted key does not fit its alg", "RFC 7516 §5.2")
	case len(iv) != size.iv || len(tag) != size.tag:
		return refuse("JWE", "the JWE's initialization vector or tag does not fit its enc", "RFC 7518 §5")
	case h.zips && len(ciphertext) > maxCompressed:
		return refuse("JWE ciphertext", "the compressed request is too long: send it uncompressed", "OpenID4VCI 1.0 §10")
	}
	return nil
}

// publicKey reads a JWK that must be a public EC key, on its curve.
func publicKey(value any) (*ecdsa.PublicKey, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return nil, errKey
	}
	data, err := json.Marshal(members)
	if err != nil {
		return nil, errKey
	}
	public, err := jws.ParsePublicJWK(data)
	if err != nil {
		return nil, errKey
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, errKey
	}
	return key, nil
}
