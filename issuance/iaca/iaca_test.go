package iaca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func plan(profile Profile) Plan {
	days := map[Profile]int{Root: 3285, DocumentSigner: 400, CredentialSigner: 400, StatusSigner: 400, MetadataSigner: 400}[profile]
	return Plan{
		Profile: profile, Subject: Name{Country: "UT", Organization: "Utopia", CommonName: "Utopia " + string(profile)},
		NotBefore: start, NotAfter: start.AddDate(0, 0, days).Add(-time.Second), ContactEmail: "pki@utopia.example", ContactURL: "https://utopia.example",
		CRL: "https://issuer.example/crl/iaca-1.crl", IssuerURL: "https://issuer.example:8443/tenant",
	}
}

type root struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newRoot(t testing.TB, curve elliptic.Curve) root {
	t.Helper()
	key := newKey(t, curve)
	der, err := Create(plan(Root), nil, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return root{key, cert}
}

func writePEM(t testing.TB, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openssl(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: apt-get install openssl")
	}
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestEveryProfile makes every certificate on every curve, lints it, and lets
// openssl judge chain and CRL.
func TestEveryProfile(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		r := newRoot(t, curve)
		dir := t.TempDir()
		anchor := writePEM(t, dir, "root.pem", "CERTIFICATE", r.cert.Raw)
		crl, err := CreateCRL(r.cert, r.key, 1, nil, start, start.AddDate(0, 0, 60))
		if err != nil {
			t.Fatal(err)
		}
		list := writePEM(t, dir, "crl.pem", "X509 CRL", crl)
		for _, profile := range []Profile{DocumentSigner, CredentialSigner, StatusSigner, MetadataSigner} {
			der, err := Create(plan(profile), r.cert, newKey(t, elliptic.P256()).Public(), r.key)
			if err != nil {
				t.Fatalf("%s under %s: %v", profile, curve.Params().Name, err)
			}
			leaf := writePEM(t, dir, string(profile)+".pem", "CERTIFICATE", der)
			at := "1795600000" // within the validity, whatever the clock says
			out := openssl(t, "verify", "-attime", at, "-x509_strict", "-ignore_critical", "-CAfile", anchor, "-crl_check", "-CRLfile", list, leaf)
			if !strings.Contains(out, "OK") {
				t.Errorf("openssl: %s", out)
			}
		}
		if text := openssl(t, "x509", "-in", anchor, "-noout", "-text"); !strings.Contains(text, "CA:TRUE, pathlen:0") || !strings.Contains(text, "email:pki@utopia.example") {
			t.Errorf("openssl reads the root as %s", text)
		}
	}
}

func TestDocumentSignerToTheLastExtension(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	der, err := Create(plan(DocumentSigner), r.cert, newKey(t, elliptic.P256()).Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ // identifier → critical and value, hex where the profile fixes it
		"2.5.29.15": "true 03020780", "2.5.29.37": "true 3009060728818c5d050102", "2.5.29.14": "false", "2.5.29.35": "false", "2.5.29.18": "false", "2.5.29.31": "false",
	}
	if len(cert.Extensions) != len(want) {
		t.Errorf("%d extensions, want %d", len(cert.Extensions), len(want))
	}
	for _, e := range cert.Extensions {
		expected, known := want[e.Id.String()]
		if !known {
			t.Errorf("extension %v is not in the profile", e.Id)
			continue
		}
		critical, value, _ := strings.Cut(expected, " ")
		if critical == "true" != e.Critical || value != "" && value != hexOf(e.Value) {
			t.Errorf("extension %v: critical %v, %x", e.Id, e.Critical, e.Value)
		}
	}
	if !bytes.Equal(cert.RawIssuer, r.cert.RawSubject) {
		t.Error("the issuer is not the root's subject, byte by byte")
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestRevokedIsRevoked(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	der, err := Create(plan(DocumentSigner), r.cert, newKey(t, elliptic.P256()).Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	crl, err := CreateCRL(r.cert, r.key, 2, []Revoked{{cert.SerialNumber, start.Add(time.Hour)}}, start.Add(2*time.Hour), start.AddDate(0, 0, 30))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command("openssl", "verify", "-attime", "1795600000", "-ignore_critical", "-CAfile", writePEM(t, dir, "r.pem", "CERTIFICATE", r.cert.Raw),
		"-crl_check", "-CRLfile", writePEM(t, dir, "c.pem", "X509 CRL", crl), writePEM(t, dir, "l.pem", "CERTIFICATE", der))
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "revoked") {
		t.Errorf("openssl: %v %s", err, out)
	}
}

func TestRefusesToSign(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	for name, change := range map[string]func(p *Plan){
		"country":     func(p *Plan) { p.Subject.Country = "ut" },
		"other state": func(p *Plan) { p.Subject.State = "UT-PU" },
		"no name":     func(p *Plan) { p.Subject.CommonName = "" },
		"too long":    func(p *Plan) { p.NotAfter = start.AddDate(0, 0, 458) },
		"outlasts": func(p *Plan) {
			p.Profile = StatusSigner
			p.NotBefore = start.AddDate(8, 0, 0)
			p.NotAfter = start.AddDate(10, 0, 0)
		},
		"too early":     func(p *Plan) { p.NotBefore = start.AddDate(0, 0, -1) },
		"no contact":    func(p *Plan) { p.ContactEmail, p.ContactURL = "", "" },
		"contact ASCII": func(p *Plan) { p.ContactURL = "https://utopia.example/ämter" },
		"contact blank": func(p *Plan) { p.ContactURL = "https://utopia.example/a b" },
		"bad contact":   func(p *Plan) { p.ContactEmail = "nobody" },
		"no CRL":        func(p *Plan) { p.CRL = "" },
		"CRL not http":  func(p *Plan) { p.CRL = "ldap://x/y" },
		"backwards":     func(p *Plan) { p.NotAfter = p.NotBefore.Add(-time.Hour) },
		"http issuer":   func(p *Plan) { p.Profile = CredentialSigner; p.IssuerURL = "http://x" },
	} {
		p := plan(DocumentSigner)
		change(&p)
		if _, err := Create(p, r.cert, newKey(t, elliptic.P256()).Public(), refusing{r.key.Public()}); err == nil {
			t.Errorf("%s: signed", name)
		} else if strings.Contains(err.Error(), "the key was used") {
			t.Errorf("%s: the real key was asked before the linter spoke", name)
		}
	}
}

// refusing is a signer that must not be reached.
type refusing struct{ public crypto.PublicKey }

func (r refusing) Public() crypto.PublicKey { return r.public }
func (r refusing) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, errUsed
}

var errUsed = os.NewSyscallError("the key was used", os.ErrInvalid)

// TestLintRules breaks one thing in a document signer's template at a time and
// expects exactly that rule.
func TestLintRules(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	key := newKey(t, elliptic.P256())
	extension := func(c *x509.Certificate, id asn1.ObjectIdentifier, critical bool, value []byte) {
		for i, e := range c.ExtraExtensions {
			if e.Id.Equal(id) {
				c.ExtraExtensions[i] = pkix.Extension{Id: id, Critical: critical, Value: value}
				return
			}
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
	}
	for _, test := range []struct {
		rule   string
		change func(c *x509.Certificate)
	}{
		{"serial.size", func(c *x509.Certificate) { c.SerialNumber = big.NewInt(5) }},
		{"subject.country", func(c *x509.Certificate) { c.Subject.Country = []string{"UT", "UT"} }},
		{"subject.common-name", func(c *x509.Certificate) { c.Subject.CommonName = "" }},
		{"validity.longest", func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(0, 0, 458) }},
		{"validity.nested", func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-time.Second) }},
		{"subject-key-identifier", func(c *x509.Certificate) { c.SubjectKeyId = make([]byte, 20) }},
		{"key-usage", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageContentCommitment }},
		{"extended-key-usage", func(c *x509.Certificate) {
			value, _ := asn1.Marshal([]asn1.ObjectIdentifier{oidDocumentSigner, {1, 0, 23220, 4, 1, 2}})
			extension(c, oidExtKeyUsage, true, value)
		}},
		{"extension.critical", func(c *x509.Certificate) {
			value, _ := asn1.Marshal([]asn1.ObjectIdentifier{oidDocumentSigner})
			extension(c, oidExtKeyUsage, false, value)
		}},
		{"extension.forbidden", func(c *x509.Certificate) { extension(c, asn1.ObjectIdentifier{2, 5, 29, 36}, false, []byte{0x30, 0}) }},
		{"extension.unknown", func(c *x509.Certificate) { extension(c, asn1.ObjectIdentifier{1, 2, 3}, true, []byte{5, 0}) }},
		{"basic-constraints.leaf", func(c *x509.Certificate) { c.BasicConstraintsValid = true }},
		{"issuer-alt-name", func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[1:] }},
		{"issuer-alt-name.kind", func(c *x509.Certificate) { extension(c, oidIssuerAltName, false, []byte{0x30, 4, 0x82, 2, 'a', 'b'}) }},
		{"crl-distribution-points", func(c *x509.Certificate) { c.CRLDistributionPoints = nil }},
		{"crl-distribution-points.uri", func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"ldap://x/y"} }},
		{"country.equal", func(c *x509.Certificate) { c.Subject.Country = []string{"XX"} }},
		{"state.equal", func(c *x509.Certificate) { c.Subject.Province = []string{"UT-PU"} }},
	} {
		template, err := plan(DocumentSigner).template(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		test.change(template)
		der, err := x509.CreateCertificate(rand.Reader, template, r.cert, key.Public(), r.key)
		if err != nil {
			t.Fatal(err)
		}
		findings := LintCertificate(der, DocumentSigner, r.cert)
		if test.rule == "subject.country" {
			findings = findings[:1] // it differs from the issuer's too
		}
		if len(findings) != 1 || findings[0].Rule != test.rule || findings[0].Severity != Fault {
			t.Errorf("%s: found %v", test.rule, findings)
		}
	}
}

