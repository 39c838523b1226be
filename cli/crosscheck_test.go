package cli

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/did"
	"chancery/issuance/iaca"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
	"chancery/verifier"
	"chancery/verifier/strictjson"
	"chancery/wallet"

	"pgregory.net/rapid"
)

// The issuing side and the verifier share no code; this file is the one place
// where they meet without an appliance in between.

const crossIssuer = "https://issuer.example:8443/tenant"

// crossSigner is one signing key with its certificate.
type crossSigner struct {
	key  *ecdsa.PrivateKey
	leaf []byte
}

// sign makes the raw signature that the token would make.
func (s crossSigner) sign(p *issuance.Prepared) (string, error) {
	h := p.Algorithm.Hash().New()
	h.Write(p.TBS)
	r, t, err := ecdsa.Sign(rand.Reader, s.key, h.Sum(nil))
	if err != nil {
		return "", err
	}
	n := p.Algorithm.SignatureSize() / 2
	return p.Assemble(slices.Concat(r.FillBytes(make([]byte, n)), t.FillBytes(make([]byte, n))))
}

// messageSigner lets crypto/x509 sign as it does with a token's key.
type messageSigner struct{ *ecdsa.PrivateKey }

// crossPKI makes a root and a signer below it for each algorithm.
func crossPKI(t testing.TB, curve elliptic.Curve, now time.Time) (*x509.Certificate, map[iaca.Profile]crossSigner) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	plan := func(p iaca.Profile, name string, days int) iaca.Plan {
		return iaca.Plan{Profile: p, Subject: iaca.Name{Country: "UT", State: "UT-01", Organization: "Utopia", CommonName: name}, NotBefore: now.AddDate(0, 0, -1),
			NotAfter: now.AddDate(0, 0, days), ContactURL: "https://utopia.example", CRL: "https://utopia.example/iaca.crl", IssuerURL: crossIssuer}
	}
	rootKey := newKey()
	der, err := iaca.Create(plan(iaca.Root, "Root", 3000), nil, rootKey.Public(), messageSigner{rootKey})
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	signers := map[iaca.Profile]crossSigner{}
	for _, p := range []iaca.Profile{iaca.DocumentSigner, iaca.CredentialSigner} {
		key := newKey()
		leaf, err := iaca.Create(plan(p, string(p), 300), root, key.Public(), messageSigner{rootKey})
		if err != nil {
			t.Fatal(err)
		}
		signers[p] = crossSigner{key, leaf}
	}
	return root, signers
}

// accepted verifies a credential and fails the test on any failure or warning.
func accepted(t *rapid.T, text string, o verifier.Options) *verifier.Report {
	t.Helper()
	r, err := verifier.Verify(context.Background(), []byte(text), o)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Verified {
		t.Fatalf("not verified: %+v", r.Failures())
	}
	for _, c := range r.Checks {
		if c.Outcome == verifier.Warning {
			t.Fatalf("warning: %s: %s", c.Name, c.Detail)
		}
	}
	return r
}

func TestVerifierAcceptsWhatIsIssued(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	for algorithm, curve := range map[issuance.Algorithm]elliptic.Curve{issuance.ES256: elliptic.P256(), issuance.ES384: elliptic.P384()} {
		root, signers := crossPKI(t, curve, now)
		holder, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		o := verifier.Options{Anchors: []*x509.Certificate{root}, Fresh: true, Holder: holder.Public()}
		t.Run(string(algorithm)+" mdoc", rapid.MakeCheck(func(t *rapid.T) {
			crossMdoc(t, signers[iaca.DocumentSigner], algorithm, holder.Public(), now, o)
		}))
		t.Run(string(algorithm)+" sd-jwt", rapid.MakeCheck(func(t *rapid.T) {
			crossSDJWT(t, signers[iaca.CredentialSigner], algorithm, holder.Public(), now, o)
		}))
		t.Run(string(algorithm)+" jwt vc", rapid.MakeCheck(func(t *rapid.T) {
			crossJWTVC(t, signers[iaca.CredentialSigner], algorithm, holder.Public(), now, o)
		}))
	}
}

