package oid4vci

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// faults are what is wrong with metadata, each beginning with the number of its check.
type faults []string

func (f *faults) want(holds bool, check, what string, v any) {
	if !holds {
		*f = append(*f, fmt.Sprintf("%s %s: %v", check, what, v))
	}
}

// members refuses members that have no rule.
func (f *faults) members(object map[string]any, what string, known ...string) {
	for name := range object {
		f.want(slices.Contains(known, name), "unknown", what+" has a member without a rule", name)
	}
}

// texts reads a non-empty array of non-empty strings without repetition.
func (f *faults) texts(v any, check, what string) (out []string) {
	list, _ := v.([]any)
	for _, e := range list {
		s, _ := e.(string)
		f.want(s != "" && !slices.Contains(out, s), check, what+" holds an empty or repeated text, or none", v)
		out = append(out, s)
	}
	f.want(len(list) > 0, check, what+" is not a non-empty array", v)
	return out
}

// metadataFaults holds Credential Issuer Metadata as decoded JSON against
// OpenID4VCI 1.0 §12.2.4 and App. A to C: every member has a rule, and one
// without a rule is a fault. drafts allows what wallets of a draft are given
// beside it.
func metadataFaults(identifier string, metadata map[string]any, drafts bool) (f faults) {
	f.members(metadata, "the metadata", "credential_issuer", "credential_endpoint", "nonce_endpoint", "deferred_credential_endpoint", "notification_endpoint",
		"credential_request_encryption", "credential_response_encryption", "batch_credential_issuance", "display", "credential_configurations_supported")
	f.want(metadata["signed_metadata"] == nil, "49", "signed_metadata", metadata["signed_metadata"])
	f.want(metadata["credential_issuer"] == identifier, "23", "credential_issuer", metadata["credential_issuer"])
	u, err := url.Parse(identifier)
	f.want(err == nil && u.Scheme == "https" && u.Host != "" && u.RawQuery == "" && !strings.ContainsAny(identifier, "?#"), "30", "identifier", identifier)
	for name, path := range map[string]string{"credential_endpoint": "/credential", "nonce_endpoint": "/nonce", "deferred_credential_endpoint": "/deferred", "notification_endpoint": "/notification"} {
		text, _ := metadata[name].(string)
		u, err := url.Parse(text)
		f.want(err == nil && u.Scheme == "https" && u.Host != "" && !strings.Contains(text, "#") && text == identifier+path, "29", name, metadata[name])
	}
	if v, has := metadata["display"]; has {
		f.display(v, "display", false, "name", "locale", "logo")
	}
	if v, has := metadata["batch_credential_issuance"]; has {
		batch, _ := v.(map[string]any)
		size, _ := batch["batch_size"].(float64)
		f.want(size >= 2 && size == float64(int(size)) && len(batch) == 1, "43", "batch_credential_issuance", v)
	}
	f.encryption(metadata)
	all, _ := metadata["credential_configurations_supported"].(map[string]any)
	f.want(len(all) > 0, "31", "credential_configurations_supported", metadata["credential_configurations_supported"])
	for id, v := range all {
		c, _ := v.(map[string]any)
		if c["cryptographic_binding_methods_supported"] != nil {
			f.want(metadata["nonce_endpoint"] != nil, "47", "no nonce_endpoint", id)
		}
		f.configuration(id, c, drafts)
	}
	f.empty(metadata, "metadata")
	return f
}

// empty finds arrays without elements and members without a value.
func (f *faults) empty(v any, at string) {
	switch v := v.(type) {
	case nil:
		f.want(at == "path", "69", "a null", at)
	case []any:
		f.want(len(v) > 0, "69", "an empty array", at)
		for _, e := range v {
			f.empty(e, at)
		}
	case map[string]any:
		for name, e := range v {
			f.empty(e, name)
		}
	}
}

