package foresight

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/configuration"
)

// remedySigner is what helps when a key or its certificate is of no use.
const remedySigner = "Make a new key in a ceremony (docs/ceremony.md), name it as signer in the configuration's file, and restart chanceryd."

// configurations holds each configuration against the key that signs it.
func (l *look) configurations() {
	for _, c := range l.Configurations {
		l.signed[c.Signer] = append(l.signed[c.Signer], c.ID)
		id := l.byKey[c.Signer]
		if id == nil {
			l.add(Finding{Rule: "key-missing", Severity: Error, Subject: c.ID, Text: fmt.Sprintf("The signer has no key %s, which is to sign %s.", c.Signer, c.ID),
				Remedy: "Correct signer in the configuration's file, or make the key in a ceremony (docs/ceremony.md)."})
			continue
		}
		l.profile(c, id)
		if len(id.Chain) == 0 {
			if c.Format == issuance.FormatMdoc || c.Format == issuance.FormatSDJWT && id.DID == "" {
				l.add(Finding{Rule: "certificate-missing", Severity: Error, Subject: c.ID, Text: fmt.Sprintf("The key %s has no certificate, and %s cannot be signed without one.", id.Label, c.ID), Remedy: remedySigner})
			}
			continue
		}
		leaf, err := x509.ParseCertificate(id.Chain[0])
		if err != nil {
			continue // certificate says it
		}
		l.shortened(c, id.Label, leaf.NotAfter)
		if c.Format == issuance.FormatSDJWT && id.DID == "" {
			l.named(id.Label, leaf)
		}
	}
}

// grain is what the validity of a configuration's credentials is cut to.
func grain(c *configuration.Configuration) time.Duration {
	if c.ValidFor < 48*time.Hour {
		return time.Hour
	}
	return 24 * time.Hour
}

// until is the last second of a credential whose validity starts at from.
func until(c *configuration.Configuration, from time.Time) time.Time {
	return from.Add(c.ValidFor).Truncate(grain(c)).Add(-time.Second)
}

// profile asks the key's profile as the signer does.
func (l *look) profile(c *configuration.Configuration, id *wire.Identity) {
	from := l.now.Truncate(grain(c))
	s := issuance.Statement{Format: c.Format, Algorithm: id.Algorithm, Signed: from, ValidFrom: from, ValidUntil: until(c, from)}
	switch c.Format {
	case issuance.FormatMdoc:
		s.Types = []string{c.DocType}
	case issuance.FormatSDJWT:
		s.Types, s.Issuer = []string{c.VCT}, l.Identifier
	default:
		s.Types, s.Issuer = c.Types, l.Identifier
	}
	if s.Issuer != "" && id.DID != "" && id.Profile.Issuer != l.Identifier { // a profile may have a DID key sign in the identifier's name
		s.Issuer = id.DID
	}
	if err := id.Profile.Check(s); err != nil {
		l.add(Finding{Rule: "profile", Severity: Error, Subject: c.ID, Text: fmt.Sprintf("The key %s may not sign %s: %v.", id.Label, c.ID, err),
			Remedy: "A key's profile is fixed for ever: correct the configuration, or make a key with the right profile in a ceremony (docs/ceremony.md)."})
	}
}

// shortened finds from when on the certificate's end cuts the validity of
// credentials, and from when on too little of it is left: less than a tenth, or
// less than it is counted in. A validity is twice that at least, so that the cut
// comes first.
func (l *look) shortened(c *configuration.Configuration, label string, notAfter time.Time) {
	step := grain(c)
	cut := notAfter.UTC().Add(-c.ValidFor).Truncate(step).Add(-step)
	for !until(c, cut).After(notAfter) {
		cut = cut.Add(step)
	}
	end := notAfter.Add(time.Second)
	short := end.Add(-max(c.ValidFor/10, step))
	l.add(Finding{Rule: "validity-cut", Severity: Warning, Subject: c.ID, Begins: cut, Ends: short, Remedy: remedySigner,
		Text: l.from(cut, fmt.Sprintf("credentials of %s get less than their %s: they end with the certificate of %s, on %s", c.ID, span(c.ValidFor), label, day(notAfter)))})
	l.add(Finding{Rule: "validity-too-short", Severity: Error, Subject: c.ID, Begins: short, Ends: end, Remedy: remedySigner,
		Text: l.from(short, fmt.Sprintf("credentials of %s live less than %s instead of %s: they end with the certificate of %s, on %s", c.ID, span(end.Sub(short)), span(c.ValidFor), label, day(notAfter)))})
}

