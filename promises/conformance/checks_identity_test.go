package conformance

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// linkage is a domain linkage credential, as its JWT has it.
type linkage struct {
	header, payload, credential map[string]any
	kid                         string
}

// linked fetches the DID configuration from the origin and verifies its one
// credential with the assertion method that kid names in the DID's document.
func (i *instance) linked(t testing.TB) (linkage, answer) {
	t.Helper()
	origin, _ := i.split()
	a := i.do(t, http.MethodGet, origin+"/.well-known/did-configuration.json", nil)
	dids, _ := a.object(t)["linked_dids"].([]any)
	if len(dids) != 1 {
		t.Fatalf("%d %.500s", a.status, a.body)
	}
	compact, _ := dids[0].(string)
	signed, err := jose.ParseSignedCompact(compact, asymmetric)
	if err != nil {
		t.Fatal(err)
	}
	l := linkage{kid: signed.Signatures[0].Header.KeyID}
	did, _, _ := strings.Cut(l.kid, "#")
	document, _ := i.resolve(t, did)
	content, err := signed.Verify(document.key(t, l.kid))
	if err != nil {
		t.Fatalf("%s: %v", l.kid, err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(compact[:strings.IndexByte(compact, '.')])
	if err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(raw, &l.header) != nil || json.Unmarshal(content, &l.payload) != nil {
		t.Fatalf("%s %s", raw, content)
	}
	l.credential, _ = l.payload["vc"].(map[string]any)
	return l, a
}

// TestCheckDomainLinkage: the host says which DID is its own, and the DID which host.
func TestCheckDomainLinkage(t *testing.T) {
	for name, i := range everywhere(t) {
		origin, path := i.split()
		l, a := i.linked(t)
		did, _, _ := strings.Cut(l.kid, "#")
		t.Run("324 resource "+name, func(t *testing.T) {
			object := a.object(t)
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || len(object) != 2 || object["@context"] != "https://identity.foundation/.well-known/did-configuration/v1" {
				t.Errorf("%d %v %.300s", a.status, a.header, a.body)
			}
			if path != "" && i.do(t, http.MethodGet, i.issuer+"/.well-known/did-configuration.json", nil).status != http.StatusNotFound {
				t.Error("it is the origin's, not the path's")
			}
		})
		t.Run("324 header "+name, func(t *testing.T) {
			if len(l.header) != 2 || l.header["alg"] != "ES256" || l.header["kid"] != l.kid {
				t.Errorf("%v", l.header)
			}
		})
		t.Run("324 payload "+name, func(t *testing.T) {
			if len(l.payload) != 5 || l.payload["iss"] != did || l.payload["sub"] != did {
				t.Errorf("%v", l.payload)
			}
			want := map[string]any{
				"@context": []any{"https://www.w3.org/2018/credentials/v1", "https://identity.foundation/.well-known/did-configuration/v1"},
				"type":     []any{"VerifiableCredential", "DomainLinkageCredential"}, "issuer": did,
				"issuanceDate": date(t, l.payload["nbf"]).Format(time.RFC3339), "expirationDate": date(t, l.payload["exp"]).Format(time.RFC3339),
				"credentialSubject": map[string]any{"id": did, "origin": origin},
			}
			if !reflect.DeepEqual(l.credential, want) { // no id, no proof, nothing else
				t.Errorf("%v, want %v", l.credential, want)
			}
		})
		t.Run("324 dates "+name, func(t *testing.T) {
			from, until := date(t, l.payload["nbf"]), date(t, l.payload["exp"])
			if from.After(time.Now().Add(time.Minute)) || until.Before(time.Now().Add(time.Minute)) {
				t.Errorf("from %v until %v", from, until)
			}
		})
		t.Run("325 service "+name, func(t *testing.T) {
			document, a := i.resolve(t, did)
			if len(document.Services) != 1 || document.Services[0].Type != "LinkedDomains" || !strings.HasPrefix(document.Services[0].ID, did+"#") ||
				!slices.Equal(document.Services[0].Endpoint.Origins, []string{origin}) {
				t.Errorf("%s", a.body)
			}
		})
	}
}

// date reads a NumericDate in whole seconds.
func date(t testing.TB, value any) time.Time {
	t.Helper()
	seconds, ok := value.(float64)
	if !ok || seconds != float64(int64(seconds)) {
		t.Fatalf("%v is no date in whole seconds", value)
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// TestCheckVCIssuer: a verifier without an anchor finds an SD-JWT VC's key.
func TestCheckVCIssuer(t *testing.T) {
	all := everywhere(t)
	delete(all, "sealed") // whose credentials are read in the checks of encryption
	for name, i := range all {
		_, path := i.split()
		a := i.do(t, http.MethodGet, i.wellKnown("jwt-vc-issuer"), nil)
		object := a.object(t)
		t.Run("326 metadata "+name, func(t *testing.T) {
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || object["issuer"] != i.issuer || object["jwks"] == nil || object["jwks_uri"] != nil || len(object) != 2 {
				t.Errorf("%d %v %.300s", a.status, a.header, a.body)
			}
			if path != "" && i.do(t, http.MethodGet, i.issuer+"/.well-known/jwt-vc-issuer", nil).status != http.StatusNotFound {
				t.Error("the path is inserted, not appended to")
			}
		})
		t.Run("326 key "+name, func(t *testing.T) {
			var set jose.JSONWebKeySet
			if err := json.Unmarshal(marshal(t, object["jwks"]), &set); err != nil || len(set.Keys) == 0 {
				t.Fatalf("%v: %.300s", err, a.body)
			}
			for _, key := range set.Keys {
				if !key.IsPublic() || !key.Valid() || key.KeyID == "" {
					t.Errorf("%+v", key)
				}
			}
			credential := i.fresh(t, pidSDJWT)
			found := set.Key(credential.Signatures[0].Header.KeyID)
			if len(found) != 1 {
				t.Fatalf("kid %q is not in %.300s", credential.Signatures[0].Header.KeyID, a.body)
			}
			content, err := credential.Verify(found[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Issuer string `json:"iss"`
			}
			if err := json.Unmarshal(content, &claims); err != nil || claims.Issuer != i.issuer {
				t.Errorf("iss %q: %v", claims.Issuer, err)
			}
		})
	}
}

// hold holds a further ceremony on the running appliance.
func (i *instance) hold(t testing.TB, keys string) {
	t.Helper()
	first, err := os.ReadFile(filepath.Join(i.run, "ceremony.toml"))
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(first), "[[keys]]")
	plan := filepath.Join(i.run, "ceremony-2.toml")
	if err := os.WriteFile(plan, []byte(strings.Replace(head, `output = "out"`, `output = "out-2"`, 1)+keys), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "chancery"), "ceremony", "--config", filepath.Join(i.run, "chancery.toml"), plan)
	cmd.Env = append(i.environment, "SOFTHSM2_CONF="+filepath.Join(i.run, "softhsm2.conf"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the ceremony: %v\n%s", err, out)
	}
}

// TestCheckRotation makes a second key for the DID of a running appliance.
func TestCheckRotation(t *testing.T) {
	i := start(t, "rotating", settings{path: "/tenant"})
	before := i.fresh(t, residence)
	old := before.Signatures[0].Header.KeyID
	did, _, _ := strings.Cut(old, "#")
	i.hold(t, "[[keys]]\nlabel = \"did-2\"\npurpose = \"did\"\nalgorithm = \"ES256\"\n[keys.profile]\nformats = [\"jwt_vc_json\", \"domainlinkage\"]\ntypes = [\"ResidencePermitCredential\"]\nlongest_validity_hours = 8760\n")
	var document didDocument
	for deadline := time.Now().Add(time.Minute); len(document.Assertions) != 2; time.Sleep(50 * time.Millisecond) {
		if document, _ = i.resolve(t, did); time.Now().After(deadline) {
			t.Fatalf("the document still has %v", document.Assertions)
		}
	}
	newer := document.Assertions[0]
	t.Run("323 both keys, the new one first", func(t *testing.T) {
		if newer == old || document.Assertions[1] != old || len(document.Methods) != 2 {
			t.Errorf("%+v", document)
		}
	})
	t.Run("324 linked by the new key", func(t *testing.T) {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			l, _ := i.linked(t)
			if l.kid == newer {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("linked by %s", l.kid)
			}
		}
	})
	// An operator has the configuration signed by the new key.
	path := filepath.Join(i.run, "configurations", residence+".toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), `signer = "did-1"`, `signer = "did-2"`, 1)
	if changed == string(text) {
		t.Fatalf("%s", text)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	i.demo(t, "down")
	i.demo(t, "up")
	i.connect(t)
	after := i.fresh(t, residence)
	t.Run("323 both verify", func(t *testing.T) {
		document, _ := i.resolve(t, did)
		for kid, credential := range map[string]*jose.JSONWebSignature{old: before, newer: after} {
			if got := credential.Signatures[0].Header.KeyID; got != kid {
				t.Errorf("kid %s, want %s", got, kid)
			}
			if _, err := credential.Verify(document.key(t, kid)); err != nil {
				t.Errorf("%s: %v", kid, err)
			}
		}
	})
}
