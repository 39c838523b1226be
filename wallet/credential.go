package wallet

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// attempts is how often a credential request is sent when its connection
// breaks; repeatPause lies between.
const (
	attempts    = 3
	repeatPause = time.Second
)

// nonce asks for a c_nonce (OpenID4VCI 1.0 §7).
func (f *flow) nonce(ctx context.Context) (string, error) {
	a, err := f.w.do(ctx, request{step: StepNonce, method: http.MethodPost, target: f.m.NonceEndpoint})
	if err != nil {
		return "", err
	}
	if _, err := f.observe(a); err != nil {
		return "", err
	}
	object, err := a.secret()
	if err != nil {
		return "", err
	}
	nonce, err := text(object, "c_nonce")
	if err != nil {
		return "", a.wrong("%v", err)
	}
	return nonce, nil
}

// issue makes one credential request and takes what it brings. A nonce that the
// issuer no longer takes is replaced once (OpenID4VCI 1.0 §8.3.1.2 invalid_nonce).
func (f *flow) issue(ctx context.Context, id, identifier string) error {
	p, err := f.plan(f.m.Configurations[id])
	if err != nil {
		return failed(StepCredential, err)
	}
	for attempt := 1; ; attempt++ {
		err := f.ask(ctx, id, identifier, p)
		var failure *Error
		if attempt == 1 && errors.As(err, &failure) && failure.Step == StepCredential && failure.Code == "invalid_nonce" {
			continue
		}
		return err
	}
}

// ask sends one credential request (OpenID4VCI 1.0 §8.2).
func (f *flow) ask(ctx context.Context, id, identifier string, p *plan) error {
	body := map[string]any{"credential_configuration_id": id}
	if identifier != "" {
		body = map[string]any{"credential_identifier": identifier}
	}
	var keys []crypto.Signer
	if p != nil {
		keys = p.keys
		nonce, err := f.nonce(ctx)
		if err != nil {
			return err
		}
		if body["proofs"], err = f.proofs(p, nonce); err != nil {
			return failed(StepCredential, err)
		}
	}
	r := request{step: StepCredential, method: http.MethodPost, target: f.m.CredentialEndpoint}
	e, err := f.seal(&r, body)
	if err != nil {
		return failed(StepCredential, err)
	}
	a, err := f.repeat(ctx, r)
	if err != nil {
		return err
	}
	object, err := e.open(a)
	if err != nil {
		return err
	}
	if a.status == http.StatusAccepted {
		return f.deferral(a, object, id, keys)
	}
	return f.receive(ctx, a, object, id, keys)
}

// repeat sends a credential request, and the same one again when the connection
// breaks: with the same token and the same proofs the issuer knows it.
func (f *flow) repeat(ctx context.Context, r request) (*answer, error) {
	for attempt := 1; ; attempt++ {
		a, err := f.send(ctx, r)
		var failure *Error
		if attempt == attempts || !errors.As(err, &failure) || !failure.broken {
			return a, err
		}
		if err := f.w.sleep(ctx, repeatPause); err != nil {
			return nil, failed(r.step, err)
		}
	}
}

// deferral notes a transaction (OpenID4VCI 1.0 §8.3).
func (f *flow) deferral(a *answer, object map[string]any, id string, keys []crypto.Signer) error {
	if f.m.DeferredEndpoint == "" {
		return a.wrong("the issuer defers the credential, but there is no deferred_credential_endpoint")
	}
	p := Pending{Configuration: id}
	for _, key := range keys {
		p.Keys = append(p.Keys, jose.JSONWebKey{Key: key})
	}
	if err := p.update(object, f.w.now()); err != nil {
		return a.wrong("%v", err)
	}
	f.s.Pending = append(f.s.Pending, p)
	return f.keep()
}

// update reads a deferred response.
func (p *Pending) update(object map[string]any, now time.Time) error {
	for _, name := range []string{"credentials", "notification_id"} {
		if _, found := object[name]; found {
			return errors.New(name + " must not come with a transaction_id")
		}
	}
	transaction, err := text(object, "transaction_id")
	if err != nil {
		return err
	}
	if p.Transaction != "" && p.Transaction != transaction {
		return errors.New("transaction_id has changed")
	}
	number, _ := object["interval"].(json.Number)
	interval, err := number.Float64()
	if err != nil || interval <= 0 {
		return errors.New("interval is no positive number")
	}
	// A fraction of a second would be no pause, so that polling never ended.
	p.Transaction, p.Next = transaction, now.Add(time.Duration(max(1, min(interval, 1e9))*float64(time.Second)))
	return nil
}

// receive takes credentials, judges them and tells the issuer.
func (f *flow) receive(ctx context.Context, a *answer, object map[string]any, id string, keys []crypto.Signer) error {
	list, notification, err := parseResponse(object, max(len(keys), 1))
	if err != nil {
		return a.wrong("%v", err)
	}
	var credentials []Credential
	for i, value := range list {
		c := Credential{Configuration: id, Metadata: f.m.Configurations[id], Text: value, Notification: notification, Accepted: true}
		if len(keys) > 0 {
			c.Key = keys[i]
		}
		credentials = append(credentials, c)
	}
	if f.w.Verify != nil {
		f.judge(ctx, credentials, keys)
		f.notify(ctx, credentials)
	}
	f.result.Credentials = append(f.result.Credentials, credentials...)
	return nil
}

// parseResponse checks a Credential Response for a number of keys and returns
// credentials and notification_id (OpenID4VCI 1.0 §8.3). The issuer may give
// fewer than there are keys.
func parseResponse(object map[string]any, keys int) ([]string, string, error) {
	for _, name := range []string{"transaction_id", "interval"} {
		if _, found := object[name]; found {
			return nil, "", errors.New(name + " must not come with credentials")
		}
	}
	for _, name := range []string{"credential", "c_nonce", "c_nonce_expires_in"} {
		if _, found := object[name]; found {
			return nil, "", errors.New(name + " is a member of drafts only")
		}
	}
	list, _ := object["credentials"].([]any)
	if len(list) == 0 || len(list) > keys {
		return nil, "", errors.New("credentials is no array of one credential, or of several, at most one for each key")
	}
	var all []string
	seen := map[string]bool{}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		value, err := text(entry, "credential")
		if err != nil {
			return nil, "", err
		}
		if seen[value] {
			return nil, "", errors.New("credentials has one credential twice")
		}
		seen[value] = true
		all = append(all, value)
	}
	if _, found := object["notification_id"]; found {
		id, err := text(object, "notification_id")
		return all, id, err
	}
	return all, "", nil
}
