package conformance

import (
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// TestPromiseP4ARoundBurnsNothing: whatever a wallet is told to do better, a
// nonce, a challenge, an attestation, a transaction code, its code is still good
// for the request that does it right, once.
func TestPromiseP4ARoundBurnsNothing(t *testing.T) {
	i := haip(t)
	o := i.offer(t, pidSDJWT, withTxCode)
	k := newKey(t, jose.ES256)
	stranger := newKey(t, jose.ES256)
	attestation := func() []string {
		return []string{"OAuth-Client-Attestation", i.attester.attestation(t, k, nil), "OAuth-Client-Attestation-PoP", i.pop(t, k, i.challenge(t), nil)}
	}
	dpop := func(nonce string) []string { return []string{"DPoP", i.dpop(t, k, "/token", "", nonce, nil)} }
	nonce := func() string { return i.do(t, http.MethodPost, "/token", nil).header.Get("DPoP-Nonce") }
	tx := []string{"tx_code", o.txCode}
	for _, round := range []struct {
		name       string
		parameters []string
		header     []string
		code       string
	}{
		{"nobody", tx, dpop(nonce()), "invalid_client"},
		{"no DPoP proof", tx, attestation(), "invalid_dpop_proof"},
		{"no DPoP nonce", tx, append(attestation(), dpop("")...), "use_dpop_nonce"},
		{"a nonce that nobody made", tx, append(attestation(), dpop("x")...), "use_dpop_nonce"},
		{"no challenge", tx, append([]string{"OAuth-Client-Attestation", i.attester.attestation(t, k, nil), "OAuth-Client-Attestation-PoP", i.pop(t, k, "", nil)}, dpop(nonce())...), "use_attestation_challenge"},
		{"a stranger's attestation", tx, append([]string{"OAuth-Client-Attestation", attester{stranger, i.attester.x5c, nil}.attestation(t, k, nil),
			"OAuth-Client-Attestation-PoP", i.pop(t, k, i.challenge(t), nil)}, dpop(nonce())...), "invalid_client"},
		{"no transaction code", nil, append(attestation(), dpop(nonce())...), "invalid_request"},
		{"a wrong transaction code", []string{"tx_code", "0000000"}, append(attestation(), dpop(nonce())...), "invalid_grant"},
		{"another offer's configuration", append([]string{"authorization_details", `[{"type":"openid_credential","credential_configuration_id":"` + mdl + `"}]`}, tx...),
			append(attestation(), dpop(nonce())...), "invalid_authorization_details"},
	} {
		a := i.tokenRequest(t, o.code, round.parameters, round.header)
		if a.status < 400 || a.status > 401 || a.text(t, "error") != round.code {
			t.Errorf("%s: %d %s", round.name, a.status, a.body)
		}
	}
	if a := i.tokenRequest(t, o.code, tx, append(attestation(), dpop(nonce())...)); a.status != http.StatusOK {
		t.Errorf("after all of them: %d %s", a.status, a.body)
	}
	refused(t, i.tokenRequest(t, o.code, tx, append(attestation(), dpop(nonce())...)), http.StatusBadRequest, "invalid_grant")
}
