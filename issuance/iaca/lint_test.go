package iaca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"hash/crc32"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// broken lists what was found, faults before warnings, each with its severity.
func broken(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, string(f.Severity)+" "+f.Rule)
	}
	slices.Sort(out)
	return out
}

func lintCertificate(der []byte, profile Profile, issuer *x509.Certificate) []Finding {
	return Linter{Profile: profile, Issuer: issuer}.Certificate(der)
}

func lintCRL(der []byte, issuer *x509.Certificate) []Finding { return Linter{Issuer: issuer}.CRL(der) }

// leaf is what a document signer is made of, to be changed.
type leaf struct {
	template *x509.Certificate
	public   crypto.PublicKey
	parent   *x509.Certificate
	signer   crypto.Signer
	profile  Profile
	lintWith *x509.Certificate
}

func (l leaf) make(t testing.TB) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, l.template, l.parent, l.public, l.signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// rename gives the template a name of raw attributes.
func rename(t testing.TB, template *x509.Certificate, attributes ...attribute) {
	t.Helper()
	var sets []any
	for _, a := range attributes {
		sets = append(sets, a)
	}
	var raw []byte
	for _, s := range sets {
		pair, err := asn1.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		set, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: pair})
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, set...)
	}
	var err error
	if template.RawSubject, err = asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: raw}); err != nil {
		t.Fatal(err)
	}
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func attr(last int, tag int, text string) attribute {
	return attribute{asn1.ObjectIdentifier{2, 5, 4, last}, asn1.RawValue{Tag: tag, Bytes: []byte(text)}}
}

// override replaces an extension of the template.
func override(c *x509.Certificate, id asn1.ObjectIdentifier, value string) {
	data, err := hex.DecodeString(strings.ReplaceAll(value, " ", ""))
	if err != nil {
		panic(err) // a constant
	}
	c.ExtraExtensions = slices.DeleteFunc(c.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Value: data})
}

