package verifier

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chancery/verifier/strictjson"
)

// neverDisclosed are the claims that must not come from a disclosure (SD-JWT VC §2.2.2.3).
var neverDisclosed = []string{"iss", "nbf", "exp", "cnf", "vct", "vct#integrity", "status", "aka_vcts"}

// disclosure is one decoded disclosure (RFC 9901 §4.2).
type disclosure struct {
	salt   string
	name   string // empty for an array element
	value  any
	member bool // an object's property, not an array's element
	used   bool
}

// unveiling replaces digests by what their disclosures hold.
type unveiling struct {
	byDigest map[string]*disclosure
	seen     map[string]bool // every digest met, to find repetitions
	claims   []Claim
}

// sdjwt runs the verifier's checklist (RFC 9901 §7.1, SD-JWT VC §2.4).
func (v *verification) sdjwt(text string) {
	const source = "RFC 9901 §4, §7.1"
	parts := strings.Split(text, "~")
	j, err := parseJWS(parts[0])
	if last := parts[len(parts)-1]; err == nil && last != "" {
		err = errors.New("it does not end with \"~\": an issuer delivers no key binding JWT")
	}
	if err == nil {
		err = sdJWTHeader(j)
	}
	if !v.verdict(checkEncoding, source, err, fmt.Sprintf("an SD-JWT with %d disclosures", max(len(parts)-2, 0))) {
		return
	}
	issuer, err := optionalText(j.payload, "iss")
	v.report.Issuer = issuer
	if err == nil && issuer == "" && len(j.chain) == 0 {
		err = errors.New("without x5c there must be an iss")
	}
	v.verdict("iss", "SD-JWT VC §2.2.2.2", err, "well formed")
	key, leaf := v.issuerKey(j, issuer)
	if leaf != nil && issuer == "" {
		v.report.Issuer = leaf.Subject.String()
	}
	v.jwsSignature(j, key)
	v.vct(j.payload)
	v.disclosures(j.payload, parts[1:len(parts)-1])
	v.jwtTimes(j.payload, "RFC 7519 §4.1")
	v.confirmation(j.payload)
	v.statusClaim(j.payload)
}

func sdJWTHeader(j *jws) error {
	switch typ := j.header["typ"]; typ {
	case "dc+sd-jwt":
		return nil
	case "vc+sd-jwt":
		return errors.New("typ is vc+sd-jwt, a draft's name; it must be dc+sd-jwt")
	}
	return errors.New("typ is not dc+sd-jwt")
}

func (v *verification) vct(payload map[string]any) {
	const source = "SD-JWT VC §2.2.2.1"
	vct, ok := payload["vct"].(string)
	v.report.Type = vct
	var err error
	switch {
	case !ok || vct == "":
		err = errors.New("vct is missing or no string")
	case v.o.Type != "" && vct != v.o.Type:
		err = fmt.Errorf("vct is %q, expected %q", vct, v.o.Type)
	}
	v.verdict("type", source, err, vct)
}

// disclosures decodes every disclosure, puts it where its digest stands, and
// insists that each has exactly one place.
func (v *verification) disclosures(payload map[string]any, texts []string) {
	const source = "RFC 9901 §7.1"
	hash, err := disclosureHash(payload)
	if err != nil {
		v.fail(checkDisclosures, source, "%v", err)
		return
	}
	u := &unveiling{byDigest: map[string]*disclosure{}, seen: map[string]bool{}}
	var faults []string
	salts := map[string]bool{}
	weak := 0
	for i, text := range texts {
		d, err := parseDisclosure(text)
		if err != nil {
			faults = append(faults, fmt.Sprintf("disclosure %d: %v", i+1, err))
			continue
		}
		digest := disclosureDigest(hash, text)
		if u.byDigest[digest] != nil {
			faults = append(faults, fmt.Sprintf("disclosure %d is there twice", i+1))
		}
		u.byDigest[digest] = d
		if salts[d.salt] || len(d.salt) < 22 {
			weak++
		}
		salts[d.salt] = true
	}
	top := without(payload, "_sd_alg")
	if err := u.object(nil, top, false, 0); err != nil {
		faults = append(faults, err.Error())
	}
	for i, text := range texts {
		if d := u.byDigest[disclosureDigest(hash, text)]; d != nil && !d.used {
			faults = append(faults, fmt.Sprintf("disclosure %d is referenced by no digest", i+1))
		}
	}
	slices.SortStableFunc(u.claims, func(a, b Claim) int { return slices.Compare(a.Path, b.Path) })
	v.report.Claims = append(v.report.Claims, u.claims...)
	v.faults(checkDisclosures, source, faults, fmt.Sprintf("all %d match a digest; %d digests in all", len(texts), len(u.seen)))
	if weak > 0 {
		v.fail("salts", "RFC 9901 §9.3", "%d are shorter than 128 bits or used twice", weak)
	} else {
		v.pass("salts", "RFC 9901 §9.3", "at least 128 bits, all different")
	}
	v.sortedDigests(payload)
}

