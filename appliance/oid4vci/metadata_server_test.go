package oid4vci

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"chancery/config"
)

// serverMetadata fetches the authorization server's metadata.
func serverMetadata(t *testing.T, client *http.Client, i *Issuer) map[string]any {
	t.Helper()
	a := do(t, client, http.MethodGet, strings.TrimSuffix(i.identifier, i.path)+"/.well-known/oauth-authorization-server"+i.path, nil)
	want(t, a.status == http.StatusOK && a.header.Get("Content-Type") == "application/json", "check 58", a.header)
	return a.object(t)
}

// TestChecks59To69ASMetadata: the authorization server's metadata with everything
// off, member for member.
func TestChecks59To69ASMetadata(t *testing.T) {
	i, client := unsigned(t, config.Issuer{Identifier: "https://issuer.example.com/t"})
	got := serverMetadata(t, client, i)
	for name, value := range map[string]any{
		"issuer":                                          "https://issuer.example.com/t",       // check 59
		"token_endpoint":                                  "https://issuer.example.com/t/token", // check 60
		"grant_types_supported":                           []any{GrantType},                     // check 61
		"token_endpoint_auth_methods_supported":           []any{"none"},
		"authorization_details_types_supported":           []any{"openid_credential"},                                     // check 65
		"pre-authorized_grant_anonymous_access_supported": true,                                                           // check 63
		"scopes_supported":                                []any{"eu.europa.ec.eudi.pid.mdoc", pidID, residenceID, mdlID}, // in file order
	} {
		want(t, string(encode(t, got[name])) == string(encode(t, value)), name, got[name])
		delete(got, name)
	}
	delete(got, "dpop_signing_alg_values_supported") // check 66: DPoP is always there
	want(t, len(got) == 0, "check 64, 69: further members", got)
}

// TestChecks61To68EverythingOn: every switch shows.
func TestChecks61To68EverythingOn(t *testing.T) {
	const identifier = "https://issuer.example.com/t"
	i, _ := described(t, allOn(t, identifier), everything(t), encryptionMetadata{})
	// What the parts of the token endpoint hand over.
	algorithms := []string{"ES256", "EdDSA"}
	var err error
	i.asMetadata, err = i.buildASMetadata(
		map[string]any{"token_endpoint_auth_methods_supported": []string{"none", "private_key_jwt", "attest_jwt_client_auth"}, "token_endpoint_auth_signing_alg_values_supported": algorithms,
			"client_attestation_signing_alg_values_supported": algorithms, "client_attestation_pop_signing_alg_values_supported": algorithms},
		map[string]any{"dpop_signing_alg_values_supported": algorithms, "acr_values_supported": []string{}, "ui_locales_supported": []string(nil)})
	if err != nil {
		t.Fatal(err)
	}
	got := serverMetadata(t, serve(t, i.Handler()), i)
	for name, value := range map[string]any{
		"61 grant_types_supported":                               []any{GrantType, "refresh_token"},
		"66 dpop_signing_alg_values_supported":                   algorithms,
		"67 token_endpoint_auth_methods_supported":               []any{"none", "private_key_jwt", "attest_jwt_client_auth"},
		"67 client_attestation_signing_alg_values_supported":     algorithms,
		"67 client_attestation_pop_signing_alg_values_supported": algorithms,
		"67 token_endpoint_auth_signing_alg_values_supported":    algorithms,
		"68 challenge_endpoint":                                  identifier + "/challenge",
		"64 authorization_endpoint":                              identifier + "/authorize",
		"64 response_types_supported":                            []any{"code"},
		"64 code_challenge_methods_supported":                    []any{"S256"},
		"64 authorization_response_iss_parameter_supported":      nil,
		"69 acr_values_supported":                                nil,
		"69 ui_locales_supported":                                nil,
		"65 authorization_details_types_supported":               []any{"openid_credential"},
		"65 scopes_supported":                                    []any{"eu.europa.ec.eudi.pid.mdoc", pidID, residenceID, mdlID, "attested", "presented", "bearer"}, // each once
		"63 pre-authorized_grant_anonymous_access_supported":     true,
	} {
		t.Run(name, func(t *testing.T) {
			_, member, _ := strings.Cut(name, " ")
			want(t, string(encode(t, got[member])) == string(encode(t, value)), member, got[member])
		})
	}
	symmetric := regexp.MustCompile(`^(none|HS.*)$`)
	for name, v := range got {
		list, _ := v.([]any)
		if strings.HasSuffix(name, "_alg_values_supported") {
			for _, a := range list {
				want(t, !symmetric.MatchString(a.(string)), "check 66: "+name, a)
			}
		}
		if strings.HasSuffix(name, "_endpoint") {
			u, err := url.Parse(v.(string))
			want(t, err == nil && u.Scheme == "https" && u.Fragment == "", "check 60: "+name, v)
		}
	}
}

// TestCheck62Anonymous: without anonymous access the member says so.
func TestCheck62Anonymous(t *testing.T) {
	settings := allOn(t, "https://issuer.example.com")
	no := false
	settings.AnonymousAccess = &no
	i, client := unsigned(t, settings)
	value, has := serverMetadata(t, client, i)["pre-authorized_grant_anonymous_access_supported"]
	want(t, !has || value == false, "pre-authorized_grant_anonymous_access_supported", value)
}

// TestCheck68Challenges: the endpoint is announced when challenges are demanded
// and there is somebody whose attestations are believed.
func TestCheck68Challenges(t *testing.T) {
	for name, change := range map[string]func(*config.WalletAttestation){
		"no challenges": func(a *config.WalletAttestation) { a.Challenges = false },
		"no providers":  func(a *config.WalletAttestation) { a.Providers = nil },
	} {
		settings := allOn(t, "https://issuer.example.com")
		change(&settings.WalletAttestation)
		i, client := unsigned(t, settings)
		v := serverMetadata(t, client, i)["challenge_endpoint"]
		want(t, v == nil, name, v)
	}
}
