package oid4vci

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance"
	"chancery/issuance/jws"
)

// inTable fails unless an error is one of the endpoint's table.
func inTable(t *testing.T, err error, codes ...string) {
	t.Helper()
	var e *refusal.Refusal
	if !errors.As(err, &e) || !slices.Contains(codes, e.Code) || e.Description == "" {
		t.Errorf("%v is not of the endpoint's table", err)
	}
}

// FuzzTokenRequest: a body gives a request or an error of RFC 6749 §5.2.
func FuzzTokenRequest(f *testing.F) {
	const grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Apre-authorized_code"
	for _, seed := range []string{
		grant + "&pre-authorized_code=" + strings.Repeat("A", 40),
		grant + "&pre-authorized_code=x&tx_code=012345&client_id=wallet&scope=a+b",
		grant + "&pre-authorized_code=x&authorization_details=%5B%7B%22type%22%3A%22openid_credential%22%7D%5D",
		grant + "&pre-authorized_code=x&pre-authorized_code=y", grant + "&resource=a&resource=b", "grant_type=password", "", "&&&", "%zz", "a;b", "=", "client_id=%00",
	} {
		f.Add(seed)
	}
	i, _ := unsigned(f, signertestIssuer)
	f.Fuzz(func(t *testing.T, body string) {
		q := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body))
		q.Header.Set("Content-Type", formType)
		form, err := readForm(q)
		if err != nil {
			inTable(t, err, "invalid_request")
			return
		}
		request, err := i.parseToken(q, form)
		if err != nil {
			inTable(t, err, "invalid_request", "unsupported_grant_type", "invalid_client")
			return
		}
		if form.Get("grant_type") != GrantType || request.code == "" || request.txCode != nil && *request.txCode == "" {
			t.Errorf("%+v", request)
		}
	})
}

// FuzzDetails: what is granted by authorization_details was offered, is named
// once, and can be answered.
func FuzzDetails(f *testing.F) {
	for _, seed := range []string{
		`[{"type":"openid_credential","credential_configuration_id":"a"}]`,
		`[{"type":"openid_credential","credential_configuration_id":"a","claims":[{"path":["x",null,0]}],"locations":["https://x"],"x":1}]`,
		`[{"type":"openid_credential","credential_configuration_id":"a"},{"type":"openid_credential","credential_configuration_id":"b"}]`,
		`[]`, `null`, `{}`, `[`, `[{"type":"x"}]`, `[1]`, `[{}],"d":[]`, `[{"type":"openid_credential","credential_configuration_id":"a"}]}{`,
	} {
		f.Add(seed)
	}
	offered := []string{"a", "b"}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseDetails(text, offered)
		if err != nil {
			inTable(t, err, "invalid_authorization_details")
			return
		}
		seen := map[string]bool{}
		for _, d := range list {
			if !slices.Contains(offered, d.Configuration) || seen[d.Configuration] || d.Type != detailType || len(d.Identifiers) == 0 {
				t.Errorf("%+v", d)
			}
			seen[d.Configuration] = true
		}
		if data, err := json.Marshal(list); err != nil || len(list) == 0 || !json.Valid([]byte(text)) {
			t.Errorf("%q gives %s, %v", text, data, err)
		}
	})
}

// FuzzCredentialRequest: a body gives proofs or an error of OpenID4VCI 1.0 §8.3.1.
func FuzzCredentialRequest(f *testing.F) {
	for _, c := range requestCases {
		if len(c.body) < 4096 {
			f.Add(c.body)
		}
	}
	i, _ := unsigned(f, signertestIssuer)
	c := i.configurations[pidID]
	f.Fuzz(func(t *testing.T, body string) {
		q := httptest.NewRequest(http.MethodPost, "/credential", nil)
		q.Header.Set("Content-Type", jsonType)
		// A grant that covers nothing: no body may get past it.
		_, err := i.readRequest(q, &store.Grant{Configurations: []string{pidID}}, []byte(body))
		inTable(t, err, "invalid_credential_request", "unknown_credential_configuration", "unknown_credential_identifier", "insufficient_scope")
		object, err := jws.Object([]byte(body))
		if err != nil {
			return
		}
		proofs, err := proofsOf(object, c)
		if err != nil {
			inTable(t, err, "invalid_credential_request", "invalid_proof")
		} else if len(proofs) < 1 || len(proofs) > c.BatchSize {
			t.Errorf("%d proofs", len(proofs))
		}
	})
}

// FuzzProof: a proof that is taken is one that go-jose verifies too, with the
// key that is bound, and says what it must say.
func FuzzProof(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	rules := proofRules{audience: "https://issuer.example.com", methods: []string{"jwk", "did:jwk", "did:key"}, client: "wallet", past: time.Minute, now: now}
	for _, algorithm := range []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.EdDSA} {
		h := newHolder(f, algorithm)
		f.Add(h.proof(f, rules.audience, "nonce", now, nil))
		for _, method := range []string{"did:jwk", "did:key"} {
			f.Add(h.proof(f, rules.audience, "nonce", now, func(header, claims map[string]any) {
				delete(header, "jwk")
				header["kid"], claims["iss"] = h.kid(f, method), "wallet"
			}))
		}
		m := maker{TB: f, h: h, other: h, now: now}
		f.Add(h.proof(f, rules.audience, "nonce", now, func(header, _ map[string]any) {
			delete(header, "jwk")
			header["x5c"] = []string{m.certificate(h.private.Public())}
		}))
	}
	f.Add(exampleProof)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, compact string) {
		p, err := checkProof(compact, rules)
		if err != nil {
			inTable(t, err, "invalid_proof")
			return
		}
		signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
		if err != nil {
			t.Fatalf("go-jose does not read %q: %v", compact, err)
		}
		payload, err := signed.Verify(p.key)
		if err != nil {
			t.Fatalf("go-jose does not verify %q: %v", compact, err)
		}
		var claims struct {
			Audience string `json:"aud"`
			Nonce    string `json:"nonce"`
		}
		if err := json.Unmarshal(payload, &claims); err != nil || claims.Audience != rules.audience || claims.Nonce != p.nonce || p.nonce == "" {
			t.Errorf("%s %v", payload, err)
		}
	})
}
