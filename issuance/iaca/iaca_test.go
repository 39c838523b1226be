package iaca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
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
