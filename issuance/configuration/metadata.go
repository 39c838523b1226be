package configuration

import (
	"maps"
	"slices"

	"chancery/issuance"
)

// ProofAlgorithms are the algorithms that key proofs may use.
var ProofAlgorithms = []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.EdDSA}

// Cryptosuites are those of the Data Integrity proofs in di_vp proofs.
var Cryptosuites = []string{"ecdsa-jcs-2019", "eddsa-jcs-2022"}

// The proof types (OpenID4VCI 1.0 App. F).
const (
	ProofJWT         = "jwt"
	ProofAttestation = "attestation"
	ProofDIVP        = "di_vp"
)

// BindingMethods returns cryptographic_binding_methods_supported (OpenID4VCI 1.0
// §12.2.4): what a key proof may name its key by.
func (c *Configuration) BindingMethods() []string {
	if c.Format == issuance.FormatMdoc {
		return []string{"cose_key", "jwk", "did:jwk", "did:key"}
	}
	return []string{"jwk", "did:jwk", "did:key"}
}

// Metadata returns the configuration's object in the issuer metadata
// (OpenID4VCI 1.0 §12.2.4, App. A and B). algorithms are those of the keys that
// sign it; without any nothing is said of them.
func (c *Configuration) Metadata(algorithms []issuance.Algorithm) map[string]any {
	out := map[string]any{
		"format":              string(c.Format),
		"credential_metadata": map[string]any{"display": c.displayMetadata(), "claims": c.claimsMetadata()},
	}
	if len(algorithms) > 0 {
		signing := make([]any, len(algorithms))
		for i, a := range algorithms {
			if signing[i] = string(a); c.Format == issuance.FormatMdoc {
				signing[i] = a.COSE() // A.2.2: COSE identifiers, as numbers
			}
		}
		out["credential_signing_alg_values_supported"] = signing
	}
	if c.Bound() { // both or none
		out["cryptographic_binding_methods_supported"] = c.BindingMethods()
		out["proof_types_supported"] = c.proofTypes()
	}
	if c.Scope != "" {
		out["scope"] = c.Scope
	}
	switch c.Format {
	case issuance.FormatMdoc:
		out["doctype"] = c.DocType
	case issuance.FormatSDJWT:
		out["vct"] = c.VCT
	case issuance.FormatJWTVC:
		out["credential_definition"] = map[string]any{"type": append([]string{"VerifiableCredential"}, c.Types...)}
	}
	return out
}

// proofTypes returns proof_types_supported.
func (c *Configuration) proofTypes() map[string]any {
	out := map[string]any{}
	for _, name := range c.ProofTypes {
		entry := map[string]any{"proof_signing_alg_values_supported": ProofAlgorithms}
		if name == ProofDIVP {
			entry["proof_signing_alg_values_supported"] = Cryptosuites
		}
		if a := c.KeyAttestation; a != nil {
			required := map[string]any{} // without members: required, whatever it says
			if len(a.KeyStorage) > 0 {
				required["key_storage"] = a.KeyStorage
			}
			if len(a.UserAuthentication) > 0 {
				required["user_authentication"] = a.UserAuthentication
			}
			entry["key_attestations_required"] = required
		}
		out[name] = entry
	}
	return out
}

func (c *Configuration) displayMetadata() []any {
	var out []any
	for _, d := range c.Display {
		out = append(out, d.Metadata())
	}
	return out
}

// Metadata returns the entry of a display array (OpenID4VCI 1.0 §12.2.4), without
// what is empty.
func (d Display) Metadata() map[string]any {
	entry := map[string]any{"name": d.Name}
	for name, value := range map[string]string{
		"locale": d.Locale, "description": d.Description, "background_color": d.BackgroundColor, "text_color": d.TextColor,
	} {
		if value != "" {
			entry[name] = value
		}
	}
	if d.LogoURI != "" {
		logo := map[string]any{"uri": d.LogoURI}
		if d.LogoAlt != "" {
			logo["alt_text"] = d.LogoAlt
		}
		entry["logo"] = logo
	}
	return entry
}

// claimsMetadata describes each claim once (App. B.2, B.3); a W3C VC's paths
// start at the credential.
func (c *Configuration) claimsMetadata() []any {
	var out []any
	for _, claim := range c.Claims {
		entry := claim.description()
		entry["path"] = claim.Path
		if c.Format == issuance.FormatJWTVC {
			entry["path"] = append([]string{"credentialSubject"}, claim.Path...)
		}
		out = append(out, entry)
	}
	return out
}

// description says whether the claim is always there and what it is called.
func (c *Claim) description() map[string]any {
	entry := map[string]any{}
	if c.Required || c.Value != nil || c.Default != nil {
		entry["mandatory"] = true
	}
	var display []any
	for _, locale := range slices.Sorted(maps.Keys(c.Display)) {
		display = append(display, map[string]any{"name": c.Display[locale], "locale": locale})
	}
	if len(display) > 0 {
		entry["display"] = display
	}
	return entry
}
