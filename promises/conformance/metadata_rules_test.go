package conformance

import (
	stdjson "encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
)

// issuerMetadata is Credential Issuer Metadata as OpenID4VCI 1.0 §12.2.4 and App.
// A and B have it, without the members that this issuer does not use. It is
// decoded strictly: another member is a fault.
type issuerMetadata struct {
	Issuer         string                              `json:"credential_issuer"`
	Credential     string                              `json:"credential_endpoint"`
	Nonce          string                              `json:"nonce_endpoint"`
	Deferred       string                              `json:"deferred_credential_endpoint"`
	Notification   string                              `json:"notification_endpoint"`
	Request        *requestEncryption                  `json:"credential_request_encryption"`
	Response       *responseEncryption                 `json:"credential_response_encryption"`
	Batch          *batchIssuance                      `json:"batch_credential_issuance"`
	Display        []shown                             `json:"display"`
	Configurations map[string]*credentialConfiguration `json:"credential_configurations_supported"`

	all map[string]any // as it came
}

type batchIssuance struct {
	Size *int `json:"batch_size"`
}

type requestEncryption struct {
	JWKS struct {
		Keys []map[string]any `json:"keys"`
	} `json:"jwks"`
	Enc      []string `json:"enc_values_supported"`
	Zip      []string `json:"zip_values_supported"`
	Required *bool    `json:"encryption_required"`
}

type responseEncryption struct {
	Alg      []string `json:"alg_values_supported"`
	Enc      []string `json:"enc_values_supported"`
	Zip      []string `json:"zip_values_supported"`
	Required *bool    `json:"encryption_required"`
}

type shown struct {
	Name        string   `json:"name"`
	Locale      string   `json:"locale"`
	Logo        *picture `json:"logo"`
	Description string   `json:"description"`
	Background  string   `json:"background_color"`
	Text        string   `json:"text_color"`
	Image       *picture `json:"background_image"`
}

type picture struct {
	URI string `json:"uri"`
	Alt string `json:"alt_text"`
}

type credentialConfiguration struct {
	Format     string               `json:"format"`
	Scope      string               `json:"scope"`
	Algorithms []any                `json:"credential_signing_alg_values_supported"`
	Binding    []string             `json:"cryptographic_binding_methods_supported"`
	Proofs     map[string]proofType `json:"proof_types_supported"`
	Metadata   struct {
		Display []shown     `json:"display"`
		Claims  []described `json:"claims"`
	} `json:"credential_metadata"`
	DocType    string `json:"doctype"`
	VCT        string `json:"vct"`
	Definition *struct {
		Type []string `json:"type"`
	} `json:"credential_definition"`
}

type proofType struct {
	Algorithms  []string               `json:"proof_signing_alg_values_supported"`
	Attestation *keyAttestationDemands `json:"key_attestations_required"`
}

type keyAttestationDemands struct {
	Storage []string `json:"key_storage"`
	User    []string `json:"user_authentication"`
}

type described struct {
	Path      []any   `json:"path"`
	Mandatory bool    `json:"mandatory"`
	Display   []shown `json:"display"`
}

// strictly decodes JSON; unknown members, members there twice, null and empty
// arrays are faults.
func strictly(data []byte, into any) error {
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	return full(v, "")
}

