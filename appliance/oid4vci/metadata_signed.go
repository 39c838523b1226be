package oid4vci

import (
	"time"

	"chancery/issuance"
	"chancery/issuance/metadata"
)

// signableMetadata is the signed form of the Credential Issuer Metadata
// (OpenID4VCI 1.0 §12.2.3), in every language.
func (i *Issuer) signableMetadata(p *published, members map[string]any) signable {
	key := p.keys[i.options.MetadataSigner]
	return signable{
		what: "the metadata", without: "the unsigned form alone is served", name: "metadata",
		label: i.options.MetadataSigner, key: key, absent: "the signer has no such key",
		version: versionOf(p.metadata.body, key), lifetime: i.options.MetadataLifetime.Std(),
		prepare: func(key *signingKey, issued, expires time.Time) (*issuance.Prepared, error) {
			return metadata.Prepare(members, metadata.Material{Issuer: i.identifier, Chain: key.Chain, Algorithm: key.Algorithm, IssuedAt: issued, ExpiresAt: expires})
		},
		publish: func(compact string) (document, error) { return newDocument("application/jwt", []byte(compact)), nil },
	}
}
