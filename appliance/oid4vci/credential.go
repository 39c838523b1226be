package oid4vci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/signer/wire"
	"chancery/appliance/store"
	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// issueTimeout bounds signing and recording, which go on when the wallet leaves.
const issueTimeout = 30 * time.Second

// serveCredential is the credential endpoint (OpenID4VCI 1.0 §8). The order of
// the checks: access token, media type, JSON, what is asked for, whether the
// token covers it, encryption, proofs, nonces. Only then is anything signed, and
// only what was recorded is answered.
func (i *Issuer) serveCredential(c *call) string {
	token, err := bearer(c.r)
	if err != nil {
		return i.failed(c, err)
	}
	body, bodyErr := readBody(c.r, maxBody, "invalid_credential_request")
	grant, err := i.store.Grant(c.r.Context(), token)
	if err != nil {
		return i.failed(c, err)
	}
	defer grant.Release()
	c.offer = grant.Offer
	answer, err := i.issue(c.r, grant, body, bodyErr)
	if err != nil {
		return i.failed(c, err)
	}
	writeJSON(c.w, http.StatusOK, answer)
	return "ok"
}

func (i *Issuer) invalidToken() *refusal.Refusal {
	e := refusal.New("invalid_token", "Authorization", "the access token is not valid", "RFC 6750 §3.1").With(http.StatusUnauthorized)
	e.Challenge = `Bearer error="invalid_token", error_description="the access token is not valid"`
	return e
}

// bearer reads the access token, from the header and from there alone (RFC 6750
// §2.1); a token in the URL is refused even beside one in the header.
func bearer(r *http.Request) (string, error) {
	twice := refusal.New("invalid_request", "Authorization", "the access token belongs once in the Authorization header, and nowhere else", "RFC 6750 §2.1")
	twice.Challenge = `Bearer error="invalid_request"`
	if r.URL.RawQuery != "" {
		if query, err := url.ParseQuery(r.URL.RawQuery); err != nil || query.Has("access_token") {
			return "", twice
		}
	}
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return "", twice
	}
	if len(values) == 1 {
		if scheme, token, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), nil
		}
	}
	// Without a token there is no error code, but a challenge has a parameter (RFC 6750 §3).
	return "", &refusal.Refusal{Status: http.StatusUnauthorized, Bare: true, Member: "Authorization", Section: "RFC 6750 §3.1", Challenge: `Bearer realm="credential"`}
}

// Errors of OpenID4VCI 1.0 §8.3.1.2.
func badCredentialRequest(member, description string) *refusal.Refusal {
	return refusal.New("invalid_credential_request", member, description, "OpenID4VCI 1.0 §8.2")
}

func denied(description string) *refusal.Refusal {
	return refusal.New("credential_request_denied", "", description, "OpenID4VCI 1.0 §8.3.1.2")
}

// credentialRequest is a request that was read.
type credentialRequest struct {
	configuration *configuration.Configuration
	proofs        []string
}

// readRequest reads the body and holds it against what the token covers.
func (i *Issuer) readRequest(r *http.Request, grant *store.Grant, body []byte) (credentialRequest, error) {
	switch mediaType(r) {
	case "application/json":
	case "application/jwt":
		return credentialRequest{}, refusal.New("invalid_encryption_parameters", "Content-Type", "encrypted requests are not supported", "OpenID4VCI 1.0 §8.2")
	default:
		return credentialRequest{}, badCredentialRequest("Content-Type", "the body must be application/json")
	}
	object, err := jws.Object(body)
	if err != nil {
		return credentialRequest{}, badCredentialRequest("body", "the body: "+err.Error())
	}
	c, err := i.requested(object, grant)
	if err != nil {
		return credentialRequest{}, err
	}
	if _, has := object["credential_response_encryption"]; has {
		return credentialRequest{}, refusal.New("invalid_encryption_parameters", "credential_response_encryption", "encrypted responses are not supported", "OpenID4VCI 1.0 §8.2")
	}
	proofs, err := proofsOf(object, c)
	return credentialRequest{c, proofs}, err
}

