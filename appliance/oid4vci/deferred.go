package oid4vci

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"

	"chancery/appliance/oid4vci/proof"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// savedHolder is a holder's key while its credential waits for an operator.
type savedHolder struct {
	Key []byte `json:"key"` // SubjectPublicKeyInfo
	DID string `json:"did,omitempty"`
}

// saveHolders writes holders' keys for the store, which seals them.
func saveHolders(holders []proof.Holder) ([]byte, error) {
	saved := make([]savedHolder, len(holders))
	for n, h := range holders {
		saved[n].DID = h.DID
		if h.Key == nil {
			continue
		}
		var err error
		if saved[n].Key, err = x509.MarshalPKIXPublicKey(h.Key); err != nil {
			return nil, err
		}
	}
	return jws.Marshal(saved)
}

// loadHolders reads them back.
func loadHolders(data []byte) ([]proof.Holder, error) {
	var saved []savedHolder
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("the holder's keys: %w", err)
	}
	holders := make([]proof.Holder, len(saved))
	for n, s := range saved {
		holders[n].DID = s.DID
		if len(s.Key) == 0 {
			continue
		}
		var err error
		if holders[n].Key, err = x509.ParsePKIXPublicKey(s.Key); err != nil {
			return nil, fmt.Errorf("the holder's keys: %w", err)
		}
	}
	return holders, nil
}

// deferRequest puts a request into the operators' queue, or finds it there, and
// answers with its transaction (OpenID4VCI 1.0 §8.3).
func (i *Issuer) deferRequest(ctx context.Context, cfg *configuration.Configuration, grant *store.Grant, b bound) (*response, error) {
	holders, err := saveHolders(b.holders)
	if err != nil {
		return nil, err
	}
	id, err := grant.Defer(ctx, cfg.ID, store.Deferred{Holders: holders, KeysHash: b.keys, ProofsHash: b.proofs, Interval: cfg.Poll})
	if errors.Is(err, store.ErrState) { // the offer ended meanwhile
		err = i.invalidToken(grant.JKT != nil)
	}
	if err != nil {
		return nil, err
	}
	return &response{transaction: b.draft.mark(id), interval: cfg.Poll}, nil
}

// serveDeferred is the deferred credential endpoint (OpenID4VCI 1.0 §9).
func (i *Issuer) serveDeferred(c *call) string {
	grant, body, err := i.protected(c, "/deferred", maxBody, "invalid_credential_request", i.store.Grant)
	if err != nil {
		return i.failed(c, err)
	}
	defer grant.Release()
	answer, err := i.fetchDeferred(c, grant, body)
	if err != nil {
		return i.failed(c, err)
	}
	grant.Release()
	return i.answer(c, answer)
}

func (i *Issuer) fetchDeferred(c *call, grant *store.Grant, body []byte) (*response, error) {
	object, encrypted, err := i.open(c.r, body)
	if err != nil {
		return nil, err
	}
	recipient, err := i.recipient(object, encrypted)
	if err != nil {
		return nil, err
	}
	id, ok := object["transaction_id"].(string)
	if !ok || id == "" {
		return nil, refusal.New("invalid_credential_request", "transaction_id", "transaction_id is missing or not a string", "OpenID4VCI 1.0 §9.1")
	}
	d, id := i.draftOf(id)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), issueTimeout)
	defer cancel()
	t, err := grant.Transaction(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refusal.New("invalid_transaction_id", "transaction_id", "no such transaction belongs to this access token, or it was fetched already", "OpenID4VCI 1.0 §9.3")
	}
	if err != nil {
		return nil, err
	}
	answer := &response{transaction: d.mark(id), interval: t.Interval}
	switch {
	case t.State == store.DeferredRefused:
		return nil, denied("the credential will not be issued")
	case t.State == store.DeferredPending && d.on:
		return nil, stillPending(t.Interval)
	case t.State != store.DeferredPending:
		if answer, err = i.complete(ctx, grant, t, d); err != nil {
			return nil, err
		}
	}
	answer.recipient, answer.draft = recipient, d
	return answer, nil
}

// complete issues what an operator has approved.
func (i *Issuer) complete(ctx context.Context, grant *store.Grant, t *store.Transaction, d draft) (*response, error) {
	cfg := i.configurations[t.Configuration]
	if cfg == nil {
		i.log.Error("an approved credential's configuration is gone", "offer", grant.Offer, "configuration", t.Configuration)
		return nil, away(60)
	}
	holders, err := loadHolders(t.Holders)
	if err != nil {
		return nil, err
	}
	issued, err := i.sign(ctx, cfg, grant, bound{holders: holders, draft: d}, nil, i.now())
	if err != nil {
		return nil, err
	}
	notification, err := i.record(grant, cfg, issued, func(records []store.Credential) (string, error) {
		return grant.Complete(ctx, t, records)
	})
	if err != nil {
		return nil, err
	}
	return &response{issued: issued, notification: notification}, nil
}
