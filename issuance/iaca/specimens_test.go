package iaca

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"time"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

func (w *workshop) forms() map[string]specimen {
	serial := func(n *big.Int) specimen { return specimen{tbs: func(c *tbsCertificate) { c.Serial = n }} }
	bit := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	withNull := pkix.AlgorithmIdentifier{Algorithm: ecdsaSHA256, Parameters: asn1.NullRawValue}
	return map[string]specimen{
		"parse":                     {der: func(der []byte) []byte { return append(der, 0) }},
		"profile":                   {linter: func(l *Linter) { l.Profile = "tls" }},
		"version":                   {tbs: func(c *tbsCertificate) { c.Version = 1 }},
		"unique-id":                 {tbs: func(c *tbsCertificate) { c.SubjectUniqueID = asn1.BitString{Bytes: []byte{7}, BitLength: 8} }},
		"serial.positive":           serial(big.NewInt(-5)),
		"serial.size":               serial(bit(61)),
		"serial.octets":             serial(bit(159)),
		"serial.recommended":        serial(bit(63)),
		"signature.algorithm":       {sign: signing{inside: algorithm(ecdsaSHA1), outside: algorithm(ecdsaSHA1)}},
		"signature.algorithm.equal": {sign: signing{inside: algorithm(ecdsaSHA384)}},
		"signature.parameters":      {sign: signing{inside: withNull, outside: withNull}},
		"signature.hash":            {sign: signing{inside: algorithm(ecdsaSHA384), outside: algorithm(ecdsaSHA384), hash: crypto.SHA384}},
		"validity.encoding": {tbs: func(c *tbsCertificate) {
			c.Validity.NotBefore = asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(start.Format("20060102150405Z"))}
			c.Validity.NotBefore.FullBytes = marshal(w.t, c.Validity.NotBefore)
		}},
		"validity.order":     {tbs: func(c *tbsCertificate) { c.Validity.NotAfter = c.Validity.NotBefore }},
		"validity.longest":   {tbs: w.until(start.AddDate(0, 0, 457))},
		"validity.root-days": {profile: Root, tbs: w.until(start.AddDate(20, 0, 0).Add(-time.Second))},
		"crypto-x509":        {tbs: w.set(oidSubjectAltName, false, "3005 8703 010203")},
	}
}

// until is an edit of notAfter.
func (w *workshop) until(t time.Time) func(c *tbsCertificate) {
	return func(c *tbsCertificate) { c.Validity.NotAfter = asn1.RawValue{FullBytes: marshal(w.t, t)} }
}

// set is an edit that gives a certificate an extension, its value in hexadecimal.
func (w *workshop) set(id asn1.ObjectIdentifier, critical bool, value string) func(c *tbsCertificate) {
	data, err := hex.DecodeString(strings.ReplaceAll(value, " ", ""))
	if err != nil {
		w.t.Fatal(err)
	}
	return func(c *tbsCertificate) { put(c, extension{ID: id, Critical: critical, Value: data}) }
}

func put(c *tbsCertificate, e extension) {
	if present := find(c.Extensions, e.ID); present != nil {
		*present = e
		return
	}
	c.Extensions = append(c.Extensions, e)
}

// without is an edit that takes an extension away.
func without(id asn1.ObjectIdentifier) func(c *tbsCertificate) {
	return func(c *tbsCertificate) {
		c.Extensions = slices.DeleteFunc(c.Extensions, func(e extension) bool { return e.ID.Equal(id) })
	}
}

// named encodes a name.
func (w *workshop) named(attributes ...attribute) asn1.RawValue {
	c := &x509.Certificate{}
	rename(w.t, c, attributes...)
	return asn1.RawValue{FullBytes: c.RawSubject}
}

