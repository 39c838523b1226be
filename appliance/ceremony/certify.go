package ceremony

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
	"chancery/issuance"
	"chancery/issuance/did"
	"chancery/issuance/iaca"
)

// authority is an IACA with what signs for it: the token, or in the rehearsal a
// throw-away key.
type authority struct {
	certificate *x509.Certificate
	signer      crypto.Signer
}

// curves of the algorithms that a certified key may have.
var curves = map[issuance.Algorithm]elliptic.Curve{
	issuance.ES256: elliptic.P256(), issuance.ES384: elliptic.P384(), issuance.ES512: elliptic.P521(),
}

// rehearse makes every certificate and CRL of the plan with throw-away keys: what
// a term or the linter refuses, it refuses before a key is made in the token.
func (a *act) rehearse() error {
	authorities := map[string]*authority{}
	for i, k := range a.plan.Keys {
		if _, has := certified[k.Purpose]; !has {
			continue
		}
		key, err := ecdsa.GenerateKey(curves[k.Algorithm], rand.Reader)
		if err != nil {
			return err
		}
		issuer := authorities[k.Under]
		if k.Under != "" && issuer == nil {
			if issuer, err = a.standIn(k.Under); err != nil {
				return fmt.Errorf("keys[%d].under: %w", i, err)
			}
		}
		_, root, err := a.certify(k, issuer, key.Public(), key)
		if err != nil {
			return fmt.Errorf("keys[%d]: %w", i, err)
		}
		if k.Purpose == wire.PurposeIACA {
			authorities[k.Label] = &authority{root, key}
		}
	}
	return nil
}

// standIn is an earlier ceremony's IACA with a throw-away key in the place of its own.
func (a *act) standIn(label string) (*authority, error) {
	certificate, err := a.authorityCertificate(label)
	if err != nil {
		return nil, err
	}
	public, ok := certificate.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%q has no EC key", label)
	}
	key, err := ecdsa.GenerateKey(public.Curve, rand.Reader)
	if err != nil {
		return nil, err
	}
	stand := *certificate
	stand.PublicKey = key.Public()
	return &authority{&stand, key}, nil
}

// authorityCertificate is the certificate of an IACA of this plan or an earlier
// ceremony's.
func (a *act) authorityCertificate(label string) (*x509.Certificate, error) {
	for _, made := range append(a.Registry.Sorted(), a.made...) {
		if made.Label == label && made.Purpose == wire.PurposeIACA && len(made.Chain) > 0 {
			return x509.ParseCertificate(made.Chain[0])
		}
	}
	return nil, fmt.Errorf("%q is no IACA with a certificate", label)
}

// papers are a certificate and an IACA's first CRL.
type papers struct{ certificate, crl []byte }

