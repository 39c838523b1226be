package proof

import (
	"crypto"
	"slices"
	"strconv"
	"strings"

	"chancery/appliance/oid4vci/jwt"
	"chancery/issuance"
	"chancery/issuance/did"
)

// proofTyp is the typ header of a jwt proof.
const proofTyp = "openid4vci-proof+jwt"

// jwt holds a jwt proof against App. F.1 and F.4.
func (c *checker) jwt(at place, compact string) error {
	t, err := jwt.Parse(compact, maxProof)
	if err != nil {
		return at.wrong("", "the proof: "+err.Error(), sectionJWT)
	}
	if t.Header["typ"] != proofTyp {
		return at.wrong("header typ", "typ must be "+proofTyp, sectionJWT)
	}
	algorithm, ok := c.algorithm(t)
	if !ok {
		return at.wrong("header alg", "alg is not one of the metadata's", sectionJWT)
	}
	if err := c.checkClaims(at, t.Claims); err != nil {
		return err
	}
	a, err := c.attestationOf(at, t)
	if err != nil {
		return err
	}
	h, err := c.holder(at, t, algorithm, a)
	if err != nil {
		return err
	}
	return c.signed(at, h)
}

// algorithm returns the alg header when it is one of the metadata's.
func (c *checker) algorithm(t *jwt.Token) (issuance.Algorithm, bool) {
	name, _ := t.Header["alg"].(string)
	return issuance.Algorithm(name), slices.Contains(c.settings.Algorithms, name)
}

// checkClaims reads aud, iat, nonce and iss.
func (c *checker) checkClaims(at place, claims map[string]any) error {
	if claims["aud"] != c.rules.Audience {
		return at.wrong("aud", "aud must be the credential issuer identifier, letter for letter", sectionJWT)
	}
	issued, ok := jwt.Date(claims["iat"])
	if !ok {
		return at.wrong("iat", "iat is missing or not a date", sectionJWT)
	}
	if err := c.checkMade(at, "iat", issued); err != nil {
		return err
	}
	if err := c.checkDates(at, claims, "the proof", sectionVerify); err != nil {
		return err
	}
	if value, has := claims["iss"]; has {
		// With an anonymous token there is nothing to compare it with.
		if c.rules.Client == "" && c.rules.Strict {
			return at.wrong("iss", "iss must be omitted, as the access token was issued to no client", sectionJWT)
		}
		if c.rules.Client != "" && value != c.rules.Client {
			return at.wrong("iss", "iss is not the client that the access token was issued to", sectionJWT)
		}
	}
	nonce, ok := claims["nonce"].(string)
	if !ok || nonce == "" {
		return at.wrong("nonce", "nonce is missing", sectionVerify)
	}
	c.nonce(nonce)
	return nil
}

// attestationOf reads the key_attestation header; nil when there is none that
// counts.
func (c *checker) attestationOf(at place, t *jwt.Token) (*attestation, error) {
	value, has := t.Header["key_attestation"]
	switch {
	case !has && c.settings.Attestation != nil:
		return nil, at.wrong("header key_attestation", "a key attestation is required", sectionMetadata)
	case !has, c.rules.Providers.Len() == 0 && c.settings.Attestation == nil:
		return nil, nil
	}
	compact, ok := value.(string)
	if !ok {
		return nil, at.wrong("header key_attestation", "key_attestation is not a string", sectionJWT)
	}
	at.attestation = true
	return c.attestation(at, compact)
}

