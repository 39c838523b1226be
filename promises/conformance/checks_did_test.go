package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// didDocument is a did:web document as far as a verifier of credentials reads it.
type didDocument struct {
	ID         string      `json:"id"`
	Methods    []didMethod `json:"verificationMethod"`
	Assertions []string    `json:"assertionMethod"`
	Services   []struct {
		ID, Type string
		Endpoint struct {
			Origins []string `json:"origins"`
		} `json:"serviceEndpoint"`
	} `json:"service"`
}

// key is the key that a DID URL names as an assertion method.
func (d didDocument) key(t testing.TB, kid string) any {
	t.Helper()
	at := slices.IndexFunc(d.Methods, func(m didMethod) bool { return m.ID == kid })
	if at < 0 || !slices.Contains(d.Assertions, kid) {
		t.Fatalf("%s is no assertion method: %+v", kid, d)
	}
	return d.Methods[at].JWK.Key
}

type didMethod struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Controller string          `json:"controller"`
	JWK        jose.JSONWebKey `json:"publicKeyJwk"`
}

// location maps a did:web to its document's URL, step by step as did:web §3.2 says.
func location(t testing.TB, did string) string {
	t.Helper()
	rest, found := strings.CutPrefix(did, "did:web:")
	if !found {
		t.Fatalf("%s is no did:web", did)
	}
	parts := strings.Split(rest, ":")
	host, err := url.PathUnescape(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) == 1 {
		parts = append(parts, ".well-known")
	}
	return "https://" + host + "/" + strings.Join(parts[1:], "/") + "/did.json"
}

// resolve fetches a did:web's document.
func (i *instance) resolve(t testing.TB, did string) (didDocument, answer) {
	t.Helper()
	a := i.do(t, http.MethodGet, location(t, did), nil)
	var document didDocument
	if err := json.Unmarshal(a.body, &document); err != nil {
		t.Fatalf("%s: %d %.300s: %v", location(t, did), a.status, a.body, err)
	}
	return document, a
}

// fresh is a new credential of a configuration in a JWS format.
func (i *instance) fresh(t testing.TB, id string) *jose.JSONWebSignature {
	t.Helper()
	s := i.session(t, id)
	list := credentials(t, s.ask(t, request(id, i.proof(t, newKey(t, jose.ES256), i.nonce(t), func(_, claims members) {
		if s.client != nil {
			claims["iss"] = walletID
		}
	}))), 1)
	compact, _, _ := strings.Cut(list[0], "~")
	credential, err := jose.ParseSignedCompact(compact, asymmetric)
	if err != nil {
		t.Fatal(err)
	}
	return credential
}

// TestCheckDID: the document is where the DID says, and its keys are the credentials'.
func TestCheckDID(t *testing.T) {
	all := everywhere(t)
	delete(all, "sealed") // whose credentials are read in the checks of encryption
	for name, i := range all {
		credential := i.fresh(t, residence)
		kid := credential.Signatures[0].Header.KeyID
		id, fragment, _ := strings.Cut(kid, "#")
		origin, path := i.split()
		document, a := i.resolve(t, id)
		t.Run("320 document "+name, func(t *testing.T) {
			if a.status != http.StatusOK || !slices.Contains([]string{"application/did+json", "application/json", "application/did"}, a.header.Get("Content-Type")) {
				t.Errorf("%d %v", a.status, a.header)
			}
			if document.ID != id || !slices.Contains(document.Assertions, kid) || len(document.Methods) == 0 {
				t.Errorf("%s", a.body)
			}
			for _, m := range document.Methods { // absolute DID URLs
				if !strings.HasPrefix(m.ID, id+"#") || m.Controller != id || m.Type != "JsonWebKey2020" || !m.JWK.IsPublic() {
					t.Errorf("%+v", m)
				}
			}
			for _, assertion := range document.Assertions {
				if !strings.HasPrefix(assertion, id+"#") {
					t.Errorf("%s is not absolute", assertion)
				}
			}
		})
		t.Run("321 port and path "+name, func(t *testing.T) {
			want := "did:web:" + strings.Replace(strings.TrimPrefix(origin, "https://"), ":", "%3A", 1) + strings.ReplaceAll(path, "/", ":")
			where := origin + "/.well-known/did.json"
			if path != "" {
				where = i.issuer + "/did.json"
			}
			if id != want || location(t, id) != where {
				t.Errorf("%s at %s, want %s at %s", id, location(t, id), want, where)
			}
			if path != "" && i.do(t, http.MethodGet, origin+"/.well-known/did.json", nil).status != http.StatusNotFound {
				t.Error("the host's own DID is another one")
			}
		})
		t.Run("322 key "+name, func(t *testing.T) {
			if fragment == "" {
				t.Fatalf("kid %q names no key", kid)
			}
			content, err := credential.Verify(document.key(t, kid))
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Issuer string `json:"iss"`
			}
			if err := json.Unmarshal(content, &claims); err != nil || claims.Issuer != id {
				t.Errorf("iss %q, want %q: %v", claims.Issuer, id, err)
			}
		})
	}
}
