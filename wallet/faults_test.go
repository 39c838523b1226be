package wallet

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Each fault of the metadata of the optional features is named.
func TestOneFaultOfTheFeatures(t *testing.T) {
	const request, response = "credential_request_encryption", "credential_response_encryption"
	key := func(i *strict, change func(map[string]any)) {
		jwk := map[string]any{"kty": "EC", "crv": "P-256", "kid": "a", "alg": "ECDH-ES", "use": "enc",
			"x": "nUWAoAv3XZith8E7i19OdaxOLYFOwM-Z2EuM02TirT4", "y": "HskHU8BjUi1U9Xqi7Swmj8gwAK_0xkcDjEW_71SosEY"}
		change(jwk)
		set(i.metadata, request, "jwks", map[string]any{"keys": []any{jwk}})
	}
	for name, c := range map[string]struct {
		step  Step
		words string
		spoil func(*strict)
	}{
		"no jwks":             {StepMetadata, "jwks", func(i *strict) { set(i.metadata, request, "jwks", nil) }},
		"no enc":              {StepMetadata, "enc_values_supported", func(i *strict) { set(i.metadata, request, "enc_values_supported", nil) }},
		"empty zip":           {StepMetadata, "zip_values_supported", func(i *strict) { set(i.metadata, request, "zip_values_supported", []any{}) }},
		"required as text":    {StepMetadata, "encryption_required", func(i *strict) { set(i.metadata, request, "encryption_required", "true") }},
		"required missing":    {StepMetadata, "encryption_required", func(i *strict) { set(i.metadata, response, "encryption_required", nil) }},
		"no alg":              {StepMetadata, "alg_values_supported", func(i *strict) { set(i.metadata, response, "alg_values_supported", []any{}) }},
		"answers only":        {StepMetadata, "without", func(i *strict) { set(i.metadata, request, nil) }},
		"no object":           {StepMetadata, request, func(i *strict) { set(i.metadata, request, true) }},
		"key without kid":     {StepMetadata, "kid", func(i *strict) { key(i, func(k map[string]any) { delete(k, "kid") }) }},
		"key without alg":     {StepMetadata, "alg", func(i *strict) { key(i, func(k map[string]any) { delete(k, "alg") }) }},
		"private key":         {StepMetadata, "not public", func(i *strict) { key(i, func(k map[string]any) { k["d"] = "AA" }) }},
		"key for signatures":  {StepMetadata, "use", func(i *strict) { key(i, func(k map[string]any) { k["use"] = "sig" }) }},
		"off the curve":       {StepMetadata, "curve", func(i *strict) { key(i, func(k map[string]any) { k["y"] = k["x"] }) }},
		"key of another kind": {StepCredential, "algorithms", func(i *strict) { key(i, func(k map[string]any) { k["alg"] = "RSA-OAEP-256" }) }},
		"deferred over http":  {StepMetadata, "deferred_credential_endpoint", func(i *strict) { set(i.metadata, "deferred_credential_endpoint", "http://x.example") }},
		"notify over http":    {StepMetadata, "notification_endpoint", func(i *strict) { set(i.metadata, "notification_endpoint", "http://x.example") }},
		"storage no list": {StepMetadata, "key_storage", func(i *strict) {
			set(i.metadata, "credential_configurations_supported", "pid", "proof_types_supported", "jwt", "key_attestations_required", map[string]any{"key_storage": []any{}})
		}},
		"challenge over http":       {StepServer, "challenge_endpoint", func(i *strict) { set(i.as, "challenge_endpoint", "http://x.example") }},
		"DPoP without list":         {StepServer, "dpop_signing_alg", func(i *strict) { set(i.as, "dpop_signing_alg_values_supported", "ES256") }},
		"DPoP by none":              {StepServer, "none", func(i *strict) { set(i.as, "dpop_signing_alg_values_supported", []any{"none"}) }},
		"no attestation algorithms": {StepServer, "client_attestation_signing", func(i *strict) { set(i.as, "token_endpoint_auth_methods_supported", []any{methodAttest}) }},
		"no assertion algorithms":   {StepServer, "token_endpoint_auth_signing", func(i *strict) { set(i.as, "token_endpoint_auth_methods_supported", []any{methodKey}) }},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			i.encryption(true, "ECDH-ES", "A128GCM", true)
			c.spoil(i)
			_, err := i.wallet().Accept(t.Context(), i.link(), "")
			var failure *Error
			if !errors.As(err, &failure) || failure.Step != c.step || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want step %q and %q", err, c.step, c.words)
			}
		})
	}
}