// encryption holds both objects against §12.2.4 and §10.
func (f *faults) encryption(metadata map[string]any) {
	request, hasRequest := metadata["credential_request_encryption"].(map[string]any)
	response, hasResponse := metadata["credential_response_encryption"].(map[string]any)
	f.want(hasRequest || !hasResponse, "46", "response encryption alone", response)
	f.want(hasRequest == (metadata["credential_request_encryption"] != nil) && hasResponse == (metadata["credential_response_encryption"] != nil), "44", "encryption is no object", metadata)
	for check, object := range map[string]map[string]any{"44": request, "45": response} {
		if object == nil {
			continue
		}
		f.texts(object["enc_values_supported"], check, "enc_values_supported")
		if zip, has := object["zip_values_supported"]; has {
			f.texts(zip, check, "zip_values_supported")
		}
		_, boolean := object["encryption_required"].(bool)
		f.want(boolean, check, "encryption_required", object["encryption_required"])
	}
	if hasResponse {
		f.members(response, "credential_response_encryption", "alg_values_supported", "enc_values_supported", "zip_values_supported", "encryption_required")
		f.texts(response["alg_values_supported"], "45", "alg_values_supported")
	}
	if !hasRequest {
		return
	}
	f.members(request, "credential_request_encryption", "jwks", "enc_values_supported", "zip_values_supported", "encryption_required")
	set, _ := request["jwks"].(map[string]any)
	keys, _ := set["keys"].([]any)
	f.want(len(keys) > 0, "44", "jwks", set)
	var kids []any
	for _, v := range keys {
		key, _ := v.(map[string]any)
		kid, _ := key["kid"].(string)
		alg, _ := key["alg"].(string)
		f.want(kid != "" && !slices.Contains(kids, any(kid)) && alg != "" && key["kty"] != nil, "44", "a key without a kid of its own, alg or kty", key)
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			f.want(key[private] == nil, "44", "a private member", private)
		}
		kids = append(kids, kid)
	}
}

var (
	localeRule = regexp.MustCompile(`^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$`)
	colorRule  = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	scopeRule  = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]+$`)
	imageRule  = regexp.MustCompile(`^(https://|data:image/).`)
)

// display: non-empty, one object for each language, names, logos and colours.
func (f *faults) display(v any, at string, named bool, known ...string) {
	list, _ := v.([]any)
	f.want(len(list) > 0, "40", at+" is not a non-empty array", v)
	var locales []any
	for _, e := range list {
		d, _ := e.(map[string]any)
		f.members(d, at, known...)
		f.want(!slices.Contains(locales, d["locale"]), "40", at+" has a language twice", v)
		locales = append(locales, d["locale"])
		if v, has := d["locale"]; has {
			locale, _ := v.(string)
			f.want(localeRule.MatchString(locale), "40", at+" locale", v)
		}
		name, _ := d["name"].(string)
		f.want(name != "" || !named && d["name"] == nil, "40", at+" name", d["name"])
		for _, member := range []string{"logo", "background_image"} {
			if v, has := d[member]; has {
				image, _ := v.(map[string]any)
				uri, _ := image["uri"].(string)
				f.want(imageRule.MatchString(uri), "40", at+" "+member+" uri", v)
				f.members(image, at+" "+member, "uri", "alt_text")
			}
		}
		for _, member := range []string{"background_color", "text_color"} {
			if v, has := d[member]; has {
				color, _ := v.(string)
				f.want(colorRule.MatchString(color), "42", at+" "+member, v)
			}
		}
	}
}

