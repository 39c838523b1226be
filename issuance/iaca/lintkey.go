package iaca

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
)

// Object identifiers of keys (RFC 5480 §2.1.1, RFC 8410 §3).
var (
	oidECPublicKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519     = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidEd448       = asn1.ObjectIdentifier{1, 3, 101, 113}
)

// curve is one of Annex B's: how many octets a coordinate has, and the rule that
// the curve breaks by itself.
type curve struct {
	name   string
	octets int
	rule   string
}

var curves = map[string]curve{
	"1.2.840.10045.3.1.7":   {"P-256", 32, ""},
	"1.3.132.0.34":          {"P-384", 48, ""},
	"1.3.132.0.35":          {"P-521", 66, "key.curve.readers"},
	"1.3.36.3.3.2.8.1.1.7":  {"brainpoolP256r1", 32, "key.curve.nist"},
	"1.3.36.3.3.2.8.1.1.9":  {"brainpoolP320r1", 40, "key.curve.nist"},
	"1.3.36.3.3.2.8.1.1.11": {"brainpoolP384r1", 48, "key.curve.nist"},
	"1.3.36.3.3.2.8.1.1.13": {"brainpoolP512r1", 64, "key.curve.nist"},
}

// keys holds the public key, and its identifier, against the rules.
func (l *lint) keys() {
	// A curve that is not NIST's, or a point that is not on its curve, is an error,
	// with which crypto/x509 may return a pointer to nothing.
	if public, err := x509.ParsePKIXPublicKey(l.key.Raw); err == nil {
		l.public = public
	}
	switch kind := l.key.Algorithm.Algorithm; {
	case kind.Equal(oidECPublicKey):
		l.elliptic()
	case kind.Equal(oidEd25519):
		l.edwards("key.curve.readers", "Ed25519", 32)
	case kind.Equal(oidEd448):
		l.edwards("key.curve.nist", "Ed448", 57)
	default:
		l.report("key.type", "the key's algorithm is %v", kind)
	}
	e := find(l.extensions, oidSubjectKeyID)
	var id []byte
	switch {
	case e == nil && l.certificate == nil: // the issuer adds it
	case e == nil:
		l.report("subject-key-identifier", "subjectKeyIdentifier is missing")
	case unmarshal(e.Value, &id) != nil || !bytes.Equal(id, identifier(l.key.Bits.RightAlign())):
		l.report("subject-key-identifier.sha1", "subjectKeyIdentifier is not the SHA-1 of the key")
	}
}

func (l *lint) elliptic() {
	var name asn1.ObjectIdentifier
	if unmarshal(l.key.Algorithm.Parameters.FullBytes, &name) != nil {
		l.report("key.named-curve", "the curve is not named")
		return
	}
	c, known := curves[name.String()]
	if !known {
		l.report("key.curve", "the curve is %v", name)
		return
	}
	if c.rule != "" {
		l.report(c.rule, "the curve is %s", c.name)
	}
	point := l.key.Bits.Bytes
	nist := c.rule != "key.curve.nist"
	if l.key.Bits.BitLength != 8*(1+2*c.octets) || point[0] != 4 || nist && l.public == nil {
		l.report("key.point", "the public key is not an uncompressed point on the curve")
	}
}

func (l *lint) edwards(rule, name string, octets int) {
	if l.Profile == Root || l.Profile == Link {
		l.report("key.type", "an IACA's key cannot be %s", name)
		return
	}
	l.report(rule, "the curve is %s", name)
	if len(l.key.Algorithm.Parameters.FullBytes) > 0 {
		l.report("key.parameters", "the key's algorithm has parameters")
	}
	if l.key.Bits.BitLength != 8*octets {
		l.report("key.point", "the public key has %d bits", l.key.Bits.BitLength)
	}
}
