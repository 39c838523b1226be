package oid4vci

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"chancery/issuance/configuration"
)

// draftOf fetches what the draft's wallets fetch.
func draftOf(t *testing.T, identifier, draft string) map[string]any {
	t.Helper()
	settings := allOn(t, identifier)
	settings.Compatibility = draft
	_, client := described(t, settings, everything(t), encrypted(t))
	a := do(t, client, http.MethodGet, identifier+"/.well-known/openid-credential-issuer", nil)
	want(t, a.status == http.StatusOK && a.header.Get("Content-Type") == "application/json" && a.header.Get("Vary") == "", "check 22", a.header)
	return a.object(t)
}

// inDraft returns the configurations and checks the members of the document.
func inDraft(t *testing.T, metadata map[string]any, identifier string, members, ids []string) map[string]any {
	t.Helper()
	want(t, metadata["credential_issuer"] == identifier, "check 23", metadata["credential_issuer"])
	for _, name := range members {
		want(t, metadata[name] != nil, "missing", name)
	}
	for name := range metadata {
		want(t, slices.Contains(members, name), "not of the draft", name)
	}
	response := metadata["credential_response_encryption"]
	want(t, string(encode(t, response)) == `{"alg_values_supported":["ECDH-ES"],"enc_values_supported":["A128GCM","A256GCM"],"encryption_required":false}`, "encryption", response)
	all, _ := metadata["credential_configurations_supported"].(map[string]any)
	var got []string
	for id, v := range all {
		got = append(got, id)
		c, _ := v.(map[string]any)
		want(t, c["credential_metadata"] == nil, id+" credential_metadata", c)
		display, _ := c["display"].([]any)
		want(t, len(display) > 0, id+" display", c)
		for _, a := range c["credential_signing_alg_values_supported"].([]any) {
			_, text := a.(string)
			want(t, text, id+" signing algorithm", a)
		}
	}
	slices.Sort(got)
	slices.Sort(ids)
	want(t, slices.Equal(got, ids), "configurations", got)
	return all
}

// TestCheck22Draft15: the form of draft 15 below an identifier with a path.
func TestCheck22Draft15(t *testing.T) {
	const identifier = "https://issuer.example.com/t"
	all := inDraft(t, draftOf(t, identifier, configuration.Draft15), identifier,
		[]string{"credential_issuer", "credential_endpoint", "nonce_endpoint", "deferred_credential_endpoint", "notification_endpoint", "batch_credential_issuance", "credential_response_encryption", "display", "credential_configurations_supported"},
		[]string{mdlID, pidID, residenceID, "eu.europa.ec.eudi.pid.mdoc", "attested", "attested-by-anybody", "bearer"}) // not "presented": its di_vp is another
	attested := all["attested"].(map[string]any)
	for name, value := range map[string]string{
		"format":                `"dc+sd-jwt"`,
		"claims":                `[{"display":[{"locale":"en","name":"A"},{"locale":"fr","name":"A"}],"mandatory":true,"path":["a","b"]},{"path":["a","c"]},{"path":["d"]}]`,
		"proof_types_supported": `{"attestation":{"key_attestations_required":KEYS,"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]},"jwt":{"key_attestations_required":KEYS,"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]}}`,
		"order":                 "null",
	} {
		value = strings.ReplaceAll(value, "KEYS", `{"key_storage":["iso_18045_high","iso_18045_moderate"],"user_authentication":["iso_18045_high"]}`)
		want(t, string(encode(t, attested[name])) == value, name, string(encode(t, attested[name])))
	}
	claims, _ := all[residenceID].(map[string]any)["claims"].([]any)
	want(t, claims[0].(map[string]any)["path"].([]any)[0] == "credentialSubject", "a W3C VC's path", claims[0])
}