// holder finds the key that signed the proof: the one that one of jwk, kid and
// x5c names, or one of the attestation's.
func (c *checker) holder(at place, t *jwt.Token, algorithm issuance.Algorithm, a *attestation) (h Holder, err error) {
	jwk, hasJWK := t.Header["jwk"]
	kid, hasKID := t.Header["kid"]
	x5c, hasX5C := t.Header["x5c"]
	var key crypto.PublicKey
	switch {
	case hasJWK && !hasKID && !hasX5C:
		key, err = c.keyFromJWK(at, jwk)
	case hasX5C && !hasJWK && !hasKID:
		key, err = keyFromCertificate(at, x5c)
	case hasKID && !hasJWK && !hasX5C:
		text, _ := kid.(string)
		if a == nil || slices.Contains(c.rules.Methods, did.Method(text)) {
			key, h.DID, err = c.keyFromDID(at, "header kid", text, sectionJWT)
			break
		}
		return a.signer(at, t, text)
	case a != nil && !hasJWK && !hasKID && !hasX5C:
		return a.signer(at, t, "")
	default:
		err = at.wrong("header", "exactly one of jwk, kid and x5c must name the key", sectionJWT)
	}
	if err != nil {
		return h, err
	}
	if fits, err := issuance.AlgorithmFor(key); err != nil || fits != algorithm {
		return h, at.wrong("header alg", "alg does not fit the key", sectionVerify)
	}
	if !t.Verify(key) {
		return h, at.wrong("signature", "the proof's signature does not verify", sectionVerify)
	}
	id := h.DID
	if h, err = bare(key); err != nil {
		return h, at.wrong("header", "the key cannot be bound", sectionJWT)
	}
	h.DID = id
	if a != nil && a.find(h) < 0 {
		return h, at.wrong("header key_attestation", "the proof's key is not among the attested keys", sectionAttestation)
	}
	return h, nil
}

// keyFromJWK reads a jwk header.
func (c *checker) keyFromJWK(at place, value any) (crypto.PublicKey, error) {
	if !c.bindsJWK() {
		return nil, at.wrong("header jwk", "jwk is not a binding method of this configuration", sectionMetadata)
	}
	if isPrivate(value) {
		return nil, at.wrong("header jwk", "jwk holds a private key", sectionVerify)
	}
	key, err := jwt.PublicKey(value)
	if err != nil {
		return nil, at.wrong("header jwk", "jwk: "+err.Error(), sectionJWT)
	}
	return key, nil
}

func (c *checker) bindsJWK() bool {
	return slices.Contains(c.rules.Methods, "jwk") || slices.Contains(c.rules.Methods, "cose_key")
}

// isPrivate tells whether a JWK holds what nobody should have sent. Its key is
// not public any more and is refused by whatever it is called.
func isPrivate(value any) bool {
	members, _ := value.(map[string]any)
	_, d := members["d"]
	_, k := members["k"]
	return d || k
}

// keyFromDID resolves a DID URL of a method that the metadata names.
func (c *checker) keyFromDID(at place, member, url, section string) (key crypto.PublicKey, id string, err error) {
	if !slices.Contains(c.rules.Methods, did.Method(url)) {
		return nil, "", at.wrong(member, "the key must be named by a DID URL of one of the metadata's methods", sectionMetadata)
	}
	if key, err = did.Resolve(url); err != nil {
		return nil, "", at.wrong(member, "the DID URL cannot be resolved: "+err.Error(), section)
	}
	id, _, _ = strings.Cut(url, "#")
	return key, id, nil
}

// keyFromCertificate reads an x5c header: the first certificate's key is bound.
// The chain is the wallet provider's; it proves nothing here.
func keyFromCertificate(at place, value any) (crypto.PublicKey, error) {
	chain, err := jwt.Certificates(value)
	if err != nil {
		return nil, at.wrong("header x5c", err.Error(), sectionJWT)
	}
	return chain[0].PublicKey, nil
}

// signer finds the attested key that signed a proof which names none in full.
// kid is a kid of the attested keys, or an index among them (App. F.1's example
// has "0"). When it is neither, or not there, the first key is tried before the
// others (EUDI TS3).
func (a *attestation) signer(at place, t *jwt.Token, kid string) (Holder, error) {
	candidates := a.keys
	if named := a.named(kid); named >= 0 {
		candidates = a.keys[named : named+1]
	} else if did.Method(kid) != "" {
		return Holder{}, at.wrong("header kid", "kid must be a DID URL of one of the metadata's methods or name an attested key", sectionMetadata)
	}
	for _, k := range candidates {
		if t.Verify(k.Key) {
			return k.Holder, nil
		}
	}
	return Holder{}, at.wrong("signature", "the proof's signature does not verify with an attested key", sectionAttestation)
}

// named returns which attested key kid names, or -1.
func (a *attestation) named(kid string) int {
	if kid == "" {
		return -1
	}
	for n, k := range a.keys {
		if k.kid == kid {
			return n
		}
	}
	if n, err := strconv.Atoi(kid); err == nil && n >= 0 && n < len(a.keys) && strconv.Itoa(n) == kid {
		return n
	}
	return -1
}
