// Package wallet is a demonstration wallet: it takes a Credential Offer through
// OpenID4VCI 1.0's pre-authorized code flow over real HTTPS, with a fresh key
// for each credential, and is as picky as a wallet may be. Whatever an answer
// gets wrong ends the flow with an [Error] that names the step.
//
// It shares no code with the appliance. It keeps nothing: credential and key
// are returned to the caller.
package wallet

import (
	"context"
	"crypto"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Binding is how a proof names the wallet's key (OpenID4VCI 1.0 App. F.1).
type Binding string

// The bindings. Automatic takes the first that the issuer supports for the
// format: a DID for W3C credentials, the bare key otherwise.
const (
	Automatic Binding = ""
	JWK       Binding = "jwk"
	DIDJWK    Binding = "did:jwk"
	DIDKey    Binding = "did:key"
)

// Wallet takes offers. Its fields must not change while it is in use.
type Wallet struct {
	// HTTP makes the requests; its TLS configuration says which servers are
	// trusted. Redirects are never followed, whatever it says.
	HTTP *http.Client
	// Algorithm signs the proofs: ES256 (default), ES384 or EdDSA.
	Algorithm string
	// Binding is how proofs name the key.
	Binding Binding
	// ClientID is sent to the token endpoint when not empty; otherwise the
	// wallet is anonymous.
	ClientID string
	// Configurations, when not empty, limits which of the offered ones are taken.
	Configurations []string
	// TransactionCode asks the person for the code; it gets what the offer says
	// about it. nil means that no code is at hand.
	TransactionCode func(TxCode) (string, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Credential is what one credential request brought.
type Credential struct {
	Configuration string
	Metadata      Configuration
	// Text is the credential as it was answered.
	Text string
	// Key is the private key the credential is bound to; nil when unbound.
	Key crypto.Signer
	// Notification is the notification_id, if the issuer gave one.
	Notification string
}

// Result is a taken offer.
type Result struct {
	Offer       *Offer
	Metadata    *Metadata
	Credentials []Credential
}

// Step names a part of the flow in errors.
type Step string

// The steps, in order.
const (
	StepOffer      Step = "offer"
	StepMetadata   Step = "issuer metadata"
	StepServer     Step = "authorization server metadata"
	StepToken      Step = "token"
	StepNonce      Step = "nonce"
	StepCredential Step = "credential"
)

// Error ends a flow. Code and Description are the server's own words, when it
// answered with an error object.
type Error struct {
	Step        Step
	Status      int    // HTTP status; 0 when there was no answer
	Code        string // the error member, for instance "invalid_grant"
	Description string // the error_description member
	Problem     string // what the wallet found wrong
	// RetryAfter is the server's Retry-After header; empty when absent.
	RetryAfter string
	Err        error
}

// Error tells step, status, the server's error and the wallet's finding.
func (e *Error) Error() string {
	text := string(e.Step) + ":"
	if e.Status != 0 {
		text += fmt.Sprintf(" HTTP %d", e.Status)
	}
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Description != "" {
		text += fmt.Sprintf(" (%s)", e.Description)
	}
	for _, part := range []string{e.Problem, retryText(e.RetryAfter)} {
		if part != "" {
			text = strings.TrimSuffix(text, ";") + " " + part + ";"
		}
	}
	if e.Err != nil {
		text += " " + e.Err.Error()
	}
	return strings.TrimRight(text, ":; ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func retryText(after string) string {
	if after == "" {
		return ""
	}
	return "try again after " + after + " s"
}

func wrong(step Step, format string, args ...any) *Error {
	return &Error{Step: step, Problem: fmt.Sprintf(format, args...)}
}

// Accept takes the offer behind a link and returns the credentials. txCode is
// the transaction code; when it is empty and the offer wants one, the wallet's
// TransactionCode is asked.
func (w *Wallet) Accept(ctx context.Context, link, txCode string) (*Result, error) {
	offer, err := w.Resolve(ctx, link)
	if err != nil {
		return nil, err
	}
	return w.Take(ctx, offer, txCode)
}

// Take is [Wallet.Accept] for an offer that was resolved already.
func (w *Wallet) Take(ctx context.Context, offer *Offer, txCode string) (*Result, error) {
	metadata, err := w.metadata(ctx, offer)
	if err != nil {
		return nil, err
	}
	chosen, err := w.choose(offer, metadata)
	if err != nil {
		return nil, err
	}
	if txCode, err = w.transactionCode(offer, txCode); err != nil {
		return nil, err
	}
	token, err := w.token(ctx, offer, metadata, txCode)
	if err != nil {
		return nil, err
	}
	result := &Result{Offer: offer, Metadata: metadata}
	for _, id := range chosen {
		credential, err := w.credential(ctx, metadata, token, id)
		if err != nil {
			return result, err
		}
		result.Credentials = append(result.Credentials, *credential)
	}
	return result, nil
}

// choose returns the configurations to ask for, each known to the metadata.
func (w *Wallet) choose(offer *Offer, metadata *Metadata) ([]string, error) {
	chosen := offer.Configurations
	if len(w.Configurations) > 0 {
		chosen = w.Configurations
	}
	for _, id := range chosen {
		if !slices.Contains(offer.Configurations, id) {
			return nil, wrong(StepOffer, "it does not offer %q", id)
		}
		if _, found := metadata.Configurations[id]; !found {
			return nil, wrong(StepMetadata, "the offered configuration %q is not in credential_configurations_supported", id)
		}
	}
	return chosen, nil
}

func (w *Wallet) transactionCode(offer *Offer, txCode string) (string, error) {
	switch {
	case offer.TxCode == nil && txCode != "":
		return "", wrong(StepOffer, "it wants no transaction code, but one was given: leave it out")
	case offer.TxCode == nil || txCode != "":
		return txCode, nil
	case w.TransactionCode == nil:
		return "", wrong(StepOffer, "it wants a transaction code (%s): give it with --tx-code", offer.TxCode)
	}
	code, err := w.TransactionCode(*offer.TxCode)
	if err != nil || code == "" {
		return "", &Error{Step: StepOffer, Problem: "it wants a transaction code", Err: err}
	}
	return code, nil
}

func (w *Wallet) now() time.Time {
	if w.Now == nil {
		return time.Now()
	}
	return w.Now()
}