// certify makes a key's certificate: under issuer, or, for an IACA, signed by
// own, the key itself, which signs its first CRL as well.
func (a *act) certify(k PlannedKey, issuer *authority, public crypto.PublicKey, own crypto.Signer) (papers, *x509.Certificate, error) {
	from, until := k.period(a.Now)
	signer, issuerLabel := own, k.Label
	var parent *x509.Certificate
	if issuer != nil {
		parent, signer, issuerLabel = issuer.certificate, issuer.signer, k.Under
		if from.Before(parent.NotBefore) {
			from = parent.NotBefore
		}
		if until.After(parent.NotAfter) {
			return papers{}, nil, fmt.Errorf("days: its %d days outlast the IACA %q, which ends on %s", k.Days, k.Under, parent.NotAfter.Format(time.DateOnly))
		}
	}
	der, err := iaca.Create(iaca.Plan{
		Profile:   certified[k.Purpose],
		Subject:   iaca.Name{Country: a.plan.Country, State: a.plan.State, Organization: a.plan.Organization, CommonName: k.CommonName},
		NotBefore: from, NotAfter: until, ContactEmail: a.plan.ContactEmail, ContactURL: a.plan.ContactURL,
		CRL: a.crlURL(issuerLabel), IssuerURL: a.plan.Issuer,
	}, parent, public, signer)
	if err != nil {
		return papers{}, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil || issuer != nil {
		return papers{certificate: der}, certificate, err
	}
	next := from.AddDate(0, 0, a.plan.CRLDays)
	if next.After(certificate.NotAfter) {
		next = certificate.NotAfter
	}
	crl, err := iaca.CreateCRL(certificate, own, 1, nil, from, next)
	return papers{der, crl}, certificate, err
}

// complete gives a new key its certificate, CRL, DID or checkpoint name.
func (a *act) complete(k PlannedKey, record hsm.KeyRecord) (registry.Key, error) {
	made := registry.Key{Label: k.Label, Purpose: k.Purpose, Algorithm: k.Algorithm, ID: record.ID, Profile: k.Profile, Attributes: record.Attributes, Anchor: k.Under}
	if record.Public == nil {
		return made, nil
	}
	var err error
	if made.PublicKey, err = x509.MarshalPKIXPublicKey(record.Public); err != nil {
		return made, err
	}
	switch k.Purpose {
	case wire.PurposeDID:
		return made, a.completeDID(&made, record)
	case wire.PurposeCheckpoint:
		vkey, err := audit.VerifierKey(a.Log.Origin(), record.Public)
		a.files["checkpoint.vkey"] = []byte(vkey + "\n")
		return made, err
	}
	return made, a.completeCertificate(k, &made, record)
}

// completeDID names the key under the issuer's did:web. The document holds the
// DID's earlier keys too, after the new one: what they signed stays valid.
func (a *act) completeDID(k *registry.Key, record hsm.KeyRecord) error {
	id, err := did.Web(a.plan.Issuer)
	if err != nil {
		return err
	}
	keyID, err := did.WebKeyID(id, record.Public)
	if err != nil {
		return err
	}
	keys := []did.WebKey{{ID: keyID, Public: record.Public}}
	made := slices.Clone(a.made)
	slices.Reverse(made)
	for _, earlier := range append(made, a.Registry.Newest()...) {
		if earlier.DID != id {
			continue
		}
		public, err := earlier.Public()
		if err != nil {
			return err
		}
		keys = append(keys, did.WebKey{ID: earlier.KeyID, Public: public})
	}
	document, err := did.WebDocument(id, keys)
	if err != nil {
		return err
	}
	k.DID, k.KeyID, k.Document = id, keyID, document
	if k.Profile.Issuer == "" {
		k.Profile.Issuer = id // whatever it signs, it signs in this name
	}
	a.files[k.Label+".did.json"] = append(document, '\n')
	return nil
}

func (a *act) completeCertificate(k PlannedKey, made *registry.Key, record hsm.KeyRecord) error {
	own, err := a.Token.MessageSigner(k.Label)
	if err != nil {
		return err
	}
	var issuer *authority
	if k.Under != "" {
		certificate, err := a.authorityCertificate(k.Under)
		if err != nil {
			return err
		}
		signer, err := a.Token.MessageSigner(k.Under)
		if err != nil {
			return err
		}
		issuer = &authority{certificate, signer}
	}
	papers, _, err := a.certify(k, issuer, record.Public, own)
	if err != nil {
		return err
	}
	made.Chain = [][]byte{papers.certificate}
	a.files[k.Label+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: papers.certificate})
	if papers.crl != nil {
		a.crls = append(a.crls, registry.CRL{Issuer: k.Label, Number: 1, DER: papers.crl, URL: a.crlURL(k.Label)})
		a.files[k.Label+".crl"] = papers.crl
	}
	return nil
}

// crlURL is where chanceryd serves an IACA's CRL.
func (a *act) crlURL(label string) string { return a.plan.Issuer + "/crl/" + label + ".crl" }
