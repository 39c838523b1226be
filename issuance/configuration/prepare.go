package configuration

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/mdoc"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
)

// Material is what a credential needs besides the claims.
type Material struct {
	// Holder is the key of the wallet's proof; HolderDID the DID, without
	// fragment, that it came under, or "".
	Holder    crypto.PublicKey
	HolderDID string
	// Chain is the signer's certificate chain without the anchor, DER, leaf first.
	Chain [][]byte
	// KeyID becomes kid, in formats that have one: the signer's DID URL, or its
	// name in the issuer's key set.
	KeyID string
	// DraftType gives an SD-JWT VC the media type that older drafts had.
	DraftType bool
	// Issuer is the iss claim: an https URL or a DID.
	Issuer string
	// CredentialID is the credential's random identifier; a W3C VC's id is urn:uuid: and it.
	CredentialID string
	Algorithm    issuance.Algorithm
	// Now is the time of issuing. NotBefore and NotAfter bound the signer's
	// certificate; zero when it has none.
	Now, NotBefore, NotAfter time.Time
}

// Prepare builds a credential from an offer's claims.
//
// All times are cut to the day (UTC), or for less than two days to the hour, so
// that they do not track the holder (OpenID4VCI 1.0 §15.4.1): validity starts
// with the day's first second, or with the signer's certificate if that is
// later, and ends with a day's last, within the certificate's and before the next
// birthday that an attestation speaks of.
func (c *Configuration) Prepare(claims json.RawMessage, m Material) (*issuance.Prepared, error) {
	object, problem := decodeClaims(claims)
	if problem != nil {
		return nil, errClaims
	}
	births := c.births(object)
	from, until, err := c.validity(births, m)
	if err != nil {
		return nil, err
	}
	values, problems := c.convertAll(object, births, from)
	if len(problems) > 0 {
		return nil, errClaims
	}
	switch c.Format {
	case issuance.FormatMdoc:
		return c.prepareMdoc(values, m, from, until)
	case issuance.FormatSDJWT:
		return sdjwt.Prepare(sdjwt.Request{
			VCT: c.VCT, Issuer: m.Issuer, Claims: nest(values), Disclose: hidden(values), Decoys: c.Pad, Holder: m.Holder,
			Chain: m.Chain, KeyID: m.KeyID, Algorithm: m.Algorithm, IssuedAt: from, NotBefore: from, Expires: until, DraftType: m.DraftType,
		})
	case issuance.FormatJWTVC:
		subject := m.HolderDID
		if subject == "" && m.Holder != nil {
			if subject, _, err = did.JWK(m.Holder); err != nil {
				return nil, err
			}
		}
		return w3cvc.Prepare(w3cvc.Request{
			ID: "urn:uuid:" + m.CredentialID, Issuer: m.Issuer, KeyID: m.KeyID, Types: c.Types, Contexts: c.Contexts,
			Subject: nest(values), SubjectID: subject, Holder: m.Holder, Algorithm: m.Algorithm, ValidFrom: from, ValidUntil: until,
		})
	}
	return nil, fmt.Errorf("format %q cannot be issued", c.Format)
}

// validity returns the first and the last second.
func (c *Configuration) validity(births map[string]time.Time, m Material) (from, until time.Time, err error) {
	grain := 24 * time.Hour
	if c.ValidFor < 2*grain {
		grain = time.Hour
	}
	from = m.Now.UTC().Truncate(grain)
	if from.Before(m.NotBefore) {
		from = m.NotBefore.UTC()
	}
	until = from.Add(c.ValidFor).Truncate(grain).Add(-time.Second)
	if !m.NotAfter.IsZero() && until.After(m.NotAfter) {
		until = m.NotAfter.UTC().Truncate(time.Second)
	}
	if flip, ok := c.nextFlip(births, from); ok && !until.Before(flip) {
		until = flip.Add(-time.Second)
	}
	if !until.After(m.Now) {
		return from, until, errors.New("the signer's certificate or the configuration leaves no validity: renew the signer")
	}
	return from, until, nil
}

func (c *Configuration) prepareMdoc(values []converted, m Material, from, until time.Time) (*issuance.Prepared, error) {
	elements := make([]mdoc.Element, len(values))
	for i, v := range values {
		elements[i] = mdoc.Element{Namespace: v.claim.Path[0], Identifier: v.claim.Path[1], Value: v.value}
	}
	return mdoc.Prepare(mdoc.Request{
		DocType: c.DocType, Elements: elements, DeviceKey: m.Holder, Chain: m.Chain, Algorithm: m.Algorithm,
		Signed: from, ValidFrom: from, ValidUntil: until, PadTo: c.Pad,
	})
}

// nest puts values at their paths in a JSON object.
func nest(values []converted) map[string]any {
	root := map[string]any{}
	for _, v := range values {
		at := root
		last := len(v.claim.Path) - 1
		for _, step := range v.claim.Path[:last] {
			inner, ok := at[step].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[step] = inner
			}
			at = inner
		}
		at[v.claim.Path[last]] = v.value
	}
	return root
}

// hidden lists the paths that are selectively disclosable in this credential.
func hidden(values []converted) []sdjwt.Path {
	var out []sdjwt.Path
	for _, v := range values {
		if v.claim.hide != nil {
			out = append(out, v.claim.hide)
		}
	}
	return out
}
