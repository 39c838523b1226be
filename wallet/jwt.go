package wallet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are the JWS algorithms of the wallet's keys, the preferred first.
var algorithms = []string{"ES256", "ES384", "EdDSA"}

// generateKey makes a fresh key for an algorithm.
func generateKey(algorithm string) (crypto.Signer, error) {
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

// algorithmOf returns the JWS algorithm of a key (RFC 7518 §3.1, RFC 8037 §3.1).
func algorithmOf(key crypto.Signer) (string, error) {
	switch public := key.Public().(type) {
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return "ES256", nil
		case elliptic.P384():
			return "ES384", nil
		}
	case ed25519.PublicKey:
		return "EdDSA", nil
	}
	return "", errors.New("the key is none of P-256, P-384 and Ed25519")
}

// usableKey makes a key of an algorithm that a server's list has.
func usableKey(list []string, what string) (crypto.Signer, error) {
	for _, algorithm := range algorithms {
		if slices.Contains(list, algorithm) {
			return generateKey(algorithm)
		}
	}
	return nil, fmt.Errorf("the wallet has no algorithm of %s: it is [%s]", what, strings.Join(list, ", "))
}

// signJWT makes a compact JWT of a type with further header members.
func signJWT(key crypto.Signer, kind string, header map[jose.HeaderKey]any, claims map[string]any) (string, error) {
	algorithm, err := algorithmOf(key)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(kind))
	for name, value := range header {
		options.WithHeader(name, value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, options)
	if err != nil {
		return "", err
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

// publicJWK is a key's public half.
func publicJWK(key crypto.Signer) jose.JSONWebKey { return jose.JSONWebKey{Key: key.Public()} }

// x5c is a certificate chain as a JWS header has it (RFC 7515 §4.1.6).
func x5c(chain ...*x509.Certificate) []string {
	var list []string
	for _, c := range chain {
		list = append(list, base64.StdEncoding.EncodeToString(c.Raw))
	}
	return list
}

// PrivateJWK returns a credential's key for keeping (RFC 7517), indented.
func PrivateJWK(key crypto.Signer) ([]byte, error) {
	return json.MarshalIndent(jose.JSONWebKey{Key: key}, "", "  ")
}

// ParsePrivateJWK reads a client's private key and its kid, which may be empty.
func ParsePrivateJWK(data []byte) (crypto.Signer, string, error) {
	var key jose.JSONWebKey
	if err := json.Unmarshal(data, &key); err != nil {
		return nil, "", errors.New("this is no JWK")
	}
	signer, err := privateKey(&key)
	if err != nil {
		return nil, "", err
	}
	_, err = algorithmOf(signer)
	return signer, key.KeyID, err
}

// selfSigned says that a certificate is signed by its own key.
func selfSigned(c *x509.Certificate) bool {
	return c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
