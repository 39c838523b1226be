package iaca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"
)

// CreateLink makes the link certificate (second edition Annex B.2) that leads
// those who trust the old root to the new one: the new root's name and key, with
// the old root's contact and CRL, signed by the old root's key. It is valid from a
// time (cut to whole seconds) until the first of the two roots ends. Nothing is
// signed that the linter would refuse.
func CreateLink(old, new *x509.Certificate, from time.Time, signer crypto.Signer) ([]byte, error) {
	if err := refuse(Linter{Profile: Root}.Certificate(old.Raw)); err != nil {
		return nil, fmt.Errorf("the old root is not right: %w", err)
	}
	if err := refuse(Linter{Profile: Root}.Certificate(new.Raw)); err != nil {
		return nil, fmt.Errorf("the new root is not right: %w", err)
	}
	serial, err := SerialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, RawSubject: new.RawSubject, NotBefore: from.UTC().Truncate(time.Second), NotAfter: old.NotAfter,
		SubjectKeyId: new.SubjectKeyId, AuthorityKeyId: old.SubjectKeyId, CRLDistributionPoints: old.CRLDistributionPoints,
	}
	authority(template)
	if new.NotAfter.Before(old.NotAfter) {
		template.NotAfter = new.NotAfter
	}
	for _, e := range old.Extensions {
		if e.Id.Equal(oidIssuerAltName) {
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	if !bytes.Equal(old.RawSubject, new.RawSubject) {
		name, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: new.RawSubject}})
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: oidSubjectAltName, Value: name})
	}
	return issue(template, old, new.PublicKey, signer, Linter{Profile: Link, Successor: new})
}