// requested finds the one configuration that is asked for and decides whether
// the token covers it.
func (i *Issuer) requested(object map[string]any, grant *store.Grant) (*configuration.Configuration, error) {
	byConfiguration, hasConfiguration := object["credential_configuration_id"]
	byIdentifier, hasIdentifier := object["credential_identifier"]
	if hasConfiguration == hasIdentifier {
		return nil, badCredentialRequest("credential_configuration_id, credential_identifier", "exactly one of credential_configuration_id and credential_identifier must be there")
	}
	var id string
	if hasConfiguration {
		var ok bool
		if id, ok = byConfiguration.(string); !ok {
			return nil, badCredentialRequest("credential_configuration_id", "credential_configuration_id must be a string")
		}
		if i.configurations[id] == nil {
			return nil, refusal.New("unknown_credential_configuration", "credential_configuration_id", "no such credential configuration", "OpenID4VCI 1.0 §8.3.1.2")
		}
		if grant.Identified {
			return nil, badCredentialRequest("credential_identifier", "credential_identifier must be used, as the token response named some")
		}
	} else {
		identifier, ok := byIdentifier.(string)
		if !ok {
			return nil, badCredentialRequest("credential_identifier", "credential_identifier must be a string")
		}
		id, ok = configurationOf(identifier)
		if !ok || !grant.Identified || i.configurations[id] == nil || !grant.Covers(id) {
			return nil, refusal.New("unknown_credential_identifier", "credential_identifier", "no such credential identifier was given out", "OpenID4VCI 1.0 §8.3.1.2")
		}
	}
	if !grant.Allows(id) {
		if grant.Done(id) {
			return nil, denied("the credential was issued already")
		}
		e := refusal.New("insufficient_scope", "Authorization", "the access token does not cover this credential", "RFC 6750 §3.1").With(http.StatusForbidden)
		e.Challenge = `Bearer error="insufficient_scope"`
		return nil, e
	}
	return i.configurations[id], nil
}

// proofsOf reads proofs: one member, named after the proof type, with a
// non-empty array no longer than the configuration's batch size.
func proofsOf(object map[string]any, c *configuration.Configuration) ([]string, error) {
	value, has := object["proofs"]
	if !has {
		return nil, badProof("proofs is missing")
	}
	members, ok := value.(map[string]any)
	if !ok || len(members) != 1 {
		return nil, badCredentialRequest("proofs", "proofs must be an object with exactly one member")
	}
	value, has = members["jwt"]
	if !has {
		return nil, badCredentialRequest("proofs", "the proof type is not one of the metadata's")
	}
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return nil, badCredentialRequest("proofs.jwt", "proofs.jwt must be an array with elements")
	}
	if len(list) > c.BatchSize {
		return nil, badCredentialRequest("proofs.jwt", "there are more proofs than one request may have")
	}
	out := make([]string, len(list))
	for n, element := range list {
		if out[n], ok = element.(string); !ok {
			return nil, badCredentialRequest("proofs.jwt", "a proof is not a string")
		}
	}
	return out, nil
}

// checkProofs checks every proof and nonce; one that fails, fails the request.
func (i *Issuer) checkProofs(request credentialRequest, grant *store.Grant, now time.Time) ([]proof, []nonceID, error) {
	rules := proofRules{audience: i.identifier, methods: request.configuration.BindingMethods(), client: grant.Client, past: i.nonces.lifetime, now: now}
	proofs := make([]proof, len(request.proofs))
	seen := map[string]bool{}
	for n, compact := range request.proofs {
		p, err := checkProof(compact, rules)
		if err != nil {
			return nil, nil, err
		}
		if len(request.proofs) > 1 {
			thumbprint, err := jws.Thumbprint(p.key)
			if err != nil || seen[thumbprint] {
				return nil, nil, badProof("two proofs have the same key")
			}
			seen[thumbprint] = true
		}
		proofs[n] = p
	}
	ids := make([]nonceID, 0, len(proofs))
	for n, p := range proofs {
		if n > 0 && p.nonce == proofs[n-1].nonce {
			continue
		}
		id, ok := i.nonces.check(p.nonce, now)
		if !ok {
			return nil, nil, badNonce()
		}
		ids = append(ids, id)
	}
	return proofs, ids, nil
}

func badNonce() error {
	return refusal.New("invalid_nonce", "nonce", "the nonce is unknown, expired or used: fetch another one", "OpenID4VCI 1.0 §8.3.1.2")
}

// issue carries a credential request out and returns the response's body.
func (i *Issuer) issue(r *http.Request, grant *store.Grant, body []byte, bodyErr error) (answer []byte, err error) {
	if bodyErr != nil {
		return nil, bodyErr
	}
	request, err := i.readRequest(r, grant, body)
	if err != nil {
		return nil, err
	}
	now := i.now()
	proofs, nonces, err := i.checkProofs(request, grant, now)
	if err != nil {
		return nil, err
	}
	if !i.nonces.claim(nonces, now) {
		return nil, badNonce()
	}
	// From here on the wallet's leaving changes nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), issueTimeout)
	defer cancel()
	issued, err := i.sign(ctx, request.configuration, grant, proofs, now)
	if err == nil {
		err = i.record(ctx, request.configuration, grant, issued)
	}
	if err != nil {
		i.nonces.release(nonces) // nothing was issued on them
		return nil, err
	}
	return encodeCredentials(issued), nil
}

// made is one credential with its record.
type made struct {
	credential string
	record     store.Credential
}

