package clientauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// Check 85: who does not authenticate is let in where that is allowed, but not
// under a registered client's name.
func TestNone_85(t *testing.T) {
	open := newRig(t, func(_ *rig, o *Options) { o.Anonymous = true })
	closed := newRig(t, nil)
	for id, allowed := range map[string]bool{"": true, walletID: true, "x": true, clientID: false} {
		q := Request{Header: http.Header{}, Form: url.Values{"client_id": {id}}}
		got, err := open.authenticate(q)
		if allowed && (err != nil || got.ID != id || got.Authenticated || got.Method != None || got.InstanceKey != nil) {
			t.Errorf("%q: %+v, %v", id, got, err)
		}
		if !allowed {
			refused(t, id, err, InvalidClient)
		}
		_, err = closed.authenticate(q)
		refused(t, "closed: "+id, err, InvalidClient)
	}
	for _, id := range []string{"a\nb", "ä", strings.Repeat("x", maxID+1), " x"} {
		_, err := open.authenticate(Request{Form: url.Values{"client_id": {id}}})
		refused(t, id, err, InvalidRequest)
	}
}

// Secrets are not supported, in whatever way they come; two ways at once never are.
func TestOtherWays(t *testing.T) {
	r := newRig(t, func(_ *rig, o *Options) { o.Anonymous = true })
	_, err := r.authenticate(Request{Form: url.Values{"client_id": {"x"}, "client_secret": {"y"}}})
	refused(t, "client_secret_post", err, InvalidClient)
	for _, authorization := range []string{"Basic eDp5", "Bearer x"} {
		_, err := r.authenticate(Request{Header: http.Header{"Authorization": {authorization}}})
		var e *refusal.Refusal
		if !errors.As(err, &e) || e.Code != InvalidClient || e.Status != http.StatusUnauthorized || !strings.HasPrefix(e.Challenge, "Basic ") {
			t.Errorf("%s: %v", authorization, err)
		}
	}
	both := r.wallet(t, r.attestationClaims(t), r.popClaims())
	both.Form = asserted(trusttest.Token(t, r.client, nil, r.assertionClaims())).Form
	_, err = r.authenticate(both)
	refused(t, "two ways", err, InvalidRequest)
	if r.proofs.Len()+r.assertions.Len() != 0 {
		t.Error("a jti was consumed")
	}
}

