package wallet

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// bearerLimit is how long a Bearer token may live in seconds (OpenID4VCI 1.0 §13.10).
const bearerLimit = 300

// redeem exchanges the code for an access token (OpenID4VCI 1.0 §6).
func (f *flow) redeem(ctx context.Context, offer *Offer, txCode string) error {
	form := url.Values{"grant_type": {grantType}, "pre-authorized_code": {offer.Code}}
	if txCode != "" {
		form.Set("tx_code", txCode)
	}
	if f.w.AuthorizationDetails {
		details, err := f.details()
		if err != nil {
			return failed(StepToken, err)
		}
		form.Set("authorization_details", details)
	}
	return f.token(ctx, form, f.w.AuthorizationDetails)
}

// refresh redeems the refresh token (RFC 6749 §6).
func (f *flow) refresh(ctx context.Context) error {
	if !slices.Contains(f.m.Server.Grants, "refresh_token") {
		return wrong(StepServer, "grant_types_supported lacks refresh_token")
	}
	return f.token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {f.s.RefreshToken}}, false)
}

// details asks for each configuration (OpenID4VCI 1.0 §5.1.1).
func (f *flow) details() (string, error) {
	if !slices.Contains(f.m.Server.Details, "openid_credential") {
		return "", errors.New("authorization_details_types_supported lacks openid_credential: leave out --authorization-details")
	}
	var list []map[string]any
	for _, id := range f.s.Configurations {
		entry := map[string]any{"type": "openid_credential", "credential_configuration_id": id}
		if f.m.located {
			entry["locations"] = []string{f.m.Issuer}
		}
		list = append(list, entry)
	}
	data, err := json.Marshal(list)
	return string(data), err
}

// token authenticates the client, sends a token request and takes the answer
// into the state.
func (f *flow) token(ctx context.Context, form url.Values, detailed bool) error {
	if f.method == "" {
		if err := f.authenticate(ctx); err != nil {
			return err
		}
	}
	a, err := f.send(ctx, request{step: StepToken, method: http.MethodPost, target: f.m.Server.TokenEndpoint, fresh: func(r *request) error {
		values, header, err := f.authenticated(form)
		r.header, r.body = header, []byte(values.Encode())
		return err
	}})
	if err != nil {
		return err
	}
	object, err := a.secret()
	if err != nil {
		return err
	}
	if err := f.take(object); err != nil {
		return a.wrong("%v", err)
	}
	// The server may have ended the refresh token before: whatever else is wrong
	// with the answer, the new one must not be lost.
	if err := f.keepRefresh(); err != nil {
		return err
	}
	details, found := object["authorization_details"]
	switch {
	case found:
		if err := f.identify(details, detailed); err != nil {
			return a.wrong("authorization_details: %v", err)
		}
		return f.keepRefresh()
	case detailed:
		return a.wrong("authorization_details is missing, though it was in the request (OpenID4VCI 1.0 §6.2)")
	}
	return nil
}

// keepRefresh keeps a state that a refresh token makes good for more.
func (f *flow) keepRefresh() error {
	if f.s.RefreshToken == "" {
		return nil
	}
	return f.keep()
}

// take checks the token response (OpenID4VCI 1.0 §6.2, RFC 9449 §5). A server
// may answer a DPoP proof with a Bearer token.
func (f *flow) take(object map[string]any) error {
	access, err := text(object, "access_token")
	if err != nil {
		return err
	}
	kind, _ := object["token_type"].(string)
	switch {
	case strings.EqualFold(kind, bearer):
		kind = bearer
	case strings.EqualFold(kind, dpop) && f.dpop != nil:
		kind = dpop
	case strings.EqualFold(kind, dpop):
		return errors.New("token_type is DPoP, but there was no DPoP proof")
	default:
		return errors.New("token_type is neither Bearer nor DPoP")
	}
	lifetime, _ := object["expires_in"].(json.Number)
	seconds, err := lifetime.Int64()
	if err != nil || seconds < 1 {
		return errors.New("expires_in is no positive whole number")
	}
	if kind == bearer && seconds > bearerLimit {
		return errors.New("expires_in is more than 300, the limit for Bearer tokens (OpenID4VCI 1.0 §13.10)")
	}
	if _, found := object["refresh_token"]; found {
		if f.s.RefreshToken, err = text(object, "refresh_token"); err != nil {
			return err
		}
	}
	f.s.AccessToken, f.s.TokenType = access, kind
	f.s.Expires = f.w.now().Add(time.Duration(min(seconds, 1<<31)) * time.Second)
	return nil
}

// identify reads credential_identifiers out of authorization_details; they must
// be used then (OpenID4VCI 1.0 §6.2, §8.2).
func (f *flow) identify(value any, detailed bool) error {
	list, _ := value.([]any)
	if len(list) == 0 {
		return errors.New("empty or no array")
	}
	identifiers := map[string][]string{}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		if entry["type"] != "openid_credential" {
			continue
		}
		id, err := text(entry, "credential_configuration_id")
		if err != nil {
			return err
		}
		if _, twice := identifiers[id]; twice || detailed && !slices.Contains(f.s.Configurations, id) {
			return errors.New("a credential_configuration_id is there twice or was not asked for")
		}
		if identifiers[id], err = texts(entry, "credential_identifiers"); err != nil {
			return err
		}
	}
	for _, id := range f.s.Configurations {
		if detailed && identifiers[id] == nil {
			return errors.New("a credential configuration that was asked for is missing")
		}
	}
	f.s.Identifiers = identifiers
	return nil
}
