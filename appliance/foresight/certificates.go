package foresight

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance/iaca"
)

// iacaNotice is how long before an IACA's end its successor must be made:
// verifiers take months to trust a new root.
const iacaNotice = 180 * 24 * time.Hour

// root is an IACA that certificates in use end at.
type root struct {
	certificate *x509.Certificate
	name        string // the key's label, or the certificate's name for a key that is elsewhere
	users       []user
}

// user is a certificate under a root, and its key's label.
type user struct {
	label string
	leaf  *x509.Certificate
}

// rootSet has the roots by their DER, in the order in which they were met.
type rootSet struct {
	byDER map[string]*root
	order []*root
}

func newRoots() *rootSet { return &rootSet{byDER: map[string]*root{}} }

func (s *rootSet) add(anchor *x509.Certificate, u user) {
	r := s.byDER[string(anchor.Raw)]
	if r == nil {
		r = &root{certificate: anchor, name: anchor.Subject.CommonName}
		s.byDER[string(anchor.Raw)] = r
		s.order = append(s.order, r)
	}
	r.users = append(r.users, u)
}

// certificate looks at the certificate of a key in use, and at its way to the
// IACA. signs says what the key is for.
func (l *look) certificate(id *wire.Identity, signs string, roots *rootSet) {
	if len(id.Chain) == 0 {
		return
	}
	chain, err := parseChain(id.Chain)
	if err != nil {
		l.add(Finding{Rule: "certificate-unreadable", Severity: Error, Subject: id.Label, Text: fmt.Sprintf("The certificate of %s cannot be read: %v.", id.Label, err), Remedy: remedySigner})
		return
	}
	leaf := chain[0]
	for _, c := range chain {
		l.bounds(id.Label, fmt.Sprintf("The certificate of %s, which signs %s,", id.Label, signs), c, remedySigner)
	}
	wrong := func(rule, format string, args ...any) {
		l.add(Finding{Rule: rule, Severity: Error, Subject: id.Label, Text: "The certificate of " + id.Label + " " + fmt.Sprintf(format, args...) + ".", Remedy: remedySigner})
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, id.PublicKey) {
		wrong("certificate-key", "is for another key: nothing that it signs can be verified")
	}
	for _, point := range leaf.CRLDistributionPoints {
		name, ours := strings.CutPrefix(point, l.Identifier+"/crl/")
		if issuer := l.byKey[strings.TrimSuffix(name, ".crl")]; ours && (issuer == nil || len(issuer.CRL) == 0) {
			wrong("crl-missing", "says that its revocation list is at %s, and there is none", point)
		}
	}
	if len(id.Anchor) == 0 {
		if bytes.Equal(leaf.RawIssuer, leaf.RawSubject) {
			return // it is its own
		}
		l.add(Finding{Rule: "anchor-missing", Severity: Warning, Subject: id.Label, Text: fmt.Sprintf("The IACA certificate above %s is not known here: what follows from it cannot be foreseen.", id.Label),
			Remedy: "Watch its end and its revocation list where it is kept."})
		return
	}
	anchor, err := x509.ParseCertificate(id.Anchor)
	if err != nil {
		wrong("chain", "stands under an IACA certificate that cannot be read: %v", err)
		return
	}
	roots.add(anchor, user{id.Label, leaf})
	for i, c := range chain {
		above := append(slices.Clone(chain[i+1:]), anchor)[0]
		if err := c.CheckSignatureFrom(above); err != nil {
			wrong("chain", "does not lead to the IACA %s: %v", anchor.Subject.CommonName, err)
		}
	}
	if leaf.NotBefore.Before(anchor.NotBefore) || leaf.NotAfter.After(anchor.NotAfter) {
		wrong("nesting", "is valid from %s to %s, outside of the IACA's %s to %s", day(leaf.NotBefore), day(leaf.NotAfter), day(anchor.NotBefore), day(anchor.NotAfter))
	}
}

func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
	}
	return chain, nil
}

// bounds looks at a certificate's first and last second.
func (l *look) bounds(subject, what string, c *x509.Certificate, remedy string) {
	l.add(Finding{Rule: "certificate-expired", Severity: Error, Subject: subject, Begins: c.NotAfter.Add(time.Second), Text: fmt.Sprintf("%s %s.", what, l.ends(c.NotAfter)), Remedy: remedy})
	if c.NotBefore.After(l.now) {
		l.add(Finding{Rule: "certificate-not-yet-valid", Severity: Error, Subject: subject, Ends: c.NotBefore, Text: fmt.Sprintf("%s begins on %s only.", what, day(c.NotBefore)),
			Remedy: "Look at the host's clock; if it is right, use another certificate until then."})
	}
}