// TestLintLeaves breaks one more thing at a time and expects exactly that rule.
func TestLintLeaves(t *testing.T) {
	r, other := newRoot(t, elliptic.P256()), newRoot(t, elliptic.P256())
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaIdentifier, err := KeyIdentifier(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	edwards := issuancetest.Key(t, issuance.EdDSA)
	const printable, utf8 = asn1.TagPrintableString, asn1.TagUTF8String
	for name, test := range map[string]struct {
		change func(l *leaf)
		want   []string
	}{
		"unchanged":          {func(*leaf) {}, nil},
		"no parent to hand":  {func(l *leaf) { l.lintWith = nil }, nil},
		"serial of zero":     {func(l *leaf) { l.template.SerialNumber = big.NewInt(0) }, []string{"error serial.positive"}},
		"serial of 62 bits":  {func(l *leaf) { l.template.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 61) }, []string{"error serial.size"}},
		"serial of 63 bits":  {func(l *leaf) { l.template.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 62) }, []string{"warning serial.recommended"}},
		"serial of 159 bits": {func(l *leaf) { l.template.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 158) }, nil},
		"serial of 160 bits": {func(l *leaf) { l.template.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 159) }, []string{"error serial.octets"}},
		"P-224":              {func(l *leaf) { l.public = small.Public(); l.identify(t) }, []string{"error key.curve"}},
		"P-521":              {func(l *leaf) { l.public = newKey(t, elliptic.P521()).Public(); l.identify(t) }, []string{"warning key.curve.readers"}},
		"P-384":              {func(l *leaf) { l.public = newKey(t, elliptic.P384()).Public(); l.identify(t) }, nil},
		"Ed25519":            {func(l *leaf) { l.public = edwards.Public(); l.identify(t) }, []string{"warning key.curve.readers"}},
		"RSA":                {func(l *leaf) { l.public = rsaKey.Public(); l.template.SubjectKeyId = rsaIdentifier }, []string{"error key.type"}},
		"SKI of another key": {func(l *leaf) { l.public = newKey(t, elliptic.P256()).Public() }, []string{"error subject-key-identifier.sha1"}},
		"no SKI":             {func(l *leaf) { l.template.SubjectKeyId = nil }, []string{"error subject-key-identifier"}},
		"the issuer's key":   {func(l *leaf) { l.public = r.key.Public(); l.identify(t) }, []string{"error key.own"}},
		"signed by another": {func(l *leaf) {
			stand := *r.cert
			stand.PublicKey = other.key.Public()
			l.parent, l.signer = &stand, other.key
		}, []string{"error signature"}},
		"signed with EdDSA": {func(l *leaf) {
			stand := *r.cert
			stand.PublicKey = edwards.Public()
			l.parent, l.signer, l.lintWith = &stand, edwards, &stand
		}, []string{"error signature.algorithm"}},
		"another root of the same name": {func(l *leaf) { l.lintWith = other.cert }, []string{"error authority-key-identifier.equal"}},
		"issuer in other bytes": {func(l *leaf) {
			stand := *r.cert
			stand.RawSubject = append([]byte{}, stand.RawSubject...)
			stand.RawSubject[len(stand.RawSubject)-1] ^= 0x20
			stand.RawIssuer = stand.RawSubject
			l.lintWith = &stand
		}, []string{"error issuer.bytes"}},
		"self-issued":     {func(l *leaf) { l.template.RawSubject = r.cert.RawSubject }, []string{"error authority-key-identifier", "error leaf.self-issued"}},
		"ends as it was":  {func(l *leaf) { l.template.NotAfter = l.template.NotBefore.Add(-time.Second) }, []string{"error validity.order"}},
		"457 days":        {func(l *leaf) { l.template.NotAfter = l.template.NotBefore.AddDate(0, 0, 457).Add(-time.Second) }, nil},
		"a second longer": {func(l *leaf) { l.template.NotAfter = l.template.NotBefore.AddDate(0, 0, 457) }, []string{"error validity.longest"}},
		"no country":      {func(l *leaf) { rename(t, l.template, attr(3, printable, "DS")) }, []string{"error subject.country"}},
		"country of UTF-8": {func(l *leaf) { rename(t, l.template, attr(6, utf8, "UT"), attr(3, printable, "DS")) },
			[]string{"error subject.country.encoding"}},
		"Teletex name": {func(l *leaf) { rename(t, l.template, attr(6, printable, "UT"), attr(3, asn1.TagT61String, "DS")) }, []string{"error subject.encoding"}},
		"two common names": {func(l *leaf) {
			rename(t, l.template, attr(6, printable, "UT"), attr(3, printable, "A"), attr(3, printable, "B"))
		}, []string{"error subject.common-name"}},
		"UTF-8 common name":   {func(l *leaf) { rename(t, l.template, attr(6, printable, "UT"), attr(3, utf8, "Führerscheinstelle")) }, nil},
		"AKI with the serial": {func(l *leaf) { override(l.template, oidAuthorityKeyID, akiWithSerial(r.cert)) }, []string{"error authority-key-identifier.members"}},
		"AKI without key":     {func(l *leaf) { override(l.template, oidAuthorityKeyID, "3003 8201 05") }, []string{"error authority-key-identifier.members"}},
		"CRLDP a host": {func(l *leaf) {
			override(l.template, oidCRLPoints, "300b 3009 a007 a005 8203 612e62")
		}, []string{"error crl-distribution-points.uri"}},
		"two states": {func(l *leaf) {
			rename(t, l.template, attr(6, printable, "UT"), attr(8, printable, "UT-A"), attr(8, printable, "UT-B"), attr(3, printable, "DS"))
		}, []string{"error subject.state"}},
		"state that is none": {func(l *leaf) {
			rename(t, l.template, attr(6, printable, "UT"), attr(8, printable, "Utopia"), attr(3, printable, "DS"))
		}, []string{"error state.equal", "warning subject.state.code"}},
		"reasons in the CRLDP":  {func(l *leaf) { override(l.template, oidCRLPoints, points("8102 0780")) }, []string{"error crl-distribution-points.members"}},
		"contact a host":        {func(l *leaf) { override(l.template, oidIssuerAltName, "3006 8204 612e6264") }, []string{"error issuer-alt-name"}},
		"contact with a name":   {func(l *leaf) { override(l.template, oidIssuerAltName, "3009 8107 58203c6140623e") }, []string{"error issuer-alt-name.value"}},
		"contact no address":    {func(l *leaf) { override(l.template, oidIssuerAltName, "3003 8101 61") }, []string{"error issuer-alt-name.value"}},
		"contact no URI":        {func(l *leaf) { override(l.template, oidIssuerAltName, "3003 8601 61") }, []string{"error issuer-alt-name.value"}},
		"contact empty":         {func(l *leaf) { override(l.template, oidIssuerAltName, "3000") }, []string{"error issuer-alt-name"}},
		"contact cut off":       {func(l *leaf) { override(l.template, oidIssuerAltName, "3005 8102 61") }, []string{"error issuer-alt-name"}},
		"unknown, not critical": {func(l *leaf) { override(l.template, asn1.ObjectIdentifier{1, 2, 3}, "0500") }, []string{"warning extension.other"}},
		"name constraints":      {func(l *leaf) { l.template.PermittedDNSDomains = []string{"a.example"} }, []string{"error extension.forbidden"}},
		"AIA":                   {func(l *leaf) { l.template.OCSPServer = []string{"http://ocsp.example"} }, []string{"warning extension.other"}},
		"as a credential signer": {func(l *leaf) { l.profile = CredentialSigner },
			[]string{"error extended-key-usage.purpose", "error extension.critical", "warning subject-alt-name"}},
		"as a status signer":   {func(l *leaf) { l.profile = StatusSigner }, []string{"error extended-key-usage.purpose", "warning extended-key-usage.critical"}},
		"as a metadata signer": {func(l *leaf) { l.profile = MetadataSigner }, []string{"error extended-key-usage.purpose", "error extension.critical"}},
		"as nothing known":     {func(l *leaf) { l.profile = "tls" }, []string{"error profile"}},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey(t, elliptic.P256())
			template, err := plan(DocumentSigner).template(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			l := leaf{template, key.Public(), r.cert, r.key, DocumentSigner, r.cert}
			test.change(&l)
			if got := broken(lintCertificate(l.make(t), l.profile, l.lintWith)); !slices.Equal(got, test.want) {
				t.Errorf("found %v, want %v", got, test.want)
			}
		})
	}
}