// TestCheck22Draft13: the form of draft 13 below an identifier with a path.
func TestCheck22Draft13(t *testing.T) {
	const identifier = "https://issuer.example.com/t"
	all := inDraft(t, draftOf(t, identifier, configuration.Draft13), identifier,
		[]string{"credential_issuer", "credential_endpoint", "deferred_credential_endpoint", "notification_endpoint", "credential_response_encryption", "display", "credential_configurations_supported"},
		[]string{mdlID, pidID, residenceID, "eu.europa.ec.eudi.pid.mdoc", "bearer"}) // no key attestations
	for id, members := range map[string]map[string]string{
		"bearer":    {"format": `"vc+sd-jwt"`, "claims": `{"a":{}}`, "order": `["a"]`, "proof_types_supported": "null"},
		pidID:       {"format": `"vc+sd-jwt"`, "vct": `"urn:eudi:pid:1"`, "proof_types_supported": `{"jwt":{"proof_signing_alg_values_supported":["ES256","ES384","EdDSA"]}}`},
		mdlID:       {"format": `"mso_mdoc"`, "doctype": `"org.iso.18013.5.1.mDL"`, "credential_signing_alg_values_supported": `["ES256"]`},
		residenceID: {"format": `"jwt_vc_json"`, "claims": "null"},
	} {
		c := all[id].(map[string]any)
		for name, value := range members {
			want(t, string(encode(t, c[name])) == value, id+" "+name, string(encode(t, c[name])))
		}
	}
	element, _ := all[mdlID].(map[string]any)["claims"].(map[string]any)["org.iso.18013.5.1"].(map[string]any)["family_name"].(map[string]any)
	want(t, element["mandatory"] == true && element["display"] != nil, "an mdoc's element", element)
	order, _ := all[mdlID].(map[string]any)["order"].([]any)
	want(t, len(order) > 0 && order[0] == "org.iso.18013.5.1~family_name", "an mdoc's order", order)
	address, _ := all[pidID].(map[string]any)["claims"].(map[string]any)["address"].(map[string]any)
	locality, _ := address["locality"].(map[string]any)
	want(t, locality["display"] != nil && address["display"] == nil, "a claim within another", address)
	subject, _ := all[residenceID].(map[string]any)["credential_definition"].(map[string]any)["credentialSubject"].(map[string]any)
	want(t, len(subject) > 0, "a W3C VC's claims", all[residenceID])
}

// TestCompatibilityTakesNothing: what wallets of 1.0 are served is the same with
// and without a draft's wallets beside them, but for members they do not know.
func TestCompatibilityTakesNothing(t *testing.T) {
	for _, identifier := range []string{"https://issuer.example.com", "https://issuer.example.com/t"} {
		for _, draft := range []string{configuration.Draft13, configuration.Draft15} {
			settings := allOn(t, identifier)
			plain, _ := described(t, settings, everything(t), encryptionMetadata{})
			settings.Compatibility = draft
			both, _ := described(t, settings, everything(t), encryptionMetadata{})
			metadata := answer{body: both.published.Load().metadata.body}.object(t)
			for id, v := range metadata["credential_configurations_supported"].(map[string]any) {
				c := v.(map[string]any)
				inner := c["credential_metadata"].(map[string]any)
				display, claims := c["display"], c["claims"]
				rooted := identifier == "https://issuer.example.com"
				want(t, (display != nil) == rooted && (claims != nil) == (rooted && draft == configuration.Draft15), id+" added", c)
				want(t, display == nil || string(encode(t, display)) == string(encode(t, inner["display"])), id+" display", display)
				want(t, claims == nil || string(encode(t, claims)) == string(encode(t, inner["claims"])), id+" claims", claims)
				delete(c, "display")
				delete(c, "claims")
			}
			alone := answer{body: plain.published.Load().metadata.body}.object(t)
			want(t, string(encode(t, metadata)) == string(encode(t, alone)), identifier+" "+draft, "the metadata of 1.0 is another one")
		}
	}
}
