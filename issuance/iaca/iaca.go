// Package iaca makes and lints the issuing authority's certificates and CRLs:
// ISO/IEC 18013-5 Annex B and what the field's verifiers demand beyond it.
//
// A certificate is linted before it is signed: the same to-be-signed structure
// is signed by a throw-away key of the same kind, that certificate is linted,
// and only then does the real key sign. What was signed is compared with what
// was linted, and linted again.
package iaca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha1" // RFC 5280 §4.2.1.2 method 1: an identifier, not a signature
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Profile is a certificate's kind.
type Profile string

// The profiles.
const (
	// Root is the IACA root certificate (Annex B.1.1).
	Root Profile = "iaca"
	// Link leads from an old root to a new one (second edition Annex B.2).
	Link Profile = "link"
	// DocumentSigner signs mdocs (Annex B.1.4).
	DocumentSigner Profile = "document-signer"
	// CredentialSigner signs SD-JWT VCs (SD-JWT VC draft 13 §3.5, HAIP §6.1.1).
	CredentialSigner Profile = "credential-signer"
	// StatusSigner signs status lists (second edition Annex B.9).
	StatusSigner Profile = "status-signer"
	// MetadataSigner signs issuer metadata (OpenID4VCI 1.0 §12.2.3, HAIP §4.1).
	MetadataSigner Profile = "metadata-signer"
)

// Profiles are all there are.
var Profiles = []Profile{Root, Link, DocumentSigner, CredentialSigner, StatusSigner, MetadataSigner}

// longest is each profile's longest validity.
var longest = map[Profile]time.Duration{
	Root:             7300 * 24 * time.Hour, // 20 years; the strictest verifier counts 365 days each
	Link:             7300 * 24 * time.Hour,
	DocumentSigner:   457 * 24 * time.Hour,
	CredentialSigner: 457 * 24 * time.Hour,
	StatusSigner:     1187 * 24 * time.Hour,
	MetadataSigner:   457 * 24 * time.Hour,
}

// Name is a distinguished name.
type Name struct {
	// Country is ISO 3166-1 alpha-2, upper case.
	Country string
	// State is ISO 3166-2, for instance "US-UT"; when the root has one, every
	// certificate below must have the same.
	State string
	// Organization and CommonName are for people.
	Organization, CommonName string
}

// Plan is what goes into a certificate.
type Plan struct {
	Profile Profile
	Subject Name
	// NotBefore and NotAfter are cut to whole seconds.
	NotBefore, NotAfter time.Time
	// ContactEmail and ContactURL are the issuer's (issuerAltName); one is needed.
	ContactEmail, ContactURL string
	// CRL is the URL of the IACA's CRL.
	CRL string
	// IssuerURL is the Credential Issuer Identifier; a credential or metadata
	// signer carries it, and its host, as subjectAltName.
	IssuerURL string
}

// Create makes a certificate for public, signed by signer: the root's own key
// (parent nil), or the parent's. A signer that is a crypto.MessageSigner gets the
// bytes instead of their hash. Nothing is signed that the linter would refuse.
func Create(plan Plan, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	template, err := plan.template(public)
	if err != nil {
		return nil, err
	}
	return issue(template, parent, public, signer, Linter{Profile: plan.Profile})
}

// issue signs a template that the linter found right.
func issue(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer, linter Linter) ([]byte, error) {
	issuerTemplate := parent
	if parent == nil {
		issuerTemplate = template
	}
	algorithm, err := signatureAlgorithm(signer.Public())
	if err != nil {
		return nil, err
	}
	template.SignatureAlgorithm = algorithm
	trial, stand, err := trial(template, parent, public)
	if err != nil {
		return nil, err
	}
	linter.Issuer = stand
	if err := refuse(linter.Certificate(trial)); err != nil {
		return nil, fmt.Errorf("the certificate would not be right: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuerTemplate, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	if err := same(trial, der, parent == nil); err != nil {
		return nil, err
	}
	linter.Issuer = parent
	if err := refuse(linter.Certificate(der)); err != nil {
		return nil, fmt.Errorf("the signed certificate is not right: %w", err)
	}
	return der, nil
}

// trial signs the same template with a throw-away key, and returns the
// certificate that would have issued it. For a root the throw-away key stands in
// for the root's own, and nothing is above it; below, the issuer's name and key
// identifier are the real ones.
func trial(template *x509.Certificate, parent *x509.Certificate, public crypto.PublicKey) (der []byte, stand *x509.Certificate, err error) {
	if parent != nil {
		throwAway, stand, err := standIn(parent)
		if err != nil {
			return nil, nil, err
		}
		der, err = x509.CreateCertificate(rand.Reader, template, stand, public, throwAway)
		return der, stand, err
	}
	throwAway, err := sameKind(public)
	if err != nil {
		return nil, nil, err
	}
	copied := *template
	if copied.SubjectKeyId, err = KeyIdentifier(throwAway.Public()); err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, &copied, &copied, throwAway.Public(), throwAway)
	return der, nil, err
}

