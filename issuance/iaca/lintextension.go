package iaca

import (
	"bytes"
	"encoding/asn1"
	"net/mail"
	"net/url"
	"slices"
	"strings"
)

// Object identifiers of extensions (RFC 5280 §4.2), purposes and attributes.
var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidIssuerAltName    = asn1.ObjectIdentifier{2, 5, 29, 18}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidCRLNumber        = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidCRLPoints        = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidPolicies         = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidAuthorityInfo    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidQCStatements     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 3}
	oidShortTerm        = asn1.ObjectIdentifier{0, 4, 0, 194121, 2, 1} // ETSI EN 319 412-1 §5.2

	oidDocumentSigner   = asn1.ObjectIdentifier{1, 0, 18013, 5, 1, 2}
	oidMdocSigner       = asn1.ObjectIdentifier{1, 0, 23220, 4, 1, 2}        // ISO/IEC 23220-4
	oidOldPIDSigner     = asn1.ObjectIdentifier{1, 3, 130, 2, 0, 0, 1, 2}    // the EUDI reference issuer until 2025
	oidQCTypePID        = asn1.ObjectIdentifier{0, 4, 0, 194126, 1, 1}       // ETSI TS 119 412-6
	oidCAIssuers        = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}  // RFC 5280 §4.2.2.1
	oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14} // RFC 2985 §5.4.2
)

// forbidden extensions, critical or not (Annex B.1.1).
var forbidden = map[string]string{
	"2.5.29.33": "policyMappings", "2.5.29.30": "nameConstraints", "2.5.29.36": "policyConstraints",
	"2.5.29.54": "inhibitAnyPolicy", "2.5.29.46": "freshestCRL",
}

// etsi are the extensions that ETSI TS 119 412-6 adds; none is critical.
var etsi = []asn1.ObjectIdentifier{oidPolicies, oidAuthorityInfo, oidQCStatements, oidShortTerm}

// elsewhere are purposes of certificates that are no issuer's: anyExtendedKeyUsage,
// serverAuth, clientAuth, OCSPSigning.
var elsewhere = []string{"2.5.29.37.0", "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.9"}

// inProfile tells whether an extension is in the profile's table, and whether it
// must be critical.
func (l *lint) inProfile(id asn1.ObjectIdentifier) (critical, known bool) {
	authority := l.Profile == Root || l.Profile == Link
	switch {
	case id.Equal(oidKeyUsage):
		return true, true
	case id.Equal(oidBasicConstraints):
		return true, authority
	case id.Equal(oidExtKeyUsage):
		return l.Profile == DocumentSigner, !authority && l.Profile != StatusSigner
	}
	return false, slices.ContainsFunc([]asn1.ObjectIdentifier{oidSubjectKeyID, oidAuthorityKeyID, oidIssuerAltName, oidCRLPoints, oidSubjectAltName}, id.Equal)
}

// shared are the rules on extensions that hold for certificates and for what
// requests ask for.
func (l *lint) shared() {
	seen := map[string]bool{}
	for _, e := range l.extensions {
		id := e.ID.String()
		if seen[id] {
			l.report("extension.twice", "extension %s is there twice", id)
			continue
		}
		seen[id] = true
		if canonical, err := asn1.Marshal(extension{ID: e.ID, Critical: e.Critical, Value: e.Value}); err == nil && !bytes.Equal(canonical, e.Raw) {
			l.report("extension.default", "extension %s spells out critical FALSE", id)
		}
		l.listed(e)
	}
	want, text := []byte{3, 2, 7, 0x80}, "digitalSignature alone"
	if l.Profile == Root || l.Profile == Link {
		want, text = []byte{3, 2, 1, 6}, "keyCertSign and cRLSign alone"
	}
	if e := find(l.extensions, oidKeyUsage); e == nil || !bytes.Equal(e.Value, want) {
		l.report("key-usage", "keyUsage is missing or not %s", text)
	}
	l.constraints()
	l.purpose()
	if e := find(l.extensions, oidIssuerAltName); e != nil {
		l.contact(e)
	}
	if e := find(l.extensions, oidCRLPoints); e != nil {
		l.points(e)
	}
	if e := find(l.extensions, oidAuthorityKeyID); e != nil {
		if _, alone := keyIdentifier(e); !alone {
			l.report("authority-key-identifier.members", "authorityKeyIdentifier has other members than keyIdentifier")
		}
	}
}

