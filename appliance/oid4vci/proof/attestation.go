package proof

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/issuance/configuration"
)

// retryAfter is when a wallet may come again, in seconds, when a status list
// could not be fetched.
const retryAfter = 30

// The typ header of a key attestation, and the one of draft 15.
const (
	attestationTyp = "key-attestation+jwt"
	legacyTyp      = "keyattestation+jwt"
)

// attestation is a key attestation that holds.
type attestation struct {
	at        place
	compact   string
	keys      []attestedKey
	statement Statement
	// status is nil when it has none.
	status any
}

// attestedKey is a key that a wallet provider vouches for.
type attestedKey struct {
	Holder
	// kid is the JWK's own, or "".
	kid string
}

// find returns the index of a holder's key among the attested, or -1.
func (a *attestation) find(h Holder) int {
	return slices.IndexFunc(a.keys, func(k attestedKey) bool { return k.same(h) })
}

// attestation holds a key attestation against App. D.1. One that stands in several
// proofs is read once.
func (c *checker) attestation(at place, compact string) (*attestation, error) {
	for _, a := range c.attestations {
		if a.compact == compact {
			return a, nil
		}
	}
	t, err := jwt.Parse(compact, maxAttestation)
	if err != nil {
		return nil, at.wrong("", "the key attestation: "+err.Error(), sectionAttestation)
	}
	if typ := t.Header["typ"]; typ != attestationTyp && (typ != legacyTyp || !c.rules.LegacyTyp) {
		return nil, at.wrong("header typ", "typ must be "+attestationTyp, sectionAttestation)
	}
	if _, ok := c.algorithm(t); !ok {
		return nil, at.wrong("header alg", "the key attestation's alg is not one of the metadata's", sectionMetadata)
	}
	if err := c.checkAttestationDates(at, t.Claims); err != nil {
		return nil, err
	}
	a := &attestation{at: at, compact: compact}
	if err := c.readStatement(a, t); err != nil {
		return nil, err
	}
	if err := c.trusted(a, t); err != nil {
		return nil, err
	}
	if err := c.readKeys(a, t); err != nil {
		return nil, err
	}
	c.attestations = append(c.attestations, a)
	return a, nil
}

// checkAttestationDates reads iat, exp and nonce. An attestation may be far older
// than a proof: what is fresh is a nonce, its own or the proof's.
func (c *checker) checkAttestationDates(at place, claims map[string]any) error {
	issued, ok := jwt.Date(claims["iat"])
	switch {
	case !ok:
		return at.wrong("iat", "the key attestation's iat is missing or not a date", sectionAttestation)
	case issued.After(c.rules.Now.Add(maxAhead)):
		return at.wrong("iat", "the key attestation's iat is in the future", sectionAttestation)
	}
	if _, has := claims["exp"]; at.attestation && !has {
		return at.wrong("exp", "a key attestation in a jwt proof must have an exp", sectionAttestation)
	}
	if err := c.checkDates(at, claims, "the key attestation", sectionAttestation); err != nil {
		return err
	}
	value, has := claims["nonce"]
	if !has && at.attestation && !c.rules.InnerNonce {
		return nil
	}
	nonce, ok := value.(string)
	if !ok || nonce == "" {
		section := sectionAttested
		if at.attestation {
			section = sectionJWT
		}
		return at.wrong("nonce", "the key attestation's nonce is missing", section)
	}
	c.nonce(nonce)
	return nil
}

// readStatement reads key_storage, user_authentication and status and holds the
// first two against what is required.
func (c *checker) readStatement(a *attestation, t *jwt.Token) error {
	required := c.settings.Attestation
	if required == nil {
		required = &configuration.KeyAttestation{}
	}
	for _, dimension := range []struct {
		name   string
		wanted []string
		said   *[]string
	}{
		{"key_storage", required.KeyStorage, &a.statement.KeyStorage},
		{"user_authentication", required.UserAuthentication, &a.statement.UserAuthentication},
	} {
		value, has := t.Claims[dimension.name]
		list, ok := texts(value)
		if has && !ok {
			return a.at.wrong(dimension.name, dimension.name+" must be an array of strings with elements", sectionAttestation)
		}
		if len(dimension.wanted) > 0 && !slices.ContainsFunc(list, func(s string) bool { return slices.Contains(dimension.wanted, s) }) {
			return a.at.wrong(dimension.name, dimension.name+" is none of those that the metadata requires", sectionMetadata)
		}
		*dimension.said = list
	}
	a.status = t.Claims["status"]
	return nil
}

// texts reads a non-empty array of strings.
func texts(value any) ([]string, bool) {
	list, _ := value.([]any)
	out := make([]string, len(list))
	for n, element := range list {
		var ok bool
		if out[n], ok = element.(string); !ok {
			return nil, false
		}
	}
	return out, len(out) > 0
}

// trusted finds out who signed and whether he did.
func (c *checker) trusted(a *attestation, t *jwt.Token) error {
	source, err := c.rules.Providers.Resolve(t, c.rules.Now)
	if err != nil {
		return a.at.wrong("header", "the key attestation's signer: "+err.Error(), "HAIP 1.0 §4.5.1")
	}
	if !t.Verify(source.Key) {
		return a.at.wrong("signature", "the key attestation's signature does not verify", sectionAttestation)
	}
	a.statement.Provider = source.Provider
	return nil
}

// readKeys reads attested_keys: public, of a supported kind, none twice.
func (c *checker) readKeys(a *attestation, t *jwt.Token) error {
	list, ok := t.Claims["attested_keys"].([]any)
	switch {
	case !ok || len(list) == 0:
		return a.at.wrong("attested_keys", "attested_keys must be an array with elements", sectionAttestation)
	case len(list) > maxKeys:
		return a.at.wrong("attested_keys", "attested_keys has more keys than are read", sectionAttestation)
	case !c.bindsJWK():
		return a.at.wrong("attested_keys", "jwk is not a binding method of this configuration", sectionMetadata)
	}
	a.keys = make([]attestedKey, 0, len(list))
	for _, value := range list {
		if isPrivate(value) {
			return a.at.wrong("attested_keys", "attested_keys holds a private key", sectionVerify)
		}
		key, err := jwt.PublicKey(value)
		if err != nil {
			return a.at.wrong("attested_keys", "a key of attested_keys: "+err.Error(), sectionAttestation)
		}
		h, err := bare(key)
		if err != nil {
			return a.at.wrong("attested_keys", "a key of attested_keys cannot be bound", sectionAttestation)
		}
		if a.find(h) >= 0 {
			return a.at.wrong("attested_keys", "attested_keys has a key twice", sectionAttestation)
		}
		members, _ := value.(map[string]any)
		kid, _ := members["kid"].(string)
		a.keys = append(a.keys, attestedKey{h, kid})
	}
	a.statement.Keys = len(a.keys)
	return nil
}

// checkStatus asks whether the attestation was revoked, after all else holds.
func (a *attestation) checkStatus(ctx context.Context, rules Rules) error {
	if rules.Status == nil || a.status == nil {
		return nil
	}
	err := rules.Status(ctx, a.status)
	if errors.Is(err, trust.ErrUnreachable) {
		// Nothing is wrong with the proof: the wallet may come again with it.
		r := refusal.New("temporarily_unavailable", a.at.member("status"), "the key attestation's status cannot be looked up now: try again later", sectionAttestation)
		r.RetryAfter = retryAfter
		return r.With(http.StatusServiceUnavailable)
	}
	if err != nil {
		return a.at.wrong("status", "the key attestation: "+err.Error(), sectionAttestation)
	}
	return nil
}
