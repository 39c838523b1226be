// Package w3cvc prepares W3C Verifiable Credentials as JWT, format jwt_vc_json
// (VCDM 1.1 §6.3.1, OpenID4VCI 1.0 A.1.1), complete but for the signature.
package w3cvc

import (
	"crypto"
	"errors"
	"fmt"
	"strings"
	"time"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// baseContext and baseType are those of every VCDM 1.1 credential (§4.1, §4.3).
const (
	baseContext = "https://www.w3.org/2018/credentials/v1"
	baseType    = "VerifiableCredential"
)

// Request is what goes into one credential.
type Request struct {
	// ID becomes jti and vc.id: a URI, random for each credential.
	ID string
	// Issuer is the issuer's DID, KeyID the DID URL of the signing key.
	Issuer, KeyID string
	// Types are the credential's own, without VerifiableCredential.
	Types []string
	// Contexts follow the base context.
	Contexts []string
	// Subject holds the claims; the map is not changed.
	Subject map[string]any
	// SubjectID is the holder's DID without fragment; it becomes sub and
	// credentialSubject.id. Empty means no subject identifier.
	SubjectID string
	// Holder becomes cnf.jwk; nil leaves it out.
	Holder crypto.PublicKey
	// Algorithm must be the one of the signing key.
	Algorithm issuance.Algorithm
	// ValidFrom becomes nbf and issuanceDate, ValidUntil exp and expirationDate;
	// both are cut to whole seconds.
	ValidFrom, ValidUntil time.Time
}

// Prepare builds the credential; Assemble returns the compact JWT. Members that
// VCDM maps to JWT claims stand in both places with the same value, because
// verifiers differ in which they read.
func Prepare(r Request) (*issuance.Prepared, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	subject := make(map[string]any, len(r.Subject)+1)
	for name, value := range r.Subject {
		subject[name] = value
	}
	if r.SubjectID != "" {
		subject["id"] = r.SubjectID
	}
	payload := map[string]any{
		"iss": r.Issuer, "jti": r.ID, "nbf": r.ValidFrom.Unix(), "exp": r.ValidUntil.Unix(),
		"vc": map[string]any{
			"@context": append([]string{baseContext}, r.Contexts...), "type": append([]string{baseType}, r.Types...),
			"id": r.ID, "issuer": r.Issuer, "issuanceDate": dateTime(r.ValidFrom), "expirationDate": dateTime(r.ValidUntil),
			"credentialSubject": subject,
		},
	}
	if r.SubjectID != "" {
		payload["sub"] = r.SubjectID
	}
	if r.Holder != nil {
		jwk, err := jws.PublicJWK(r.Holder)
		if err != nil {
			return nil, fmt.Errorf("the holder's key: %w", err)
		}
		payload["cnf"] = map[string]any{"jwk": jwk}
	}
	tbs, err := jws.Input(jws.Header{Algorithm: r.Algorithm, Type: "JWT", KeyID: r.KeyID}, payload)
	if err != nil {
		return nil, errors.New("the claims cannot be encoded as JSON")
	}
	used := false
	assemble := func(signature []byte) (string, error) {
		if used || len(signature) != r.Algorithm.SignatureSize() {
			return "", errors.New("a prepared credential is assembled once, with a signature of the algorithm's length")
		}
		used = true
		return jws.Join(tbs, signature), nil
	}
	return &issuance.Prepared{Format: issuance.FormatJWTVC, Algorithm: r.Algorithm, TBS: tbs, Assemble: assemble}, nil
}

func (r Request) check() error {
	switch {
	case r.ID == "" || !strings.Contains(r.ID, ":"):
		return errors.New("a credential needs an id that is a URI")
	case !strings.HasPrefix(r.Issuer, "did:") || !strings.HasPrefix(r.KeyID, r.Issuer+"#"):
		return errors.New("the issuer is a DID and the key id a DID URL of it")
	case len(r.Types) == 0:
		return errors.New("a credential needs a type of its own")
	case r.Algorithm.SignatureSize() == 0:
		return fmt.Errorf("algorithm %q cannot sign a JWT", r.Algorithm)
	case !r.ValidUntil.After(r.ValidFrom):
		return errors.New("the end of validity must be after its start")
	case r.Subject["id"] != nil:
		return errors.New("claim \"id\" is the holder's identifier and cannot be given")
	}
	return nil
}

func dateTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// ParseTBS reads a signing input back and demands that what stands twice is the
// same (VCDM 1.1 §6.3.1).
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	header, claims, err := jws.Parse(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	if header.Type != "JWT" || header.Algorithm.SignatureSize() == 0 || header.KeyID == "" || header.X5C != nil {
		return issuance.Statement{}, errors.New("header: typ must be JWT, alg known, kid there and x5c not")
	}
	s := issuance.Statement{Format: issuance.FormatJWTVC, Algorithm: header.Algorithm, KeyID: header.KeyID}
	if s.Issuer, err = jws.String(claims, "iss"); err != nil {
		return issuance.Statement{}, err
	}
	if s.ValidFrom, err = jws.Date(claims, "nbf"); err != nil {
		return issuance.Statement{}, err
	}
	if s.ValidUntil, err = jws.Date(claims, "exp"); err != nil {
		return issuance.Statement{}, err
	}
	if s.ValidFrom.IsZero() || !s.ValidUntil.After(s.ValidFrom) {
		return issuance.Statement{}, errors.New("nbf and exp are required, in this order")
	}
	s.Signed = s.ValidFrom
	vc, ok := claims["vc"].(map[string]any)
	if !ok {
		return issuance.Statement{}, errors.New("vc is missing")
	}
	if s.Types, err = types(vc); err != nil {
		return issuance.Statement{}, err
	}
	subject, ok := vc["credentialSubject"].(map[string]any)
	if !ok {
		return issuance.Statement{}, errors.New("vc.credentialSubject is not an object")
	}
	for _, pair := range []struct {
		name  string
		a, b  any
		value bool
	}{
		{"iss and vc.issuer", claims["iss"], vc["issuer"], true},
		{"jti and vc.id", claims["jti"], vc["id"], true},
		{"nbf and vc.issuanceDate", dateTime(s.ValidFrom), vc["issuanceDate"], true},
		{"exp and vc.expirationDate", dateTime(s.ValidUntil), vc["expirationDate"], true},
		{"sub and vc.credentialSubject.id", claims["sub"], subject["id"], false},
	} {
		if pair.a != pair.b || (pair.value && pair.a == nil) {
			return issuance.Statement{}, fmt.Errorf("%s differ", pair.name)
		}
	}
	return s, nil
}

// types returns the credential's own types.
func types(vc map[string]any) ([]string, error) {
	contexts, _ := vc["@context"].([]any)
	if len(contexts) == 0 || contexts[0] != baseContext {
		return nil, errors.New("vc.@context does not begin with the base context")
	}
	list, _ := vc["type"].([]any)
	if len(list) < 2 || list[0] != baseType {
		return nil, errors.New("vc.type must be VerifiableCredential and a type of its own")
	}
	var own []string
	for _, t := range list[1:] {
		name, ok := t.(string)
		if !ok || name == "" || name == baseType {
			return nil, errors.New("vc.type holds something that is no type")
		}
		own = append(own, name)
	}
	return own, nil
}