// roots looks at each IACA that certificates in use end at, and at its list.
func (l *look) roots(set *rootSet) {
	for _, r := range set.order {
		var key *wire.Identity
		for i := range l.Identities {
			if id := &l.Identities[i]; id.Purpose == wire.PurposeIACA && len(id.Chain) > 0 && bytes.Equal(id.Chain[0], r.certificate.Raw) {
				key, r.name = id, id.Label
			}
		}
		const remedy = "Make a new IACA and new signers in a ceremony (docs/ceremony.md), publish it, and give verifiers months to trust it."
		l.bounds(r.name, "The IACA certificate "+r.name, r.certificate, remedy)
		end := r.certificate.NotAfter
		l.add(Finding{Rule: "iaca-ending", Severity: Warning, Subject: r.name, Begins: end.Add(-iacaNotice), Ends: end.Add(time.Second), Remedy: remedy,
			Text: fmt.Sprintf("The IACA certificate %s ends on %s: its successor must be known to verifiers well before.", r.name, day(end))})
		if key != nil && len(key.CRL) > 0 {
			l.crl(r, key.CRL)
		}
	}
}

// crl holds a revocation list against its IACA, the certificates under it, and
// the time. The signer makes the next one at half of a list's life.
func (l *look) crl(r *root, der []byte) {
	const remedy = "Look at the signer's log: it makes the next list when the token answers, at half of the present one's life."
	for _, fault := range (iaca.Linter{Issuer: r.certificate}).CRL(der) {
		if fault.Severity == iaca.Fault {
			l.add(Finding{Rule: "crl-wrong", Severity: Error, Subject: r.name, Text: fmt.Sprintf("The revocation list of %s is not right: %s.", r.name, fault.Message), Remedy: sentence(fault.Remedy)})
		}
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return // the linter has said it
	}
	for _, u := range r.users {
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(u.leaf.SerialNumber) == 0 {
				l.add(Finding{Rule: "certificate-revoked", Severity: Error, Subject: u.label, Text: fmt.Sprintf("The certificate of %s is revoked since %s: verifiers refuse what it signs.", u.label, day(entry.RevocationTime)), Remedy: remedySigner})
			}
		}
	}
	life := list.NextUpdate.Sub(list.ThisUpdate)
	if l.now.Before(list.NextUpdate.Add(-life / 4)) {
		return
	}
	l.add(Finding{Rule: "crl-late", Severity: Warning, Subject: r.name, Ends: list.NextUpdate, Remedy: remedy,
		Text: fmt.Sprintf("The next revocation list of %s is late: the present one is of %s, and verifiers refuse it after %s.", r.name, day(list.ThisUpdate), day(list.NextUpdate))})
	l.add(Finding{Rule: "crl-expired", Severity: Error, Subject: r.name, Begins: list.NextUpdate, Remedy: remedy,
		Text: fmt.Sprintf("The revocation list of %s %s: verifiers that look at it refuse its signers' credentials.", r.name, l.ends(list.NextUpdate))})
}

// Listener is a TLS listener of the appliance.
type Listener struct {
	// Name is "wallet" or "admin".
	Name string
	// Chain is what it shows, the leaf first.
	Chain []*x509.Certificate
	// Host is whether clients reach it by the identifier's host, so that its
	// certificate must have that name.
	Host bool
}

// selfRenewing is the longest life of a TLS certificate that is taken to be
// renewed by a program, which does it when a third of the life is left.
const selfRenewing = 100 * 24 * time.Hour

// listener looks at a listener's certificate.
func (l *look) listener(t Listener) {
	subject := t.Name + " listener"
	const remedy = "Put the renewed certificate and its key into their files: they are read again within five seconds."
	for _, c := range t.Chain {
		life := c.NotAfter.Sub(c.NotBefore)
		if life <= selfRenewing && l.now.After(c.NotBefore) && l.now.Before(c.NotAfter.Add(-life/4)) {
			continue
		}
		l.bounds(subject, "The TLS certificate of the "+subject, c, remedy)
	}
	u, err := url.Parse(l.Identifier)
	if err == nil && t.Host && len(t.Chain) > 0 && t.Chain[0].VerifyHostname(u.Hostname()) != nil {
		l.add(Finding{Rule: "tls-name", Severity: Error, Subject: subject, Text: fmt.Sprintf("The TLS certificate of the %s does not have the name %s, by which wallets come.", subject, u.Hostname()),
			Remedy: "Get a certificate with that name, or correct issuer.identifier."})
	}
}
