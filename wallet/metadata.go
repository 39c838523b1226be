package wallet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Metadata is what the wallet needs of the issuer's and the authorization
// server's metadata (OpenID4VCI 1.0 §12.2.4, RFC 8414).
type Metadata struct {
	Issuer             string
	Name               string // the first display name; may be empty
	CredentialEndpoint string
	NonceEndpoint      string // empty: no nonce is wanted
	TokenEndpoint      string
	Configurations     map[string]Configuration
}

// Configuration is one entry of credential_configurations_supported.
type Configuration struct {
	Format string
	// Type is the doctype, the vct, or the last of credential_definition.type.
	Type string
	// Name is the first display name; may be empty.
	Name string
	// Bindings are the cryptographic_binding_methods_supported; empty means unbound.
	Bindings []string
	// ProofAlgorithms are those of the jwt proof type.
	ProofAlgorithms []string
	// Mandatory are the claim paths that the issuer always includes.
	Mandatory [][]string
}

// wellKnown inserts a well-known path between host and path of an identifier
// (OpenID4VCI 1.0 §12.2.2, RFC 8414 §3).
func wellKnown(issuer, name string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	path := u.EscapedPath()
	if path == "/" {
		path = ""
	}
	return "https://" + u.Host + "/.well-known/" + name + path, nil
}

// metadata reads the issuer's metadata and its authorization server's.
func (w *Wallet) metadata(ctx context.Context, offer *Offer) (*Metadata, error) {
	object, err := w.document(ctx, StepMetadata, offer.Issuer, "openid-credential-issuer")
	if err != nil {
		return nil, err
	}
	m, err := ParseMetadata(object, offer.Issuer)
	if err != nil {
		return nil, &Error{Step: StepMetadata, Err: err}
	}
	server := offer.Issuer
	if _, found := object["authorization_servers"]; found {
		servers, err := texts(object, "authorization_servers")
		if err != nil {
			return nil, &Error{Step: StepMetadata, Err: err}
		}
		if server = servers[0]; len(servers) > 1 && offer.AuthorizationServer != "" {
			server = offer.AuthorizationServer
		}
		if !slices.Contains(servers, server) {
			return nil, wrong(StepOffer, "authorization_server is none of the issuer's")
		}
	} else if offer.AuthorizationServer != "" {
		return nil, wrong(StepOffer, "authorization_server must not be there when the issuer names none")
	}
	if object, err = w.document(ctx, StepServer, server, "oauth-authorization-server"); err != nil {
		return nil, err
	}
	if m.TokenEndpoint, err = parseServer(object, server, w.ClientID == ""); err != nil {
		return nil, &Error{Step: StepServer, Err: err}
	}
	return m, nil
}

