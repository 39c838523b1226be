// Package sdjwt prepares SD-JWT VCs (RFC 9901, SD-JWT VC draft 13), complete but
// for the signature.
package sdjwt

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// SaltSize is a salt's length in bytes; RFC 9901 §9.3 recommends at least 16.
const SaltSize = 16

// MediaType is the typ header (SD-JWT VC §2.2.1).
const MediaType = "dc+sd-jwt"

// Path points at a claim: member names, array indexes, and nil for every
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
	// Issuer is the iss claim, an https URL or a DID; left out when empty.
	Issuer string
	// Claims are JSON values (strings, bools, json.Number or Go integers, arrays,
	// objects). The map is not changed.
	Claims map[string]any
	// Disclose lists what becomes selectively disclosable, each path by itself;
	// a path below another gives a recursive disclosure.
	Disclose []Path
	// Decoys pads every _sd array to a multiple of this; 0 means no padding.
	Decoys int
	// Holder becomes cnf.jwk; nil means no key binding.
	Holder crypto.PublicKey
	// Chain becomes x5c: the signer's certificate and its issuers without the
	// anchor, DER, leaf first. KeyID becomes kid. One of them is needed.
	Chain [][]byte
	KeyID string
	// Algorithm must be the one of the signing key.
	Algorithm issuance.Algorithm
	// IssuedAt, NotBefore and Expires are cut to whole seconds; the first two
	// are left out when zero.
	IssuedAt, NotBefore, Expires time.Time
	// VCTIntegrity becomes vct#integrity when set.
	VCTIntegrity string
	Status       *StatusReference
}

// reserved are the claims that the request's own members make; they are never
// selectively disclosable (SD-JWT VC §2.2.2.3).
var reserved = []string{"iss", "nbf", "exp", "iat", "cnf", "vct", "vct#integrity", "status", "aka_vcts", "_sd_alg"}

// Prepare builds the credential; Assemble returns "<jwt>~<disclosure>~…~".
func Prepare(r Request) (*issuance.Prepared, error) { return prepare(r, rand.Reader) }

func prepare(r Request, random io.Reader) (*issuance.Prepared, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := &builder{random: random, decoys: r.Decoys}
	payload, err := b.object(r.Claims, nil, newSelection(r.Disclose))
	if err != nil {
		return nil, err
	}
	if err := r.addClaims(payload, len(b.disclosures) > 0); err != nil {
		return nil, err
	}
	tbs, err := jws.Input(jws.Header{Algorithm: r.Algorithm, Type: MediaType, KeyID: r.KeyID, X5C: r.Chain}, payload)
	if err != nil {
		return nil, err
	}
	used := false
	assemble := func(signature []byte) (string, error) {
		if used {
			return "", errors.New("a prepared credential is assembled once")
		}
		if len(signature) != r.Algorithm.SignatureSize() {
			return "", fmt.Errorf("a signature of %d bytes, %s has %d", len(signature), r.Algorithm, r.Algorithm.SignatureSize())
		}
		used = true
		return strings.Join(append([]string{jws.Join(tbs, signature)}, b.disclosures...), "~") + "~", nil
	}
	return &issuance.Prepared{Format: issuance.FormatSDJWT, Algorithm: r.Algorithm, TBS: tbs, Assemble: assemble}, nil
}

func (r Request) check() error {
	if r.VCT == "" {
		return errors.New("an SD-JWT VC needs a vct")
	}
	if len(r.Chain) == 0 && r.KeyID == "" {
		return errors.New("an SD-JWT VC needs x5c or kid")
	}
	if r.Algorithm.SignatureSize() == 0 {
		return fmt.Errorf("algorithm %q cannot sign an SD-JWT VC", r.Algorithm)
	}
	for _, name := range reserved {
		if _, has := r.Claims[name]; has {
			return fmt.Errorf("claim %q is the issuer's own and cannot be given", name)
		}
	}
	start := r.NotBefore
	if start.IsZero() {
		start = r.IssuedAt
	}
	if !r.Expires.IsZero() && !r.Expires.After(start) {
		return errors.New("exp must be after nbf and iat")
	}
	return nil
}

