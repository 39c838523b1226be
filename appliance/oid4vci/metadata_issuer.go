package oid4vci

import (
	"strings"

	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// encryptionMetadata is what wallets are told of encryption: the values of
// credential_request_encryption and credential_response_encryption (OpenID4VCI
// 1.0 §12.2.4), nil where there is none.
type encryptionMetadata struct {
	request, response map[string]any
}

// variant is the metadata in one language.
type variant struct {
	document
	tag string // for Content-Language
}

// publishMetadata makes every unsigned form of the Credential Issuer Metadata
// (OpenID4VCI 1.0 §12.2).
func (i *Issuer) publishMetadata(p *published) (err error) {
	metadata := i.buildMetadata(p)
	if p.metadata, err = newJSON(metadata); err != nil {
		return err
	}
	p.toSign = i.signableMetadata(p, metadata)
	p.languages = map[string]variant{}
	for _, tag := range languages(metadata) {
		d, err := newJSON(inLanguage(metadata, tag))
		if err != nil {
			return err
		}
		key := strings.ToLower(tag)
		p.languages[key] = variant{d, tag}
		p.tags = append(p.tags, key)
	}
	if i.options.Compatibility == "" || i.path == "" {
		return nil
	}
	p.draft, err = newJSON(i.draftMetadata(p))
	return err
}

func newJSON(v any) (document, error) {
	body, err := jws.Marshal(v)
	return newDocument("application/json", body), err
}

// members are what the metadata of 1.0 and of the drafts have in common.
func (i *Issuer) members() map[string]any {
	out := map[string]any{
		"credential_issuer":            i.identifier,
		"credential_endpoint":          i.identifier + "/credential",
		"deferred_credential_endpoint": i.identifier + "/deferred",
		"notification_endpoint":        i.identifier + "/notification",
	}
	if display := i.display(); len(display) > 0 {
		out["display"] = display
	}
	return out
}

// buildMetadata makes the Credential Issuer Metadata (OpenID4VCI 1.0 §12.2.4) in
// every language.
func (i *Issuer) buildMetadata(p *published) map[string]any {
	configurations := map[string]any{}
	for _, c := range i.ordered {
		entry := c.Metadata(p.algorithms(c))
		if i.path == "" {
			addDraftMembers(entry, i.options.Compatibility)
		}
		configurations[c.ID] = entry
	}
	metadata := i.members()
	metadata["credential_configurations_supported"] = configurations
	i.addBatch(metadata)
	metadata["nonce_endpoint"] = i.identifier + "/nonce"
	if p.encryption.request != nil {
		metadata["credential_request_encryption"] = p.encryption.request
	}
	if p.encryption.response != nil {
		metadata["credential_response_encryption"] = p.encryption.response
	}
	return metadata
}

// algorithms are those of the keys that sign a configuration's credentials; none
// before the signer was asked.
func (p *published) algorithms(c *configuration.Configuration) []issuance.Algorithm {
	if key := p.keys[c.Signer]; key != nil {
		return []issuance.Algorithm{key.Algorithm}
	}
	return nil
}

// addBatch says what the largest batch is; the credential endpoint holds each
// request against its own configuration's.
func (i *Issuer) addBatch(metadata map[string]any) {
	if size := i.batchSize(); size > 1 {
		metadata["batch_credential_issuance"] = map[string]any{"batch_size": size}
	}
}

// display names the issuer.
func (i *Issuer) display() (out []any) {
	for _, d := range i.options.Display {
		out = append(out, configuration.Display{Name: d.Name, Locale: d.Locale, LogoURI: d.LogoURI, LogoAlt: d.LogoAlt}.Metadata())
	}
	return out
}

// addDraftMembers adds to a configuration what wallets of a draft look for, where
// that takes nothing from wallets of 1.0, which ignore members they do not know.
// It is for an identifier without a path, whose metadata has one URL for all.
// Draft 13's claims have the name of draft 15's and another form, and would be
// misread as these; a wallet of draft 13 does without them.
func addDraftMembers(entry map[string]any, draft string) {
	metadata, _ := entry["credential_metadata"].(map[string]any)
	switch draft {
	case configuration.Draft15:
		entry["display"], entry["claims"] = metadata["display"], metadata["claims"]
	case configuration.Draft13:
		entry["display"] = metadata["display"]
	}
}

// draftMetadata makes the metadata in an older draft's form, for the path that
// this draft appends to an identifier with a path. A configuration that the
// draft's wallets cannot ask for is not in it.
func (i *Issuer) draftMetadata(p *published) map[string]any {
	draft := i.options.Compatibility
	configurations := map[string]any{}
	for _, c := range i.ordered {
		if entry := c.DraftMetadata(draft, p.algorithms(c)); entry != nil {
			configurations[c.ID] = entry
		}
	}
	metadata := i.members()
	metadata["credential_configurations_supported"] = configurations
	if draft == configuration.Draft15 {
		metadata["nonce_endpoint"] = i.identifier + "/nonce"
		i.addBatch(metadata)
	}
	if p.encryption.response != nil {
		// Draft 13 §11.2.3, draft 15 §12.2.4: no zip, and alg beside the key.
		response := map[string]any{}
		for _, name := range []string{"alg_values_supported", "enc_values_supported", "encryption_required"} {
			response[name] = p.encryption.response[name]
		}
		metadata["credential_response_encryption"] = response
	}
	return metadata
}
