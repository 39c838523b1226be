package configuration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// What binds a credential to its holder, as a file says it and as the metadata
// shows it (OpenID4VCI 1.0 §12.2.4).
func TestBindingInMetadata(t *testing.T) {
	for name, c := range map[string]struct{ members, wants string }{
		"usual":                     {"", `{"jwt":{"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]}}`},
		"without binding":           {"key_binding = false", "null"},
		"with binding, said so":     {"key_binding = true", `{"jwt":{"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]}}`},
		"two types":                 {`proof_types = ["attestation", "di_vp"]`, `{"attestation":{"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]},"di_vp":{"proof_signing_alg_values_supported":["ecdsa-jcs-2019","eddsa-jcs-2022"]}}`},
		"attested, whatever it is":  {"[key_attestation]", `{"jwt":{"key_attestations_required":{},"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]}}`},
		"attested, with both lists": {"[key_attestation]\nkey_storage = [\"iso_18045_high\"]\nuser_authentication = [\"iso_18045_high\", \"x\"]", `{"jwt":{"key_attestations_required":{"key_storage":["iso_18045_high"],"user_authentication":["iso_18045_high","x"]},"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]}}`},
	} {
		parsed, err := Parse("x.toml", []byte(strings.Replace(small, "\n[[display]]", c.members+"\n\n[[display]]", 1)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		metadata := parsed.Metadata(nil)
		got, err := json.Marshal(metadata["proof_types_supported"])
		if err != nil || string(got) != c.wants {
			t.Errorf("%s: %s %v", name, got, err)
		}
		_, binding := metadata["cryptographic_binding_methods_supported"]
		if binding != (c.wants != "null") || parsed.Bound() != binding {
			t.Errorf("%s: cryptographic_binding_methods_supported and proof_types_supported must come together", name)
		}
	}
}

func TestBindingDefaultsAndBounds(t *testing.T) {
	parse := func(members string) (*Configuration, error) {
		return Parse("x.toml", []byte(strings.Replace(small, "\n[[display]]", members+"\n\n[[display]]", 1)))
	}
	c, err := parse("")
	if err != nil || c.BatchSize != 1 || c.Poll != 10*time.Second || c.Approval {
		t.Fatalf("%+v %v", c, err)
	}
	c, err = parse("batch_size = 64\napproval = true\npoll_interval = \"1h\"")
	if err != nil || c.BatchSize != 64 || c.Poll != time.Hour || !c.Approval {
		t.Fatalf("%+v %v", c, err)
	}
	for members, wants := range map[string]string{
		"batch_size = 65":                                 "batch_size: 65 is out of range: 1 to 64",
		"batch_size = -1":                                 "batch_size: -1 is out of range",
		`poll_interval = "0s"`:                            `poll_interval: "0s" is not a time span`,
		`poll_interval = "soon"`:                          `poll_interval: "soon" is not a time span`,
		`proof_types = ["cwt"]`:                           `proof_types[0]: "cwt" is not jwt, attestation or di_vp`,
		`proof_types = ["jwt", "jwt"]`:                    `proof_types[1]: "jwt" is not jwt, attestation or di_vp, or is there twice`,
		"key_binding = false\nbatch_size = 2":             "key_binding: without it there are no proof_types",
		"key_binding = false\nproof_types = [\"jwt\"]":    "key_binding: without it there are no proof_types",
		"proof_types = [\"di_vp\"]\n[key_attestation]":    "proof_types: a di_vp proof carries no key attestation",
		"[key_attestation]\nkey_storage = [\"\"]":         "key_attestation.key_storage: a value is empty",
		"[key_attestation]\nuser_authentication = [\"\"]": "key_attestation.user_authentication: a value is empty",
	} {
		if _, err := parse(members); err == nil || !strings.Contains(err.Error(), wants) {
			t.Errorf("%s: %v", members, err)
		}
	}
	mdoc := strings.NewReplacer(`format = "dc+sd-jwt"`, "format = \"mso_mdoc\"\nkey_binding = false", `vct = "urn:small"`, `doctype = "x"`).Replace(small)
	if _, err := Parse("x.toml", []byte(mdoc)); err == nil || !strings.Contains(err.Error(), "key_binding: an mdoc is always bound to a key") {
		t.Error(err)
	}
}
