package oid4vci

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/did"
	"chancery/issuance/jws"
)

// Limits of key proofs.
const (
	maxProof = 16 << 10
	// maxAhead is how far a wallet's clock may be off.
	maxAhead = 60 * time.Second
	// minPast is how old a proof may be at least.
	minPast = 5 * time.Minute
)

// proofType is the typ header of a jwt proof (OpenID4VCI 1.0 App. F.1).
const proofType = "openid4vci-proof+jwt"

// proof is a jwt proof that holds: who signed it has the key.
type proof struct {
	key crypto.PublicKey
	// did is the DID, without fragment, that the key came under; "" for a bare key.
	did   string
	nonce string
}

func badProof(description string) error {
	return refusal.New("invalid_proof", "proofs", description, "OpenID4VCI 1.0 App. F")
}

// proofRules are what a proof is held against.
type proofRules struct {
	audience string
	// methods are the configuration's cryptographic_binding_methods_supported.
	methods []string
	// client is the access token's client_id, or "".
	client string
	// past is how old a proof may be.
	past time.Duration
	now  time.Time
}

// checkProof holds a jwt proof against OpenID4VCI 1.0 App. F.1 and F.4. The
// nonce is returned, not judged.
func checkProof(compact string, rules proofRules) (proof, error) {
	if len(compact) > maxProof {
		return proof{}, badProof("the proof is too long")
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return proof{}, badProof("the proof is not a compact JWS")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = jws.Base64URL(part); err != nil {
			return proof{}, badProof("the proof is not base64url without padding")
		}
	}
	header, err := jws.Object(decoded[0])
	if err != nil {
		return proof{}, badProof("the proof's header is not one JSON object")
	}
	claims, err := jws.Object(decoded[1])
	if err != nil {
		return proof{}, badProof("the proof's payload is not one JSON object")
	}
	p, err := checkHeader(header, rules)
	if err != nil {
		return proof{}, err
	}
	if err := checkClaims(claims, rules, &p); err != nil {
		return proof{}, err
	}
	if !verify(p.key, []byte(compact[:len(parts[0])+1+len(parts[1])]), decoded[2]) {
		return proof{}, badProof("the proof's signature does not verify")
	}
	return p, nil
}

// checkHeader reads typ, alg and the one of jwk, kid and x5c that names the key.
func checkHeader(header map[string]any, rules proofRules) (p proof, err error) {
	if header["typ"] != proofType {
		return p, badProof("typ must be " + proofType)
	}
	for _, name := range []string{"crit", "b64"} {
		if _, has := header[name]; has {
			return p, badProof(name + " is not supported in a proof")
		}
	}
	name, _ := header["alg"].(string)
	algorithm := issuance.Algorithm(name)
	if !slices.Contains(configuration.ProofAlgorithms, algorithm) {
		return p, badProof("alg is not one of the metadata's")
	}
	jwk, hasJWK := header["jwk"]
	kid, hasKID := header["kid"]
	x5c, hasX5C := header["x5c"]
	switch {
	case hasJWK && !hasKID && !hasX5C:
		p.key, err = keyFromJWK(jwk, algorithm, rules)
	case hasKID && !hasJWK && !hasX5C:
		p.key, p.did, err = keyFromDID(kid, rules)
	case hasX5C && !hasJWK && !hasKID:
		p.key, err = keyFromCertificate(x5c)
	default:
		err = badProof("exactly one of jwk, kid and x5c must name the key")
	}
	if err != nil {
		return p, err
	}
	if fits, err := issuance.AlgorithmFor(p.key); err != nil || fits != algorithm {
		return p, badProof("alg does not fit the key")
	}
	return p, nil
}

