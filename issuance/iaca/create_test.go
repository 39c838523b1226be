package iaca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// TestCreateNeverSignsWhatTheLinterRefuses, for any plan.
func TestCreateNeverSignsWhatTheLinterRefuses(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	key := newKey(t, elliptic.P256())
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.SampledFrom([]string{"", "UT", "ut", "Utopia", "UT-PU", "pki@utopia.example", "https://utopia.example", "https://issuer.example/crl"}), rapid.String())
		usual := func(name, value string) string {
			if rapid.IntRange(0, 9).Draw(t, name+" as usual") > 0 {
				return value
			}
			return text.Draw(t, name)
		}
		p := Plan{
			Profile:      rapid.SampledFrom([]Profile{DocumentSigner, CredentialSigner, StatusSigner, MetadataSigner, Root, ""}).Draw(t, "profile"),
			Subject:      Name{Country: usual("country", "UT"), State: usual("state", ""), Organization: usual("organization", "Utopia"), CommonName: usual("common name", "Utopia DS")},
			NotBefore:    start.Add(time.Duration(rapid.IntRange(-1, 3).Draw(t, "begin")) * 24 * time.Hour),
			NotAfter:     start.Add(time.Duration(rapid.IntRange(-1, 460).Draw(t, "end")) * 24 * time.Hour),
			ContactEmail: usual("e-mail", "pki@utopia.example"), ContactURL: usual("contact", ""), CRL: usual("CRL", "https://issuer.example/crl"), IssuerURL: usual("issuer", "https://issuer.example"),
		}
		if _, err := Create(p, r.cert, key.Public(), refusing{r.key.Public()}); err == nil {
			t.Fatal("signed without a signer")
		} else if !strings.Contains(err.Error(), "the key was used") {
			return
		}
		// The linter let it pass: what the real key signs is right, too.
		der, err := Create(p, r.cert, key.Public(), r.key)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if faults := refuse(lintCertificate(der, p.Profile, r.cert)); faults != nil {
			t.Fatalf("%+v: %v", p, faults)
		}
		made++
	})
	if made == 0 {
		t.Error("no plan was carried out")
	}
}

// TestCreateRefusesAnotherKey: the signer must be the parent's.
func TestCreateRefusesAnotherKey(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	if _, err := Create(plan(DocumentSigner), r.cert, newKey(t, elliptic.P256()).Public(), newKey(t, elliptic.P256())); err == nil {
		t.Error("another key signed in the root's name")
	}
	if _, err := Create(plan(DocumentSigner), r.cert, newKey(t, elliptic.P256()).Public(), issuancetest.Key(t, issuance.EdDSA)); err == nil {
		t.Error("an Ed25519 key signed in the root's name")
	}
	if _, err := Create(plan(Root), nil, newKey(t, elliptic.P256()).Public(), newKey(t, elliptic.P256())); err == nil {
		t.Error("a root was signed by another key than its own")
	}
	if _, err := KeyIdentifier("no key"); err == nil {
		t.Error("what is no key has an identifier")
	}
}

