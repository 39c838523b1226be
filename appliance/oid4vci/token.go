package oid4vci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"chancery/appliance/oid4vci/clientauth"
	"chancery/appliance/oid4vci/dpop"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance/jws"
)

// detailType is the authorization_details type (OpenID4VCI 1.0 §5.1.1).
const detailType = "openid_credential"

// RefreshGrant is the refresh token grant's (RFC 6749 §6).
const RefreshGrant = "refresh_token"

// tokenRequest is a token request that was read, with nothing looked up yet.
type tokenRequest struct {
	grant string
	// secret is the pre-authorized code or the refresh token.
	secret  string
	txCode  *string
	details string
	scope   string
	client  clientauth.Identity
	proof   *dpop.Proof // nil without DPoP
}

// detail is one element of authorization_details.
type detail struct {
	Type          string          `json:"type"`
	Configuration string          `json:"credential_configuration_id"`
	Claims        json.RawMessage `json:"claims,omitempty"`
	Locations     json.RawMessage `json:"locations,omitempty"`
	Identifiers   []string        `json:"credential_identifiers"`
}

type tokenResponse struct {
	AccessToken  string   `json:"access_token"`
	TokenType    string   `json:"token_type"`
	ExpiresIn    int      `json:"expires_in"`
	RefreshToken string   `json:"refresh_token,omitempty"`
	Scope        string   `json:"scope,omitempty"`
	Details      []detail `json:"authorization_details,omitempty"`
	// Nonce and NonceExpires are drafts 13's and 14's.
	Nonce        string `json:"c_nonce,omitempty"`
	NonceExpires int    `json:"c_nonce_expires_in,omitempty"`
}

// serveToken is the token endpoint (OpenID4VCI 1.0 §6).
func (i *Issuer) serveToken(c *call) string {
	response, err := i.redeem(c)
	if err != nil {
		return i.failed(c, err)
	}
	body, err := jws.Marshal(response)
	if err != nil {
		return i.failed(c, err)
	}
	c.w.Header()["Pragma"] = []string{"no-cache"}
	writeJSON(c.w, http.StatusOK, body)
	return "ok"
}

func badRequest(member, description string) *refusal.Refusal {
	return refusal.New("invalid_request", member, description, "RFC 6749 §5.2")
}

func badGrant(member, description string) *refusal.Refusal {
	return refusal.New("invalid_grant", member, description, "OpenID4VCI 1.0 §6.3")
}

// readForm reads the body's parameters: each once, none from the URL (RFC 6749 §3.2).
func readForm(r *http.Request) (url.Values, error) {
	if mediaType(r) != "application/x-www-form-urlencoded" {
		return nil, badRequest("Content-Type", "the body must be application/x-www-form-urlencoded")
	}
	data, err := readBody(r, maxForm, "invalid_request")
	if err != nil {
		return nil, err
	}
	return parseForm(string(data))
}

func parseForm(body string) (url.Values, error) {
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, badRequest("body", "the body is not form-encoded")
	}
	for name, values := range form {
		// RFC 8707 §2 lets resource be repeated.
		if len(values) > 1 && name != "resource" {
			return nil, badRequest("body", "a parameter is there more than once")
		}
	}
	return form, nil
}

// mediaType returns a body's media type in lower case, whatever its parameters.
func mediaType(r *http.Request) string {
	name, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return ""
	}
	return name
}

// readBody reads at most limit bytes; code is the endpoint's for a body that
// cannot be read. Memory is taken for what has come, not for what was announced:
// an HTTP/2 connection announces a hundred bodies in a few bytes each.
func readBody(r *http.Request, limit int64, code string) ([]byte, error) {
	tooLong := refusal.New(code, "body", "the body is too long", "RFC 9110 §15.5.14").With(http.StatusRequestEntityTooLarge)
	if r.ContentLength > limit {
		return nil, tooLong
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case err != nil:
		return nil, refusal.New(code, "body", "the body could not be read", "RFC 9110 §15.5.1")
	case int64(len(data)) > limit:
		return nil, tooLong
	}
	return data, nil
}