func (w *workshop) names() map[string]specimen {
	const printable, utf8 = asn1.TagPrintableString, asn1.TagUTF8String
	country, common := attr(6, printable, "UT"), attr(3, printable, "DS")
	subject := func(attributes ...attribute) specimen {
		return specimen{tbs: func(c *tbsCertificate) { c.Subject = w.named(attributes...) }}
	}
	state := subject(country, attr(8, printable, "Utopia"), common)
	state.profile = Root
	state.tbs = func(c *tbsCertificate) {
		c.Subject = w.named(country, attr(8, printable, "Utopia"), common)
		c.Issuer = c.Subject
	}
	return map[string]specimen{
		"subject":                  {tbs: func(c *tbsCertificate) { c.Subject = asn1.RawValue{FullBytes: []byte{0x30, 2, 5, 0}} }},
		"subject.country":          subject(country, country, common),
		"subject.country.code":     subject(attr(6, printable, "ut"), common),
		"subject.country.encoding": subject(attr(6, utf8, "UT"), common),
		"subject.state":            subject(country, attr(8, printable, "UT-A"), attr(8, printable, "UT-B"), common),
		"subject.state.code":       state,
		"subject.common-name":      subject(country),
		"subject.serial-number":    subject(country, common, attr(5, utf8, "7")),
		"subject.encoding":         subject(country, attr(3, asn1.TagT61String, "DS")),
		"subject.characters":       subject(country, attr(3, printable, "ds@utopia.example")),
		"country.equal":            subject(attr(6, printable, "XX"), common),
		"state.equal":              subject(country, attr(8, printable, "UT-PU"), common),
		"aamva.state":              {profile: Root, audience: AAMVA},
	}
}

// keyed is an edit that gives a certificate a key, and its identifier.
func (w *workshop) keyed(algorithm pkix.AlgorithmIdentifier, bits []byte) func(c *tbsCertificate) {
	return func(c *tbsCertificate) {
		c.Key = publicKeyInfo{Algorithm: algorithm, Bits: asn1.BitString{Bytes: bits, BitLength: 8 * len(bits)}}
		put(c, extension{ID: oidSubjectKeyID, Value: marshal(w.t, identifier(bits))})
	}
}

// publicKey is an edit that gives a certificate a key of crypto/x509's.
func (w *workshop) publicKey(key crypto.PublicKey) func(c *tbsCertificate) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	var info publicKeyInfo
	if err := unmarshal(spki, &info); err != nil {
		w.t.Fatal(err)
	}
	return w.keyed(info.Algorithm, info.Bits.Bytes)
}

func (w *workshop) keys() map[string]specimen {
	ec := func(parameters any) pkix.AlgorithmIdentifier {
		return pkix.AlgorithmIdentifier{Algorithm: oidECPublicKey, Parameters: asn1.RawValue{FullBytes: marshal(w.t, parameters)}}
	}
	p256, brainpool := asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		w.t.Fatal(err)
	}
	edwards := issuancetest.Key(w.t, issuance.EdDSA).Public()
	point := append([]byte{4}, make([]byte, 64)...)
	return map[string]specimen{
		"key.type": {tbs: w.publicKey(rsaKey.Public())},
		"key.parameters": {audience: ISO, tbs: func(c *tbsCertificate) {
			w.publicKey(edwards)(c)
			c.Key.Algorithm.Parameters = asn1.NullRawValue
		}},
		"key.named-curve":      {tbs: w.keyed(ec([]int{1}), point)},
		"key.curve":            {tbs: w.publicKey(newKey(w.t, elliptic.P224()).Public())},
		"key.curve.nist":       {tbs: w.keyed(ec(brainpool), point)},
		"key.curve.readers":    {tbs: w.publicKey(newKey(w.t, elliptic.P521()).Public())},
		"key.point":            {tbs: w.keyed(ec(p256), elliptic.MarshalCompressed(elliptic.P256(), w.key.X, w.key.Y))},
		"key.own":              {tbs: w.publicKey(w.root.key.Public())},
		"signature.unverified": {profile: Root, audience: ISO, tbs: w.keyed(ec(brainpool), point)},
	}
}

