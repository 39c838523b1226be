// Package jwt reads the JSON Web Tokens that wallets and those who vouch for
// them send: key proofs, DPoP proofs, client and key attestations. Reading is
// strict: three parts of base64url without padding, each of the first two one
// JSON object without a member twice, no critical headers, no unencoded payload.
// What a token means is its reader's matter.
package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// Token is a compact JWS that was read and not yet verified.
type Token struct {
	// Header and Claims hold nil, bool, string, json.Number, []any and map[string]any.
	Header, Claims map[string]any

	input     []byte
	signature []byte
}

// Errors of [Parse] and [PublicKey]. They show nothing of what was read.
var (
	ErrLong      = errors.New("it is too long")
	ErrCompact   = errors.New("it is not a compact JWS")
	ErrBase64    = errors.New("it is not base64url without padding")
	ErrHeader    = errors.New("its header is not one JSON object")
	ErrClaims    = errors.New("its payload is not one JSON object")
	ErrCritical  = errors.New("its header has crit or b64, which are not supported")
	ErrAlgorithm = errors.New("alg is not one of the supported signature algorithms")
	ErrKey       = errors.New("it is not a valid public key of a supported kind")
	ErrChain     = errors.New("x5c must be an array of 1 to 8 certificates in base64")
)

// Parse reads a compact JWS of at most limit bytes.
func Parse(compact string, limit int) (*Token, error) {
	if len(compact) > limit {
		return nil, ErrLong
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, ErrCompact
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = jws.Base64URL(part); err != nil {
			return nil, ErrBase64
		}
	}
	t := &Token{input: []byte(compact[:len(parts[0])+1+len(parts[1])]), signature: decoded[2]}
	var err error
	if t.Header, err = jws.Object(decoded[0]); err != nil {
		return nil, ErrHeader
	}
	for _, name := range []string{"crit", "b64"} {
		if _, has := t.Header[name]; has {
			return nil, ErrCritical
		}
	}
	if t.Claims, err = jws.Object(decoded[1]); err != nil {
		return nil, ErrClaims
	}
	return t, nil
}

// Algorithm returns the alg header when it is one of allowed, else [ErrAlgorithm].
// "none" and MACs are never allowed, as [issuance.Algorithm] has none.
func (t *Token) Algorithm(allowed []issuance.Algorithm) (issuance.Algorithm, error) {
	name, _ := t.Header["alg"].(string)
	if !slices.Contains(allowed, issuance.Algorithm(name)) {
		return "", ErrAlgorithm
	}
	return issuance.Algorithm(name), nil
}

// String returns a claim that must be a non-empty string, or "".
func (t *Token) String(name string) string {
	value, _ := t.Claims[name].(string)
	return value
}

// Verify tells whether the signature is one over the token by the key, with the
// algorithm that both the alg header and the key say (RFC 7518 §3.4, RFC 8037 §3.1).
func (t *Token) Verify(public crypto.PublicKey) bool {
	algorithm, err := issuance.AlgorithmFor(public)
	if err != nil || t.Header["alg"] != string(algorithm) {
		return false
	}
	return Verify(public, t.input, t.signature)
}

// Verify checks a raw signature with the one algorithm of the key.
func Verify(public crypto.PublicKey, message, signature []byte) bool {
	algorithm, err := issuance.AlgorithmFor(public)
	if err != nil || len(signature) != algorithm.SignatureSize() {
		return false
	}
	switch key := public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		h := algorithm.Hash().New()
		h.Write(message)
		half := len(signature) / 2
		return ecdsa.Verify(key, h.Sum(nil), new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	}
	return false
}

// PublicKey reads a JWK that stands in a header or claim: public, on its curve,
// meant for signatures and, where it names an algorithm, for its key's.
func PublicKey(value any) (crypto.PublicKey, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return nil, ErrKey
	}
	if use, has := members["use"]; has && use != "sig" {
		return nil, ErrKey
	}
	if operations, has := members["key_ops"]; has {
		if list, ok := operations.([]any); !ok || !slices.Contains(list, any("verify")) {
			return nil, ErrKey
		}
	}
	key := plainJWK(members)
	if key == nil {
		data, err := json.Marshal(members)
		if err != nil {
			return nil, ErrKey
		}
		if key, err = jws.ParsePublicJWK(data); err != nil {
			return nil, ErrKey
		}
	}
	algorithm, err := issuance.AlgorithmFor(key)
	if err != nil {
		return nil, ErrKey
	}
	if alg, has := members["alg"]; has && alg != string(algorithm) {
		return nil, ErrKey
	}
	return key, nil
}

// Certificates reads an x5c header (RFC 7515 §4.1.6), leaf first. Whether they
// are a chain and whom it leads to is not judged.
func Certificates(value any) ([]*x509.Certificate, error) {
	list, ok := value.([]any)
	if !ok || len(list) == 0 || len(list) > 8 {
		return nil, ErrChain
	}
	chain := make([]*x509.Certificate, len(list))
	for n, element := range list {
		text, _ := element.(string)
		if text == "" || strings.ContainsAny(text, "\r\n") {
			return nil, ErrChain
		}
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, ErrChain
		}
		if chain[n], err = x509.ParseCertificate(der); err != nil {
			return nil, ErrChain
		}
	}
	return chain, nil
}

// Date reads a NumericDate (RFC 7519 §2), which may have a fraction.
func Date(value any) (time.Time, bool) {
	number, ok := value.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	if seconds, err := number.Int64(); err == nil {
		return time.Unix(seconds, 0), seconds > 0 && seconds < 1<<40
	}
	seconds, err := number.Float64()
	if err != nil || seconds <= 0 || seconds >= 1<<40 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(seconds * 1000)), true
}
