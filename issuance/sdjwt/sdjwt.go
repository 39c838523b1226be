// Package sdjwt prepares SD-JWT VCs (RFC 9901, SD-JWT VC draft 13), complete but
// for the signature.
package sdjwt

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// SaltSize is a salt's length in bytes; RFC 9901 §9.3 recommends at least 16.
const SaltSize = 16

// MediaType is the typ header (SD-JWT VC §2.2.1).
const MediaType = "dc+sd-jwt"

// DraftMediaType is the typ header that drafts of SD-JWT VC before -06 had. Wallets
// of OpenID4VCI drafts 13 and 14 may know no other.
const DraftMediaType = "vc+sd-jwt"

// Path points at a claim: member names, array indexes (int), and nil for every
// element of an array (OpenID4VCI 1.0 App. C).
type Path []any

// StatusReference points into a Token Status List.
type StatusReference struct {
	URI   string
	Index uint64
}

// Request is what goes into one SD-JWT VC.
type Request struct {
	// VCT is the credential's type.
	VCT string
	// Issuer is the iss claim, an https URL or a DID; left out when empty, which
	// only a Chain allows.
	Issuer string
	// Claims are JSON values (strings, bools, json.Number or Go integers, arrays,
	// objects). The map is not changed.
	Claims map[string]any
	// Disclose lists what becomes selectively disclosable if it is there, each
	// path by itself; a path below another gives a recursive disclosure.
	Disclose []Path
	// Decoys pads every _sd array, and every array with hidden elements, to a
	// multiple of this; 0 means no padding.
	Decoys int
	// DraftType has typ [DraftMediaType].
	DraftType bool
	// Holder becomes cnf.jwk; nil means no key binding.
	Holder crypto.PublicKey
	// Chain becomes x5c: the signer's certificate and its issuers without the
	// anchor, DER, leaf first. KeyID becomes kid. One of them is needed.
	Chain [][]byte
	KeyID string
	// Algorithm must be the one of the signing key.
	Algorithm issuance.Algorithm
	// IssuedAt, NotBefore and Expires are cut to whole seconds. One of the first
	// two may be zero and is left out then; Expires must be after both.
	IssuedAt, NotBefore, Expires time.Time
	// VCTIntegrity becomes vct#integrity when set.
	VCTIntegrity string
	Status       *StatusReference
}

// issuers are the claims that the request's own members make, or that this
// program never writes; none is ever selectively disclosable (SD-JWT VC §2.2.2.3).
var issuers = []string{"iss", "nbf", "exp", "iat", "cnf", "vct", "vct#integrity", "status", "aka_vcts"}

// CheckName refuses a name that no claim of a person may have: at the top the
// issuer's own, and anywhere those with a meaning in RFC 9901 §4.1.
func CheckName(name string, top bool) error {
	if name == "_sd" || name == "..." || name == "_sd_alg" || top && slices.Contains(issuers, name) {
		return fmt.Errorf("claim %q is the issuer's own and cannot be given", name)
	}
	return nil
}

// Prepare builds the credential; Assemble returns "<jwt>~<disclosure>~…~".
func Prepare(r Request) (*issuance.Prepared, error) {
	return prepare(r, bufio.NewReaderSize(rand.Reader, 1024))
}

// prepare takes its randomness as an argument, so that vectors can be reproduced.
func prepare(r Request, random io.Reader) (*issuance.Prepared, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	selected, err := newSelection(r.Disclose)
	if err != nil {
		return nil, err
	}
	b := &builder{random: random, decoys: r.Decoys}
	payload, err := b.object(r.Claims, selected, true)
	if err != nil {
		return nil, err
	}
	if err := r.addClaims(payload, len(b.disclosures) > 0); err != nil {
		return nil, err
	}
	typ := MediaType
	if r.DraftType {
		typ = DraftMediaType
	}
	tbs, err := jws.Input(jws.Header{Algorithm: r.Algorithm, Type: typ, KeyID: r.KeyID, X5C: r.Chain}, payload)
	if err != nil {
		return nil, errors.New("the claims cannot be encoded as JSON")
	}
	return issuance.NewPrepared(issuance.FormatSDJWT, r.Algorithm, tbs, func(signature []byte) (string, error) {
		return strings.Join(append([]string{jws.Join(tbs, signature)}, b.disclosures...), "~") + "~", nil
	}), nil
}

// check refuses what [ParseTBS] or a verifier would refuse.
func (r Request) check() error {
	if r.VCT == "" {
		return errors.New("an SD-JWT VC needs a vct")
	}
	if len(r.Chain) == 0 && (r.KeyID == "" || r.Issuer == "") {
		return errors.New("an SD-JWT VC needs x5c, or kid and iss")
	}
	if r.Algorithm.SignatureSize() == 0 {
		return fmt.Errorf("algorithm %q cannot sign an SD-JWT VC", r.Algorithm)
	}
	if r.Status != nil && r.Status.URI == "" {
		return errors.New("a status reference needs a URI")
	}
	for _, text := range []string{r.VCT, r.Issuer, r.KeyID, r.VCTIntegrity} {
		if !utf8.ValidString(text) {
			return errors.New("vct, iss, kid and vct#integrity are valid UTF-8")
		}
	}
	if r.IssuedAt.IsZero() && r.NotBefore.IsZero() {
		return errors.New("one of iat and nbf is needed")
	}
	for _, t := range []time.Time{r.IssuedAt, r.NotBefore} {
		if r.Expires.Unix() <= t.Unix() {
			return errors.New("exp is needed, and must be after nbf and iat")
		}
	}
	if err := jws.CheckValue(r.Claims); err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	return nil
}

// addClaims puts the issuer's own claims beside those of the person.
func (r Request) addClaims(payload map[string]any, hidden bool) (err error) {
	payload["vct"] = r.VCT
	if r.Issuer != "" {
		payload["iss"] = r.Issuer
	}
	for name, t := range map[string]time.Time{"iat": r.IssuedAt, "nbf": r.NotBefore, "exp": r.Expires} {
		if t.IsZero() {
			continue
		}
		if payload[name], err = jws.NumericDate(t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if r.VCTIntegrity != "" {
		payload["vct#integrity"] = r.VCTIntegrity
	}
	if r.Holder != nil {
		if payload["cnf"], err = jws.Confirmation(r.Holder); err != nil {
			return err
		}
	}
	if r.Status != nil {
		payload["status"] = map[string]any{"status_list": map[string]any{"idx": r.Status.Index, "uri": r.Status.URI}}
	}
	if hidden {
		payload["_sd_alg"] = "sha-256"
	}
	return nil
}
