// Package w3cvc prepares W3C Verifiable Credentials as JWT, format jwt_vc_json
// (VCDM 1.1 §6.3.1, OpenID4VCI 1.0 A.1.1), complete but for the signature.
package w3cvc

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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
	// Subject holds the claims, JSON values; the map is not changed.
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
	from, until, err := r.check()
	if err != nil {
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
		"iss": r.Issuer, "jti": r.ID, "nbf": from, "exp": until,
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
		if payload["cnf"], err = jws.Confirmation(r.Holder); err != nil {
			return nil, err
		}
	}
	tbs, err := jws.Input(jws.Header{Algorithm: r.Algorithm, Type: "JWT", KeyID: r.KeyID}, payload)
	if err != nil {
		return nil, errors.New("the claims cannot be encoded as JSON")
	}
	return issuance.NewPrepared(issuance.FormatJWTVC, r.Algorithm, tbs, func(signature []byte) (string, error) {
		return jws.Join(tbs, signature), nil
	}), nil
}

// check refuses what [ParseTBS] would refuse, and returns nbf and exp.
func (r Request) check() (from, until int64, err error) {
	_, given := r.Subject["id"]
	switch {
	case !strings.Contains(r.ID, ":"):
		return 0, 0, errors.New("a credential needs an id that is a URI")
	case !strings.HasPrefix(r.Issuer, "did:") || strings.Contains(r.Issuer, "#") || !keyOf(r.KeyID, r.Issuer):
		return 0, 0, errors.New("the issuer is a DID and the key id a DID URL of it")
	case len(r.Types) == 0 || slices.Contains(r.Types, "") || slices.Contains(r.Types, baseType):
		return 0, 0, errors.New("a credential needs types of its own, beside VerifiableCredential")
	case slices.Contains(r.Contexts, "") || slices.Contains(r.Contexts, baseContext):
		return 0, 0, errors.New("contexts are URIs; the base context comes by itself")
	case r.SubjectID != "" && (!strings.HasPrefix(r.SubjectID, "did:") || strings.Contains(r.SubjectID, "#")):
		return 0, 0, errors.New("the subject's identifier is a DID without fragment")
	case given:
		return 0, 0, errors.New("claim \"id\" is the holder's identifier and cannot be given")
	case r.Algorithm.SignatureSize() == 0:
		return 0, 0, fmt.Errorf("algorithm %q cannot sign a JWT", r.Algorithm)
	}
	for _, text := range slices.Concat([]string{r.ID, r.Issuer, r.KeyID, r.SubjectID}, r.Types, r.Contexts) {
		if !utf8.ValidString(text) {
			return 0, 0, errors.New("identifiers, types and contexts are valid UTF-8")
		}
	}
	if err := jws.CheckValue(r.Subject); err != nil {
		return 0, 0, fmt.Errorf("subject: %w", err)
	}
	if from, err = jws.NumericDate(r.ValidFrom); err != nil {
		return 0, 0, err
	}
	if until, err = jws.NumericDate(r.ValidUntil); err != nil {
		return 0, 0, err
	}
	if until <= from {
		return 0, 0, errors.New("the end of validity must be after its start")
	}
	return from, until, nil
}

// keyOf tells whether a key id is a DID URL with a fragment, of that DID.
func keyOf(keyID, issuer string) bool {
	fragment, ok := strings.CutPrefix(keyID, issuer+"#")
	return ok && fragment != ""
}

func dateTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// members are what a payload and its vc may hold; whatever else stands there
// would be signed without anybody having looked at it.
var (
	payloadMembers = []string{"iss", "jti", "nbf", "exp", "sub", "cnf", "vc"}
	vcMembers      = []string{"@context", "type", "id", "issuer", "issuanceDate", "expirationDate", "credentialSubject"}
)