// identify gives the template the identifier of its key.
func (l *leaf) identify(t testing.TB) {
	t.Helper()
	var err error
	if l.template.SubjectKeyId, err = KeyIdentifier(l.public); err != nil {
		t.Fatal(err)
	}
}

// akiWithSerial is an authorityKeyIdentifier with a serial number beside the key's.
func akiWithSerial(root *x509.Certificate) string {
	return "3019 8014 " + hex.EncodeToString(root.SubjectKeyId) + "8201 05"
}

// points is a distribution point with a URI and further members.
func points(members string) string {
	uri := "a00d a00b 8609 " + hex.EncodeToString([]byte("http://a/"))
	n := (len(strings.ReplaceAll(uri+members, " ", ""))) / 2
	return "30" + hex.EncodeToString([]byte{byte(n + 2)}) + "30" + hex.EncodeToString([]byte{byte(n)}) + uri + members
}

// TestLintRoots breaks one thing in a root at a time.
func TestLintRoots(t *testing.T) {
	key, other := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	edwards := issuancetest.Key(t, issuance.EdDSA)
	for name, test := range map[string]struct {
		change func(c *x509.Certificate) (public crypto.PublicKey, signer crypto.Signer)
		want   []string
	}{
		"unchanged": {func(*x509.Certificate) (crypto.PublicKey, crypto.Signer) { return key.Public(), key }, nil},
		"signed by another": {func(*x509.Certificate) (crypto.PublicKey, crypto.Signer) { return key.Public(), other },
			[]string{"error signature"}},
		"Ed25519": {func(c *x509.Certificate) (crypto.PublicKey, crypto.Signer) {
			c.SubjectKeyId, _ = KeyIdentifier(edwards.Public())
			return edwards.Public(), edwards
		}, []string{"error key.type", "error signature.algorithm"}},
		"with its own AKI": {func(c *x509.Certificate) (crypto.PublicKey, crypto.Signer) {
			override(c, oidAuthorityKeyID, "3016 8014 "+hex.EncodeToString(c.SubjectKeyId))
			return key.Public(), key
		}, nil},
		"AKI with more": {func(c *x509.Certificate) (crypto.PublicKey, crypto.Signer) {
			override(c, oidAuthorityKeyID, akiWithSerial(c))
			return key.Public(), key
		}, []string{"error authority-key-identifier.members"}},
		"7300 days": {func(c *x509.Certificate) (crypto.PublicKey, crypto.Signer) {
			c.NotAfter = c.NotBefore.Add(7300*24*time.Hour - time.Second)
			return key.Public(), key
		}, nil},
		"no CA": {func(c *x509.Certificate) (crypto.PublicKey, crypto.Signer) {
			c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, -1, false
			return key.Public(), key
		}, []string{"error basic-constraints"}},
		"no constraints": {func(c *x509.Certificate) (crypto.PublicKey, crypto.Signer) {
			c.BasicConstraintsValid = false
			return key.Public(), key
		}, []string{"error basic-constraints"}},
	} {
		t.Run(name, func(t *testing.T) {
			template, err := plan(Root).template(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			public, signer := test.change(template)
			parent := *template
			der, err := x509.CreateCertificate(rand.Reader, template, &parent, public, signer)
			if err != nil {
				t.Fatal(err)
			}
			if got := broken(lintCertificate(der, Root, nil)); !slices.Equal(got, test.want) {
				t.Errorf("found %v, want %v", got, test.want)
			}
		})
	}
	r := newRoot(t, elliptic.P256())
	template, err := plan(Root).template(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	template.Subject.CommonName = "Utopia IACA 2"
	der, err := x509.CreateCertificate(rand.Reader, template, r.cert, other.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	if got := broken(lintCertificate(der, Root, nil)); !slices.Equal(got, []string{"error authority-key-identifier.equal", "error root.issuer", "error signature"}) {
		t.Errorf("a root under another: %v", got)
	}
}

// TestLintGarbage: what cannot be read is one finding.
func TestLintGarbage(t *testing.T) {
	r := newRoot(t, elliptic.P256())
	for _, der := range [][]byte{nil, {0x30}, {0x30, 0x00}, r.cert.Raw[:len(r.cert.Raw)-1], append(slices.Clone(r.cert.Raw), 0)} {
		if got := broken(lintCertificate(der, DocumentSigner, r.cert)); !slices.Equal(got, []string{"error parse"}) {
			t.Errorf("%x: %v", der, got)
		}
		if got := broken(lintCRL(der, r.cert)); !slices.Equal(got, []string{"error crl.parse"}) {
			t.Errorf("%x: %v", der, got)
		}
	}
}

// TestLintLists breaks one more thing in a CRL at a time.
func TestLintLists(t *testing.T) {
	r, other := newRoot(t, elliptic.P256()), newRoot(t, elliptic.P256())
	good := func() *x509.RevocationList {
		return &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 90)}
	}
	sign := func(l *x509.RevocationList, issuer *x509.Certificate, signer crypto.Signer) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, l, issuer, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	if got := broken(lintCRL(sign(good(), r.cert, r.key), r.cert)); got != nil {
		t.Errorf("unchanged: %v", got)
	}
	if got := broken(lintCRL(sign(good(), r.cert, r.key), nil)); got != nil {
		t.Errorf("without the root: %v", got)
	}
	stand := *r.cert
	stand.PublicKey = other.key.Public()
	if got := broken(lintCRL(sign(good(), &stand, other.key), r.cert)); !slices.Equal(got, []string{"error crl.signature"}) {
		t.Errorf("signed by another: %v", got)
	}
	stand = *r.cert
	stand.RawSubject = other.cert.RawSubject[:len(other.cert.RawSubject)-1]
	stand.RawSubject = append(slices.Clone(stand.RawSubject), 'X')
	if got := broken(lintCRL(sign(good(), &stand, r.key), r.cert)); !slices.Contains(got, "error crl.issuer") {
		t.Errorf("another issuer: %v", got)
	}
	late := good()
	late.NextUpdate = late.NextUpdate.Add(time.Second)
	if got := broken(lintCRL(sign(late, r.cert, r.key), r.cert)); !slices.Equal(got, []string{"error crl.cadence"}) {
		t.Errorf("a second late: %v", got)
	}
	negative := good()
	negative.Number = big.NewInt(-1)
	if got := broken(lintCRL(sign(negative, r.cert, r.key), r.cert)); !slices.Equal(got, []string{"error crl.number"}) {
		t.Errorf("number -1: %v", got)
	}
	edwards := issuancetest.Key(t, issuance.EdDSA)
	stand = *r.cert
	stand.PublicKey = edwards.Public()
	if got := broken(lintCRL(sign(good(), &stand, edwards), &stand)); !slices.Equal(got, []string{"error crl.signature.algorithm"}) {
		t.Errorf("EdDSA: %v", got)
	}
	if der, err := CreateCRL(r.cert, other.key, 1, nil, start, start.AddDate(0, 0, 30)); err == nil {
		t.Errorf("another key's list: %x", der)
	}
	for name, until := range map[string]time.Time{"too late": start.AddDate(0, 0, 91), "backwards": start.Add(-time.Hour), "at once": start} {
		if _, err := CreateCRL(r.cert, r.key, 1, nil, start, until); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// TestForeignCertificates lints other people's certificates; what they are known
// for must be found, and nothing else be an error.
func TestForeignCertificates(t *testing.T) {
	read := func(name string) []byte {
		data := issuancetest.Vector(t, "mdoc", filepath.FromSlash(name))
		if block, _ := pem.Decode(data); block != nil {
			return block.Bytes
		}
		der, err := hex.DecodeString(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, test := range []struct {
		name    string
		profile Profile
		parent  string
		faults  []string
	}{
		{"golden/iaca.pem", Root, "", nil},
		{"golden/iaca-p384.pem", Root, "", nil},
		{"golden/ds.pem", DocumentSigner, "golden/iaca.pem", nil},
		{"golden/ds-p384.pem", DocumentSigner, "golden/iaca-p384.pem", nil},
		{"golden/ds.pem", DocumentSigner, "golden/iaca-p384.pem", []string{"authority-key-identifier.equal", "issuer.bytes"}},
		{"annex-d/iaca.pem", Root, "", []string{"crl-distribution-points.uri"}},
		{"annex-d/ds.pem", DocumentSigner, "annex-d/iaca.pem", []string{"crl-distribution-points.uri"}},
		{"certs/isomdl-iaca-root-cert.pem", Root, "", nil},
		{"certs/isomdl-iaca-signer.pem", DocumentSigner, "certs/isomdl-iaca-root-cert.pem", []string{"validity.nested"}},
		{"certs/isomdl-incorrect-iaca-signer.pem", DocumentSigner, "", []string{"basic-constraints.leaf", "issuer-alt-name"}},
		{"certs/eudi-ref-pid-ca-ut-01.pem", Root, "", []string{"extended-key-usage.root"}},
		{"certs/eudi-ref-pid-ds-0002.pem", DocumentSigner, "", []string{"extended-key-usage"}},
		{"certs/owf-multipaz-iaca-p384.pem", Root, "", []string{"subject.country.encoding"}},
		{"certs/owf-multipaz-ds-p384.pem", DocumentSigner, "", []string{"serial.positive", "subject.country.encoding"}},
		{"certs/openid-conformance-iaca-2026-08-22.pem", Root, "", nil},
	} {
		var parent *x509.Certificate
		if test.parent != "" {
			var err error
			if parent, err = x509.ParseCertificate(read(test.parent)); err != nil {
				t.Fatal(err)
			}
		}
		var faults []string
		for _, f := range lintCertificate(read(test.name), test.profile, parent) {
			if f.Severity == Fault {
				faults = append(faults, f.Rule)
			}
		}
		slices.Sort(faults)
		if !slices.Equal(faults, test.faults) {
			t.Errorf("%s: %v, want %v", test.name, faults, test.faults)
		}
	}
	root, err := x509.ParseCertificate(read("golden/iaca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"golden/crl-empty.hex", "golden/crl-ds-revoked.hex"} {
		if got := lintCRL(read(name), root); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzLint(f *testing.F) {
	r := newRoot(f, elliptic.P256())
	crl, err := CreateCRL(r.cert, r.key, 1, []Revoked{{big.NewInt(99), start}}, start, start.AddDate(0, 0, 60))
	if err != nil {
		f.Fatal(err)
	}
	key := newKey(f, elliptic.P256())
	csr, err := CreateCSR(plan(DocumentSigner), key)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := Create(plan(DocumentSigner), r.cert, key.Public(), r.key)
	if err != nil {
		f.Fatal(err)
	}
	list, err := x509.ParseRevocationList(crl)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.cert.Raw)
	f.Add(crl)
	f.Add(csr)
	for _, profile := range []Profile{DocumentSigner, CredentialSigner, StatusSigner} {
		der, err := Create(plan(profile), r.cert, newKey(f, elliptic.P256()).Public(), r.key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var findings []Finding
		choice := int(crc32.ChecksumIEEE(der)) // the same for the same bytes
		l := Linter{
			Profile: Profiles[choice%len(Profiles)], Audience: Audiences[choice/len(Profiles)%len(Audiences)],
			Issuer: r.cert, Successor: r.cert, Previous: list,
		}
		findings = slices.Concat(findings, l.Certificate(der), l.CSR(der), l.CRL(der), l.CheckCertificateFor(der, signer, start), l.CheckCertificateFor(csr, der, start))
		if profile, err := GuessProfile(der); err == nil && profile != "" && !slices.Contains(Profiles, profile) {
			t.Fatalf("there is no profile %q", profile)
		}
		for _, finding := range findings {
			if finding.Rule == "" || finding.Message == "" || finding.Source == "" || finding.Remedy == "" || !strings.Contains(finding.String(), finding.Rule) {
				t.Fatalf("%+v", finding)
			}
		}
	})
}

func BenchmarkLintCertificate(b *testing.B) {
	r := newRoot(b, elliptic.P256())
	der, err := Create(plan(DocumentSigner), r.cert, newKey(b, elliptic.P256()).Public(), r.key)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(lintCertificate(der, DocumentSigner, r.cert)) > 0 {
			b.Fatal("findings")
		}
	}
}
