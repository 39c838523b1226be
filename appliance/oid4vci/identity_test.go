package oid4vci

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/audit"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/jws"
)

const (
	linkagePath  = "/.well-known/did-configuration.json"
	vcIssuerPath = "/.well-known/jwt-vc-issuer"
)

// method finds the public key of an assertion method in the DID document that is
// served (check 320).
func (r *rig) method(t testing.TB, kid string) crypto.PublicKey {
	t.Helper()
	var document struct {
		Methods []struct {
			ID  string          `json:"id"`
			JWK jose.JSONWebKey `json:"publicKeyJwk"`
		} `json:"verificationMethod"`
		Assertion []string `json:"assertionMethod"`
	}
	if err := json.Unmarshal(r.get(t, "/.well-known/did.json").body, &document); err != nil {
		t.Fatal(err)
	}
	for _, m := range document.Methods {
		if m.ID == kid && slices.Contains(document.Assertion, kid) {
			return m.JWK.Key
		}
	}
	t.Fatalf("%s is no assertion method of %v", kid, document.Assertion)
	return nil
}

// linked checks a DID configuration resource as a verifier does that fetched it
// from the origin, and returns the credential's header and payload (check 324).
func (r *rig) linked(t testing.TB, a answer) (header, payload map[string]any) {
	t.Helper()
	object := a.object(t)
	dids, _ := object["linked_dids"].([]any)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || len(object) != 2 || len(dids) != 1 ||
		object["@context"] != "https://identity.foundation/.well-known/did-configuration/v1" {
		t.Fatalf("check 324: %d %v %s", a.status, a.header, a.body)
	}
	compact, _ := dids[0].(string)
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	kid := signed.Signatures[0].Protected.KeyID
	data, err := signed.Verify(r.method(t, kid))
	if err != nil {
		t.Fatalf("check 324: %v", err)
	}
	raw, err := jws.Base64URL(strings.Split(compact, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	if json.Unmarshal(raw, &header) != nil || json.Unmarshal(data, &payload) != nil {
		t.Fatalf("%s %s", raw, data)
	}
	if len(header) != 2 || len(payload) != 5 {
		t.Errorf("check 324: %s %s", raw, data)
	}
	id, _, _ := strings.Cut(kid, "#")
	vc, _ := payload["vc"].(map[string]any)
	subject := map[string]any{"id": id, "origin": "https://localhost:8443"}
	if payload["iss"] != id || payload["sub"] != id || vc["issuer"] != id || !reflect.DeepEqual(vc["credentialSubject"], subject) || vc["id"] != nil || vc["proof"] != nil {
		t.Errorf("check 324: %s", data)
	}
	for claim, member := range map[string]string{"nbf": "issuanceDate", "exp": "expirationDate"} {
		seconds, _ := payload[claim].(float64)
		if date := time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339); vc[member] != date || (claim == "exp") != time.Unix(int64(seconds), 0).After(r.now()) {
			t.Errorf("check 324: %s %s, %s %v, now %v", claim, date, member, vc[member], r.now())
		}
	}
	return header, payload
}

// linkages counts the signatures that link a DID, by key.
func (s signing) linkages(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, e := range s.signer.Entries(t, audit.KindIntent) {
		if e.Format == issuance.FormatDomain {
			out[e.Key]++
		}
	}
	return out
}

// TestCheck324Linkage: signed by the DID's key, once, again after half of its
// life, and kept while the token is away.
func TestCheck324Linkage(t *testing.T) {
	s := newSigning(t, true, nil)
	first := s.get(t, linkagePath)
	header, payload := s.linked(t, first)
	want(t, header["kid"] == s.signer.Identity(t, "did-1").KeyID && header["alg"] == "ES256", "header", header)
	want(t, payload["exp"].(float64)-payload["nbf"].(float64) == (30*24*time.Hour).Seconds(), "validity", payload)
	t.Run("every document of the DID", func(t *testing.T) {
		for path, mediaType := range map[string]string{linkagePath: "application/json", vcIssuerPath: "application/json", "/.well-known/did.json": "application/did+json"} {
			s.checkDocument(t, path, mediaType)
		}
	})
	for range 3 {
		s.refresh(t)
	}
	s.advance(t, 15*24*time.Hour-time.Hour)
	want(t, bytes.Equal(s.get(t, linkagePath).body, first.body) && s.linkages(t)["did-1"] == 1, "before half of its life", s.linkages(t))
	s.signer.Fault.Order(t, "gone 0x32")
	s.advance(t, 2*time.Hour)
	s.refresh(t)
	want(t, bytes.Equal(s.get(t, linkagePath).body, first.body), "it stays while the token is away", s.log)
	want(t, strings.Count(s.log.String(), "the domain linkage credential cannot be signed anew now") == 1, "the log", s.log)
	s.advance(t, 15*24*time.Hour)
	want(t, s.get(t, linkagePath).status == http.StatusNotFound, "after its end", s.log)
	want(t, strings.Count(s.log.String(), "there is no "+linkagePath) == 1, "the log", s.log)
	want(t, s.get(t, "/.well-known/did.json").status == http.StatusOK, "the document stays", nil)
	s.signer.Fault.Order(t)
	for deadline := time.Now().Add(time.Minute); s.get(t, linkagePath).status != http.StatusOK; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not signed again: %s", s.log)
		}
		s.refresh(t)
	}
	s.linked(t, s.get(t, linkagePath))
	want(t, strings.Count(s.log.String(), "the domain linkage credential can be signed again") == 1, "the log", s.log)
}

