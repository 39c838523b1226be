package iaca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// specimen is a certificate, CRL or request that breaks one rule: a flawless one,
// edited, encoded and signed anew.
type specimen struct {
	profile  Profile  // default DocumentSigner
	audience Audience // default Everyone
	linter   func(l *Linter)
	tbs      func(c *tbsCertificate)
	list     func(c *tbsCertificateList)
	request  func(r *requestInfo)
	// sign makes the outer part; default ECDSA with SHA-256 by the issuer's key.
	sign signing
	der  func(der []byte) []byte
	now  time.Time // for an answer; default start
}

// signing says which algorithm is named inside and outside, which key signs and
// with which hash.
type signing struct {
	inside, outside pkix.AlgorithmIdentifier
	key             crypto.Signer
	hash            crypto.Hash
}

// workshop makes specimens.
type workshop struct {
	t         *testing.T
	root      root
	successor root // of the same name
	renamed   root // of another
	key       *ecdsa.PrivateKey
}

func newWorkshop(t *testing.T) *workshop {
	w := &workshop{t: t, root: newRoot(t, elliptic.P256()), successor: newRoot(t, elliptic.P256()), key: newKey(t, elliptic.P256())}
	key := newKey(t, elliptic.P256())
	p := plan(Root)
	p.Subject.CommonName = "Utopia IACA 2"
	der, err := Create(p, nil, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	w.renamed = root{key, mustParse(t, der)}
	return w
}

func mustParse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func marshal(t testing.TB, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// seal signs what is to be signed as the specimen wants it.
func (w *workshop) seal(s signing, issuer crypto.Signer, tbs []byte) asn1.BitString {
	if s.key != nil {
		issuer = s.key
	}
	if s.hash == 0 {
		s.hash = crypto.SHA256
	}
	h := s.hash.New()
	h.Write(tbs)
	signature, err := issuer.Sign(rand.Reader, h.Sum(nil), s.hash)
	if err != nil {
		w.t.Fatal(err)
	}
	return asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
}

func (s *signing) complete() {
	for _, a := range []*pkix.AlgorithmIdentifier{&s.inside, &s.outside} {
		if a.Algorithm == nil {
			a.Algorithm = ecdsaSHA256
		}
	}
}

var (
	ecdsaSHA1   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}
	ecdsaSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	ecdsaSHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
)

func algorithm(id asn1.ObjectIdentifier) pkix.AlgorithmIdentifier {
	return pkix.AlgorithmIdentifier{Algorithm: id}
}

// certificate makes the specimen's certificate, and the linter for it.
func (w *workshop) certificate(s specimen) ([]byte, Linter) {
	w.t.Helper()
	l := Linter{Profile: s.profile, Issuer: w.root.cert, Audience: s.audience}
	var der []byte
	var err error
	switch s.profile {
	case Root:
		l.Issuer, der = nil, w.root.cert.Raw
	case Link:
		l.Successor = w.successor.cert
		der, err = CreateLink(w.root.cert, w.successor.cert, start, w.root.key)
	default:
		der, err = Create(plan(s.profile), w.root.cert, w.key.Public(), w.root.key)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if s.linter != nil {
		s.linter(&l)
	}
	c := &certificate{}
	if err := unmarshal(der, c); err != nil {
		w.t.Fatal(err)
	}
	s.sign.complete()
	c.Raw, c.TBS.Raw, c.TBS.Algorithm, c.Algorithm = nil, nil, s.sign.inside, s.sign.outside
	encodeAnew(c.TBS.Extensions)
	if s.tbs != nil {
		s.tbs(&c.TBS)
	}
	c.TBS.Raw = marshal(w.t, c.TBS)
	c.Signature = w.seal(s.sign, w.root.key, c.TBS.Raw)
	return w.finish(s, marshal(w.t, *c)), l
}

// encodeAnew lets edited extensions be encoded as they are then.
func encodeAnew(extensions []extension) {
	for i := range extensions {
		extensions[i].Raw = nil
	}
}

func (w *workshop) finish(s specimen, der []byte) []byte {
	if s.der != nil {
		return s.der(der)
	}
	return der
}

// crl makes the specimen's CRL, the second of its issuer.
func (w *workshop) crl(s specimen) ([]byte, Linter) {
	w.t.Helper()
	l := Linter{Issuer: w.root.cert, Audience: s.audience, Previous: &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start.AddDate(0, 0, -30)}}
	if s.linter != nil {
		s.linter(&l)
	}
	der, err := CreateCRL(w.root.cert, w.root.key, 2, []Revoked{{big.NewInt(99), start}}, start, start.AddDate(0, 0, 60))
	if err != nil {
		w.t.Fatal(err)
	}
	c := &certificateList{}
	if err := unmarshal(der, c); err != nil {
		w.t.Fatal(err)
	}
	s.sign.complete()
	c.Raw, c.TBS.Raw, c.TBS.Algorithm, c.Algorithm = nil, nil, s.sign.inside, s.sign.outside
	encodeAnew(c.TBS.Extensions)
	if s.list != nil {
		s.list(&c.TBS)
	}
	c.TBS.Raw = marshal(w.t, c.TBS)
	c.Signature = w.seal(s.sign, w.root.key, c.TBS.Raw)
	return w.finish(s, marshal(w.t, *c)), l
}

// csr makes the specimen's request.
func (w *workshop) csr(s specimen) ([]byte, Linter) {
	w.t.Helper()
	l := Linter{Profile: s.profile, Audience: s.audience}
	der, err := CreateCSR(plan(s.profile), w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &request{}
	if err := unmarshal(der, r); err != nil {
		w.t.Fatal(err)
	}
	s.sign.complete()
	r.Raw, r.Info.Raw, r.Algorithm = nil, nil, s.sign.outside
	if s.request != nil {
		s.request(&r.Info)
	}
	r.Info.Raw = marshal(w.t, r.Info)
	r.Signature = w.seal(s.sign, w.key, r.Info.Raw)
	return w.finish(s, marshal(w.t, *r)), l
}

// findings lints the specimen of a rule.
func (w *workshop) findings(kind Kind, s specimen) []Finding {
	if s.profile == "" {
		s.profile = DocumentSigner
	}
	if s.now.IsZero() {
		s.now = start
	}
	switch kind {
	case KindCRL:
		der, l := w.crl(s)
		return l.CRL(der)
	case KindCSR:
		der, l := w.csr(s)
		return l.CSR(der)
	case KindAnswer:
		asked, _ := w.csr(specimen{profile: s.profile})
		der, l := w.certificate(s)
		return l.CheckCertificateFor(asked, der, s.now)
	}
	der, l := w.certificate(s)
	return l.Certificate(der)
}

// toldOtherwise are the rules that another one comes before, by audience.
var toldOtherwise = map[string]map[Audience]bool{"crypto-x509": {AAMVA: true, EUDI: true}}

// TestEveryRuleHasOneThatBreaksIt: for each rule there is one certificate, CRL or
// request that breaks this rule and no other.
func TestEveryRuleHasOneThatBreaksIt(t *testing.T) {
	w := newWorkshop(t)
	for _, kind := range []Kind{KindCertificate, KindCRL, KindCSR, KindAnswer} {
		for _, profile := range []Profile{Root, Link, DocumentSigner, CredentialSigner, StatusSigner, MetadataSigner} {
			if kind != KindCertificate && (profile == Root || profile == Link) {
				continue
			}
			if got := w.findings(kind, specimen{profile: profile}); len(got) > 0 {
				t.Fatalf("unbroken, %s %s: %v", kind, profile, got)
			}
		}
	}
	if got := w.findings(KindCertificate, specimen{audience: EUDI, tbs: w.etsi}); len(got) > 0 {
		t.Fatalf("unbroken, with ETSI's extensions: %v", got)
	}
	specimens := map[string]specimen{}
	for _, table := range []map[string]specimen{w.forms(), w.names(), w.keys(), w.extensions(), w.values(), w.chains(), w.audiences(), w.lists(), w.requests()} {
		for rule, s := range table {
			specimens[rule] = s
		}
	}
	for _, r := range Rules() {
		s, there := specimens[r.ID]
		if !there {
			t.Errorf("%s: nothing breaks it", r.ID)
			continue
		}
		delete(specimens, r.ID)
		got := w.findings(r.Kind, s)
		if len(got) != 1 || got[0].Rule != r.ID || got[0].Severity != r.Severity || got[0].Source != r.Source || got[0].Remedy != r.Remedy {
			t.Errorf("%s: found %v", r.ID, got)
		}
		if r.Demand == "" || r.Source == "" || r.Remedy == "" || !slices.Contains(Audiences, r.Audience) {
			t.Errorf("%s is incomplete: %+v", r.ID, r)
		}
		for _, audience := range Audiences {
			counts := r.Audience == ISO || r.Audience == audience || r.Audience == Everyone && audience != ISO
			s.audience = audience
			found := slices.ContainsFunc(w.findings(r.Kind, s), func(f Finding) bool { return f.Rule == r.ID })
			if found != counts && !toldOtherwise[r.ID][audience] {
				t.Errorf("%s: found %v for %s", r.ID, found, audience)
			}
		}
	}
	for rule := range specimens {
		t.Errorf("%s is no rule", rule)
	}
}

// TestAudiences: what one audience allows another does not.
func TestAudiences(t *testing.T) {
	w := newWorkshop(t)
	mdoc := w.set(oidExtKeyUsage, true, hex.EncodeToString(marshal(t, []asn1.ObjectIdentifier{oidDocumentSigner, oidMdocSigner})))
	mdocAlone := w.set(oidExtKeyUsage, true, hex.EncodeToString(marshal(t, []asn1.ObjectIdentifier{oidMdocSigner})))
	purpose := hex.EncodeToString(marshal(t, []asn1.ObjectIdentifier{{1, 0, 18013, 5, 1, 7}}))
	for name, test := range map[string]struct {
		profile Profile
		tbs     func(c *tbsCertificate)
		want    map[Audience][]string
	}{
		"the purpose of ISO/IEC 23220-4 beside the mDL's": {DocumentSigner, mdoc, map[Audience][]string{
			Everyone: {"error extended-key-usage.only"}, AAMVA: {"error aamva.state", "error extended-key-usage.only"}, ISO: nil}},
		"instead of it": {DocumentSigner, mdocAlone, map[Audience][]string{
			Everyone: {"error extended-key-usage"}, ISO: {"error extended-key-usage"}}},
		"a root with a critical purpose": {Root, w.set(oidExtKeyUsage, true, purpose), map[Audience][]string{
			Everyone: {"error extended-key-usage.root"}, ISO: {"error extension.unknown"}, EUDI: {"error extended-key-usage.root"}}},
		"a root with a purpose": {Root, w.set(oidExtKeyUsage, false, purpose), map[Audience][]string{
			Everyone: {"error extended-key-usage.root"}, ISO: nil}},
		"ETSI's extensions": {DocumentSigner, w.etsi, map[Audience][]string{EUDI: nil,
			Everyone: {"warning extension.other", "warning extension.other", "warning extension.other"}, ISO: nil}},
		"ETSI's extensions and the other purpose": {DocumentSigner, func(c *tbsCertificate) { w.etsi(c); mdoc(c) }, map[Audience][]string{EUDI: nil}},
		"a critical policy": {DocumentSigner, func(c *tbsCertificate) { w.etsi(c); find(c.Extensions, oidPolicies).Critical = true }, map[Audience][]string{
			EUDI: {"error extension.unknown"}}},
		"20 years": {Root, w.until(start.AddDate(20, 0, 0).Add(-time.Second)), map[Audience][]string{Everyone: {"error validity.root-days"}, ISO: nil}},
		"20 years and a second": {Root, w.until(start.AddDate(20, 0, 0)), map[Audience][]string{
			Everyone: {"error validity.longest"}, ISO: {"error validity.longest"}}},
		"a status signer's own purpose": {StatusSigner, w.set(oidExtKeyUsage, false, hex.EncodeToString(marshal(t, []asn1.ObjectIdentifier{{1, 2, 3}}))),
			map[Audience][]string{Everyone: nil, ISO: nil}},
	} {
		for audience, want := range test.want {
			if got := broken(w.findings(KindCertificate, specimen{profile: test.profile, audience: audience, tbs: test.tbs})); !slices.Equal(got, want) {
				t.Errorf("%s, for %s: %v, want %v", name, audience, got, want)
			}
		}
	}
}

// TestListsGoOn: a list is compared with the one before.
func TestListsGoOn(t *testing.T) {
	w := newWorkshop(t)
	for name, test := range map[string]struct {
		list func(c *tbsCertificateList)
		want []string
	}{
		"of the same moment": {func(c *tbsCertificateList) { c.ThisUpdate = start.AddDate(0, 0, -30) }, nil},
		"a second earlier": {func(c *tbsCertificateList) { c.ThisUpdate = start.AddDate(0, 0, -30).Add(-time.Second) },
			[]string{"error crl.monotonic"}},
		"48 hours late": {func(c *tbsCertificateList) { c.Revoked[0].Time = start.Add(-48 * time.Hour) }, nil},
	} {
		s := specimen{list: func(c *tbsCertificateList) {
			test.list(c)
			c.NextUpdate = c.ThisUpdate.AddDate(0, 0, 60)
		}}
		if got := broken(w.findings(KindCRL, s)); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
	// What the list before had is late no more.
	s := specimen{
		list: func(c *tbsCertificateList) { c.Revoked[0].Time = start.AddDate(0, 0, -31) },
		linter: func(l *Linter) {
			l.Previous.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(99)}}
		},
	}
	if got := w.findings(KindCRL, s); len(got) > 0 {
		t.Errorf("an entry of the list before: %v", got)
	}
}

// TestTheDocumentationHasEveryRule, word by word.
func TestTheDocumentationHasEveryRule(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "lint.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, r := range Rules() {
		row := fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", r.ID, r.Severity, r.Audience, r.Demand, r.Source)
		if !strings.Contains(text, row) {
			t.Errorf("docs/lint.md has no row\n%s", row)
		}
	}
	_, tables, _ := strings.Cut(text, "\n## The rules\n")
	if rows := strings.Count(tables, "\n| `"); rows != len(Rules()) {
		t.Errorf("docs/lint.md has %d rows of rules, there are %d", rows, len(Rules()))
	}
}