// keyFromJWK reads a jwk header: public, valid, and meant for this algorithm.
func keyFromJWK(value any, algorithm issuance.Algorithm, rules proofRules) (crypto.PublicKey, error) {
	members, ok := value.(map[string]any)
	if !ok {
		return nil, badProof("jwk is not an object")
	}
	if !slices.Contains(rules.methods, "jwk") && !slices.Contains(rules.methods, "cose_key") {
		return nil, badProof("jwk is not a binding method of this configuration")
	}
	if alg, has := members["alg"]; has && alg != string(algorithm) {
		return nil, badProof("the jwk is for another algorithm")
	}
	if use, has := members["use"]; has && use != "sig" {
		return nil, badProof("the jwk is not for signatures")
	}
	if operations, has := members["key_ops"]; has {
		if list, ok := operations.([]any); !ok || !slices.Contains(list, any("verify")) {
			return nil, badProof("the jwk is not for verifying")
		}
	}
	if key, err := jwt.PublicKey(members); err == nil {
		return key, nil
	}
	data, err := json.Marshal(members)
	if err != nil {
		return nil, badProof("jwk cannot be read")
	}
	key, err := jws.ParsePublicJWK(data)
	if err != nil {
		return nil, badProof("jwk is not a valid public key")
	}
	return key, nil
}

// keyFromDID resolves a kid header, which must be a DID URL of a method that
// the metadata names.
func keyFromDID(value any, rules proofRules) (crypto.PublicKey, string, error) {
	kid, _ := value.(string)
	method := did.Method(kid)
	if method == "" || !slices.Contains(rules.methods, method) {
		return nil, "", badProof("kid must be a DID URL of one of the metadata's methods")
	}
	key, err := did.Resolve(kid)
	if err != nil {
		return nil, "", badProof("kid cannot be resolved: " + err.Error())
	}
	id, _, _ := strings.Cut(kid, "#")
	return key, id, nil
}

// keyFromCertificate reads an x5c header: the first certificate's key is bound.
// The chain is the wallet provider's; it proves nothing here.
func keyFromCertificate(value any) (crypto.PublicKey, error) {
	list, ok := value.([]any)
	if !ok || len(list) == 0 || len(list) > 8 {
		return nil, badProof("x5c must be an array of certificates")
	}
	var leaf *x509.Certificate
	for n, element := range list {
		text, _ := element.(string)
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || text == "" {
			return nil, badProof("x5c must hold certificates in base64")
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, badProof("x5c holds something that is no certificate")
		}
		if n == 0 {
			leaf = certificate
		}
	}
	return leaf.PublicKey, nil
}

// checkClaims reads aud, iat, nonce and iss.
func checkClaims(claims map[string]any, rules proofRules, p *proof) error {
	if claims["aud"] != rules.audience {
		return badProof("aud must be the credential issuer identifier, letter for letter")
	}
	issued, ok := numericDate(claims["iat"])
	switch {
	case !ok:
		return badProof("iat is missing or not a date")
	case issued.After(rules.now.Add(maxAhead)):
		return badProof("iat is in the future")
	case issued.Before(rules.now.Add(-max(rules.past, minPast))):
		return badProof("iat is too long ago")
	}
	if value, has := claims["exp"]; has {
		if expires, ok := numericDate(value); !ok || !rules.now.Before(expires.Add(maxAhead)) {
			return badProof("the proof has expired")
		}
	}
	if value, has := claims["nbf"]; has {
		if from, ok := numericDate(value); !ok || from.After(rules.now.Add(maxAhead)) {
			return badProof("the proof is not valid yet")
		}
	}
	// An anonymous token's proof should have no iss; wallets that send one all
	// the same are let through, as there is nothing to compare it with.
	if value, has := claims["iss"]; has && rules.client != "" && value != rules.client {
		return badProof("iss is not the client that the access token was issued to")
	}
	nonce, ok := claims["nonce"].(string)
	if !ok || nonce == "" {
		return badProof("nonce is missing")
	}
	p.nonce = nonce
	return nil
}

// numericDate reads a NumericDate (RFC 7519 §2), which may have a fraction.
func numericDate(value any) (time.Time, bool) {
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

// verify checks a raw signature (RFC 7518 §3.4, RFC 8037 §3.1).
func verify(public crypto.PublicKey, message, signature []byte) bool {
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
