package wallet

import (
	"context"
	"crypto"
	"net/http"
)

// flow is one run of the wallet against one issuer; one goroutine owns it.
type flow struct {
	w      *Wallet
	m      *Metadata
	s      *State
	result *Result
	// method is how the client authenticates at the token endpoint.
	method string
	// dpop signs DPoP proofs and instance proofs of possession of the wallet
	// attestation; nil means that there are none.
	dpop, instance crypto.Signer
	// tokenNonce and resourceNonce are the newest DPoP-Nonce of the
	// authorization server and of the issuer: two namespaces (RFC 9449 §8.2).
	tokenNonce, resourceNonce string
	// attestationChallenge is the newest that the authorization server gave.
	attestationChallenge string
}

// begin reads the metadata and takes up the key of a state.
func (w *Wallet) begin(ctx context.Context, s *State) (*flow, error) {
	m, err := w.metadata(ctx, s.Issuer, s.Server)
	if err != nil {
		return nil, err
	}
	f := &flow{w: w, m: m, s: s, result: &Result{Metadata: m, State: s}}
	if s.DPoPKey != nil {
		if f.dpop, err = privateKey(s.DPoPKey); err != nil {
			return nil, failed(StepToken, err)
		}
	}
	return f, nil
}

// rehearse finds what the wallet cannot do for the issuer before a code or a
// refresh token is spent on it.
func (f *flow) rehearse() error {
	for _, id := range f.s.Configurations {
		c, found := f.m.Configurations[id]
		if !found {
			return wrong(StepMetadata, "the configuration %q is not in credential_configurations_supported", id)
		}
		if _, err := f.plan(c); err != nil {
			return failed(StepCredential, err)
		}
	}
	if _, err := f.seal(&request{}, map[string]any{}); err != nil {
		return failed(StepCredential, err)
	}
	return nil
}

// finish asks for every credential, and waits for those that are deferred.
func (f *flow) finish(ctx context.Context) (*Result, error) {
	for _, id := range f.s.Configurations {
		identifiers := f.s.Identifiers[id]
		if len(identifiers) == 0 {
			identifiers = []string{""}
		}
		for _, identifier := range identifiers {
			if err := f.issue(ctx, id, identifier); err != nil {
				return f.result, err
			}
		}
	}
	return f.result, f.collect(ctx)
}

// keep hands the state to whoever keeps it.
func (f *flow) keep() error {
	if f.w.Keep == nil {
		return nil
	}
	return f.w.Keep(f.s)
}

// send sends a request with what proves possession of the wallet's keys. A
// server that wants its DPoP nonce or its attestation challenge in them gets
// the request once more (RFC 9449 §8, §9; ABCA-07 §6.2, §8).
func (f *flow) send(ctx context.Context, r request) (*answer, error) {
	for asked := map[string]bool{}; ; {
		dressed := r.clone()
		if err := f.dress(&dressed); err != nil {
			return nil, failed(r.step, err)
		}
		a, err := f.w.do(ctx, dressed)
		if err != nil {
			return nil, err
		}
		again, err := f.observe(a)
		if err != nil {
			return nil, err
		}
		if again == "" || asked[again] {
			return a, nil
		}
		asked[again] = true
	}
}

// dress adds the access token and fresh proofs of possession.
func (f *flow) dress(r *request) error {
	if r.fresh != nil {
		if err := r.fresh(r); err != nil {
			return err
		}
	}
	token := ""
	if r.step.protected() {
		token = f.s.AccessToken
		r.header["Authorization"] = f.s.TokenType + " " + token
	}
	if f.dpop == nil || r.step != StepToken && f.s.TokenType != dpop {
		return nil
	}
	nonce := f.resourceNonce
	if r.step == StepToken {
		nonce = f.tokenNonce
	}
	proof, err := f.w.dpopProof(f.dpop, r, token, nonce)
	r.header["DPoP"] = proof
	return err
}

// challenged takes an attestation challenge. When a DPoP proof is the proof of
// possession, the challenge takes the place of its nonce (ABCA-10 §5.2).
func (f *flow) challenged(challenge string) {
	f.attestationChallenge = challenge
	if f.method == methodAttestDPoP {
		f.tokenNonce = challenge
	}
}

// observe takes nonce and challenge from an answer and returns the error that
// asks for the request once more with them.
func (f *flow) observe(a *answer) (string, error) {
	nonces, challenges := a.header.Values("DPoP-Nonce"), a.header.Values("OAuth-Client-Attestation-Challenge")
	if len(nonces) > 1 || len(challenges) > 1 {
		return "", a.wrong("DPoP-Nonce or OAuth-Client-Attestation-Challenge is there twice")
	}
	if len(nonces) == 1 {
		if a.step == StepToken {
			f.tokenNonce = nonces[0]
		} else {
			f.resourceNonce = nonces[0]
		}
	}
	if len(challenges) == 1 {
		f.challenged(challenges[0])
	}
	if a.status != http.StatusBadRequest && a.status != http.StatusUnauthorized {
		return "", nil
	}
	switch code := a.failure().Code; code {
	case "use_dpop_nonce":
		if len(nonces) == 0 {
			return "", a.wrong("use_dpop_nonce without DPoP-Nonce (RFC 9449 §8, §9)")
		}
		if a.step.protected() && a.status != http.StatusUnauthorized || a.step == StepToken && a.status != http.StatusBadRequest {
			return "", a.wrong("use_dpop_nonce with another status than 400 at the token endpoint, 401 elsewhere (RFC 9449 §8, §9)")
		}
		return code, nil
	case "use_attestation_challenge":
		if len(challenges) == 0 {
			return "", a.wrong("use_attestation_challenge without OAuth-Client-Attestation-Challenge (ABCA-07 §6.2)")
		}
		return code, nil
	}
	return "", nil
}
