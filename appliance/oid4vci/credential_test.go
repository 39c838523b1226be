package oid4vci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
	"chancery/issuance"
)

// post sends a credential request as it is.
func (r *rig) post(t testing.TB, path, body string, header ...string) answer {
	t.Helper()
	return do(t, r.client, http.MethodPost, r.identifier+path, strings.NewReader(body), header...)
}

// TestCredentialAuthorization: the access token comes first, whatever the body.
func TestCredentialAuthorization(t *testing.T) {
	r := newRig(t, rigOptions{})
	token := r.token(t, r.offer(t, nil, pidID))
	cancelled := r.offer(t, nil, pidID)
	dead := r.token(t, cancelled)
	if err := r.store.CancelOffer(t.Context(), cancelled.ID, "test"); err != nil {
		t.Fatal(err)
	}
	const unauthorized = `Bearer realm="credential", DPoP algs="ES256 ES384 ES512 EdDSA"`
	const invalid = `Bearer error="invalid_token", error_description="the access token is not valid"`
	for _, c := range []struct {
		name, query string
		header      []string
		status      int
		code        string // "" for no body
		challenge   string
	}{
		{"144 no token", "", nil, 401, "", unauthorized},
		{"144 another scheme", "", []string{"Authorization", "Basic eDp5"}, 401, "", unauthorized},
		{"151 the DPoP scheme", "", []string{"Authorization", "DPoP " + token}, 401, "invalid_token",
			`DPoP error="invalid_token", error_description="the access token is not bound to a key: use the Bearer scheme", algs="ES256 ES384 ES512 EdDSA"`},
		{"145 garbage", "", []string{"Authorization", "Bearer garbage"}, 401, "invalid_token", invalid},
		{"145 nothing after the scheme", "", []string{"Authorization", "Bearer"}, 401, "invalid_token", invalid},
		{"145 a token changed", "", []string{"Authorization", "Bearer " + token[:10] + string(token[10]^1) + token[11:]}, 401, "invalid_token", invalid},
		{"145 a code instead", "", []string{"Authorization", "Bearer " + cancelled.Code}, 401, "invalid_token", invalid},
		{"156 cancelled by an operator", "", []string{"Authorization", "Bearer " + dead}, 401, "invalid_token", invalid},
		{"148 token in the query", "?access_token=" + token, nil, 400, "invalid_request", `Bearer error="invalid_request"`},
		{"148 token in header and query", "?access_token=" + token, []string{"Authorization", "Bearer " + token}, 400, "invalid_request", `Bearer error="invalid_request"`},
		{"148 a query that cannot be read", "?%zz", []string{"Authorization", "Bearer " + token}, 400, "invalid_request", `Bearer error="invalid_request"`},
		{"148 two headers", "", []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}, 400, "invalid_request", `Bearer error="invalid_request"`},
		{"149 bearer", "", []string{"Authorization", "bearer " + token}, 400, "invalid_credential_request", ""},
		{"149 BEARER", "", []string{"Authorization", "BEARER   " + token}, 400, "invalid_credential_request", ""},
		{"another query", "?x=y", []string{"Authorization", "Bearer " + token}, 400, "invalid_credential_request", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := r.post(t, "/credential"+c.query, "neither JSON nor said to be", c.header...)
			if got := a.header.Get("WWW-Authenticate"); got != c.challenge {
				t.Errorf("WWW-Authenticate is %q", got)
			}
			if c.code != "" {
				refused(t, a, c.status, c.code)
			} else if a.status != c.status || len(a.body) > 0 || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v %q", a.status, a.header, a.body)
			}
		})
	}
	t.Run("146 expired", func(t *testing.T) {
		r.ahead.Store(int64(5*time.Minute + time.Second))
		refused(t, r.post(t, "/credential", "{}", "Authorization", "Bearer "+token), 401, "invalid_token")
	})
}

// requestCase is a credential request with one defect for a token that covers
// the PID alone. In body, PROOF stands for a right proof.
type requestCase struct {
	name, body string
	header     []string
	status     int
	code       string
}