// full finds nulls and empty arrays. In a claim's path null has a meaning.
func full(v any, at string) error {
	switch v := v.(type) {
	case nil:
		if !strings.HasSuffix(at, "/path") {
			return fmt.Errorf("%s is null", at)
		}
	case []any:
		if len(v) == 0 {
			return fmt.Errorf("%s is an empty array", at)
		}
		for _, e := range v {
			if err := full(e, at); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, e := range v {
			if err := full(e, at+"/"+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func parseMetadata(data []byte) (*issuerMetadata, error) {
	m := &issuerMetadata{}
	if err := strictly(data, m); err != nil {
		return nil, err
	}
	return m, stdjson.Unmarshal(data, &m.all)
}

// say reports a fault unless the condition holds.
type say func(holds bool, format string, args ...any)

// metadataRules are the checks of metadata's contents by their numbers.
var metadataRules = map[string]func(say say, m *issuerMetadata, identifier string){
	"023 identifier": func(say say, m *issuerMetadata, identifier string) {
		say(m.Issuer == identifier, "credential_issuer is %s", m.Issuer)
	},
	"029 endpoints": func(say say, m *issuerMetadata, identifier string) {
		for _, endpoint := range []string{m.Credential, m.Nonce, m.Deferred, m.Notification} {
			u, err := url.Parse(endpoint)
			say(err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && !strings.Contains(endpoint, "#"), "endpoint %q", endpoint)
		}
	},
	"030 identifier": func(say say, m *issuerMetadata, _ string) {
		u, err := url.Parse(m.Issuer)
		say(err == nil && u.Scheme == "https" && u.Host != "" && u.User == nil && !strings.ContainsAny(m.Issuer, "?#"), "credential_issuer %q", m.Issuer)
	},
	"031 formats": func(say say, m *issuerMetadata, _ string) {
		say(len(m.Configurations) > 0, "no configurations")
		for id, c := range m.Configurations {
			say(slices.Contains([]string{"mso_mdoc", "dc+sd-jwt", "jwt_vc_json"}, c.Format), "%s: format %q", id, c.Format)
		}
	},
	"032 033 key binding": func(say say, m *issuerMetadata, _ string) {
		for id, c := range m.Configurations {
			say((len(c.Binding) > 0) == (len(c.Proofs) > 0), "%s: binding %v, proofs %v", id, c.Binding, c.Proofs)
			for _, method := range c.Binding {
				say(method == "jwk" || method == "cose_key" || regexp.MustCompile(`^did:[a-z0-9]+$`).MatchString(method), "%s: %q", id, method)
			}
		}
	},
	"034 proof types": func(say say, m *issuerMetadata, _ string) {
		for id, c := range m.Configurations {
			for name, p := range c.Proofs {
				say(slices.Contains([]string{"jwt", "attestation", "di_vp"}, name), "%s: proof type %s", id, name)
				say(len(p.Algorithms) > 0 && distinct(p.Algorithms) && !symmetric(p.Algorithms), "%s %s: %v", id, name, p.Algorithms)
			}
		}
	},
	"037 mdoc": func(say say, m *issuerMetadata, _ string) {
		for id, c := range m.Configurations {
			if c.Format != "mso_mdoc" {
				continue
			}
			say(c.DocType != "" && c.VCT == "" && c.Definition == nil && slices.Contains(c.Binding, "cose_key") && len(c.Algorithms) > 0, "%s: %+v", id, c)
			for _, a := range c.Algorithms {
				number, ok := a.(float64)
				say(ok && number < 0 && number == float64(int(number)), "%s: algorithm %v", id, a)
			}
		}
	},
	"038 SD-JWT VC": func(say say, m *issuerMetadata, _ string) {
		for id, c := range m.Configurations {
			if c.Format == "dc+sd-jwt" {
				say(c.VCT != "" && c.DocType == "" && c.Definition == nil, "%s: %+v", id, c)
				stringAlgorithms(say, id, c)
			}
		}
	},
	"039 W3C": func(say say, m *issuerMetadata, _ string) {
		for id, c := range m.Configurations {
			if c.Format == "jwt_vc_json" {
				say(c.Definition != nil && len(c.Definition.Type) > 1 && c.Definition.Type[0] == "VerifiableCredential" && c.DocType == "" && c.VCT == "", "%s: %+v", id, c)
				stringAlgorithms(say, id, c)
			}
		}
	},
	"040 display":  displayRule,
	"041 claims":   claimsRule,
	"042 colours":  colourRule,
	"043 batches":  batchRule,
	"044 requests": requestRule,
	"045 046 responses": func(say say, m *issuerMetadata, _ string) {
		if r := m.Response; r != nil {
			say(m.Request != nil, "response encryption alone")
			say(len(r.Alg) > 0 && distinct(r.Alg) && len(r.Enc) > 0 && distinct(r.Enc) && distinct(r.Zip) && r.Required != nil, "%+v", r)
		}
	},
	"047 nonces": func(say say, m *issuerMetadata, _ string) {
		say(m.Nonce != "", "no nonce_endpoint")
	},
	"049 signed_metadata": func(say say, m *issuerMetadata, _ string) {
		_, has := m.all["signed_metadata"]
		say(!has, "signed_metadata")
	},
}

func stringAlgorithms(say say, id string, c *credentialConfiguration) {
	say(len(c.Algorithms) > 0, "%s: no algorithms", id)
	for _, a := range c.Algorithms {
		name, ok := a.(string)
		say(ok && name != "" && !symmetric([]string{name}), "%s: algorithm %v", id, a)
	}
}

func distinct(list []string) bool {
	sorted := slices.Sorted(slices.Values(list))
	return len(slices.Compact(sorted)) == len(list) && !slices.Contains(list, "")
}

// symmetric tells whether none or an HMAC is in the list.
func symmetric(list []string) bool {
	return slices.ContainsFunc(list, func(a string) bool { return a == "none" || strings.HasPrefix(a, "HS") })
}

// displays are all display arrays by where they are; named ones must have a name.
func (m *issuerMetadata) displays(use func(at string, list []shown, named bool)) {
	use("issuer", m.Display, false)
	for id, c := range m.Configurations {
		use(id, c.Metadata.Display, true)
		for _, e := range c.Metadata.Claims {
			if e.Display != nil {
				use(fmt.Sprint(id, e.Path), e.Display, false)
			}
		}
	}
}

func displayRule(say say, m *issuerMetadata, _ string) {
	locale := regexp.MustCompile(`^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$`)
	m.displays(func(at string, list []shown, named bool) {
		say(len(list) > 0, "%s: no display", at)
		seen := map[string]bool{}
		for _, d := range list {
			say(d.Name != "" || !named, "%s: no name", at)
			say(!seen[d.Locale] && (d.Locale == "" || locale.MatchString(d.Locale)), "%s: locale %q", at, d.Locale)
			seen[d.Locale] = true
			for _, i := range []*picture{d.Logo, d.Image} {
				say(i == nil || strings.HasPrefix(i.URI, "https://") || strings.HasPrefix(i.URI, "data:image/"), "%s: %+v", at, i)
			}
		}
	})
}

func colourRule(say say, m *issuerMetadata, _ string) {
	colour := regexp.MustCompile(`^#([0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})$`)
	m.displays(func(at string, list []shown, _ bool) {
		for _, d := range list {
			for _, c := range []string{d.Background, d.Text} {
				say(c == "" || colour.MatchString(c), "%s: colour %q", at, c)
			}
		}
	})
}

// claimsRule: paths are there, have a form, and neither repeat nor contradict
// one another (App. B.3).
func claimsRule(say say, m *issuerMetadata, _ string) {
	for id, c := range m.Configurations {
		say(len(c.Metadata.Claims) > 0, "%s: no claims", id)
		seen := map[string]bool{}
		kinds := map[string]string{} // what follows a prefix: a name, null or an index
		for _, e := range c.Metadata.Claims {
			say(len(e.Path) > 0 && (c.Format != "mso_mdoc" || len(e.Path) > 1), "%s: path %v", id, e.Path)
			prefix := ""
			for n, step := range e.Path {
				kind := fmt.Sprintf("%T", step)
				index, isIndex := step.(float64)
				name, isName := step.(string)
				say(isName && name != "" || n > 0 && (step == nil || isIndex && index >= 0 && index == float64(int(index))), "%s: path %v", id, e.Path)
				say(kinds[prefix] == "" || kinds[prefix] == kind, "%s: %v contradicts another path", id, e.Path)
				kinds[prefix] = kind
				prefix += fmt.Sprintf("/%T:%v", step, step)
			}
			say(!seen[prefix], "%s: %v is there twice", id, e.Path)
			seen[prefix] = true
		}
	}
}

func batchRule(say say, m *issuerMetadata, _ string) {
	say(m.Batch == nil || m.Batch.Size != nil && *m.Batch.Size >= 2, "batch_credential_issuance %v", m.all["batch_credential_issuance"])
}

func requestRule(say say, m *issuerMetadata, _ string) {
	r := m.Request
	if r == nil {
		return
	}
	say(len(r.Enc) > 0 && distinct(r.Enc) && distinct(r.Zip) && r.Required != nil && len(r.JWKS.Keys) > 0, "%+v", r)
	var kids []string
	for _, members := range r.JWKS.Keys {
		data, err := json.Marshal(members)
		var key jose.JSONWebKey
		if err == nil {
			err = key.UnmarshalJSON(data)
		}
		say(err == nil && key.Valid() && key.IsPublic() && key.KeyID != "" && key.Algorithm != "" && members["d"] == nil && members["k"] == nil, "key %v: %v", members, err)
		kids = append(kids, key.KeyID)
	}
	say(distinct(kids), "kids %v", kids)
}

// follow holds metadata against a rule.
func follow(t testing.TB, form string, rule string, m *issuerMetadata, identifier string) {
	t.Helper()
	metadataRules[rule](func(holds bool, format string, args ...any) {
		t.Helper()
		if !holds {
			t.Errorf("%s: %s", form, fmt.Sprintf(format, args...))
		}
	}, m, identifier)
}
