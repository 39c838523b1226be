package oid4vci

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/issuance"
	"chancery/issuance/configuration"
)

var update = flag.Bool("update", false, "write the golden files anew")

// further are configurations that use what the examples do not.
const further = `
id = "attested"
format = "dc+sd-jwt"
scope = "attested"
signer = "cs-1"
vct = "urn:example:attested"
validity = "336h"
proof_types = ["jwt", "attestation"]
batch_size = 20
approval = true
display = [{ name = "Attested", locale = "en", background_color = "#12107c", logo_uri = "https://issuer.example.com/l.svg", logo_alt = "Arms" }, { name = "Bestätigt", locale = "de-AT" }]
claims = [{ path = ["a", "b"], type = "text", default = "x", display = { fr = "A", en = "A" } }, { path = ["a", "c"], type = "text" }, { path = ["d"], type = "texts" }]
[key_attestation]
key_storage = ["iso_18045_high", "iso_18045_moderate"]
user_authentication = ["iso_18045_high"]
---
id = "attested-by-anybody"
format = "mso_mdoc"
scope = "attested"
signer = "ds-1"
doctype = "org.example.attested"
validity = "336h"
proof_types = ["attestation"]
batch_size = 3
display = [{ name = "Attested" }]
claims = [{ path = ["org.example", "a"], type = "text", required = true }]
[key_attestation]
---
id = "presented"
format = "jwt_vc_json"
scope = "presented"
signer = "did-1"
types = ["Presented"]
validity = "336h"
proof_types = ["di_vp"]
display = [{ name = "Presented", locale = "en" }]
claims = [{ path = ["degree", "name"], type = "text" }, { path = ["value"], type = "text", value = "x" }]
---
id = "bearer"
format = "dc+sd-jwt"
scope = "bearer"
signer = "cs-1"
vct = "urn:example:bearer"
validity = "336h"
key_binding = false
display = [{ name = "Bearer", locale = "en" }]
claims = [{ path = ["a"], type = "text" }]
`

