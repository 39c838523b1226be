package clientauth

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/replay"
	"chancery/appliance/oid4vci/trust"
	"chancery/issuance/jws"
)

// attested is a wallet attestation that holds.
type attested struct {
	token    *jwt.Token
	clientID string
	key      crypto.PublicKey // the instance's
}

// attestation authenticates a wallet by the attestation of its provider (ABCA
// -07 §9, -10 §7). Without the PoP header the request's DPoP proof stands for it.
func (a *Authenticator) attestation(ctx context.Context, r Request, id string) (Identity, error) {
	attestations, proofs := r.Header.Values(AttestationHeader), r.Header.Values(PoPHeader)
	combined := len(proofs) == 0 && r.DPoP != nil
	switch {
	case len(attestations) != 1:
		return Identity{}, invalid(AttestationHeader, "there must be one OAuth-Client-Attestation header", "ABCA -07 §6.1, §9 (1)")
	case len(proofs) == 0 && r.DPoPError != nil:
		return Identity{}, r.DPoPError
	case len(proofs) != 1 && !combined:
		return Identity{}, invalid(PoPHeader, "there must be one OAuth-Client-Attestation-PoP header", "ABCA -07 §6.1, §9 (1)")
	}
	w, err := a.readAttestation(attestations[0], id)
	if err != nil {
		return Identity{}, err
	}
	method, jti := AttestationDPoP, "" // a DPoP proof's jti was consumed with it
	if combined {
		err = a.combined(r, w)
	} else {
		method = Attestation
		jti, err = a.possession(proofs[0], w)
	}
	if err != nil {
		return Identity{}, err
	}
	if err := a.status(ctx, w.token); err != nil {
		return Identity{}, err
	}
	canonical, err := jws.PublicJWK(w.key)
	if err != nil {
		return Identity{}, err
	}
	thumbprint := sha256.Sum256(canonical)
	if !combined {
		if err := a.use(a.proofs, PoPHeader, "ABCA -07 §12.1", replay.NewKey(string(thumbprint[:]), jti)); err != nil {
			return Identity{}, err
		}
	}
	return Identity{ID: w.clientID, Authenticated: true, Method: method, InstanceKey: thumbprint[:]}, nil
}

// readAttestation checks the attestation itself (ABCA -07 §5.1, §9).
func (a *Authenticator) readAttestation(compact, id string) (attested, error) {
	fail := func(member, description, section string) (attested, error) {
		return attested{}, invalid(AttestationHeader+member, description, section)
	}
	now := a.options.Now()
	t, err := jwt.Parse(compact, maxToken)
	if err != nil {
		return fail("", "the attestation is not readable: "+err.Error(), "ABCA -07 §9 (1)")
	}
	if t.Header["typ"] != "oauth-client-attestation+jwt" {
		return fail(" header typ", "typ must be oauth-client-attestation+jwt", "ABCA -07 §5.1")
	}
	if _, err := t.Algorithm(a.options.Algorithms); err != nil {
		return fail(" header alg", err.Error(), "ABCA -07 §9 (4)")
	}
	source, err := a.options.Providers.Resolve(t, now)
	if err != nil {
		return fail(" signer", "the attester is not trusted: "+err.Error(), "OpenID4VCI 1.0 App. E; HAIP 1.0 §4.4.1")
	}
	if !t.Verify(source.Key) {
		return fail(" signature", "the signature of the attestation does not verify", "ABCA -07 §9 (5)")
	}
	clientID := t.String("sub")
	_, registered := a.clients[clientID]
	switch {
	case !printable(clientID, maxID):
		return fail(" sub", "sub must be the client_id", "ABCA -07 §5.1")
	case id != "" && id != clientID:
		return attested{}, invalid("client_id", "client_id is not the sub of the attestation", "ABCA -07 §9 (13)")
	case registered:
		return fail(" sub", "this client must authenticate with private_key_jwt", "RFC 6749 §2.3")
	case !source.Allows(clientID):
		return fail(" sub", "the attester may not vouch for this client_id", "OpenID4VCI 1.0 App. E")
	case !past(t, "iat", now) || !past(t, "nbf", now):
		return fail(" iat, nbf", "the attestation is not valid yet", "ABCA -07 §5.1")
	}
	cnf, _ := t.Claims["cnf"].(map[string]any)
	key, err := jwt.PublicKey(cnf["jwk"])
	if err != nil {
		return fail(" cnf", "cnf must hold a jwk that is a valid public key without private members", "ABCA -07 §5.1, §9 (6)")
	}
	if err := a.fresh(t, now); err != nil {
		return attested{}, err
	}
	return attested{t, clientID, key}, nil
}

