package iaca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	// Fault: the profile or a verifier in the field refuses it.
	Fault Severity = "error"
	// Warning: allowed, but some verifier or rule of the field recommends otherwise.
	Warning Severity = "warning"
)

// Finding is one thing the linter found.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	Message  string   `json:"message"`
	// Source is where the rule is from, Remedy what to do.
	Source string `json:"source"`
	Remedy string `json:"remedy"`
}

// String renders a finding in one line.
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s (%s); %s", f.Severity, f.Rule, f.Message, f.Source, f.Remedy)
}

// refuse turns the faults among findings into an error.
func refuse(findings []Finding) error {
	var all []error
	for _, f := range findings {
		if f.Severity == Fault {
			all = append(all, errors.New(f.String()))
		}
	}
	return errors.Join(all...)
}

// Object identifiers of extensions (RFC 5280 §4.2).
var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLNumber        = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidCRLPoints        = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// forbidden extensions, critical or not (Annex B.1.1).
var forbidden = map[string]string{
	"2.5.29.33": "policyMappings", "2.5.29.30": "nameConstraints", "2.5.29.36": "policyConstraints",
	"2.5.29.54": "inhibitAnyPolicy", "2.5.29.46": "freshestCRL",
}

// lint collects the findings on one certificate.
type lint struct {
	cert     *x509.Certificate
	profile  Profile
	parent   *x509.Certificate
	findings []Finding
}

func (l *lint) add(severity Severity, rule, source, remedy, format string, args ...any) {
	l.findings = append(l.findings, Finding{rule, severity, fmt.Sprintf(format, args...), source, remedy})
}

func (l *lint) fault(rule, source, remedy, format string, args ...any) {
	l.add(Fault, rule, source, remedy, format, args...)
}

const annexB = "ISO/IEC 18013-5 Annex B"

// LintCertificate holds a certificate against a profile and returns every
// finding. parent is the issuer's certificate; nil for a root, and otherwise
// leaves out what compares with it. Where verifiers disagree the strictest
// reading counts.
func LintCertificate(der []byte, profile Profile, parent *x509.Certificate) []Finding {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return []Finding{{"parse", Fault, "not an X.509 certificate that can be read: " + err.Error(), "RFC 5280", "give one certificate in DER or PEM"}}
	}
	l := &lint{cert: cert, profile: profile, parent: parent}
	if longest[profile] == 0 {
		l.fault("profile", "this program", "use iaca, document-signer, credential-signer, status-signer or metadata-signer", "no profile %q", profile)
		return l.findings
	}
	l.basics()
	l.names()
	l.validity()
	l.key()
	l.extensions()
	l.usage()
	l.purpose()
	l.contact()
	l.points()
	l.authority()
	if parent != nil {
		l.chain()
	} else if profile == Root {
		l.signedBy(cert)
	}
	return l.findings
}

func (l *lint) basics() {
	if l.cert.Version != 3 {
		l.fault("version", annexB, "make an X.509 v3 certificate", "version %d", l.cert.Version)
	}
	serial := l.cert.SerialNumber
	if serial.Sign() <= 0 {
		l.fault("serial.positive", "RFC 5280 §4.1.2.2", "use a random serial number", "the serial number is not positive")
	} else if n := len(serial.Bytes()); serial.BitLen() < 63 || n > 20 || n == 20 && serial.Bytes()[0] >= 0x80 {
		l.fault("serial.size", annexB, "use 63 to 159 random bits", "the serial number has %d bits", serial.BitLen())
	}
	switch l.cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		l.fault("signature.algorithm", annexB, "sign with ECDSA and SHA-256, SHA-384 or SHA-512", "signed with %v", l.cert.SignatureAlgorithm)
	}
	if l.profile == Root {
		if !bytes.Equal(l.cert.RawIssuer, l.cert.RawSubject) {
			l.fault("root.issuer", annexB+" table B.1", "make issuer and subject the same bytes", "issuer and subject differ")
		}
	} else if bytes.Equal(l.cert.RawIssuer, l.cert.RawSubject) {
		l.fault("leaf.self-issued", "HAIP §6.1.1", "issue it under the IACA", "the certificate is self-issued")
	}
}

var (
	countryPattern = regexp.MustCompile(`^[A-Z]{2}$`)
	statePattern   = regexp.MustCompile(`^[A-Z]{2}-[A-Z0-9]{1,3}$`)
)