// everything are the examples' configurations and the further ones.
func everything(t testing.TB) []*configuration.Configuration {
	t.Helper()
	all := examples(t)
	for text := range strings.SplitSeq(further, "---\n") {
		c, err := configuration.Parse("further.toml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// publicKeys writes a JWK Set with one key into a file.
func publicKeys(t testing.TB) string {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: newHolder(t, issuance.ES256).private.Public(), KeyID: "1", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// allOn is an issuer with every switch that metadata shows turned on.
func allOn(t testing.TB, identifier string) config.Issuer {
	t.Helper()
	no := false
	attester := []config.Attester{{Name: "Utopia", Keys: publicKeys(t)}}
	return config.Issuer{Identifier: identifier, AuthorizationEndpoint: true,
		Display:           []config.Display{{Name: "Utopia", Locale: "en", LogoURI: "https://issuer.example.com/logo.svg", LogoAlt: "Arms"}, {Name: "Utopien", Locale: "de"}},
		Refresh:           config.Refresh{Enabled: true},
		WalletAttestation: config.WalletAttestation{Providers: attester, Challenges: true, RequireChain: &no},
		KeyAttestation:    config.KeyAttestation{Providers: attester, RequireChain: &no}}
}

// encrypted is what encryption publishes with two keys.
func encrypted(t testing.TB) encryptionMetadata {
	t.Helper()
	var keys []any
	for _, kid := range []string{"1", "2"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: "ECDH-ES", Use: "enc"})
	}
	enc, zip := []string{"A128GCM", "A256GCM"}, []string{"DEF"}
	return encryptionMetadata{
		request:  map[string]any{"jwks": map[string]any{"keys": keys}, "enc_values_supported": enc, "zip_values_supported": zip, "encryption_required": true},
		response: map[string]any{"alg_values_supported": []string{"ECDH-ES"}, "enc_values_supported": enc, "zip_values_supported": zip, "encryption_required": false},
	}
}

// signingKeys are the examples' keys as far as metadata tells of them.
func signingKeys() wire.IdentitiesResponse {
	return wire.IdentitiesResponse{Generation: 1, Identities: []wire.Identity{
		{Label: "ds-1", Algorithm: issuance.ES256}, {Label: "cs-1", Algorithm: issuance.ES384}, {Label: "did-1", Algorithm: issuance.EdDSA}}}
}

// described is an issuer whose keys are known, without a signer.
func described(t testing.TB, settings config.Issuer, configurations []*configuration.Configuration, e encryptionMetadata) (*Issuer, *http.Client) {
	t.Helper()
	i := newIssuer(t, settings, Options{Signer: wire.NewClient(filepath.Join(t.TempDir(), "none.sock")), Configurations: configurations})
	if err := i.update(t.Context(), signingKeys(), e); err != nil {
		t.Fatal(err)
	}
	return i, serve(t, i.Handler())
}

// TestChecks23To49Metadata holds every form of the metadata against the rules:
// everything on, everything off, each example by itself.
func TestChecks23To49Metadata(t *testing.T) {
	const root, tenant = "https://issuer.example.com", "https://issuer.example.com:8443/a/b"
	type variation struct {
		settings       config.Issuer
		configurations []*configuration.Configuration
		encryption     encryptionMetadata
	}
	draft15, draft13 := allOn(t, root), allOn(t, root)
	draft15.Compatibility, draft13.Compatibility = configuration.Draft15, configuration.Draft13
	cases := map[string]variation{
		"everything on":  {allOn(t, tenant), everything(t), encrypted(t)},
		"everything off": {config.Issuer{Identifier: root}, examples(t), encryptionMetadata{}},
		"draft 15":       {draft15, everything(t), encrypted(t)},
		"draft 13":       {draft13, everything(t), encrypted(t)},
	}
	for _, c := range everything(t) {
		cases[c.ID] = variation{allOn(t, root), []*configuration.Configuration{c}, encryptionMetadata{}}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			i, client := described(t, c.settings, c.configurations, c.encryption)
			target := strings.TrimSuffix(c.settings.Identifier, i.path) + "/.well-known/openid-credential-issuer" + i.path
			whole := do(t, client, http.MethodGet, target, nil).object(t)
			sound(t, metadataFaults(c.settings.Identifier, whole, c.settings.Compatibility != ""))
			for _, tag := range languages(i.buildMetadata(i.published.Load())) {
				a := do(t, client, http.MethodGet, target, nil, "Accept-Language", tag)
				want(t, a.header.Get("Content-Language") == tag, "check 28: Content-Language", a.header)
				sound(t, metadataFaults(c.settings.Identifier, a.object(t), c.settings.Compatibility != ""))
			}
			all, _ := whole["credential_configurations_supported"].(map[string]any)
			want(t, len(all) == len(c.configurations), "check 31: configurations", len(all))
			_, batch := whole["batch_credential_issuance"]
			want(t, batch == slices.ContainsFunc(c.configurations, func(c *configuration.Configuration) bool { return c.BatchSize > 1 }), "check 43", batch)
			_, has := whole["credential_request_encryption"]
			want(t, has == (c.encryption.request != nil), "check 44", has)
		})
	}
}