func (w *workshop) extensions() map[string]specimen {
	private := asn1.ObjectIdentifier{1, 2, 3}
	twice := func(c *tbsCertificate) { c.Extensions = append(c.Extensions, c.Extensions[0]) }
	spelled := func(c *tbsCertificate) {
		e := find(c.Extensions, oidIssuerAltName)
		e.Raw = marshal(w.t, struct {
			ID       asn1.ObjectIdentifier
			Critical bool
			Value    []byte
		}{e.ID, false, e.Value})
	}
	purposes := func(ids ...asn1.ObjectIdentifier) string { return hex.EncodeToString(marshal(w.t, ids)) }
	jws := asn1.ObjectIdentifier{1, 0, 18013, 5, 1, 3}
	return map[string]specimen{
		"subject-key-identifier":      {tbs: without(oidSubjectKeyID)},
		"subject-key-identifier.sha1": {tbs: w.set(oidSubjectKeyID, false, "0414"+strings.Repeat("00", 20))},
		"extension.twice":             {tbs: twice},
		"extension.default":           {tbs: spelled},
		"extension.forbidden":         {tbs: w.set(asn1.ObjectIdentifier{2, 5, 29, 36}, false, "3000")},
		"extension.critical":          {tbs: w.set(oidExtKeyUsage, false, purposes(oidDocumentSigner))},
		"extension.unknown":           {tbs: w.set(private, true, "0500")},
		"extension.other":             {tbs: w.set(private, false, "0500")},
		"key-usage":                   {tbs: w.set(oidKeyUsage, true, "030206c0")},
		"basic-constraints":           {profile: Root, tbs: w.set(oidBasicConstraints, true, "3003 0101ff")},
		"basic-constraints.leaf":      {tbs: w.set(oidBasicConstraints, true, "3000")},
		"extended-key-usage":          {tbs: w.set(oidExtKeyUsage, true, purposes(jws))},
		"extended-key-usage.only":     {tbs: w.set(oidExtKeyUsage, true, purposes(oidDocumentSigner, jws))},
		"extended-key-usage.root":     {profile: Root, tbs: w.set(oidExtKeyUsage, true, purposes(asn1.ObjectIdentifier{1, 0, 18013, 5, 1, 7}))},
		"extended-key-usage.critical": {profile: StatusSigner, tbs: w.set(oidExtKeyUsage, true, purposes(private))},
		"extended-key-usage.purpose":  {profile: StatusSigner, tbs: w.set(oidExtKeyUsage, false, purposes(oidDocumentSigner))},
	}
}

func (w *workshop) values() map[string]specimen {
	text := func(tag, text string) string {
		return tag + hex.EncodeToString([]byte{byte(len(text))}) + hex.EncodeToString([]byte(text))
	}
	sequence := func(content string) string {
		return "30" + hex.EncodeToString([]byte{byte(len(content) / 2)}) + content
	}
	point := func(name string) string { // one general name as fullName
		full := "a0" + hex.EncodeToString([]byte{byte(len(name) / 2)}) + name
		return sequence(sequence("a0" + hex.EncodeToString([]byte{byte(len(full) / 2)}) + full))
	}
	return map[string]specimen{
		"subject-alt-name":                 {profile: CredentialSigner, tbs: without(oidSubjectAltName)},
		"issuer-alt-name":                  {tbs: without(oidIssuerAltName)},
		"issuer-alt-name.recommended":      {profile: StatusSigner, tbs: without(oidIssuerAltName)},
		"issuer-alt-name.kind":             {tbs: w.set(oidIssuerAltName, false, sequence(text("81", "pki@utopia.example")+text("82", "utopia.example")))},
		"issuer-alt-name.value":            {tbs: w.set(oidIssuerAltName, false, sequence(text("81", "PKI <pki@utopia.example>")))},
		"crl-distribution-points":          {tbs: without(oidCRLPoints)},
		"crl-distribution-points.root":     {profile: Root, tbs: without(oidCRLPoints)},
		"crl-distribution-points.members":  {tbs: w.set(oidCRLPoints, false, points("8102 0780"))},
		"crl-distribution-points.uri":      {tbs: w.set(oidCRLPoints, false, point(text("82", "utopia.example")))},
		"crl-distribution-points.scheme":   {tbs: w.set(oidCRLPoints, false, point(text("86", "ldap://utopia.example/crl")))},
		"authority-key-identifier":         {tbs: without(oidAuthorityKeyID)},
		"authority-key-identifier.members": {tbs: w.set(oidAuthorityKeyID, false, akiWithSerial(w.root.cert))},
		"authority-key-identifier.equal":   {tbs: w.set(oidAuthorityKeyID, false, "3016 8014"+strings.Repeat("00", 20))},
	}
}

