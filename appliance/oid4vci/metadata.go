package oid4vci

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"reflect"

	"chancery/appliance/signer/wire"
	"chancery/issuance/did"
)

// signingKey is what a credential needs to know of the key that signs it.
type signingKey struct {
	wire.Identity
	public crypto.PublicKey
	leaf   *x509.Certificate // nil for a DID key
}

// published is everything that follows from the keys: the signer's, and those
// that requests are encrypted to. It does not change.
type published struct {
	generation uint64 // of the identities
	identities []wire.Identity
	encryption encryptionMetadata
	keys       map[string]*signingKey
	metadata   document           // in every language
	languages  map[string]variant // the metadata by language tag, in lower case
	tags       []string           // of languages, in order
	draft      document           // the metadata as older drafts have it; without a body when there is none
	// toSign and toLink are due to be signed; signed and linkage is what was.
	toSign, toLink  signable
	signed, linkage signed
	vcIssuer        document            // without a body when there is none
	crls            map[string]document // by file name
	iacas           map[string]document
	dids            map[string]document // by path
}

// publish derives what is served from the signer's keys alone.
func (i *Issuer) publish(r wire.IdentitiesResponse) (*published, error) {
	return i.publishAll(r, encryptionMetadata{})
}

// publishAll derives what is served from the keys.
func (i *Issuer) publishAll(r wire.IdentitiesResponse, e encryptionMetadata) (*published, error) {
	p := &published{generation: r.Generation, identities: r.Identities, encryption: e, keys: map[string]*signingKey{}, crls: map[string]document{}, iacas: map[string]document{}, dids: map[string]document{}}
	for _, id := range r.Identities {
		if err := p.add(id); err != nil {
			return nil, fmt.Errorf("key %s: %w", id.Label, err)
		}
	}
	p.toLink = p.signableLinkage()
	if err := i.publishVCIssuer(p); err != nil {
		return nil, err
	}
	return p, i.publishMetadata(p)
}

// update publishes what follows from the keys when they have changed, and signs
// what is due. It is cheap when there is nothing to do. What
// cannot be signed is told in the log and is no error: all else is served.
func (i *Issuer) update(ctx context.Context, r wire.IdentitiesResponse, e encryptionMetadata) error {
	p := i.published.Load()
	if len(p.identities) == 0 || p.generation != r.Generation || !reflect.DeepEqual(p.encryption, e) {
		next, err := i.publishAll(r, e)
		if err != nil {
			return err
		}
		next.signed, next.linkage = p.signed, p.linkage
		p = next
		i.published.Store(p)
	}
	signed, one := i.renew(ctx, p.toSign, p.signed)
	linkage, other := i.renew(ctx, p.toLink, p.linkage)
	if one || other {
		next := *p
		next.signed, next.linkage = signed, linkage
		i.published.Store(&next)
	}
	return nil
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
