package iaca

import (
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestOtherWaysToBreakARule are further specimens, where a rule has more than
// one side, and some at the edge that break none.
func TestOtherWaysToBreakARule(t *testing.T) {
	w := newWorkshop(t)
	for _, table := range []map[string]further{w.furtherCertificates(), w.furtherKeys(), w.furtherLists(), w.furtherRequests()} {
		for name, test := range table {
			if got := broken(w.findings(test.kind, test.specimen)); !slices.Equal(got, test.want) {
				t.Errorf("%s: %v, want %v", name, got, test.want)
			}
		}
	}
}

type further struct {
	kind     Kind
	specimen specimen
	want     []string
}

func (w *workshop) furtherCertificates() map[string]further {
	const printable, utf8 = asn1.TagPrintableString, asn1.TagUTF8String
	certificate := func(tbs func(c *tbsCertificate), want ...string) further {
		return further{KindCertificate, specimen{tbs: tbs}, want}
	}
	named := func(attributes ...attribute) func(c *tbsCertificate) {
		return func(c *tbsCertificate) { c.Subject = w.named(attributes...) }
	}
	raw := func(tag int, text string) func(c *tbsCertificate) {
		return func(c *tbsCertificate) {
			c.Validity.NotBefore = asn1.RawValue{Tag: tag, Bytes: []byte(text)}
			c.Validity.NotBefore.FullBytes = marshal(w.t, c.Validity.NotBefore)
		}
	}
	email := attr(0, asn1.TagIA5String, "ds@utopia.example")
	email.Type = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	emailUTF8 := email
	emailUTF8.Value.Tag = utf8
	country, common := attr(6, printable, "UT"), attr(3, printable, "DS")
	withNull := pkix.AlgorithmIdentifier{Algorithm: ecdsaSHA256, Parameters: asn1.NullRawValue}
	return map[string]further{
		"an authority that is none": {KindCertificate, specimen{linter: func(l *Linter) {
			copied := *l.Issuer
			copied.IsCA = false
			l.Issuer = &copied
		}}, []string{"error chain.depth"}},
		"parameters inside alone":   {KindCertificate, specimen{sign: signing{inside: withNull}}, []string{"error signature.algorithm.equal"}},
		"an issuer's unique id":     certificate(func(c *tbsCertificate) { c.IssuerUniqueID = asn1.BitString{Bytes: []byte{7}, BitLength: 8} }, "error unique-id"),
		"serial of 65 bits":         certificate(func(c *tbsCertificate) { c.Serial = new(big.Int).Lsh(big.NewInt(1), 64) }),
		"a date without seconds":    certificate(raw(asn1.TagUTCTime, "2611240000Z"), "error validity.encoding"),
		"a date with an offset":     certificate(raw(asn1.TagUTCTime, "261124010000+0100"), "error validity.encoding"),
		"a date that is none":       certificate(raw(asn1.TagUTCTime, "269924000000Z"), "error validity.encoding"),
		"a date of another kind":    certificate(raw(asn1.TagIA5String, "261124000000Z"), "error validity.encoding"),
		"a root until 2051":         {KindCertificate, specimen{profile: Root, tbs: w.until(start.AddDate(19, 0, 0))}, nil},
		"UTF-8 that is none":        certificate(named(country, attr(3, utf8, "D\xff")), "error subject.characters"),
		"an e-mail address":         certificate(named(country, common, email)),
		"an e-mail address, UTF-8":  certificate(named(country, common, emailUTF8), "error subject.encoding"),
		"a serial number attribute": certificate(named(country, common, attr(5, printable, "7"))),
		"a state of another country": {KindCertificate, specimen{profile: Root, tbs: func(c *tbsCertificate) {
			c.Subject = w.named(country, attr(8, printable, "US-UT"), common)
			c.Issuer = c.Subject
		}}, []string{"warning subject.state.code"}},
		"a common name of nothing":        certificate(named(country, attr(3, printable, "")), "error subject.common-name"),
		"an empty relative name":          certificate(func(c *tbsCertificate) { c.Subject = asn1.RawValue{FullBytes: []byte{0x30, 2, 0x31, 0}} }, "error subject"),
		"a malformed attribute":           certificate(func(c *tbsCertificate) { c.Subject = asn1.RawValue{FullBytes: []byte{0x30, 4, 0x31, 2, 0x30, 0}} }, "error subject"),
		"an identifier that is malformed": certificate(w.set(oidSubjectKeyID, false, "0500"), "error subject-key-identifier.sha1"),
		"a purpose that is malformed":     certificate(w.set(oidExtKeyUsage, true, "0500"), "error extended-key-usage"),
		"no purpose":                      certificate(without(oidExtKeyUsage), "error extended-key-usage"),
		"no key usage":                    certificate(without(oidKeyUsage), "error key-usage"),
		"key usage with a trailing zero":  certificate(w.set(oidKeyUsage, true, "0303 07 80 00"), "error key-usage"),
		"no distribution points":          certificate(w.set(oidCRLPoints, false, "3000"), "error crl-distribution-points"),
		"an empty distribution point":     certificate(w.set(oidCRLPoints, false, "3002 3000"), "error crl-distribution-points.uri"),
		"named relative to the issuer":    certificate(w.set(oidCRLPoints, false, "3006 3004 a002 a100"), "error crl-distribution-points.uri"),
		"a distribution point of no host": certificate(w.set(oidCRLPoints, false, "300e 300c a00a a008 8606 687474703a2f"), "error crl-distribution-points.scheme"),
		"TLS":                             {KindCertificate, specimen{profile: CredentialSigner, tbs: w.set(oidExtKeyUsage, false, "300a 0608 2b06010505070301")}, []string{"error extended-key-usage.purpose"}},
		"a root of no path length":        {KindCertificate, specimen{profile: Root, tbs: without(oidBasicConstraints)}, []string{"error basic-constraints"}},
		"a link to another name": {KindCertificate, specimen{profile: Link, linter: func(l *Linter) { l.Successor = nil }, tbs: func(c *tbsCertificate) {
			c.Subject = w.named(country, common)
			w.set(oidSubjectAltName, false, "3003 8601 61")(c)
		}}, []string{"error link.subject-alt-name", "warning link.path"}},
		"a signer after its IACA": certificate(w.until(w.root.cert.NotAfter.Add(time.Second)), "error validity.longest", "error validity.nested"),
		"a link before the old root": {KindCertificate, specimen{profile: Link, tbs: func(c *tbsCertificate) {
			c.Validity.NotBefore = asn1.RawValue{FullBytes: marshal(w.t, start.Add(-time.Second))}
		}}, []string{"error validity.nested"}},
	}
}

func (w *workshop) furtherKeys() map[string]further {
	key := func(kind asn1.ObjectIdentifier, parameters any, octets int, want ...string) further {
		a := pkix.AlgorithmIdentifier{Algorithm: kind}
		if parameters != nil {
			a.Parameters = asn1.RawValue{FullBytes: marshal(w.t, parameters)}
		}
		bits := append([]byte{4}, make([]byte, octets-1)...)
		return further{KindCertificate, specimen{tbs: w.keyed(a, bits)}, want}
	}
	p256, brainpool320 := asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 9}
	return map[string]further{
		"a point that is not on the curve":    key(oidECPublicKey, p256, 65, "error key.point"),
		"a point of another length":           key(oidECPublicKey, brainpool320, 65, "error key.curve.nist", "error key.point"),
		"a brainpool point":                   key(oidECPublicKey, brainpool320, 81, "error key.curve.nist"),
		"no curve":                            key(oidECPublicKey, nil, 65, "error key.named-curve"),
		"Ed448":                               key(oidEd448, nil, 57, "error key.curve.nist"),
		"Ed448 of another length":             key(oidEd448, nil, 56, "error key.curve.nist", "error key.point"),
		"Ed25519 of another length":           key(oidEd25519, nil, 31, "error key.point", "warning key.curve.readers"),
		"an empty point":                      {KindCertificate, specimen{tbs: w.keyed(pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: marshal(w.t, p256)}}, nil)}, []string{"error key.point"}},
		"P-384, whose hash is not the IACA's": {KindCertificate, specimen{tbs: w.publicKey(newKey(w.t, elliptic.P384()).Public())}, nil},
	}
}

