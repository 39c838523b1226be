package wallet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// Metadata is what the wallet needs of the issuer's metadata (OpenID4VCI 1.0
// §12.2.4), and of its authorization server's. Endpoints that are not
// advertised are empty.
type Metadata struct {
	Issuer               string
	Name                 string // the first display name; may be empty
	CredentialEndpoint   string
	NonceEndpoint        string // empty: no nonce is wanted
	DeferredEndpoint     string
	NotificationEndpoint string
	// BatchSize is the most proofs that one request may hold; 1 without batches.
	BatchSize int64
	// RequestEncryption and ResponseEncryption are nil when not supported.
	RequestEncryption  *RequestEncryption
	ResponseEncryption *ResponseEncryption
	Configurations     map[string]Configuration
	Server             Server
	// located says that credentials are asked for with locations, as the issuer
	// names authorization servers (OpenID4VCI 1.0 §5.1.1).
	located bool
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

// metadata reads the issuer's metadata and its authorization server's. wanted
// is the authorization_server of the offer's grant.
func (w *Wallet) metadata(ctx context.Context, issuer, wanted string) (*Metadata, error) {
	object, err := w.document(ctx, StepMetadata, issuer, "openid-credential-issuer")
	if err != nil {
		return nil, err
	}
	m, err := ParseMetadata(object, issuer)
	if err != nil {
		return nil, failed(StepMetadata, err)
	}
	if w.SignedMetadata {
		if err := w.signedMetadata(ctx, issuer, object); err != nil {
			return nil, err
		}
	}
	server, err := chooseServer(object, issuer, wanted)
	if err != nil {
		return nil, err
	}
	if object, err = w.document(ctx, StepServer, server, "oauth-authorization-server"); err != nil {
		return nil, err
	}
	if m.Server, err = parseServer(object, server); err != nil {
		return nil, failed(StepServer, err)
	}
	return m, nil
}

// chooseServer returns the authorization server's identifier (OpenID4VCI 1.0
// §4.1.1, §12.2.4).
func chooseServer(object map[string]any, issuer, wanted string) (string, error) {
	if _, found := object["authorization_servers"]; !found {
		if wanted != "" {
			return "", wrong(StepOffer, "authorization_server must not be there when the issuer names none")
		}
		return issuer, nil
	}
	servers, err := texts(object, "authorization_servers")
	if err != nil {
		return "", failed(StepMetadata, err)
	}
	switch {
	case wanted == "":
		return servers[0], nil
	case len(servers) == 1:
		return "", wrong(StepOffer, "authorization_server must not be there when the issuer names only one")
	case !slices.Contains(servers, wanted):
		return "", wrong(StepOffer, "authorization_server is none of the issuer's")
	}
	return wanted, nil
}

func (w *Wallet) document(ctx context.Context, step Step, issuer, name string) (map[string]any, error) {
	location, err := wellKnown(issuer, name)
	if err != nil {
		return nil, failed(step, err)
	}
	answer, err := w.do(ctx, request{step: step, method: http.MethodGet, target: location})
	if err != nil {
		return nil, err
	}
	if err := answer.want(http.StatusOK); err != nil {
		return nil, err
	}
	return answer.object()
}

// ParseMetadata checks issuer metadata as JSON decoded by strictjson.
func ParseMetadata(object map[string]any, issuer string) (*Metadata, error) {
	if object["credential_issuer"] != issuer {
		return nil, errors.New("credential_issuer is not the identifier it was asked for")
	}
	if _, found := object["signed_metadata"]; found {
		return nil, errors.New("signed_metadata is a member of drafts only")
	}
	m := &Metadata{Issuer: issuer, Configurations: map[string]Configuration{}, located: object["authorization_servers"] != nil}
	var err error
	for name, to := range map[string]*string{"credential_endpoint": &m.CredentialEndpoint, "nonce_endpoint": &m.NonceEndpoint,
		"deferred_credential_endpoint": &m.DeferredEndpoint, "notification_endpoint": &m.NotificationEndpoint} {
		if _, found := object[name]; !found && name != "credential_endpoint" {
			continue
		}
		if *to, err = endpoint(object, name); err != nil {
			return nil, err
		}
	}
	if m.Name, err = displayName(object, false); err != nil {
		return nil, err
	}
	if m.BatchSize, err = batchSize(object); err != nil {
		return nil, err
	}
	if err := m.encryption(object); err != nil {
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

// endpoint returns a member that must be an https URL.
func endpoint(object map[string]any, name string) (string, error) {
	value, err := text(object, name)
	if err == nil {
		err = checkURL(value)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

func batchSize(object map[string]any) (int64, error) {
	value, found := object["batch_credential_issuance"]
	if !found {
		return 1, nil
	}
	batch, _ := value.(map[string]any)
	size, _ := batch["batch_size"].(json.Number)
	n, err := size.Int64()
	if err != nil || n < 2 {
		return 0, errors.New("batch_credential_issuance.batch_size is no whole number of at least 2")
	}
	return n, nil
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
