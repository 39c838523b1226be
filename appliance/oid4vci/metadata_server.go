package oid4vci

import (
	"maps"
	"reflect"

	"chancery/issuance/jws"
)

// buildASMetadata makes the authorization server metadata (RFC 8414 §2,
// OpenID4VCI 1.0 §12.3). parts are what the parts of the token endpoint say of
// themselves, by member: the methods of client authentication and their
// algorithms, those of DPoP proofs. A member without elements is left out
// (RFC 8414 §3.2).
func (i *Issuer) buildASMetadata(parts ...map[string]any) (document, error) {
	grants := []string{GrantType}
	if i.options.Refresh.Enabled {
		grants = append(grants, RefreshGrant)
	}
	metadata := map[string]any{
		"issuer":                                          i.identifier,
		"token_endpoint":                                  i.identifier + "/token",
		"grant_types_supported":                           grants,
		"token_endpoint_auth_methods_supported":           []string{"none"},
		"authorization_details_types_supported":           []string{detailType},
		"pre-authorized_grant_anonymous_access_supported": *i.options.AnonymousAccess,
	}
	var ids []string
	for _, c := range i.ordered {
		ids = append(ids, c.ID)
	}
	if scopes := i.scopes(ids); len(scopes) > 0 {
		metadata["scopes_supported"] = scopes
	}
	if a := i.options.WalletAttestation; a.Challenges && len(a.Providers) > 0 {
		metadata["challenge_endpoint"] = i.identifier + "/challenge"
	}
	if i.options.AuthorizationEndpoint {
		// RFC 8414 §2 demands response types beside the endpoint; PKCE is what every
		// client of one must use (RFC 9700 §2.1.1). It redirects nowhere, so that
		// there is no iss parameter to announce (RFC 9207 §3).
		metadata["authorization_endpoint"] = i.identifier + "/authorize"
		metadata["response_types_supported"] = []string{"code"}
		metadata["code_challenge_methods_supported"] = []string{"S256"}
	}
	for _, part := range parts {
		maps.Copy(metadata, part)
	}
	maps.DeleteFunc(metadata, func(_ string, v any) bool {
		list := reflect.ValueOf(v)
		return list.Kind() == reflect.Slice && list.Len() == 0
	})
	body, err := jws.Marshal(metadata)
	if err != nil {
		return document{}, err
	}
	return newDocument("application/json", body), nil
}
