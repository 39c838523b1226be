package iaca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"time"
)

// The linter reads certificates, CRLs and requests itself, because crypto/x509
// refuses much of what a rule is to name: negative serial numbers, curves that it
// does not have, unequal algorithms. encoding/asn1 holds them to DER.

// certificate is RFC 5280 §4.1.
type certificate struct {
	Raw       asn1.RawContent
	TBS       tbsCertificate
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type tbsCertificate struct {
	Raw             asn1.RawContent
	Version         int `asn1:"optional,explicit,default:0,tag:0"`
	Serial          *big.Int
	Algorithm       pkix.AlgorithmIdentifier
	Issuer          asn1.RawValue
	Validity        struct{ NotBefore, NotAfter asn1.RawValue }
	Subject         asn1.RawValue
	Key             publicKeyInfo
	IssuerUniqueID  asn1.BitString `asn1:"optional,tag:1"`
	SubjectUniqueID asn1.BitString `asn1:"optional,tag:2"`
	Extensions      []extension    `asn1:"omitempty,optional,explicit,tag:3"`
}

// publicKeyInfo is SubjectPublicKeyInfo.
type publicKeyInfo struct {
	Raw       asn1.RawContent
	Algorithm pkix.AlgorithmIdentifier
	Bits      asn1.BitString
}

// extension is like pkix.Extension, and keeps its own bytes.
type extension struct {
	Raw      asn1.RawContent
	ID       asn1.ObjectIdentifier
	Critical bool `asn1:"optional"`
	Value    []byte
}

// certificateList is RFC 5280 §5.1.
type certificateList struct {
	Raw       asn1.RawContent
	TBS       tbsCertificateList
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type tbsCertificateList struct {
	Raw        asn1.RawContent
	Version    int `asn1:"optional,default:0"`
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	ThisUpdate time.Time
	NextUpdate time.Time      `asn1:"optional"`
	Revoked    []revokedEntry `asn1:"optional"`
	Extensions []extension    `asn1:"optional,explicit,tag:0"`
}

type revokedEntry struct {
	Serial     *big.Int
	Time       time.Time
	Extensions []extension `asn1:"optional"`
}

// request is a CertificationRequest, RFC 2986 §4.
type request struct {
	Raw       asn1.RawContent
	Info      requestInfo
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type requestInfo struct {
	Raw        asn1.RawContent
	Version    int
	Subject    asn1.RawValue
	Key        publicKeyInfo
	Attributes []requestAttribute `asn1:"set,tag:0"`
}

type requestAttribute struct {
	ID     asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// unmarshal reads one structure and nothing after it.
func unmarshal(der []byte, value any) error {
	rest, err := asn1.Unmarshal(der, value)
	if err == nil && len(rest) > 0 {
		err = errors.New("there are bytes after it")
	}
	return err
}

// date reads a Time of RFC 5280 §4.1.2.5; strict is whether it is encoded as
// that section says.
func date(raw asn1.RawValue) (t time.Time, strict bool, err error) {
	if err := unmarshal(raw.FullBytes, &t); err != nil {
		return t, false, err
	}
	length, tag := len("YYMMDDHHMMSSZ"), asn1.TagUTCTime
	if t.UTC().Year() > 2049 {
		length, tag = len("YYYYMMDDHHMMSSZ"), asn1.TagGeneralizedTime
	}
	return t, raw.Tag == tag && len(raw.Bytes) == length && raw.Bytes[length-1] == 'Z', nil
}

// extensionRequest returns what a request asks for; count is how often it asks.
func (r *request) extensionRequest() (extensions []extension, count int, err error) {
	for _, a := range r.Info.Attributes {
		if !a.ID.Equal(oidExtensionRequest) {
			continue
		}
		count += len(a.Values)
		for _, v := range a.Values {
			if err := unmarshal(v.FullBytes, &extensions); err != nil {
				return nil, count, err
			}
		}
	}
	return extensions, count, nil
}

// signatureAlgorithms are those of RFC 5758 §3.2 and RFC 8410 §3.
var signatureAlgorithms = map[string]x509.SignatureAlgorithm{
	"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256,
	"1.2.840.10045.4.3.3": x509.ECDSAWithSHA384,
	"1.2.840.10045.4.3.4": x509.ECDSAWithSHA512,
	"1.3.101.112":         x509.PureEd25519,
}

// verify checks a signature with a key that crypto/x509 has read.
func verify(public crypto.PublicKey, algorithm pkix.AlgorithmIdentifier, signed []byte, signature asn1.BitString) error {
	signer := &x509.Certificate{PublicKey: public}
	return signer.CheckSignature(signatureAlgorithms[algorithm.Algorithm.String()], signed, signature.RightAlign())
}

// GuessProfile tells which profile a certificate or request (DER) is meant to
// have; "" when that is not to be seen, as with the signers that have no extended
// key usage. The error says that it cannot be read.
func GuessProfile(der []byte) (Profile, error) {
	var c certificate
	err := unmarshal(der, &c)
	if err == nil {
		if bytes.Equal(c.TBS.Issuer.FullBytes, c.TBS.Subject.FullBytes) && !otherAuthority(c.TBS.Extensions) {
			return Root, nil
		}
		return guess(c.TBS.Extensions), nil
	}
	var r request
	if unmarshal(der, &r) != nil {
		return "", err
	}
	extensions, _, err := r.extensionRequest()
	return guess(extensions), err
}

func guess(extensions []extension) Profile {
	if e := find(extensions, oidExtKeyUsage); e != nil {
		for _, p := range purposes(e) {
			if p.Equal(oidDocumentSigner) || p.Equal(oidMdocSigner) || p.Equal(oidOldPIDSigner) {
				return DocumentSigner
			}
		}
	}
	if e := find(extensions, oidBasicConstraints); e != nil && len(e.Value) > 2 {
		return Link // a CA that is no root
	}
	return ""
}

// otherAuthority tells a self-issued link from a root: its authority's key is
// another than its own.
func otherAuthority(extensions []extension) bool {
	var own []byte
	subject, authority := find(extensions, oidSubjectKeyID), find(extensions, oidAuthorityKeyID)
	if subject == nil || authority == nil || unmarshal(subject.Value, &own) != nil {
		return false
	}
	id, _ := keyIdentifier(authority)
	return id != nil && !bytes.Equal(id, own)
}

func find(extensions []extension, id asn1.ObjectIdentifier) *extension {
	for i := range extensions {
		if extensions[i].ID.Equal(id) {
			return &extensions[i]
		}
	}
	return nil
}

// purposes reads an extendedKeyUsage; nil when it is malformed.
func purposes(e *extension) []asn1.ObjectIdentifier {
	var list []asn1.ObjectIdentifier
	if unmarshal(e.Value, &list) != nil {
		return nil
	}
	return list
}

// keyIdentifier reads an authorityKeyIdentifier; alone is whether there is
// nothing beside the key's identifier.
func keyIdentifier(e *extension) (id []byte, alone bool) {
	var parts []asn1.RawValue
	if unmarshal(e.Value, &parts) != nil {
		return nil, false
	}
	for _, p := range parts {
		if p.Class == asn1.ClassContextSpecific && p.Tag == 0 {
			id = p.Bytes
		}
	}
	return id, id != nil && len(parts) == 1
}

// generalNames reads a GeneralNames sequence.
func generalNames(value []byte) ([]asn1.RawValue, error) {
	var names []asn1.RawValue
	if err := unmarshal(value, &names); err != nil {
		return nil, errors.New("malformed GeneralNames")
	}
	return names, nil
}
