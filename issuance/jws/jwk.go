package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
)

// publicJWK holds the members that a JWK's thumbprint is made of, in their
// order (RFC 7638 §3.2, RFC 8037 §2). Coordinates keep their leading zeros.
type publicJWK struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y,omitempty"`
}

// PublicJWK returns a public key as a JWK with nothing but its key members, in
// the order of their names, without spaces. It refuses keys that
// [issuance.AlgorithmFor] does not know and points that are on no curve.
func PublicJWK(public crypto.PublicKey) (json.RawMessage, error) {
	if _, err := issuance.AlgorithmFor(public); err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			return nil, fmt.Errorf("JWK: %w", err)
		}
		n := 1 + len(point)/2
		return json.Marshal(publicJWK{key.Curve.Params().Name, "EC", b64.EncodeToString(point[1:n]), b64.EncodeToString(point[n:])})
	case ed25519.PublicKey:
		return json.Marshal(publicJWK{Crv: "Ed25519", Kty: "OKP", X: b64.EncodeToString(key)})
	}
	return nil, fmt.Errorf("JWK: a %T has no form here", public)
}

// ParsePublicJWK reads a JWK that must be public, valid and of a kind that the
// appliance knows; alg, use and kid may stand in it and are ignored.
func ParsePublicJWK(data []byte) (crypto.PublicKey, error) {
	object, err := Object(data)
	if err != nil {
		return nil, fmt.Errorf("JWK: %w", err)
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, has := object[private]; has {
			return nil, errors.New("JWK: it holds a private key")
		}
	}
	var key jose.JSONWebKey
	if err := key.UnmarshalJSON(data); err != nil || !key.Valid() || !key.IsPublic() {
		return nil, errors.New("JWK: not a valid public key")
	}
	if _, err := issuance.AlgorithmFor(key.Key); err != nil {
		return nil, fmt.Errorf("JWK: %w", err)
	}
	return key.Key, nil
}

// Thumbprint returns a key's RFC 7638 thumbprint, SHA-256, base64url.
func Thumbprint(public crypto.PublicKey) (string, error) {
	jwk, err := PublicJWK(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(jwk)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// Confirmation returns the cnf claim for a holder's key (RFC 7800 §3.2).
func Confirmation(holder crypto.PublicKey) (map[string]any, error) {
	jwk, err := PublicJWK(holder)
	if err != nil {
		return nil, fmt.Errorf("the holder's key: %w", err)
	}
	return map[string]any{"jwk": jwk}, nil
}

// CheckConfirmation refuses a cnf claim that is not what [Confirmation] makes:
// one public key with its key members alone, so that nothing private and
// nothing that recognises the holder elsewhere is signed. No cnf is no fault.
func CheckConfirmation(claims map[string]any) error {
	cnf, has := claims["cnf"]
	if !has {
		return nil
	}
	members, _ := cnf.(map[string]any)
	jwk, isObject := members["jwk"].(map[string]any)
	if len(members) != 1 || !isObject {
		return errors.New("cnf must hold a jwk and nothing else")
	}
	data, err := json.Marshal(jwk)
	if err != nil {
		return fmt.Errorf("cnf: %w", err)
	}
	key, err := ParsePublicJWK(data)
	if err != nil {
		return fmt.Errorf("cnf: %w", err)
	}
	if again, err := PublicJWK(key); err != nil || string(again) != string(data) {
		return errors.New("cnf: the JWK must hold kty, crv, x and y alone")
	}
	return nil
}