// parseToken holds a request against everything that needs no look-up, in the
// order of OpenID4VCI 1.0 §6.3 and RFC 6749 §5.2: form, grant, client, DPoP proof.
// The proof is checked before the client, because it may be the client's, but
// what is wrong with the client is said first.
func (i *Issuer) parseToken(r *http.Request, form url.Values) (tokenRequest, error) {
	t := tokenRequest{grant: form.Get("grant_type"), details: form.Get("authorization_details"), scope: form.Get("scope")}
	switch {
	case t.grant == "":
		return t, badRequest("grant_type", "grant_type is missing")
	case t.grant != GrantType && (t.grant != RefreshGrant || !i.options.Refresh.Enabled):
		return t, refusal.New("unsupported_grant_type", "grant_type", "this grant is not supported", "RFC 6749 §5.2")
	}
	proof, proofErr := i.dpop.Check(dpop.Request{Values: r.Header.Values("DPoP"), Method: r.Method, URL: i.identifier + "/token"})
	var err error
	if t.client, err = i.clients.Authenticate(r.Context(), clientauth.Request{Header: r.Header, Form: form, DPoP: proof, DPoPError: proofErr}); err != nil {
		return t, err
	}
	if proofErr != nil {
		return t, proofErr
	}
	if t.proof = proof; proof == nil && i.options.DPoP.Required {
		return t, i.dpop.Missing(false)
	}
	parameter := "pre-authorized_code"
	if t.grant == RefreshGrant {
		parameter = "refresh_token"
	}
	if t.secret = form.Get(parameter); t.secret == "" {
		return t, badRequest(parameter, parameter+" is missing")
	}
	if tx := form.Get("tx_code"); tx != "" {
		if t.grant == RefreshGrant {
			return t, badRequest("tx_code", "tx_code belongs to the pre-authorized code grant alone")
		}
		t.txCode = &tx
	}
	return t, nil
}

// redeem carries a token request out. The store spends the code last, after the
// transaction code and whatever the request selects have been found right.
func (i *Issuer) redeem(c *call) (*tokenResponse, error) {
	if nonce := i.dpop.Nonce(false); nonce != "" {
		c.w.Header().Set("DPoP-Nonce", nonce)
	}
	form, err := readForm(c.r)
	if err != nil {
		return nil, err
	}
	request, err := i.parseToken(c.r, form)
	if err != nil {
		return nil, err
	}
	if err := i.throttle(request.secret); err != nil {
		return nil, err
	}
	if request.grant == RefreshGrant {
		return i.refresh(c, request)
	}
	var s selection
	redemption := store.Redemption{
		Code: request.secret, TransactionCode: request.txCode, Client: request.client.ID, Authenticated: request.client.Authenticated,
		ClientKey: request.client.InstanceKey, Lifetime: i.lifetime(request.proof),
		Select: func(offered []string) ([]string, bool, error) {
			var err error
			s, err = i.choose(offered, request)
			return s.granted, len(s.details) > 0, err
		},
	}
	if request.proof != nil {
		redemption.JKT = request.proof.Thumbprint[:]
	}
	if i.options.Refresh.Enabled {
		redemption.Refresh = func([]string) time.Duration { return i.options.Refresh.Lifetime.Std() }
	}
	token, err := i.store.Redeem(c.r.Context(), redemption)
	c.offer = token.Offer
	if err != nil {
		return nil, i.redeemFailed(err)
	}
	return i.tokenResponse(token, request, s), nil
}

