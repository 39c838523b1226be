package conformance

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// jwtVC is a credential of format jwt_vc_json (VCDM 1.1 §6.3.1).
type jwtVC struct {
	header  members
	payload members
	vc      members
}

// readVC reads a credential and checks its signature with the key that the DID
// document, fetched from the instance, has for its kid.
func (i *instance) readVC(t testing.TB, credential string) jwtVC {
	t.Helper()
	signed, err := jose.ParseSignedCompact(credential, asymmetric)
	if err != nil {
		t.Fatal(err)
	}
	kid := signed.Signatures[0].Header.KeyID
	issuer, _, _ := strings.Cut(kid, "#")
	a := i.do(t, http.MethodGet, location(t, issuer), nil)
	var document didDocument
	if err := json.Unmarshal(a.body, &document); err != nil || a.status != http.StatusOK || document.ID != issuer {
		t.Fatalf("the document of %s: %d %.300s: %v", issuer, a.status, a.body, err)
	}
	at := slices.IndexFunc(document.Methods, func(m didMethod) bool { return m.ID == kid })
	if at < 0 || !slices.Contains(document.Assertions, kid) {
		t.Fatalf("%s is no assertionMethod of %s", kid, a.body)
	}
	content, err := signed.Verify(document.Methods[at].JWK.Key)
	if err != nil {
		t.Fatal(err)
	}
	var c jwtVC
	header, err := base64.RawURLEncoding.Strict().DecodeString(credential[:strings.IndexByte(credential, '.')])
	if err != nil || json.Unmarshal(header, &c.header) != nil || json.Unmarshal(content, &c.payload) != nil {
		t.Fatalf("header %s, payload %.300s", header, content)
	}
	if c.vc, _ = c.payload["vc"].(members); c.vc == nil {
		t.Fatal("no vc")
	}
	return c
}

// seconds is a member of the payload that is a NumericDate, whole.
func seconds(t testing.TB, payload members, name string) int64 {
	t.Helper()
	number, isNumber := payload[name].(float64)
	if !isNumber || number != float64(int64(number)) {
		t.Fatalf("%s: %v", name, payload[name])
	}
	return int64(number)
}

func TestCheck247To249W3CVC(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		k := newKey(t, jose.ES256)
		c := i.readVC(t, i.one(t, residence, k))
		t.Run("247 claims "+name, func(t *testing.T) {
			if typ, has := c.header["typ"]; has && typ != "JWT" {
				t.Errorf("typ %v", typ)
			}
			for claim, member := range map[string]string{"nbf": "issuanceDate", "exp": "expirationDate"} {
				text, _ := c.vc[member].(string)
				at, err := time.Parse(time.RFC3339, text)
				if err != nil || at.Unix() != seconds(t, c.payload, claim) {
					t.Errorf("%s %v, %s %q: %v", claim, c.payload[claim], member, text, err)
				}
			}
			if id, _ := c.vc["id"].(string); !strings.Contains(id, ":") || c.payload["jti"] != id {
				t.Errorf("jti %v, id %v", c.payload["jti"], c.vc["id"])
			}
			subject, _ := c.vc["credentialSubject"].(members)
			if !sameJWK(t, c.payload["sub"], k) || subject["id"] != c.payload["sub"] {
				t.Errorf("sub %v, credentialSubject.id %v", c.payload["sub"], subject["id"])
			}
			if c.vc["issuer"] != c.payload["iss"] || !strings.HasPrefix(c.header["kid"].(string), c.payload["iss"].(string)+"#") {
				t.Errorf("iss %v, issuer %v, kid %v", c.payload["iss"], c.vc["issuer"], c.header["kid"])
			}
			for _, absent := range []string{"proof", "validFrom", "validUntil"} {
				if _, has := c.vc[absent]; has {
					t.Errorf("vc has %s", absent)
				}
			}
		})
		t.Run("248 context and type "+name, func(t *testing.T) {
			contexts, _ := c.vc["@context"].([]any)
			if len(contexts) == 0 || contexts[0] != "https://www.w3.org/2018/credentials/v1" {
				t.Errorf("@context %v", c.vc["@context"])
			}
			types, _ := c.vc["type"].([]any)
			definition := i.metadata(t).Configurations[residence].Definition
			if len(definition.Type) < 2 || !slices.Contains(definition.Type, "VerifiableCredential") {
				t.Errorf("the metadata's types %v", definition.Type)
			}
			for _, wanted := range definition.Type {
				if !slices.Contains(types, any(wanted)) {
					t.Errorf("type %v lacks %s", types, wanted)
				}
			}
		})
		// Credentials of VCDM 2.0 are in no format that is issued: what the metadata
		// lists is all there is.
		t.Run("249 no vc+jwt "+name, func(t *testing.T) {
			for id, configuration := range i.metadata(t).Configurations {
				if !slices.Contains([]string{"mso_mdoc", "dc+sd-jwt", "jwt_vc_json"}, configuration.Format) {
					t.Errorf("%s has format %s", id, configuration.Format)
				}
			}
			if c.header["typ"] == "vc+jwt" || slices.Contains(c.vc["@context"].([]any), any("https://www.w3.org/ns/credentials/v2")) {
				t.Errorf("typ %v, @context %v", c.header["typ"], c.vc["@context"])
			}
		})
	}
}

// sameJWK tells whether a did:jwk, however its members are ordered, is a key's.
func sameJWK(t testing.TB, did any, k key) bool {
	t.Helper()
	text, _ := did.(string)
	encoded, found := strings.CutPrefix(text, "did:jwk:")
	data, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	var m members
	if !found || err != nil || json.Unmarshal(data, &m) != nil {
		return false
	}
	return string(marshal(t, m)) == string(marshal(t, k.members(t)))
}