// attributes reads a name's attributes with their string tags.
func attributes(raw []byte) (map[string][]asn1.RawValue, error) {
	var sequence []asn1.RawValue
	if rest, err := asn1.Unmarshal(raw, &sequence); err != nil || len(rest) > 0 {
		return nil, errors.New("malformed name")
	}
	out := map[string][]asn1.RawValue{}
	for _, set := range sequence {
		rest := set.Bytes
		for len(rest) > 0 {
			var attribute struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}
			var err error
			if rest, err = asn1.Unmarshal(rest, &attribute); err != nil {
				return nil, err
			}
			out[attribute.Type.String()] = append(out[attribute.Type.String()], attribute.Value)
		}
	}
	return out, nil
}

func (l *lint) names() {
	const source = annexB + " subject"
	names, err := attributes(l.cert.RawSubject)
	if err != nil {
		l.fault("subject", source, "encode the name as RFC 5280 says", "%v", err)
		return
	}
	country := names["2.5.4.6"]
	switch {
	case len(country) != 1:
		l.fault("subject.country", source, "give exactly one countryName", "%d countryName attributes", len(country))
	case !countryPattern.Match(country[0].Bytes):
		l.fault("subject.country", source, "use ISO 3166-1 alpha-2 in capitals", "the countryName is not two capital letters")
	case country[0].Tag != asn1.TagPrintableString:
		l.fault("subject.country.encoding", source, "encode it as PrintableString", "the countryName is not a PrintableString")
	}
	if len(names["2.5.4.3"]) != 1 || len(names["2.5.4.3"][0].Bytes) == 0 {
		l.fault("subject.common-name", source, "give exactly one commonName", "the commonName is missing or there twice")
	}
	if state := names["2.5.4.8"]; len(state) > 1 {
		l.fault("subject.state", source, "give at most one stateOrProvinceName", "%d stateOrProvinceName attributes", len(state))
	} else if len(state) == 1 && !statePattern.Match(state[0].Bytes) {
		l.add(Warning, "subject.state", "ISO/IEC 18013-5 issuing_jurisdiction", "use ISO 3166-2, for instance US-UT, or issuing_jurisdiction cannot match", "the stateOrProvinceName is not an ISO 3166-2 code")
	}
	for _, values := range names {
		for _, v := range values {
			if v.Tag != asn1.TagPrintableString && v.Tag != asn1.TagUTF8String {
				l.fault("subject.encoding", source, "use PrintableString or UTF8String", "an attribute has string type %d", v.Tag)
			}
		}
	}
}

func (l *lint) validity() {
	span := l.cert.NotAfter.Sub(l.cert.NotBefore) + time.Second // both ends count
	if span <= time.Second {
		l.fault("validity.order", "RFC 5280 §4.1.2.5", "let it end after it begins", "the validity is empty")
	}
	if span > longest[l.profile] {
		l.fault("validity.longest", annexB, "shorten it", "valid for %d days, at most %d", int(span.Hours()/24), int(longest[l.profile].Hours()/24))
	}
}

func (l *lint) key() {
	bits, err := publicKeyBits(l.cert.RawSubjectPublicKeyInfo)
	if err != nil || len(bits) == 0 {
		l.fault("key.type", annexB, "use P-256, P-384 or P-521", "the public key is malformed")
		return
	}
	switch key := l.cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		l.curve(key, bits)
	case ed25519.PublicKey:
		if l.profile == Root {
			l.fault("key.type", annexB+" table B.1", "use P-256, P-384 or P-521", "a root's key cannot be Ed25519")
			return
		}
		l.add(Warning, "key.curve", "what readers support", "P-256 and P-384 work everywhere", "few readers know Ed25519")
	default:
		l.fault("key.type", annexB, "use P-256, P-384 or P-521", "the key is a %T", l.cert.PublicKey)
		return
	}
	if !bytes.Equal(l.cert.SubjectKeyId, identifier(bits)) {
		l.fault("subject-key-identifier", annexB, "use SHA-1 of the public key's bits", "the subjectKeyIdentifier is missing or not the SHA-1 of the key")
	}
}

func (l *lint) curve(key *ecdsa.PublicKey, bits []byte) {
	if bits[0] != 4 {
		l.fault("key.point", annexB, "encode the point uncompressed", "the public key is not an uncompressed point")
	}
	switch key.Curve {
	case elliptic.P256(), elliptic.P384():
	case elliptic.P521():
		l.add(Warning, "key.curve", "what readers support", "P-256 and P-384 work everywhere", "few readers know P-521")
	default:
		l.fault("key.curve", annexB, "use P-256, P-384 or P-521", "the curve is %s", key.Curve.Params().Name)
	}
}

// criticality says for each known extension whether it must be critical.
var criticality = map[string]bool{
	oidSubjectKeyID.String(): false, oidAuthorityKeyID.String(): false, oidIssuerAltName.String(): false,
	oidCRLPoints.String(): false, oidSubjectAltName.String(): false, oidKeyUsage.String(): true,
	oidBasicConstraints.String(): true, oidExtKeyUsage.String(): true,
}

