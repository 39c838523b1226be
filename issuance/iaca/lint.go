package iaca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"
)

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	// Fault: a specification or a verifier in the field refuses it.
	Fault Severity = "error"
	// Warning: allowed, but some verifier or rule of the field recommends otherwise.
	Warning Severity = "warning"
)

// Finding is one rule that is broken.
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

// Linter is what certificates, CRLs and requests are held against. Rules that
// compare with something that is nil are left out.
type Linter struct {
	// Profile is that of the certificate, or of the one that is asked for.
	Profile Profile
	// Issuer is the certificate of the IACA; a root's own key stands for it. For a
	// Link it is the old root.
	Issuer *x509.Certificate
	// Successor is the new root that a Link leads to.
	Successor *x509.Certificate
	// Previous is the CRL before the one to be linted.
	Previous *x509.RevocationList
	// PEM is whether the CRL was found in PEM.
	PEM bool
	// Audience is whose rules count; empty is Everyone.
	Audience Audience
}

// lint is one run of a linter over one certificate, CRL or request.
type lint struct {
	Linter
	findings []Finding
	// certificate or request is what is linted.
	certificate *certificate
	request     *request
	// What certificates and requests have in common:
	name       map[string][]asn1.RawValue // the subject's attributes by type
	key        publicKeyInfo
	public     crypto.PublicKey // nil when crypto/x509 cannot read it
	extensions []extension
}

// report adds a finding, if the audience wants the rule kept.
func (l *lint) report(rule, format string, args ...any) {
	r := ruleByID[rule]
	audience := l.Audience
	if audience == "" {
		audience = Everyone
	}
	if r.CountsFor(audience) {
		l.findings = append(l.findings, Finding{r.ID, r.Severity, fmt.Sprintf(format, args...), r.Source, r.Remedy})
	}
}

// faulty tells whether a fault was found.
func (l *lint) faulty() bool { return refuse(l.findings) != nil }

// Certificate holds a certificate (DER) against the linter's profile and returns
// every rule that it breaks.
func (l Linter) Certificate(der []byte) []Finding {
	c := &certificate{}
	run := &lint{Linter: l, certificate: c}
	if err := unmarshal(der, c); err != nil {
		run.report("parse", "not an X.509 certificate that can be read: %v", err)
		return run.findings
	}
	if longest[l.Profile] == 0 {
		run.report("profile", "there is no profile %q", l.Profile)
		return run.findings
	}
	run.key, run.extensions = c.TBS.Key, c.TBS.Extensions
	run.form()
	run.names(c.TBS.Subject.FullBytes)
	run.validity()
	run.keys()
	run.shared()
	run.required()
	run.issuer()
	run.link()
	run.eudi()
	if !run.faulty() {
		if _, err := x509.ParseCertificate(der); err != nil {
			run.report("crypto-x509", "a strict parser refuses it: %v", err)
		}
	}
	return run.findings
}

// form holds against its rules what is neither name, key nor extension.
func (l *lint) form() {
	tbs := &l.certificate.TBS
	if tbs.Version != 2 {
		l.report("version", "it is version %d", tbs.Version+1)
	}
	if tbs.IssuerUniqueID.Bytes != nil || tbs.SubjectUniqueID.Bytes != nil {
		l.report("unique-id", "it has an issuerUniqueID or subjectUniqueID")
	}
	switch serial := tbs.Serial; {
	case serial.Sign() <= 0:
		l.report("serial.positive", "the serial number is not positive")
	case serial.BitLen() < 63:
		l.report("serial.size", "the serial number has %d bits", serial.BitLen())
	case serial.BitLen() > 159:
		l.report("serial.octets", "the serial number takes %d octets", serial.BitLen()/8+1)
	case serial.BitLen() <= 64: // of 71 random bits seven are seldom zero
		l.report("serial.recommended", "the serial number has %d bits", serial.BitLen())
	}
	switch signatureAlgorithms[l.certificate.Algorithm.Algorithm.String()] {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		if len(l.certificate.Algorithm.Parameters.FullBytes) > 0 {
			l.report("signature.parameters", "the signature algorithm has parameters")
		}
	default:
		l.report("signature.algorithm", "it is signed with %v", l.certificate.Algorithm.Algorithm)
	}
	if !sameAlgorithm(tbs.Algorithm, l.certificate.Algorithm) {
		l.report("signature.algorithm.equal", "the signature algorithms inside and outside differ")
	}
}

// validity holds notBefore and notAfter, which both count, against the profile.
func (l *lint) validity() {
	from, strictFrom, errFrom := date(l.certificate.TBS.Validity.NotBefore)
	until, strictUntil, errUntil := date(l.certificate.TBS.Validity.NotAfter)
	if errFrom != nil || errUntil != nil || !strictFrom || !strictUntil {
		l.report("validity.encoding", "a date of the validity is not encoded so")
	}
	if errFrom != nil || errUntil != nil {
		return
	}
	if !until.After(from) {
		l.report("validity.order", "the validity is empty")
		return
	}
	authority := l.Profile == Root || l.Profile == Link
	end, last := until.Add(time.Second), from.Add(longest[l.Profile])
	if authority {
		last = from.AddDate(20, 0, 0)
	}
	days := int(end.Sub(from).Hours() / 24)
	switch {
	case end.After(last):
		l.report("validity.longest", "it is valid for %d days", days)
	case authority && end.After(from.Add(longest[l.Profile])):
		l.report("validity.root-days", "it is valid for %d days", days)
	}
	if l.Issuer == nil || l.Profile == Root {
		return
	}
	if l.Profile == Link && until.After(l.Issuer.NotAfter) {
		l.report("link.validity", "the old root ends on %s", l.Issuer.NotAfter.UTC().Format(time.DateOnly))
	} else if from.Before(l.Issuer.NotBefore) || until.After(l.Issuer.NotAfter) {
		l.report("validity.nested", "it is valid outside its issuer's validity, %s to %s",
			l.Issuer.NotBefore.UTC().Format(time.DateOnly), l.Issuer.NotAfter.UTC().Format(time.DateOnly))
	}
}

