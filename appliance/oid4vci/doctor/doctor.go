// Package doctor keeps, for the operator, what was wrong with wallets' latest
// refused requests: which member, what the specification wants, what to do. A
// wallet is told its error code and one sentence; who supports its user needs
// more. Nothing kept is a secret, a claim or a value that somebody sent.
//
// Cases are in memory and bounded: an unauthenticated request must not write to
// the disk. They are gone after a restart.
package doctor

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"chancery/appliance/oid4vci/refusal"
)

// Case is one refused request.
type Case struct {
	// ID is also in the answer's Request-Id header.
	ID   string
	Time time.Time
	// Endpoint is a name, for instance "credential".
	Endpoint string
	// Offer is the offer's id; "" when the request did not get so far.
	Offer string
	// Status and Code are what the wallet was answered, Description is the sentence in it.
	Status            int
	Code, Description string
	// Member is what was wrong, Section where the specification says what it
	// wants; both may be empty.
	Member, Section string
}

// Advice says in plain words what the answer means for the wallet and what helps.
func (c Case) Advice() string {
	if text, ok := advice[c.Code]; ok {
		return text
	}
	return "The wallet treats the request as failed."
}

// advice is by error code: of RFC 6749 §5.2, RFC 6750 §3.1, RFC 9396 §5, RFC
// 9449, OpenID4VCI 1.0 §6.3, §8.3.1, §9.3 and §11.3, and attestation-based
// client authentication §6.2.
var advice = map[string]string{
	"invalid_request":                  "The request is not formed as the specification says. The wallet must be corrected; the offer is still good.",
	"invalid_client":                   "The wallet did not say who it is in a way that this issuer accepts. Look at its client_id, its attestation and who attests it (issuer.wallet_attestation, issuer.clients); the offer is still good.",
	"invalid_client_attestation":       "The wallet's attestation is not accepted. Look at who attests it (issuer.wallet_attestation); the offer is still good.",
	"use_attestation_challenge":        "The wallet is to repeat the request with the challenge it was given. One such answer is usual.",
	"use_fresh_attestation":            "The wallet's attestation is older than issuer.wallet_attestation.max_age allows. The wallet is to fetch another one from its provider.",
	"unauthorized_client":              "This client may not use the grant.",
	"unsupported_grant_type":           "The wallet asked for another grant than the pre-authorized code.",
	"unsupported_response_type":        "The authorization endpoint serves no flow here: the wallet must use the pre-authorized code.",
	"invalid_grant":                    "The code is unknown, used, expired, cancelled or locked, belongs to another client, or the transaction code was wrong. Look at the offer's state; if it is final, make a new offer.",
	"invalid_tx_code":                  "The transaction code was wrong. The person may try again as long as the offer has attempts left.",
	"invalid_scope":                    "The wallet asked for a scope that the offer does not cover.",
	"invalid_authorization_details":    "The wallet's authorization_details cannot be granted. The offer is still good.",
	"invalid_dpop_proof":               "The wallet's DPoP proof is not right. Often its clock is wrong, or it named another URL than the endpoint's.",
	"use_dpop_nonce":                   "The wallet is to repeat the request with the DPoP-Nonce it was given. One such answer is usual.",
	"unauthorized":                     "The request came without an access token. The wallet is to fetch one.",
	"invalid_token":                    "The access token is unknown, expired or belongs to an offer that has ended, or was sent without the DPoP key that it is bound to. The wallet needs a new token; if the code is spent, it needs a new offer.",
	"insufficient_scope":               "The token was not granted for this credential.",
	"invalid_credential_request":       "The credential request is not formed as the specification says. The wallet must be corrected; its token is still good.",
	"unknown_credential_configuration": "The wallet asked for a configuration that this issuer does not have. It may have kept old metadata.",
	"unknown_credential_identifier":    "The wallet used a credential_identifier that its token response did not name.",
	"invalid_proof":                    "The wallet did not prove its key as the configuration demands. Nothing was issued; its token is still good.",
	"invalid_nonce":                    "The nonce was unknown, expired or used. The wallet is to fetch another one and repeat the request. One such answer is usual.",
	"invalid_encryption_parameters":    "Request or response encryption is not as the metadata says. Nothing was issued; the token is still good.",
	"credential_request_denied":        "The credential will not be issued on this request. The wallet gives up; look at the offer, and whether an operator refused it (chancery deferred list --state refused).",
	"invalid_transaction_id":           "The transaction is unknown, was fetched already, or belongs to another token.",
	"issuance_pending":                 "The credential is not ready yet. The wallet is to come again.",
	"invalid_notification_id":          "The notification names no credential of this token.",
	"invalid_notification_request":     "The notification is not formed as the specification says. It changes nothing for the credential.",
	"too_many_requests":                "The wallet, or somebody at its address, asks more often than issuer.http allows. It is to wait.",
	"temporarily_unavailable":          "The signer or its token is away or busy. Wallets may repeat the request; see the readiness page.",
	"server_error":                     "Something failed in the appliance: see its log at the same time.",
}

// Ring keeps the latest cases: those on an offer apart from the others, which any
// stranger can fill. It is safe for concurrent use.
type Ring struct {
	mu              sync.Mutex
	offers, unknown circle
	limit           int
	added           uint64
}

// circle holds the latest cases; next is the oldest.
type circle struct {
	cases []numbered
	next  int
}

// numbered is a case with its place in the order of all.
type numbered struct {
	Case
	n uint64
}

// New returns a ring of at most limit cases on offers, and as many others.
func New(limit int) *Ring { return &Ring{limit: limit} }

// Add keeps a refused request and returns its id.
func (r *Ring) Add(endpoint, offer string, e *refusal.Refusal, now time.Time) string {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "" // crypto/rand does not fail on systems that this runs on
	}
	c := Case{ID: hex.EncodeToString(b[:]), Time: now, Endpoint: endpoint, Offer: offer, Status: e.Status, Code: e.Code, Description: e.Description, Member: e.Member, Section: e.Section}
	if e.Bare {
		c.Code = "unauthorized"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.added++
	into := &r.offers
	if offer == "" {
		into = &r.unknown
	}
	into.add(numbered{c, r.added}, r.limit)
	return c.ID
}

func (c *circle) add(one numbered, limit int) {
	if len(c.cases) < limit {
		c.cases = append(c.cases, one)
		return
	}
	c.cases[c.next] = one
	c.next = (c.next + 1) % limit
}

// at returns the case that so many came after; nil when there is none.
func (c *circle) at(later int) *numbered {
	if later >= len(c.cases) {
		return nil
	}
	return &c.cases[(c.next-1-later+2*len(c.cases))%len(c.cases)]
}

// Latest returns up to limit cases, newest first; offer, when not empty, selects
// those of one offer.
func (r *Ring) Latest(offer string, limit int) []Case {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Case
	for n, m := 0, 0; len(out) < limit; {
		known, unknown := r.offers.at(n), r.unknown.at(m)
		var c *numbered
		switch {
		case known == nil && (unknown == nil || offer != ""):
			return out
		case offer != "" || unknown == nil || known != nil && known.n > unknown.n:
			c, n = known, n+1
		default:
			c, m = unknown, m+1
		}
		if offer == "" || c.Offer == offer {
			out = append(out, c.Case)
		}
	}
	return out
}

// Find returns the case with an id.
func (r *Ring) Find(id string) (Case, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, circle := range []*circle{&r.offers, &r.unknown} {
		for _, c := range circle.cases {
			if c.ID == id {
				return c.Case, true
			}
		}
	}
	return Case{}, false
}