// TestChecks32To36Configurations: what each kind of configuration says of keys and proofs.
func TestChecks32To36Configurations(t *testing.T) {
	_, client := described(t, allOn(t, "https://issuer.example.com"), everything(t), encryptionMetadata{})
	metadata := do(t, client, http.MethodGet, "https://issuer.example.com/.well-known/openid-credential-issuer", nil).object(t)
	all := metadata["credential_configurations_supported"].(map[string]any)
	for name, c := range map[string]struct {
		id, proof, required string
	}{
		"32, 35 jwt":                    {pidID, "jwt", ""},
		"36 levels":                     {"attested", "attestation", `{"key_storage":["iso_18045_high","iso_18045_moderate"],"user_authentication":["iso_18045_high"]}`},
		"36 levels beside jwt":          {"attested", "jwt", `{"key_storage":["iso_18045_high","iso_18045_moderate"],"user_authentication":["iso_18045_high"]}`},
		"36 any level":                  {"attested-by-anybody", "attestation", `{}`},
		"34 Data Integrity cryptosuite": {"presented", "di_vp", ""},
	} {
		t.Run(name, func(t *testing.T) {
			types, _ := all[c.id].(map[string]any)["proof_types_supported"].(map[string]any)
			members, _ := types[c.proof].(map[string]any)
			required := ""
			if v, has := members["key_attestations_required"]; has {
				required = string(encode(t, v))
			}
			want(t, members != nil && required == c.required, c.id, types)
		})
	}
	t.Run("33 without key binding", func(t *testing.T) {
		c, _ := all["bearer"].(map[string]any)
		want(t, c["format"] != nil && c["proof_types_supported"] == nil && c["cryptographic_binding_methods_supported"] == nil, "members", c)
	})
	t.Run("37, 38 signing algorithms", func(t *testing.T) {
		for id, algorithm := range map[string]any{mdlID: float64(-7), pidID: "ES384", residenceID: "EdDSA"} {
			list, _ := all[id].(map[string]any)["credential_signing_alg_values_supported"].([]any)
			want(t, slices.Equal(list, []any{algorithm}), id, list)
		}
	})
	t.Run("43 the largest batch", func(t *testing.T) {
		want(t, string(encode(t, metadata["batch_credential_issuance"])) == `{"batch_size":20}`, "batch_credential_issuance", metadata["batch_credential_issuance"])
	})
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// spoilt are changes of sound metadata by the check that must find each. at
// follows names and indexes.
func spoilt() map[string]func(m map[string]any) {
	at := func(v any, path ...any) map[string]any {
		for _, step := range path {
			if n, isIndex := step.(int); isIndex {
				v = v.([]any)[n]
			} else {
				v = v.(map[string]any)[step.(string)]
			}
		}
		return v.(map[string]any)
	}
	configurationAt := func(m map[string]any, id string, path ...any) map[string]any {
		return at(at(m, "credential_configurations_supported", id), path...)
	}
	return map[string]func(m map[string]any){
		"23 another issuer":       func(m map[string]any) { m["credential_issuer"] = "https://issuer.example.com/" },
		"29 http":                 func(m map[string]any) { m["nonce_endpoint"] = "http://issuer.example.com/nonce" },
		"29 a fragment":           func(m map[string]any) { m["credential_endpoint"] = "https://issuer.example.com/credential#x" },
		"29 no deferred endpoint": func(m map[string]any) { delete(m, "deferred_credential_endpoint") },
		"31 no configurations":    func(m map[string]any) { m["credential_configurations_supported"] = map[string]any{} },
		"31 format":               func(m map[string]any) { delete(configurationAt(m, pidID), "format") },
		"32 no proof types":       func(m map[string]any) { delete(configurationAt(m, pidID), "proof_types_supported") },
		"32 no binding methods":   func(m map[string]any) { delete(configurationAt(m, pidID), "cryptographic_binding_methods_supported") },
		"34 no algorithms": func(m map[string]any) {
			configurationAt(m, pidID, "proof_types_supported", "jwt")["proof_signing_alg_values_supported"] = []any{}
		},
		"34 HS256": func(m map[string]any) {
			configurationAt(m, pidID, "proof_types_supported", "jwt")["proof_signing_alg_values_supported"] = []any{"HS256"}
		},
		"36 not an object": func(m map[string]any) {
			configurationAt(m, pidID, "proof_types_supported", "jwt")["key_attestations_required"] = true
		},
		"36 no levels": func(m map[string]any) {
			configurationAt(m, "attested", "proof_types_supported", "jwt", "key_attestations_required")["key_storage"] = []any{}
		},
		"37 doctype": func(m map[string]any) { delete(configurationAt(m, mdlID), "doctype") },
		"37 cose_key": func(m map[string]any) {
			configurationAt(m, mdlID)["cryptographic_binding_methods_supported"] = []any{"jwk"}
		},
		"37 algorithms as text": func(m map[string]any) {
			configurationAt(m, mdlID)["credential_signing_alg_values_supported"] = []any{"ES256"}
		},
		"38 vct": func(m map[string]any) { delete(configurationAt(m, pidID), "vct") },
		"38 algorithms as numbers": func(m map[string]any) {
			configurationAt(m, pidID)["credential_signing_alg_values_supported"] = []any{float64(-7)}
		},
		"39 type": func(m map[string]any) {
			configurationAt(m, residenceID, "credential_definition")["type"] = "VerifiableCredential"
		},
		"40 an empty display": func(m map[string]any) { m["display"] = []any{} },
		"40 a language twice": func(m map[string]any) { at(m, "display", 1)["locale"] = "en" },
		"40 no name":          func(m map[string]any) { delete(configurationAt(m, pidID, "credential_metadata", "display", 0), "name") },
		"40 no logo uri":      func(m map[string]any) { delete(at(m, "display", 0, "logo"), "uri") },
		"41 an empty path": func(m map[string]any) {
			configurationAt(m, pidID, "credential_metadata", "claims", 0)["path"] = []any{}
		},
		"41 one component in an mdoc": func(m map[string]any) {
			configurationAt(m, mdlID, "credential_metadata", "claims", 0)["path"] = []any{"a"}
		},
		"41 a claim twice": func(m map[string]any) {
			configurationAt(m, pidID, "credential_metadata", "claims", 1)["path"] = []any{"family_name"}
		},
		"41 a claim in a claim": func(m map[string]any) {
			configurationAt(m, pidID, "credential_metadata", "claims", 1)["path"] = []any{"family_name", "x"}
		},
		"41 a negative index": func(m map[string]any) {
			configurationAt(m, pidID, "credential_metadata", "claims", 1)["path"] = []any{"x", float64(-1)}
		},
		"42 a colour's name": func(m map[string]any) {
			configurationAt(m, pidID, "credential_metadata", "display", 0)["text_color"] = "white"
		},
		"43 a batch of one":            func(m map[string]any) { at(m, "batch_credential_issuance")["batch_size"] = float64(1) },
		"43 a batch of two and a half": func(m map[string]any) { at(m, "batch_credential_issuance")["batch_size"] = 2.5 },
		"44 a private key":             func(m map[string]any) { at(m, "credential_request_encryption", "jwks", "keys", 0)["d"] = "AA" },
		"44 a kid twice":               func(m map[string]any) { at(m, "credential_request_encryption", "jwks", "keys", 0)["kid"] = "2" },
		"44 no alg":                    func(m map[string]any) { delete(at(m, "credential_request_encryption", "jwks", "keys", 0), "alg") },
		"44 no encryption_required":    func(m map[string]any) { delete(at(m, "credential_request_encryption"), "encryption_required") },
		"45 no algorithms":             func(m map[string]any) { delete(at(m, "credential_response_encryption"), "alg_values_supported") },
		"46 responses alone":           func(m map[string]any) { delete(m, "credential_request_encryption") },
		"47 no nonce endpoint":         func(m map[string]any) { delete(m, "nonce_endpoint") },
		"48 no scope":                  func(m map[string]any) { delete(configurationAt(m, pidID), "scope") },
		"49 signed_metadata":           func(m map[string]any) { m["signed_metadata"] = "x" },
		"69 an empty array":            func(m map[string]any) { at(m, "credential_response_encryption")["zip_values_supported"] = []any{} },
		"unknown member":               func(m map[string]any) { configurationAt(m, pidID)["claims"] = []any{"x"} },
	}
}

// TestChecksFindFaults: the rules find what they are for.
func TestChecksFindFaults(t *testing.T) {
	const identifier = "https://issuer.example.com"
	i, _ := described(t, allOn(t, identifier), everything(t), encrypted(t))
	for name, change := range spoilt() {
		t.Run(name, func(t *testing.T) {
			metadata := answer{body: i.published.Load().metadata.body}.object(t)
			sound(t, metadataFaults(identifier, metadata, false))
			change(metadata)
			check, _, _ := strings.Cut(name, " ")
			found := metadataFaults(identifier, metadata, false)
			want(t, slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, check+" ") }), "found", found)
		})
	}
	want(t, len(metadataFaults(identifier+"?x", answer{body: i.published.Load().metadata.body}.object(t), false)) > 0, "check 30", nil)
}