func TestLintRootRules(t *testing.T) {
	key := newKey(t, elliptic.P256())
	for _, test := range []struct {
		rule   string
		change func(c *x509.Certificate)
	}{
		{"basic-constraints", func(c *x509.Certificate) { c.MaxPathLenZero = false }},
		{"basic-constraints", func(c *x509.Certificate) { c.MaxPathLen = 1 }},
		{"key-usage", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageDigitalSignature }},
		{"validity.longest", func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(20, 0, 0) }},
		{"extended-key-usage.root", func(c *x509.Certificate) {
			value, _ := asn1.Marshal([]asn1.ObjectIdentifier{oidDocumentSigner})
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidExtKeyUsage, Critical: true, Value: value})
		}},
		{"crl-distribution-points.root", func(c *x509.Certificate) { c.CRLDistributionPoints = nil }},
		{"subject.state", func(c *x509.Certificate) { c.Subject.Province = []string{"Utopia"} }},
	} {
		template, err := plan(Root).template(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		test.change(template)
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		if findings := LintCertificate(der, Root, nil); len(findings) != 1 || findings[0].Rule != test.rule {
			t.Errorf("%s: found %v", test.rule, findings)
		}
	}
}

func TestLintCRLRules(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	other := newRoot(t, elliptic.P256())
	for _, test := range []struct {
		rule   string
		change func(l *x509.RevocationList)
	}{
		{"crl.next-update", func(l *x509.RevocationList) { l.NextUpdate = l.ThisUpdate.AddDate(0, 0, 91) }},
		{"crl.entry-extensions", func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: start, ReasonCode: 1}}
		}},
		{"crl.extensions", func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
		}},
	} {
		l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 60)}
		test.change(l)
		der, err := x509.CreateRevocationList(rand.Reader, l, r.cert, r.key)
		if err != nil {
			t.Fatal(err)
		}
		if findings := LintCRL(der, r.cert); len(findings) != 1 || findings[0].Rule != test.rule {
			t.Errorf("%s: found %v", test.rule, findings)
		}
	}
	crl, err := CreateCRL(r.cert, r.key, 1, nil, start, start.AddDate(0, 0, 60))
	if err != nil {
		t.Fatal(err)
	}
	if findings := LintCRL(crl, other.cert); len(findings) != 1 || findings[0].Rule != "authority-key-identifier" {
		t.Errorf("another root's: %v", findings)
	}
}

func TestSerialNumbers(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		n, err := SerialNumber()
		if err != nil || len(n.Bytes()) != 20 || n.Sign() <= 0 || n.BitLen() > 159 || seen[n.String()] {
			t.Fatalf("serial number %v: %v", n, err)
		}
		seen[n.String()] = true
	}
}
