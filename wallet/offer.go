package wallet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"chancery/verifier/strictjson"
)

// grantType is the pre-authorized code grant (OpenID4VCI 1.0 §4.1.1).
const grantType = "urn:ietf:params:oauth:grant-type:pre-authorized_code"

// Offer is a Credential Offer (OpenID4VCI 1.0 §4.1.1).
type Offer struct {
	// Issuer is the Credential Issuer Identifier.
	Issuer string
	// Configurations are the offered credential configuration ids.
	Configurations []string
	// Code is the pre-authorized code: a secret.
	Code string
	// TxCode says what transaction code is wanted; nil means none.
	TxCode *TxCode
	// AuthorizationServer is the grant's authorization_server; usually empty.
	AuthorizationServer string
}

// TxCode describes the transaction code that the person must enter.
type TxCode struct {
	InputMode   string // "numeric" or "text"
	Length      int    // 0 when unknown
	Description string
}

// String describes the code in a few words.
func (c TxCode) String() string {
	text := c.InputMode
	if c.Length > 0 {
		text = fmt.Sprintf("%d characters, %s", c.Length, text)
	}
	if c.Description != "" {
		text += ", \"" + c.Description + "\""
	}
	return text
}

// Resolve reads the offer behind a link: openid-credential-offer://, haip-vci://
// or an https link of the wallet, by value or by reference (OpenID4VCI 1.0 §4.1.2, §4.1.3).
func (w *Wallet) Resolve(ctx context.Context, link string) (*Offer, error) {
	value, reference, err := ParseLink(link)
	if err != nil {
		return nil, failed(StepOffer, err)
	}
	if reference != "" {
		answer, err := w.do(ctx, request{step: StepOffer, method: http.MethodGet, target: reference})
		if err != nil {
			return nil, err
		}
		if err := answer.want(http.StatusOK); err != nil {
			return nil, err
		}
		value = answer.body
	}
	offer, err := ParseOffer(value)
	if err != nil {
		return nil, failed(StepOffer, err)
	}
	return offer, nil
}

// ParseLink takes an offer's link apart. Exactly one of value, the offer's
// JSON, and reference, the https URL it is fetched from, is not empty.
func ParseLink(link string) (value []byte, reference string, err error) {
	u, err := url.Parse(strings.TrimSpace(link))
	if err != nil {
		return nil, "", errors.New("this is no link: expected openid-credential-offer://?credential_offer… or haip-vci://?…")
	}
	switch u.Scheme {
	case "openid-credential-offer", "haip-vci", "https":
	default:
		return nil, "", fmt.Errorf("the link's scheme is %q: expected openid-credential-offer, haip-vci or https", u.Scheme)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, "", errors.New("the link's query is not URL-encoded")
	}
	inline, byReference := query["credential_offer"], query["credential_offer_uri"]
	if len(query) != 1 || len(inline)+len(byReference) != 1 {
		return nil, "", errors.New("the link must have one parameter: credential_offer or credential_offer_uri")
	}
	if len(inline) == 1 {
		if inline[0] == "" {
			return nil, "", errors.New("credential_offer is empty")
		}
		return []byte(inline[0]), "", nil
	}
	if err := checkURL(byReference[0]); err != nil {
		return nil, "", fmt.Errorf("credential_offer_uri %w", err)
	}
	return nil, byReference[0], nil
}

// checkURL accepts an absolute https URL without user and fragment.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Contains(text, "#") {
		return errors.New("is no https URL without fragment")
	}
	return nil
}

// checkIssuer accepts a Credential Issuer Identifier (OpenID4VCI 1.0 §12.2.1).
func checkIssuer(text string) error {
	if err := checkURL(text); err != nil {
		return err
	}
	if strings.Contains(text, "?") {
		return errors.New("has a query")
	}
	return nil
}

// ParseOffer checks an offer's JSON (OpenID4VCI 1.0 §4.1.1).
func ParseOffer(data []byte) (*Offer, error) {
	object, err := strictjson.Object(data)
	if err != nil {
		return nil, fmt.Errorf("the offer: %w", err)
	}
	offer := &Offer{}
	if offer.Issuer, err = text(object, "credential_issuer"); err != nil {
		return nil, err
	}
	if err := checkIssuer(offer.Issuer); err != nil {
		return nil, fmt.Errorf("credential_issuer %w", err)
	}
	if offer.Configurations, err = texts(object, "credential_configuration_ids"); err != nil {
		return nil, err
	}
	grants, ok := object["grants"].(map[string]any)
	if !ok {
		return nil, errors.New("grants is missing or no object")
	}
	grant, ok := grants[grantType].(map[string]any)
	if !ok {
		return nil, errors.New("grants has no pre-authorized code")
	}
	if offer.Code, err = text(grant, "pre-authorized_code"); err != nil {
		return nil, err
	}
	if _, found := grant["authorization_server"]; found {
		if offer.AuthorizationServer, err = text(grant, "authorization_server"); err != nil {
			return nil, err
		}
	}
	offer.TxCode, err = parseTxCode(grant)
	return offer, err
}

func parseTxCode(grant map[string]any) (*TxCode, error) {
	value, found := grant["tx_code"]
	if !found {
		return nil, nil
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("tx_code is no object")
	}
	c := &TxCode{InputMode: "numeric"}
	if _, found := object["input_mode"]; found {
		c.InputMode, _ = object["input_mode"].(string)
	}
	if c.InputMode != "numeric" && c.InputMode != "text" {
		return nil, errors.New("tx_code.input_mode is neither numeric nor text")
	}
	if value, found := object["length"]; found {
		number, _ := value.(json.Number)
		length, err := number.Int64()
		if err != nil || length < 1 || length > 1000 {
			return nil, errors.New("tx_code.length is no positive whole number")
		}
		c.Length = int(length)
	}
	if value, found := object["description"]; found {
		if c.Description, ok = value.(string); !ok || utf8.RuneCountInString(c.Description) > 300 {
			return nil, errors.New("tx_code.description is no string of at most 300 characters")
		}
	}
	return c, nil
}

// text returns a member that must be a non-empty string.
func text(object map[string]any, name string) (string, error) {
	value, ok := object[name].(string)
	if !ok || value == "" {
		return "", fmt.Errorf("%s is missing or no string", name)
	}
	return value, nil
}

// texts returns a member that must be a non-empty array of different non-empty strings.
func texts(object map[string]any, name string) ([]string, error) {
	list, _ := object[name].([]any)
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is missing, empty or no array", name)
	}
	var values []string
	seen := map[string]bool{}
	for _, item := range list {
		value, ok := item.(string)
		if !ok || value == "" || seen[value] {
			return nil, fmt.Errorf("%s holds something other than different strings", name)
		}
		seen[value] = true
		values = append(values, value)
	}
	return values, nil
}
