// Package issuance says what a credential is and whether a key may sign it.
//
// It and the packages below it are pure: no I/O and no clock of their own; the
// caller gives the time and receives bytes. A credential is made in two phases.
// A format package (mdoc, sdjwt, w3cvc; metadata and domainlinkage for what
// describes the issuer) prepares the to-be-signed bytes; the signer, another
// process, parses those bytes back into a [Statement], holds them against the
// key's [Profile] and signs; the format package then assembles the credential.
// What was prepared is what is signed: there is no second encoding in between.
package issuance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"time"
)

// Format names what is signed. The credential formats are OpenID4VCI 1.0
// Appendix A's identifiers; the others are the media types of the objects that
// an issuer signs besides credentials.
type Format string

// The formats that a key's profile may allow.
const (
	FormatMdoc     Format = "mso_mdoc"      // ISO/IEC 18013-5 MSO, OpenID4VCI 1.0 A.2
	FormatSDJWT    Format = "dc+sd-jwt"     // SD-JWT VC, OpenID4VCI 1.0 A.3
	FormatJWTVC    Format = "jwt_vc_json"   // W3C VCDM 1.1 as JWT, OpenID4VCI 1.0 A.1.1
	FormatMetadata Format = "metadata+jwt"  // signed issuer metadata, OpenID4VCI 1.0 §12.2.3
	FormatStatus   Format = "statuslist"    // Token Status List, JWT or CWT
	FormatDomain   Format = "domainlinkage" // DIF domain linkage credential
)

// Algorithm is a JOSE signature algorithm name (RFC 7518 §3.1, RFC 8037).
type Algorithm string

// The algorithms the appliance signs with and accepts in proofs.
const (
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
	EdDSA Algorithm = "EdDSA"
)

// COSE returns the algorithm's identifier in the IANA COSE registry
// (RFC 9053 §2), as mdoc headers and metadata carry it; 0 when unknown.
func (a Algorithm) COSE() int64 {
	switch a {
	case ES256:
		return -7
	case ES384:
		return -35
	case ES512:
		return -36
	case EdDSA:
		return -8
	}
	return 0
}

// SignatureSize returns the length in bytes of a raw signature: r‖s, each
// padded to the curve's size (RFC 7518 §3.4), or 64 for Ed25519; 0 when unknown.
func (a Algorithm) SignatureSize() int {
	switch a {
	case ES256, EdDSA:
		return 64
	case ES384:
		return 96
	case ES512:
		return 132
	}
	return 0
}

// Hash returns the hash that the algorithm applies to the message, or 0 for
// EdDSA, which takes the message whole.
func (a Algorithm) Hash() crypto.Hash {
	switch a {
	case ES256:
		return crypto.SHA256
	case ES384:
		return crypto.SHA384
	case ES512:
		return crypto.SHA512
	}
	return 0
}

// AlgorithmFor returns the one algorithm that a public key signs with:
// the curve decides. It refuses every other kind of key.
func AlgorithmFor(public crypto.PublicKey) (Algorithm, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return ES256, nil
		case elliptic.P384():
			return ES384, nil
		case elliptic.P521():
			return ES512, nil
		}
		return "", fmt.Errorf("curve %s is not supported: use P-256, P-384 or P-521", key.Curve.Params().Name)
	case ed25519.PublicKey:
		if len(key) == ed25519.PublicKeySize {
			return EdDSA, nil
		}
		return "", fmt.Errorf("an Ed25519 key of %d bytes: it has %d", len(key), ed25519.PublicKeySize)
	}
	return "", fmt.Errorf("a %T cannot sign credentials: use an EC or Ed25519 key", public)
}

// Prepared is a credential that lacks only its signature.
//
// TBS are the exact bytes to be signed: a COSE Sig_structure or a JWS signing
// input, never a digest. Assemble takes the raw signature over TBS and returns
// the credential as OpenID4VCI delivers it; it may be called once.
type Prepared struct {
	Format    Format
	Algorithm Algorithm
	TBS       []byte
	Assemble  func(signature []byte) (string, error)
}

// NewPrepared returns a credential that lacks only its signature. join puts a
// signature in its place; it is called once at most, and only with one of the
// algorithm's length.
func NewPrepared(format Format, algorithm Algorithm, tbs []byte, join func(signature []byte) (string, error)) *Prepared {
	used := false
	return &Prepared{Format: format, Algorithm: algorithm, TBS: tbs, Assemble: func(signature []byte) (string, error) {
		if used {
			return "", errors.New("a prepared credential is assembled once")
		}
		if len(signature) != algorithm.SignatureSize() {
			return "", fmt.Errorf("a signature of %d bytes, %s has %d", len(signature), algorithm, algorithm.SignatureSize())
		}
		used = true
		return join(signature)
	}}
}

// Statement is what to-be-signed bytes say, as far as a key's profile bounds it.
// A format package parses it back from the bytes themselves.
type Statement struct {
	Format    Format
	Algorithm Algorithm
	// Types holds the docType, the vct, or the VC types without
	// "VerifiableCredential"; nil for issuer metadata and domain linkage.
	Types []string
	// Issuer is the iss claim; empty for mdoc, whose issuer is its certificate.
	Issuer string
	// KeyID is the kid header; empty when there is none.
	KeyID string
	// Chain is the x5c header's DER certificates, leaf first; nil when there is none.
	Chain [][]byte
	// Signed is iat or the MSO's signed; ValidFrom and ValidUntil bound the
	// credential's technical validity. Zero when the bytes carry none.
	Signed, ValidFrom, ValidUntil time.Time
}

// Profile bounds what one key may sign. It is fixed at the key's ceremony and
// written in the audit log.
type Profile struct {
	// Formats the key may sign.
	Formats []Format `json:"formats" toml:"formats"`
	// Types lists the docTypes, vcts or VC types allowed; metadata and domain
	// linkage credentials have none.
	Types []string `json:"types,omitempty" toml:"types"`
	// Issuer must equal the iss claim where the format has one.
	Issuer string `json:"issuer,omitempty" toml:"issuer"`
	// LongestValidityHours bounds ValidUntil − ValidFrom, in hours; see
	// [Profile.LongestValidity] for a profile without it.
	LongestValidityHours int `json:"longest_validity_hours,omitempty" toml:"longest_validity_hours"`
	// RatePerMinute caps signatures in any minute; 0 means no cap.
	RatePerMinute int `json:"rate_per_minute,omitempty" toml:"rate_per_minute"`
}

// ErrOutsideProfile is wrapped by every refusal of [Profile.Check].
var ErrOutsideProfile = errors.New("outside the key's profile")
