package oid4vci

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/encryption"
	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/proof"
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
// the checks: access token and its DPoP proof, media type and decryption, JSON,
// what is asked for, whether the token covers it, encryption of the answer,
// proofs, nonces. Only then is anything signed, and only what was recorded is
// answered.
func (i *Issuer) serveCredential(c *call) string {
	grant, body, err := i.protected(c, "/credential", maxBody, "invalid_credential_request", i.store.Grant)
	if err != nil {
		return i.failed(c, err)
	}
	defer grant.Release()
	answer, err := i.issue(c, grant, body)
	if err != nil {
		return i.failed(c, err)
	}
	grant.Release() // who reads the answer slowly, or is gone, does not keep it from who asks again
	return i.answer(c, answer)
}

// response is a success of the credential or deferred credential endpoint:
// credentials, or a transaction to come again with.
type response struct {
	issued       []made
	notification string
	transaction  string
	interval     time.Duration
	recipient    *encryption.Recipient // nil for plain JSON
	draft        draft
}

// answer writes a success, encrypted when the request asked for it (OpenID4VCI
// 1.0 §10); errors never are.
func (i *Issuer) answer(c *call, a *response) string {
	status, outcome := http.StatusOK, "ok"
	if a.transaction != "" {
		status, outcome = http.StatusAccepted, "deferred"
	}
	body, err := i.encode(a)
	if err != nil {
		return i.failed(c, err)
	}
	if a.recipient == nil {
		writeJSON(c.w, status, body)
		return outcome
	}
	encrypted, err := a.recipient.Encrypt(body)
	if err != nil {
		return i.failed(c, err)
	}
	write(c.w, status, "application/jwt", []byte(encrypted))
	return outcome
}

// encode writes the response's parameters (OpenID4VCI 1.0 §8.3). Every format's
// string and every identifier is of characters that JSON leaves as they are.
func (i *Issuer) encode(a *response) ([]byte, error) {
	if a.draft.single {
		return i.encodeDraft(a)
	}
	if a.transaction != "" {
		return fmt.Appendf(nil, `{"transaction_id":"%s","interval":%d}`, a.transaction, int64(a.interval.Seconds())), nil
	}
	size := 128
	for _, m := range a.issued {
		size += len(m.credential) + 20
	}
	body := append(make([]byte, 0, size), `{"credentials":[`...)
	for n, m := range a.issued {
		if n > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"credential":"`...)
		body = append(body, m.credential...)
		body = append(body, `"}`...)
	}
	body = append(body, `],"notification_id":"`...)
	body = append(body, a.notification...)
	return append(body, `"}`...), nil
}

// Errors of OpenID4VCI 1.0 §8.3.1.2.
func badCredentialRequest(member, description string) *refusal.Refusal {
	return refusal.New("invalid_credential_request", member, description, "OpenID4VCI 1.0 §8.2")
}

func denied(description string) *refusal.Refusal {
	return refusal.New("credential_request_denied", "", description, "OpenID4VCI 1.0 §8.3.1.2")
}

func badNonce() error {
	return refusal.New("invalid_nonce", "nonce", "the nonce is unknown, expired or used: fetch another one", "OpenID4VCI 1.0 §8.3.1.2")
}

// open reads a body that may be encrypted (OpenID4VCI 1.0 §8.2, §9.1, §10).
func (i *Issuer) open(r *http.Request, body []byte) (object map[string]any, encrypted bool, err error) {
	switch mediaType(r) {
	case "application/json":
	case "application/jwt":
		if body, err = i.encryption.Decrypt(body); err != nil {
			return nil, false, err
		}
		encrypted = true
	default:
		return nil, false, badCredentialRequest("Content-Type", "the body must be application/json or application/jwt")
	}
	if object, err = jws.Object(body); err != nil {
		return nil, false, badCredentialRequest("body", "the body: "+err.Error())
	}
	return object, encrypted, nil
}