// from makes a sentence, with its date when that is to come.
func (l *look) from(t time.Time, text string) string {
	if t.After(l.now) {
		text = "from " + day(t) + " on, " + text
	}
	return sentence(text)
}

// metadataSigner looks at the key that signs the metadata.
func (l *look) metadataSigner() {
	if l.MetadataSigner == "" {
		return
	}
	l.signed[l.MetadataSigner] = append(l.signed[l.MetadataSigner], "the metadata")
	id := l.byKey[l.MetadataSigner]
	if id == nil {
		l.add(Finding{Rule: "metadata-signer-missing", Severity: Error, Subject: l.MetadataSigner, Text: fmt.Sprintf("The signer has no key %s, which is to sign the metadata: wallets get the unsigned form alone.", l.MetadataSigner),
			Remedy: "Correct issuer.metadata_signer in chancery.toml, or make the key in a ceremony (docs/ceremony.md)."})
		return
	}
	from := l.now.Truncate(time.Second)
	lifetime := min(l.MetadataLifetime, id.Profile.LongestValidity())
	s := issuance.Statement{Format: issuance.FormatMetadata, Algorithm: id.Algorithm, Issuer: l.Identifier, Signed: from, ValidFrom: from, ValidUntil: from.Add(lifetime)}
	if err := id.Profile.Check(s); err != nil {
		l.add(Finding{Rule: "profile", Severity: Error, Subject: id.Label, Text: fmt.Sprintf("The key %s may not sign the metadata: %v.", id.Label, err),
			Remedy: "Name a metadata signer in issuer.metadata_signer, or make one in a ceremony (docs/ceremony.md)."})
	}
	if len(id.Chain) == 0 {
		l.add(Finding{Rule: "certificate-missing", Severity: Error, Subject: id.Label, Text: fmt.Sprintf("The key %s has no certificate, and the metadata cannot be signed without one.", id.Label),
			Remedy: "Make a metadata signer in a ceremony (docs/ceremony.md), and name it in issuer.metadata_signer."})
	} else if leaf, err := x509.ParseCertificate(id.Chain[0]); err == nil {
		l.named(id.Label, leaf)
	}
}

// named demands that a certificate names the issuer whose statements it is for
// (SD-JWT VC §3.5, HAIP 1.0 §6.1.1).
func (l *look) named(label string, leaf *x509.Certificate) {
	u, err := url.Parse(l.Identifier)
	if err != nil || slices.ContainsFunc(leaf.URIs, func(name *url.URL) bool { return name.String() == l.Identifier }) || leaf.VerifyHostname(u.Hostname()) == nil {
		return
	}
	f := Finding{Rule: "certificate-name", Severity: Error, Subject: label, Text: fmt.Sprintf("The certificate of %s names neither %s nor its host: verifiers refuse what it signs.", label, l.Identifier), Remedy: remedySigner}
	if !slices.Contains(l.found, f) { // once for all its configurations
		l.add(f)
	}
}

// keys looks at every key by itself: those that sign something closely, those
// that nothing depends on not at all.
func (l *look) keys() {
	roots := newRoots()
	for i := range l.Identities {
		id := &l.Identities[i]
		uses := l.signed[id.Label]
		l.ready(id, len(uses) > 0)
		if len(uses) == 0 {
			continue
		}
		l.certificate(id, strings.Join(uses, ", "), roots)
		l.did(id)
	}
	for _, purpose := range []wire.Purpose{wire.PurposeSealing, wire.PurposeCheckpoint} {
		if !slices.ContainsFunc(l.Identities, func(id wire.Identity) bool { return id.Purpose == purpose }) {
			l.add(Finding{Rule: "key-missing", Severity: Error, Subject: string(purpose), Text: fmt.Sprintf("The signer has no %s key.", purpose),
				Remedy: "Make it in a ceremony (docs/ceremony.md)."})
		}
	}
	l.roots(roots)
}

// ready tells of a key whose last signature failed, unless an outage says why.
func (l *look) ready(id *wire.Identity, inUse bool) {
	if id.Ready || len(l.Outages) > 0 {
		return
	}
	severity := Warning
	if inUse || id.Purpose == wire.PurposeSealing || id.Purpose == wire.PurposeCheckpoint {
		severity = Error
	}
	l.add(Finding{Rule: RuleKeyNotReady, Severity: severity, Subject: id.Label, Text: fmt.Sprintf("The last periodic signature with the key %s failed.", id.Label),
		Remedy: "Look at the token and at the signer's log; it tries again by itself."})
}
