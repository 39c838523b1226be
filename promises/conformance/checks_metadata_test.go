package conformance

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// unsigned is an instance without signed metadata and without encryption, with a
// configuration without a scope, and one that wants key attestations of any level.
func unsigned(t testing.TB) *instance {
	return start(t, "unsigned", settings{replace: map[string]string{`metadata_signer = "metadata-1"`: ""},
		sections: "[issuer.encryption]\nrequest = \"off\"\nresponse = \"off\"\n",
		prepared: func(run string) {
			folder := filepath.Join(run, "configurations")
			base, err := os.ReadFile(filepath.Join(folder, pidSDJWT+".toml"))
			if err != nil {
				t.Fatal(err)
			}
			for id, change := range map[string][2]string{
				"check.scopeless": {`scope = "check.scopeless"`, ""},
				"check.anylevel":  {"\n[[display]]", "\nproof_types = [\"jwt\", \"attestation\"]\n\n[key_attestation]\n\n[[display]]"},
			} {
				text := strings.Replace(strings.ReplaceAll(string(base), `"`+pidSDJWT+`"`, `"`+id+`"`), change[0], change[1], 1)
				if err := os.WriteFile(filepath.Join(folder, id+".toml"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}})
}

// split returns the identifier's origin and path.
func (i *instance) split() (origin, path string) {
	end := len("https://") + strings.IndexByte(strings.TrimPrefix(i.issuer, "https://")+"/", '/')
	return i.issuer[:end], i.issuer[end:]
}

// wellKnown is where the metadata of that name is: inserted between host and path.
func (i *instance) wellKnown(name string) string {
	origin, path := i.split()
	return origin + "/.well-known/" + name + path
}

const issuerName, serverName = "openid-credential-issuer", "oauth-authorization-server"

// metadata fetches the metadata in every language, as JSON.
func (i *instance) metadata(t testing.TB, header ...string) *issuerMetadata {
	t.Helper()
	a := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, header...)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v %.300s", a.status, a.header, a.body)
	}
	m, err := parseMetadata(a.body)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCheckMetadata holds the metadata of every instance, in every language and
// as it is signed, against every rule.
func TestCheckMetadata(t *testing.T) {
	type form struct {
		name, identifier string
		*issuerMetadata
	}
	var forms []form
	all := everywhere(t)
	all["unsigned"] = unsigned(t)
	for name, i := range all {
		forms = append(forms, form{name, i.issuer, i.metadata(t)})
		for _, language := range []string{"en", "de"} {
			forms = append(forms, form{name + " " + language, i.issuer, i.metadata(t, "Accept-Language", language)})
		}
		if name == "unsigned" {
			continue
		}
		claims := i.signedMetadata(t).payload
		for _, added := range []string{"iss", "sub", "iat", "exp"} {
			delete(claims, added)
		}
		m, err := parseMetadata(marshal(t, claims))
		if err != nil {
			t.Fatal(err)
		}
		forms = append(forms, form{name + " signed", i.issuer, m})
	}
	for rule := range metadataRules {
		t.Run(rule, func(t *testing.T) {
			for _, f := range forms {
				follow(t, f.name, rule, f.issuerMetadata, f.identifier)
			}
		})
	}
	t.Run("048 scopes", func(t *testing.T) { // of the instances that are HAIP's, all but the unsigned one
		for name, i := range everywhere(t) {
			for id, c := range i.metadata(t).Configurations {
				if c.Scope == "" {
					t.Errorf("%s: %s has no scope", name, id)
				}
			}
		}
	})
}

// TestCheckConfigurations: what single configurations must say.
func TestCheckConfigurations(t *testing.T) {
	i := plain(t)
	m, other := i.metadata(t), unsigned(t).metadata(t)
	t.Run("032 bound", func(t *testing.T) {
		for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence, attested, single, byProof, approved} {
			if c := m.Configurations[id]; len(c.Binding) == 0 || len(c.Proofs["jwt"].Algorithms) == 0 {
				t.Errorf("%s: %+v", id, c)
			}
		}
		if got := m.Configurations[byProof].Proofs; len(got) != 3 {
			t.Errorf("%v", got)
		}
	})
	t.Run("033 unbound", func(t *testing.T) {
		c, _ := m.all["credential_configurations_supported"].(map[string]any)[unbound].(map[string]any)
		for _, member := range []string{"cryptographic_binding_methods_supported", "proof_types_supported"} {
			if v, has := c[member]; has || c["format"] == nil {
				t.Errorf("%s: %v", member, v)
			}
		}
	})
	t.Run("035 no attestation", func(t *testing.T) {
		for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence, single, byProof} {
			for name, p := range m.Configurations[id].Proofs {
				if p.Attestation != nil {
					t.Errorf("%s %s: %v", id, name, p.Attestation)
				}
			}
		}
	})
	t.Run("036 attestation", func(t *testing.T) {
		want := &keyAttestationDemands{[]string{"iso_18045_high", "iso_18045_moderate"}, []string{"iso_18045_high"}}
		for name, p := range m.Configurations[attested].Proofs {
			if !reflect.DeepEqual(p.Attestation, want) {
				t.Errorf("%s: %+v", name, p.Attestation)
			}
		}
		proofs := other.Configurations["check.anylevel"].Proofs
		for name, p := range proofs {
			if !reflect.DeepEqual(p.Attestation, &keyAttestationDemands{}) {
				t.Errorf("any level, %s: %+v", name, p.Attestation)
			}
		}
		if len(proofs) != 2 {
			t.Errorf("%v", proofs)
		}
	})
	t.Run("037 038 039 formats", func(t *testing.T) {
		for id, want := range map[string][3]string{mdl: {"mso_mdoc", mdl, ""}, pidSDJWT: {"dc+sd-jwt", "", "urn:eudi:pid:1"}, residence: {"jwt_vc_json", "", ""}} {
			if c := m.Configurations[id]; [3]string{c.Format, c.DocType, c.VCT} != want {
				t.Errorf("%s: %+v", id, c)
			}
		}
		if c := m.Configurations[residence]; !slices.Equal(c.Definition.Type, []string{"VerifiableCredential", "ResidencePermitCredential"}) {
			t.Errorf("%+v", c.Definition)
		}
		if c := m.Configurations[mdl]; !slices.Equal(c.Algorithms, []any{-7.0}) {
			t.Errorf("%v", c.Algorithms)
		}
	})
	t.Run("043 batches", func(t *testing.T) {
		if m.Batch == nil || *m.Batch.Size != 10 {
			t.Errorf("%v", m.Batch)
		}
	})
	t.Run("044 045 encryption", func(t *testing.T) {
		for i, required := range map[*instance]bool{i: false, sealed(t): true} {
			if m := i.metadata(t); m.Request == nil || m.Response == nil || *m.Request.Required != required || *m.Response.Required != required {
				t.Errorf("%+v %+v, want required: %v", m.Request, m.Response, required)
			}
		}
		if other.Request != nil || other.Response != nil {
			t.Error("encryption is off")
		}
	})
}