func (l *lint) extensions() {
	seen := map[string]bool{}
	for _, e := range l.cert.Extensions {
		id := e.Id.String()
		if seen[id] {
			l.fault("extension.twice", "RFC 5280 §4.2", "keep one", "extension %s is there twice", id)
		}
		seen[id] = true
		if name := forbidden[id]; name != "" {
			l.fault("extension.forbidden", annexB, "leave it out", "%s is not allowed", name)
			continue
		}
		critical, known := criticality[id]
		if known && critical != e.Critical {
			l.fault("extension.critical", annexB, fmt.Sprintf("set critical to %v", critical), "extension %s has critical %v", id, e.Critical)
		}
		if !known && e.Critical {
			l.fault("extension.unknown", annexB, "make it non-critical or leave it out", "extension %s is critical and no reader knows it", id)
		}
		if !known && !e.Critical {
			l.add(Warning, "extension.other", annexB, "leave it out unless somebody needs it", "extension %s is not in the profile", id)
		}
	}
}

func (l *lint) extension(id asn1.ObjectIdentifier) *pkix.Extension {
	for i := range l.cert.Extensions {
		if l.cert.Extensions[i].Id.Equal(id) {
			return &l.cert.Extensions[i]
		}
	}
	return nil
}

func (l *lint) usage() {
	want, text := []byte{3, 2, 7, 0x80}, "digitalSignature alone"
	if l.profile == Root {
		want, text = []byte{3, 2, 1, 6}, "keyCertSign and cRLSign alone"
	}
	if e := l.extension(oidKeyUsage); e == nil || !bytes.Equal(e.Value, want) {
		l.fault("key-usage", annexB, "set "+text, "keyUsage is missing or not %s", text)
	}
	basic := l.extension(oidBasicConstraints)
	if l.profile == Root {
		if basic == nil || !bytes.Equal(basic.Value, []byte{0x30, 6, 1, 1, 0xff, 2, 1, 0}) {
			l.fault("basic-constraints", annexB+" table B.1", "set CA with a path length of 0", "basicConstraints is missing or not CA with a path length of 0")
		}
	} else if basic != nil {
		l.fault("basic-constraints.leaf", annexB, "leave it out", "a leaf has no basicConstraints")
	}
}

// purpose holds the extended key usage and the names of the purpose against the
// profile: one key, one purpose.
func (l *lint) purpose() {
	e := l.extension(oidExtKeyUsage)
	switch l.profile {
	case DocumentSigner:
		want, err := asn1.Marshal([]asn1.ObjectIdentifier{oidDocumentSigner})
		if e == nil || err != nil || !bytes.Equal(e.Value, want) {
			l.fault("extended-key-usage", annexB+" table B.3", "set 1.0.18013.5.1.2 and nothing else", "extendedKeyUsage is missing or not the document signer's alone")
		}
	case Root:
		if e != nil {
			l.fault("extended-key-usage.root", "what readers accept", "leave it out", "a root with extendedKeyUsage is refused by readers")
		}
	default:
		if slices.ContainsFunc(l.cert.UnknownExtKeyUsage, oidDocumentSigner.Equal) {
			l.fault("extended-key-usage.purpose", "one key for one purpose", "leave it out", "the certificate would also be a document signer's")
		}
	}
	if l.profile == CredentialSigner && len(l.cert.URIs)+len(l.cert.DNSNames) == 0 {
		l.add(Warning, "subject-alt-name", "SD-JWT VC up to draft 9", "name the issuer's URL and host: older verifiers compare them with iss", "subjectAltName has no URI and no dNSName")
	}
}

// generalNames reads a GeneralNames sequence.
func generalNames(value []byte) ([]asn1.RawValue, error) {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(value, &names); err != nil || len(rest) > 0 {
		return nil, errors.New("malformed GeneralNames")
	}
	return names, nil
}

func (l *lint) contact() {
	const remedy = "give the issuing authority's e-mail address or URL"
	e := l.extension(oidIssuerAltName)
	if e == nil {
		l.fault("issuer-alt-name", annexB, remedy, "issuerAltName is missing")
		return
	}
	names, err := generalNames(e.Value)
	if err != nil || len(names) == 0 {
		l.fault("issuer-alt-name", annexB, remedy, "issuerAltName is malformed or empty")
		return
	}
	for _, n := range names {
		valid := false
		switch {
		case n.Class != asn1.ClassContextSpecific:
		case n.Tag == 1:
			address, err := mail.ParseAddress(string(n.Bytes))
			valid = err == nil && address.Address == string(n.Bytes) // without a display name
		case n.Tag == 6:
			u, err := url.Parse(string(n.Bytes))
			valid = err == nil && u.Scheme != ""
		}
		if !valid {
			l.fault("issuer-alt-name.kind", annexB, "use rfc822Name and uniformResourceIdentifier alone", "issuerAltName holds a name that is neither an e-mail address nor a URI")
		}
	}
}