// sign builds the credentials, has the signer sign them, and compares what came
// back with what was sent: each signature must be one over those bytes by the
// key that the configuration names.
func (i *Issuer) sign(ctx context.Context, c *configuration.Configuration, grant *store.Grant, proofs []proof, now time.Time) ([]made, error) {
	key := i.published.Load().keys[c.Signer]
	if key == nil {
		return nil, &wire.Error{Code: wire.CodeUnavailable, Message: "the signer has not told its keys yet, or has none labelled " + c.Signer, RetryAfter: 5}
	}
	claims, err := grant.Claims(ctx)
	if err != nil {
		return nil, err
	}
	request := wire.SignRequest{Offer: grant.Offer, Configuration: c.ID, Items: make([]wire.SignItem, len(proofs))}
	prepared := make([]*issuance.Prepared, len(proofs))
	for n, p := range proofs {
		id, err := store.NewCredentialID()
		if err != nil {
			return nil, err
		}
		if prepared[n], err = c.Prepare(claims, i.material(key, p, id, now)); err != nil {
			return nil, i.unfit(ctx, c, grant, claims, now, err)
		}
		request.Items[n] = wire.SignItem{Key: c.Signer, Format: c.Format, TBS: prepared[n].TBS, Credential: id}
	}
	response, err := i.signer.Sign(ctx, request)
	if err != nil {
		return nil, i.signFailed(ctx, grant, err)
	}
	issued := make([]made, len(proofs))
	for n, result := range response.Results {
		if !verify(key.public, prepared[n].TBS, result.Signature) || result.Outcome <= result.Intent {
			return nil, fmt.Errorf("the signer's answer does not fit what was sent to it (credential %s)", request.Items[n].Credential)
		}
		credential, err := prepared[n].Assemble(result.Signature)
		if err != nil {
			return nil, err
		}
		issued[n] = made{credential, store.Credential{ID: request.Items[n].Credential, Configuration: c.ID, Version: c.Version, Key: c.Signer,
			Intent: result.Intent, Outcome: result.Outcome, IssuedAt: now}}
	}
	return issued, nil
}

// material gathers what the key and the proof add to the claims.
func (i *Issuer) material(key *signingKey, p proof, id string, now time.Time) configuration.Material {
	m := configuration.Material{Holder: p.key, HolderDID: p.did, Chain: key.Chain, KeyID: key.KeyID, Issuer: i.identifier,
		CredentialID: id, Algorithm: key.Algorithm, Now: now}
	if key.DID != "" {
		m.Issuer = key.DID
	}
	if key.leaf != nil {
		m.NotBefore, m.NotAfter = key.leaf.NotBefore, key.leaf.NotAfter
	}
	return m
}

// unfit decides what a credential that cannot be built means. When the claims
// no longer fit a configuration that was changed, the offer has failed for good;
// everything else can be put right by an operator.
func (i *Issuer) unfit(ctx context.Context, c *configuration.Configuration, grant *store.Grant, claims json.RawMessage, now time.Time, err error) error {
	i.log.Error("a credential could not be built", "offer", grant.Offer, "configuration", c.ID, "error", err)
	if len(c.CheckClaims(claims, now)) == 0 {
		return away(60)
	}
	if failErr := grant.Fail(ctx, "claims do not fit the configuration"); failErr != nil {
		return failErr
	}
	return denied("the credential cannot be issued")
}

// signFailed decides what the signer's refusal means: outside the key's profile
// is final, everything else may pass.
func (i *Issuer) signFailed(ctx context.Context, grant *store.Grant, err error) error {
	e := wire.AsError(err)
	if e == nil || e.Code != wire.CodeRefused || e.RetryAfter > 0 {
		return err
	}
	i.log.Error("the signer refused", "offer", grant.Offer, "error", err)
	if failErr := grant.Fail(ctx, "refused by the signer"); failErr != nil {
		return failErr
	}
	return denied("the credential cannot be issued")
}

// record writes down what was signed, before it is answered.
func (i *Issuer) record(ctx context.Context, c *configuration.Configuration, grant *store.Grant, issued []made) error {
	records := make([]store.Credential, len(issued))
	for n, m := range issued {
		records[n] = m.record
	}
	err := grant.Issue(ctx, c.ID, records)
	if errors.Is(err, store.ErrState) {
		i.log.Warn("signed but withheld: the offer ended meanwhile", "offer", grant.Offer, "credential", records[0].ID)
		return i.invalidToken()
	}
	if err != nil {
		return err
	}
	for _, m := range records {
		i.log.Info("credential issued", "offer", grant.Offer, "credential", m.ID, "configuration", c.ID, "key", m.Key, "intent", m.Intent)
	}
	return nil
}

// encodeCredentials writes the response (OpenID4VCI 1.0 §8.3). Every format's
// string is of characters that JSON leaves as they are.
func encodeCredentials(issued []made) []byte {
	size := 32
	for _, m := range issued {
		size += len(m.credential) + 20
	}
	body := append(make([]byte, 0, size), `{"credentials":[`...)
	for n, m := range issued {
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"credential":"`...)
		body = append(body, m.credential...)
		body = append(body, `"}`...)
	}
	return append(body, `]}`...)
}