// sortedDigests warns when the top level's digests stand in the disclosures'
// order of names, which would tell what they are.
func (v *verification) sortedDigests(payload map[string]any) {
	list, _ := payload["_sd"].([]any)
	if len(list) == 0 {
		return
	}
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i], _ = item.(string)
	}
	const name, source = "digest order", "RFC 9901 §4.2.4.1"
	if slices.IsSorted(texts) {
		v.pass(name, source, "sorted, so that it tells nothing")
	} else {
		v.warn(name, source, "not sorted; it must not follow the claims' order")
	}
}

func disclosureHash(payload map[string]any) (crypto.Hash, error) {
	name, found := payload["_sd_alg"]
	if !found {
		return crypto.SHA256, nil
	}
	switch name {
	case "sha-256":
		return crypto.SHA256, nil
	case "sha-384":
		return crypto.SHA384, nil
	case "sha-512":
		return crypto.SHA512, nil
	}
	return 0, errors.New("_sd_alg is none of sha-256, sha-384, sha-512")
}

func disclosureDigest(hash crypto.Hash, text string) string {
	h := hash.New()
	h.Write([]byte(text))
	return encodeURL(h.Sum(nil))
}

func parseDisclosure(text string) (*disclosure, error) {
	data, err := unpad(text)
	if err != nil {
		return nil, errors.New("not base64url without padding")
	}
	value, err := strictjson.Decode(data)
	if err != nil {
		return nil, err
	}
	list, _ := value.([]any)
	if len(list) != 2 && len(list) != 3 {
		return nil, errors.New("no array of 2 or 3 elements")
	}
	d := &disclosure{value: list[len(list)-1], member: len(list) == 3}
	var ok bool
	if d.salt, ok = list[0].(string); !ok {
		return nil, errors.New("its salt is no string")
	}
	if !d.member {
		return d, nil
	}
	if d.name, ok = list[1].(string); !ok || d.name == "_sd" || d.name == "..." {
		return nil, errors.New("its claim name is no string or a reserved one")
	}
	return d, nil
}

// take returns the disclosure of a digest, nil for a decoy. A digest that was
// met before is an error.
func (u *unveiling) take(value any) (*disclosure, error) {
	digest, ok := value.(string)
	if !ok {
		return nil, errors.New("a digest is no string")
	}
	if u.seen[digest] {
		return nil, errors.New("a digest stands in two places")
	}
	u.seen[digest] = true
	d := u.byDigest[digest]
	if d != nil {
		d.used = true
	}
	return d, nil
}

// object walks an object and adds its claims, disclosed ones too.
func (u *unveiling) object(path []string, object map[string]any, selective bool, depth int) error {
	if depth > strictjson.MaxDepth {
		return errors.New("disclosures nest too deeply")
	}
	if _, found := object["_sd_alg"]; found {
		return errors.New("_sd_alg stands below the top level")
	}
	names := make([]string, 0, len(object))
	for name := range object {
		if name != "_sd" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if name == "..." {
			return errors.New("\"...\" stands outside of an array")
		}
		if err := u.value(child(path, name), object[name], selective, depth); err != nil {
			return err
		}
	}
	hidden, found := object["_sd"]
	if !found {
		return nil
	}
	list, ok := hidden.([]any)
	if !ok {
		return errors.New("_sd is no array")
	}
	for _, item := range list {
		d, err := u.take(item)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		if err := u.member(path, object, names, d, depth); err != nil {
			return err
		}
	}
	return nil
}