// fresh holds the attestation's exp, and its age if there is a bound on it,
// against the clock (ABCA -07 §9 (11)). Where there is no iat, nbf stands for it.
func (a *Authenticator) fresh(t *jwt.Token, now time.Time) error {
	expires, ok := jwt.Date(t.Claims["exp"])
	if !ok {
		return invalid(AttestationHeader+" exp", "exp is missing", "ABCA -07 §5.1")
	}
	if !expires.After(now) {
		return refusal.New(UseFresh, AttestationHeader+" exp", "the attestation has expired", "ABCA -07 §5.1, §6.2")
	}
	if a.options.MaxAge <= 0 {
		return nil
	}
	if issued, ok := since(t, "iat", "nbf"); !ok || issued.Before(now.Add(-a.options.MaxAge)) {
		return refusal.New(UseFresh, AttestationHeader+" iat", "the attestation is too old", "ABCA -07 §6.2")
	}
	return nil
}

// possession checks the proof of possession of the instance's key (ABCA -07
// §5.2, §9).
func (a *Authenticator) possession(compact string, w attested) (string, error) {
	fail := func(member, description, section string) (string, error) {
		return "", invalid(PoPHeader+member, description, section)
	}
	t, err := jwt.Parse(compact, maxToken)
	if err != nil {
		return fail("", "the proof of possession is not readable: "+err.Error(), "ABCA -07 §9 (1)")
	}
	if t.Header["typ"] != "oauth-client-attestation-pop+jwt" {
		return fail(" header typ", "typ must be oauth-client-attestation-pop+jwt", "ABCA -07 §5.2")
	}
	if _, err := t.Algorithm(a.options.Algorithms); err != nil {
		return fail(" header alg", err.Error(), "ABCA -07 §9 (4)")
	}
	if !t.Verify(w.key) {
		return fail(" signature", "the signature does not verify with the key in cnf of the attestation", "ABCA -07 §9 (7)")
	}
	// -07 demands iss, from -08 on there is none.
	if iss, has := t.Claims["iss"]; has && iss != w.clientID {
		return fail(" iss", "iss must be the client_id", "ABCA -07 §5.2, §9 (13)")
	}
	if !a.audience(t.Claims["aud"], true) {
		return fail(" aud", "aud must be the issuer identifier of the authorization server", "ABCA -07 §9 (10)")
	}
	jti := t.String("jti")
	if jti == "" || len(jti) > maxJTI {
		return fail(" jti", "jti must be a string of 1 to 1024 bytes", "ABCA -07 §5.2")
	}
	now := a.options.Now()
	issued, ok := jwt.Date(t.Claims["iat"])
	if !ok || issued.Before(now.Add(-a.options.Window)) || issued.After(now.Add(a.options.Window)) {
		return fail(" iat", "iat must be the time of the request", "ABCA -07 §9 (9)")
	}
	value, has := t.Claims["exp"]
	if expires, ok := jwt.Date(value); has && (!ok || !expires.After(now)) || !past(t, "nbf", now) {
		return fail(" exp, nbf", "the proof of possession is not valid now", "RFC 7519 §4.1.4, §4.1.5")
	}
	if err := a.challenged(t.String("challenge"), PoPHeader+" challenge"); err != nil {
		return "", err
	}
	return jti, nil
}

// combined checks that the request's DPoP proof, which holds, was made with the
// instance's key and has the challenge as its nonce (ABCA -10 §5.2, §7.3).
func (a *Authenticator) combined(r Request, w attested) error {
	if !equal(w.key, r.DPoP.Key) {
		return invalid("DPoP header jwk", "without OAuth-Client-Attestation-PoP the DPoP proof must be made with the key in cnf of the attestation", "ABCA -10 §7.3")
	}
	if r.DPoP.Fresh {
		return nil
	}
	return a.challenged(r.DPoP.Nonce, "DPoP nonce")
}

// challenged checks a challenge where they are demanded, and refuses with a new
// one (ABCA -07 §6.2, §8).
func (a *Authenticator) challenged(value, member string) error {
	if a.options.Challenges == nil {
		return nil
	}
	if _, ok := a.options.Challenges.Check(value, a.options.Now()); ok {
		return nil
	}
	e := refusal.New(UseChallenge, member, "the proof of possession needs a challenge of the server", "ABCA -07 §6.2, §8")
	e.Header = map[string]string{ChallengeHeader: a.Challenge()}
	return e
}

// status asks the attestation's status list, and the one that EU wallets name
// in client_status. It comes last, as it may ask another server.
func (a *Authenticator) status(ctx context.Context, t *jwt.Token) error {
	claims := []any{t.Claims["status"]}
	if value, has := t.Claims["client_status"]; has {
		object, _ := value.(map[string]any)
		if object["status"] == nil {
			return invalid(AttestationHeader+" client_status", "client_status has no status", "EUDI TS3")
		}
		claims = append(claims, object["status"])
	}
	for _, claim := range claims {
		err := a.options.Status.Check(ctx, claim)
		switch {
		case errors.Is(err, trust.ErrUnreachable):
			e := refusal.New(unavailable, AttestationHeader+" status", "the status of the attestation cannot be checked now: try again later", "draft-ietf-oauth-status-list §8.3").With(http.StatusServiceUnavailable)
			e.RetryAfter = 10
			return e
		case err != nil:
			return invalid(AttestationHeader+" status", "the attestation does not stand: "+err.Error(), "draft-ietf-oauth-status-list §8.3")
		}
	}
	return nil
}
