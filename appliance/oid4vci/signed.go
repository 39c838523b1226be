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
)

// signable is a document that the token signs, as it follows from the keys: what
// it is to say, and by which key.
type signable struct {
	// what it is, and what there is without it, for the log.
	what, without string
	// name is what the audit log calls its signatures by, with a part of their hash.
	name string
	// label is the key's; "" when there is nothing to sign. key is nil when the
	// signer has none that can be used; absent then says what there ought to be.
	label  string
	key    *signingKey
	absent string
	// version is another one for other contents or another key.
	version [sha256.Size]byte
	// lifetime is as long as the key and its certificate allow, at most.
	lifetime time.Duration
	prepare  func(key *signingKey, issued, expires time.Time) (*issuance.Prepared, error)
	// publish makes the document of the compact JWS.
	publish func(compact string) (document, error)
}

// signed is a document as it was signed and how its making goes. It is signed
// once for each change, and again after half of its lifetime.
type signed struct {
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

// versionOf tells contents and the key that signs them from others.
func versionOf(contents []byte, key *signingKey) [sha256.Size]byte {
	h := sha256.New()
	h.Write(contents)
	if key != nil {
		h.Write([]byte(key.Label))
		for _, der := range key.Chain {
			h.Write(der)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// serves tells whether the document may be given out now: it says what it is to
// say, and it lasts for as long as a cache may keep it.
func (s *signed) serves(u signable, now time.Time) bool {
	return s.document.body != nil && s.of == u.version && now.Add(metadataCache).Before(s.expires)
}

// renew makes the document when that is due. It returns false when there is
// nothing new.
func (i *Issuer) renew(ctx context.Context, u signable, s signed) (signed, bool) {
	now := i.now()
	if u.label == "" || s.tried == u.version && now.Before(s.again) {
		return s, false
	}
	s.tried, s.again = u.version, now.Add(signPause)
	if u.key == nil {
		return i.unsignable(u, s, errors.New(u.absent))
	}
	issued := now.Truncate(time.Second)
	expires := issued.Add(min(u.lifetime, u.key.Profile.LongestValidity()))
	if u.key.leaf != nil && expires.After(u.key.leaf.NotAfter) {
		expires = u.key.leaf.NotAfter
	}
	made, err := i.signOnce(ctx, u, issued, expires)
	if err != nil {
		if e := wire.AsError(err); e != nil && (e.Code == wire.CodeUnavailable || e.Code == wire.CodeBusy) {
			s.again = now
		}
		return i.unsignable(u, s, err)
	}
	if s.told != "" {
		i.log.Info(u.what+" can be signed again", "key", u.label)
	}
	s.told, s.document, s.of, s.expires = "", made, u.version, expires
	s.again = issued.Add(expires.Sub(issued) / 2)
	return s, true
}

func (i *Issuer) signOnce(ctx context.Context, u signable, issued, expires time.Time) (document, error) {
	prepared, err := u.prepare(u.key, issued, expires)
	if err != nil {
		return document{}, err
	}
	sum := sha256.Sum256(prepared.TBS)
	response, err := i.signer.Sign(ctx, wire.SignRequest{Items: []wire.SignItem{{Key: u.key.Label, Format: prepared.Format, TBS: prepared.TBS,
		Credential: u.name + "-" + hex.EncodeToString(sum[:8])}}})
	if err != nil {
		return document{}, err
	}
	compact, err := prepared.Assemble(response.Results[0].Signature)
	if err != nil {
		return document{}, err
	}
	token, err := jwt.Parse(compact, len(compact))
	if err != nil {
		return document{}, err
	}
	if !token.Verify(u.key.public) {
		return document{}, fmt.Errorf("the signature is not by the key %s", u.key.Label)
	}
	return u.publish(compact)
}

// unsignable tells the log once what a failure means for those who fetch the document.
func (i *Issuer) unsignable(u signable, s signed, err error) (signed, bool) {
	told := u.what + " cannot be signed now: " + u.without
	if s.serves(u, i.now()) {
		told = u.what + " cannot be signed anew now: the signed form there is stays until it expires"
	}
	if s.told != told {
		i.log.Warn(told, "key", u.label, "error", err)
		s.told = told
	}
	return s, true
}