// TestSame: what is signed must be what was linted, to the last extension.
func TestSame(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	key := newKey(t, elliptic.P256())
	template, err := plan(DocumentSigner).template(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	make := func(change func(c *x509.Certificate), parent *x509.Certificate) []byte {
		copied := *template
		copied.ExtraExtensions = slices.Clone(template.ExtraExtensions)
		change(&copied)
		if parent == nil {
			parent = &copied
		}
		der, err := x509.CreateCertificate(rand.Reader, &copied, parent, key.Public(), map[bool]*ecdsa.PrivateKey{true: r.key, false: key}[parent == r.cert])
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, test := range map[string]struct {
		change func(c *x509.Certificate)
		good   bool
	}{
		"nothing":     {func(*x509.Certificate) {}, true},
		"serial":      {func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1 << 62) }, false},
		"subject":     {func(c *x509.Certificate) { c.Subject.CommonName = "Another" }, false},
		"start":       {func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Second) }, false},
		"end":         {func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) }, false},
		"usage":       {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, false},
		"criticality": {func(c *x509.Certificate) { c.ExtraExtensions[1].Critical = false }, false},
		"one less":    {func(c *x509.Certificate) { c.CRLDistributionPoints = nil }, false},
		"another": {func(c *x509.Certificate) {
			c.CRLDistributionPoints = nil
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})
		}, false},
	} {
		for root, parent := range map[bool]*x509.Certificate{false: r.cert, true: nil} {
			linted := make(func(*x509.Certificate) {}, parent)
			if err := same(linted, make(test.change, parent), root); (err == nil) != test.good {
				t.Errorf("%s, root %v: %v", name, root, err)
			}
			if same(linted[:9], linted, root) == nil || same(linted, linted[:9], root) == nil {
				t.Error("what is no certificate is the same as one")
			}
		}
	}
	// In a root the throw-away key has an identifier of its own.
	linted := make(func(c *x509.Certificate) { c.SubjectKeyId = []byte{1} }, nil)
	if err := same(linted, make(func(*x509.Certificate) {}, nil), true); err != nil {
		t.Error(err)
	}
	if bits, err := publicKeyBits([]byte{0x30, 0}); err == nil {
		t.Errorf("a key of nothing has the bits %x", bits)
	}
}

// TestOpenSSLReadsEveryExtension compares what openssl reads with the plan.
func TestOpenSSLReadsEveryExtension(t *testing.T) {
	r := newRoot(t, elliptic.P384())
	dir := t.TempDir()
	for profile, wants := range map[Profile][]string{
		DocumentSigner:   {"X509v3 Extended Key Usage: critical", "1.0.18013.5.1.2", "ecdsa-with-SHA384"},
		CredentialSigner: {"DNS:issuer.example", "URI:https://issuer.example:8443/tenant"},
		StatusSigner:     {"Digital Signature"},
		MetadataSigner:   {"URI:https://issuer.example:8443/tenant"},
	} {
		der, err := Create(plan(profile), r.cert, newKey(t, elliptic.P256()).Public(), r.key)
		if err != nil {
			t.Fatal(err)
		}
		text := openssl(t, "x509", "-in", writePEM(t, dir, string(profile)+".pem", "CERTIFICATE", der), "-noout", "-text")
		for _, want := range append(wants, "C=UT, O=Utopia, CN=Utopia "+string(profile), "X509v3 Key Usage: critical", "email:pki@utopia.example, URI:https://utopia.example",
			"URI:https://issuer.example/crl/iaca-1.crl", "ASN1 OID: prime256v1") {
			if !strings.Contains(strings.ReplaceAll(text, " = ", "="), want) {
				t.Errorf("%s: openssl does not show %q in\n%s", profile, want, text)
			}
		}
		if strings.Contains(text, "Basic Constraints") {
			t.Errorf("%s has basicConstraints", profile)
		}
	}
	crl, err := CreateCRL(r.cert, r.key, 7, []Revoked{{big.NewInt(0x1234567890), start}}, start, start.AddDate(0, 0, 30))
	if err != nil {
		t.Fatal(err)
	}
	text := openssl(t, "crl", "-in", writePEM(t, dir, "list.pem", "X509 CRL", crl), "-noout", "-text", "-CAfile", writePEM(t, dir, "root.pem", "CERTIFICATE", r.cert.Raw))
	for _, want := range []string{"verify OK", "Version 2", "X509v3 CRL Number:", "1234567890"} {
		if !strings.Contains(text, want) {
			t.Errorf("openssl does not show %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Reason") {
		t.Errorf("an entry has a reason:\n%s", text)
	}
}

// TestFIPS makes certificates where only FIPS 140's algorithms are allowed:
// SHA-1 names keys, and no more.
func TestFIPS(t *testing.T) {
	command := exec.Command(os.Args[0], "-test.run=^TestDocumentSignerToTheLastExtension$", "-test.count=1")
	command.Env = append(os.Environ(), "GODEBUG=fips140=only")
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