// addClaims puts the issuer's own claims beside those of the person.
func (r Request) addClaims(payload map[string]any, hidden bool) error {
	payload["vct"] = r.VCT
	if r.Issuer != "" {
		payload["iss"] = r.Issuer
	}
	for name, t := range map[string]time.Time{"iat": r.IssuedAt, "nbf": r.NotBefore, "exp": r.Expires} {
		if !t.IsZero() {
			payload[name] = t.Unix()
		}
	}
	if r.VCTIntegrity != "" {
		payload["vct#integrity"] = r.VCTIntegrity
	}
	if r.Holder != nil {
		jwk, err := jws.PublicJWK(r.Holder)
		if err != nil {
			return fmt.Errorf("the holder's key: %w", err)
		}
		payload["cnf"] = map[string]any{"jwk": jwk}
	}
	if r.Status != nil {
		payload["status"] = map[string]any{"status_list": map[string]any{"idx": r.Status.Index, "uri": r.Status.URI}}
	}
	if hidden {
		payload["_sd_alg"] = "sha-256"
	}
	return nil
}

// selection is the tree of paths to be disclosed.
type selection struct {
	here     bool
	names    map[string]*selection
	indexes  map[int]*selection
	elements *selection // nil in a path: every element
}

func newSelection(paths []Path) *selection {
	root := &selection{}
	for _, path := range paths {
		at := root
		for _, step := range path {
			at = at.step(step)
		}
		at.here = true
	}
	return root
}

func (s *selection) step(step any) *selection {
	switch step := step.(type) {
	case string:
		if s.names == nil {
			s.names = map[string]*selection{}
		}
		if s.names[step] == nil {
			s.names[step] = &selection{}
		}
		return s.names[step]
	case int:
		if s.indexes == nil {
			s.indexes = map[int]*selection{}
		}
		if s.indexes[step] == nil {
			s.indexes[step] = &selection{}
		}
		return s.indexes[step]
	}
	if s.elements == nil {
		s.elements = &selection{}
	}
	return s.elements
}

// builder turns claims into payload and disclosures.
type builder struct {
	random      io.Reader
	decoys      int
	disclosures []string
}

func (b *builder) object(claims map[string]any, path []string, s *selection) (map[string]any, error) {
	out := make(map[string]any, len(claims))
	var digests []string
	names := make([]string, 0, len(claims))
	for name := range claims {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if name == "_sd" || name == "..." {
			return nil, fmt.Errorf("a claim cannot be named %q (RFC 9901 §4.2.1)", name)
		}
		var child *selection
		if s != nil {
			child = s.names[name]
		}
		value, err := b.value(claims[name], append(path, name), child)
		if err != nil {
			return nil, err
		}
		if child == nil || !child.here {
			out[name] = value
			continue
		}
		digest, err := b.disclose(name, value)
		if err != nil {
			return nil, err
		}
		digests = append(digests, digest)
	}
	if len(digests) > 0 {
		for b.decoys > 1 && len(digests)%b.decoys != 0 {
			decoy, err := b.decoy()
			if err != nil {
				return nil, err
			}
			digests = append(digests, decoy)
		}
		sort.Strings(digests) // the order must not tell the claims' (RFC 9901 §4.2.4.1)
		out["_sd"] = digests
	}
	return out, nil
}

func (b *builder) value(value any, path []string, s *selection) (any, error) {
	switch value := value.(type) {
	case map[string]any:
		return b.object(value, path, s)
	case []any:
		return b.array(value, path, s)
	case float64:
		return nil, fmt.Errorf("claim %s: a float would change on its way: use json.Number", strings.Join(path, "."))
	}
	return value, nil
}

func (b *builder) array(values []any, path []string, s *selection) (any, error) {
	out := make([]any, len(values))
	for i, value := range values {
		var child *selection
		if s != nil {
			if child = s.indexes[i]; child == nil {
				child = s.elements
			}
		}
		value, err := b.value(value, append(path, fmt.Sprint(i)), child)
		if err != nil {
			return nil, err
		}
		if child != nil && child.here {
			digest, err := b.disclose("", value)
			if err != nil {
				return nil, err
			}
			value = map[string]any{"...": digest}
		}
		out[i] = value
	}
	return out, nil
}

// disclose makes a disclosure and returns its digest. The digest is over the
// base64url text as it is delivered; it is made once.
func (b *builder) disclose(name string, value any) (string, error) {
	salt := make([]byte, SaltSize)
	if _, err := io.ReadFull(b.random, salt); err != nil {
		return "", err
	}
	parts := []any{base64.RawURLEncoding.EncodeToString(salt)}
	if name != "" {
		parts = append(parts, name)
	}
	data, err := jws.Marshal(append(parts, value))
	if err != nil {
		return "", errors.New("a claim cannot be encoded as JSON")
	}
	disclosure := base64.RawURLEncoding.EncodeToString(data)
	b.disclosures = append(b.disclosures, disclosure)
	return digestOf(disclosure), nil
}

