package wallet

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDPoP(t *testing.T) {
	for _, nonces := range []bool{false, true} {
		t.Run(fmt.Sprint("nonces ", nonces), func(t *testing.T) {
			i := newStrict(t)
			i.nonces = nonces
			result := i.accept(i.wallet())
			if result.State.TokenType != dpop || !slices.Equal(i.events, []string{"credential_accepted"}) {
				t.Errorf("token %s, events %q", result.State.TokenType, i.events)
			}
			want := []string(nil)
			if nonces {
				want = []string{"/token use_dpop_nonce: nonce", "/credential use_dpop_nonce: nonce"}
			}
			if !slices.Equal(i.refusals, want) {
				t.Errorf("refusals: %q", i.refusals)
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		i := newStrict(t)
		w := i.wallet()
		w.NoDPoP = true
		if result := i.accept(w); result.State.TokenType != bearer || result.State.DPoPKey != nil {
			t.Errorf("state: %+v", result.State)
		}
	})
	t.Run("answered with Bearer", func(t *testing.T) {
		i := newStrict(t)
		i.tokenType = "bearer"
		if result := i.accept(i.wallet()); result.State.TokenType != bearer {
			t.Errorf("token %s", result.State.TokenType)
		}
	})
	t.Run("no common algorithm", func(t *testing.T) {
		i := newStrict(t)
		set(i.as, "dpop_signing_alg_values_supported", []any{"RS256"})
		if _, err := i.wallet().Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), "RS256") {
			t.Error(err)
		}
	})
}

func TestClientAuthentication(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*strict, *Wallet)
		client string
	}{
		"attestation":           {func(i *strict, w *Wallet) {}, DefaultClientID},
		"attestation, own id":   {func(i *strict, w *Wallet) { w.ClientID = "https://wallet.example/app" }, "https://wallet.example/app"},
		"attestation, draft 10": {func(i *strict, w *Wallet) { i.draft, w.AttestationDraft = Draft10, Draft10 }, DefaultClientID},
		"no challenge endpoint": {func(i *strict, w *Wallet) { set(i.as, "challenge_endpoint", nil) }, DefaultClientID},
		"with DPoP nonces":      {func(i *strict, w *Wallet) { i.nonces = true }, DefaultClientID},
		"both kinds of rounds":  {func(i *strict, w *Wallet) { i.nonces = true; set(i.as, "challenge_endpoint", nil) }, DefaultClientID},
		"proof by DPoP, draft10": {func(i *strict, w *Wallet) {
			i.draft, w.AttestationDraft = Draft10, Draft10
			set(i.as, "token_endpoint_auth_methods_supported", []any{methodAttestDPoP})
		}, DefaultClientID},
		"private_key_jwt": {func(i *strict, w *Wallet) {
			key, err := generateKey("ES256")
			if err != nil {
				t.Fatal(err)
			}
			i.clientKey, w.Attester = key.Public(), nil
			w.ClientID, w.ClientKey, w.ClientKeyID = "client-1", key, "k"
			set(i.as, "token_endpoint_auth_methods_supported", []any{methodKey})
			set(i.as, "token_endpoint_auth_signing_alg_values_supported", []any{"ES256"})
		}, "client-1"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			i.attested()
			w := i.wallet()
			w.Attester = i.attester
			c.change(i, w)
			if result := i.accept(w); result.State.ClientID != c.client {
				t.Errorf("client %q", result.State.ClientID)
			}
		})
	}
}

