package oid4vci

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
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
		if form.Get("grant_type") != GrantType || request.secret == "" || request.txCode != nil && *request.txCode == "" {
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
		object, _, err := i.open(q, []byte(body))
		if err != nil {
			inTable(t, err, "invalid_credential_request", "invalid_encryption_parameters")
			return
		}
		// A grant that covers nothing: no body may get past it.
		_, err = i.requested(object, &store.Grant{Configurations: []string{pidID}})
		inTable(t, err, "invalid_credential_request", "unknown_credential_configuration", "unknown_credential_identifier", "insufficient_scope")
		b, err := i.checkProofs(t.Context(), c, object, &store.Grant{}, i.now())
		if err != nil {
			inTable(t, err, "invalid_credential_request", "invalid_proof")
		} else if len(b.holders) < 1 || len(b.holders) > c.BatchSize {
			t.Errorf("%d holders", len(b.holders))
		}
	})
}
