package configuration

import (
	"slices"
	"strings"

	"chancery/issuance"
)

// The drafts of OpenID4VCI 1.0 whose wallets can be served, as chancery.toml's
// issuer.compatibility names them.
const (
	Draft13 = "draft-13"
	Draft15 = "draft-15"
)

// FormatDraft13 is what the format of SD-JWT VCs was called up to draft 14.
const FormatDraft13 = "vc+sd-jwt"

// DraftMetadata returns the configuration's object in the issuer metadata in the
// form of a draft: display and claims are the configuration's own members,
// algorithms are JOSE names in every format (draft 13 §11.2.3 and App. A, draft 15
// §12.2.4 and App. A, B.2). It is nil when the credential is bound to a key and
// the draft knows none of the ways to prove one that the configuration takes.
func (c *Configuration) DraftMetadata(draft string, algorithms []issuance.Algorithm) map[string]any {
	out := c.Metadata(algorithms)
	if c.Bound() {
		types := c.draftProofTypes(draft)
		if len(types) == 0 {
			return nil
		}
		out["proof_types_supported"] = types
	}
	if len(algorithms) > 0 {
		out["credential_signing_alg_values_supported"] = algorithms
	}
	delete(out, "credential_metadata")
	out["display"] = c.displayMetadata()
	if draft == Draft15 {
		out["claims"] = c.claimsMetadata()
		return out
	}
	claims := c.nestedClaims()
	switch c.Format {
	case issuance.FormatSDJWT:
		out["format"] = FormatDraft13
	case issuance.FormatJWTVC:
		definition, _ := out["credential_definition"].(map[string]any)
		definition["credentialSubject"], claims = claims, nil
	}
	if claims != nil {
		out["claims"] = claims
	}
	out["order"] = c.claimsOrder()
	return out
}

// draftProofTypes returns proof_types_supported: draft 13 knows neither
// attestation proofs nor key attestations, both drafts another di_vp.
func (c *Configuration) draftProofTypes(draft string) map[string]any {
	if draft == Draft13 && c.KeyAttestation != nil {
		return nil
	}
	types := c.proofTypes()
	for name := range types {
		if name != ProofJWT && (name != ProofAttestation || draft == Draft13) {
			delete(types, name)
		}
	}
	return types
}

// nestedClaims describes each claim where it stands in the credential, or by
// namespace and name in an mdoc (draft 13 App. A.1.1.2, A.2.2, A.3.2).
func (c *Configuration) nestedClaims() map[string]any {
	out := map[string]any{}
	for _, claim := range c.Claims {
		inner := out
		for _, step := range claim.Path[:len(claim.Path)-1] {
			next, _ := inner[step].(map[string]any) // no claim is within another
			if next == nil {
				next = map[string]any{}
				inner[step] = next
			}
			inner = next
		}
		inner[claim.Path[len(claim.Path)-1]] = claim.description()
	}
	return out
}

// claimsOrder lists the claims as wallets show them: an mdoc's by namespace and
// name, others by their outermost name (draft 13 App. A).
func (c *Configuration) claimsOrder() (order []string) {
	for _, claim := range c.Claims {
		name := claim.Path[0]
		if c.Format == issuance.FormatMdoc {
			name = strings.Join(claim.Path, "~")
		}
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	return order
}