// An issuer that believes no provider takes attestation headers for unknown ones.
func TestAttestationOff(t *testing.T) {
	r := newRig(t, func(_ *rig, o *Options) { o.Providers, o.Anonymous = nil, true })
	got, err := r.authenticate(r.wallet(t, r.attestationClaims(t), r.popClaims()))
	if err != nil || got.Authenticated || got.Method != None || got.ID != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

// private_key_jwt, with every algorithm, with kid and without, with client_id
// and without.
func TestAssertion(t *testing.T) {
	for _, algorithm := range issuancetest.Algorithms {
		r := newRig(t, func(r *rig, o *Options) {
			r.client = issuancetest.Key(t, algorithm)
			o.Clients[0].Keys = []trust.Key{{KeyID: "0", Public: issuancetest.Key(t, algorithm).Public()}, {KeyID: "1", Public: r.client.Public()}}
		})
		for _, header := range []map[string]any{nil, {"kid": "1"}, {"typ": "JWT"}} {
			for _, id := range []string{"", clientID} {
				q := asserted(trusttest.Token(t, r.client, header, r.assertionClaims()))
				q.Form.Set("client_id", id)
				got, err := r.authenticate(q)
				if err != nil || got.ID != clientID || !got.Authenticated || got.Method != PrivateKeyJWT || got.InstanceKey != nil {
					t.Errorf("%s: %+v, %v", algorithm, got, err)
				}
			}
		}
	}
}

// RFC 7523 §3 and FAPI 2.0 §5.3.2.1: each fault of an assertion is invalid_client.
func TestAssertionRefused(t *testing.T) {
	r := newRig(t, nil)
	claims := r.assertionClaims()
	changed := func(name string, value any) Request {
		return asserted(trusttest.Token(t, r.client, nil, trusttest.With(claims, name, value)))
	}
	form := func(name, value string) Request {
		q := asserted(trusttest.Token(t, r.client, nil, claims))
		q.Form.Set(name, value)
		return q
	}
	unknown := trusttest.With(trusttest.With(claims, "iss", "unknown"), "sub", "unknown")
	for name, q := range map[string]Request{
		"no type":            form("client_assertion_type", ""),
		"another type":       form("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"),
		"no assertion":       form("client_assertion", ""),
		"no token":           asserted("x"),
		"another client_id":  form("client_id", "another"),
		"none":               asserted(trusttest.Unsigned(t, nil, claims)),
		"HS256":              asserted(trusttest.TokenWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, nil, claims)),
		"another key":        asserted(trusttest.Token(t, r.instance, nil, claims)),
		"another kid":        asserted(trusttest.Token(t, r.client, map[string]any{"kid": "2"}, claims)),
		"unknown client":     asserted(trusttest.Token(t, r.client, nil, unknown)),
		"iss":                changed("iss", "another"),
		"no iss":             changed("iss", nil),
		"no sub":             changed("sub", nil),
		"sub":                changed("sub", "another"),
		"no aud":             changed("aud", nil),
		"aud array":          changed("aud", []string{audience}),
		"aud token endpoint": changed("aud", audience+"/token"),
		"aud slash":          changed("aud", audience+"/"),
		"no exp":             changed("exp", nil),
		"exp no date":        changed("exp", "x"),
		"expired":            changed("exp", r.now.Unix()),
		"good for too long":  changed("exp", r.now.Unix()+3661),
		"iat in the future":  changed("iat", r.now.Unix()+61),
		"iat no date":        changed("iat", "x"),
		"nbf in the future":  changed("nbf", r.now.Unix()+61),
		"no jti":             changed("jti", nil),
		"jti no text":        changed("jti", 1),
		"long jti":           changed("jti", strings.Repeat("x", maxJTI+1)),
		"longer than may be": changed("x", strings.Repeat("x", maxToken)),
		"a member twice":     asserted("eyJhbGciOiJFUzI1NiIsImFsZyI6IkVTMjU2In0.e30.AAAA"),
	} {
		_, err := r.authenticate(q)
		refused(t, name, err, InvalidClient)
	}
	if r.assertions.Len() != 0 {
		t.Error("a refused assertion's jti was consumed")
	}
	for name, q := range map[string]map[string]any{
		"no iat": trusttest.With(r.assertionClaims(), "iat", nil), "iat 10 seconds ahead": trusttest.With(r.assertionClaims(), "iat", r.now.Unix()+10),
		"exp in an hour": trusttest.With(r.assertionClaims(), "exp", r.now.Unix()+3600), "the jti of those refused": claims,
	} {
		if _, err := r.authenticate(asserted(trusttest.Token(t, r.client, nil, q))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An assertion is used once, for as long as it could be.
func TestAssertionReplay(t *testing.T) {
	r := newRig(t, nil)
	q := asserted(trusttest.Token(t, r.client, nil, trusttest.With(r.assertionClaims(), "exp", r.now.Unix()+3600)))
	if _, err := r.authenticate(q); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		_, err := r.authenticate(q)
		if e := refused(t, "again", err, InvalidClient); !strings.Contains(e.Description, "used before") {
			t.Errorf("%s: %v", r.now.Sub(trusttest.Now), e)
		}
		r.now = r.now.Add(11*time.Minute + 59*time.Second)
	}
}

// What authorization server metadata says is what is accepted, and nothing is empty.
func TestMetadata_67(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*rig, *Options)
		want   string
	}{
		"all":    {func(_ *rig, o *Options) { o.Anonymous = true }, `{"client_attestation_pop_signing_alg_values_supported":["ES256","ES384","ES512","EdDSA"],"client_attestation_signing_alg_values_supported":["ES256","ES384","ES512","EdDSA"],"token_endpoint_auth_methods_supported":["none","private_key_jwt","attest_jwt_client_auth","attest_jwt_client_auth_dpop"],"token_endpoint_auth_signing_alg_values_supported":["ES256","ES384","ES512","EdDSA"]}`},
		"wallet": {func(_ *rig, o *Options) { o.Clients, o.Algorithms = nil, []issuance.Algorithm{issuance.ES256} }, `{"client_attestation_pop_signing_alg_values_supported":["ES256"],"client_attestation_signing_alg_values_supported":["ES256"],"token_endpoint_auth_methods_supported":["attest_jwt_client_auth","attest_jwt_client_auth_dpop"]}`},
		"client": {func(_ *rig, o *Options) { o.Providers, o.Algorithms = nil, []issuance.Algorithm{issuance.ES256} }, `{"token_endpoint_auth_methods_supported":["private_key_jwt"],"token_endpoint_auth_signing_alg_values_supported":["ES256"]}`},
		"nobody": {func(_ *rig, o *Options) { o.Providers, o.Clients = nil, nil }, `{}`},
	} {
		got, err := json.Marshal(newRig(t, c.change).Metadata())
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

// Registered clients that could not authenticate are refused at start.
func TestNewRefuses(t *testing.T) {
	key := trust.Key{Public: issuancetest.Key(t, issuance.ES256).Public()}
	for name, clients := range map[string][]Client{
		"no id": {{Keys: []trust.Key{key}}}, "twice": {{ID: "a", Keys: []trust.Key{key}}, {ID: "a", Keys: []trust.Key{key}}}, "no keys": {{ID: "a"}},
		"no text": {{ID: "a\n", Keys: []trust.Key{key}}}, "no key": {{ID: "a", Keys: []trust.Key{{Public: "x"}}}},
	} {
		if _, err := New(Options{Clients: clients}); err == nil || !strings.Contains(err.Error(), "client ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