// recipient reads whom the answer is to be encrypted for, and holds the request
// against what the metadata says of encryption.
func (i *Issuer) recipient(object map[string]any, encrypted bool) (r *encryption.Recipient, err error) {
	if value, has := object["credential_response_encryption"]; has {
		if r, err = i.encryption.ParseResponse(value); err != nil {
			return nil, err
		}
	}
	return r, i.encryption.Require(encrypted, r)
}

// requested finds the one configuration that is asked for and that the token covers.
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
		if grant.Identified && i.options.Strictness != "lenient" {
			return nil, badCredentialRequest("credential_configuration_id", "credential_identifier must be used, as the token response named some")
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
	if !grant.Covers(id) {
		e := refusal.New("insufficient_scope", "Authorization", "the access token does not cover this credential", "RFC 6750 §3.1").With(http.StatusForbidden)
		e.Challenge = i.challenge(grant.JKT != nil, `error="insufficient_scope"`)
		return nil, e
	}
	return i.configurations[id], nil
}

// bound is what a request's proofs amount to.
type bound struct {
	holders []proof.Holder // one without a key where the configuration has no key binding
	nonces  []string
	// keys and proofs recognise a request that is repeated.
	keys, proofs [32]byte
	draft        draft
}

// checkProofs checks every proof; one that fails, fails the request. The nonces
// are judged later.
func (i *Issuer) checkProofs(ctx context.Context, c *configuration.Configuration, object map[string]any, grant *store.Grant, now time.Time) (bound, error) {
	if !c.Bound() {
		return bound{holders: []proof.Holder{{}}, keys: sha256.Sum256(nil), proofs: sha256.Sum256(nil)}, nil
	}
	rules := i.rules[c.ID]
	rules.Client, rules.Now = grant.Client, now
	set, err := proof.Check(ctx, object["proofs"], rules)
	if err != nil {
		return bound{}, err
	}
	b := bound{holders: set.Holders, nonces: set.Nonces, keys: digestOf(set.Holders)}
	again, err := jws.Marshal(object["proofs"]) // in one order, whatever the request's
	if err != nil {
		return bound{}, err
	}
	b.proofs = sha256.Sum256(again)
	return b, nil
}

// digestOf is the hash of the holders' keys in their order, each with the DID that
// the credential names it by.
func digestOf(holders []proof.Holder) (sum [32]byte) {
	digest := sha256.New()
	for _, h := range holders {
		digest.Write([]byte(h.Thumbprint + h.DID + "\n"))
	}
	digest.Sum(sum[:0])
	return sum
}

// claimNonces reserves a request's nonces until it is answered.
func (i *Issuer) claimNonces(values []string, now time.Time) ([]challenge.ID, error) {
	ids, ok := i.nonces.claim(values, now)
	if !ok {
		return nil, badNonce()
	}
	return ids, nil
}

// issue carries a credential request out.
func (i *Issuer) issue(c *call, grant *store.Grant, body []byte) (*response, error) {
	object, encrypted, err := i.open(c.r, body)
	if err != nil {
		return nil, err
	}
	d, err := i.adapt(object, grant)
	if err != nil {
		return nil, err
	}
	cfg, err := i.requested(object, grant)
	if err != nil {
		return nil, i.asDraft(err, d)
	}
	recipient, err := i.recipient(object, encrypted)
	if err != nil {
		return nil, err
	}
	answer, err := i.issueAs(c.r.Context(), cfg, grant, object, d)
	if err != nil {
		return nil, i.asDraft(err, d)
	}
	answer.recipient, answer.draft = recipient, d
	return answer, nil
}