// checkDocument: HEAD, entity tag, methods, caches and other origins.
func (r *rig) checkDocument(t *testing.T, path, mediaType string) {
	t.Helper()
	target := "https://localhost:8443" + path
	a, head := r.get(t, path), do(t, r.client, http.MethodHead, target, nil)
	want(t, a.status == http.StatusOK && a.header.Get("Content-Type") == mediaType, path, a.header)
	for _, name := range []string{"Content-Type", "Content-Length", "Etag", "Cache-Control", "Access-Control-Allow-Origin"} {
		want(t, head.header.Get(name) == a.header.Get(name) && head.header.Get(name) != "", path+" "+name, head.header)
	}
	want(t, a.header.Get("Access-Control-Allow-Origin") == "*" && a.header.Get("X-Content-Type-Options") == "nosniff", path, a.header)
	want(t, r.get(t, path, "If-None-Match", a.header.Get("Etag")).status == http.StatusNotModified, path+": 304", nil)
	want(t, r.get(t, path, "If-None-Match", `"x"`).status == http.StatusOK, path+": 200", nil)
	post := do(t, r.client, http.MethodPost, target, nil)
	want(t, post.status == http.StatusMethodNotAllowed && post.header.Get("Allow") == "GET, HEAD", path+": POST", post.header)
	preflight := do(t, r.client, http.MethodOptions, target, nil, "Origin", "https://verifier.example", "Access-Control-Request-Method", "GET")
	want(t, preflight.status == http.StatusNoContent && strings.Contains(preflight.header.Get("Access-Control-Allow-Methods"), "GET"), path+": preflight", preflight.header)
}

// plan is the example's with one thing changed.
func plan(t testing.TB, old, replacement string) string {
	t.Helper()
	text := signertest.Example(t, "ceremony.toml")
	if strings.Count(text, old) != 1 {
		t.Fatalf("the example does not hold %q once", old)
	}
	return strings.Replace(text, old, replacement, 1)
}

