// Package domainlinkage prepares domain linkage credentials, by which a did:web
// says which origin it belongs to (DIF Well Known DID Configuration), complete but
// for the signature, and the resource that holds them.
package domainlinkage

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/jws"
)

// Path is where the resource is, at the root of the origin, whatever the path of
// the DID (DIF Well Known DID Configuration, "DID Configuration Resource").
const Path = "/.well-known/did-configuration.json"

// Type is the credential's own type.
const Type = "DomainLinkageCredential"

// Contexts of the credential; the resource has the second one alone.
const (
	baseContext = "https://www.w3.org/2018/credentials/v1"
	context     = "https://identity.foundation/.well-known/did-configuration/v1"
)

// Material is what a domain linkage credential is made of. Issuer, subject and
// origin follow from the key's DID URL: a DID speaks for itself, and for the host
// that serves its document.
type Material struct {
	// KeyID is the signing key's DID URL, of a did:web.
	KeyID string
	// Algorithm must be the one of the signing key.
	Algorithm issuance.Algorithm
	// ValidFrom and ValidUntil are cut to whole seconds; ValidUntil is the later one.
	ValidFrom, ValidUntil time.Time
}

// Prepare builds the credential in its JWT form ("JSON Web Token Proof Format"):
// alg and kid alone in the header; exp, iss, nbf, sub and vc alone in the payload;
// no identifier. Assemble returns the compact JWT. What [ParseTBS] would refuse is
// refused here.
func Prepare(m Material) (*issuance.Prepared, error) {
	id, _, _ := strings.Cut(m.KeyID, "#")
	origin, err := did.WebOrigin(id)
	if err != nil {
		return nil, fmt.Errorf("the key's identifier: %w", err)
	}
	payload := map[string]any{"iss": id, "sub": id}
	for name, t := range map[string]time.Time{"nbf": m.ValidFrom, "exp": m.ValidUntil} {
		if payload[name], err = jws.NumericDate(t); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	payload["vc"] = credential(id, origin, m.ValidFrom, m.ValidUntil)
	tbs, err := jws.Input(jws.Header{Algorithm: m.Algorithm, KeyID: m.KeyID}, payload)
	if err != nil {
		return nil, err
	}
	if _, err := ParseTBS(tbs); err != nil {
		return nil, err
	}
	return issuance.NewPrepared(issuance.FormatDomain, m.Algorithm, tbs, func(signature []byte) (string, error) {
		return jws.Join(tbs, signature), nil
	}), nil
}

// credential is the vc claim: what it says twice, it says the same ("Domain
// Linkage Credential").
func credential(id, origin string, from, until time.Time) map[string]any {
	return map[string]any{
		"@context":          []any{baseContext, context},
		"type":              []any{"VerifiableCredential", Type},
		"issuer":            id,
		"issuanceDate":      dateTime(from),
		"expirationDate":    dateTime(until),
		"credentialSubject": map[string]any{"id": id, "origin": origin},
	}
}

func dateTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// ParseTBS reads a signing input back: what [Prepare] writes and nothing else. The
// issuer is a did:web, the subject itself, the key one of its own, and the origin
// its own host, so that a key can link its DID to no other host than the one that
// already speaks for it. The statement has no types: the format says what it is.
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	header, claims, err := jws.Parse(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	if header.Algorithm.SignatureSize() == 0 || header.Type != "" || header.X5C != nil {
		return issuance.Statement{}, errors.New("header: alg must be known, and beside it and kid there is nothing")
	}
	s := issuance.Statement{Format: issuance.FormatDomain, Algorithm: header.Algorithm, KeyID: header.KeyID}
	if s.Issuer, err = jws.String(claims, "iss"); err != nil {
		return issuance.Statement{}, err
	}
	if fragment, of := strings.CutPrefix(s.KeyID, s.Issuer+"#"); !of || fragment == "" {
		return issuance.Statement{}, errors.New("header: kid must be a DID URL of iss")
	}
	if s.ValidFrom, s.ValidUntil, err = jws.Validity(claims); err != nil {
		return issuance.Statement{}, err
	}
	s.Signed = s.ValidFrom
	return s, check(claims, s)
}

// check holds the payload against the one there can be for this DID and these times.
func check(claims map[string]any, s issuance.Statement) error {
	if len(claims) != 5 || claims["sub"] != s.Issuer {
		return errors.New("the payload must hold exp, iss, nbf, sub and vc alone, and sub be iss")
	}
	origin, err := did.WebOrigin(s.Issuer)
	if err != nil {
		return fmt.Errorf("iss: %w", err)
	}
	vc, _ := claims["vc"].(map[string]any)
	want := credential(s.Issuer, origin, s.ValidFrom, s.ValidUntil)
	for name, value := range want {
		if !reflect.DeepEqual(vc[name], value) {
			return fmt.Errorf("vc.%s is not the one of a domain linkage credential of iss, with its times and the origin %s", name, origin)
		}
	}
	if len(vc) != len(want) {
		return errors.New("vc holds a member that a domain linkage credential does not have")
	}
	return nil
}

// Resource returns the DID configuration resource with one credential, a compact
// JWT: two members, and no other may be there.
func Resource(compact string) ([]byte, error) {
	return jws.Marshal(map[string]any{"@context": context, "linked_dids": []string{compact}})
}