// issueAs carries out a request that was read.
func (i *Issuer) issueAs(parent context.Context, cfg *configuration.Configuration, grant *store.Grant, object map[string]any, d draft) (*response, error) {
	now := i.now()
	b, err := i.checkProofs(parent, cfg, object, grant, now)
	if err != nil {
		return nil, err
	}
	b.draft = d
	if d.single && cfg.Bound() { // the answer has room for one credential: no others are signed
		b.holders = b.holders[:1]
		b.keys = digestOf(b.holders)
	}
	// From here on the wallet's leaving changes nothing.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), issueTimeout)
	defer cancel()
	if !grant.Allows(cfg.ID) {
		return i.again(ctx, cfg, grant, b, now)
	}
	nonces, err := i.claimNonces(b.nonces, now)
	if err != nil {
		return nil, err
	}
	var answer *response
	if cfg.Approval {
		answer, err = i.deferRequest(ctx, cfg, grant, b)
	} else {
		answer, err = i.issueNow(ctx, cfg, grant, b, now)
	}
	if err != nil {
		i.nonces.release(nonces) // nothing was issued on them
	}
	return answer, err
}

// issueNow signs, records and answers.
func (i *Issuer) issueNow(ctx context.Context, cfg *configuration.Configuration, grant *store.Grant, b bound, now time.Time) (*response, error) {
	issued, err := i.sign(ctx, cfg, grant, b, nil, now)
	if err != nil {
		return nil, err
	}
	notification, err := i.record(grant, cfg, issued, func(records []store.Credential) (string, error) {
		return grant.Issue(ctx, cfg.ID, store.IssueRecord{Credentials: records, KeysHash: b.keys, ProofsHash: b.proofs})
	})
	if err != nil {
		return nil, err
	}
	return &response{issued: issued, notification: notification}, nil
}

// again answers a request for what was deferred or issued already: a wallet
// whose connection broke repeats it. The keys must be the same; proofs that are
// the same, byte for byte, need no fresh nonce.
func (i *Issuer) again(ctx context.Context, cfg *configuration.Configuration, grant *store.Grant, b bound, now time.Time) (*response, error) {
	var keys, proofs [32]byte
	var repeat func() (*response, error)
	reason := "the credential was issued already, or is waiting, for other keys"
	if grant.Deferring(cfg.ID) {
		var err error
		keys, proofs, err = grant.Waiting(ctx, cfg.ID)
		if errors.Is(err, store.ErrNotFound) { // an operator was faster
			err = denied("the credential will not be issued")
		}
		if err != nil {
			return nil, err
		}
		repeat = func() (*response, error) { return i.deferRequest(ctx, cfg, grant, b) }
	} else {
		before, err := grant.Repeat(ctx, cfg.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			before = &store.Repetition{} // other keys than anybody's: a used nonce is still told of first
			reason = "the credential was issued already and cannot be had again"
		case errors.Is(err, store.ErrRepeated):
			return nil, denied("the credential was issued already, and repeated as often as is allowed")
		case err != nil:
			return nil, err
		}
		keys, proofs = before.KeysHash, before.ProofsHash
		repeat = func() (*response, error) { return i.reissue(ctx, cfg, grant, b, before, now) }
	}
	var nonces []challenge.ID
	if b.proofs != proofs {
		var err error
		if nonces, err = i.claimNonces(b.nonces, now); err != nil {
			return nil, err
		}
	}
	if b.keys != keys {
		i.nonces.release(nonces)
		return nil, denied(reason)
	}
	answer, err := repeat()
	if err != nil {
		i.nonces.release(nonces)
	}
	return answer, err
}

// reissue signs equivalent credentials: same identifiers, same keys.
func (i *Issuer) reissue(ctx context.Context, cfg *configuration.Configuration, grant *store.Grant, b bound, before *store.Repetition, now time.Time) (*response, error) {
	ids := make([]string, len(before.Credentials))
	for n, c := range before.Credentials {
		ids[n] = c.ID
	}
	issued, err := i.sign(ctx, cfg, grant, b, ids, now)
	if err != nil {
		return nil, err
	}
	notification, err := i.record(grant, cfg, issued, func(records []store.Credential) (string, error) {
		return grant.Reissue(ctx, before, records)
	})
	if err != nil {
		return nil, err
	}
	return &response{issued: issued, notification: notification}, nil
}

// made is one credential with its record.
type made struct {
	credential string
	record     store.Credential
}