// configuration holds one configuration against §12.2.4 and App. A.
func (f *faults) configuration(id string, c map[string]any, drafts bool) {
	known := []string{"format", "scope", "cryptographic_binding_methods_supported", "proof_types_supported", "credential_signing_alg_values_supported", "credential_metadata"}
	if drafts {
		known = append(known, "display", "claims")
	}
	methods, bound := c["cryptographic_binding_methods_supported"]
	types, proven := c["proof_types_supported"].(map[string]any)
	f.want(bound == proven && bound == (len(types) > 0), "32", id+": binding methods without proof types, or the other way round", c)
	var list []string
	if bound {
		list = f.texts(methods, "32", id+" binding methods")
	}
	for name, v := range types {
		f.proofType(id+" "+name, name, v)
	}
	switch c["format"] {
	case "mso_mdoc":
		text, _ := c["doctype"].(string)
		f.want(text != "" && slices.Contains(list, "cose_key"), "37", id+" doctype or cose_key", c)
		known = append(known, "doctype")
	case "dc+sd-jwt":
		text, _ := c["vct"].(string)
		f.want(text != "", "38", id+" vct", c["vct"])
		known = append(known, "vct")
	case "jwt_vc_json":
		definition, _ := c["credential_definition"].(map[string]any)
		types := f.texts(definition["type"], "39", id+" credential_definition.type")
		f.want(len(types) > 1 && types[0] == "VerifiableCredential" && len(definition) == 1, "39", id+" credential_definition", definition)
		known = append(known, "credential_definition")
	default:
		f.want(false, "31", id+" format", c["format"])
	}
	f.members(c, id, known...)
	if v, has := c["credential_signing_alg_values_supported"]; has {
		algorithms, _ := v.([]any)
		f.want(len(algorithms) > 0, "38", id+" signing algorithms", v)
		for _, a := range algorithms {
			number, isNumber := a.(float64)
			f.want(isNumber == (c["format"] == "mso_mdoc") && (!isNumber || number == float64(int(number)) && number < 0), map[bool]string{true: "37", false: "38"}[c["format"] == "mso_mdoc"], id+" signing algorithm", a)
		}
	}
	scope, _ := c["scope"].(string)
	f.want(scopeRule.MatchString(scope), "48", id+" scope", c["scope"])
	metadata, _ := c["credential_metadata"].(map[string]any)
	f.members(metadata, id+" credential_metadata", "display", "claims")
	f.display(metadata["display"], id+" display", true, "name", "locale", "logo", "description", "background_color", "text_color", "background_image")
	f.claims(id, metadata["claims"], c["format"] == "mso_mdoc")
}

// proofType: algorithms, and key attestations only where they are demanded.
func (f *faults) proofType(at, name string, v any) {
	members, _ := v.(map[string]any)
	f.members(members, at, "proof_signing_alg_values_supported", "key_attestations_required")
	f.want(slices.Contains([]string{"jwt", "attestation", "di_vp"}, name), "34", at+": the proof type", name)
	for _, a := range f.texts(members["proof_signing_alg_values_supported"], "34", at) {
		f.want(a != "none" && !strings.HasPrefix(a, "HS"), "34", at+" algorithm", a)
	}
	required, has := members["key_attestations_required"]
	if !has {
		return
	}
	object, ok := required.(map[string]any)
	f.want(ok, "36", at+" key_attestations_required", required)
	f.members(object, at+" key_attestations_required", "key_storage", "user_authentication")
	for dimension, list := range object {
		f.texts(list, "36", at+" "+dimension)
	}
}

// claims: paths that select something, none twice and none within another.
func (f *faults) claims(id string, v any, mdoc bool) {
	list, _ := v.([]any)
	f.want(len(list) > 0, "41", id+" claims", v)
	var seen []string
	for _, e := range list {
		claim, _ := e.(map[string]any)
		f.members(claim, id+" claim", "path", "mandatory", "display")
		path, _ := claim["path"].([]any)
		f.want(len(path) > 0 && (!mdoc || len(path) >= 2), "41", id+" path", claim["path"])
		text := "/"
		for n, step := range path {
			number, isNumber := step.(float64)
			name, isName := step.(string)
			f.want(isName && name != "" || (step == nil || isNumber && number >= 0 && number == float64(int(number))) && n > 0, "41", id+" path", path)
			part, err := json.Marshal(step)
			f.want(err == nil, "41", id+" path", path)
			text += string(part) + "/"
		}
		for _, other := range seen {
			f.want(!strings.HasPrefix(text, other) && !strings.HasPrefix(other, text), "41", id+" paths that contradict each other", text)
		}
		seen = append(seen, text)
		if v, has := claim["mandatory"]; has {
			_, boolean := v.(bool)
			f.want(boolean, "41", id+" mandatory", v)
		}
		if display, has := claim["display"]; has {
			f.display(display, id+" claim display", false, "name", "locale")
		}
	}
}

// sound fails the test for each fault.
func sound(t *testing.T, f faults) {
	t.Helper()
	for _, fault := range f {
		t.Errorf("check %s", fault)
	}
}
