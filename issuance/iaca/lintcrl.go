package iaca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// Object identifiers of CRL extensions that make a list partial (RFC 5280 §5.2).
var partial = map[string]string{"2.5.29.27": "deltaCRLIndicator", "2.5.29.28": "issuingDistributionPoint", "2.5.29.46": "freshestCRL"}

// CRL holds a CRL (DER) against Annex B.10 and returns every rule that it breaks.
func (l Linter) CRL(der []byte) []Finding {
	list := &certificateList{}
	run := &lint{Linter: l}
	if err := unmarshal(der, list); err != nil {
		run.report("crl.parse", "not a CRL that can be read: %v", err)
		return run.findings
	}
	if l.PEM {
		run.report("crl.pem", "the file is PEM")
	}
	if list.TBS.Version != 1 {
		run.report("crl.version", "it is version %d", list.TBS.Version+1)
	}
	switch signatureAlgorithms[list.Algorithm.Algorithm.String()] {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		run.report("crl.signature.algorithm", "it is signed with %v", list.Algorithm.Algorithm)
	}
	if !sameAlgorithm(list.TBS.Algorithm, list.Algorithm) {
		run.report("crl.signature.algorithm.equal", "the signature algorithms inside and outside differ")
	}
	run.updates(list)
	run.entries(list)
	number := run.crlExtensions(list)
	if l.Issuer != nil {
		run.crlIssuer(list)
	}
	if p := l.Previous; p != nil && number != nil {
		if p.Number != nil && number.Cmp(p.Number) <= 0 || list.TBS.ThisUpdate.Before(p.ThisUpdate) {
			run.report("crl.monotonic", "its number is %v after %v, or it is older", number, p.Number)
		}
	}
	return run.findings
}

func sameAlgorithm(a, b pkix.AlgorithmIdentifier) bool {
	return a.Algorithm.Equal(b.Algorithm) && bytes.Equal(a.Parameters.FullBytes, b.Parameters.FullBytes)
}

func (l *lint) updates(list *certificateList) {
	const day = 24 * time.Hour
	span := list.TBS.NextUpdate.Sub(list.TBS.ThisUpdate)
	switch {
	case list.TBS.NextUpdate.IsZero():
		l.report("crl.next-update", "nextUpdate is missing")
	case span <= 0:
		l.report("crl.next-update", "nextUpdate is not after thisUpdate")
	case span > 90*day:
		l.report("crl.cadence", "nextUpdate is %d days after thisUpdate", (span+day-1)/day)
	}
}

func (l *lint) entries(list *certificateList) {
	if list.TBS.Revoked != nil && len(list.TBS.Revoked) == 0 {
		l.report("crl.revoked.empty", "there is a list of revoked certificates with nothing in it")
	}
	known := l.known()
	extended, late := 0, 0
	for _, e := range list.TBS.Revoked {
		if e.Extensions != nil {
			extended++
		}
		if l.Previous == nil || list.TBS.ThisUpdate.Sub(e.Time) <= 48*time.Hour {
			continue
		}
		if !known[e.Serial.Text(16)] {
			late++
		}
	}
	if extended > 0 {
		l.report("crl.entry-extensions", "%d entries have extensions", extended)
	}
	if late > 0 {
		l.report("crl.delay", "%d new entries are older than 48 hours", late)
	}
}

// known returns the serial numbers of the list before, in hexadecimal.
func (l *lint) known() map[string]bool {
	serials := map[string]bool{}
	if l.Previous == nil {
		return serials
	}
	for _, e := range l.Previous.RevokedCertificateEntries {
		serials[e.SerialNumber.Text(16)] = true
	}
	return serials
}

// crlExtensions returns cRLNumber, or nil.
func (l *lint) crlExtensions(list *certificateList) (number *big.Int) {
	authority := false
	seen := map[string]bool{}
	for _, e := range list.TBS.Extensions {
		id := e.ID.String()
		switch name := partial[id]; {
		case name != "":
			l.report("crl.partial", "it has %s", name)
			continue
		case seen[id] || !e.ID.Equal(oidAuthorityKeyID) && !e.ID.Equal(oidCRLNumber):
			l.report("crl.extensions", "extension %s is not allowed or there twice", id)
			continue
		case e.ID.Equal(oidAuthorityKeyID):
			_, authority = keyIdentifier(&e)
		case unmarshal(e.Value, &number) != nil:
			number = nil
		}
		seen[id] = true
		if e.Critical {
			l.report("crl.extension.critical", "extension %s is critical", id)
		}
	}
	if !authority {
		l.report("crl.authority-key-identifier", "authorityKeyIdentifier is missing or has other members than keyIdentifier")
	}
	if number == nil || number.Sign() < 0 || number.BitLen() > 159 {
		l.report("crl.number", "cRLNumber is missing, negative or longer than 20 octets")
		return nil
	}
	return number
}

// crlIssuer compares a list with the IACA's certificate.
func (l *lint) crlIssuer(list *certificateList) {
	if !bytes.Equal(list.TBS.Issuer.FullBytes, l.Issuer.RawSubject) {
		l.report("crl.issuer", "the issuer is not the IACA's subject, byte by byte")
	}
	if e := find(list.TBS.Extensions, oidAuthorityKeyID); e != nil {
		if id, _ := keyIdentifier(e); id != nil && !bytes.Equal(id, l.Issuer.SubjectKeyId) {
			l.report("crl.authority-key-identifier.equal", "authorityKeyIdentifier names another key")
			return // another IACA has signed it, and that was said
		}
	}
	if verify(l.Issuer.PublicKey, list.Algorithm, list.TBS.Raw, list.Signature) != nil {
		l.report("crl.signature", "the signature does not verify with the IACA's key")
	}
}