// TestCheckMetadataRetrieval: paths, media types, languages, methods.
func TestCheckMetadataRetrieval(t *testing.T) {
	for name, i := range everywhere(t) {
		origin, path := i.split()
		t.Run("021 inserted path "+name, func(t *testing.T) {
			if m := i.metadata(t); m.Issuer != i.issuer {
				t.Errorf("%s", m.Issuer)
			}
			for _, elsewhere := range []string{origin + "/.well-known/" + issuerName + "/elsewhere", i.wellKnown(issuerName) + "/"} {
				if a := i.do(t, http.MethodGet, elsewhere, nil); a.status != http.StatusNotFound {
					t.Errorf("%s: %d", elsewhere, a.status)
				}
			}
		})
		t.Run("022 appended path "+name, func(t *testing.T) {
			a := i.do(t, http.MethodGet, i.issuer+"/.well-known/"+issuerName, nil)
			switch {
			case path == "" || strings.HasPrefix(name, "draft"):
				if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.text(t, "credential_issuer") != i.issuer {
					t.Errorf("%d %v %.300s", a.status, a.header, a.body)
				}
			case a.status != http.StatusNotFound:
				t.Errorf("compatibility is off: %d", a.status)
			}
		})
		t.Run("024 025 051 JSON "+name, func(t *testing.T) {
			whole := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil)
			for _, accept := range []string{"", "application/json", "*/*", "application/*", "text/html, */*;q=0.1", "text/html", "application/jwt;q=0.5, application/json", "nonsense", "application/json;q=0"} {
				var header []string
				if accept != "" {
					header = []string{"Accept", accept}
				}
				a := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, header...)
				if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || string(a.body) != string(whole.body) {
					t.Errorf("%q: %d %v", accept, a.status, a.header)
				}
				varies(t, a)
			}
		})
		t.Run("026 JWT "+name, func(t *testing.T) {
			for _, accept := range []string{"application/jwt", "application/jwt, application/json;q=0.9", "Application/JWT"} {
				a := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, "Accept", accept)
				if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/jwt" || strings.Count(string(a.body), ".") != 2 {
					t.Errorf("%q: %d %v", accept, a.status, a.header)
				}
				varies(t, a)
			}
		})
		t.Run("028 language "+name, func(t *testing.T) {
			for wanted, want := range map[string]string{"de": "de", "en": "en", "de-AT, en;q=0.5": "de", "fr, de;q=0.2": "de", "fr": "", "*": ""} {
				a := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, "Accept-Language", wanted)
				if a.status != http.StatusOK || a.header.Get("Content-Language") != want {
					t.Errorf("%q: %d, Content-Language %q", wanted, a.status, a.header.Get("Content-Language"))
				}
				varies(t, a)
				m, err := parseMetadata(a.body)
				if err != nil {
					t.Fatal(err)
				}
				m.displays(func(at string, list []shown, _ bool) {
					for _, d := range list {
						if want != "" && d.Locale != "" && d.Locale != want {
							t.Errorf("%q: %s has %s", wanted, at, d.Locale)
						}
					}
				})
				if languages := len(m.Display); (languages == 1) != (want != "") {
					t.Errorf("%q: %d languages", wanted, languages)
				}
			}
		})
		t.Run("050 HEAD and POST "+name, func(t *testing.T) {
			for _, accept := range []string{"application/json", "application/jwt"} {
				get, head := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, "Accept", accept), i.do(t, http.MethodHead, i.wellKnown(issuerName), nil, "Accept", accept)
				get.header.Del("Date")
				head.header.Del("Date")
				if head.status != http.StatusOK || len(head.body) > 0 || !reflect.DeepEqual(get.header, head.header) || head.header.Get("Content-Length") != fmt.Sprint(len(get.body)) {
					t.Errorf("%d %v, want %v", head.status, head.header, get.header)
				}
			}
			if a := i.do(t, http.MethodPost, i.wellKnown(issuerName), []byte("{}"), "Content-Type", "application/json"); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("POST: %d, Allow %q", a.status, a.header.Get("Allow"))
			}
		})
	}
	t.Run("027 signing off", func(t *testing.T) {
		i := unsigned(t)
		if a := i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, "Accept", "application/jwt"); a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%d %v", a.status, a.header)
		}
	})
	t.Run("047 the nonce endpoint serves", func(t *testing.T) {
		i := haip(t)
		if a := i.do(t, http.MethodPost, i.metadata(t).Nonce, nil); a.status != http.StatusOK || a.text(t, "c_nonce") == "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

func varies(t testing.TB, a answer) {
	t.Helper()
	vary := strings.Split(strings.ReplaceAll(strings.Join(a.header.Values("Vary"), ","), " ", ""), ",")
	if !slices.Contains(vary, "Accept") || !slices.Contains(vary, "Accept-Language") {
		t.Errorf("Vary: %q", vary)
	}
}

// signedForm is signed metadata after its signature was checked.
type signedForm struct {
	compact         string
	header, payload members
	x5c             []string
}

// signedMetadata fetches the signed form; it is there soon after the start.
func (i *instance) signedMetadata(t testing.TB) signedForm {
	t.Helper()
	var a answer
	eventually(t, "signed metadata", func() error {
		a = i.do(t, http.MethodGet, i.wellKnown(issuerName), nil, "Accept", "application/jwt")
		if a.header.Get("Content-Type") != "application/jwt" {
			return fmt.Errorf("%d %v", a.status, a.header)
		}
		return nil
	})
	return i.readSigned(t, string(a.body))
}

var asymmetric = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// signedFor is how long signed metadata lasts at most.
const signedFor = 48 * time.Hour