const (
	byID     = `"credential_configuration_id":"` + pidID + `"`
	byProof  = `"proofs":{"jwt":["PROOF"]}`
	jsonType = "application/json"
)

var requestCases = []requestCase{
	{"159 both identifiers", `{` + byID + `,"credential_identifier":"` + pidID + `#1",` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"160 neither identifier", `{` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"160 an identifier of null", `{"credential_configuration_id":null,` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"160 an identifier of an array", `{"credential_configuration_id":["` + pidID + `"],` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"160 a name in capitals", `{"CREDENTIAL_CONFIGURATION_ID":"` + pidID + `",` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"162 unknown configuration", `{"credential_configuration_id":"x",` + byProof + `}`, nil, 400, "unknown_credential_configuration"},
	{"163 an identifier though none was given out", `{"credential_identifier":"` + pidID + `#1",` + byProof + `}`, nil, 400, "unknown_credential_identifier"},
	{"163 an identifier of a number", `{"credential_identifier":1,` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"147 94 a configuration that the token does not cover", `{"credential_configuration_id":"` + mdlID + `",` + byProof + `}`, nil, 403, "insufficient_scope"},
	{"165 malformed JSON", `{` + byID, nil, 400, "invalid_credential_request"},
	{"165 a JSON array", `[{` + byID + `}]`, nil, 400, "invalid_credential_request"},
	{"165 a member twice", `{` + byID + `,` + byID + `,` + byProof + `}`, nil, 400, "invalid_credential_request"},
	{"165 a member twice, deeper", `{` + byID + `,"proofs":{"jwt":["PROOF"],"jwt":["PROOF"]}}`, nil, 400, "invalid_credential_request"},
	{"165 two objects", `{` + byID + `,` + byProof + `}{}`, nil, 400, "invalid_credential_request"},
	{"165 nested too deep", `{` + byID + `,` + byProof + `,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, nil, 400, "invalid_credential_request"},
	{"165 empty", ``, nil, 400, "invalid_credential_request"},
	{"166 text/plain", `{` + byID + `,` + byProof + `}`, []string{"Content-Type", "text/plain"}, 400, "invalid_credential_request"},
	{"166 no content type", `{` + byID + `,` + byProof + `}`, []string{}, 400, "invalid_credential_request"},
	{"261 an encrypted request", `a.b.c.d.e`, []string{"Content-Type", "application/jwt"}, 400, "invalid_encryption_parameters"},
	{"268 encryption asked for", `{` + byID + `,` + byProof + `,"credential_response_encryption":{"jwk":{},"enc":"A128GCM"}}`, nil, 400, "invalid_encryption_parameters"},
	{"268 encryption of null", `{` + byID + `,` + byProof + `,"credential_response_encryption":null}`, nil, 400, "invalid_encryption_parameters"},
	{"167 no proofs", `{` + byID + `}`, nil, 400, "invalid_proof"},
	{"168 two types", `{` + byID + `,"proofs":{"jwt":["PROOF"],"attestation":["x"]}}`, nil, 400, "invalid_credential_request"},
	{"168 no type", `{` + byID + `,"proofs":{}}`, nil, 400, "invalid_credential_request"},
	{"168 proofs of a string", `{` + byID + `,"proofs":"PROOF"}`, nil, 400, "invalid_credential_request"},
	{"169 an empty array", `{` + byID + `,"proofs":{"jwt":[]}}`, nil, 400, "invalid_credential_request"},
	{"169 a string", `{` + byID + `,"proofs":{"jwt":"PROOF"}}`, nil, 400, "invalid_credential_request"},
	{"169 a proof that is no string", `{` + byID + `,"proofs":{"jwt":[{}]}}`, nil, 400, "invalid_credential_request"},
	{"170 attestation", `{` + byID + `,"proofs":{"attestation":["PROOF"]}}`, nil, 400, "invalid_credential_request"},
	{"170 342 ldp_vp", `{` + byID + `,"proofs":{"ldp_vp":[{}]}}`, nil, 400, "invalid_credential_request"},
	{"171 proof in the singular", `{` + byID + `,"proof":{"proof_type":"jwt","jwt":"PROOF"}}`, nil, 400, "invalid_proof"},
	{"341 a request of draft 13", `{"format":"vc+sd-jwt","vct":"urn:eudi:pid:1","proof":{"proof_type":"jwt","jwt":"PROOF"}}`, nil, 400, "invalid_credential_request"},
	{"256 more proofs than a batch", `{` + byID + `,"proofs":{"jwt":["PROOF"` + strings.Repeat(`,"PROOF"`, 10) + `]}}`, nil, 400, "invalid_credential_request"},
	{"180 a body too long", `{` + byID + `,` + byProof + `,"x":"` + strings.Repeat("x", maxBody) + `"}`, nil, 413, "invalid_credential_request"},
	// The order of the checks: of two defects the earlier one is told.
	{"166 before 165", `{`, []string{"Content-Type", "text/plain"}, 400, "invalid_credential_request"},
	{"162 before 268", `{"credential_configuration_id":"x","credential_response_encryption":{}}`, nil, 400, "unknown_credential_configuration"},
	{"147 before 268", `{"credential_configuration_id":"` + mdlID + `","credential_response_encryption":{}}`, nil, 403, "insufficient_scope"},
	{"268 before 167", `{` + byID + `,"credential_response_encryption":{}}`, nil, 400, "invalid_encryption_parameters"},
	{"169 before 198", `{` + byID + `,"proofs":{"jwt":["x",1]}}`, nil, 400, "invalid_credential_request"},
	{"164 157 a member nobody knows", `{` + byID + `,` + byProof + `,"x":{"y":[1,null]}}`, []string{"Content-Type", "Application/JSON; charset=utf-8"}, 200, ""},
}

// TestCredentialRequest sends one defect at a time with one and the same token
// and nonce: none of them uses either up, checks 173 to 175.
func TestCredentialRequest(t *testing.T) {
	r := newRig(t, rigOptions{})
	token := r.token(t, r.offer(t, nil, pidID))
	h := newHolder(t, issuance.ES256)
	proof := r.good(t, h, r.nonce(t))
	for _, c := range requestCases {
		t.Run(c.name, func(t *testing.T) {
			if c.header == nil {
				c.header = []string{"Content-Type", jsonType}
			}
			a := r.post(t, "/credential", strings.ReplaceAll(c.body, "PROOF", proof), append(c.header, "Authorization", "Bearer "+token)...)
			if c.code == "" {
				r.judge(t, credential(t, a), h)
				return
			}
			refused(t, a, c.status, c.code)
			challenge := ""
			if c.status == http.StatusForbidden {
				challenge = `Bearer error="insufficient_scope"`
			}
			if got := a.header.Get("WWW-Authenticate"); got != challenge {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		})
	}
	t.Run("201 the nonce again, with another token", func(t *testing.T) {
		refused(t, r.ask(t, r.token(t, r.offer(t, nil, pidID)), request(pidID, proof)), 400, "invalid_nonce")
	})
}

// TestIdentified: a token with credential identifiers is used by them, checks
// 161, 163.
func TestIdentified(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	token := r.token(t, r.offer(t, nil, pidID, residenceID), "authorization_details", `[{"type":"openid_credential","credential_configuration_id":"`+pidID+`"}]`)
	by := func(member, value string) answer {
		q := request("", r.good(t, h, r.nonce(t)))
		delete(q, "credential_configuration_id")
		q[member] = value
		return r.ask(t, token, q)
	}
	refused(t, by("credential_configuration_id", pidID), 400, "invalid_credential_request")
	refused(t, by("credential_configuration_id", "x"), 400, "unknown_credential_configuration")
	for _, unknown := range []string{"", "x", pidID, pidID + "#2", identifierOf("x"), identifierOf(residenceID), identifierOf(mdlID)} {
		refused(t, by("credential_identifier", unknown), 400, "unknown_credential_identifier")
	}
	r.judge(t, credential(t, by("credential_identifier", identifierOf(pidID))), h)
}

// TestClient: iss is the client that the token was issued to, check 202.
func TestClient(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	token := r.token(t, r.offer(t, nil, pidID), "client_id", "wallet")
	by := func(iss any) answer {
		return r.ask(t, token, request(pidID, h.proof(t, r.identifier, r.nonce(t), r.now(), func(_, claims map[string]any) { claims["iss"] = iss })))
	}
	refused(t, by("other"), 400, "invalid_proof")
	refused(t, by([]string{"wallet"}), 400, "invalid_proof")
	credential(t, by("wallet"))
	credential(t, r.ask(t, r.token(t, r.offer(t, nil, pidID), "client_id", "wallet"), request(pidID, r.good(t, h, r.nonce(t)))))
}

// TestRaces: one token or one nonce in many requests at once.
func TestRaces(t *testing.T) {
	r := newRig(t, rigOptions{})
	h := newHolder(t, issuance.ES256)
	race := func(t *testing.T, most int32, loser string, ask func(n int) answer) {
		t.Helper()
		var won atomic.Int32
		var wait sync.WaitGroup
		for n := range 16 {
			wait.Go(func() {
				if a := ask(n); a.status == http.StatusOK {
					won.Add(1)
				} else if a.object(t)["error"] != loser {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wait.Wait()
		if won.Load() != most {
			t.Errorf("%d credentials", won.Load())
		}
	}
	t.Run("one token", func(t *testing.T) {
		o := r.offer(t, nil, pidID)
		token := r.token(t, o)
		// The first one, and as many repetitions as are allowed.
		race(t, 1+store.MaxRepeats, "credential_request_denied", func(int) answer { return r.ask(t, token, request(pidID, r.good(t, h, r.nonce(t)))) })
		intents, credentials := 0, map[string]bool{}
		for _, e := range r.signer.Entries(t, audit.KindIntent) {
			if e.Offer == o.ID {
				intents++
				credentials[e.Credential] = true
			}
		}
		if intents != 1+store.MaxRepeats {
			t.Errorf("%d signatures were made for one token", intents)
		}
		if len(credentials) != 1 {
			t.Errorf("%d credentials were signed for one token", len(credentials))
		}
	})
	t.Run("one nonce", func(t *testing.T) {
		tokens := make([]string, 16)
		for n := range tokens {
			tokens[n] = r.token(t, r.offer(t, nil, pidID))
		}
		proof := r.good(t, h, r.nonce(t))
		race(t, 1, "invalid_nonce", func(n int) answer { return r.ask(t, tokens[n], request(pidID, proof)) })
		for _, token := range tokens { // who lost takes another nonce, who won repeats
			credential(t, r.ask(t, token, request(pidID, r.good(t, h, r.nonce(t)))))
		}
	})
}

// TestDenied: what cannot be issued ends the offer, check 176.
func TestDenied(t *testing.T) {
	h := newHolder(t, issuance.ES256)
	denied := func(t *testing.T, r *rig, o store.Created) {
		t.Helper()
		token := r.token(t, o)
		nonce := r.nonce(t)
		refused(t, r.ask(t, token, request(pidID, r.good(t, h, nonce))), 400, "credential_request_denied")
		if got, err := r.store.Offer(t.Context(), o.ID); err != nil || got.State != store.Failed {
			t.Errorf("%+v %v", got, err)
		}
		refused(t, r.ask(t, token, request(pidID, r.good(t, h, nonce))), 401, "invalid_token")
	}
	t.Run("claims that do not fit any more", func(t *testing.T) {
		r := newRig(t, rigOptions{})
		o, err := r.store.CreateOffer(t.Context(), store.NewOffer{Configurations: []string{pidID}, Claims: []byte(`{"family_name":"x"}`), ExpiresAt: r.now().Add(time.Minute), CreatedBy: "test"})
		if err != nil {
			t.Fatal(err)
		}
		denied(t, r, o)
		entries := r.signer.Entries(t, audit.KindIntent, audit.KindRefused)
		if slices.ContainsFunc(entries, func(e audit.Entry) bool { return e.Offer == o.ID }) {
			t.Errorf("the signer was asked: %+v", entries)
		}
	})
	t.Run("outside the key's profile", func(t *testing.T) {
		plan := strings.Replace(signertest.Example(t, "ceremony.toml"), `types = ["urn:eudi:pid:1"]`, `types = ["urn:other:1"]`, 1)
		r := newRig(t, rigOptions{signer: signertest.Options{Plan: plan}})
		o := r.offer(t, nil, pidID)
		denied(t, r, o)
		if entries := r.signer.Entries(t, audit.KindRefused); len(entries) != 1 || entries[0].Offer != o.ID {
			t.Errorf("%+v", entries)
		}
	})
	t.Run("a configuration that is gone", func(t *testing.T) {
		r := newRig(t, rigOptions{})
		token := r.token(t, r.offer(t, nil, pidID))
		delete(r.configurations, pidID)
		refused(t, r.ask(t, token, request(pidID, r.good(t, h, r.nonce(t)))), 400, "unknown_credential_configuration")
	})
}

// TestBatch: of several proofs one that fails, fails the request; no two have
// the same key, checks 209, 210.
func TestBatch(t *testing.T) {
	i, _ := unsigned(t, signertestIssuer)
	rules := i.rules[pidID]
	rules.BatchSize, rules.MaxProofs = 2, 2
	i.rules[pidID] = rules
	a, b := newHolder(t, issuance.ES256), newHolder(t, issuance.EdDSA)
	now := time.Now()
	nonce := i.nonces.source.Make(now)
	other := i.nonces.source.Make(now)
	proof := func(h holder, nonce string) string { return h.proof(t, i.identifier, nonce, now, nil) }
	tampered := proof(b, nonce)
	tampered = tampered[:len(tampered)-8] + strings.Repeat("A", 8)
	for name, c := range map[string]struct {
		proofs []any
		nonces int
		code   string
	}{
		"254 one nonce":            {[]any{proof(a, nonce), proof(b, nonce)}, 1, ""},
		"254 two nonces":           {[]any{proof(a, nonce), proof(b, other)}, 2, ""},
		"209 the second tampered":  {[]any{proof(a, nonce), tampered}, 0, "invalid_proof"},
		"209 the second's nonce":   {[]any{proof(a, nonce), proof(b, "x")}, 0, "invalid_nonce"},
		"209 proofs before nonces": {[]any{proof(a, "x"), tampered}, 0, "invalid_proof"},
		"210 the same key":         {[]any{proof(a, nonce), proof(a, other)}, 0, "invalid_proof"},
	} {
		object := map[string]any{"proofs": map[string]any{"jwt": c.proofs}}
		b, err := i.checkProofs(t.Context(), i.configurations[pidID], object, &store.Grant{}, now)
		var ids []challenge.ID
		if err == nil {
			if ids, err = i.claimNonces(b.nonces, now); err == nil {
				i.nonces.release(ids)
			}
		}
		if c.code != "" {
			if e, ok := err.(*refusal.Refusal); !ok || e.Code != c.code {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || len(b.holders) != 2 || len(ids) != c.nonces {
			t.Errorf("%s: %d holders, %d nonces, %v", name, len(b.holders), len(ids), err)
		}
	}
}

// TestEncodeCredentials: the answer's JSON, check 157, 178.
func TestEncodeCredentials(t *testing.T) {
	for n := range 4 {
		var issued []made
		var want []any
		for k := range n {
			issued = append(issued, made{credential: fmt.Sprint("a.b.c~", k)})
			want = append(want, map[string]any{"credential": fmt.Sprint("a.b.c~", k)})
		}
		expected, err := json.Marshal(map[string]any{"credentials": append([]any{}, want...), "notification_id": "n"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := (&Issuer{}).encode(&response{issued: issued, notification: "n"}); err != nil || !bytes.Equal(got, expected) {
			t.Errorf("%s, want %s", got, expected)
		}
	}
}