// issuer compares a certificate with its issuer's, a root with itself.
func (l *lint) issuer() {
	tbs := &l.certificate.TBS
	selfIssued := bytes.Equal(tbs.Issuer.FullBytes, tbs.Subject.FullBytes)
	if l.Profile == Root {
		if !selfIssued {
			l.report("root.issuer", "issuer and subject differ")
		}
		var own []byte
		if e := find(l.extensions, oidSubjectKeyID); e != nil && unmarshal(e.Value, &own) == nil {
			l.authority(own)
		}
		l.signedBy(l.public)
		return
	}
	if selfIssued && l.Profile != Link {
		l.report("leaf.self-issued", "issuer and subject are the same")
	}
	if l.Profile != Link {
		l.inherited()
	}
	if l.Issuer == nil {
		return
	}
	if !bytes.Equal(l.Issuer.RawIssuer, l.Issuer.RawSubject) || !l.Issuer.IsCA {
		l.report("chain.depth", "the issuer's certificate is not a self-signed IACA's")
	}
	if !bytes.Equal(tbs.Issuer.FullBytes, l.Issuer.RawSubject) {
		l.report("issuer.bytes", "the issuer is not the IACA's subject, byte by byte")
	}
	if bytes.Equal(l.key.Raw, l.Issuer.RawSubjectPublicKeyInfo) {
		l.report("key.own", "it has its issuer's key")
	}
	if l.authority(l.Issuer.SubjectKeyId) { // otherwise another IACA has signed it, and that was said
		l.signedBy(l.Issuer.PublicKey)
	}
}

// authority compares authorityKeyIdentifier, where it can be read.
func (l *lint) authority(want []byte) bool {
	e := find(l.extensions, oidAuthorityKeyID)
	if e == nil {
		return true
	}
	id, _ := keyIdentifier(e)
	if id == nil || bytes.Equal(id, want) {
		return true
	}
	l.report("authority-key-identifier.equal", "authorityKeyIdentifier names another key")
	return false
}

// inherited compares a signer's country and state with those of its issuer's name.
func (l *lint) inherited() {
	issuer, err := attributes(l.certificate.TBS.Issuer.FullBytes)
	if err != nil || l.name == nil {
		return
	}
	country, state := l.name[typeCountry], l.name[typeState]
	if len(country) == 1 && countryPattern.Match(country[0].Bytes) && !sameValue(country, issuer[typeCountry]) {
		l.report("country.equal", "countryName is not the issuer's")
	}
	if len(state) <= 1 && !sameValue(state, issuer[typeState]) {
		l.report("state.equal", "stateOrProvinceName is not the issuer's")
	}
}

// sameValue compares attributes; whether they are PrintableString or UTF8String
// does not matter.
func sameValue(a, b []asn1.RawValue) bool {
	return len(a) == len(b) && (len(a) == 0 || bytes.Equal(a[0].Bytes, b[0].Bytes))
}

// signedBy verifies the signature with the issuer's key.
func (l *lint) signedBy(public crypto.PublicKey) {
	c := l.certificate
	switch signatureAlgorithms[c.Algorithm.Algorithm.String()] {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return // that was said
	}
	if public == nil {
		l.report("signature.unverified", "the signature was not verified")
		return
	}
	if err := verify(public, c.Algorithm, c.TBS.Raw, c.Signature); err != nil {
		l.report("signature", "the signature does not verify with the issuer's key")
		return
	}
	if fit, err := signatureAlgorithm(public); err == nil && fit != signatureAlgorithms[c.Algorithm.Algorithm.String()] {
		l.report("signature.hash", "the hash does not fit the issuer's key, which wants %v", fit)
	}
}

// link compares a link certificate with the root that it leads to.
func (l *lint) link() {
	if l.Profile != Link {
		return
	}
	tbs := &l.certificate.TBS
	if l.Successor != nil {
		if !bytes.Equal(tbs.Subject.FullBytes, l.Successor.RawSubject) {
			l.report("link.subject", "the subject is not the new root's, byte by byte")
		}
		if !bytes.Equal(l.key.Raw, l.Successor.RawSubjectPublicKeyInfo) {
			l.report("link.key", "the key is not the new root's")
		}
	}
	if bytes.Equal(tbs.Issuer.FullBytes, tbs.Subject.FullBytes) {
		return
	}
	l.report("link.path", "the new root has another name than the old one")
	if e := find(l.extensions, oidSubjectAltName); e != nil {
		names, _ := generalNames(e.Value)
		for _, n := range names {
			if n.Class == asn1.ClassContextSpecific && n.Tag == 4 && bytes.Equal(n.Bytes, tbs.Subject.FullBytes) {
				return
			}
		}
	}
	l.report("link.subject-alt-name", "the name changes, and subjectAltName does not have the new one")
}
