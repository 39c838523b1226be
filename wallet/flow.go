package wallet

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// token is the token response (OpenID4VCI 1.0 §6.2).
type token struct {
	access string
	// identifiers are credential_identifiers by configuration, when the server
	// answered with authorization_details; then they must be used (§8.2).
	identifiers map[string][]string
}

// token redeems the code.
func (w *Wallet) token(ctx context.Context, offer *Offer, m *Metadata, txCode string) (*token, error) {
	form := url.Values{"grant_type": {grantType}, "pre-authorized_code": {offer.Code}}
	if txCode != "" {
		form.Set("tx_code", txCode)
	}
	if w.ClientID != "" {
		form.Set("client_id", w.ClientID)
	}
	a, err := w.do(ctx, StepToken, http.MethodPost, m.TokenEndpoint,
		map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, []byte(form.Encode()))
	if err != nil {
		return nil, err
	}
	object, err := a.secret()
	if err != nil {
		return nil, err
	}
	t := &token{identifiers: map[string][]string{}}
	if t.access, err = text(object, "access_token"); err != nil {
		return nil, a.wrong("%v", err)
	}
	if kind, _ := object["token_type"].(string); !strings.EqualFold(kind, "Bearer") {
		return nil, a.wrong("token_type is not Bearer")
	}
	lifetime, _ := object["expires_in"].(json.Number)
	if seconds, err := lifetime.Int64(); err != nil || seconds < 1 || seconds > 300 {
		return nil, a.wrong("expires_in is no number from 1 to 300, the limit for Bearer tokens (OpenID4VCI 1.0 §13.10)")
	}
	if details, found := object["authorization_details"]; found {
		if err := t.details(details); err != nil {
			return nil, a.wrong("authorization_details: %v", err)
		}
	}
	return t, nil
}

// details reads credential_identifiers out of authorization_details.
func (t *token) details(value any) error {
	list, _ := value.([]any)
	if len(list) == 0 {
		return errors.New("empty or no array")
	}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		if entry["type"] != "openid_credential" {
			continue
		}
		id, err := text(entry, "credential_configuration_id")
		if err != nil {
			return err
		}
		if t.identifiers[id], err = texts(entry, "credential_identifiers"); err != nil {
			return err
		}
	}
	return nil
}

// secret expects a 200 with JSON that no cache may keep.
func (a *answer) secret() (map[string]any, error) {
	if err := a.want(http.StatusOK); err != nil {
		return nil, err
	}
	if err := a.noStore(); err != nil {
		return nil, err
	}
	return a.object()
}

// nonce asks for a c_nonce (OpenID4VCI 1.0 §7).
func (w *Wallet) nonce(ctx context.Context, m *Metadata) (string, error) {
	a, err := w.do(ctx, StepNonce, http.MethodPost, m.NonceEndpoint, nil, nil)
	if err != nil {
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

// credential asks for one credential. A nonce that the issuer no longer takes
// is replaced once (OpenID4VCI 1.0 §8.3.1.2 invalid_nonce).
func (w *Wallet) credential(ctx context.Context, m *Metadata, t *token, id string) (*Credential, error) {
	c := m.Configurations[id]
	var key crypto.Signer
	var err error
	if len(c.Bindings) > 0 {
		if key, err = w.newKey(c); err != nil {
			return nil, &Error{Step: StepCredential, Err: err}
		}
	}
	for attempt := 1; ; attempt++ {
		credential, err := w.request(ctx, m, t, id, key)
		var failure *Error
		if attempt == 1 && errors.As(err, &failure) && failure.Code == "invalid_nonce" {
			continue
		}
		return credential, err
	}
}

func (w *Wallet) request(ctx context.Context, m *Metadata, t *token, id string, key crypto.Signer) (*Credential, error) {
	c := m.Configurations[id]
	body := map[string]any{"credential_configuration_id": id}
	if identifiers := t.identifiers[id]; len(identifiers) > 0 {
		body = map[string]any{"credential_identifier": identifiers[0]}
	}
	if key != nil {
		nonce, err := w.nonce(ctx, m)
		if err != nil {
			return nil, err
		}
		proof, err := w.proof(c, key, m.Issuer, nonce)
		if err != nil {
			return nil, &Error{Step: StepCredential, Err: err}
		}
		body["proofs"] = map[string]any{"jwt": []string{proof}}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, &Error{Step: StepCredential, Err: err}
	}
	a, err := w.do(ctx, StepCredential, http.MethodPost, m.CredentialEndpoint,
		map[string]string{"Content-Type": "application/json", "Authorization": "Bearer " + t.access}, data)
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusAccepted {
		return nil, a.wrong("the issuer defers the credential, which this wallet does not wait for")
	}
	object, err := a.secret()
	if err != nil {
		return nil, err
	}
	credential, err := parseResponse(object)
	if err != nil {
		return nil, a.wrong("%v", err)
	}
	credential.Configuration, credential.Metadata, credential.Key = id, c, key
	return credential, nil
}

// parseResponse checks an immediate Credential Response for one key (OpenID4VCI 1.0 §8.3).
func parseResponse(object map[string]any) (*Credential, error) {
	for _, name := range []string{"transaction_id", "interval"} {
		if _, found := object[name]; found {
			return nil, errors.New(name + " must not come with credentials")
		}
	}
	for _, name := range []string{"credential", "c_nonce", "c_nonce_expires_in"} {
		if _, found := object[name]; found {
			return nil, errors.New(name + " is a member of drafts only")
		}
	}
	list, _ := object["credentials"].([]any)
	if len(list) != 1 {
		return nil, errors.New("credentials is no array of one credential, for one key")
	}
	entry, _ := list[0].(map[string]any)
	value, err := text(entry, "credential")
	if err != nil {
		return nil, err
	}
	c := &Credential{Text: value}
	if _, found := object["notification_id"]; found {
		c.Notification, err = text(object, "notification_id")
	}
	return c, err
}

// binding returns how the proof names its key for a configuration.
func (w *Wallet) binding(c Configuration) (Binding, error) {
	supports := func(b Binding) bool {
		return slices.Contains(c.Bindings, string(b)) || b == JWK && slices.Contains(c.Bindings, "cose_key")
	}
	order := []Binding{JWK, DIDJWK, DIDKey}
	if c.Format == "jwt_vc_json" {
		order = []Binding{DIDJWK, DIDKey, JWK}
	}
	if w.Binding != Automatic {
		order = []Binding{w.Binding}
	}
	if i := slices.IndexFunc(order, supports); i >= 0 {
		return order[i], nil
	}
	return "", errors.New("the issuer binds to none of the wallet's methods: it takes " + strings.Join(c.Bindings, ", "))
}