func (w *workshop) chains() map[string]specimen {
	other := w.named(attr(6, asn1.TagPrintableString, "UT"), attr(3, asn1.TagPrintableString, "Another IACA"))
	successor := func(change func(c *x509.Certificate)) specimen {
		return specimen{profile: Link, linter: func(l *Linter) {
			copied := *l.Successor
			change(&copied)
			l.Successor = &copied
		}}
	}
	renamed := specimen{profile: Link, linter: func(l *Linter) { l.Successor = w.renamed.cert }, der: func([]byte) []byte {
		der, err := CreateLink(w.root.cert, w.renamed.cert, start, w.root.key)
		if err != nil {
			w.t.Fatal(err)
		}
		return der
	}}
	return map[string]specimen{
		"root.issuer":      {profile: Root, tbs: func(c *tbsCertificate) { c.Issuer = other }},
		"leaf.self-issued": {tbs: func(c *tbsCertificate) { c.Subject = c.Issuer }},
		"issuer.bytes":     {tbs: func(c *tbsCertificate) { c.Issuer = other }},
		"chain.depth": {linter: func(l *Linter) {
			intermediate := *l.Issuer
			intermediate.RawIssuer = other.FullBytes
			l.Issuer = &intermediate
		}},
		"signature": {sign: signing{key: w.key}},
		"validity.nested": {tbs: func(c *tbsCertificate) {
			c.Validity.NotBefore = asn1.RawValue{FullBytes: marshal(w.t, start.Add(-time.Second))}
		}},
		"link.subject":  successor(func(c *x509.Certificate) { c.RawSubject = other.FullBytes }),
		"link.key":      successor(func(c *x509.Certificate) { c.RawSubjectPublicKeyInfo = w.root.cert.RawSubjectPublicKeyInfo }),
		"link.path":     renamed,
		"link.validity": {profile: Link, tbs: w.until(w.root.cert.NotAfter.Add(time.Second))},
		"link.subject-alt-name": {profile: Link, audience: ISO, linter: func(l *Linter) { l.Successor = nil },
			tbs: func(c *tbsCertificate) { c.Subject = other }},
	}
}

// etsi is an edit that adds what ETSI TS 119 412-6 wants.
func (w *workshop) etsi(c *tbsCertificate) {
	const printable = asn1.TagPrintableString
	identifier := attr(0, printable, "VATUT-123456789")
	identifier.Type = asn1.ObjectIdentifier{2, 5, 4, 97}
	c.Subject = w.named(attr(6, printable, "UT"), attr(10, printable, "Utopia"), identifier, attr(3, printable, "PID signer"))
	w.set(oidSubjectAltName, false, "3014 8112 "+hex.EncodeToString([]byte("pki@utopia.example")))(c)
	w.set(oidPolicies, false, "300a 3008 0606 04008f7a0102")(c) // NCP+
	w.set(oidAuthorityInfo, false, "3016 3014 0608 2b06010505073002 8608 "+hex.EncodeToString([]byte("http://a")))(c)
	type statement struct{ ID asn1.ObjectIdentifier }
	put(c, extension{ID: oidQCStatements, Value: marshal(w.t, []statement{{oidQCTypePID}})})
}

func (w *workshop) audiences() map[string]specimen {
	after := func(edit func(c *tbsCertificate)) specimen {
		return specimen{audience: EUDI, tbs: func(c *tbsCertificate) { w.etsi(c); edit(c) }}
	}
	const printable = asn1.TagPrintableString
	identifier := attr(0, printable, "VATUT-123456789")
	identifier.Type = asn1.ObjectIdentifier{2, 5, 4, 97}
	return map[string]specimen{
		"eudi.organization": after(func(c *tbsCertificate) {
			c.Subject = w.named(attr(6, printable, "UT"), identifier, attr(3, printable, "PID signer"))
		}),
		"eudi.organization-identifier": after(func(c *tbsCertificate) {
			c.Subject = w.named(attr(6, printable, "UT"), attr(10, printable, "Utopia"), attr(3, printable, "PID signer"))
		}),
		"eudi.certificate-policies":         after(without(oidPolicies)),
		"eudi.subject-alt-name":             after(without(oidSubjectAltName)),
		"eudi.authority-information-access": after(without(oidAuthorityInfo)),
		"eudi.qc-statements":                after(without(oidQCStatements)),
	}
}