// redeemFailed says what a code that was not redeemed means (OpenID4VCI 1.0 §6.3).
func (i *Issuer) redeemFailed(err error) error {
	switch {
	case errors.Is(err, store.ErrCode):
		return badGrant("pre-authorized_code", "the pre-authorized code is not valid")
	case errors.Is(err, store.ErrClient):
		return badGrant("client_id", "the pre-authorized code is for another client, or for one that authenticates")
	case errors.Is(err, store.ErrTransactionCodeWrong):
		e := badGrant("tx_code", "the transaction code is wrong")
		e.Code = i.options.TransactionCodeError
		return e
	case errors.Is(err, store.ErrTransactionCodeMissing):
		return badRequest("tx_code", "tx_code is missing")
	case errors.Is(err, store.ErrTransactionCodeUnexpected):
		return badRequest("tx_code", "tx_code was not asked for")
	}
	return err
}

// refresh exchanges a refresh token for another access token of the same grant.
// What was granted cannot be narrowed: scope and authorization_details are ignored.
func (i *Issuer) refresh(c *call, request tokenRequest) (*tokenResponse, error) {
	r := store.RefreshRequest{Token: request.secret, Client: request.client.ID, Authenticated: request.client.Authenticated,
		ClientKey: request.client.InstanceKey, Lifetime: i.lifetime(request.proof)}
	if request.proof != nil {
		r.JKT = request.proof.Thumbprint[:]
	}
	token, err := i.store.Refresh(c.r.Context(), r)
	c.offer = token.Offer
	switch {
	case errors.Is(err, store.ErrToken):
		return nil, refusal.New("invalid_grant", "refresh_token", "the refresh token is not valid", "RFC 6749 §5.2")
	case errors.Is(err, store.ErrClient):
		return nil, refusal.New("invalid_grant", "refresh_token", "the refresh token is bound to another client or key", "RFC 9449 §5")
	case err != nil:
		return nil, err
	}
	var s selection
	if token.Identified {
		for _, id := range token.Granted {
			s.details = append(s.details, newDetail(id))
		}
	}
	return i.tokenResponse(token, request, s), nil
}

// lifetime returns how long an access token lives, by what is granted: one that
// is bound to a key may wait for an operator (OpenID4VCI 1.0 §13.10).
func (i *Issuer) lifetime(proof *dpop.Proof) func(granted []string) time.Duration {
	return func(granted []string) time.Duration {
		for _, id := range granted {
			if c := i.configurations[id]; proof != nil && c != nil && c.Approval {
				return i.options.DeferredLifetime.Std()
			}
		}
		return i.options.AccessTokenLifetime.Std()
	}
}

func (i *Issuer) tokenResponse(token store.RedeemedToken, request tokenRequest, s selection) *tokenResponse {
	answer := &tokenResponse{AccessToken: token.Token, TokenType: "Bearer", ExpiresIn: int(i.lifetime(request.proof)(token.Granted).Seconds()),
		RefreshToken: token.RefreshToken, Scope: s.scope, Details: s.details}
	if request.proof != nil {
		answer.TokenType = "DPoP"
	}
	if i.options.Compatibility == "draft-13" {
		answer.Nonce, answer.NonceExpires = i.nonces.make(i.now())
	}
	return answer
}

// selection is what a token request picks from an offer.
type selection struct {
	granted []string
	details []detail // as answered
	scope   string   // as answered; empty when it is what was asked for
}

// choose reads authorization_details and scope. Without either the whole offer
// is granted and no authorization_details are volunteered: a wallet that got
// them would have to use credential identifiers (OpenID4VCI 1.0 §8.2).
func (i *Issuer) choose(offered []string, request tokenRequest) (s selection, err error) {
	if request.details != "" {
		if s.details, err = parseDetails(request.details, offered); err != nil {
			return s, err
		}
		for _, d := range s.details {
			s.granted = append(s.granted, d.Configuration)
		}
	}
	effective, err := i.chooseByScope(offered, request.scope, &s)
	if err != nil {
		return s, err
	}
	if len(s.granted) == 0 {
		s.granted = offered
	}
	if request.scope == "" {
		return s, nil
	}
	if len(effective) == 0 {
		effective = i.scopes(s.granted)
	}
	if answer := strings.Join(effective, " "); answer != request.scope {
		s.scope = answer
	}
	return s, nil
}

