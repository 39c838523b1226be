package verifier

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// goldenNow is the moment the golden credentials are verified at.
var goldenNow = time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)

// shared returns a file of the shared vectors, or skips.
func shared(t testing.TB, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "shared", "specs", "vectors"}, elem...)...))
	if err != nil {
		t.Skip("shared vectors are not on this machine")
	}
	return data
}

func certificate(t testing.TB, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func fromHex(t testing.TB, data []byte) []byte {
	t.Helper()
	raw, err := hex.DecodeString(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

type golden struct {
	Name       string `json:"name"`
	Alg        string `json:"alg"`
	DocType    string `json:"docType"`
	Credential string `json:"credential"`
	Items      []struct {
		Namespace         string `json:"namespace"`
		ElementIdentifier string `json:"elementIdentifier"`
	} `json:"items"`
}

// goldenSet reads the golden credentials, copied into testdata.
func goldenSet(t testing.TB) []golden {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Credentials []golden `json:"credentials"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	return file.Credentials
}

// goldenOptions trust both golden roots.
func goldenOptions(t testing.TB) Options {
	t.Helper()
	o := Options{Now: goldenNow, Fresh: true}
	for _, name := range []string{"iaca.pem", "iaca-p384.pem"} {
		data, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			t.Fatal(err)
		}
		o.Anchors = append(o.Anchors, certificate(t, data))
	}
	return o
}

func verify(t testing.TB, data []byte, o Options) *Report {
	t.Helper()
	r, err := Verify(context.Background(), data, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func expectVerified(t testing.TB, r *Report) {
	t.Helper()
	if !r.Verified {
		t.Fatalf("not verified: %+v", r.Failures())
	}
}

func TestGoldenCredentials(t *testing.T) {
	for _, g := range goldenSet(t) {
		t.Run(g.Name, func(t *testing.T) {
			r := verify(t, []byte(g.Credential), goldenOptions(t))
			expectVerified(t, r)
			if r.Type != g.DocType || r.Format != Mdoc || r.Algorithm != g.Alg || r.HolderKey == nil {
				t.Errorf("report says %s %s %s, holder %v", r.Format, r.Type, r.Algorithm, r.Holder)
			}
			for _, item := range g.Items {
				if !slices.ContainsFunc(r.Claims, func(c Claim) bool {
					return slices.Equal(c.Path, []string{item.Namespace, item.ElementIdentifier})
				}) {
					t.Errorf("%s/%s is not among the claims", item.Namespace, item.ElementIdentifier)
				}
			}
			for _, c := range r.Checks {
				if c.Outcome == Warning {
					t.Errorf("warning: %s: %s", c.Name, c.Detail)
				}
			}
		})
	}
}

// The same credential is accepted as text, as hexadecimal and as CBOR.
func TestGoldenCredentialForms(t *testing.T) {
	g := goldenSet(t)[0]
	raw, err := base64.RawURLEncoding.DecodeString(g.Credential)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range [][]byte{raw, []byte(hex.EncodeToString(raw)), []byte(g.Credential + "\n")} {
		expectVerified(t, verify(t, form, goldenOptions(t)))
	}
}

func TestGoldenRevocation(t *testing.T) {
	g := goldenSet(t)[0]
	for _, c := range []struct {
		file string
		good bool
	}{{"crl-empty.hex", true}, {"crl-ds-revoked.hex", false}} {
		data, err := os.ReadFile(filepath.Join("testdata", "golden", c.file))
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList(fromHex(t, data))
		if err != nil {
			t.Fatal(err)
		}
		o := goldenOptions(t)
		o.CRLs = []*x509.RevocationList{list}
		o.Now = time.Date(2026, 12, 2, 0, 0, 0, 0, time.UTC)
		r := verify(t, []byte(g.Credential), o)
		if r.Verified != c.good {
			t.Errorf("%s: verified %v: %+v", c.file, r.Verified, r.Failures())
		}
	}
}

// Annex D is an mdoc of the standard itself: unsorted CBOR, expired certificates.
func TestAnnexD(t *testing.T) {
	data := shared(t, "mdoc", "annex-d", "issuer_signed.hex")
	o := Options{Now: time.Date(2020, 12, 1, 0, 0, 0, 0, time.UTC), Anchors: []*x509.Certificate{certificate(t, shared(t, "mdoc", "annex-d", "iaca.pem"))}}
	r := verify(t, fromHex(t, data), o)
	expectVerified(t, r)
	if r.Type != docTypeMDL || len(r.Claims) != 6 {
		t.Errorf("%s with %d claims", r.Type, len(r.Claims))
	}
	o.Now = time.Time{}
	if verify(t, fromHex(t, data), o).Verified {
		t.Error("verified although its certificates expired in 2021")
	}
}

// The Sig_structure is the one that the standard prints.
func TestAnnexDSigStructure(t *testing.T) {
	auth, err := parseIssuerAuth(fromHex(t, shared(t, "mdoc", "annex-d", "issuer_auth.hex")))
	if err != nil {
		t.Fatal(err)
	}
	if want := fromHex(t, shared(t, "mdoc", "annex-d", "sig_structure.hex")); string(auth.toBeSigned()) != string(want) {
		t.Errorf("Sig_structure is %x", auth.toBeSigned())
	}
}

func pinnedJWK(t testing.TB, data json.RawMessage) []crypto.PublicKey {
	t.Helper()
	key, err := ParseJWK(data)
	if err != nil {
		t.Fatal(err)
	}
	return []crypto.PublicKey{key}
}

func TestSDJWTVector(t *testing.T) {
	var file struct {
		VC struct {
			Compact string          `json:"compact"`
			JWK     json.RawMessage `json:"issuer_public_jwk"`
		} `json:"sd_jwt_vc"`
		Digests []struct {
			Disclosure string `json:"disclosure"`
			Digest     string `json:"sha256_digest_b64url"`
		} `json:"digests"`
	}
	if err := json.Unmarshal(shared(t, "sd-jwt.json"), &file); err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Digests {
		if _, err := parseDisclosure(d.Disclosure); err != nil || disclosureDigest(crypto.SHA256, d.Disclosure) != d.Digest {
			t.Errorf("%s: digest %s, error %v", d.Disclosure, disclosureDigest(crypto.SHA256, d.Disclosure), err)
		}
	}
	o := Options{Now: goldenNow, IssuerKeys: pinnedJWK(t, file.VC.JWK), Type: "https://credentials.example.com/identity_credential"}
	r := verify(t, []byte(file.VC.Compact), o)
	expectVerified(t, r)
	if !slices.ContainsFunc(r.Claims, func(c Claim) bool { return c.Path[0] == "given_name" && c.Value == "John" && c.Selective }) {
		t.Errorf("given_name is not among the claims: %+v", r.Claims)
	}
	o.IssuerKeys = nil
	if verify(t, []byte(file.VC.Compact), o).Verified {
		t.Error("verified without a trusted key")
	}
}

func TestJWTVCVector(t *testing.T) {
	var file struct {
		VC struct {
			Compact string          `json:"compact"`
			JWK     json.RawMessage `json:"issuer_public_jwk"`
		} `json:"jwt_vc_json"`
	}
	if err := json.Unmarshal(shared(t, "oid4vci-oauth.json"), &file); err != nil {
		t.Fatal(err)
	}
	r := verify(t, []byte(file.VC.Compact), Options{Now: goldenNow, IssuerKeys: pinnedJWK(t, file.VC.JWK), Type: "UniversityDegreeCredential"})
	expectVerified(t, r)
	if r.HolderKey == nil {
		t.Error("the subject's did:jwk was not recognised")
	}
	if verify(t, []byte(file.VC.Compact), Options{Now: goldenNow}).Verified {
		t.Error("verified without a trusted key")
	}
}

func TestDIDVectors(t *testing.T) {
	var file struct {
		Key []struct {
			DID string          `json:"did"`
			JWK json.RawMessage `json:"public_jwk"`
		} `json:"did_key"`
		JWK []struct {
			DID  string          `json:"did"`
			JWK  json.RawMessage `json:"public_jwk"`
			Note string          `json:"note"`
		} `json:"did_jwk"`
		Web []struct{ DID, URL string } `json:"did_web"`
	}
	if err := json.Unmarshal(shared(t, "did.json"), &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Key {
		key, err := selfContainedKey(v.DID)
		if err != nil || !sameKey(key, pinnedJWK(t, v.JWK)[0]) {
			t.Errorf("%s: %v", v.DID, err)
		}
	}
	for _, v := range file.JWK {
		key, err := selfContainedKey(v.DID)
		if v.Note != "" {
			if err == nil {
				t.Errorf("%s was taken although it must be refused", v.DID)
			}
		} else if err != nil || !sameKey(key, pinnedJWK(t, v.JWK)[0]) {
			t.Errorf("%s: %v", v.DID, err)
		}
	}
	for _, v := range file.Web {
		if url, err := webURL(v.DID); err != nil || url != v.URL {
			t.Errorf("%s: %s, %v; want %s", v.DID, url, err, v.URL)
		}
	}
}
