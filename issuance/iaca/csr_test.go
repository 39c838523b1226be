package iaca

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/issuance/issuancetest"
)

// leaves are the profiles that another authority may certify.
var leaves = []Profile{DocumentSigner, CredentialSigner, StatusSigner, MetadataSigner}

// TestRequestsVerifyWithOpenSSL makes a request for every profile with every
// algorithm, and lets openssl verify and read it.
func TestRequestsVerifyWithOpenSSL(t *testing.T) {
	for _, algorithm := range issuancetest.Algorithms {
		for _, profile := range leaves {
			key := issuancetest.Key(t, algorithm)
			der, err := CreateCSR(plan(profile), key)
			if err != nil {
				t.Fatalf("%s, %s: %v", profile, algorithm, err)
			}
			text := openssl(t, "req", "-verify", "-noout", "-text", "-in", writePEM(t, t.TempDir(), "request.pem", "CERTIFICATE REQUEST", der))
			text = strings.ReplaceAll(text, " = ", "=")
			wants := []string{"verify OK", "Subject: C=UT, O=Utopia, CN=Utopia " + string(profile), "X509v3 Key Usage: critical", "X509v3 Subject Key Identifier",
				"email:pki@utopia.example, URI:https://utopia.example", "URI:https://issuer.example/crl/iaca-1.crl"}
			if profile == DocumentSigner {
				wants = append(wants, "X509v3 Extended Key Usage: critical", "1.0.18013.5.1.2")
			}
			for _, want := range wants {
				if !strings.Contains(text, want) {
					t.Errorf("%s, %s: openssl does not show %q in\n%s", profile, algorithm, want, text)
				}
			}
		}
	}
}