// standIn returns a throw-away key, and an issuer's certificate with that key in
// the place of its own.
func standIn(issuer *x509.Certificate) (crypto.Signer, *x509.Certificate, error) {
	throwAway, err := sameKind(issuer.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	stand := *issuer
	stand.PublicKey = throwAway.Public()
	return throwAway, &stand, nil
}

func sameKind(public crypto.PublicKey) (crypto.Signer, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(key.Curve, rand.Reader)
	case ed25519.PublicKey:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("a %T cannot be in these certificates: use a NIST curve", public)
}

// same compares what was linted with what was signed: everything but what the
// throw-away key itself put in must be the same bytes.
func same(trial, der []byte, root bool) error {
	a, err := x509.ParseCertificate(trial)
	if err != nil {
		return err
	}
	b, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if !root {
		if !bytes.Equal(a.RawTBSCertificate, b.RawTBSCertificate) {
			return errors.New("what was signed is not what was linted")
		}
		return nil
	}
	if !bytes.Equal(a.RawSubject, b.RawSubject) || !bytes.Equal(a.RawIssuer, b.RawIssuer) || a.SerialNumber.Cmp(b.SerialNumber) != 0 ||
		!a.NotBefore.Equal(b.NotBefore) || !a.NotAfter.Equal(b.NotAfter) {
		return errors.New("what was signed is not what was linted")
	}
	return sameExtensions(a.Extensions, b.Extensions)
}

// sameExtensions compares extensions, but for the identifier of the key.
func sameExtensions(a, b []pkix.Extension) error {
	if len(a) != len(b) {
		return errors.New("other extensions were signed than linted")
	}
	for i, e := range a {
		o := b[i]
		if !e.Id.Equal(o.Id) || e.Critical != o.Critical || !bytes.Equal(e.Value, o.Value) && !e.Id.Equal(oidSubjectKeyID) {
			return fmt.Errorf("extension %v was signed otherwise than linted", e.Id)
		}
	}
	return nil
}

// signatureAlgorithm pairs the signer's curve with its hash.
func signatureAlgorithm(public crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return x509.ECDSAWithSHA256, nil
		case 384:
			return x509.ECDSAWithSHA384, nil
		case 521:
			return x509.ECDSAWithSHA512, nil
		}
	}
	return 0, errors.New("certificates are signed with P-256, P-384 or P-521")
}

// KeyIdentifier returns the SHA-1 of the public key's bits (RFC 5280 §4.2.1.2
// method 1), as Annex B wants it.
func KeyIdentifier(public crypto.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	bits, err := publicKeyBits(spki)
	if err != nil {
		return nil, err
	}
	return identifier(bits), nil
}

// identifier hashes with SHA-1 also where only FIPS 140 algorithms are allowed:
// it names a key, and no security rests on it.
func identifier(bits []byte) []byte {
	var sum [sha1.Size]byte
	fips140.WithoutEnforcement(func() { sum = sha1.Sum(bits) })
	return sum[:]
}

func publicKeyBits(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if rest, err := asn1.Unmarshal(spki, &info); err != nil || len(rest) > 0 {
		return nil, errors.New("the public key is malformed")
	}
	return info.Bits.RightAlign(), nil
}

// SerialNumber returns a random number of 20 octets whose two highest bits are 01:
// positive, 158 bits unpredictable.
func SerialNumber() (*big.Int, error) {
	for {
		b := make([]byte, 20)
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		b[0] &= 0x7f
		if b[0] >= 0x40 { // always 20 octets long
			return new(big.Int).SetBytes(b), nil
		}
	}
}

// template builds what crypto/x509 signs.
func (p Plan) template(public crypto.PublicKey) (*x509.Certificate, error) {
	serial, err := SerialNumber()
	if err != nil {
		return nil, err
	}
	identifier, err := KeyIdentifier(public)
	if err != nil {
		return nil, err
	}
	name := pkix.Name{Country: []string{p.Subject.Country}, CommonName: p.Subject.CommonName}
	if p.Subject.State != "" {
		name.Province = []string{p.Subject.State}
	}
	if p.Subject.Organization != "" {
		name.Organization = []string{p.Subject.Organization}
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: name, NotBefore: p.NotBefore.UTC().Truncate(time.Second), NotAfter: p.NotAfter.UTC().Truncate(time.Second),
		SubjectKeyId: identifier, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if p.CRL != "" {
		t.CRLDistributionPoints = []string{p.CRL}
	}
	if p.ContactEmail != "" || p.ContactURL != "" {
		alternative, err := p.issuerAltName()
		if err != nil {
			return nil, err
		}
		t.ExtraExtensions = []pkix.Extension{alternative}
	}
	switch p.Profile {
	case Root:
		authority(t)
	case DocumentSigner:
		value, err := asn1.Marshal([]asn1.ObjectIdentifier{oidDocumentSigner})
		if err != nil {
			return nil, err
		}
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oidExtKeyUsage, Critical: true, Value: value})
	case CredentialSigner, MetadataSigner:
		u, err := url.Parse(p.IssuerURL)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" {
			return nil, fmt.Errorf("the issuer's URL %q must be https", p.IssuerURL)
		}
		t.URIs, t.DNSNames = []*url.URL{u}, []string{u.Hostname()}
	case StatusSigner:
	default:
		return nil, fmt.Errorf("no profile %q", p.Profile)
	}
	return t, nil
}

// authority gives a template what an IACA's certificate has.
func authority(t *x509.Certificate) {
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLen, t.MaxPathLenZero = true, true, 0, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

// issuerAltName is the contact of the issuing authority, non-critical.
func (p Plan) issuerAltName() (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if p.ContactEmail != "" {
			b.AddASN1(cbasn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(p.ContactEmail)) })
		}
		if p.ContactURL != "" {
			b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(p.ContactURL)) })
		}
	})
	value, err := b.Bytes()
	if strings.IndexFunc(p.ContactEmail+p.ContactURL, func(r rune) bool { return r > 126 || r < 33 }) >= 0 {
		return pkix.Extension{}, errors.New("the issuer's contact must be ASCII")
	}
	return pkix.Extension{Id: oidIssuerAltName, Value: value}, err
}
