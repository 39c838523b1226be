package oid4vci

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"

	"chancery/appliance/limit"
	"chancery/appliance/oid4vci/dpop"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
)

// access is an access token as a request shows it.
type access struct {
	token string
	// bound tells that it came with the DPoP scheme (RFC 9449 §7.1).
	bound bool
}

// readAccess reads the access token, from the header and from there alone (RFC
// 6750 §2.1); a token in the URL is refused even beside one in the header.
func (i *Issuer) readAccess(r *http.Request) (access, error) {
	twice := refusal.New("invalid_request", "Authorization", "the access token belongs once in the Authorization header, and nowhere else", "RFC 6750 §2.1")
	twice.Challenge = `Bearer error="invalid_request"`
	if r.URL.RawQuery != "" {
		if query, err := url.ParseQuery(r.URL.RawQuery); err != nil || query.Has("access_token") {
			return access{}, twice
		}
	}
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return access{}, twice
	}
	if len(values) == 1 {
		scheme, token, _ := strings.Cut(values[0], " ")
		a := access{token: strings.TrimSpace(token), bound: strings.EqualFold(scheme, "DPoP")}
		if a.bound || strings.EqualFold(scheme, "Bearer") {
			return a, nil
		}
	}
	// Without a token there is no error code, but a challenge has a parameter (RFC 6750 §3).
	return access{}, &refusal.Refusal{Status: http.StatusUnauthorized, Bare: true, Member: "Authorization", Section: "RFC 6750 §3.1",
		Challenge: `Bearer realm="credential", ` + i.dpop.Challenge()}
}

// invalidToken refuses a token that opens nothing; bound tells that it belongs to
// the DPoP scheme.
func (i *Issuer) invalidToken(bound bool) *refusal.Refusal {
	return i.badToken(bound, "the access token is not valid")
}

func (i *Issuer) badToken(bound bool, description string) *refusal.Refusal {
	e := refusal.New("invalid_token", "Authorization", description, "RFC 6750 §3.1").With(http.StatusUnauthorized)
	if bound {
		e.Section = "RFC 9449 §7.1"
	}
	e.Challenge = i.challenge(bound, `error="invalid_token", error_description="`+description+`"`)
	return e
}

// challenge returns a WWW-Authenticate value with the parameters, in the scheme
// that the token belongs to; DPoP's lists the algorithms, too (RFC 9449 §7.1).
func (i *Issuer) challenge(bound bool, parameters string) string {
	if !bound {
		return "Bearer " + parameters
	}
	return "DPoP " + parameters + `, algs="` + strings.Join(i.dpop.Algorithms(), " ") + `"`
}

// protected is what stands before every endpoint that an access token opens: the
// token, the body, the token's grant (release it), and its DPoP proof when it is
// bound to a key. path is the endpoint's below the identifier, limit and code are
// for a body that cannot be read, find looks the token up. Whoever has no token
// is told so before the body is read, so that a stranger's takes no memory; the
// grant is taken after it, so that a slow sender does not keep it; what is wrong
// with the token is told first.
func (i *Issuer) protected(c *call, path string, limit int64, code string, find func(context.Context, string) (*store.Grant, error)) (*store.Grant, []byte, error) {
	a, err := i.readAccess(c.r)
	if err != nil {
		return nil, nil, err
	}
	c.bound = a.bound
	if nonce := i.dpop.Nonce(true); nonce != "" {
		c.w.Header().Set("DPoP-Nonce", nonce)
	}
	if err := i.throttle(a.token); err != nil {
		return nil, nil, err
	}
	err = i.store.KnowsToken(c.r.Context(), a.token)
	var body []byte
	var bodyErr error
	var grant *store.Grant
	if err == nil {
		body, bodyErr = readBody(c.r, limit, code)
		grant, err = find(c.r.Context(), a.token)
	}
	if err != nil {
		return nil, nil, err
	}
	c.offer = grant.Offer
	if err := i.checkSender(c.r, path, a, grant); err != nil {
		grant.Release()
		return nil, nil, err
	}
	if bodyErr != nil {
		grant.Release()
		return nil, nil, bodyErr
	}
	return grant, body, nil
}

// checkSender holds the request's DPoP proof against the token's key.
func (i *Issuer) checkSender(r *http.Request, path string, a access, grant *store.Grant) error {
	switch {
	case grant.JKT == nil && !a.bound:
		return nil // a Bearer token; a proof that comes with it says nothing
	case grant.JKT == nil:
		return i.badToken(true, "the access token is not bound to a key: use the Bearer scheme")
	case !a.bound:
		return i.dpop.NotBearer()
	}
	var bound [32]byte
	copy(bound[:], grant.JKT)
	proof, err := i.dpop.Check(dpop.Request{Values: r.Header.Values("DPoP"), Method: r.Method, URL: i.identifier + path, Resource: true, AccessToken: a.token, Bound: &bound})
	if err == nil && proof == nil {
		err = i.dpop.Missing(true)
	}
	return err
}

// throttle bounds the requests on one offer: by the secret that opens it, so
// that nobody else can use the bound up.
func (i *Issuer) throttle(secret string) error {
	sum := sha256.Sum256([]byte(secret))
	wait, ok := i.perOffer.Allow([16]byte(sum[:16]), i.now())
	if ok {
		return nil
	}
	e := refusal.New("too_many_requests", "", "too many requests on this offer: slow down", "RFC 6585 §4").With(http.StatusTooManyRequests)
	e.RetryAfter = limit.Seconds(wait)
	return e
}