// sign builds the credentials, has the signer sign them, and compares what came
// back with what was sent: each signature must be one over those bytes by the
// key that the configuration names. ids are the credentials' identifiers, nil
// for new ones.
func (i *Issuer) sign(ctx context.Context, c *configuration.Configuration, grant *store.Grant, b bound, ids []string, now time.Time) ([]made, error) {
	key := i.published.Load().keys[c.Signer]
	if key == nil {
		return nil, &wire.Error{Code: wire.CodeUnavailable, Message: "the signer has not told its keys yet, or has none labelled " + c.Signer, RetryAfter: 5}
	}
	claims, err := grant.Claims(ctx)
	if err != nil {
		return nil, err
	}
	request := wire.SignRequest{Offer: grant.Offer, Configuration: c.ID, Items: make([]wire.SignItem, len(b.holders))}
	prepared := make([]*issuance.Prepared, len(b.holders))
	for n, h := range b.holders {
		var id string
		if n < len(ids) {
			id = ids[n]
		} else if id, err = store.NewCredentialID(); err != nil {
			return nil, err
		}
		m := i.material(key, h, id, now)
		m.DraftType = b.draft.sdjwt
		if prepared[n], err = c.Prepare(claims, m); err != nil {
			return nil, i.unfit(ctx, c, grant, claims, now, err)
		}
		request.Items[n] = wire.SignItem{Key: c.Signer, Format: c.Format, TBS: prepared[n].TBS, Credential: id}
	}
	response, err := i.signer.Sign(ctx, request)
	if err != nil {
		return nil, i.signFailed(ctx, grant, err)
	}
	issued := make([]made, len(b.holders))
	for n, result := range response.Results {
		if !jwt.Verify(key.public, prepared[n].TBS, result.Signature) || result.Outcome <= result.Intent {
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
func (i *Issuer) material(key *signingKey, h proof.Holder, id string, now time.Time) configuration.Material {
	m := configuration.Material{Holder: h.Key, HolderDID: h.DID, Chain: key.Chain, KeyID: key.KeyID, Issuer: i.identifier,
		CredentialID: id, Algorithm: key.Algorithm, Now: now}
	if key.DID != "" && key.Profile.Issuer != i.identifier { // a profile may have a DID key sign in the identifier's name
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
	return i.giveUp(ctx, grant, "claims do not fit the configuration")
}

// signFailed decides what the signer's refusal means: outside the key's profile
// is final, everything else may pass.
func (i *Issuer) signFailed(ctx context.Context, grant *store.Grant, err error) error {
	e := wire.AsError(err)
	if e == nil || e.Code != wire.CodeRefused || e.RetryAfter > 0 {
		return err
	}
	i.log.Error("the signer refused", "offer", grant.Offer, "error", err)
	return i.giveUp(ctx, grant, "refused by the signer")
}

// giveUp ends an offer that can never be issued. One that was issued already, and
// is only repeated, stays as it is.
func (i *Issuer) giveUp(ctx context.Context, grant *store.Grant, reason string) error {
	if err := grant.Fail(ctx, reason); err != nil && !errors.Is(err, store.ErrState) {
		return err
	}
	return denied("the credential cannot be issued")
}

// record writes down what was signed, before it is answered, and returns the
// notification_id.
func (i *Issuer) record(grant *store.Grant, c *configuration.Configuration, issued []made, write func([]store.Credential) (string, error)) (string, error) {
	records := make([]store.Credential, len(issued))
	for n, m := range issued {
		records[n] = m.record
	}
	notification, err := write(records)
	if errors.Is(err, store.ErrState) {
		i.log.Warn("signed but withheld: the offer ended meanwhile", "offer", grant.Offer, "credential", records[0].ID)
		return "", i.invalidToken(grant.JKT != nil)
	}
	if err != nil {
		return "", err
	}
	for _, m := range records {
		i.log.Info("credential issued", "offer", grant.Offer, "credential", m.ID, "configuration", c.ID, "key", m.Key, "intent", m.Intent)
	}
	return notification, nil
}
