package wallet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/mr-tron/base58"
)

// proofType is a jwt proof's typ (OpenID4VCI 1.0 App. F.1).
const proofType = "openid4vci-proof+jwt"

// newKey makes a fresh key that the issuer takes proofs of.
func (w *Wallet) newKey(c Configuration) (crypto.Signer, error) {
	algorithm := w.algorithm()
	if !slices.Contains(c.ProofAlgorithms, algorithm) {
		return nil, fmt.Errorf("the issuer takes no jwt proof without key attestation that is signed %s: it takes [%s]", algorithm, strings.Join(c.ProofAlgorithms, ", "))
	}
	switch algorithm {
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("the wallet cannot sign %s: use ES256, ES384 or EdDSA", algorithm)
}

func (w *Wallet) algorithm() string {
	if w.Algorithm == "" {
		return "ES256"
	}
	return w.Algorithm
}

// proof makes a jwt key proof. An anonymous wallet leaves out iss.
func (w *Wallet) proof(c Configuration, key crypto.Signer, issuer, nonce string) (string, error) {
	binding, err := w.binding(c)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType(proofType)
	signing := jose.SigningKey{Algorithm: jose.SignatureAlgorithm(w.algorithm()), Key: key}
	switch binding {
	case JWK:
		options.EmbedJWK = true
	default:
		id, err := didURL(binding, key.Public())
		if err != nil {
			return "", err
		}
		signing.Key = jose.JSONWebKey{Key: key, KeyID: id}
	}
	signer, err := jose.NewSigner(signing, options)
	if err != nil {
		return "", err
	}
	claims := map[string]any{"aud": issuer, "iat": w.now().Unix(), "nonce": nonce}
	if w.ClientID != "" {
		claims["iss"] = w.ClientID
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// didURL names a public key as a DID URL of the method.
func didURL(method Binding, public crypto.PublicKey) (string, error) {
	switch method {
	case DIDJWK:
		data, err := (&jose.JSONWebKey{Key: public}).MarshalJSON()
		if err != nil {
			return "", err
		}
		return "did:jwk:" + base64.RawURLEncoding.EncodeToString(data) + "#0", nil
	case DIDKey:
		multibase, err := multikey(public)
		return "did:key:" + multibase + "#" + multibase, err
	}
	return "", fmt.Errorf("%q is no DID method of this wallet: use did:jwk or did:key", method)
}

// multikey encodes a public key as did:key does: multicodec, then the
// compressed point or the Ed25519 key, in base58btc.
func multikey(public crypto.PublicKey) (string, error) {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return "z" + base58.Encode(slices.Concat([]byte{0xed, 0x01}, key)), nil
	case *ecdsa.PublicKey:
		prefix := map[elliptic.Curve][]byte{elliptic.P256(): {0x80, 0x24}, elliptic.P384(): {0x81, 0x24}}[key.Curve]
		point, err := key.Bytes()
		if err != nil || prefix == nil {
			return "", errors.New("no did:key for this curve")
		}
		half := len(point) / 2
		sign := byte(2) | byte(new(big.Int).SetBytes(point[half+1:]).Bit(0))
		return "z" + base58.Encode(slices.Concat(prefix, []byte{sign}, point[1:half+1])), nil
	}
	return "", errors.New("no did:key for this kind of key")
}

// PrivateJWK returns a credential's key for keeping (RFC 7517), indented.
func PrivateJWK(key crypto.Signer) ([]byte, error) {
	return json.MarshalIndent(jose.JSONWebKey{Key: key}, "", "  ")
}