// TestRequestsAskForWhatCreateMakes: the extensions of a request are those of the
// certificate, but for what the issuer alone knows.
func TestRequestsAskForWhatCreateMakes(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	for _, profile := range leaves {
		key := newKey(t, elliptic.P256())
		der, err := CreateCSR(plan(profile), key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		made, err := Create(plan(profile), r.cert, key.Public(), r.key)
		if err != nil {
			t.Fatal(err)
		}
		cert := mustParse(t, made)
		if !bytes.Equal(cert.RawSubject, csr.RawSubject) || len(cert.Extensions) != len(csr.Extensions)+1 {
			t.Errorf("%s: %d extensions asked for, %d made", profile, len(csr.Extensions), len(cert.Extensions))
		}
		for _, e := range csr.Extensions {
			if !slices.ContainsFunc(cert.Extensions, func(o pkix.Extension) bool {
				return o.Id.Equal(e.Id) && o.Critical == e.Critical && bytes.Equal(o.Value, e.Value)
			}) {
				t.Errorf("%s: extension %v is asked for otherwise than it is made", profile, e.Id)
			}
		}
		if got := (Linter{Profile: profile, Issuer: r.cert}).CheckCertificateFor(der, made, start); len(got) > 0 {
			t.Errorf("%s: %v", profile, got)
		}
	}
}

// TestRequestsWithoutTheAuthoritysBusiness: contact and CRL may be left to the IACA.
func TestRequestsWithoutTheAuthoritysBusiness(t *testing.T) {
	p := plan(DocumentSigner)
	p.ContactEmail, p.ContactURL, p.CRL = "", "", ""
	der, err := CreateCSR(p, newKey(t, elliptic.P384()))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || len(csr.Extensions) != 3 {
		t.Errorf("%d extensions, want keyUsage, extendedKeyUsage and subjectKeyIdentifier: %v", len(csr.Extensions), err)
	}
}

// TestRefusesToAsk: a request that the linter refuses is never signed.
func TestRefusesToAsk(t *testing.T) {
	for name, change := range map[string]func(p *Plan){
		"country":       func(p *Plan) { p.Subject.Country = "ut" },
		"no name":       func(p *Plan) { p.Subject.CommonName = "" },
		"bad contact":   func(p *Plan) { p.ContactEmail = "nobody" },
		"contact ASCII": func(p *Plan) { p.ContactURL = "https://utopia.example/ämter" },
		"CRL not http":  func(p *Plan) { p.CRL = "ldap://x/y" },
		"http issuer":   func(p *Plan) { p.Profile, p.IssuerURL = CredentialSigner, "http://x" },
		"a root":        func(p *Plan) { p.Profile = Root },
		"a link":        func(p *Plan) { p.Profile = Link },
		"nothing known": func(p *Plan) { p.Profile = "tls" },
	} {
		p := plan(DocumentSigner)
		change(&p)
		if _, err := CreateCSR(p, refusing{newKey(t, elliptic.P256()).Public()}); err == nil {
			t.Errorf("%s: signed", name)
		} else if strings.Contains(err.Error(), "the key was used") {
			t.Errorf("%s: the real key was asked before the linter spoke", name)
		}
	}
	if _, err := CreateCSR(plan(DocumentSigner), refusing{newKey(t, elliptic.P256()).Public()}); err == nil || !strings.Contains(err.Error(), "the key was used") {
		t.Errorf("a key that does not sign: %v", err)
	}
	if _, err := CreateCSR(plan(DocumentSigner), refusing{"no key"}); err == nil {
		t.Error("what is no key has a request")
	}
}

// TestLinterReadsOpenSSLsRequests: what openssl makes from a configuration is
// read as strictly.
func TestLinterReadsOpenSSLsRequests(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		key     []string
		section string
		want    []string
	}{
		"as it should be": {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}, "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,1.0.18013.5.1.2\n", nil},
		"Ed25519":         {[]string{"-newkey", "ed25519"}, "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,1.0.18013.5.1.2\n", []string{"warning key.curve.readers"}},
		"an authority's": {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"}, "keyUsage=critical,keyCertSign\nbasicConstraints=critical,CA:TRUE\nextendedKeyUsage=critical,1.0.18013.5.1.2\n",
			[]string{"error basic-constraints.leaf", "error key-usage"}},
		"brainpool": {[]string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"}, "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,1.0.18013.5.1.2\n",
			[]string{"error key.curve.nist", "warning signature.unverified"}},
		"RSA": {[]string{"-newkey", "rsa:2048"}, "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,1.0.18013.5.1.2\n", []string{"error csr.signature.algorithm", "error key.type"}},
	} {
		config, out := filepath.Join(dir, "openssl.cnf"), filepath.Join(dir, "request.der")
		text := "[req]\ndistinguished_name=dn\nprompt=no\nstring_mask=default\nreq_extensions=ext\n[dn]\nC=UT\nCN=Utopia DS\n[ext]\n" + test.section
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		openssl(t, slices.Concat([]string{"req", "-new", "-nodes", "-config", config, "-keyout", filepath.Join(dir, "key.pem"), "-outform", "DER", "-out", out}, test.key)...)
		der, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if got := broken(Linter{Profile: DocumentSigner}.CSR(der)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// TestAnExternalAuthorityAnswers lets openssl be the IACA that certifies a
// request, and holds what it issues against it.
func TestAnExternalAuthorityAnswers(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	key := newKey(t, elliptic.P256())
	csr, err := CreateCSR(plan(DocumentSigner), key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	anchor := writePEM(t, dir, "root.pem", "CERTIFICATE", r.cert.Raw)
	spki, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	authorityKey := writePEM(t, dir, "root.key", "PRIVATE KEY", spki)
	config := filepath.Join(dir, "ext.cnf")
	if err := os.WriteFile(config, []byte("[ext]\nauthorityKeyIdentifier=keyid:always\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	days := []string{"-days", "90"}
	out := filepath.Join(dir, "leaf.der")
	openssl(t, append([]string{"x509", "-req", "-in", writePEM(t, dir, "request.pem", "CERTIFICATE REQUEST", csr), "-CA", anchor, "-CAkey", authorityKey,
		"-copy_extensions", "copyall", "-extfile", config, "-extensions", "ext", "-set_serial", "0x123456789abcdef0123456789abcdef012345678", "-outform", "DER", "-out", out}, days...)...)
	der, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	issued := mustParse(t, der)
	stand := *r.cert // openssl's clock may be before the root's beginning
	stand.NotBefore = issued.NotBefore
	l := Linter{Profile: DocumentSigner, Issuer: &stand}
	if got := l.CheckCertificateFor(csr, der, issued.NotBefore); len(got) > 0 {
		t.Errorf("openssl's certificate: %v", got)
	}
	if got := broken(l.CheckCertificateFor(csr, der, issued.NotAfter.Add(time.Second))); !slices.Equal(got, []string{"error answer.validity"}) {
		t.Errorf("a second too late: %v", got)
	}
	// The answer to another's request is refused member by member.
	p := plan(DocumentSigner)
	p.Subject.CommonName, p.CRL = "Another", "https://another.example/crl"
	other, err := CreateCSR(p, newKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"error answer.extension", "error answer.key", "error answer.subject"}
	if got := broken(l.CheckCertificateFor(other, der, issued.NotBefore)); !slices.Equal(got, want) {
		t.Errorf("another's request: %v, want %v", got, want)
	}
	if got := broken(l.CheckCertificateFor(der, der, start)); !slices.Contains(got, "error csr.parse") {
		t.Errorf("a certificate for a request: %v", got)
	}
	if got := broken(l.CheckCertificateFor(csr, csr, start)); !slices.Equal(got, []string{"error parse"}) {
		t.Errorf("a request for a certificate: %v", got)
	}
}

// TestSameRequest: what is signed must be what was linted.
func TestSameRequest(t *testing.T) {
	make := func(change func(p *Plan)) []byte {
		p := plan(CredentialSigner)
		change(&p)
		der, err := p.request(newKey(t, elliptic.P256()))
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	linted := make(func(*Plan) {})
	if err := sameRequest(linted, make(func(*Plan) {})); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(p *Plan){
		"subject":    func(p *Plan) { p.Subject.CommonName = "Another" },
		"extension":  func(p *Plan) { p.IssuerURL = "https://another.example" },
		"one less":   func(p *Plan) { p.CRL = "" },
		"other kind": func(p *Plan) { p.Profile = MetadataSigner; p.CRL = ""; p.ContactEmail = "" },
	} {
		if sameRequest(linted, make(change)) == nil {
			t.Errorf("%s: no difference was seen", name)
		}
	}
	if sameRequest(linted[:9], linted) == nil || sameRequest(linted, linted[:9]) == nil {
		t.Error("what is no request is the same as one")
	}
}

// TestCreateCSRWithTheTokensInterface: a key that takes messages instead of
// digests, as a token's do.
func TestCreateCSRWithTheTokensInterface(t *testing.T) {
	key := newKey(t, elliptic.P256())
	asked := 0
	der, err := CreateCSR(plan(StatusSigner), messages{key, &asked})
	if err != nil || asked != 1 {
		t.Fatalf("asked %d times: %v", asked, err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil || !key.PublicKey.Equal(csr.PublicKey) {
		t.Errorf("%v, %v", err, csr.CheckSignature())
	}
}