// TestCheck324WithoutTheFormat: a key of an earlier ceremony links nothing. There is
// no document, the signer is not asked, and the log says so once.
func TestCheck324WithoutTheFormat(t *testing.T) {
	var log bytes.Buffer
	r := newRig(t, rigOptions{signer: signertest.Options{Plan: plan(t, `, "domainlinkage"`, "")}})
	r.Issuer.log = slog.New(slog.NewTextHandler(&log, nil))
	r.published.Store(&published{}) // as after a start
	for range 3 {
		if err := r.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.ahead.Add(int64(2 * signPause))
	}
	want(t, r.get(t, linkagePath).status == http.StatusNotFound, "a document", nil)
	want(t, strings.Count(log.String(), "profile has domainlinkage in its formats") == 1, "the log", log.String())
	want(t, len(r.signer.Entries(t, audit.KindRefused, audit.KindIntent)) == 0, "the signer was asked", nil)
	want(t, r.get(t, "/.well-known/did.json").status == http.StatusOK, "the document", nil)
}

// TestCheck324WithoutADID: there is nothing to link and nothing to say.
func TestCheck324WithoutADID(t *testing.T) {
	var log bytes.Buffer
	i, client := unsigned(t, config.Issuer{Identifier: "https://localhost:8443"})
	i.log = slog.New(slog.NewTextHandler(&log, nil))
	if err := i.update(t.Context(), wire.IdentitiesResponse{Generation: 1, Identities: []wire.Identity{{Label: "ds-1", Purpose: wire.PurposeDocumentSigner}}}, encryptionMetadata{}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{linkagePath, vcIssuerPath, "/.well-known/did.json"} {
		want(t, do(t, client, http.MethodGet, "https://localhost:8443"+path, nil).status == http.StatusNotFound, path, nil)
	}
	want(t, log.Len() == 0, "the log", log.String())
}

// secondPlan is a ceremony's plan with a DID key alone, whose label comes first.
func secondPlan(formats, more string) string {
	return fmt.Sprintf(`issuer = %q
country = "UT"
organization = "Utopia Citizen Services"
contact_email = "credentials@utopia.example"
output = "later"
[[keys]]
label = "a-did"
purpose = "did"
algorithm = "EdDSA"
[keys.profile]
formats = [%s]
longest_validity_hours = 8760
%s`, signertest.Issuer, formats, more)
}

// hold holds a further ceremony, after which the signer goes on.
func (r *rig) hold(t testing.TB, plan string) {
	t.Helper()
	if err := r.signer.Stop(t); err != nil {
		t.Fatal(err)
	}
	r.signer.Hold(t, plan)
	r.signer.Start(t)
	if err := r.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// residence issues a residence permit and verifies it with the key that its kid
// names in the document as it is now; it returns the kid.
func (r *rig) residence(t testing.TB) (kid, compact string) {
	t.Helper()
	h := newHolder(t, issuance.ES256)
	compact = credential(t, r.ask(t, r.token(t, r.offer(t, nil, residenceID)), request(residenceID, r.good(t, h, r.nonce(t)))))
	return r.verifyResidence(t, compact), compact
}

func (r *rig) verifyResidence(t testing.TB, compact string) (kid string) {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	kid = signed.Signatures[0].Protected.KeyID
	if _, err := signed.Verify(r.method(t, kid)); err != nil {
		t.Fatalf("check 322: %s: %v", kid, err)
	}
	return kid
}

// TestCheck323Rotation: after a second ceremony the document has both keys, the new
// one first; what the old one signed still verifies, the new one signs from then on,
// and links the DID.
func TestCheck323Rotation(t *testing.T) {
	s := newSigning(t, false, nil)
	old, before := s.residence(t)
	header, _ := s.linked(t, s.get(t, linkagePath))
	want(t, header["kid"] == old && old == s.signer.Identity(t, "did-1").KeyID, "linked by the old key", header)
	etag := s.get(t, "/.well-known/did.json").header.Get("Etag")

	s.hold(t, secondPlan(`"jwt_vc_json", "domainlinkage"`, `types = ["ResidencePermitCredential"]`))
	document := s.get(t, "/.well-known/did.json", "If-None-Match", etag)
	newer := s.signer.Identity(t, "a-did").KeyID
	assertion := document.object(t)["assertionMethod"]
	want(t, document.status == http.StatusOK && reflect.DeepEqual(assertion, []any{newer, old}), "the new key first", assertion)
	header, _ = s.linked(t, s.get(t, linkagePath))
	want(t, header["kid"] == newer && header["alg"] == "EdDSA", "linked by the new key", header)
	want(t, reflect.DeepEqual(s.linkages(t), map[string]int{"did-1": 1, "a-did": 1}), "signed once by each", s.linkages(t))

	// The configuration still names the old key; then an operator names the new one.
	kid, _ := s.residence(t)
	want(t, kid == old, "the configuration's key", kid)
	s.configurations[residenceID].Signer = "a-did"
	kid, after := s.residence(t)
	want(t, kid == newer, "the configuration's new key", kid)
	want(t, s.verifyResidence(t, before) == old && s.verifyResidence(t, after) == newer, "both verify", nil)
}

// TestCheck324ByTheNewestThatMay: a new key without the format leaves the linking to
// the one before it.
func TestCheck324ByTheNewestThatMay(t *testing.T) {
	s := newSigning(t, false, nil)
	s.hold(t, secondPlan(`"jwt_vc_json"`, `types = ["ResidencePermitCredential"]`))
	header, _ := s.linked(t, s.get(t, linkagePath))
	want(t, header["kid"] == s.signer.Identity(t, "did-1").KeyID && s.linkages(t)["a-did"] == 0 && s.log.Len() == 0, "linked by", header)
}

// vcIssuerKeys fetches the JWT VC Issuer Metadata of the identifier (check 326).
func (r *rig) vcIssuerKeys(t testing.TB) jose.JSONWebKeySet {
	t.Helper()
	a := r.get(t, vcIssuerPath)
	object := a.object(t)
	if a.status != http.StatusOK || object["issuer"] != r.identifier || object["jwks"] == nil || len(object) != 2 {
		t.Fatalf("check 326: %d %s", a.status, a.body)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(encode(t, object["jwks"]), &set); err != nil {
		t.Fatal(err)
	}
	return set
}

// pid issues a PID and verifies it with the one key of the issuer's set that its kid
// names; it returns that key and the header.
func (r *rig) pid(t testing.TB) (jose.JSONWebKey, jose.Header) {
	t.Helper()
	h := newHolder(t, issuance.ES256)
	text := credential(t, r.ask(t, r.token(t, r.offer(t, nil, pidID)), request(pidID, r.good(t, h, r.nonce(t)))))
	compact, _, _ := strings.Cut(text, "~")
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	header := signed.Signatures[0].Protected
	set := r.vcIssuerKeys(t)
	found := set.Key(header.KeyID)
	if header.KeyID == "" || len(found) != 1 || found[0].Algorithm != header.Algorithm || found[0].Use != "sig" || !found[0].IsPublic() {
		t.Fatalf("check 326: kid %q, %d keys", header.KeyID, len(found))
	}
	payload, err := signed.Verify(found[0].Key)
	if err != nil {
		t.Fatalf("check 326: %v", err)
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Issuer != r.identifier {
		t.Errorf("check 326: iss %q (%v)", claims.Issuer, err)
	}
	return found[0], header
}

// TestCheck326VCIssuer: a verifier without the anchor finds an SD-JWT VC's key by its
// kid; it is the key of the certificate in x5c.
func TestCheck326VCIssuer(t *testing.T) {
	r := newRig(t, rigOptions{})
	want(t, len(r.vcIssuerKeys(t).Keys) == 1, "keys", nil)
	key, header := r.pid(t)
	anchor, err := x509.ParseCertificate(r.signer.Identity(t, "cs-1").Anchor)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(anchor)
	chains, err := header.Certificates(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil || !chains[0][0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Key) {
		t.Errorf("x5c: %v", err)
	}
}

// TestCheck326DIDKey: a DID key whose profile is in the identifier's name signs SD-JWT
// VCs under it, and stands in the set, before the older one, by its DID URL.
func TestCheck326DIDKey(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.hold(t, secondPlan(`"dc+sd-jwt"`, `types = ["urn:eudi:pid:1"]
issuer = "https://localhost:8443"`))
	r.configurations[pidID].Signer = "a-did"
	key, header := r.pid(t)
	want(t, key.KeyID == r.signer.Identity(t, "a-did").KeyID && len(header.ExtraHeaders) == 1, "header", header)
	keys := r.vcIssuerKeys(t).Keys
	want(t, len(keys) == 2 && keys[0].KeyID == key.KeyID && keys[1].KeyID == r.signer.Identity(t, "cs-1").KeyID, "the newest first", keys)
}

// TestCheck326AnotherIssuer: keys whose profile names another issuer are not this one's.
func TestCheck326AnotherIssuer(t *testing.T) {
	r := newRig(t, rigOptions{issuer: func(i *config.Issuer) { i.Identifier += "/tenant" }})
	for _, path := range []string{vcIssuerPath, vcIssuerPath + "/tenant", "/tenant" + vcIssuerPath} {
		want(t, r.get(t, path).status == http.StatusNotFound, path, nil)
	}
	want(t, r.get(t, linkagePath).status == http.StatusOK && r.get(t, "/tenant"+linkagePath).status == http.StatusNotFound, "the linkage is the origin's", nil)
}

// TestGoldenIdentity: the documents that say whose keys the issuer's are, letter for
// letter but for white space, of keys that everybody knows (RFC 7517 App. A.1, RFC
// 8037 App. A.2), for an identifier with a path.
func TestGoldenIdentity(t *testing.T) {
	const identifier = "https://issuer.example.com/utopia"
	id, err := did.Web(identifier)
	if err != nil {
		t.Fatal(err)
	}
	ids := wire.IdentitiesResponse{Generation: 1}
	var methods []did.WebKey
	for n, jwk := range []string{`{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`,
		`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`} {
		public, err := jws.ParsePublicJWK([]byte(jwk))
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		algorithm, err := issuance.AlgorithmFor(public)
		if err != nil {
			t.Fatal(err)
		}
		kid, err := did.WebKeyID(id, public)
		if err != nil {
			t.Fatal(err)
		}
		methods = append(methods, did.WebKey{ID: kid, Public: public})
		key := wire.Identity{Label: fmt.Sprint("did-", n), Purpose: wire.PurposeDID, Created: int64(n), Algorithm: algorithm, PublicKey: spki, DID: id, KeyID: kid}
		key.Profile = issuance.Profile{Formats: []issuance.Format{issuance.FormatSDJWT}, Types: []string{"t"}, Issuer: identifier, LongestValidityHours: 24}
		signer := key
		signer.Label, signer.Purpose, signer.DID = fmt.Sprint("cs-", n), wire.PurposeCredentialSigner, ""
		_, signer.KeyID, _ = strings.Cut(kid, "#")
		signer.Created += 2
		ids.Identities = append(ids.Identities, key, signer)
	}
	slices.Reverse(methods) // the newest first
	document, err := did.WebDocument(id, methods)
	if err != nil {
		t.Fatal(err)
	}
	for n := range ids.Identities {
		if ids.Identities[n].DID != "" {
			ids.Identities[n].DIDDocument = document
		}
	}
	i, _ := unsigned(t, config.Issuer{Identifier: identifier})
	if err := i.update(t.Context(), ids, encryptionMetadata{}); err != nil {
		t.Fatal(err)
	}
	client := serve(t, i.Handler())
	for name, path := range map[string]string{"jwt-vc-issuer.json": vcIssuerPath + "/utopia", "did.json": "/utopia/did.json"} {
		a := do(t, client, http.MethodGet, "https://issuer.example.com"+path, nil)
		want(t, a.status == http.StatusOK, path, a.status)
		golden(t, name, a.body)
	}
}
