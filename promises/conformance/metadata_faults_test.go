package conformance

import (
	"fmt"
	"strings"
	"testing"
)

// absent takes a member away.
var absent = struct{}{}

// put sets what is at a path of names and indexes.
func put(v any, value any, path ...any) {
	for _, step := range path[:len(path)-1] {
		if n, isIndex := step.(int); isIndex {
			v = v.([]any)[n]
		} else {
			v = v.(map[string]any)[step.(string)]
		}
	}
	switch last := path[len(path)-1].(type) {
	case int:
		v.([]any)[last] = value
	case string:
		if value == absent {
			delete(v.(map[string]any), last)
		} else {
			v.(map[string]any)[last] = value
		}
	}
}

// TestMetadataRulesFindFaults: real metadata, spoilt in one place, is found to be
// faulty by the rule that is for it, or by its strict decoding.
func TestMetadataRulesFindFaults(t *testing.T) {
	const configurations = "credential_configurations_supported"
	i := plain(t)
	type at = []any
	for name, c := range map[string]struct {
		path  []any
		value any
	}{
		"023 a slash":               {at{"credential_issuer"}, i.issuer + "/"},
		"029 http":                  {at{"nonce_endpoint"}, "http://localhost/nonce"},
		"029 a fragment":            {at{"credential_endpoint"}, i.issuer + "/credential#a"},
		"029 no deferred endpoint":  {at{"deferred_credential_endpoint"}, absent},
		"030 a query":               {at{"credential_issuer"}, i.issuer + "?a"},
		"031 none":                  {at{configurations}, map[string]any{}},
		"031 no format":             {at{configurations, mdl, "format"}, absent},
		"031 an old format":         {at{configurations, pidSDJWT, "format"}, "vc+sd-jwt"},
		"032 no proof types":        {at{configurations, pidSDJWT, "proof_types_supported"}, absent},
		"033 no binding":            {at{configurations, pidSDJWT, "cryptographic_binding_methods_supported"}, absent},
		"034 an old proof type":     {at{configurations, pidSDJWT, "proof_types_supported", "cwt"}, map[string]any{"proof_signing_alg_values_supported": []any{"ES256"}}},
		"034 no algorithms":         {at{configurations, pidSDJWT, "proof_types_supported", "jwt", "proof_signing_alg_values_supported"}, absent},
		"034 HS256":                 {at{configurations, pidSDJWT, "proof_types_supported", "jwt", "proof_signing_alg_values_supported", 0}, "HS256"},
		"037 doctype":               {at{configurations, mdl, "doctype"}, absent},
		"037 algorithms are texts":  {at{configurations, mdl, "credential_signing_alg_values_supported", 0}, "ES256"},
		"037 binding":               {at{configurations, mdl, "cryptographic_binding_methods_supported", 0}, "jwk"},
		"038 vct":                   {at{configurations, pidSDJWT, "vct"}, absent},
		"038 algorithms are -7":     {at{configurations, pidSDJWT, "credential_signing_alg_values_supported", 0}, -7},
		"039 type":                  {at{configurations, residence, "credential_definition", "type"}, []any{"VerifiableCredential"}},
		"040 a language twice":      {at{"display", 1, "locale"}, "en"},
		"040 no name":               {at{configurations, mdl, "credential_metadata", "display", 0, "name"}, absent},
		"040 logo":                  {at{"display", 0, "logo"}, map[string]any{"alt_text": "Arms"}},
		"041 one step in an mdoc":   {at{configurations, mdl, "credential_metadata", "claims", 0, "path"}, []any{"family_name"}},
		"041 the same twice":        {at{configurations, pidSDJWT, "credential_metadata", "claims", 1, "path"}, []any{"family_name"}},
		"041 a negative index":      {at{configurations, pidSDJWT, "credential_metadata", "claims", 1, "path"}, []any{"a", -1}},
		"042 a name":                {at{configurations, pidSDJWT, "credential_metadata", "display", 0, "text_color"}, "white"},
		"043 one":                   {at{"batch_credential_issuance", "batch_size"}, 1},
		"043 nothing":               {at{"batch_credential_issuance", "batch_size"}, absent},
		"044 a private key":         {at{"credential_request_encryption", "jwks", "keys", 0, "d"}, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
		"044 no alg":                {at{"credential_request_encryption", "jwks", "keys", 0, "alg"}, absent},
		"044 no kid":                {at{"credential_request_encryption", "jwks", "keys", 0, "kid"}, absent},
		"044 nothing required":      {at{"credential_request_encryption", "encryption_required"}, absent},
		"045 no alg":                {at{"credential_response_encryption", "alg_values_supported"}, absent},
		"046 response alone":        {at{"credential_request_encryption"}, absent},
		"047 no nonces":             {at{"nonce_endpoint"}, absent},
		"049 signed_metadata":       {at{"signed_metadata"}, "a.b.c"},
		"strict: an empty array":    {at{"credential_response_encryption", "zip_values_supported"}, []any{}},
		"strict: null":              {at{"display"}, nil},
		"strict: an unknown member": {at{configurations, mdl, "display"}, []any{map[string]any{"name": "a"}}},
		"strict: draft 13's claims": {at{configurations, mdl, "claims"}, map[string]any{"a": map[string]any{}}},
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := i.metadata(t).all
			put(spoilt, c.value, c.path...)
			m, err := parseMetadata(marshal(t, spoilt))
			if strings.HasPrefix(name, "strict") {
				if err == nil {
					t.Error("it was decoded")
				}
				return
			}
			if err != nil && !strings.HasPrefix(name, "049") { // which no type has
				t.Fatal(err)
			}
			number, _, _ := strings.Cut(name, " ")
			var found []string
			for rule, apply := range metadataRules {
				if err == nil && strings.Contains(rule, number) {
					apply(func(holds bool, format string, args ...any) {
						if !holds {
							found = append(found, fmt.Sprintf(format, args...))
						}
					}, m, i.issuer)
				}
			}
			if err == nil && len(found) == 0 {
				t.Error("no fault was found")
			}
		})
	}
}
