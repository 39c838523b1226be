package wallet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Configuration is one entry of credential_configurations_supported.
type Configuration struct {
	Format string
	// Type is the doctype, the vct, or the last of credential_definition.type.
	Type string
	// Name is the first display name; may be empty.
	Name string
	// Bindings are the cryptographic_binding_methods_supported; empty means unbound.
	Bindings []string
	// Proofs are the proof_types_supported.
	Proofs map[ProofType]ProofRules
	// Mandatory are the claim paths that the issuer always includes.
	Mandatory [][]string
}

// ProofRules are what the issuer says about a proof type (OpenID4VCI 1.0 §12.2.4).
type ProofRules struct {
	// Algorithms are the proof_signing_alg_values_supported.
	Algorithms []string
	// Attested says that a key attestation is required; then KeyStorage and
	// UserAuthentication, when not empty, are the values of which it needs one.
	Attested                       bool
	KeyStorage, UserAuthentication []string
}

func parseConfiguration(entry map[string]any) (Configuration, error) {
	var c Configuration
	var err error
	if c.Format, err = text(entry, "format"); err != nil {
		return c, err
	}
	if c.Type, err = configuredType(entry, c.Format); err != nil {
		return c, err
	}
	if err := signingAlgorithms(entry, c.Format); err != nil {
		return c, err
	}
	_, hasBinding := entry["cryptographic_binding_methods_supported"]
	_, hasProofs := entry["proof_types_supported"]
	if hasBinding != hasProofs {
		return c, errors.New("cryptographic_binding_methods_supported and proof_types_supported must come together")
	}
	if hasBinding {
		if err := c.proofs(entry); err != nil {
			return c, err
		}
	}
	if value, found := entry["credential_metadata"]; found {
		metadata, ok := value.(map[string]any)
		if !ok {
			return c, errors.New("credential_metadata is no object")
		}
		if c.Name, err = displayName(metadata, true); err != nil {
			return c, err
		}
		c.Mandatory, err = claimPaths(metadata, c.Format)
	}
	return c, err
}

// configuredType reads the format's own member (OpenID4VCI 1.0 App. A).
func configuredType(entry map[string]any, format string) (string, error) {
	switch format {
	case "mso_mdoc":
		return text(entry, "doctype")
	case "dc+sd-jwt":
		return text(entry, "vct")
	case "jwt_vc_json":
		definition, _ := entry["credential_definition"].(map[string]any)
		types, err := texts(definition, "type")
		if err != nil || !slices.Contains(types, "VerifiableCredential") {
			return "", errors.New("credential_definition.type is no array with VerifiableCredential")
		}
		return types[len(types)-1], nil
	}
	return "", nil // another format, which this wallet does not ask for
}

// signingAlgorithms checks that an mdoc's are COSE numbers and all others names.
func signingAlgorithms(entry map[string]any, format string) error {
	const name = "credential_signing_alg_values_supported"
	value, found := entry[name]
	if !found {
		return nil
	}
	list, _ := value.([]any)
	if len(list) == 0 {
		return errors.New(name + " is empty or no array")
	}
	for _, item := range list {
		number, isNumber := item.(json.Number)
		if _, err := number.Int64(); (format == "mso_mdoc") != (isNumber && err == nil) {
			return errors.New(name + " must hold COSE integers for mso_mdoc, JOSE names otherwise")
		}
	}
	return nil
}

func (c *Configuration) proofs(entry map[string]any) error {
	var err error
	if c.Bindings, err = texts(entry, "cryptographic_binding_methods_supported"); err != nil {
		return err
	}
	if c.Format == "mso_mdoc" && !slices.Contains(c.Bindings, "cose_key") {
		return errors.New("cryptographic_binding_methods_supported lacks cose_key")
	}
	types, _ := entry["proof_types_supported"].(map[string]any)
	if len(types) == 0 {
		return errors.New("proof_types_supported is empty or no object")
	}
	c.Proofs = map[ProofType]ProofRules{}
	for name, value := range types {
		object, _ := value.(map[string]any)
		rules, err := parseProofRules(object)
		if err != nil {
			return fmt.Errorf("proof_types_supported.%s: %w", name, err)
		}
		c.Proofs[ProofType(name)] = rules
	}
	return nil
}

func parseProofRules(object map[string]any) (ProofRules, error) {
	var rules ProofRules
	var err error
	if rules.Algorithms, err = texts(object, "proof_signing_alg_values_supported"); err != nil {
		return rules, err
	}
	value, found := object["key_attestations_required"]
	if !found {
		return rules, nil
	}
	required, ok := value.(map[string]any)
	if !ok {
		return rules, errors.New("key_attestations_required is no object")
	}
	rules.Attested = true
	for name, to := range map[string]*[]string{"key_storage": &rules.KeyStorage, "user_authentication": &rules.UserAuthentication} {
		if _, found := required[name]; !found {
			continue
		}
		if *to, err = texts(required, name); err != nil {
			return rules, fmt.Errorf("key_attestations_required.%w", err)
		}
	}
	return rules, nil
}

// claimPaths checks the claims descriptions (OpenID4VCI 1.0 App. B.2, B.3) and
// returns the mandatory ones that have only names in them.
func claimPaths(metadata map[string]any, format string) ([][]string, error) {
	value, found := metadata["claims"]
	if !found {
		return nil, nil
	}
	list, _ := value.([]any)
	if len(list) == 0 {
		return nil, errors.New("claims is empty or no array")
	}
	var mandatory [][]string
	seen := map[string]bool{}
	for _, item := range list {
		entry, _ := item.(map[string]any)
		path, _ := entry["path"].([]any)
		key := fmt.Sprint(path...)
		if len(path) == 0 || seen[key] || format == "mso_mdoc" && len(path) < 2 {
			return nil, errors.New("a claim's path is missing, too short, or there twice")
		}
		seen[key] = true
		if _, err := displayName(entry, false); err != nil {
			return nil, fmt.Errorf("a claim's %w", err)
		}
		var names []string
		for _, component := range path {
			switch x := component.(type) {
			case string:
				names = append(names, x)
			case nil:
			case json.Number:
				if n, err := x.Int64(); err != nil || n < 0 {
					return nil, errors.New("a claim's path has a negative or broken index")
				}
			default:
				return nil, errors.New("a claim's path has something other than strings, indexes and null")
			}
		}
		if entry["mandatory"] == true && len(names) == len(path) {
			mandatory = append(mandatory, names)
		}
	}
	return mandatory, nil
}

// Missing lists the mandatory claims that are not among the paths of a
// credential's claims, as "a.b". For W3C credentials metadata paths start at
// the credential and the claims' at its subject.
func (c Configuration) Missing(claims [][]string) []string {
	var missing []string
	for _, want := range c.Mandatory {
		if c.Format == "jwt_vc_json" {
			if want[0] != "credentialSubject" {
				continue
			}
			want = want[1:]
		}
		if !slices.ContainsFunc(claims, func(have []string) bool {
			return len(have) >= len(want) && slices.Equal(have[:len(want)], want)
		}) {
			missing = append(missing, strings.Join(want, "."))
		}
	}
	return missing
}
