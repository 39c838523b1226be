package wallet

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// proofType is a jwt proof's typ (OpenID4VCI 1.0 App. F.1).
const proofType = "openid4vci-proof+jwt"

// plan is how the keys of one credential request are proven.
type plan struct {
	kind     ProofType
	binding  Binding // of jwt and di_vp
	attested bool    // with a key attestation
	keys     []crypto.Signer
}

// plan chooses proof type and binding and makes the keys; nil for a
// configuration without key binding.
func (f *flow) plan(c Configuration) (*plan, error) {
	if len(c.Bindings) == 0 {
		return nil, nil
	}
	w := f.w
	p := &plan{}
	var err error
	if p.kind, err = w.proofType(c); err != nil {
		return nil, err
	}
	rules := c.Proofs[p.kind]
	p.attested = p.kind == ProofAttestation || p.kind == ProofJWT && (rules.Attested || w.KeyAttestation)
	if p.attested {
		if err := w.attestable(rules); err != nil {
			return nil, err
		}
	}
	if p.kind != ProofAttestation {
		if p.binding, err = w.binding(c, p.kind); err != nil {
			return nil, err
		}
		if name := signatureName(p.kind, w.algorithm()); !slices.Contains(rules.Algorithms, name) {
			return nil, fmt.Errorf("the issuer takes no %s proof that is signed %s: it takes [%s]", p.kind, name, strings.Join(rules.Algorithms, ", "))
		}
	}
	count := max(w.Keys, 1)
	if int64(count) > f.m.BatchSize {
		return nil, fmt.Errorf("the issuer gives at most %d credentials a request, not %d", f.m.BatchSize, count)
	}
	for range count {
		key, err := generateKey(w.algorithm())
		if err != nil {
			return nil, err
		}
		p.keys = append(p.keys, key)
	}
	return p, nil
}

// proofType chooses among what the issuer takes.
func (w *Wallet) proofType(c Configuration) (ProofType, error) {
	order := []ProofType{ProofJWT, ProofAttestation, ProofDIVP}
	if w.Proof != AnyProof {
		order = []ProofType{w.Proof}
	}
	// Without an attester, a type that needs no attestation goes first.
	slices.SortStableFunc(order, func(a, b ProofType) int {
		needs := func(t ProofType) int {
			if w.Attester == nil && (t == ProofAttestation || c.Proofs[t].Attested) {
				return 1
			}
			return 0
		}
		return needs(a) - needs(b)
	})
	for _, kind := range order {
		if _, found := c.Proofs[kind]; found {
			return kind, nil
		}
	}
	return "", errors.New("the issuer takes none of the proof types that the wallet may use")
}

// attestable checks that the attester can say what the issuer requires.
func (w *Wallet) attestable(rules ProofRules) error {
	switch {
	case w.Attester == nil:
		return errors.New("the issuer requires a key attestation: give an attester with --attester")
	case !slices.Contains(rules.Algorithms, w.Attester.algorithm()):
		return fmt.Errorf("the issuer takes no key attestation signed %s: it takes [%s]", w.Attester.algorithm(), strings.Join(rules.Algorithms, ", "))
	case len(rules.KeyStorage) > 0 && len(w.KeyStorage) == 0:
		return fmt.Errorf("the issuer requires key_storage to be one of [%s]: say what it is with --key-storage", strings.Join(rules.KeyStorage, ", "))
	case len(rules.UserAuthentication) > 0 && len(w.UserAuthentication) == 0:
		return fmt.Errorf("the issuer requires user_authentication to be one of [%s]: say what it is with --user-authentication", strings.Join(rules.UserAuthentication, ", "))
	}
	return nil
}

// binding returns how the proof names its key for a configuration. A di_vp
// proof can name it by DID only.
func (w *Wallet) binding(c Configuration, kind ProofType) (Binding, error) {
	supports := func(b Binding) bool {
		return slices.Contains(c.Bindings, string(b)) || b == JWK && slices.Contains(c.Bindings, "cose_key")
	}
	order := []Binding{JWK, DIDJWK, DIDKey}
	if c.Format == "jwt_vc_json" {
		order = []Binding{DIDJWK, DIDKey, JWK}
	}
	if w.Binding != Automatic {
		order = []Binding{w.Binding}
	}
	if kind == ProofDIVP {
		order = slices.DeleteFunc(order, func(b Binding) bool { return b == JWK })
	}
	if i := slices.IndexFunc(order, supports); i >= 0 {
		return order[i], nil
	}
	return "", errors.New("the issuer binds to none of the wallet's methods: it takes " + strings.Join(c.Bindings, ", "))
}

func (w *Wallet) algorithm() string {
	if w.Algorithm == "" {
		return "ES256"
	}
	return w.Algorithm
}

// signatureName is how proof_signing_alg_values_supported names a signature.
func signatureName(kind ProofType, algorithm string) string {
	switch {
	case kind != ProofDIVP:
		return algorithm
	case algorithm == "EdDSA":
		return suiteEdDSA
	}
	return suiteECDSA
}

// proofs makes the proofs member of a credential request (OpenID4VCI 1.0 §8.2):
// one key attestation for all keys, alone or in a jwt proof by the first key,
// or one proof for each key.
func (f *flow) proofs(p *plan, nonce string) (map[string]any, error) {
	attestation, err := "", error(nil)
	if p.attested {
		attestation, err = f.w.Attester.attestKeys(p.keys, f.w.KeyStorage, f.w.UserAuthentication, nonce, f.w.now())
		if err != nil {
			return nil, err
		}
	}
	signing := p.keys
	switch {
	case p.kind == ProofAttestation:
		return map[string]any{string(p.kind): []any{attestation}}, nil
	case p.attested:
		signing = p.keys[:1]
	}
	var list []any
	for _, key := range signing {
		var proof any
		if p.kind == ProofDIVP {
			proof, err = presentation(key, p.binding, f.m.Issuer, nonce, f.w.now())
		} else {
			proof, err = f.jwtProof(key, p.binding, nonce, attestation)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, proof)
	}
	return map[string]any{string(p.kind): list}, nil
}

// jwtProof makes a jwt key proof (OpenID4VCI 1.0 App. F.1). An anonymous wallet
// leaves out iss.
func (f *flow) jwtProof(key crypto.Signer, binding Binding, nonce, attestation string) (string, error) {
	header := map[jose.HeaderKey]any{}
	if binding == JWK {
		header["jwk"] = publicJWK(key)
	} else {
		id, err := didURL(binding, key.Public())
		if err != nil {
			return "", err
		}
		header["kid"] = id
	}
	if attestation != "" {
		header["key_attestation"] = attestation
	}
	claims := map[string]any{"aud": f.m.Issuer, "iat": f.w.now().Unix(), "nonce": nonce}
	if f.s.ClientID != "" {
		claims["iss"] = f.s.ClientID
	}
	return signJWT(key, proofType, header, claims)
}