// chooseByScope grants the offered configurations that scope names and returns
// the values that had an effect. Unknown values are ignored (OpenID4VCI 1.0
// §5.1.2). Where authorization_details are answered, what scope adds is in them:
// one token has one way of asking.
func (i *Issuer) chooseByScope(offered []string, scope string, s *selection) (effective []string, err error) {
	identified := len(s.details) > 0
	for value := range strings.FieldsSeq(scope) {
		known, covered := false, false
		for _, c := range i.ordered {
			if c.Scope != value {
				continue
			}
			known = true
			if !slices.Contains(offered, c.ID) {
				continue
			}
			covered = true
			if slices.Contains(s.granted, c.ID) {
				continue
			}
			s.granted = append(s.granted, c.ID)
			if identified {
				s.details = append(s.details, newDetail(c.ID))
			}
		}
		if known && !covered {
			return nil, refusal.New("invalid_scope", "scope", "a scope is not covered by the offer", "RFC 6749 §5.2")
		}
		if covered {
			effective = append(effective, value)
		}
	}
	return effective, nil
}

// scopes returns the configurations' scopes, each once.
func (i *Issuer) scopes(ids []string) (out []string) {
	for _, id := range ids {
		// A configuration may be gone since the offer was made.
		if c := i.configurations[id]; c != nil && c.Scope != "" && !slices.Contains(out, c.Scope) {
			out = append(out, c.Scope)
		}
	}
	return out
}

func badDetails(description string) error {
	return refusal.New("invalid_authorization_details", "authorization_details", description, "OpenID4VCI 1.0 §5.1.1, RFC 9396 §5")
}

// parseDetails reads authorization_details (RFC 9396 §2, OpenID4VCI 1.0 §5.1.1):
// a non-empty array of objects, each naming one offered configuration once.
// Unknown members are ignored.
func parseDetails(text string, offered []string) ([]detail, error) {
	object, err := jws.Object([]byte(`{"d":` + text + `}`))
	if err != nil {
		return nil, badDetails("authorization_details is not JSON without duplicate members")
	}
	elements, ok := object["d"].([]any)
	if len(object) != 1 || !ok || len(elements) == 0 || len(elements) > store.MaxConfigurations {
		return nil, badDetails("authorization_details must be an array with elements")
	}
	var out []detail
	seen := map[string]bool{}
	for _, e := range elements {
		members, ok := e.(map[string]any)
		if !ok {
			return nil, badDetails("an element is not an object")
		}
		if members["type"] != detailType {
			return nil, badDetails("type must be " + detailType)
		}
		id, _ := members["credential_configuration_id"].(string)
		if id == "" || !slices.Contains(offered, id) {
			return nil, badDetails("credential_configuration_id must name an offered configuration")
		}
		if seen[id] {
			return nil, badDetails("a configuration is named twice")
		}
		seen[id] = true
		d := newDetail(id)
		for name, into := range map[string]*json.RawMessage{"claims": &d.Claims, "locations": &d.Locations} {
			if value, has := members[name]; has {
				if list, ok := value.([]any); !ok || len(list) == 0 {
					return nil, badDetails(name + " must be an array with elements")
				}
				if *into, err = jws.Marshal(value); err != nil {
					return nil, fmt.Errorf("authorization_details: %w", err)
				}
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// newDetail names a configuration and the one dataset of it that an offer holds.
func newDetail(id string) detail {
	return detail{Type: detailType, Configuration: id, Identifiers: []string{identifierOf(id)}}
}

// identifierOf makes the dataset's credential identifier.
func identifierOf(configuration string) string { return configuration + "#1" }

// configurationOf is its inverse; false when the identifier is not of that form.
func configurationOf(identifier string) (string, bool) { return strings.CutSuffix(identifier, "#1") }