func TestClientMethodRefused(t *testing.T) {
	key, err := generateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		server Server
		wallet Wallet
		words  string
	}{
		"anonymous":             {Server{}, Wallet{}, "--client-id"},
		"key without id":        {Server{}, Wallet{ClientKey: key}, "--client-id"},
		"key not taken":         {Server{Methods: []string{methodNone}}, Wallet{ClientKey: key, ClientID: "a"}, "--client-key"},
		"key of wrong kind":     {Server{Methods: []string{methodKey}, MethodAlgorithms: []string{"PS256"}}, Wallet{ClientKey: key, ClientID: "a"}, "ES256"},
		"needs authentication":  {Server{Methods: []string{methodAttest}}, Wallet{ClientID: "a"}, "--attester"},
		"attester's algorithms": {Server{Methods: []string{methodAttest}, Attestation: []string{"ES512"}}, Wallet{Attester: &Attester{Key: key}}, "lacks ES256"},
	} {
		if _, err := c.wallet.clientMethod(c.server); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProofs(t *testing.T) {
	const types = "proof_types_supported"
	for name, c := range map[string]struct {
		change func(*strict, *Wallet)
		member string // of proofs
		proofs int
	}{
		"jwt":                  {func(i *strict, w *Wallet) {}, "jwt", 3},
		"jwt with attestation": {func(i *strict, w *Wallet) { w.KeyAttestation = true }, "jwt", 1},
		"attestation required": {func(i *strict, w *Wallet) {
			set(i.metadata, "credential_configurations_supported", "pid", types, "jwt", "key_attestations_required", map[string]any{"key_storage": []any{"iso_18045_basic"}})
		}, "jwt", 1},
		"attestation": {func(i *strict, w *Wallet) { w.Proof = ProofAttestation }, "attestation", 1},
		"only attestation": {func(i *strict, w *Wallet) {
			set(i.metadata, "credential_configurations_supported", "pid", types, "jwt", nil)
		}, "attestation", 1},
		"di_vp, Ed25519":    {func(i *strict, w *Wallet) { w.Proof, w.Algorithm, w.Binding = ProofDIVP, "EdDSA", DIDKey }, "di_vp", 3},
		"di_vp, P-256":      {func(i *strict, w *Wallet) { w.Proof, w.Binding = ProofDIVP, DIDJWK }, "di_vp", 3},
		"jwt by did:jwk":    {func(i *strict, w *Wallet) { w.Binding = DIDJWK }, "jwt", 3},
		"attested, did:jwk": {func(i *strict, w *Wallet) { w.Binding, w.KeyAttestation = DIDJWK, true }, "jwt", 1},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			i.reversed = true
			w := i.wallet()
			w.Attester, w.Keys, w.KeyStorage = i.attester, 3, []string{"iso_18045_basic"}
			c.change(i, w)
			result := i.accept(w)
			if len(result.Credentials) != 3 {
				t.Fatalf("%d credentials", len(result.Credentials))
			}
			thumbprints := map[string]bool{}
			for _, credential := range result.Credentials {
				thumbprints[credential.Report.Holder] = true
				if !samePublic(credential.Key.Public(), credential.Report.HolderKey) {
					t.Error("the key is another's")
				}
			}
			var request struct{ Proofs map[string][]any }
			if err := json.Unmarshal(i.bodies[0], &request); err != nil {
				t.Fatal(err)
			}
			if len(thumbprints) != 3 || len(request.Proofs[c.member]) != c.proofs {
				t.Errorf("%d keys, proofs %v", len(thumbprints), request.Proofs)
			}
			if len(i.events) != 1 {
				t.Errorf("events %q: one covers a batch", i.events)
			}
		})
	}
}