func (w *workshop) furtherLists() map[string]further {
	list := func(edit func(c *tbsCertificateList), want ...string) further {
		return further{KindCRL, specimen{list: edit}, want}
	}
	number := func(n *big.Int) func(c *tbsCertificateList) {
		return func(c *tbsCertificateList) { find(c.Extensions, oidCRLNumber).Value = marshal(w.t, n) }
	}
	bit := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	return map[string]further{
		"a number of 20 octets": list(number(bit(158))),
		"a number of 21 octets": list(number(bit(159)), "error crl.number"),
		"a number that is text": list(func(c *tbsCertificateList) { find(c.Extensions, oidCRLNumber).Value = []byte{12, 1, 'a'} }, "error crl.number"),
		"two numbers":           list(func(c *tbsCertificateList) { c.Extensions = append(c.Extensions, *find(c.Extensions, oidCRLNumber)) }, "error crl.extensions"),
		"an update at once":     list(func(c *tbsCertificateList) { c.NextUpdate = c.ThisUpdate }, "error crl.next-update"),
		"a delta": list(func(c *tbsCertificateList) {
			c.Extensions = append(c.Extensions, extension{ID: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}})
		}, "error crl.partial"),
		"an AKI with the serial": list(func(c *tbsCertificateList) {
			find(c.Extensions, oidAuthorityKeyID).Value = append([]byte{0x30, 25}, slices.Concat(find(c.Extensions, oidAuthorityKeyID).Value[2:], []byte{0x82, 1, 5})...)
		}, "error crl.authority-key-identifier"),
		"nothing revoked": list(func(c *tbsCertificateList) { c.Revoked = nil }),
		"without a list before": {KindCRL, specimen{linter: func(l *Linter) { l.Previous = nil }, list: func(c *tbsCertificateList) {
			c.Revoked[0].Time = start.AddDate(0, 0, -31)
		}}, nil},
		"another list before without a number": {KindCRL, specimen{linter: func(l *Linter) { l.Previous = &x509.RevocationList{} }}, nil},
	}
}

