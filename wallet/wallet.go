// Package wallet is a demonstration wallet: it takes a Credential Offer through
// OpenID4VCI 1.0's pre-authorized code flow over real HTTPS, with fresh keys,
// and is as picky as a wallet may be. Whatever an answer gets wrong ends the
// flow with an [Error] that names the step.
//
// What the issuer advertises is used: DPoP, client attestation (with an
// [Attester]), key attestations, encryption where it is required. Several keys
// bring several credentials; a deferred credential is polled for, or its
// [State] is kept for [Wallet.Resume]. With Verify set each credential is
// verified and the issuer notified of the outcome.
//
// It shares no code with the appliance. It keeps nothing: credentials, keys and
// state are returned to the caller.
package wallet

import (
	"context"
	"crypto"
	"crypto/x509"
	"net/http"
	"slices"
	"time"

	"chancery/verifier"
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

// ProofType is a kind of key proof (OpenID4VCI 1.0 App. F).
type ProofType string

// The proof types. AnyProof takes the first of these that the issuer takes.
const (
	AnyProof         ProofType = ""
	ProofJWT         ProofType = "jwt"
	ProofAttestation ProofType = "attestation"
	ProofDIVP        ProofType = "di_vp"
)

// Draft is a version of draft-ietf-oauth-attestation-based-client-auth.
type Draft int

// The drafts that the wallet speaks: Draft07 is the one that OpenID4VCI 1.0
// pins; Draft10 has no iss in attestation and proof of possession.
const (
	Draft07 Draft = 0
	Draft10 Draft = 10
)

// Wallet takes offers. Its fields must not change while it is in use.
type Wallet struct {
	// HTTP makes the requests; its TLS configuration says which servers are
	// trusted. Redirects are never followed, whatever it says.
	HTTP *http.Client
	// Algorithm is that of the credentials' keys: ES256 (default), ES384 or EdDSA.
	Algorithm string
	// Binding is how proofs name the key.
	Binding Binding
	// Proof is the proof type to use.
	Proof ProofType
	// Keys is how many keys, and so how many credentials, each request is for;
	// 0 means one.
	Keys int
	// ClientID is sent to the token endpoint when not empty; otherwise the
	// wallet is anonymous, unless it has an Attester.
	ClientID string
	// ClientKey authenticates the client by private_key_jwt (RFC 7523 §2.2);
	// ClientKeyID, when not empty, is the kid of its assertions.
	ClientKey   crypto.Signer
	ClientKeyID string
	// Attester attests the wallet and its keys, where the issuer takes that.
	Attester *Attester
	// AttestationDraft is the form of the wallet's attestation.
	AttestationDraft Draft
	// KeyAttestation adds a key attestation to jwt proofs also where none is required.
	KeyAttestation bool
	// KeyStorage and UserAuthentication are what key attestations say
	// (OpenID4VCI 1.0 App. D.2), for instance iso_18045_basic.
	KeyStorage, UserAuthentication []string
	// NoDPoP asks for Bearer tokens even when the server supports DPoP (RFC 9449).
	NoDPoP bool
	// AuthorizationDetails asks for the credentials with authorization_details
	// (OpenID4VCI 1.0 §5.1.1).
	AuthorizationDetails bool
	// Encrypt encrypts requests and responses also where that is not required.
	Encrypt bool
	// RequestAlgorithm is the alg of encrypted requests; empty takes the first
	// of the issuer's keys.
	RequestAlgorithm string
	// ResponseAlgorithm and ResponseEncryption are the alg and enc of encrypted
	// responses; empty takes the first of the issuer's that the wallet has.
	ResponseAlgorithm, ResponseEncryption string
	// SignedMetadata asks for signed metadata too and compares it with the
	// plain form; its certificate must lead to one of MetadataAnchors, if there are any.
	SignedMetadata  bool
	MetadataAnchors []*x509.Certificate
	// Configurations, when not empty, limits which of the offered ones are taken.
	Configurations []string
	// TransactionCode asks the person for the code; it gets what the offer says
	// about it. nil means that no code is at hand.
	TransactionCode func(TxCode) (string, error)
	// Verify, when not nil, says how credentials are verified; its Now, Holder,
	// Type and Fresh are the wallet's to set. Without anchors and issuer keys
	// everything but the trust in the issuer is judged. nil verifies nothing
	// and so notifies nobody.
	Verify *verifier.Options
	// NoNotify leaves out notifications.
	NoNotify bool
	// Wait is how long a deferred credential is polled for.
	Wait time.Duration
	// Keep, when not nil, is called whenever there is something to keep: a
	// deferred transaction, a new refresh token.
	Keep func(*State) error
	// Sleep waits between polls; nil means a timer.
	Sleep func(context.Context, time.Duration) error
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Credential is one credential that was issued.
type Credential struct {
	Configuration string
	Metadata      Configuration
	// Text is the credential as it was answered.
	Text string
	// Key is the private key the credential is bound to; nil when unbound.
	Key crypto.Signer
	// Notification is the notification_id, if the issuer gave one.
	Notification string
	// Report is what the verifier found; nil when it was not asked or the text
	// is no credential.
	Report *verifier.Report
	// Problem is what the wallet found wrong beyond the report; empty when nothing.
	Problem string
	// Missing are the mandatory claims that are not there, as "a.b".
	Missing []string
	// Accepted says that the credential is what was asked for.
	Accepted bool
}

// Result is a taken offer, as far as it came.
type Result struct {
	Metadata    *Metadata
	Credentials []Credential
	// State continues the flow: with what is pending, and with the refresh token.
	State *State
	// Unnotified are the notifications that failed.
	Unnotified []error
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

// Take is [Wallet.Accept] for an offer that was resolved already. After an
// error the result, when not nil, holds what was issued before it.
func (w *Wallet) Take(ctx context.Context, offer *Offer, txCode string) (*Result, error) {
	f, err := w.begin(ctx, &State{Issuer: offer.Issuer, Server: offer.AuthorizationServer, ClientID: w.ClientID})
	if err != nil {
		return nil, err
	}
	if f.s.Configurations, err = w.choose(offer); err != nil {
		return nil, err
	}
	if txCode, err = w.transactionCode(offer, txCode); err != nil {
		return nil, err
	}
	if err := f.rehearse(); err != nil {
		return nil, err
	}
	if err := f.redeem(ctx, offer, txCode); err != nil {
		return nil, err
	}
	return f.finish(ctx)
}

// Resume fetches the deferred credentials of a state.
func (w *Wallet) Resume(ctx context.Context, state *State) (*Result, error) {
	f, err := w.begin(ctx, state)
	if err != nil {
		return nil, err
	}
	return f.result, f.collect(ctx)
}

// Refresh redeems the state's refresh token and asks for its credentials anew,
// with new keys (OpenID4VCI 1.0 §14.5).
func (w *Wallet) Refresh(ctx context.Context, state *State) (*Result, error) {
	if state.RefreshToken == "" {
		return nil, wrong(StepToken, "the issuer gave no refresh token")
	}
	f, err := w.begin(ctx, state)
	if err != nil {
		return nil, err
	}
	if err := f.rehearse(); err != nil {
		return nil, err
	}
	if err := f.refresh(ctx); err != nil {
		return nil, err
	}
	return f.finish(ctx)
}

// choose returns the configurations to ask for.
func (w *Wallet) choose(offer *Offer) ([]string, error) {
	chosen := offer.Configurations
	if len(w.Configurations) > 0 {
		chosen = w.Configurations
	}
	for _, id := range chosen {
		if !slices.Contains(offer.Configurations, id) {
			return nil, wrong(StepOffer, "it does not offer %q", id)
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

func (w *Wallet) sleep(ctx context.Context, d time.Duration) error {
	if w.Sleep != nil {
		return w.Sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
