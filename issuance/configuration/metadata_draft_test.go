package configuration

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"chancery/issuance"
)

// asJSON brings metadata to the form that a wallet decodes.
func asJSON(t *testing.T, v any) map[string]any {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDraftMetadata: the examples in both drafts' forms. What 1.0 has in
// credential_metadata stands in the configuration itself.
func TestDraftMetadata(t *testing.T) {
	algorithms := []issuance.Algorithm{issuance.ES256, issuance.ES384}
	for id, c := range load(t) {
		final := asJSON(t, c.Metadata(algorithms))
		metadata := final["credential_metadata"].(map[string]any)
		for _, draft := range []string{Draft13, Draft15} {
			t.Run(id+" "+draft, func(t *testing.T) {
				got := asJSON(t, c.DraftMetadata(draft, algorithms))
				if !reflect.DeepEqual(got["display"], metadata["display"]) || got["credential_metadata"] != nil ||
					!reflect.DeepEqual(got["credential_signing_alg_values_supported"], []any{"ES256", "ES384"}) {
					t.Errorf("%v", got)
				}
				// The drafts' ldp_vp is another proof than di_vp, and is not promised.
				types := final["proof_types_supported"].(map[string]any)
				delete(types, "di_vp")
				for _, same := range []string{"scope", "doctype", "vct", "cryptographic_binding_methods_supported", "proof_types_supported"} {
					if !reflect.DeepEqual(got[same], final[same]) {
						t.Errorf("%s: %v, in 1.0 %v", same, got[same], final[same])
					}
				}
				if draft == Draft15 {
					if !reflect.DeepEqual(got["claims"], metadata["claims"]) || got["order"] != nil || got["format"] != final["format"] {
						t.Errorf("%v", got)
					}
					return
				}
				checkNested(t, c, got)
			})
		}
	}
}

// checkNested finds each claim of the file where draft 13 has it.
func checkNested(t *testing.T, c *Configuration, got map[string]any) {
	t.Helper()
	claims, format := got["claims"], string(c.Format)
	switch c.Format {
	case issuance.FormatSDJWT:
		format = "vc+sd-jwt"
	case issuance.FormatJWTVC:
		claims = got["credential_definition"].(map[string]any)["credentialSubject"]
		if got["claims"] != nil {
			t.Error("claims outside of the credential's definition")
		}
	}
	if got["format"] != format {
		t.Errorf("format %v", got["format"])
	}
	order, _ := got["order"].([]any)
	at := 0
	for i, claim := range c.Claims {
		v := claims
		for _, step := range claim.Path {
			v = v.(map[string]any)[step]
		}
		found, ok := v.(map[string]any)
		_, mandatory := found["mandatory"]
		display, _ := found["display"].([]any)
		if !ok || found["path"] != nil || mandatory != (claim.Required || claim.Value != nil || claim.Default != nil) || len(display) != len(claim.Display) {
			t.Errorf("claim %v: %v", claim.Path, v)
		}
		name := claim.Path[0]
		if c.Format == issuance.FormatMdoc {
			name = claim.Path[0] + "~" + claim.Path[1]
		}
		if i > 0 && at > 0 && order[at-1] == name {
			continue // several within one
		}
		if at >= len(order) || order[at] != name {
			t.Fatalf("order %v, want %s at %d", order, name, at)
		}
		at++
	}
	if at != len(order) {
		t.Errorf("order %v has more than the claims", order)
	}
}

// TestDraftProofTypes: a draft's wallets are told of the proofs that they know,
// and of no configuration that takes none of these.
func TestDraftProofTypes(t *testing.T) {
	const algorithms = `"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]`
	for members, wants := range map[string]struct{ draft13, draft15 string }{
		"":                                            {`{"jwt":{` + algorithms + `}}`, `{"jwt":{` + algorithms + `}}`},
		"key_binding = false":                         {"null", "null"},
		`proof_types = ["di_vp"]`:                     {"", ""},
		`proof_types = ["jwt", "di_vp"]`:              {`{"jwt":{` + algorithms + `}}`, `{"jwt":{` + algorithms + `}}`},
		`proof_types = ["attestation"]`:               {"", `{"attestation":{` + algorithms + `}}`},
		`proof_types = ["jwt", "attestation"]`:        {`{"jwt":{` + algorithms + `}}`, `{"attestation":{` + algorithms + `},"jwt":{` + algorithms + `}}`},
		"[key_attestation]":                           {"", `{"jwt":{"key_attestations_required":{},` + algorithms + `}}`},
		"key_binding = true\nproof_types = [\"jwt\"]": {`{"jwt":{` + algorithms + `}}`, `{"jwt":{` + algorithms + `}}`},
	} {
		c, err := Parse("x.toml", []byte(strings.Replace(small, "\n[[display]]", members+"\n\n[[display]]", 1)))
		if err != nil {
			t.Fatalf("%s: %v", members, err)
		}
		for draft, want := range map[string]string{Draft13: wants.draft13, Draft15: wants.draft15} {
			metadata := c.DraftMetadata(draft, nil)
			if (metadata == nil) != (want == "") {
				t.Errorf("%q in %s: %v", members, draft, metadata)
			}
			if metadata == nil {
				continue
			}
			got, err := json.Marshal(metadata["proof_types_supported"])
			_, binding := metadata["cryptographic_binding_methods_supported"]
			if err != nil || string(got) != want || binding != (want != "null") {
				t.Errorf("%q in %s: %s %v", members, draft, got, err)
			}
			if _, has := metadata["credential_signing_alg_values_supported"]; has {
				t.Errorf("%q in %s: algorithms of no key", members, draft)
			}
		}
	}
}

// TestMetadataWithoutKeys: nothing is said of signing algorithms while the
// signer's keys are not known.
func TestMetadataWithoutKeys(t *testing.T) {
	for id, c := range load(t) {
		if _, has := c.Metadata(nil)["credential_signing_alg_values_supported"]; has {
			t.Errorf("%s: algorithms of no key", id)
		}
	}
}