// listed tells whether an extension is one of the profile's, and as critical as
// it is there.
func (l *lint) listed(e extension) {
	id := e.ID.String()
	if name := forbidden[id]; name != "" {
		l.report("extension.forbidden", "%s is not allowed", name)
		return
	}
	critical, known := l.inProfile(e.ID)
	switch authority := l.Profile == Root || l.Profile == Link; {
	case e.ID.Equal(oidBasicConstraints) && !authority: // has a rule of its own
	case e.ID.Equal(oidExtKeyUsage) && (authority && l.Audience != ISO || l.Profile == StatusSigner): // has a rule of its own
	case known && critical != e.Critical:
		l.report("extension.critical", "extension %s has critical %v", id, e.Critical)
	case !known && e.Critical:
		l.report("extension.unknown", "extension %s is critical, and readers do not know it here", id)
	case !known && !(l.Audience == EUDI && slices.ContainsFunc(etsi, e.ID.Equal)):
		l.report("extension.other", "extension %s is not in the profile", id)
	}
}

func (l *lint) constraints() {
	basic := find(l.extensions, oidBasicConstraints)
	if l.Profile == Root || l.Profile == Link {
		if basic == nil || !bytes.Equal(basic.Value, []byte{0x30, 6, 1, 1, 0xff, 2, 1, 0}) {
			l.report("basic-constraints", "basicConstraints is missing or not CA with a path length of 0")
		}
	} else if basic != nil {
		l.report("basic-constraints.leaf", "there is a basicConstraints")
	}
}

// purpose holds the extended key usage against the profile.
func (l *lint) purpose() {
	e := find(l.extensions, oidExtKeyUsage)
	switch l.Profile {
	case Root, Link:
		if e != nil {
			l.report("extended-key-usage.root", "there is an extendedKeyUsage")
		}
	case DocumentSigner:
		if e == nil || !slices.ContainsFunc(purposes(e), oidDocumentSigner.Equal) {
			l.report("extended-key-usage", "extendedKeyUsage is missing or not the document signer's")
			return
		}
		for _, p := range purposes(e) {
			if !p.Equal(oidDocumentSigner) && !(p.Equal(oidMdocSigner) && (l.Audience == ISO || l.Audience == EUDI)) {
				l.report("extended-key-usage.only", "extendedKeyUsage has %v besides the document signer's", p)
				return
			}
		}
	default:
		if e == nil {
			return
		}
		if l.Profile == StatusSigner && e.Critical {
			l.report("extended-key-usage.critical", "extendedKeyUsage is critical")
		}
		for _, p := range purposes(e) {
			text := p.String()
			if strings.HasPrefix(text, "1.0.18013.5.1.") || strings.HasPrefix(text, "1.0.23220.4.1.") || slices.Contains(elsewhere, text) {
				l.report("extended-key-usage.purpose", "extendedKeyUsage has %s, another profile's", text)
			}
		}
	}
}

// contact holds an issuerAltName against its rules.
func (l *lint) contact(e *extension) {
	names, err := generalNames(e.Value)
	usable, others, malformed := 0, 0, 0
	for _, n := range names {
		switch {
		case n.Class == asn1.ClassContextSpecific && n.Tag == 1:
			usable++
			address, err := mail.ParseAddress(string(n.Bytes))
			if err != nil || address.Address != string(n.Bytes) { // with a display name
				malformed++
			}
		case n.Class == asn1.ClassContextSpecific && n.Tag == 6:
			usable++
			if u, err := url.Parse(string(n.Bytes)); err != nil || u.Scheme == "" {
				malformed++
			}
		default:
			others++
		}
	}
	switch {
	case err != nil || usable == 0:
		l.report("issuer-alt-name", "issuerAltName is malformed or has neither an e-mail address nor a URI")
	case others > 0:
		l.report("issuer-alt-name.kind", "issuerAltName has %d names that are neither e-mail address nor URI", others)
	}
	if malformed > 0 {
		l.report("issuer-alt-name.value", "issuerAltName has %d malformed addresses", malformed)
	}
}