func (w *Wallet) document(ctx context.Context, step Step, issuer, name string) (map[string]any, error) {
	location, err := wellKnown(issuer, name)
	if err != nil {
		return nil, &Error{Step: step, Err: err}
	}
	answer, err := w.do(ctx, step, http.MethodGet, location, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := answer.want(http.StatusOK); err != nil {
		return nil, err
	}
	return answer.object()
}

// parseServer checks the authorization server's metadata and returns the token
// endpoint (RFC 8414 §2, §3; OpenID4VCI 1.0 §12.3).
func parseServer(object map[string]any, server string, anonymous bool) (string, error) {
	if object["issuer"] != server {
		return "", errors.New("issuer is not the identifier it was asked for")
	}
	for name, value := range object {
		if list, ok := value.([]any); ok && len(list) == 0 {
			return "", fmt.Errorf("%s is an empty array, which must be left out", name)
		}
	}
	grants, err := texts(object, "grant_types_supported")
	if err != nil {
		return "", err
	}
	if !slices.Contains(grants, grantType) {
		return "", errors.New("grant_types_supported lacks the pre-authorized code")
	}
	if anonymous && object["pre-authorized_grant_anonymous_access_supported"] != true {
		return "", errors.New("pre-authorized_grant_anonymous_access_supported is not true: give a client id with --client-id")
	}
	endpoint, err := text(object, "token_endpoint")
	if err == nil {
		err = checkURL(endpoint)
	}
	if err != nil {
		return "", fmt.Errorf("token_endpoint: %w", err)
	}
	return endpoint, nil
}

// ParseMetadata checks issuer metadata as JSON decoded by strictjson.
func ParseMetadata(object map[string]any, issuer string) (*Metadata, error) {
	if object["credential_issuer"] != issuer {
		return nil, errors.New("credential_issuer is not the identifier it was asked for")
	}
	if _, found := object["signed_metadata"]; found {
		return nil, errors.New("signed_metadata is a member of drafts only")
	}
	m := &Metadata{Issuer: issuer, Configurations: map[string]Configuration{}}
	for name, to := range map[string]*string{"credential_endpoint": &m.CredentialEndpoint, "nonce_endpoint": &m.NonceEndpoint,
		"deferred_credential_endpoint": nil, "notification_endpoint": nil} {
		if _, found := object[name]; !found && name != "credential_endpoint" {
			continue
		}
		value, err := text(object, name)
		if err == nil {
			err = checkURL(value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if to != nil {
			*to = value
		}
	}
	var err error
	if m.Name, err = displayName(object, false); err != nil {
		return nil, err
	}
	if err := checkBatch(object); err != nil {
		return nil, err
	}
	configurations, _ := object["credential_configurations_supported"].(map[string]any)
	if len(configurations) == 0 {
		return nil, errors.New("credential_configurations_supported is missing or empty")
	}
	for id, value := range configurations {
		entry, ok := value.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("configuration %q is no object", id)
		}
		c, err := parseConfiguration(entry)
		if err != nil {
			return nil, fmt.Errorf("configuration %q: %w", id, err)
		}
		if len(c.Bindings) > 0 && m.NonceEndpoint == "" {
			return nil, fmt.Errorf("configuration %q wants proofs, but there is no nonce_endpoint", id)
		}
		m.Configurations[id] = c
	}
	return m, nil
}

func checkBatch(object map[string]any) error {
	value, found := object["batch_credential_issuance"]
	if !found {
		return nil
	}
	batch, _ := value.(map[string]any)
	size, _ := batch["batch_size"].(json.Number)
	if n, err := size.Int64(); err != nil || n < 2 {
		return errors.New("batch_credential_issuance.batch_size is no whole number of at least 2")
	}
	return nil
}

// displayName checks a display array and returns its first name; names may be
// left out for the issuer, not for a credential.
func displayName(object map[string]any, needed bool) (string, error) {
	value, found := object["display"]
	if !found {
		return "", nil
	}
	list, _ := value.([]any)
	if len(list) == 0 {
		return "", errors.New("display is empty or no array")
	}
	first, seen := "", map[any]bool{}
	for i, item := range list {
		entry, ok := item.(map[string]any)
		if !ok || seen[entry["locale"]] {
			return "", errors.New("display has two entries of one locale, or something other than objects")
		}
		seen[entry["locale"]] = true
		name, isText := entry["name"].(string)
		if !isText && (needed || entry["name"] != nil) {
			return "", errors.New("a display entry's name is missing or no string")
		}
		if logo, found := entry["logo"]; found {
			if object, ok := logo.(map[string]any); !ok || object["uri"] == nil {
				return "", errors.New("a display entry's logo has no uri")
			}
		}
		if i == 0 {
			first = name
		}
	}
	return first, nil
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
	for name, value := range types {
		object, _ := value.(map[string]any)
		algorithms, err := texts(object, "proof_signing_alg_values_supported")
		if err != nil {
			return fmt.Errorf("proof_types_supported.%s: %w", name, err)
		}
		if required, found := object["key_attestations_required"]; found {
			if _, ok := required.(map[string]any); !ok {
				return fmt.Errorf("proof_types_supported.%s: key_attestations_required is no object", name)
			}
		} else if name == "jwt" {
			c.ProofAlgorithms = algorithms
		}
	}
	return nil
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