// Each fault of an answer is named, whatever the request was dressed with.
func TestOneFaultOfAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		header  map[string]string
		body    string
		words   string
		encrypt bool
	}{
		"401 without challenge": {401, nil, `{"error":"invalid_token"}`, "WWW-Authenticate", false},
		"401 by header alone":   {401, map[string]string{"WWW-Authenticate": `DPoP algs="ES256", error="invalid_token", error_description="it has ended"`, "Content-Type": "text/plain"}, "", "invalid_token (it has ended)", false},
		"two errors":            {401, map[string]string{"WWW-Authenticate": `DPoP error="invalid_dpop_proof"`}, `{"error":"invalid_token"}`, "another error", false},
		"nonce without header":  {401, map[string]string{"WWW-Authenticate": `DPoP error="use_dpop_nonce"`}, `{"error":"use_dpop_nonce"}`, "without DPoP-Nonce", false},
		"nonce by 400":          {400, map[string]string{"DPoP-Nonce": "n"}, `{"error":"use_dpop_nonce"}`, "another status", false},
		"challenge no header":   {400, nil, `{"error":"use_attestation_challenge"}`, "without OAuth-Client-Attestation-Challenge", false},
		"nonce for ever":        {401, map[string]string{"WWW-Authenticate": `DPoP error="use_dpop_nonce"`, "DPoP-Nonce": "n"}, `{"error":"use_dpop_nonce"}`, "HTTP 401 use_dpop_nonce", false},
		"encrypted unasked":     {200, map[string]string{"Content-Type": jwtType}, "a.b.c.d.e", "not application/json", false},
		"plain though asked":    {200, map[string]string{"Content-Type": jsonType}, `{"credentials":[{"credential":"a"}]}`, "not application/jwt", true},
		"no JWE":                {200, map[string]string{"Content-Type": jwtType}, "%.b.c.d.e", "compact JWE", true},
		"another's JWE":         {200, map[string]string{"Content-Type": jwtType}, "eyJraWQiOiJ4In0.b.c.d.e", "kid is not", true},
		"deferred: no interval": {202, nil, `{"transaction_id":"t"}`, "interval", false},
		"deferred: 0 s":         {202, nil, `{"transaction_id":"t","interval":0}`, "interval", false},
		"deferred: nothing":     {202, nil, `{"interval":1}`, "transaction_id", false},
		"deferred: and given":   {202, nil, `{"transaction_id":"t","interval":1,"credentials":[]}`, "must not come", false},
		"one credential twice":  {200, nil, `{"credentials":[{"credential":"a"},{"credential":"a"}]}`, "twice", false},
		"too many":              {200, nil, `{"credentials":[{"credential":"a"},{"credential":"b"},{"credential":"c"}]}`, "at most one for each key", false},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			i.encryption(false, "ECDH-ES", "A128GCM", true)
			w := i.wallet()
			w.Encrypt, w.Keys = c.encrypt, 2
			w.HTTP.Transport = answering{w.HTTP.Transport, func(r *http.Response) {
				r.StatusCode = c.status
				for name, value := range c.header {
					r.Header.Set(name, value)
				}
				r.Body = http.NoBody
				if c.body != "" {
					r.Body = body{strings.NewReader(c.body)}
				}
			}, "/credential"}
			_, err := w.Accept(t.Context(), i.link(), "")
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want %q", err, c.words)
			}
		})
	}
}

// A deferred request that comes too soon for the issuer is repeated when it says.
func TestDeferredRetryAfter(t *testing.T) {
	i := newStrict(t)
	i.deferrals = 1
	w := i.wallet()
	w.Wait = 10 * time.Minute
	first := true
	w.HTTP.Transport = answering{w.HTTP.Transport, func(r *http.Response) {
		if first {
			first = false
			r.StatusCode = http.StatusTooManyRequests
			r.Header.Set("Retry-After", "60")
		}
	}, "/deferred"}
	begun := i.now
	result, err := w.Accept(t.Context(), i.link(), "")
	// The first answer was lost, so the transaction is over on the second try.
	var failure *Error
	if !errors.As(err, &failure) || failure.Code != "invalid_transaction_id" || len(result.State.Pending) != 0 {
		t.Errorf("%v", err)
	}
	if waited := i.now.Sub(begun); waited != 90*time.Second {
		t.Errorf("waited %v; want the interval and Retry-After", waited)
	}
}

// answering changes the answers of one path.
type answering struct {
	http.RoundTripper
	change func(*http.Response)
	path   string
}

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := a.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Path == a.path {
		a.change(response)
	}
	return response, err
}

type body struct{ *strings.Reader }

func (body) Close() error { return nil }
