package wallet

import (
	"errors"
	"fmt"
	"slices"
)

// The methods of client authentication that the wallet has.
const (
	methodNone       = "none"
	methodKey        = "private_key_jwt"
	methodAttest     = "attest_jwt_client_auth"
	methodAttestDPoP = "attest_jwt_client_auth_dpop"
)

// Server is what the wallet needs of the authorization server's metadata (RFC
// 8414 §2, OpenID4VCI 1.0 §12.3). What is not advertised is empty.
type Server struct {
	Issuer            string
	TokenEndpoint     string
	ChallengeEndpoint string
	// Anonymous is pre-authorized_grant_anonymous_access_supported.
	Anonymous bool
	// Grants are the grant_types_supported.
	Grants []string
	// Methods are the token_endpoint_auth_methods_supported, MethodAlgorithms
	// the algorithms of those with a JWT.
	Methods, MethodAlgorithms []string
	// DPoP are the dpop_signing_alg_values_supported.
	DPoP []string
	// Attestation and AttestationPoP are the algorithms of wallet attestations
	// and of their proofs of possession.
	Attestation, AttestationPoP []string
	// Details are the authorization_details_types_supported.
	Details []string
}

// parseServer checks the authorization server's metadata (RFC 8414 §2, §3;
// OpenID4VCI 1.0 §12.3; RFC 9449 §5.1; ABCA-07 §10.1).
func parseServer(object map[string]any, server string) (Server, error) {
	s := Server{Issuer: server, Anonymous: object["pre-authorized_grant_anonymous_access_supported"] == true}
	if object["issuer"] != server {
		return s, errors.New("issuer is not the identifier it was asked for")
	}
	for name, value := range object {
		if list, ok := value.([]any); ok && len(list) == 0 {
			return s, fmt.Errorf("%s is an empty array, which must be left out", name)
		}
	}
	var err error
	for name, to := range map[string]*[]string{
		"grant_types_supported": &s.Grants, "token_endpoint_auth_methods_supported": &s.Methods,
		"token_endpoint_auth_signing_alg_values_supported": &s.MethodAlgorithms, "dpop_signing_alg_values_supported": &s.DPoP,
		"client_attestation_signing_alg_values_supported": &s.Attestation, "client_attestation_pop_signing_alg_values_supported": &s.AttestationPoP,
		"authorization_details_types_supported": &s.Details,
	} {
		if _, found := object[name]; !found && to != &s.Grants {
			continue
		}
		if *to, err = texts(object, name); err != nil {
			return s, err
		}
	}
	if !slices.Contains(s.Grants, grantType) {
		return s, errors.New("grant_types_supported lacks the pre-authorized code")
	}
	if slices.Contains(s.Methods, methodKey) && s.MethodAlgorithms == nil {
		return s, errors.New("token_endpoint_auth_signing_alg_values_supported is missing, which private_key_jwt needs")
	}
	if slices.Contains(s.Methods, methodAttest) && (s.Attestation == nil || s.AttestationPoP == nil) {
		return s, errors.New("client_attestation_signing_alg_values_supported or client_attestation_pop_signing_alg_values_supported is missing, which attest_jwt_client_auth needs")
	}
	for _, list := range [][]string{s.MethodAlgorithms, s.DPoP, s.Attestation, s.AttestationPoP} {
		if slices.Contains(list, "none") {
			return s, errors.New("a list of signing algorithms has none")
		}
	}
	if s.TokenEndpoint, err = endpoint(object, "token_endpoint"); err != nil {
		return s, err
	}
	if _, found := object["challenge_endpoint"]; found {
		s.ChallengeEndpoint, err = endpoint(object, "challenge_endpoint")
	}
	return s, err
}
