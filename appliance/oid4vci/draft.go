package oid4vci

import (
	"errors"
	"slices"
	"strings"
	"time"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/store"
	"chancery/issuance"
	"chancery/issuance/configuration"
	"chancery/issuance/jws"
)

// Compatibility with drafts 13 to 15 of OpenID4VCI goes by what a request looks
// like: one that no wallet of 1.0 sends is read, and answered, in the older form.
// Without the configuration's switch nothing here has an effect, and with it
// nothing that a wallet of 1.0 sends is treated otherwise.

// draft says in which form a request came.
type draft struct {
	// on tells that it is an older draft's: "proof" or "format" is in it.
	on bool
	// single answers "credential" in place of "credentials", as drafts 13 and 14 do.
	single bool
	// sdjwt tells that the credential's media type is the older vc+sd-jwt.
	sdjwt bool
}

// draftMarks mark a transaction_id by the form of the request that got it, as
// the deferred request has the same form in all drafts.
var draftMarks = map[string]draft{
	"d13.":  {on: true, single: true},
	"d13v.": {on: true, single: true, sdjwt: true},
	"d15.":  {on: true},
	"d15v.": {on: true, sdjwt: true},
}

func (d draft) mark(transaction string) string {
	for mark, of := range draftMarks {
		if of == d {
			return mark + transaction
		}
	}
	return transaction
}

// draftOf takes the mark off a transaction_id.
func (i *Issuer) draftOf(transaction string) (draft, string) {
	mark, rest, found := strings.Cut(transaction, ".")
	if d, known := draftMarks[mark+"."]; found && known && i.options.Compatibility != "" {
		return d, rest
	}
	return draft{}, transaction
}

// adapt turns an older draft's request into one of 1.0, in place.
func (i *Issuer) adapt(object map[string]any, grant *store.Grant) (draft, error) {
	if i.options.Compatibility == "" {
		return draft{}, nil
	}
	var d draft
	_, plural := object["proofs"]
	if value, has := object["proof"]; has && !plural {
		d.on = true
		old, _ := value.(map[string]any)
		kind, _ := old["proof_type"].(string)
		if kind == "ldp_vp" {
			kind = configuration.ProofDIVP // what it was called before 1.0
			old[kind] = old["ldp_vp"]
		}
		if kind == "" || old[kind] == nil {
			return d, refusal.New("invalid_proof", "proof", "proof must have proof_type and a member of that name", "OpenID4VCI draft 13 §7.2.1")
		}
		object["proofs"] = map[string]any{kind: []any{old[kind]}}
	}
	value, has := object["format"]
	d.on = d.on || has
	d.single = d.on && i.options.Compatibility == "draft-13"
	if !has {
		d.sdjwt = d.single && i.path != "" // as the metadata said that such a wallet reads
		return d, nil
	}
	err := i.adaptFormat(object, value, grant, &d)
	return d, err
}

// adaptFormat finds the configuration that format and type name, among those
// that the token covers (OpenID4VCI draft 13 §7.2, App. A).
func (i *Issuer) adaptFormat(object map[string]any, value any, grant *store.Grant, d *draft) error {
	format, _ := value.(string)
	d.sdjwt = format == "vc+sd-jwt"
	if d.sdjwt {
		format = string(issuance.FormatSDJWT)
	}
	known := false
	for _, c := range i.ordered {
		if string(c.Format) != format {
			continue
		}
		known = true
		if !grant.Covers(c.ID) || !names(object, c) {
			continue
		}
		delete(object, "format")
		delete(object, "credential_identifier")
		object["credential_configuration_id"] = c.ID
		if grant.Identified {
			delete(object, "credential_configuration_id")
			object["credential_identifier"] = identifierOf(c.ID)
		}
		return nil
	}
	if !known {
		return refusal.New("unsupported_credential_format", "format", "no configuration has this format", "OpenID4VCI draft 13 §7.3.1.2")
	}
	return refusal.New("unsupported_credential_type", "doctype, vct, credential_definition", "the access token covers no configuration of this format and type", "OpenID4VCI draft 13 §7.3.1.2")
}

// names tells whether a request's type is the configuration's.
func names(object map[string]any, c *configuration.Configuration) bool {
	switch c.Format {
	case issuance.FormatMdoc:
		return object["doctype"] == c.DocType
	case issuance.FormatSDJWT:
		return object["vct"] == c.VCT
	}
	definition, _ := object["credential_definition"].(map[string]any)
	list, _ := definition["type"].([]any)
	if !slices.Contains(list, any("VerifiableCredential")) {
		return false
	}
	for _, t := range c.Types {
		if !slices.Contains(list, any(t)) {
			return false
		}
	}
	return len(list) == len(c.Types)+1
}

// asDraft gives an error the code that the draft has for it; drafts 13 and 14
// send a fresh nonce along with one of a proof.
func (i *Issuer) asDraft(err error, d draft) error {
	var e *refusal.Refusal
	if !d.on || !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == "unknown_credential_configuration" || e.Code == "unknown_credential_identifier":
		e.Code = "unsupported_credential_type"
	case d.single && (e.Code == "invalid_nonce" || e.Code == "invalid_proof"):
		nonce, seconds := i.nonces.make(i.now())
		e.Code, e.Extra = "invalid_proof", map[string]any{"c_nonce": nonce, "c_nonce_expires_in": seconds}
	}
	return e
}

// stillPending is what drafts 13 to 15 answer while a credential is not ready.
func stillPending(interval time.Duration) error {
	e := refusal.New("issuance_pending", "transaction_id", "the credential is not ready yet", "OpenID4VCI draft 13 §9.3")
	e.Extra = map[string]any{"interval": int64(interval.Seconds())}
	return e
}

// encodeDraft writes a response of drafts 13 and 14 (§7.3).
func (i *Issuer) encodeDraft(a *response) ([]byte, error) {
	if a.transaction != "" {
		return jws.Marshal(map[string]any{"transaction_id": a.transaction, "interval": int64(a.interval.Seconds())})
	}
	nonce, seconds := i.nonces.make(i.now())
	return jws.Marshal(map[string]any{"credential": a.issued[0].credential, "notification_id": a.notification,
		"c_nonce": nonce, "c_nonce_expires_in": seconds})
}