func digestOf(disclosure string) string {
	sum := sha256.Sum256([]byte(disclosure))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// decoy is a digest of random bytes that nothing belongs to (RFC 9901 §4.2.5).
func (b *builder) decoy() (string, error) {
	var noise [32]byte
	if _, err := io.ReadFull(b.random, noise[:]); err != nil {
		return "", err
	}
	sum := sha256.Sum256(noise[:])
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// ParseTBS reads a signing input back: the header this package writes, a vct,
// times in order, a holder's key that is public, digests where _sd stands.
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	header, claims, err := jws.Parse(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	if header.Type != MediaType || header.Algorithm.SignatureSize() == 0 || (len(header.X5C) == 0 && header.KeyID == "") {
		return issuance.Statement{}, errors.New("header: typ must be dc+sd-jwt, alg known, and x5c or kid there")
	}
	s := issuance.Statement{Format: issuance.FormatSDJWT, Algorithm: header.Algorithm, KeyID: header.KeyID, Chain: header.X5C}
	vct, err := jws.String(claims, "vct")
	if err != nil {
		return issuance.Statement{}, err
	}
	s.Types = []string{vct}
	if _, has := claims["iss"]; has {
		if s.Issuer, err = jws.String(claims, "iss"); err != nil {
			return issuance.Statement{}, err
		}
	}
	if err := times(claims, &s); err != nil {
		return issuance.Statement{}, err
	}
	if err := checkBinding(claims); err != nil {
		return issuance.Statement{}, err
	}
	seen := map[string]bool{}
	if err := checkDigests(claims, true, seen); err != nil {
		return issuance.Statement{}, err
	}
	if _, has := claims["_sd_alg"]; has != (len(seen) > 0) || (has && claims["_sd_alg"] != "sha-256") {
		return issuance.Statement{}, errors.New("_sd_alg must be sha-256 where there are digests, and absent where there are none")
	}
	return s, nil
}

func times(claims map[string]any, s *issuance.Statement) error {
	var err error
	if s.Signed, err = jws.Date(claims, "iat"); err != nil {
		return err
	}
	if s.ValidFrom, err = jws.Date(claims, "nbf"); err != nil {
		return err
	}
	if s.ValidUntil, err = jws.Date(claims, "exp"); err != nil {
		return err
	}
	if s.ValidFrom.IsZero() {
		s.ValidFrom = s.Signed
	}
	if s.Signed.IsZero() {
		s.Signed = s.ValidFrom
	}
	if s.Signed.IsZero() || s.ValidUntil.IsZero() || !s.ValidUntil.After(s.ValidFrom) || !s.ValidUntil.After(s.Signed) {
		return errors.New("exp and one of iat and nbf are required, and exp must be after them")
	}
	return nil
}

// checkBinding refuses a confirmation that is not a public key.
func checkBinding(claims map[string]any) error {
	cnf, has := claims["cnf"]
	if !has {
		return nil
	}
	members, _ := cnf.(map[string]any)
	if len(members) != 1 || members["jwk"] == nil {
		return errors.New("cnf must hold a jwk and nothing else")
	}
	data, err := json.Marshal(members["jwk"])
	if err != nil {
		return err
	}
	if _, err := jws.ParsePublicJWK(data); err != nil {
		return fmt.Errorf("cnf: %w", err)
	}
	return nil
}

// checkDigests holds every _sd array and every array placeholder against its
// form, and refuses a digest that is there twice (RFC 9901 §7.1).
func checkDigests(value any, top bool, seen map[string]bool) error {
	note := func(v any) error {
		digest, ok := v.(string)
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(digest); !ok || err != nil || len(raw) != sha256.Size || seen[digest] {
			return errors.New("a digest is malformed or there twice")
		}
		seen[digest] = true
		return nil
	}
	switch value := value.(type) {
	case map[string]any:
		for name, member := range value {
			switch {
			case name == "_sd":
				list, ok := member.([]any)
				if !ok || len(list) == 0 {
					return errors.New("_sd is not a list of digests")
				}
				for _, d := range list {
					if err := note(d); err != nil {
						return err
					}
				}
				continue
			case name == "...":
				if len(value) != 1 {
					return errors.New("an array placeholder has other members")
				}
				if err := note(member); err != nil {
					return err
				}
				continue
			case name == "_sd_alg" && !top:
				return errors.New("_sd_alg stands below the top")
			}
			if err := checkDigests(member, false, seen); err != nil {
				return err
			}
		}
	case []any:
		for _, element := range value {
			if err := checkDigests(element, false, seen); err != nil {
				return err
			}
		}
	}
	return nil
}