func TestProofsTheWalletCannotMake(t *testing.T) {
	const configurations, types = "credential_configurations_supported", "proof_types_supported"
	for name, c := range map[string]struct {
		change func(*strict, *Wallet)
		words  string
	}{
		"no attester": {func(i *strict, w *Wallet) {
			set(i.metadata, configurations, "pid", types, "jwt", "key_attestations_required", map[string]any{})
			w.Proof = ProofJWT
		}, "--attester"},
		"storage not said": {func(i *strict, w *Wallet) {
			set(i.metadata, configurations, "pid", types, "jwt", "key_attestations_required", map[string]any{"key_storage": []any{"iso_18045_high"}})
			w.Attester = i.attester
		}, "--key-storage"},
		"user not said": {func(i *strict, w *Wallet) {
			set(i.metadata, configurations, "pid", types, "jwt", "key_attestations_required", map[string]any{"user_authentication": []any{"iso_18045_high"}})
			w.Attester = i.attester
		}, "--user-authentication"},
		"batch too large": {func(i *strict, w *Wallet) { w.Keys = 6 }, "at most 5"},
		"no batch":        {func(i *strict, w *Wallet) { w.Keys = 2; set(i.metadata, "batch_credential_issuance", nil) }, "at most 1"},
		"type not taken":  {func(i *strict, w *Wallet) { w.Proof = "cwt" }, "none of the proof types"},
		"di_vp without a DID": {func(i *strict, w *Wallet) {
			w.Proof = ProofDIVP
			set(i.metadata, configurations, "pid", "cryptographic_binding_methods_supported", []any{"jwk"})
		}, "binds to none"},
		"attester's algorithm": {func(i *strict, w *Wallet) {
			w.Proof, w.Attester = ProofAttestation, i.attester
			set(i.metadata, configurations, "pid", types, "attestation", "proof_signing_alg_values_supported", []any{"ES512"})
		}, "key attestation signed ES256"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			w := i.wallet()
			c.change(i, w)
			if _, err := w.Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want %q", err, c.words)
			}
		})
	}
}

func TestEncryption(t *testing.T) {
	for _, alg := range keyAlgorithms {
		for _, enc := range contentEncryption {
			for _, zip := range []bool{false, true} {
				t.Run(fmt.Sprint(alg, enc, zip), func(t *testing.T) {
					i := newStrict(t)
					i.encryption(true, alg, enc, zip)
					i.deferrals = 2
					w := i.wallet()
					w.Wait = time.Minute
					if i.accept(w); i.encrypted != 3 {
						t.Errorf("%d encrypted answers; want 202, 202 and 200", i.encrypted)
					}
				})
			}
		}
	}
}

func TestEncryptionByChoice(t *testing.T) {
	i := newStrict(t)
	i.encryption(false, "ECDH-ES", "A128GCM", false)
	if i.accept(i.wallet()); i.encrypted != 0 {
		t.Error("encrypted without being told")
	}
	w := i.wallet()
	w.Encrypt = true
	if i.accept(w); i.encrypted != 1 {
		t.Error("not encrypted")
	}
	w.RequestAlgorithm = "ECDH-ES"
	if i.accept(w); i.encrypted != 2 {
		t.Error("not encrypted")
	}
	w.RequestAlgorithm = "ECDH-ES+A256KW"
	if _, err := w.Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), "may not use it") {
		t.Error(err)
	}
	w.RequestAlgorithm, w.ResponseEncryption = "", "A256GCM"
	if _, err := w.Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), "enc of the issuer's") {
		t.Error(err)
	}
	i = newStrict(t)
	w = i.wallet()
	w.Encrypt = true
	if _, err := w.Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), "--encrypt") {
		t.Error(err)
	}
}

func TestDeferred(t *testing.T) {
	i := newStrict(t)
	i.deferrals = 3
	w := i.wallet()
	w.Wait = 5 * time.Minute
	w.Keys = 2
	begun := i.now
	if result := i.accept(w); len(result.Credentials) != 2 || len(result.State.Pending) != 0 {
		t.Errorf("result: %+v", result)
	}
	if waited := i.now.Sub(begun); waited != 90*time.Second {
		t.Errorf("waited %v; want three intervals of 30 s", waited)
	}
}

// An interval of next to nothing is a second, and polling ends with the wait.
func TestDeferredEnds(t *testing.T) {
	for _, wait := range []time.Duration{0, 10 * time.Second} {
		i := newStrict(t)
		i.deferrals, i.interval = 100, 1e-9
		w := i.wallet()
		w.Wait = wait
		begun := i.now
		if result := i.accept(w); len(result.Credentials) != 0 || len(result.State.Pending) != 1 {
			t.Errorf("result: %+v", result)
		}
		if waited, polls := i.now.Sub(begun), 99-i.deferrals; waited != wait || polls != int(wait/time.Second) {
			t.Errorf("waited %v, polled %d times; want %v and once a second", waited, polls, wait)
		}
	}
}

