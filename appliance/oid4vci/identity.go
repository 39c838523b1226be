package oid4vci

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/domainlinkage"
	"chancery/issuance/jws"
)

// linkageLifetime is how long a domain linkage credential is valid, if the key's
// profile does not say less. It says nothing that changes while its key is in use,
// and half of it is longer than a token is away.
const linkageLifetime = 30 * 24 * time.Hour

// newest returns the keys that fit, the newest first.
func (p *published) newest(fits func(*signingKey) bool) (out []*signingKey) {
	for _, key := range p.keys {
		if fits(key) {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, func(a, b *signingKey) int { return cmp.Compare(b.Created, a.Created) })
	return out
}

// signableLinkage is the DID configuration resource, whose credential the newest
// of the DID's keys signs that may (DIF Well Known DID Configuration). Without a
// DID there is nothing to link.
func (p *published) signableLinkage() signable {
	all := p.newest(func(k *signingKey) bool { return k.DID != "" })
	if len(all) == 0 {
		return signable{}
	}
	u := signable{
		what: "the domain linkage credential", without: "there is no " + domainlinkage.Path, name: "domain-linkage",
		label: all[0].Label, lifetime: linkageLifetime,
		absent: "no DID key's profile has " + string(issuance.FormatDomain) + " in its formats: a key of a further ceremony can",
		prepare: func(key *signingKey, issued, expires time.Time) (*issuance.Prepared, error) {
			return domainlinkage.Prepare(domainlinkage.Material{KeyID: key.KeyID, Algorithm: key.Algorithm, ValidFrom: issued, ValidUntil: expires})
		},
		publish: func(compact string) (document, error) {
			body, err := domainlinkage.Resource(compact)
			return newDocument("application/json", body), err
		},
	}
	for _, key := range all {
		if slices.Contains(key.Profile.Formats, issuance.FormatDomain) {
			u.label, u.key = key.Label, key
			break
		}
	}
	u.version = versionOf(nil, u.key)
	return u
}

// serveLinkage answers with the DID configuration resource.
func (i *Issuer) serveLinkage(c *call) string {
	p := i.published.Load()
	if !p.linkage.serves(p.toLink, i.now()) {
		http.NotFound(c.w, c.r)
		return "not_found"
	}
	return serveDocument(c.w, c.r, p.linkage.document)
}

// publishVCIssuer makes the JWT VC Issuer Metadata (SD-JWT VC §3.5): every key
// that signs SD-JWT VCs in the identifier's name, the newest first. A key stays in
// it when another one takes its place, as its credentials do.
func (i *Issuer) publishVCIssuer(p *published) error {
	keys := p.newest(func(k *signingKey) bool {
		return (k.Purpose == wire.PurposeCredentialSigner || k.Purpose == wire.PurposeDID) && k.Profile.Issuer == i.identifier && slices.Contains(k.Profile.Formats, issuance.FormatSDJWT)
	})
	if len(keys) == 0 {
		return nil
	}
	set := make([]map[string]any, len(keys))
	for n, key := range keys {
		jwk, err := jws.PublicJWK(key.public)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(jwk, &set[n]); err != nil {
			return err
		}
		set[n]["kid"], set[n]["alg"], set[n]["use"] = key.KeyID, key.Algorithm, "sig"
	}
	var err error
	p.vcIssuer, err = newJSON(map[string]any{"issuer": i.identifier, "jwks": map[string]any{"keys": set}})
	return err
}

// serveVCIssuer answers with the JWT VC Issuer Metadata.
func (i *Issuer) serveVCIssuer(c *call) string {
	d := i.published.Load().vcIssuer
	if d.body == nil {
		http.NotFound(c.w, c.r)
		return "not_found"
	}
	return serveDocument(c.w, c.r, d)
}
