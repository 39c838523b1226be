package oid4vci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/metadata"
)

// unsignedMetadata is what is signed, and by whom.
type unsignedMetadata struct {
	members map[string]any
	// version is another one for other members or another certificate.
	version [sha256.Size]byte
}

// signedMetadata is the signed form (OpenID4VCI 1.0 §12.2.3) and how its making
// goes. It is signed once for each change, and again after half of its lifetime.
type signedMetadata struct {
	document document // without a body before the first signature
	of       [sha256.Size]byte
	expires  time.Time
	// tried is the version that was tried last, again when that version is due
	// again; told is what the log was told last.
	tried [sha256.Size]byte
	again time.Time
	told  string
}

// signPause is between attempts to sign that fail for another reason than a token
// that is away: the signer writes each of them into its log.
const signPause = 10 * time.Minute

func (i *Issuer) newUnsigned(p *published, members map[string]any) unsignedMetadata {
	h := sha256.New()
	h.Write(p.metadata.body)
	if key := p.keys[i.options.MetadataSigner]; key != nil {
		for _, der := range key.Chain {
			h.Write(der)
		}
	}
	return unsignedMetadata{members, [sha256.Size]byte(h.Sum(nil))}
}

// serves tells whether the signed form may be given out now: it says what the
// unsigned one says, and it lasts for as long as a cache may keep it.
func (s *signedMetadata) serves(u unsignedMetadata, now time.Time) bool {
	return s.document.body != nil && s.of == u.version && now.Add(metadataCache).Before(s.expires)
}

// signMetadata makes the signed form when that is due. It returns false when
// there is nothing new.
func (i *Issuer) signMetadata(ctx context.Context, p *published) (signedMetadata, bool) {
	s, now := p.signed, i.now()
	if i.options.MetadataSigner == "" || s.tried == p.unsigned.version && now.Before(s.again) {
		return s, false
	}
	s.tried, s.again = p.unsigned.version, now.Add(signPause)
	key := p.keys[i.options.MetadataSigner]
	if key == nil {
		return i.unsignable(s, p, errors.New("the signer has no such key"))
	}
	issued := now.Truncate(time.Second)
	lifetime := min(i.options.MetadataLifetime.Std(), key.Profile.LongestValidity())
	expires := issued.Add(lifetime)
	if key.leaf != nil && expires.After(key.leaf.NotAfter) {
		expires = key.leaf.NotAfter
	}
	compact, err := i.signOnce(ctx, p, key, metadata.Material{Issuer: i.identifier, Chain: key.Chain, Algorithm: key.Algorithm, IssuedAt: issued, ExpiresAt: expires})
	if err != nil {
		if e := wire.AsError(err); e != nil && (e.Code == wire.CodeUnavailable || e.Code == wire.CodeBusy) {
			s.again = now
		}
		return i.unsignable(s, p, err)
	}
	if s.told != "" {
		i.log.Info("the metadata can be signed again", "key", key.Label)
	}
	s.told, s.document, s.of, s.expires = "", newDocument("application/jwt", []byte(compact)), p.unsigned.version, expires
	s.again = issued.Add(expires.Sub(issued) / 2)
	return s, true
}

func (i *Issuer) signOnce(ctx context.Context, p *published, key *signingKey, m metadata.Material) (string, error) {
	prepared, err := metadata.Prepare(p.unsigned.members, m)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(prepared.TBS)
	response, err := i.signer.Sign(ctx, wire.SignRequest{Items: []wire.SignItem{{Key: key.Label, Format: issuance.FormatMetadata, TBS: prepared.TBS,
		Credential: "metadata-" + hex.EncodeToString(sum[:8])}}})
	if err != nil {
		return "", err
	}
	compact, err := prepared.Assemble(response.Results[0].Signature)
	if err != nil {
		return "", err
	}
	token, err := jwt.Parse(compact, len(compact))
	if err != nil {
		return "", err
	}
	if !token.Verify(key.public) {
		return "", fmt.Errorf("the signature is not by the key %s", key.Label)
	}
	return compact, nil
}

// unsignable tells the log once what a failure means for wallets.
func (i *Issuer) unsignable(s signedMetadata, p *published, err error) (signedMetadata, bool) {
	told := "the metadata cannot be signed now: the unsigned form alone is served"
	if s.serves(p.unsigned, i.now()) {
		told = "the metadata cannot be signed anew now: the signed form there is stays until it expires"
	}
	if s.told != told {
		i.log.Warn(told, "key", i.options.MetadataSigner, "error", err)
		s.told = told
	}
	return s, true
}
