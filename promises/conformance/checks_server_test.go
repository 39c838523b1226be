package conformance

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// serverMetadata is authorization server metadata (RFC 8414 §2 and what extends
// it), without the members that this issuer does not use.
type serverMetadata struct {
	Issuer         string   `json:"issuer"`
	Token          string   `json:"token_endpoint"`
	Authorization  string   `json:"authorization_endpoint"`
	Challenge      string   `json:"challenge_endpoint"`
	Grants         []string `json:"grant_types_supported"`
	Responses      []string `json:"response_types_supported"`
	PKCE           []string `json:"code_challenge_methods_supported"`
	Scopes         []string `json:"scopes_supported"`
	Details        []string `json:"authorization_details_types_supported"`
	Methods        []string `json:"token_endpoint_auth_methods_supported"`
	Algorithms     []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	DPoP           []string `json:"dpop_signing_alg_values_supported"`
	Attestation    []string `json:"client_attestation_signing_alg_values_supported"`
	AttestationPoP []string `json:"client_attestation_pop_signing_alg_values_supported"`
	Anonymous      *bool    `json:"pre-authorized_grant_anonymous_access_supported"`
}

// server fetches it, and holds it against what every form must have: no empty
// arrays among it (check 069).
func (i *instance) server(t testing.TB) serverMetadata {
	t.Helper()
	a := i.do(t, http.MethodGet, i.wellKnown(serverName), nil)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %.300s", a.status, a.header, a.body)
	}
	var s serverMetadata
	if err := strictly(a.body, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCheckServerMetadata is of every instance.
func TestCheckServerMetadata(t *testing.T) {
	all := everywhere(t)
	all["unsigned"] = unsigned(t)
	for name, i := range all {
		s := i.server(t)
		origin, path := i.split()
		t.Run("058 where it is "+name, func(t *testing.T) {
			want := i.do(t, http.MethodGet, origin+"/.well-known/"+serverName+path, nil)
			for _, also := range []string{i.wellKnown("openid-configuration"), i.issuer + "/.well-known/openid-configuration"} {
				if a := i.do(t, http.MethodGet, also, nil); a.status != http.StatusOK || string(a.body) != string(want.body) || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s: %d %v", also, a.status, a.header)
				}
			}
		})
		t.Run("059 issuer "+name, func(t *testing.T) {
			if s.Issuer != i.issuer || s.Issuer != i.metadata(t).Issuer {
				t.Errorf("%s", s.Issuer)
			}
		})
		t.Run("060 token endpoint "+name, func(t *testing.T) {
			u, err := url.Parse(s.Token)
			if err != nil || u.Scheme != "https" || u.Host == "" || strings.Contains(s.Token, "#") {
				t.Errorf("%s", s.Token)
			}
			refused(t, i.do(t, http.MethodPost, s.Token, nil, "Content-Type", "application/x-www-form-urlencoded"), http.StatusBadRequest, "invalid_request")
		})
		t.Run("061 grants "+name, func(t *testing.T) {
			want := []string{grantType}
			if strings.HasPrefix(name, "draft") {
				want = append(want, "refresh_token")
			}
			if !slices.Equal(s.Grants, want) {
				t.Errorf("%v", s.Grants)
			}
		})
		t.Run("062 063 anonymous access "+name, func(t *testing.T) {
			anonymous := s.Anonymous != nil && *s.Anonymous
			if want := name != "haip"; anonymous != want || slices.Contains(s.Methods, "none") != want {
				t.Errorf("anonymous %v, methods %v", s.Anonymous, s.Methods)
			}
		})
		t.Run("064 response types "+name, func(t *testing.T) {
			// With the endpoint they are required (RFC 8414 §2).
			if want := name == "sealed"; (s.Authorization != "") != want || slices.Equal(s.Responses, []string{"code"}) != want || len(s.Responses) > 1 {
				t.Errorf("%q %v", s.Authorization, s.Responses)
			}
		})
		t.Run("065 authorization_details "+name, func(t *testing.T) {
			if !slices.Equal(s.Details, []string{"openid_credential"}) {
				t.Errorf("%v", s.Details)
			}
		})
		t.Run("048 scopes "+name, func(t *testing.T) {
			for id, c := range i.metadata(t).Configurations {
				if c.Scope != "" && !slices.Contains(s.Scopes, c.Scope) {
					t.Errorf("%s of %s is not in %v", c.Scope, id, s.Scopes)
				}
			}
		})
		t.Run("066 DPoP "+name, func(t *testing.T) {
			if len(s.DPoP) == 0 || !distinct(s.DPoP) || symmetric(s.DPoP) || !slices.Contains(s.DPoP, "ES256") {
				t.Errorf("%v", s.DPoP)
			}
		})
		t.Run("067 wallet attestation "+name, func(t *testing.T) {
			if !slices.Contains(s.Methods, "attest_jwt_client_auth") { // every instance has an attester
				t.Errorf("%v", s.Methods)
			}
			for _, list := range [][]string{s.Attestation, s.AttestationPoP} {
				if len(list) == 0 || !distinct(list) || symmetric(list) || !slices.Contains(list, "ES256") {
					t.Errorf("%v", list)
				}
			}
		})
		t.Run("068 challenges "+name, func(t *testing.T) {
			a := i.do(t, http.MethodPost, "/challenge", nil)
			switch {
			case name == "haip":
				if s.Challenge != i.issuer+"/challenge" || a.status != http.StatusOK || a.text(t, "attestation_challenge") == "" || a.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%q: %d %v %s", s.Challenge, a.status, a.header, a.body)
				}
			case s.Challenge != "" || a.status != http.StatusNotFound:
				t.Errorf("%q: %d", s.Challenge, a.status)
			}
		})
	}
	t.Run("065 without a scope", func(t *testing.T) {
		i := unsigned(t)
		if c := i.metadata(t).Configurations["check.scopeless"]; c == nil || c.Scope != "" {
			t.Fatalf("%+v", c)
		}
		// It is had by authorization_details, then.
		s := i.session(t, "check.scopeless", "authorization_details", `[{"type":"openid_credential","credential_configuration_id":"check.scopeless"}]`)
		if details, _ := s.answer.object(t)["authorization_details"].([]any); len(details) != 1 {
			t.Errorf("%s", s.answer.body)
		}
	})
	t.Run("069 empty arrays", func(t *testing.T) {
		for text, sound := range map[string]bool{`{"scopes_supported":[]}`: false, `{"grant_types_supported":null}`: false, `{"scopes_supported":["a"]}`: true, `{"x":"y"}`: false, `{"issuer":"a","issuer":"a"}`: false} {
			if err := strictly([]byte(text), &serverMetadata{}); (err == nil) != sound {
				t.Errorf("%s: %v", text, err) // the rule that [instance.server] applies
			}
		}
	})
}