// drawClaims draws a few claims with names and texts beyond ASCII.
func drawClaims(t *rapid.T) map[string]any {
	name := rapid.StringMatching(`[a-zäöß_]{1,12}`)
	value := rapid.OneOf(rapid.Just[any](true), rapid.Map(rapid.String(), func(s string) any { return s }), rapid.Map(rapid.Int32(), func(n int32) any { return int64(n) }))
	claims := rapid.MapOfN(name, value, 1, 12).Draw(t, "claims")
	for _, taken := range []string{"iss", "nbf", "exp", "iat", "cnf", "vct", "status", "sub", "id", "type", "_sd_alg", "_sd"} {
		delete(claims, taken)
	}
	claims["always"] = "there"
	return claims
}

func crossMdoc(t *rapid.T, s crossSigner, algorithm issuance.Algorithm, holder crypto.PublicKey, now time.Time, o verifier.Options) {
	claims := drawClaims(t)
	var elements []mdoc.Element
	for _, name := range sortedNames(claims) {
		elements = append(elements, mdoc.Element{Namespace: rapid.SampledFrom([]string{"a.b", "c.d"}).Draw(t, "namespace"), Identifier: fmt.Sprintf("e%x", name), Value: claims[name]})
	}
	p, err := mdoc.Prepare(mdoc.Request{DocType: "org.example.test", Elements: elements, DeviceKey: holder, Chain: [][]byte{s.leaf}, Algorithm: algorithm,
		Signed: now, ValidFrom: now, ValidUntil: now.Add(time.Hour), PadTo: rapid.IntRange(0, 9).Draw(t, "pad")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.sign(p)
	if err != nil {
		t.Fatal(err)
	}
	o.Type = "org.example.test"
	r := accepted(t, text, o)
	if len(r.Claims) != len(elements) {
		t.Fatalf("%d elements went in, %d came out", len(elements), len(r.Claims))
	}
	for _, c := range r.Claims {
		i := slices.IndexFunc(elements, func(e mdoc.Element) bool { return e.Namespace == c.Path[0] && e.Identifier == c.Path[1] })
		if i < 0 || fmt.Sprint(elements[i].Value) != fmt.Sprint(c.Value) {
			t.Fatalf("%v is %v", c.Path, c.Value)
		}
	}
}

func crossSDJWT(t *rapid.T, s crossSigner, algorithm issuance.Algorithm, holder crypto.PublicKey, now time.Time, o verifier.Options) {
	claims := drawClaims(t)
	claims["address"] = map[string]any{"country": "UT", "lines": []any{"a", "b"}}
	disclose := []sdjwt.Path{}
	for _, path := range []sdjwt.Path{{"always"}, {"address"}, {"address", "country"}, {"address", "lines", nil}} {
		if rapid.Bool().Draw(t, "disclose") {
			disclose = append(disclose, path)
		}
	}
	p, err := sdjwt.Prepare(sdjwt.Request{VCT: "urn:test", Issuer: crossIssuer, Claims: claims, Disclose: disclose, Decoys: rapid.IntRange(0, 5).Draw(t, "decoys"),
		Holder: holder, Chain: [][]byte{s.leaf}, Algorithm: algorithm, IssuedAt: now, NotBefore: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.sign(p)
	if err != nil {
		t.Fatal(err)
	}
	o.Type = "urn:test"
	r := accepted(t, text, o)
	for _, name := range sortedNames(claims) {
		if name != "address" && !slices.ContainsFunc(r.Claims, func(c verifier.Claim) bool {
			return slices.Equal(c.Path, []string{name}) && fmt.Sprint(c.Value) == fmt.Sprint(claims[name])
		}) {
			t.Fatalf("%q is not among the claims: %+v", name, r.Claims)
		}
	}
	if strings.Count(text, "~") < 1+len(disclose) {
		t.Fatalf("%d disclosures for %v", strings.Count(text, "~")-1, disclose)
	}
}

func crossJWTVC(t *rapid.T, s crossSigner, algorithm issuance.Algorithm, holder crypto.PublicKey, now time.Time, o verifier.Options) {
	issuer, err := did.Web(crossIssuer)
	if err != nil {
		t.Fatal(err)
	}
	keyID, err := did.WebKeyID(issuer, s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	subject, _, err := did.JWK(holder)
	if rapid.Bool().Draw(t, "did:key") {
		subject, _, err = did.Key(holder)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := w3cvc.Prepare(w3cvc.Request{ID: "urn:uuid:" + base64.RawURLEncoding.EncodeToString(s.leaf[:8]), Issuer: issuer, KeyID: keyID, Types: []string{"TestCredential"},
		Subject: drawClaims(t), SubjectID: subject, Holder: holder, Algorithm: algorithm, ValidFrom: now, ValidUntil: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.sign(p)
	if err != nil {
		t.Fatal(err)
	}
	o.Type = "TestCredential"
	o.Fetch = func(_ context.Context, url string) ([]byte, error) {
		if url != "https://issuer.example:8443/tenant/did.json" {
			return nil, errors.New("no such document: " + url)
		}
		return did.WebDocument(issuer, []did.WebKey{{ID: keyID, Public: s.key.Public()}})
	}
	accepted(t, text, o)
}

func sortedNames(claims map[string]any) []string {
	names := make([]string, 0, len(claims))
	for name := range claims {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// The example configurations, with their sample claims, give credentials that
// verify and metadata that a wallet takes.
func TestVerifierAcceptsTheExamples(t *testing.T) {
	all, err := configuration.LoadDir(filepath.Join("..", "examples", "configurations"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	root, signers := crossPKI(t, elliptic.P256(), now)
	holder, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		t.Run(c.ID, func(t *testing.T) {
			claims, err := os.ReadFile(filepath.Join("..", "examples", "claims", c.ID+".json"))
			if err != nil {
				t.Fatal(err)
			}
			issuer, err := did.Web(crossIssuer)
			if err != nil {
				t.Fatal(err)
			}
			s := signers[iaca.CredentialSigner]
			m := configuration.Material{Holder: holder.Public(), Chain: [][]byte{s.leaf}, Issuer: crossIssuer, CredentialID: "b3b9e4a6-7e1b-4c9b-9a52-3a0d5b2f8f10",
				Algorithm: issuance.ES256, Now: now, NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(0, 0, 300)}
			switch c.Format {
			case issuance.FormatMdoc:
				s = signers[iaca.DocumentSigner]
				m.Chain, m.Issuer = [][]byte{s.leaf}, ""
			case issuance.FormatJWTVC:
				m.Chain, m.Issuer = nil, issuer
				if m.KeyID, err = did.WebKeyID(issuer, s.key.Public()); err != nil {
					t.Fatal(err)
				}
			}
			p, err := c.Prepare(claims, m)
			if err != nil {
				t.Fatal(err)
			}
			text, err := s.sign(p)
			if err != nil {
				t.Fatal(err)
			}
			o := verifier.Options{Anchors: []*x509.Certificate{root}, Fresh: true, Holder: holder.Public(), Now: now, Fetch: func(context.Context, string) ([]byte, error) {
				if c.Format != issuance.FormatJWTVC {
					return nil, errors.New("there is no revocation list")
				}
				return did.WebDocument(issuer, []did.WebKey{{ID: m.KeyID, Public: s.key.Public()}})
			}}
			r, err := verifier.Verify(t.Context(), []byte(text), o)
			if err != nil || !r.Verified {
				t.Fatalf("%v: %+v", err, r.Failures())
			}
			if missing := walletView(t, c).Missing(claimPaths(r)); len(missing) > 0 {
				t.Errorf("mandatory claims that are missing: %v", missing)
			}
		})
	}
}

// walletView reads a configuration's metadata as the wallet does.
func walletView(t *testing.T, c *configuration.Configuration) wallet.Configuration {
	t.Helper()
	data, err := json.Marshal(map[string]any{"credential_issuer": crossIssuer, "credential_endpoint": crossIssuer + "/c", "nonce_endpoint": crossIssuer + "/n",
		"credential_configurations_supported": map[string]any{c.ID: c.Metadata([]issuance.Algorithm{issuance.ES256})}})
	if err != nil {
		t.Fatal(err)
	}
	object, err := strictjson.Object(data)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wallet.ParseMetadata(object, crossIssuer)
	if err != nil {
		t.Fatal(err)
	}
	return m.Configurations[c.ID]
}

func claimPaths(r *verifier.Report) [][]string {
	var paths [][]string
	for _, c := range r.Claims {
		paths = append(paths, c.Path)
	}
	return paths
}
