package wallet

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// assertionType is private_key_jwt's client_assertion_type (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assertionLifetime is how long client assertions and wallet attestations last.
const (
	assertionLifetime   = time.Minute
	attestationLifetime = time.Hour
)

// authenticate decides how the client authenticates and whether by DPoP, and
// gets the keys and the challenge for it.
func (f *flow) authenticate(ctx context.Context) error {
	var err error
	if f.method, err = f.w.clientMethod(f.m.Server); err != nil {
		return failed(StepServer, err)
	}
	if f.s.InstanceKey != nil && !f.attested() {
		return wrong(StepServer, "the tokens are bound to an attested wallet: give its attester with --attester (ABCA-07 §10.3)")
	}
	if f.attested() {
		if f.s.ClientID == "" {
			f.s.ClientID = DefaultClientID
		}
		list := f.m.Server.AttestationPoP
		if len(list) == 0 {
			list = f.m.Server.DPoP
		}
		if f.instance, f.s.InstanceKey, err = keptKey(f.s.InstanceKey, list, "client_attestation_pop_signing_alg_values_supported"); err != nil {
			return failed(StepServer, err)
		}
	}
	// A state goes on as it began; a new one has no token yet.
	wanted := f.s.AccessToken == "" && len(f.m.Server.DPoP) > 0 && !f.w.NoDPoP
	if f.method == methodAttestDPoP {
		if f.s.DPoPKey == nil {
			f.s.DPoPKey = f.s.InstanceKey
		}
		wanted = true
	}
	if wanted && f.dpop == nil {
		if f.dpop, f.s.DPoPKey, err = keptKey(f.s.DPoPKey, f.m.Server.DPoP, "dpop_signing_alg_values_supported"); err != nil {
			return failed(StepServer, err)
		}
	}
	if f.attested() && f.m.Server.ChallengeEndpoint != "" {
		return f.askChallenge(ctx)
	}
	return nil
}

// attested says that the client authenticates by its wallet attestation.
func (f *flow) attested() bool { return f.method == methodAttest || f.method == methodAttestDPoP }

// keptKey takes the key of a state or makes one for it.
func keptKey(kept *jose.JSONWebKey, list []string, what string) (crypto.Signer, *jose.JSONWebKey, error) {
	if kept != nil {
		key, err := privateKey(kept)
		return key, kept, err
	}
	key, err := usableKey(list, what)
	if err != nil {
		return nil, nil, err
	}
	return key, &jose.JSONWebKey{Key: key}, nil
}

// clientMethod chooses the method of client authentication: the wallet's key,
// its attestation where the server takes one, none otherwise.
func (w *Wallet) clientMethod(s Server) (string, error) {
	switch {
	case w.ClientKey != nil && w.ClientID == "":
		return "", errors.New("private_key_jwt needs the client's id: give it with --client-id")
	case w.ClientKey != nil:
		algorithm, err := algorithmOf(w.ClientKey)
		if err == nil && (!slices.Contains(s.Methods, methodKey) || !slices.Contains(s.MethodAlgorithms, algorithm)) {
			err = errors.New("the server takes no private_key_jwt signed " + algorithm + ": leave out --client-key")
		}
		return methodKey, err
	case w.Attester != nil && slices.Contains(s.Methods, methodAttest):
		if !slices.Contains(s.Attestation, w.Attester.algorithm()) {
			return "", errors.New("client_attestation_signing_alg_values_supported lacks " + w.Attester.algorithm())
		}
		return methodAttest, nil
	case w.Attester != nil && w.AttestationDraft == Draft10 && slices.Contains(s.Methods, methodAttestDPoP):
		return methodAttestDPoP, nil
	case w.ClientID == "" && !s.Anonymous:
		return "", errors.New("pre-authorized_grant_anonymous_access_supported is not true: give a client id with --client-id, or authenticate with --client-key or --attester")
	case w.ClientID != "" && len(s.Methods) > 0 && !slices.Contains(s.Methods, methodNone):
		return "", errors.New("the server wants client authentication by one of [" + strings.Join(s.Methods, ", ") + "]: give --client-key or --attester")
	}
	return methodNone, nil
}

// askChallenge gets a challenge for the proof of possession (ABCA-07 §8).
func (f *flow) askChallenge(ctx context.Context) error {
	a, err := f.w.do(ctx, request{step: StepChallenge, method: http.MethodPost, target: f.m.Server.ChallengeEndpoint})
	if err != nil {
		return err
	}
	object, err := a.secret()
	if err != nil {
		return err
	}
	challenge, err := text(object, "attestation_challenge")
	if err != nil {
		return a.wrong("%v", err)
	}
	f.challenged(challenge)
	return nil
}

// authenticated returns form and headers of one token request: each holds a
// fresh assertion or proof of possession, as none may come twice.
func (f *flow) authenticated(form url.Values) (url.Values, map[string]string, error) {
	header := map[string]string{"Content-Type": formType}
	if f.s.ClientID != "" {
		form.Set("client_id", f.s.ClientID)
	}
	now := f.w.now()
	switch f.method {
	case methodKey:
		kid := map[jose.HeaderKey]any{}
		if f.w.ClientKeyID != "" {
			kid["kid"] = f.w.ClientKeyID
		}
		assertion, err := signJWT(f.w.ClientKey, "JWT", kid, map[string]any{"iss": f.s.ClientID, "sub": f.s.ClientID, "aud": f.m.Server.Issuer,
			"jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(assertionLifetime).Unix()})
		if err != nil {
			return nil, nil, err
		}
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	case methodAttest, methodAttestDPoP:
		attestation, err := f.w.Attester.attestWallet(f.s.ClientID, f.instance, f.w.AttestationDraft, now)
		if err != nil {
			return nil, nil, err
		}
		header["OAuth-Client-Attestation"] = attestation
		if f.method == methodAttestDPoP {
			break // the DPoP proof, with the same key, is the proof of possession
		}
		if header["OAuth-Client-Attestation-PoP"], err = f.possession(now); err != nil {
			return nil, nil, err
		}
	}
	return form, header, nil
}

// possession proves that the wallet has its instance key (ABCA-07 §5.2).
func (f *flow) possession(now time.Time) (string, error) {
	claims := map[string]any{"aud": f.m.Server.Issuer, "jti": rand.Text(), "iat": now.Unix()}
	if f.w.AttestationDraft == Draft07 {
		claims["iss"] = f.s.ClientID
	}
	if f.attestationChallenge != "" {
		claims["challenge"] = f.attestationChallenge
	}
	return signJWT(f.instance, "oauth-client-attestation-pop+jwt", nil, claims)
}
