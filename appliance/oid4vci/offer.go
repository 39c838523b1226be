package oid4vci

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"chancery/appliance/store"
	"chancery/issuance/jws"
)

// GrantType is the pre-authorized code grant's (OpenID4VCI 1.0 §4.1.1).
const GrantType = "urn:ietf:params:oauth:grant-type:pre-authorized_code"

// The URI schemes that wallets listen to (OpenID4VCI 1.0 §12.1.1, HAIP 1.0 §4.2).
const (
	SchemeOpenID = "openid-credential-offer"
	SchemeHAIP   = "haip-vci"
)

type offerObject struct {
	Issuer         string                `json:"credential_issuer"`
	Configurations []string              `json:"credential_configuration_ids"`
	Grants         map[string]offerGrant `json:"grants"`
}

type offerGrant struct {
	Code   string        `json:"pre-authorized_code"`
	TxCode *store.TxCode `json:"tx_code,omitempty"`
}

// OfferObject returns the Credential Offer (OpenID4VCI 1.0 §4.1.1) as JSON. It
// holds the code and no personal data.
func OfferObject(identifier string, o store.Offer, code string) ([]byte, error) {
	return jws.Marshal(offerObject{identifier, o.Configurations, map[string]offerGrant{GrantType: {code, o.TxCode}}})
}

// OfferURI returns the https URI that [OfferObject] is served under, for
// credential_offer_uri (OpenID4VCI 1.0 §4.1.3). Who has it has the code.
func OfferURI(identifier, uriSecret string) string { return identifier + "/offers/" + uriSecret }

// LinkByReference returns the link for a QR code or a button that names an
// offer's URI.
func LinkByReference(scheme, offerURI string) string {
	return scheme + "://?credential_offer_uri=" + escape(offerURI)
}

// LinkByValue returns the link that holds the offer itself.
func LinkByValue(scheme string, object []byte) string {
	return scheme + "://?credential_offer=" + escape(string(object))
}

// escape encodes a query's value. A space is %20: many wallets do not read "+" as one.
func escape(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }

// serveOffer answers GET on an offer's URI. Scanners and previews fetch too, so
// a fetch spends nothing; after redemption or expiry there is nothing to fetch.
func (i *Issuer) serveOffer(c *call) string {
	c.w.Header().Set("Cache-Control", "no-store")
	o, code, err := i.store.Fetch(c.r.Context(), c.r.PathValue("secret"))
	switch {
	case errors.Is(err, store.ErrNotFound):
		http.Error(c.w, "no such offer", http.StatusNotFound)
		return "not_found"
	case errors.Is(err, store.ErrState):
		http.Error(c.w, "the offer was used or has ended", http.StatusGone)
		return "gone"
	case err != nil:
		return i.failed(c, err)
	}
	object, err := OfferObject(i.identifier, o, code)
	if err != nil {
		return i.failed(c, err)
	}
	writeJSON(c.w, http.StatusOK, object)
	return "ok"
}
