package verifier

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ekuDocumentSigner is mdlDS (ISO/IEC 18013-5 B.3).
var ekuDocumentSigner = asn1.ObjectIdentifier{1, 0, 18013, 5, 1, 2}

// forbidden are the extensions that no certificate of the profile may have
// (ISO/IEC 18013-5 B.1.1).
var forbidden = map[string]string{
	"2.5.29.33": "policyMappings", "2.5.29.30": "nameConstraints", "2.5.29.36": "policyConstraints",
	"2.5.29.54": "inhibitAnyPolicy", "2.5.29.46": "freshestCRL",
}

// chain checks certificates, leaf first, up to a trusted anchor and returns the
// leaf and the anchor; leaf is nil when it does not parse, anchor when no path
// leads to one.
func (v *verification) chain(ders [][]byte) (leaf, anchor *x509.Certificate) {
	const source = "ISO/IEC 18013-5 B.1; RFC 5280 §6.1"
	certificates := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			v.fail("certificates", source, "certificate %d does not parse: %v", i+1, err)
			return nil, nil
		}
		certificates[i] = c
		v.report.Chain = append(v.report.Chain, describe(c, false))
	}
	leaf = certificates[0]
	v.pass("certificates", source, "%d in the credential", len(certificates))
	v.chainShape(certificates)
	anchor, err := v.path(certificates)
	if err == nil {
		v.report.Chain = append(v.report.Chain, describe(anchor, true))
		err = v.policy(leaf, certificates[1:], anchor)
	}
	if !v.verdict(checkTrust, source, err, "the chain ends at a trusted certificate") {
		return leaf, nil
	}
	v.revocation(leaf, anchor)
	return leaf, anchor
}

func describe(c *x509.Certificate, anchor bool) Certificate {
	sum := sha256.Sum256(c.Raw)
	return Certificate{Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, SHA256: hex.EncodeToString(sum[:]), Anchor: anchor}
}

// chainShape checks that neither the anchor nor a self-signed leaf is sent along.
func (v *verification) chainShape(certificates []*x509.Certificate) {
	const source = "ISO/IEC 18013-5 §9.1.2.4; HAIP 1.0 §6.1.1"
	var faults []string
	if bytes.Equal(certificates[0].RawIssuer, certificates[0].RawSubject) {
		faults = append(faults, "the leaf is self-issued")
	}
	for i, c := range certificates {
		if slices.ContainsFunc(v.o.Anchors, func(a *x509.Certificate) bool { return a.Equal(c) }) {
			faults = append(faults, fmt.Sprintf("certificate %d is the trust anchor, which must not be sent", i+1))
		}
	}
	v.faults("chain without anchor", source, faults, "neither the anchor nor a self-signed leaf is in it")
}

