package wallet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/mr-tron/base58"
)

// The cryptosuites of di_vp proofs (W3C Data Integrity ECDSA Cryptosuites v1.0
// §3.3, EdDSA Cryptosuites v1.0 §3.3).
const (
	suiteECDSA = "ecdsa-jcs-2019"
	suiteEdDSA = "eddsa-jcs-2022"
)

// presentation makes a di_vp key proof: an empty W3C Verifiable Presentation
// with a Data Integrity proof (OpenID4VCI 1.0 App. F.2).
func presentation(key crypto.Signer, method Binding, issuer, nonce string, now time.Time) (map[string]any, error) {
	id, err := didURL(method, key.Public())
	if err != nil {
		return nil, err
	}
	holder, _, _ := strings.Cut(id, "#")
	suite := suiteECDSA
	if _, ok := key.(ed25519.PrivateKey); ok {
		suite = suiteEdDSA
	}
	vp := map[string]any{"@context": []any{"https://www.w3.org/ns/credentials/v2"}, "type": []any{"VerifiablePresentation"}, "holder": holder}
	proof := map[string]any{"@context": vp["@context"], "type": "DataIntegrityProof", "cryptosuite": suite, "created": now.UTC().Format(time.RFC3339),
		"verificationMethod": id, "proofPurpose": "authentication", "domain": issuer, "challenge": nonce}
	signature, err := integrity(key, vp, proof)
	if err != nil {
		return nil, err
	}
	proof["proofValue"] = "z" + base58.Encode(signature)
	vp["proof"] = proof
	return vp, nil
}

// integrity signs a document with proof options, both canonical (RFC 8785): the
// hash of the options followed by the hash of the document.
func integrity(key crypto.Signer, document, options map[string]any) ([]byte, error) {
	hash, err := integrityHash(key.Public())
	if err != nil {
		return nil, err
	}
	var data []byte
	for _, object := range []map[string]any{options, document} {
		canonical, err := canonicalize(object)
		if err != nil {
			return nil, err
		}
		data = append(data, hash(canonical)...)
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(key, data), nil
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, hash(data))
		if err != nil {
			return nil, err
		}
		size := (key.Params().BitSize + 7) / 8
		return slices.Concat(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))), nil
	}
	return nil, errors.New("no cryptosuite for this kind of key")
}

// integrityHash is the cryptosuites' hash: SHA-384 for P-384, SHA-256 otherwise.
func integrityHash(public crypto.PublicKey) (func([]byte) []byte, error) {
	if key, ok := public.(*ecdsa.PublicKey); ok {
		switch key.Curve {
		case elliptic.P256():
		case elliptic.P384():
			return func(data []byte) []byte { sum := sha512.Sum384(data); return sum[:] }, nil
		default:
			return nil, errors.New("no cryptosuite for this curve")
		}
	}
	return func(data []byte) []byte { sum := sha256.Sum256(data); return sum[:] }, nil
}

// canonicalize writes an object by the JSON Canonicalization Scheme (RFC 8785).
func canonicalize(object map[string]any) ([]byte, error) {
	data, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	value := jsontext.Value(data)
	err = value.Canonicalize()
	return value, err
}