// points holds cRLDistributionPoints against their rules (RFC 5280 §4.2.1.13).
func (l *lint) points(e *extension) {
	var list []asn1.RawValue
	if unmarshal(e.Value, &list) != nil || len(list) == 0 {
		l.report("crl-distribution-points", "cRLDistributionPoints is malformed")
		return
	}
	members, named := false, true
	for _, point := range list {
		// DistributionPoint ::= SEQUENCE { distributionPoint [0], reasons [1], cRLIssuer [2] }
		var name asn1.RawValue
		rest, err := asn1.Unmarshal(point.Bytes, &name)
		if err != nil || name.Class != asn1.ClassContextSpecific || name.Tag != 0 {
			named = false
			continue
		}
		members = members || len(rest) > 0
		uris := pointURIs(name.Bytes)
		named = named && len(uris) > 0
		for _, text := range uris {
			u, err := url.Parse(text)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				l.report("crl-distribution-points.scheme", "a distribution point is %q", text)
			}
		}
	}
	if members {
		l.report("crl-distribution-points.members", "a distribution point has reasons or a cRLIssuer")
	}
	if !named {
		l.report("crl-distribution-points.uri", "a distribution point is not named by URIs")
	}
}

// pointURIs reads fullName, the [0] of a DistributionPointName; nil when a name
// in it is no URI.
func pointURIs(name []byte) []string {
	var full asn1.RawValue
	if unmarshal(name, &full) != nil || full.Class != asn1.ClassContextSpecific || full.Tag != 0 {
		return nil
	}
	var uris []string
	for rest := full.Bytes; len(rest) > 0; {
		var n asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &n); err != nil || n.Class != asn1.ClassContextSpecific || n.Tag != 6 {
			return nil
		}
		uris = append(uris, string(n.Bytes))
	}
	return uris
}

// required are the extensions that a certificate must have, and a request need not.
func (l *lint) required() {
	has := func(id asn1.ObjectIdentifier) bool { return find(l.extensions, id) != nil }
	if !has(oidIssuerAltName) {
		if l.Profile == StatusSigner {
			l.report("issuer-alt-name.recommended", "issuerAltName is missing")
		} else {
			l.report("issuer-alt-name", "issuerAltName is missing")
		}
	}
	if !has(oidCRLPoints) {
		switch l.Profile {
		case DocumentSigner, CredentialSigner, Link:
			l.report("crl-distribution-points", "cRLDistributionPoints is missing")
		case Root:
			l.report("crl-distribution-points.root", "cRLDistributionPoints is missing")
		}
	}
	if !has(oidAuthorityKeyID) && l.Profile != Root {
		l.report("authority-key-identifier", "authorityKeyIdentifier is missing")
	}
	if l.Profile == CredentialSigner && !l.alternative(2, 6) {
		l.report("subject-alt-name", "subjectAltName has no URI and no dNSName")
	}
}

// alternative tells whether subjectAltName has a name of one of the kinds.
func (l *lint) alternative(tags ...int) bool {
	e := find(l.extensions, oidSubjectAltName)
	if e == nil {
		return false
	}
	names, _ := generalNames(e.Value)
	return slices.ContainsFunc(names, func(n asn1.RawValue) bool {
		return n.Class == asn1.ClassContextSpecific && slices.Contains(tags, n.Tag)
	})
}

// eudi holds the certificates that sign PIDs against ETSI TS 119 412-6.
func (l *lint) eudi() {
	if l.Profile != DocumentSigner && l.Profile != CredentialSigner {
		return
	}
	if len(l.name[typeOrganization]) == 0 {
		l.report("eudi.organization", "organizationName is missing")
	}
	if id := l.name[typeOrganizationIdentifier]; len(id) != 1 || !organizationPattern.Match(id[0].Bytes) {
		l.report("eudi.organization-identifier", "organizationIdentifier is missing or not formed so")
	}
	if find(l.extensions, oidPolicies) == nil {
		l.report("eudi.certificate-policies", "certificatePolicies is missing")
	}
	if !l.alternative(1, 6) {
		l.report("eudi.subject-alt-name", "subjectAltName has neither an e-mail address nor a URI")
	}
	if !l.holds(oidAuthorityInfo, oidCAIssuers) {
		l.report("eudi.authority-information-access", "authorityInfoAccess is missing or has no caIssuers")
	}
	if !l.holds(oidQCStatements, oidQCTypePID) {
		l.report("eudi.qc-statements", "qcStatements is missing or has no id-etsi-qct-pid")
	}
}

// holds tells whether an extension has an object identifier somewhere in it:
// whether id-etsi-qct-pid is a statement or a value in QcType is not agreed on.
func (l *lint) holds(extension, id asn1.ObjectIdentifier) bool {
	e := find(l.extensions, extension)
	encoded, err := asn1.Marshal(id)
	return e != nil && err == nil && bytes.Contains(e.Value, encoded)
}
