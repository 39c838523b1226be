package configuration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"chancery/issuance"
)

// small is an SD-JWT VC with a claim of each kind.
const small = `
id = "small"
format = "dc+sd-jwt"
signer = "cs-1"
vct = "urn:small"
validity = "24h"

[[display]]
name = "Small"

[[claims]]
path = ["family_name"]
type = "text"
map_from = "family_name"

[[claims]]
path = ["b", "c"]
type = "integer"
map_from = "b.c"
min = 0
max = 9

[[claims]]
path = ["list"]
type = "texts"
disclose = "elements"

[[claims]]
path = ["born"]
type = "date"
map_from = "birth_date"
disclose = "never"

[[claims]]
path = ["adult"]
type = "age-over"
age = 18
from = "birth_date"

[[claims]]
path = ["place"]
type = "object"
map_from = "nowhere"
members = { country = "country", since = "date" }

[[claims]]
path = ["kind"]
type = "text"
default = "plain"
one_of = ["plain", "fancy"]
`

// TestSmallFileRefusals changes one thing in a small file; the rules here are
// those of SD-JWT VC and of JWT VC.
func TestSmallFileRefusals(t *testing.T) {
	if _, err := Parse("x.toml", []byte(small)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, wants string }{
		{`path = ["list"]`, `path = ["b"]`, "claims[2].path: b is within another claim, or another claim is within it"},
		{`path = ["born"]`, `path = ["family_name", "x"]`, "claims[3].path: family_name/x is within"},
		{`path = ["born"]`, `path = ["family_name"]`, "is there twice"},
		{`path = ["born"]`, `path = ["iss"]`, `"iss" is the issuer's own`},
		{`path = ["born"]`, `path = ["cnf", "jwk"]`, `"cnf" is the issuer's own`},
		{`path = ["born"]`, `path = ["x", "_sd"]`, `"_sd" is the issuer's own`},
		{`path = ["born"]`, `path = ["x", "..."]`, `"..." is the issuer's own`},
		{`path = ["born"]`, `path = ["x", ""]`, "1 to 128 bytes"},
		{`path = ["born"]`, `path = ["` + strings.Repeat("x", 129) + `"]`, "1 to 128 bytes"},
		{`path = ["born"]`, `path = ["1", "2", "3", "4", "5", "6", "7", "8", "9"]`, "1 to 8 names"},
		{`disclose = "never"`, `disclose = "elements"`, "only a list has elements"},
		{`disclose = "never"`, `disclose = "sometimes"`, "disclose"},
		{`members = { country`, `members = { "..." = "text", country`, "a meaning in SD-JWT"},
		{`members = { country`, `members = { _sd = "text", country`, "a meaning in SD-JWT"},
		{`default = "plain"`, `default = "odd"`, "default: it is none of the values"},
		{`default = "plain"`, `value = "odd"`, "value: it is none of the values"},
		{`default = "plain"`, `default = ["plain"]`, "default: it must be"},
		{`default = "plain"`, `default = 2026-01-01`, "default: it must be"},
		{`map_from = "nowhere"`, `map_from = "b"`, "map_from"},
		{`map_from = "nowhere"`, `map_from = "a..b"`, "map_from"},
		{`from = "birth_date"`, `from = "family_name"`, "not the source of a date"},
		{`from = "birth_date"`, `from = "b"`, "not the source of a date"},
		{"type = \"text\"\ndefault = \"plain\"\none_of = [\"plain\", \"fancy\"]", "type = \"image\"\nvalue = \"/9j/\"", "value: it must be a JPEG image"},
		{`vct = "urn:small"`, `vct = ""`, "vct"},
		{`vct = "urn:small"`, `types = ["A"]`, "types"},
		{`validity = "24h"`, `validity = ""`, "validity"},
		{`name = "Small"`, ``, "name"},
		{"[[display]]\nname = \"Small\"", ``, "display: missing"},
		{`id = "small"`, `id = 5`, "id"},
		{`id = "small"`, `id = "small"` + "\n" + `id = "again"`, "id"},
		{`id = "small"`, `id = `, "x.toml"},
		{`id = "small"`, `id = "small"` + "\n" + `batch = 3`, "batch: unknown key"},
		{`type = "integer"`, `type = "integer"` + "\n" + `minimum = 3`, "claims.minimum: unknown key"},
	} {
		if !strings.Contains(small, test.old) {
			t.Fatalf("the file does not contain %q", test.old)
		}
		_, err := Parse("x.toml", []byte(strings.Replace(small, test.old, test.new, 1)))
		if err == nil || !strings.Contains(err.Error(), test.wants) || !strings.HasPrefix(err.Error(), "x.toml") {
			t.Errorf("%s → %s: %v, want it to say %q", test.old, test.new, err, test.wants)
		}
	}
	residence := strings.NewReplacer(`format = "dc+sd-jwt"`, `format = "jwt_vc_json"`, `vct = "urn:small"`, `types = ["Small"]`,
		"disclose = \"elements\"\n", "", "disclose = \"never\"\n", "").Replace(small)
	if _, err := Parse("x.toml", []byte(residence)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ old, new, wants string }{
		{`types = ["Small"]`, `types = []`, "types"},
		{`types = ["Small"]`, `types = ["Small", ""]`, "types"},
		{`types = ["Small"]`, `types = ["VerifiableCredential"]`, "types"},
		{`types = ["Small"]`, `types = ["Small"]` + "\n" + `contexts = ["relative"]`, "contexts"},
		{`types = ["Small"]`, `types = ["Small"]` + "\n" + `contexts = ["https://www.w3.org/2018/credentials/v1"]`, "contexts"},
		{`path = ["born"]`, `path = ["id"]`, "holder's identifier"},
		{`path = ["born"]`, `path = ["id", "x"]`, "holder's identifier"},
		{`type = "date"`, `type = "date"` + "\n" + `disclose = "never"`, "only format dc+sd-jwt"},
	} {
		_, err := Parse("x.toml", []byte(strings.Replace(residence, test.old, test.new, 1)))
		if err == nil || !strings.Contains(err.Error(), test.wants) {
			t.Errorf("%s → %s: %v, want it to say %q", test.old, test.new, err, test.wants)
		}
	}
}

