package signer

import (
	"context"
	"encoding/json"

	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
)

// identities lists the public side of every key.
func (s *Server) identities(_ context.Context, c *core, _ nothing) (wire.IdentitiesResponse, error) {
	// Read before the list is: a change meanwhile shows the next time.
	out := wire.IdentitiesResponse{Generation: s.generation.Load()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, record := range c.registry.Sorted() {
		k := c.keys[record.Label]
		id := wire.Identity{Label: k.Label, Purpose: k.Purpose, Created: k.Created, Algorithm: k.Algorithm, PublicKey: k.PublicKey, Chain: k.Chain,
			CRL: c.registry.CRLs[k.Label].DER, DID: k.DID, KeyID: k.KeyID, DIDDocument: c.registry.Documents[k.DID], Profile: k.Profile, Ready: k.ready.Load()}
		if anchor := c.keys[k.Anchor]; anchor != nil && len(anchor.Chain) > 0 {
			id.Anchor = anchor.Chain[0]
		}
		out.Identities = append(out.Identities, id)
	}
	return out, nil
}

// checkpoint signs a checkpoint over everything in the log.
func (s *Server) checkpoint(ctx context.Context, c *core, _ nothing) (wire.CheckpointResponse, error) {
	if _, err := c.ready(); err != nil {
		return wire.CheckpointResponse{}, err
	}
	note, err := c.log.Checkpoint(ctx, c.notary)
	return wire.CheckpointResponse{Note: note}, err
}

// Evidence is what an auditor asks a signer for: the token's description, each
// key's attributes as they are now, and each key's record from the log.
type Evidence struct {
	Token hsm.Evidence   `json:"token"`
	Keys  []registry.Key `json:"keys"`
	CRLs  []registry.CRL `json:"crls,omitempty"`
	// Origin names the log, Size counts its entries.
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
}

// evidence reads the token's description and the proven attributes of its keys.
func (s *Server) evidence(_ context.Context, c *core, _ nothing) (wire.EvidenceResponse, error) {
	e, err := c.gather()
	if err != nil {
		return wire.EvidenceResponse{}, err
	}
	data, err := json.Marshal(e)
	return wire.EvidenceResponse{JSON: data}, err
}

func (c *core) gather() (Evidence, error) {
	token, err := c.ready()
	if err != nil {
		return Evidence{}, err
	}
	e := Evidence{Keys: c.registry.Sorted(), Origin: c.log.Origin(), Size: c.log.Size()}
	if e.Token, err = token.Evidence(); err != nil {
		return Evidence{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range e.Keys {
		if crl, has := c.registry.CRLs[k.Label]; has {
			e.CRLs = append(e.CRLs, crl)
		}
	}
	return e, nil
}
