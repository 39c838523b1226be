package iaca

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Revoked is an entry of a CRL; there is no reason code in it (Annex B.10).
type Revoked struct {
	Serial *big.Int
	Time   time.Time
}

// CreateCRL makes a full CRL of a root, linted before it is signed. number must
// grow from list to list.
func CreateCRL(root *x509.Certificate, signer crypto.Signer, number int64, revoked []Revoked, thisUpdate, nextUpdate time.Time) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: thisUpdate.UTC().Truncate(time.Second), NextUpdate: nextUpdate.UTC().Truncate(time.Second)}
	for _, r := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.Time.UTC().Truncate(time.Second)})
	}
	algorithm, err := signatureAlgorithm(root.PublicKey)
	if err != nil {
		return nil, err
	}
	list.SignatureAlgorithm = algorithm
	throwAway, stand, err := standIn(root)
	if err != nil {
		return nil, err
	}
	trial, err := x509.CreateRevocationList(rand.Reader, list, stand, throwAway)
	if err != nil {
		return nil, err
	}
	if err := refuse(LintCRL(trial, stand)); err != nil {
		return nil, fmt.Errorf("the CRL would not be right: %w", err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, root, signer)
	if err != nil {
		return nil, fmt.Errorf("sign CRL: %w", err)
	}
	a, errA := x509.ParseRevocationList(trial)
	b, errB := x509.ParseRevocationList(der)
	if errA != nil || errB != nil || !bytes.Equal(a.RawTBSRevocationList, b.RawTBSRevocationList) {
		return nil, errors.New("what was signed is not what was linted")
	}
	if err := refuse(LintCRL(der, root)); err != nil {
		return nil, fmt.Errorf("the signed CRL is not right: %w", err)
	}
	return der, nil
}

// LintCRL holds a CRL against Annex B.10; root may be nil.
func LintCRL(der []byte, root *x509.Certificate) []Finding {
	const source = annexB + " table B.10"
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return []Finding{{"parse", Fault, "not a CRL that can be read: " + err.Error(), "RFC 5280", "give one CRL in DER or PEM"}}
	}
	l := &lint{}
	switch list.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		l.fault("signature.algorithm", source, "sign with ECDSA", "signed with %v", list.SignatureAlgorithm)
	}
	if list.NextUpdate.IsZero() {
		l.fault("crl.next-update", source, "set nextUpdate", "nextUpdate is missing")
	} else if span := list.NextUpdate.Sub(list.ThisUpdate); span <= 0 || span > 90*24*time.Hour {
		l.fault("crl.next-update", source, "plan the next list within 90 days", "nextUpdate is %d days after thisUpdate", int(span.Hours()/24))
	}
	if list.Number == nil || list.Number.Sign() < 0 {
		l.fault("crl.number", source, "number the list", "cRLNumber is missing")
	}
	for _, e := range list.Extensions {
		if e.Critical || !e.Id.Equal(oidAuthorityKeyID) && !e.Id.Equal(oidCRLNumber) {
			l.fault("crl.extensions", source, "keep authorityKeyIdentifier and cRLNumber alone, non-critical", "extension %v is not allowed so", e.Id)
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		if len(entry.Extensions) > 0 {
			l.fault("crl.entry-extensions", source, "leave out reason codes", "an entry has extensions")
			break
		}
	}
	if root != nil {
		if !bytes.Equal(list.RawIssuer, root.RawSubject) {
			l.fault("issuer.bytes", source, "copy the root's subject bytes", "the issuer is not the root's subject, byte by byte")
		}
		if !bytes.Equal(list.AuthorityKeyId, root.SubjectKeyId) {
			l.fault("authority-key-identifier", source, "use the root's subjectKeyIdentifier", "authorityKeyIdentifier is not the root's subjectKeyIdentifier")
		} else if list.CheckSignatureFrom(root) != nil {
			l.fault("signature", source, "let the root's own key sign", "the signature does not verify with the root's key")
		}
	}
	return l.findings
}