func (w *workshop) lists() map[string]specimen {
	add := func(id asn1.ObjectIdentifier, critical bool, value ...byte) specimen {
		return specimen{list: func(c *tbsCertificateList) {
			c.Extensions = slices.DeleteFunc(c.Extensions, func(e extension) bool { return e.ID.Equal(id) })
			if value != nil {
				c.Extensions = append(c.Extensions, extension{ID: id, Critical: critical, Value: value})
			}
		}}
	}
	return map[string]specimen{
		"crl.parse":                     {der: func(der []byte) []byte { return append(der, 0) }},
		"crl.pem":                       {linter: func(l *Linter) { l.PEM = true }},
		"crl.version":                   {list: func(c *tbsCertificateList) { c.Version = 0 }},
		"crl.signature.algorithm":       {linter: func(l *Linter) { l.Issuer = nil }, sign: signing{inside: algorithm(ecdsaSHA1), outside: algorithm(ecdsaSHA1)}},
		"crl.signature.algorithm.equal": {sign: signing{inside: algorithm(ecdsaSHA384)}},
		"crl.next-update":               {list: func(c *tbsCertificateList) { c.NextUpdate = time.Time{} }},
		"crl.cadence":                   {list: func(c *tbsCertificateList) { c.NextUpdate = start.AddDate(0, 0, 90).Add(time.Second) }},
		"crl.revoked.empty": {der: func([]byte) []byte {
			// encoding/asn1 leaves an empty list out; take the entry out of its list.
			return w.emptied()
		}},
		"crl.entry-extensions": {list: func(c *tbsCertificateList) {
			c.Revoked[0].Extensions = []extension{{ID: asn1.ObjectIdentifier{2, 5, 29, 21}, Value: []byte{10, 1, 1}}}
		}},
		"crl.number":                         add(oidCRLNumber, false),
		"crl.partial":                        add(asn1.ObjectIdentifier{2, 5, 29, 28}, true, 0x30, 0),
		"crl.extensions":                     add(asn1.ObjectIdentifier{2, 5, 29, 18}, false, 0x30, 0),
		"crl.extension.critical":             add(oidCRLNumber, true, 2, 1, 2),
		"crl.authority-key-identifier":       add(oidAuthorityKeyID, false),
		"crl.authority-key-identifier.equal": {linter: func(l *Linter) { l.Issuer = w.successor.cert }},
		"crl.issuer": {list: func(c *tbsCertificateList) {
			c.Issuer = w.named(attr(6, asn1.TagPrintableString, "UT"), attr(3, asn1.TagPrintableString, "Another IACA"))
		}},
		"crl.signature": {sign: signing{key: w.key}},
		"crl.monotonic": add(oidCRLNumber, false, 2, 1, 1),
		"crl.delay":     {list: func(c *tbsCertificateList) { c.Revoked[0].Time = start.Add(-48*time.Hour - time.Second) }},
	}
}

// emptied is a CRL with an empty list of revoked certificates.
func (w *workshop) emptied() []byte {
	der, _ := w.crl(specimen{})
	c := &certificateList{}
	if err := unmarshal(der, c); err != nil {
		w.t.Fatal(err)
	}
	tbs := struct {
		Version                int
		Algorithm              pkix.AlgorithmIdentifier
		Issuer                 asn1.RawValue
		ThisUpdate, NextUpdate time.Time
		Revoked                []revokedEntry
		Extensions             []extension `asn1:"explicit,tag:0"`
	}{c.TBS.Version, c.TBS.Algorithm, c.TBS.Issuer, c.TBS.ThisUpdate, c.TBS.NextUpdate, []revokedEntry{}, c.TBS.Extensions}
	c.Raw, c.TBS.Raw = nil, marshal(w.t, tbs)
	c.Signature = w.seal(signing{}, w.root.key, c.TBS.Raw)
	return marshal(w.t, *c)
}

func (w *workshop) requests() map[string]specimen {
	challenge := requestAttribute{ID: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, Values: []asn1.RawValue{{Tag: asn1.TagPrintableString, Bytes: []byte("challenge")}}}
	return map[string]specimen{
		"csr.parse":               {der: func(der []byte) []byte { return append(der, 0) }},
		"csr.version":             {request: func(r *requestInfo) { r.Version = 1 }},
		"csr.signature.algorithm": {sign: signing{outside: algorithm(ecdsaSHA1)}},
		"csr.signature":           {sign: signing{key: w.root.key}},
		"csr.attributes":          {request: func(r *requestInfo) { r.Attributes = append(r.Attributes, challenge) }},
		"csr.extension-request":   {request: func(r *requestInfo) { r.Attributes = nil }},
		"answer.key": {tbs: func(c *tbsCertificate) {
			point, err := w.successor.key.PublicKey.Bytes()
			if err != nil {
				w.t.Fatal(err)
			}
			w.keyed(c.Key.Algorithm, point)(c)
		}},
		"answer.subject": {tbs: func(c *tbsCertificate) {
			c.Subject = w.named(attr(6, asn1.TagPrintableString, "UT"), attr(3, asn1.TagPrintableString, "Another"))
		}},
		"answer.extension": {tbs: w.set(oidCRLPoints, false, points(""))},
		"answer.validity":  {now: start.AddDate(0, 0, 400)},
	}
}
