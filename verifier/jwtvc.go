package verifier

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// contextV1 is the first context of every VCDM 1.1 credential (§4.1).
const contextV1 = "https://www.w3.org/2018/credentials/v1"

func encodeURL(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// jwtvc checks a W3C Verifiable Credential 1.1 as JWT (VCDM 1.1 §6.3.1).
func (v *verification) jwtvc(text string) {
	const source = "VCDM 1.1 §6.3.1"
	j, err := parseJWS(text)
	var vc map[string]any
	if err == nil {
		if typ, found := j.header["typ"]; found && typ != "JWT" {
			err = errors.New("typ is not JWT")
		}
	}
	if err == nil {
		var ok bool
		if vc, ok = j.payload["vc"].(map[string]any); !ok {
			err = errors.New("the claim vc is missing or no object")
		}
	}
	if !v.verdict(checkEncoding, source, err, "a JWT with a vc claim") {
		return
	}
	issuer, err := optionalText(j.payload, "iss")
	if err == nil && issuer == "" {
		err = errors.New("iss is missing")
	}
	v.report.Issuer = issuer
	v.verdict("iss", source, err, "well formed")
	key, _ := v.issuerKey(j, issuer)
	v.jwsSignature(j, key)
	v.vcType(vc)
	v.vcMapping(j.payload, vc)
	v.jwtTimes(j.payload, "VCDM 1.1 §6.3.1; RFC 7519 §4.1")
	v.vcHolder(j.payload)
	subject, _ := vc["credentialSubject"].(map[string]any)
	v.plainClaims(nil, subject)
	if _, found := vc["credentialStatus"]; found {
		v.skip("status", "VCDM 1.1 §4.9", "the credential has a status reference; its list was not read")
	}
}

func (v *verification) vcType(vc map[string]any) {
	const source = "VCDM 1.1 §4.1, §4.3"
	var types []string
	list, _ := vc["type"].([]any)
	for _, item := range list {
		text, _ := item.(string)
		types = append(types, text)
	}
	contexts, _ := vc["@context"].([]any)
	var err error
	switch {
	case len(contexts) == 0 || contexts[0] != contextV1:
		err = errors.New("@context does not begin with " + contextV1)
	case !slices.Contains(types, "VerifiableCredential") || len(types) < 2 || slices.Contains(types, ""):
		err = errors.New("type is no array of VerifiableCredential and a type of its own")
	case v.o.Type != "" && !slices.Contains(types, v.o.Type):
		err = fmt.Errorf("type lacks %q", v.o.Type)
	}
	for _, t := range types {
		if t != "VerifiableCredential" {
			v.report.Type = t
		}
	}
	v.verdict("type", source, err, strings.Join(types, ", "))
}

// vcMapping checks that the JWT's claims say what the members inside vc say:
// decoders read the one or the other.
func (v *verification) vcMapping(payload, vc map[string]any) {
	const source = "VCDM 1.1 §6.3.1"
	var faults []string
	same := func(claim string, member any, where string) {
		if member != nil && payload[claim] != member {
			faults = append(faults, fmt.Sprintf("%s and vc.%s differ", claim, where))
		}
	}
	issuer := vc["issuer"]
	if object, ok := issuer.(map[string]any); ok {
		issuer = object["id"]
	}
	same("iss", issuer, "issuer")
	same("jti", vc["id"], "id")
	subject, ok := vc["credentialSubject"].(map[string]any)
	if !ok || len(subject) == 0 {
		faults = append(faults, "vc.credentialSubject is missing or no object")
	}
	same("sub", subject["id"], "credentialSubject.id")
	for _, pair := range [][2]string{{"nbf", "issuanceDate"}, {"exp", "expirationDate"}} {
		seconds, err := numericDate(payload, pair[0])
		text, isText := vc[pair[1]].(string)
		switch member, failure := time.Parse(time.RFC3339, text); {
		case err != nil:
			faults = append(faults, err.Error())
		case vc[pair[1]] == nil && seconds == nil && pair[0] == "nbf":
			faults = append(faults, "neither nbf nor vc.issuanceDate is there")
		case vc[pair[1]] == nil:
		case !isText || failure != nil:
			faults = append(faults, "vc."+pair[1]+" is no date and time")
		case seconds == nil || !seconds.Equal(member):
			faults = append(faults, fmt.Sprintf("%s and vc.%s differ", pair[0], pair[1]))
		}
	}
	if _, found := vc["proof"]; found {
		faults = append(faults, "vc.proof has no place in a JWT")
	}
	v.faults("claims agree", source, faults, "the JWT's claims and the members of vc say the same")
}

// vcHolder finds the key the credential is bound to: the subject's DID, or cnf.jwk.
func (v *verification) vcHolder(payload map[string]any) {
	const source = "OpenID4VCI 1.0 A.1.1; RFC 7800 §3.2"
	subject, err := optionalText(payload, "sub")
	if err != nil {
		v.fail("holder binding", source, "%v", err)
		return
	}
	if _, found := payload["cnf"]; found {
		v.confirmation(payload)
		if key, err := selfContainedKey(subject); err == nil && v.report.HolderKey != nil && !sameKey(key, v.report.HolderKey) {
			v.fail("holder binding", source, "sub and cnf.jwk are two different keys")
		}
		return
	}
	if !strings.HasPrefix(subject, "did:jwk:") && !strings.HasPrefix(subject, "did:key:") {
		v.holder(nil, source)
		return
	}
	key, err := selfContainedKey(subject)
	if err != nil {
		v.fail("holder binding", source, "sub: %v", err)
		return
	}
	v.holder(key, source)
}

// plainClaims lists the leaves of an object whose claims are all in plain.
func (v *verification) plainClaims(path []string, object map[string]any) {
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		v.plainClaim(child(path, name), object[name])
	}
}

func (v *verification) plainClaim(path []string, value any) {
	switch x := value.(type) {
	case map[string]any:
		v.plainClaims(path, x)
	case []any:
		for i, item := range x {
			v.plainClaim(child(path, strconv.Itoa(i)), item)
		}
	default:
		v.report.Claims = append(v.report.Claims, Claim{Path: path, Value: value, Text: describeValue(value)})
	}
}
