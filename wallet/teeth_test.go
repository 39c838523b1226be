package wallet

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// The issuer of these tests is no rubber stamp: a message that is changed on
// its way is refused for what was changed.
func TestTheStrictIssuerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		path   string
		change func(i *strict, r *http.Request)
		code   string
	}{
		"no DPoP proof": {"/credential", func(i *strict, r *http.Request) { r.Header.Del("DPoP") }, "invalid_token"},
		"no token":      {"/credential", func(i *strict, r *http.Request) { r.Header.Del("Authorization") }, "invalid_token"},
		"Bearer": {"/credential", func(i *strict, r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), dpop, bearer, 1))
		}, "invalid_token"},
		"proof of other type": {"/credential", func(i *strict, r *http.Request) { r.Header.Set("DPoP", mustSign(t, "jwt", map[string]any{})) }, "invalid_dpop_proof"},
		"proof without htm": {"/token", func(i *strict, r *http.Request) {
			r.Header.Set("DPoP", mustSign(t, "dpop+jwt", map[string]any{"iat": i.now.Unix()}))
		}, "invalid_dpop_proof"},
		"no attestation": {"/token", func(i *strict, r *http.Request) { r.Header.Del("OAuth-Client-Attestation") }, "invalid_client"},
		"no PoP":         {"/token", func(i *strict, r *http.Request) { r.Header.Del("OAuth-Client-Attestation-PoP") }, "invalid_client"},
		"attestation by a PoP": {"/token", func(i *strict, r *http.Request) {
			r.Header.Set("OAuth-Client-Attestation", r.Header.Get("OAuth-Client-Attestation-PoP"))
		}, "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			i.attested()
			w := i.wallet()
			w.Attester = i.attester
			w.HTTP.Transport = changing{w.HTTP.Transport, func(r *http.Request) {
				if r.URL.Path == c.path {
					c.change(i, r)
				}
			}}
			_, err := w.Accept(t.Context(), i.link(), "")
			var failure *Error
			if !errors.As(err, &failure) || failure.Code != c.code {
				t.Errorf("%v; want %s", err, c.code)
			}
		})
	}
}

// changing changes requests on their way.
type changing struct {
	http.RoundTripper
	change func(*http.Request)
}

func (c changing) RoundTrip(r *http.Request) (*http.Response, error) {
	c.change(r)
	return c.RoundTripper.RoundTrip(r)
}