// member adds a disclosed property to its object.
func (u *unveiling) member(path []string, object map[string]any, names []string, d *disclosure, depth int) error {
	switch {
	case !d.member:
		return errors.New("an array element's disclosure stands in _sd")
	case slices.Contains(names, d.name):
		return fmt.Errorf("the claim %q is there in plain and as a disclosure", d.name)
	case len(path) > 0 && slices.Contains(neverDisclosed, path[0]), len(path) == 0 && slices.Contains(neverDisclosed, d.name):
		return fmt.Errorf("%q must not be disclosed selectively", slices.Concat(path, []string{d.name})[0])
	}
	for _, claim := range u.claims {
		if slices.Equal(claim.Path, child(path, d.name)) {
			return fmt.Errorf("the claim %q is disclosed twice", d.name)
		}
	}
	return u.value(child(path, d.name), d.value, true, depth)
}

// value adds a claim, and looks into objects and arrays for digests.
func (u *unveiling) value(path []string, value any, selective bool, depth int) error {
	switch x := value.(type) {
	case map[string]any:
		if len(path) == 1 && (path[0] == "cnf" || path[0] == "status") {
			return nil // shown on their own
		}
		return u.object(path, x, selective, depth+1)
	case []any:
		return u.array(path, x, selective, depth+1)
	}
	u.claims = append(u.claims, Claim{Path: path, Value: value, Text: describeValue(value), Selective: selective})
	return nil
}

func (u *unveiling) array(path []string, items []any, selective bool, depth int) error {
	if depth > strictjson.MaxDepth {
		return errors.New("disclosures nest too deeply")
	}
	for i, item := range items {
		at := child(path, strconv.Itoa(i))
		holder, isObject := item.(map[string]any)
		digest, isDigest := holder["..."]
		if !isObject || !isDigest {
			if err := u.value(at, item, selective, depth); err != nil {
				return err
			}
			continue
		}
		if len(holder) != 1 {
			return errors.New("an array element has \"...\" beside other members")
		}
		d, err := u.take(digest)
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		if d.member {
			return errors.New("a property's disclosure stands in an array")
		}
		if slices.Contains(neverDisclosed, path[0]) {
			return fmt.Errorf("%q must not be disclosed selectively", path[0])
		}
		if err := u.value(at, d.value, true, depth); err != nil {
			return err
		}
	}
	return nil
}

// child returns path with one more component, sharing no memory with it.
func child(path []string, name string) []string { return append(slices.Clone(path), name) }

// confirmation reads cnf.jwk, the holder's key.
func (v *verification) confirmation(payload map[string]any) {
	const source = "SD-JWT VC §2.2.2.2; RFC 7800 §3.2"
	value, found := payload["cnf"]
	if !found {
		v.holder(nil, source)
		return
	}
	cnf, _ := value.(map[string]any)
	jwk, ok := cnf["jwk"].(map[string]any)
	if !ok || len(cnf) != 1 {
		v.fail("holder binding", source, "cnf holds no jwk alone")
		return
	}
	key, err := publicJWK(jwk)
	if err != nil {
		v.fail("holder binding", source, "cnf.jwk %v", err)
		return
	}
	v.holder(key, source)
}

// statusClaim checks the form of a status list reference; the list is not read.
func (v *verification) statusClaim(payload map[string]any) {
	value, found := payload["status"]
	if !found {
		return
	}
	const source = "Token Status List §6.2"
	status, _ := value.(map[string]any)
	list, _ := status["status_list"].(map[string]any)
	index, isNumber := list["idx"].(json.Number)
	uri, _ := list["uri"].(string)
	if n, err := index.Int64(); !isNumber || err != nil || n < 0 || uri == "" {
		v.fail("status", source, "status.status_list lacks a non-negative idx or a uri")
		return
	}
	v.skip("status", source, "the credential has a status reference; its list was not read")
}

// optionalText returns a claim that must be a non-empty string if it is there.
func optionalText(object map[string]any, name string) (string, error) {
	value, found := object[name]
	if !found {
		return "", nil
	}
	text, ok := value.(string)
	if !ok || text == "" {
		return "", fmt.Errorf("%s is no string", name)
	}
	return text, nil
}

// without returns a copy of object that lacks one member.
func without(object map[string]any, name string) map[string]any {
	rest := make(map[string]any, len(object))
	for k, value := range object {
		if k != name {
			rest[k] = value
		}
	}
	return rest
}