// path follows issuers from the leaf to an anchor.
func (v *verification) path(certificates []*x509.Certificate) (*x509.Certificate, error) {
	if len(v.o.Anchors) == 0 {
		return nil, errors.New("no trusted certificate was given: use --trust with the issuer's IACA certificate")
	}
	for i, c := range certificates[:len(certificates)-1] {
		if err := issued(c, certificates[i+1]); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	last := certificates[len(certificates)-1]
	var reason error
	for _, a := range v.o.Anchors {
		err := issued(last, a)
		if err == nil {
			return a, nil
		}
		if bytes.Equal(last.RawIssuer, a.RawSubject) || reason == nil {
			reason = err
		}
	}
	return nil, fmt.Errorf("no trusted certificate issued the chain: %w", reason)
}

// issued checks that parent signed child: name, key identifier, CA rights, signature.
func issued(child, parent *x509.Certificate) error {
	switch {
	case !bytes.Equal(child.RawIssuer, parent.RawSubject):
		return fmt.Errorf("its issuer is %q, not %q", child.Issuer, parent.Subject)
	case len(child.AuthorityKeyId) > 0 && len(parent.SubjectKeyId) > 0 && !bytes.Equal(child.AuthorityKeyId, parent.SubjectKeyId):
		return errors.New("its authority key identifier is not its issuer's key identifier")
	case !parent.BasicConstraintsValid || !parent.IsCA:
		return errors.New("its issuer is no CA")
	case parent.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its issuer may not sign certificates")
	}
	if err := child.CheckSignatureFrom(parent); err != nil {
		return fmt.Errorf("its signature: %w", err)
	}
	return nil
}

// policy checks times, critical extensions and path length of the whole path.
func (v *verification) policy(leaf *x509.Certificate, between []*x509.Certificate, anchor *x509.Certificate) error {
	all := slices.Concat([]*x509.Certificate{leaf}, between, []*x509.Certificate{anchor})
	for _, c := range all {
		if v.o.Now.Before(c.NotBefore) || v.o.Now.After(c.NotAfter) {
			return fmt.Errorf("%q is valid from %s to %s only", c.Subject, stamp(c.NotBefore), stamp(c.NotAfter))
		}
		if len(c.UnhandledCriticalExtensions) > 0 {
			return fmt.Errorf("%q has the critical extension %s, which is not understood", c.Subject, c.UnhandledCriticalExtensions[0])
		}
	}
	if limit := anchor.MaxPathLen; (limit > 0 || anchor.MaxPathLenZero) && len(between) > limit {
		return fmt.Errorf("%q allows %d intermediate certificates, there are %d", anchor.Subject, limit, len(between))
	}
	for i, c := range between {
		if limit := c.MaxPathLen; (limit > 0 || c.MaxPathLenZero) && i > limit {
			return fmt.Errorf("%q allows %d intermediate certificates, there are %d", c.Subject, limit, i)
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// revocation holds the leaf against the anchor's CRL: one that was given, else
// the one at the leaf's distribution point.
func (v *verification) revocation(leaf, anchor *x509.Certificate) {
	const name, source = "revocation of the signer", "ISO/IEC 18013-5 B.3; RFC 5280 §6.3"
	list, err := v.revocationList(leaf, anchor)
	switch {
	case err != nil:
		v.warn(name, source, "no revocation list: %v", err)
	case list == nil:
		v.skip(name, source, "no revocation list was given and none may be fetched")
	case v.o.Now.After(list.NextUpdate):
		v.fail(name, source, "the revocation list is out of date since %s", stamp(list.NextUpdate))
	case v.o.Now.Before(list.ThisUpdate):
		v.fail(name, source, "the revocation list is dated %s, in the future", stamp(list.ThisUpdate))
	case slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(leaf.SerialNumber) == 0
	}):
		v.fail(name, source, "the signer's certificate is revoked")
	default:
		v.pass(name, source, "not in revocation list number %v of %s", list.Number, stamp(list.ThisUpdate))
	}
}

func (v *verification) revocationList(leaf, anchor *x509.Certificate) (*x509.RevocationList, error) {
	for _, list := range v.o.CRLs {
		if bytes.Equal(list.RawIssuer, anchor.RawSubject) {
			if err := list.CheckSignatureFrom(anchor); err != nil {
				return nil, fmt.Errorf("the one given is not signed by the trusted certificate: %w", err)
			}
			return list, nil
		}
	}
	if v.o.Fetch == nil {
		return nil, nil
	}
	var last error = errors.New("the signer's certificate names no http(s) distribution point")
	for _, url := range leaf.CRLDistributionPoints {
		if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
			continue
		}
		data, err := v.o.Fetch(v.ctx, url)
		if err != nil {
			last = err
			continue
		}
		list, err := x509.ParseRevocationList(data)
		if err != nil {
			last = fmt.Errorf("%s: %w", url, err)
			continue
		}
		if err := list.CheckSignatureFrom(anchor); err != nil {
			last = fmt.Errorf("%s: %w", url, err)
			continue
		}
		return list, nil
	}
	return nil, last
}

// documentSigner holds the leaf against the document signer profile
// (ISO/IEC 18013-5 B.3).
func (v *verification) documentSigner(leaf, anchor *x509.Certificate) {
	const source = "ISO/IEC 18013-5 B.3"
	var faults []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	add(leaf.KeyUsage != x509.KeyUsageDigitalSignature, "key usage is not exactly digitalSignature")
	add(!slices.ContainsFunc(leaf.UnknownExtKeyUsage, ekuDocumentSigner.Equal), "extended key usage lacks %s (document signer)", ekuDocumentSigner)
	add(leaf.IsCA, "it is a CA")
	add(len(leaf.AuthorityKeyId) == 0, "it has no authority key identifier")
	add(len(leaf.SubjectKeyId) == 0, "it has no subject key identifier")
	for _, e := range leaf.Extensions {
		if name, found := forbidden[e.Id.String()]; found {
			add(true, "it has the forbidden extension %s", name)
		}
	}
	if anchor != nil {
		add(!slices.Equal(leaf.Subject.Country, anchor.Subject.Country) || len(leaf.Subject.Country) != 1, "its country is not its issuer's")
		add(!slices.Equal(leaf.Subject.Province, anchor.Subject.Province), "its state or province is not its issuer's")
	}
	if !v.faults("document signer certificate", source, faults, "key usage, extended key usage, identifiers and country fit") {
		return
	}
	if days := leaf.NotAfter.Sub(leaf.NotBefore).Hours() / 24; days > 457 {
		v.warn("document signer validity", source, "%.0f days; at most 457 are allowed", days)
	}
}
