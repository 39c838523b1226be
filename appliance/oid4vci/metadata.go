package oid4vci

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"

	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/jws"
)

// signingKey is what a credential needs to know of the key that signs it.
type signingKey struct {
	wire.Identity
	public crypto.PublicKey
	leaf   *x509.Certificate // nil for a DID key
}

// published is everything that follows from the signer's keys. It does not change.
type published struct {
	generation uint64 // of the identities
	identities []wire.Identity
	keys       map[string]*signingKey
	metadata   document
	crls       map[string]document // by file name
	iacas      map[string]document
	dids       map[string]document // by path
}

// publish derives what is served from the keys.
func (i *Issuer) publish(r wire.IdentitiesResponse) (*published, error) {
	p := &published{generation: r.Generation, identities: r.Identities, keys: map[string]*signingKey{}, crls: map[string]document{}, iacas: map[string]document{}, dids: map[string]document{}}
	for _, id := range r.Identities {
		if err := p.add(id); err != nil {
			return nil, fmt.Errorf("key %s: %w", id.Label, err)
		}
	}
	metadata, err := i.buildMetadata(p.keys)
	if err != nil {
		return nil, err
	}
	p.metadata = metadata
	return p, nil
}

func (p *published) add(id wire.Identity) (err error) {
	key := &signingKey{Identity: id}
	if len(id.PublicKey) > 0 {
		if key.public, err = x509.ParsePKIXPublicKey(id.PublicKey); err != nil {
			return err
		}
	}
	if len(id.Chain) > 0 {
		if key.leaf, err = x509.ParseCertificate(id.Chain[0]); err != nil {
			return err
		}
	}
	p.keys[id.Label] = key
	if id.Purpose == wire.PurposeIACA && key.leaf != nil {
		p.iacas[id.Label+".cer"] = newDocument("application/pkix-cert", id.Chain[0])
		p.iacas[id.Label+".pem"] = newDocument("application/pem-certificate-chain", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Chain[0]}))
	}
	if len(id.CRL) > 0 {
		p.crls[id.Label+".crl"] = newDocument("application/pkix-crl", id.CRL)
	}
	if len(id.DIDDocument) > 0 {
		where, err := did.WebURL(id.DID)
		if err != nil {
			return err
		}
		u, err := url.Parse(where)
		if err != nil {
			return err
		}
		// Several keys may share one DID; each comes with the newest document.
		p.dids[u.Path] = newDocument("application/did+json", id.DIDDocument)
	}
	return nil
}

// buildMetadata makes the Credential Issuer Metadata (OpenID4VCI 1.0 §12.2.4).
// All languages are in it, whatever Accept-Language says (§12.2.2).
func (i *Issuer) buildMetadata(keys map[string]*signingKey) (document, error) {
	configurations := map[string]any{}
	for _, c := range i.ordered {
		var algorithms []issuance.Algorithm
		if key := keys[c.Signer]; key != nil {
			algorithms = append(algorithms, key.Algorithm)
		}
		entry := c.Metadata(algorithms)
		if len(algorithms) == 0 {
			delete(entry, "credential_signing_alg_values_supported")
		}
		configurations[c.ID] = entry
	}
	metadata := map[string]any{
		"credential_issuer":                   i.identifier,
		"credential_endpoint":                 i.identifier + "/credential",
		"nonce_endpoint":                      i.identifier + "/nonce",
		"credential_configurations_supported": configurations,
	}
	if batch := i.batchSize(); batch > 1 {
		metadata["batch_credential_issuance"] = map[string]any{"batch_size": batch}
	}
	var display []any
	for _, d := range i.options.Display {
		entry := map[string]any{"name": d.Name}
		if d.Locale != "" {
			entry["locale"] = d.Locale
		}
		if d.LogoURI != "" {
			logo := map[string]any{"uri": d.LogoURI}
			if d.LogoAlt != "" {
				logo["alt_text"] = d.LogoAlt
			}
			entry["logo"] = logo
		}
		display = append(display, entry)
	}
	if len(display) > 0 {
		metadata["display"] = display
	}
	body, err := jws.Marshal(metadata)
	if err != nil {
		return document{}, err
	}
	return newDocument("application/json", body), nil
}

// batchSize is the largest of the configurations'; the endpoint holds each
// request against its own.
func (i *Issuer) batchSize() int {
	largest := 1
	for _, c := range i.ordered {
		largest = max(largest, c.BatchSize)
	}
	return largest
}

// buildASMetadata makes the authorization server metadata (RFC 8414 §2,
// OpenID4VCI 1.0 §12.3). Members without elements are left out.
func (i *Issuer) buildASMetadata() (document, error) {
	metadata := map[string]any{
		"issuer":                                          i.identifier,
		"token_endpoint":                                  i.identifier + "/token",
		"grant_types_supported":                           []string{GrantType},
		"token_endpoint_auth_methods_supported":           []string{"none"},
		"authorization_details_types_supported":           []string{detailType},
		"pre-authorized_grant_anonymous_access_supported": *i.options.AnonymousAccess,
	}
	var ids []string
	for _, c := range i.ordered {
		ids = append(ids, c.ID)
	}
	if scopes := i.scopes(ids); len(scopes) > 0 {
		metadata["scopes_supported"] = scopes
	}
	body, err := jws.Marshal(metadata)
	if err != nil {
		return document{}, err
	}
	return newDocument("application/json", body), nil
}

func (i *Issuer) serveCRL(c *call) string {
	return serveNamed(c, i.published.Load().crls)
}

func (i *Issuer) serveIACA(c *call) string {
	return serveNamed(c, i.published.Load().iacas)
}

func serveDID(w http.ResponseWriter, r *http.Request, d document) string {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		return "method_not_allowed"
	}
	return serveDocument(w, r, d)
}

func serveNamed(c *call, documents map[string]document) string {
	d, ok := documents[c.r.PathValue("file")]
	if !ok {
		http.NotFound(c.w, c.r)
		return "not_found"
	}
	return serveDocument(c.w, c.r, d)
}