// ParseTBS reads a signing input back: the header and the members that
// [Prepare] writes and no others, and the same value in what stands twice
// (VCDM 1.1 §6.3.1).
func ParseTBS(tbs []byte) (issuance.Statement, error) {
	header, claims, err := jws.Parse(tbs)
	if err != nil {
		return issuance.Statement{}, err
	}
	if header.Type != "JWT" || header.Algorithm.SignatureSize() == 0 || header.X5C != nil {
		return issuance.Statement{}, errors.New("header: typ must be JWT, alg known, and x5c not there")
	}
	s := issuance.Statement{Format: issuance.FormatJWTVC, Algorithm: header.Algorithm, KeyID: header.KeyID}
	if s.Issuer, err = jws.String(claims, "iss"); err != nil {
		return issuance.Statement{}, err
	}
	if !keyOf(s.KeyID, s.Issuer) {
		return issuance.Statement{}, errors.New("header: kid must be a DID URL of iss")
	}
	if s.ValidFrom, s.ValidUntil, err = jws.Validity(claims); err != nil {
		return issuance.Statement{}, err
	}
	s.Signed = s.ValidFrom
	vc, ok := claims["vc"].(map[string]any)
	if !ok {
		return issuance.Statement{}, errors.New("vc is missing or not an object")
	}
	if err := onlyMembers(claims, payloadMembers, "the payload"); err != nil {
		return issuance.Statement{}, err
	}
	if err := onlyMembers(vc, vcMembers, "vc"); err != nil {
		return issuance.Statement{}, err
	}
	if s.Types, err = types(vc); err != nil {
		return issuance.Statement{}, err
	}
	if err := sameTwice(claims, vc, s); err != nil {
		return issuance.Statement{}, err
	}
	if err := jws.CheckConfirmation(claims); err != nil {
		return issuance.Statement{}, err
	}
	return s, nil
}

func onlyMembers(object map[string]any, allowed []string, what string) error {
	for name := range object {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("%s holds a member beside %s", what, strings.Join(allowed, ", "))
		}
	}
	return nil
}

// sameTwice compares what stands both in the payload and in the credential.
// Each is a string, or for a subject without identifier absent in both.
func sameTwice(claims, vc map[string]any, s issuance.Statement) error {
	subject, ok := vc["credentialSubject"].(map[string]any)
	if !ok {
		return errors.New("vc.credentialSubject is not an object")
	}
	id, err := jws.String(claims, "jti")
	if err != nil {
		return err
	}
	for _, pair := range []struct{ member, want string }{
		{"issuer", s.Issuer}, {"id", id}, {"issuanceDate", dateTime(s.ValidFrom)}, {"expirationDate", dateTime(s.ValidUntil)},
	} {
		if vc[pair.member] != pair.want {
			return fmt.Errorf("vc.%s differs from the payload's claim of the same meaning", pair.member)
		}
	}
	_, inPayload := claims["sub"]
	_, inSubject := subject["id"]
	if !inPayload && !inSubject {
		return nil
	}
	holder, err := jws.String(claims, "sub")
	if err != nil {
		return err
	}
	if subject["id"] != holder {
		return errors.New("sub and vc.credentialSubject.id differ")
	}
	return nil
}

// types returns the credential's own types.
func types(vc map[string]any) ([]string, error) {
	contexts, err := texts(vc["@context"])
	if err != nil || contexts[0] != baseContext {
		return nil, errors.New("vc.@context must be a list of URIs that begins with the base context")
	}
	list, err := texts(vc["type"])
	if err != nil || len(list) < 2 || list[0] != baseType || slices.Contains(list[1:], baseType) {
		return nil, errors.New("vc.type must be VerifiableCredential and types of its own")
	}
	return list[1:], nil
}

// texts reads a list of strings; neither it nor one of them may be empty.
func texts(value any) ([]string, error) {
	list, _ := value.([]any)
	out := make([]string, len(list))
	for i, element := range list {
		out[i], _ = element.(string)
	}
	if len(out) == 0 || slices.Contains(out, "") {
		return nil, errors.New("not a list of strings")
	}
	return out, nil
}
