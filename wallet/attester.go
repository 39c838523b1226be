package wallet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// DefaultClientID is the client_id that an attested wallet has unless it is
// told another; all instances of the wallet share it.
const DefaultClientID = "chancery-demonstration-wallet"

// attesterLifetime is how long a demonstration attester's certificates last.
const attesterLifetime = 365 * 24 * time.Hour

// Attester is a demonstration wallet provider: it attests the wallet (ABCA) and
// where the wallet's keys are kept (OpenID4VCI 1.0 App. D). Its keys are in
// files, so nothing it says deserves trust outside demonstrations and tests.
type Attester struct {
	// Anchor is the CA certificate that issuers are told to trust; nil in an
	// attester that was read from files.
	Anchor *x509.Certificate
	// Certificate is the attester's, under Anchor; it goes into x5c.
	Certificate *x509.Certificate
	// Key is the private key to Certificate.
	Key crypto.Signer
}

// NewAttester makes a CA, whose key it forgets, and an attester under it.
func NewAttester(name string, now time.Time) (*Attester, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: name + " CA"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature}
	a := &Attester{Key: key}
	if a.Anchor, err = certify(root, root, rootKey.Public(), rootKey, now); err != nil {
		return nil, err
	}
	a.Certificate, err = certify(leaf, a.Anchor, key.Public(), rootKey, now)
	return a, err
}

func certify(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer, now time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	template.NotBefore, template.NotAfter = now.Add(-time.Minute), now.Add(attesterLifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Encode returns anchor, certificate and private key as PEM.
func (a *Attester) Encode() (anchor, certificate, key []byte, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		return nil, nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Anchor.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseAttester reads certificate and private key from PEM and checks that they
// belong together.
func ParseAttester(certificate, key []byte) (*Attester, error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the attester's certificate is not PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if block, _ = pem.Decode(key); block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the attester's key is not PKCS #8 in PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the attester's key is not PKCS #8")
	}
	signer, ok := private.(*ecdsa.PrivateKey)
	if !ok || !signer.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("the attester's key is no EC key or not the certificate's")
	}
	if selfSigned(c) {
		return nil, errors.New("the attester's certificate is self-signed, which issuers refuse (HAIP 1.0 §4.5.1)")
	}
	a := &Attester{Certificate: c, Key: signer}
	_, err = algorithmOf(signer)
	return a, err
}

// algorithm is the attester's JWS algorithm.
func (a *Attester) algorithm() string {
	algorithm, err := algorithmOf(a.Key)
	if err != nil {
		return ""
	}
	return algorithm
}

// attestWallet makes a wallet attestation for an instance key (OpenID4VCI 1.0
// App. E, ABCA-07 §5.1).
func (a *Attester) attestWallet(clientID string, instance crypto.Signer, draft Draft, now time.Time) (string, error) {
	claims := map[string]any{"sub": clientID, "iat": now.Unix(), "exp": now.Add(attestationLifetime).Unix(),
		"cnf": map[string]any{"jwk": publicJWK(instance)}, "wallet_name": "Chancery demonstration wallet"}
	if draft == Draft07 {
		claims["iss"] = a.Certificate.Subject.CommonName
	}
	return a.sign("oauth-client-attestation+jwt", claims)
}

// attestKeys makes a key attestation for the keys of one request (OpenID4VCI
// 1.0 App. D.1). nonce may be empty.
func (a *Attester) attestKeys(keys []crypto.Signer, storage, authentication []string, nonce string, now time.Time) (string, error) {
	var attested []jose.JSONWebKey
	for _, key := range keys {
		attested = append(attested, publicJWK(key))
	}
	claims := map[string]any{"iat": now.Unix(), "exp": now.Add(attestationLifetime).Unix(), "attested_keys": attested}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if len(storage) > 0 {
		claims["key_storage"] = storage
	}
	if len(authentication) > 0 {
		claims["user_authentication"] = authentication
	}
	return a.sign("key-attestation+jwt", claims)
}

// sign makes an attestation of a type with the attester's certificate in it.
func (a *Attester) sign(kind string, claims map[string]any) (string, error) {
	return signJWT(a.Key, kind, map[jose.HeaderKey]any{"x5c": x5c(a.Certificate)}, claims)
}
