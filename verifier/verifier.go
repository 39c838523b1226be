// Package verifier checks a credential as somebody who did not make it: it
// shares no code with the issuing side, so that a mistake there shows here.
//
// It knows ISO/IEC 18013-5 mdoc (an IssuerSigned as OpenID4VCI delivers it),
// SD-JWT VC and W3C VC as JWT. [Verify] runs every check that the format has
// and reports each by name; the credential is verified when none failed and
// those that carry the trust (signature, issuer, digests, validity) passed.
package verifier

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// Format is the credential's format as OpenID4VCI 1.0 Appendix A names it.
type Format string

// The formats that are verified.
const (
	Mdoc  Format = "mso_mdoc"
	SDJWT Format = "dc+sd-jwt"
	JWTVC Format = "jwt_vc_json"
)

// MaxSize is the largest credential in bytes that is looked at.
const MaxSize = 4 << 20

// Options say whom to trust and what is expected.
type Options struct {
	// Now is the moment of verification; zero means the present.
	Now time.Time
	// Anchors are the trusted CA certificates (IACA roots).
	Anchors []*x509.Certificate
	// CRLs are revocation lists at hand; they are tried before any is fetched.
	CRLs []*x509.RevocationList
	// IssuerKeys are trusted for credentials without x5c whose issuer is not a
	// resolvable DID. A did:key or did:jwk issuer is trusted only if its key is here.
	IssuerKeys []crypto.PublicKey
	// Fetch gets a URL's content (a CRL, a did:web document); nil means offline.
	Fetch func(ctx context.Context, url string) ([]byte, error)
	// Holder, when not nil, is the key the credential must be bound to.
	Holder crypto.PublicKey
	// Type, when not empty, is the docType, vct or VC type that is expected.
	Type string
	// Fresh says that the credential comes straight from its issuer: every
	// mandatory element must be there, and nothing but an IssuerSigned, an SD-JWT or a JWT.
	Fresh bool
}

// Outcome is how a check ended.
type Outcome string

// The outcomes. A warning does not make a credential invalid.
const (
	Passed     Outcome = "passed"
	Failed     Outcome = "failed"
	Warning    Outcome = "warning"
	NotChecked Outcome = "not checked"
)

// Check is one named check.
type Check struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	// Detail says what was found or why it failed; no claim values.
	Detail string `json:"detail,omitempty"`
	// Source is the rule's place in its specification.
	Source string `json:"source,omitempty"`
}

// Certificate describes one certificate of the chain, leaf first.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"` // of the DER, hexadecimal
	Anchor    bool      `json:"anchor,omitempty"`
}

// Claim is one data element or claim, as a reader would see it.
type Claim struct {
	// Path leads to the claim: namespace and element, or JSON names and indexes.
	Path []string `json:"path"`
	// Value is the decoded value: string, bool, json.Number, int64, []byte,
	// time.Time for tdate, []any, map[string]any.
	Value any `json:"value"`
	// Text shows the value to people on one line.
	Text string `json:"text"`
	// Selective says that the holder may withhold the claim.
	Selective bool `json:"selective"`
}

// Report is everything that was found.
type Report struct {
	Verified  bool   `json:"verified"`
	Format    Format `json:"format"`
	Type      string `json:"type"`
	Issuer    string `json:"issuer"`
	Algorithm string `json:"algorithm"`
	// Holder is the RFC 7638 thumbprint of the key the credential is bound to; empty when unbound.
	Holder     string        `json:"holder,omitempty"`
	Signed     *time.Time    `json:"signed,omitempty"`
	ValidFrom  *time.Time    `json:"valid_from,omitempty"`
	ValidUntil *time.Time    `json:"valid_until,omitempty"`
	Chain      []Certificate `json:"chain,omitempty"`
	Claims     []Claim       `json:"claims"`
	Checks     []Check       `json:"checks"`

	// HolderKey is the key the credential is bound to; nil when unbound.
	HolderKey crypto.PublicKey `json:"-"`
}

// Failures lists the checks that failed.
func (r *Report) Failures() []Check {
	var failed []Check
	for _, c := range r.Checks {
		if c.Outcome == Failed {
			failed = append(failed, c)
		}
	}
	return failed
}

// errFormat is returned for bytes that are no credential of a known format.
var errFormat = errors.New("this is no credential of a known format: expected an mdoc IssuerSigned (base64url or CBOR), an SD-JWT VC or a JWT VC")

// Verify checks one credential: the text that the credential endpoint answers,
// or for mdoc also the CBOR itself or its hexadecimal form. The error is not nil
// only when data is of no known format; everything else is in the report.
func Verify(ctx context.Context, data []byte, o Options) (*Report, error) {
	if len(data) > MaxSize {
		return nil, errors.New("the credential is larger than 4 MiB")
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	format, raw := detect(data)
	v := &verification{ctx: ctx, o: o, report: &Report{Format: format, Claims: []Claim{}}}
	switch format {
	case Mdoc:
		v.mdoc(raw)
		v.require(checkEncoding, checkSignature, checkTrust, checkValidity, checkDigests)
	case SDJWT:
		v.sdjwt(string(raw))
		v.require(checkEncoding, checkSignature, checkTrust, checkValidity, checkDisclosures)
	case JWTVC:
		v.jwtvc(string(raw))
		v.require(checkEncoding, checkSignature, checkTrust, checkValidity)
	default:
		return nil, errFormat
	}
	return v.report, nil
}

// detect tells the format by the credential's outside. Surrounding white space
// of a text file is dropped.
func detect(data []byte) (Format, []byte) {
	text := bytes.TrimSpace(data)
	switch {
	case len(text) == 0:
		return "", nil
	case looksLikeJWS(text) && bytes.IndexByte(text, '~') >= 0:
		return SDJWT, text
	case looksLikeJWS(text):
		return JWTVC, text
	}
	if isMap(data) {
		return Mdoc, data
	}
	if raw, err := hex.DecodeString(string(text)); err == nil && isMap(raw) {
		return Mdoc, raw
	}
	if raw, err := base64.RawURLEncoding.Strict().DecodeString(string(text)); err == nil && isMap(raw) {
		return Mdoc, raw
	}
	return "", nil
}

// looksLikeJWS says whether text begins as three base64url parts.
func looksLikeJWS(text []byte) bool {
	head, _, _ := strings.Cut(string(text), "~")
	if strings.Count(head, ".") != 2 {
		return false
	}
	for _, r := range head {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.", r) {
			return false
		}
	}
	return true
}

// isMap says whether the first byte opens a CBOR map.
func isMap(raw []byte) bool { return len(raw) > 1 && major(raw) == majorMap }
