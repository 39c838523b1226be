package foresight

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	"chancery/appliance/signer/wire"
	"chancery/issuance/did"
	"chancery/issuance/jws"
)

// didDocument is what verifiers look at in a DID document (DID Core §5).
type didDocument struct {
	ID                 string `json:"id"`
	VerificationMethod []struct {
		ID           string          `json:"id"`
		PublicKeyJWK json.RawMessage `json:"publicKeyJwk"`
	} `json:"verificationMethod"`
	AssertionMethod []json.RawMessage `json:"assertionMethod"`
}

// did looks at whether a verifier finds the key of a did:web where the DID says.
func (l *look) did(id *wire.Identity) {
	if did.Method(id.DID) != "did:web" {
		return
	}
	wrong := func(rule, remedy, format string, args ...any) {
		l.add(Finding{Rule: rule, Severity: Error, Subject: id.Label, Text: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	where, err := did.WebURL(id.DID)
	if err != nil {
		wrong("did-host", "Make a new key in a ceremony (docs/ceremony.md).", "The DID of %s leads nowhere: %v.", id.Label, err)
		return
	}
	at, errAt := url.Parse(where)
	issuer, errIssuer := url.Parse(l.Identifier)
	if errAt == nil && errIssuer == nil && at.Host != issuer.Host {
		wrong("did-host", "Serve the document there, or make a key under this issuer's DID in a ceremony (docs/ceremony.md).",
			"Verifiers look for the key of %s at %s, which is not this issuer's host, %s.", id.Label, where, issuer.Host)
	}
	const remedy = "Make a new key in a ceremony (docs/ceremony.md): it writes the document anew."
	if len(id.DIDDocument) == 0 {
		wrong("did-document", remedy, "There is no DID document for %s: verifiers cannot verify what %s signs.", id.DID, id.Label)
		return
	}
	if err := inDocument(id); err != nil {
		wrong("did-document", remedy, "The DID document of %s does not lead to the key of %s: %v.", id.DID, id.Label, err)
	}
}

// inDocument looks a key up as a verifier does.
func inDocument(id *wire.Identity) error {
	var d didDocument
	if err := json.Unmarshal(id.DIDDocument, &d); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	if d.ID != id.DID {
		return fmt.Errorf("it is of another DID")
	}
	for _, m := range d.VerificationMethod {
		if m.ID != id.KeyID {
			continue
		}
		key, err := jws.ParsePublicJWK(m.PublicKeyJWK)
		if err != nil {
			return err
		}
		if der, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(der, id.PublicKey) {
			return fmt.Errorf("%s is another key there", id.KeyID)
		}
		if !slices.ContainsFunc(d.AssertionMethod, func(raw json.RawMessage) bool {
			var name string
			return json.Unmarshal(raw, &name) == nil && name == id.KeyID
		}) {
			return fmt.Errorf("%s is no assertion method", id.KeyID)
		}
		return nil
	}
	return fmt.Errorf("%s is not in it", id.KeyID)
}