// TestEveryFaultAtOnce: a file's author learns of all faults.
func TestEveryFaultAtOnce(t *testing.T) {
	_, err := Parse("x.toml", []byte("format = \"mso_mdoc\"\npad = 99\nvalidity = \"x\"\nunknown = 1\n"))
	for _, member := range []string{"id", "signer", "validity", "pad", "doctype", "display", "claims", "unknown"} {
		if err == nil || !strings.Contains(err.Error(), member+": ") {
			t.Errorf("%s is not named in %v", member, err)
		}
	}
	var many strings.Builder
	many.WriteString(strings.Replace(small, "dc+sd-jwt", "mso_mdoc", 1))
	for i := range 17 {
		many.WriteString("[[claims]]\npath = [\"n" + string(rune('a'+i)) + "\", \"e\"]\ntype = \"text\"\n")
	}
	if _, err := Parse("x.toml", []byte(many.String())); err == nil || !strings.Contains(err.Error(), "16 namespaces") {
		t.Errorf("%v", err)
	}
}

// TestSmallCredential follows each claim of the small file into a credential.
func TestSmallCredential(t *testing.T) {
	c, err := Parse("x.toml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	claims := json.RawMessage(`{"family_name":"Łuk","b":{"c":7},"list":["x","y"],"birth_date":"2010-01-01","nowhere":{"country":"UT","since":"2020-02-29"}}`)
	if problems := c.CheckClaims(claims, now); len(problems) > 0 {
		t.Fatal(problems)
	}
	_, text := issue(t, c, claims)
	payload := payloadOf(t, text)
	if payload["born"] != "2010-01-01" || len(payload["list"].([]any)) != 2 || len(payload["_sd"].([]any)) != 4 || len(payload["b"].(map[string]any)) != 1 {
		t.Errorf("%v", payload)
	}
	if problems := c.CheckClaims(nil, now); len(problems) > 0 {
		t.Errorf("no claims at all: %v", problems)
	}
	if _, text = issue(t, c, json.RawMessage(`{}`)); strings.Count(text, "~") != 2 { // the default alone
		t.Errorf("%s", text)
	}
	for _, bad := range []string{`{"b":{"c":10}}`, `{"b":{"c":-1}}`, `{"b":7}`, `{"b":{"d":1}}`, `{"kind":"odd"}`, `{"adult":true}`, `{"born":"2010-01-01"}`, `{"place":{}}`} {
		if problems := c.CheckClaims(json.RawMessage(bad), now); len(problems) != 1 {
			t.Errorf("%s: %v", bad, problems)
		}
	}
	// Whoever changes the configuration after an offer gets an error, not a guess.
	if _, err := c.Prepare(json.RawMessage(`{"b":{"c":10}}`), materialFor(t, c)); err == nil || !strings.Contains(err.Error(), "cancel the offer") {
		t.Errorf("%v", err)
	}
	if _, err := c.Prepare(json.RawMessage(`[]`), materialFor(t, c)); err == nil {
		t.Error("a list of claims was issued")
	}
}

func TestLoadDir(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "no credential configuration") {
		t.Errorf("an empty folder: %v", err)
	}
	write("b.toml", small)
	write("a.toml", strings.Replace(small, `"small"`, `"first"`, 1))
	write("notes.txt", "not read")
	all, err := LoadDir(dir)
	if err != nil || len(all) != 2 || all[0].ID != "first" || all[1].ID != "small" {
		t.Fatalf("%v, %v", all, err)
	}
	write("c.toml", small)
	write("d.toml", "x = 1")
	if _, err := LoadDir(dir); err == nil || !strings.Contains(err.Error(), "c.toml: id: \"small\" is in ") || !strings.Contains(err.Error(), "d.toml") {
		t.Errorf("%v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "e.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadDir(dir); err == nil {
		t.Error("a folder was read as a file")
	}
	if _, err := LoadDir(filepath.Join(dir, "[")); err == nil {
		t.Error("a folder that is not there was read")
	}
}

// TestMetadata holds the metadata of the examples against OpenID4VCI 1.0 §12.2.4
// and App. A.
func TestMetadata(t *testing.T) {
	for id, c := range load(t) {
		t.Run(id, func(t *testing.T) {
			data, err := json.Marshal(c.Metadata([]issuance.Algorithm{issuance.ES256, issuance.ES384}))
			if err != nil {
				t.Fatal(err)
			}
			var m struct {
				Format, Scope, Doctype, VCT string
				Definition                  *struct{ Type []string }              `json:"credential_definition"`
				Signing                     []any                                 `json:"credential_signing_alg_values_supported"`
				Binding                     []string                              `json:"cryptographic_binding_methods_supported"`
				Proofs                      map[string]map[string]json.RawMessage `json:"proof_types_supported"`
				Metadata                    struct {
					Display []map[string]any
					Claims  []struct {
						Path      []string
						Mandatory bool
						Display   []struct{ Name, Locale string }
					}
				} `json:"credential_metadata"`
			}
			if err := json.Unmarshal(data, &m); err != nil {
				t.Fatal(err)
			}
			if m.Format != string(c.Format) || m.Scope != c.Scope || len(m.Proofs["jwt"]) != 1 || string(m.Proofs["jwt"]["proof_signing_alg_values_supported"]) != `["ES256","ES384","EdDSA"]` {
				t.Errorf("%s", data)
			}
			signing, types := []any{"ES256", "ES384"}, []bool{m.Doctype != "", m.VCT != "", m.Definition != nil}
			prefix := 0
			switch c.Format {
			case issuance.FormatMdoc:
				signing = []any{-7.0, -35.0}
				if !reflect.DeepEqual(types, []bool{true, false, false}) || m.Binding[0] != "cose_key" {
					t.Errorf("%s", data)
				}
			case issuance.FormatSDJWT:
				if !reflect.DeepEqual(types, []bool{false, true, false}) {
					t.Errorf("%s", data)
				}
			case issuance.FormatJWTVC:
				prefix = 1
				if !reflect.DeepEqual(types, []bool{false, false, true}) || !reflect.DeepEqual(m.Definition.Type, []string{"VerifiableCredential", "ResidencePermitCredential"}) {
					t.Errorf("%s", data)
				}
			}
			if !reflect.DeepEqual(m.Signing, signing) || len(m.Metadata.Display) != len(c.Display) || len(m.Metadata.Claims) != len(c.Claims) {
				t.Errorf("%s", data)
			}
			for i, claim := range m.Metadata.Claims {
				want := c.Claims[i]
				if !reflect.DeepEqual(claim.Path[prefix:], want.Path) || claim.Mandatory != (want.Required || want.Value != nil || want.Default != nil) || len(claim.Display) != 2 || claim.Display[0].Locale != "de" {
					t.Errorf("claim %+v of %+v", claim, want)
				}
			}
		})
	}
	c, err := Parse("x.toml", []byte(strings.Replace(small, `name = "Small"`, `name = "Small"
locale = "en"
logo_uri = "https://utopia.example/logo.svg"
logo_alt = "Arms"
background_color = "#12107c"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	metadata := c.Metadata(nil)["credential_metadata"].(map[string]any)
	want := []any{map[string]any{"name": "Small", "locale": "en", "background_color": "#12107c", "logo": map[string]any{"uri": "https://utopia.example/logo.svg", "alt_text": "Arms"}}}
	if !reflect.DeepEqual(metadata["display"], want) {
		t.Errorf("%v", metadata["display"])
	}
	if _, has := c.Metadata(nil)["scope"]; has {
		t.Error("a scope that the file does not have")
	}
}