func (l *lint) points() {
	e := l.extension(oidCRLPoints)
	if e == nil {
		switch l.profile {
		case DocumentSigner, CredentialSigner:
			l.fault("crl-distribution-points", annexB+" table B.3", "name the IACA's CRL", "cRLDistributionPoints is missing")
		case Root:
			l.add(Warning, "crl-distribution-points.root", "ISO/IEC 18013-5:2021 table B.1", "name the IACA's CRL: readers of the first edition refuse a root without", "cRLDistributionPoints is missing")
		}
		return
	}
	// DistributionPoint ::= SEQUENCE { distributionPoint [0], reasons [1], cRLIssuer [2] }
	var list []asn1.RawValue
	if _, err := asn1.Unmarshal(e.Value, &list); err != nil || len(list) == 0 {
		l.fault("crl-distribution-points", annexB, "name the IACA's CRL", "cRLDistributionPoints is malformed")
		return
	}
	for _, point := range list {
		var parts asn1.RawValue
		rest, err := asn1.Unmarshal(point.Bytes, &parts)
		if err != nil || len(rest) > 0 || parts.Tag != 0 {
			l.fault("crl-distribution-points.members", annexB, "leave out reasons and cRLIssuer", "a distribution point has other members than its name")
		}
	}
	if len(l.cert.CRLDistributionPoints) == 0 {
		l.fault("crl-distribution-points.uri", annexB, "name the CRL by an http or https URI", "no distribution point is a URI")
	}
	for _, p := range l.cert.CRLDistributionPoints {
		if u, err := url.Parse(p); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			l.fault("crl-distribution-points.uri", annexB, "name the CRL by an http or https URI", "a distribution point is not an http or https URI")
		}
	}
}

// authority holds the authority key identifier against its form. A root needs
// none, as half of the roots in the field have none.
func (l *lint) authority() {
	e := l.extension(oidAuthorityKeyID)
	if e == nil {
		if l.profile != Root {
			l.fault("authority-key-identifier", annexB, "use the issuer's subjectKeyIdentifier", "authorityKeyIdentifier is missing")
		}
		return
	}
	var parts []asn1.RawValue
	if _, err := asn1.Unmarshal(e.Value, &parts); err != nil || len(parts) != 1 || parts[0].Tag != 0 {
		l.fault("authority-key-identifier.members", annexB, "keep keyIdentifier alone", "authorityKeyIdentifier has other members than keyIdentifier")
	}
}

// signedBy verifies the signature with another certificate's key.
func (l *lint) signedBy(parent *x509.Certificate) {
	if err := parent.CheckSignature(l.cert.SignatureAlgorithm, l.cert.RawTBSCertificate, l.cert.Signature); err != nil {
		l.fault("signature", "RFC 5280 §6.1.3", "let the issuer's own key sign", "the signature does not verify with the issuer's key")
	}
}

// chain compares a certificate with its issuer's.
func (l *lint) chain() {
	l.signedBy(l.parent)
	if !bytes.Equal(l.cert.RawIssuer, l.parent.RawSubject) {
		l.fault("issuer.bytes", annexB, "copy the parent's subject bytes", "the issuer is not the parent's subject, byte by byte")
	}
	if len(l.cert.AuthorityKeyId) > 0 && !bytes.Equal(l.cert.AuthorityKeyId, l.parent.SubjectKeyId) {
		l.fault("authority-key-identifier", annexB, "use the parent's subjectKeyIdentifier", "authorityKeyIdentifier is not the parent's subjectKeyIdentifier")
	}
	if l.cert.NotBefore.Before(l.parent.NotBefore) || l.cert.NotAfter.After(l.parent.NotAfter) {
		l.fault("validity.nested", "what readers enforce", "keep it within the parent's validity", "it is valid outside its issuer's validity")
	}
	if a, b := strings.Join(l.cert.Subject.Country, ","), strings.Join(l.parent.Subject.Country, ","); a != b {
		l.fault("country.equal", annexB, "use the parent's countryName", "countryName differs from the issuer's")
	}
	if a, b := strings.Join(l.cert.Subject.Province, ","), strings.Join(l.parent.Subject.Province, ","); a != b {
		l.fault("state.equal", annexB, "use the parent's stateOrProvinceName, or none if it has none", "stateOrProvinceName differs from the issuer's")
	}
	if bytes.Equal(l.cert.RawSubjectPublicKeyInfo, l.parent.RawSubjectPublicKeyInfo) {
		l.fault("key.own", annexB, "give it a key of its own", "it has its issuer's key")
	}
}