// With no wait a credential that is due is fetched all the same.
func TestResumeOverdue(t *testing.T) {
	i := newStrict(t)
	i.deferrals = 1
	w := i.wallet()
	state := i.accept(w).State
	i.now = i.now.Add(time.Minute)
	if result, err := w.Resume(t.Context(), state); err != nil || len(result.Credentials) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

// A new refresh token is kept though the rest of the answer is wrong.
func TestRefreshTokenIsKept(t *testing.T) {
	i := newIssuer(t, "")
	i.as["grant_types_supported"] = []any{grantType, "refresh_token"}
	i.token["refresh_token"] = "refresh-1"
	w := i.wallet()
	result, err := w.Accept(t.Context(), i.link(), "123456")
	if err != nil {
		t.Fatal(err)
	}
	kept := ""
	w.Keep = func(s *State) error { kept = s.RefreshToken; return nil }
	i.token["refresh_token"], i.token["authorization_details"] = "refresh-2", []any{}
	if _, err := w.Refresh(t.Context(), result.State); err == nil || !strings.Contains(err.Error(), "authorization_details") || kept != "refresh-2" {
		t.Errorf("%v; kept %q", err, kept)
	}
}

func TestResume(t *testing.T) {
	i := newStrict(t)
	i.deferrals = 2
	w := i.wallet()
	kept := 0
	w.Keep = func(*State) error { kept++; return nil }
	result := i.accept(w)
	if len(result.Credentials) != 0 || len(result.State.Pending) != 1 || kept == 0 {
		t.Fatalf("result: %+v, kept %d times", result, kept)
	}
	data, err := result.State.Encode()
	if err != nil {
		t.Fatal(err)
	}
	state, err := ParseState(data)
	if err != nil {
		t.Fatal(err)
	}
	// Not before the interval is over.
	if result, err = w.Resume(t.Context(), state); err != nil || len(result.Credentials) != 0 || i.deferrals != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	w.Wait = time.Hour
	i.now = i.now.Add(20 * time.Minute) // the token has ended; there is a refresh token
	if result, err = w.Resume(t.Context(), state); err != nil || len(result.Credentials) != 1 || !result.Credentials[0].Accepted {
		t.Fatalf("%+v, %v; refusals %q", result, err, i.refusals)
	}
	if len(state.Pending) != 0 || len(i.grants) < 2 {
		t.Errorf("pending %v, %d tokens", state.Pending, len(i.grants))
	}
}

func TestRefresh(t *testing.T) {
	i := newStrict(t)
	i.attested()
	w := i.wallet()
	w.Attester = i.attester
	first := i.accept(w)
	data, err := first.State.Encode()
	if err != nil {
		t.Fatal(err)
	}
	state, err := ParseState(data)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.Refresh(t.Context(), state)
	if err != nil {
		t.Fatalf("%v; refusals %q", err, i.refusals)
	}
	if len(second.Credentials) != 1 || second.Credentials[0].Report.Holder == first.Credentials[0].Report.Holder {
		t.Errorf("result: %+v", second)
	}
	if _, err := i.wallet().Refresh(t.Context(), state); err == nil || !strings.Contains(err.Error(), "--attester") {
		t.Error(err)
	}
	set(i.as, "grant_types_supported", []any{grantType})
	if _, err := w.Refresh(t.Context(), state); err == nil || !strings.Contains(err.Error(), "lacks refresh_token") {
		t.Error(err)
	}
	state.RefreshToken = ""
	if _, err := w.Refresh(t.Context(), state); err == nil || !strings.Contains(err.Error(), "no refresh token") {
		t.Error(err)
	}
}

func TestNotification(t *testing.T) {
	i := newStrict(t)
	i.spoil = func(claims map[string]any) { delete(claims, "family_name") }
	result, err := i.wallet().Accept(t.Context(), i.link(), "")
	if err != nil || result.Credentials[0].Accepted || !slices.Equal(i.events, []string{"credential_failure"}) {
		t.Errorf("%+v, %v, events %q", result, err, i.events)
	}
	i = newStrict(t)
	w := i.wallet()
	w.NoNotify = true
	if i.accept(w); len(i.events) != 0 {
		t.Errorf("events %q", i.events)
	}
	set(i.metadata, "notification_endpoint", nil)
	if result, err = i.wallet().Accept(t.Context(), i.link(), ""); err != nil || len(result.Unnotified) != 1 || len(result.Credentials) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestJudgement(t *testing.T) {
	other := newStrict(t)
	for name, c := range map[string]struct {
		spoil   func(map[string]any)
		wallet  func(*Wallet)
		problem string
	}{
		"another's key":  {func(c map[string]any) { c["cnf"] = map[string]any{"jwk": publicJWK(other.attester.Key)} }, nil, "holder binding"},
		"another type":   {func(c map[string]any) { c["vct"] = "urn:other" }, nil, "vct"},
		"over":           {func(c map[string]any) { c["exp"] = 1 }, nil, "validity"},
		"another issuer": {nil, func(w *Wallet) { w.Verify.Anchors = []*x509.Certificate{other.signer.Anchor} }, "issuer trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newStrict(t)
			i.spoil = c.spoil
			w := i.wallet()
			if c.wallet != nil {
				c.wallet(w)
			}
			result, err := w.Accept(t.Context(), i.link(), "")
			if err != nil {
				t.Fatal(err)
			}
			if problems := strings.Join(result.Credentials[0].Problems(true), "\n"); result.Credentials[0].Accepted || !strings.Contains(problems, c.problem) {
				t.Errorf("problems: %s", problems)
			}
		})
	}
	i := newStrict(t)
	w := i.wallet()
	w.Verify.Anchors = nil
	if problems := i.accept(w).Credentials[0].Problems(false); len(problems) != 0 {
		t.Errorf("problems: %q", problems)
	}
}

// One credential for a stranger's key takes no other's key.
func TestStrangerInABatch(t *testing.T) {
	i := newStrict(t)
	i.spoil = func(claims map[string]any) {
		if i.issued == 1 {
			claims["cnf"] = map[string]any{"jwk": publicJWK(i.attester.Key)}
		}
	}
	w := i.wallet()
	w.Keys = 3
	result, err := w.Accept(t.Context(), i.link(), "")
	if err != nil {
		t.Fatal(err)
	}
	for k, c := range result.Credentials {
		if c.Accepted != (k > 0) || c.Key == nil {
			t.Errorf("credential %d: %q", k+1, c.Problems(true))
		}
	}
	if !slices.Equal(i.events, []string{"credential_failure"}) {
		t.Errorf("events %q: a failure of one is a failure of all", i.events)
	}
}

func TestFewerThanKeys(t *testing.T) {
	i := newStrict(t)
	i.fewer = true
	w := i.wallet()
	w.Keys = 3
	if result := i.accept(w); len(result.Credentials) != 2 {
		t.Errorf("%d credentials", len(result.Credentials))
	}
}

func TestBrokenConnection(t *testing.T) {
	i := newStrict(t)
	i.breaks = 2
	if i.accept(i.wallet()); len(i.bodies) != 3 || string(i.bodies[0]) != string(i.bodies[2]) {
		t.Errorf("%d requests", len(i.bodies))
	}
	i = newStrict(t)
	i.breaks = 3
	_, err := i.wallet().Accept(t.Context(), i.link(), "")
	if err == nil || len(i.bodies) != 3 {
		t.Errorf("%v after %d requests", err, len(i.bodies))
	}
}

func TestAuthorizationDetails(t *testing.T) {
	i := newStrict(t)
	w := i.wallet()
	w.AuthorizationDetails = true
	i.accept(w)
	set(i.as, "authorization_details_types_supported", nil)
	if _, err := w.Accept(t.Context(), i.link(), ""); err == nil || !strings.Contains(err.Error(), "--authorization-details") {
		t.Error(err)
	}
}