// TestGoldenMetadata: what the example's appliance publishes, letter for letter
// but for white space, in every form.
func TestGoldenMetadata(t *testing.T) {
	path := filepath.Join("..", "..", "examples", "chancery.toml")
	file, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	settings := file.Issuer
	settings.Identifier += "/utopia"
	for _, draft := range []string{"", configuration.Draft15, configuration.Draft13} {
		settings.Compatibility = draft
		i, _ := described(t, settings, nil, encryptionMetadata{})
		p := i.published.Load()
		documents := map[string]document{"metadata.json": p.metadata, "server.json": i.asMetadata}
		if draft != "" {
			documents = map[string]document{"metadata-" + draft + ".json": p.draft, "metadata.json": p.metadata}
		}
		for name, d := range documents {
			t.Run(draft+" "+name, func(t *testing.T) { golden(t, name, d.body) })
		}
	}
}

func golden(t *testing.T, name string, body []byte) {
	t.Helper()
	var got bytes.Buffer
	if err := json.Indent(&got, body, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines, wanted := strings.Split(got.String(), "\n"), strings.Split(string(expected), "\n")
	for n, line := range lines {
		if n >= len(wanted) || line != wanted[n] {
			t.Fatalf("%s is another one from line %d on: %q; if that is meant: go test ./appliance/oid4vci -run TestGolden -update", path, n+1, strings.TrimSpace(line))
		}
	}
	want(t, len(lines) == len(wanted), path+": lines", len(lines))
}