func (w *workshop) furtherRequests() map[string]further {
	asked := func(edit func(e []extension) []extension) func(r *requestInfo) {
		return func(r *requestInfo) {
			var extensions []extension
			if err := unmarshal(r.Attributes[0].Values[0].FullBytes, &extensions); err != nil {
				w.t.Fatal(err)
			}
			r.Attributes[0].Values = []asn1.RawValue{{FullBytes: marshal(w.t, edit(extensions))}}
		}
	}
	request := func(edit func(r *requestInfo), want ...string) further {
		return further{KindCSR, specimen{request: edit}, want}
	}
	drop := func(id asn1.ObjectIdentifier) func(r *requestInfo) {
		return asked(func(all []extension) []extension {
			return slices.DeleteFunc(all, func(e extension) bool { return e.ID.Equal(id) })
		})
	}
	return map[string]further{
		"asked twice": request(func(r *requestInfo) {
			r.Attributes[0].Values = append(r.Attributes[0].Values, r.Attributes[0].Values[0])
		}, "error csr.extension-request"),
		"asked in two attributes":    request(func(r *requestInfo) { r.Attributes = append(r.Attributes, r.Attributes[0]) }, "error csr.extension-request"),
		"asked in other words":       request(func(r *requestInfo) { r.Attributes[0].Values = []asn1.RawValue{{FullBytes: []byte{5, 0}}} }, "error csr.extension-request"),
		"no identifier":              request(drop(oidSubjectKeyID)),
		"no contact":                 request(drop(oidIssuerAltName)),
		"no CRL":                     request(drop(oidCRLPoints)),
		"no purpose, of a request":   request(drop(oidExtKeyUsage), "error extended-key-usage"),
		"no key usage, of a request": request(drop(oidKeyUsage), "error key-usage"),
		"a country in small": request(func(r *requestInfo) {
			r.Subject = w.named(attr(6, asn1.TagPrintableString, "ut"), attr(3, asn1.TagPrintableString, "DS"))
		}, "error subject.country.code"),
		"another's key":                request(func(r *requestInfo) { r.Key = publicKeyInfo{Raw: w.root.cert.RawSubjectPublicKeyInfo} }, "error csr.signature", "error subject-key-identifier.sha1"),
		"an answer that is critical":   {KindAnswer, specimen{tbs: func(c *tbsCertificate) { find(c.Extensions, oidIssuerAltName).Critical = true }}, []string{"error answer.extension", "error extension.critical"}},
		"an answer without":            {KindAnswer, specimen{tbs: without(oidCRLPoints)}, []string{"error answer.extension", "error crl-distribution-points"}},
		"an answer with more":          {KindAnswer, specimen{tbs: w.set(oidSubjectAltName, false, "3003 8601 61")}, nil},
		"an answer on its last second": {KindAnswer, specimen{now: start.AddDate(0, 0, 400).Add(-time.Second)}, nil},
	}
}

// TestFindingsSayWhatTheySaw: the values that are wrong are in the message.
func TestFindingsSayWhatTheySaw(t *testing.T) {
	w := newWorkshop(t)
	for rule, want := range map[string]string{
		"subject.country.code": `"ut"`, "crl-distribution-points.scheme": `"ldap://utopia.example/crl"`, "extension.other": "1.2.3", "serial.size": "62 bits",
		"validity.longest": "457 days", "extended-key-usage.only": "1.0.18013.5.1.3", "key.curve.nist": "brainpoolP256r1",
	} {
		for _, table := range []map[string]specimen{w.forms(), w.names(), w.keys(), w.extensions(), w.values()} {
			if s, there := table[rule]; there {
				if got := w.findings(KindCertificate, s); len(got) != 1 || !strings.Contains(got[0].Message, want) {
					t.Errorf("%s: %v does not say %s", rule, got, want)
				}
			}
		}
	}
}
