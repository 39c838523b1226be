package clientauth

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/dpop"
	"chancery/appliance/oid4vci/jwt"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

// Checks 119 and 137: an attestation with its proof of possession names the
// client and the instance's key; with iss as -07 has it and
// without as -10 has it.
func TestAttestation_119_137(t *testing.T) {
	r := newRig(t, nil)
	for _, algorithm := range issuancetest.Algorithms {
		r.instance = issuancetest.Key(t, algorithm)
		canonical, err := jws.PublicJWK(r.instance.Public())
		if err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256(canonical)
		for name, q := range map[string]Request{
			"-07":                       r.wallet(t, r.attestationClaims(t), r.popClaims()),
			"-10":                       r.wallet(t, trusttest.With(r.attestationClaims(t), "iss", nil), trusttest.With(r.popClaims(), "iss", nil)),
			"no iat":                    r.wallet(t, trusttest.With(r.attestationClaims(t), "iat", nil), r.popClaims()),
			"aud is an array of one":    r.wallet(t, r.attestationClaims(t), trusttest.With(r.popClaims(), "aud", []string{audience})),
			"a challenge nobody wants":  r.wallet(t, r.attestationClaims(t), trusttest.With(r.popClaims(), "challenge", "x")),
			"exp in the proof":          r.wallet(t, r.attestationClaims(t), trusttest.With(r.popClaims(), "exp", r.now.Unix()+1)),
			"a proof of 60 seconds ago": r.wallet(t, r.attestationClaims(t), trusttest.With(r.popClaims(), "iat", r.now.Unix()-60)),
			"a status nobody looks at":  r.wallet(t, trusttest.With(r.attestationClaims(t), "status", "x"), r.popClaims()),
		} {
			for _, id := range []string{"", walletID} {
				if id != "" {
					q = r.again(t, q, id)
				}
				got, err := r.authenticate(q)
				if err != nil {
					t.Errorf("%s, %s: %v", algorithm, name, err)
					continue
				}
				if got.ID != walletID || !got.Authenticated || got.Method != Attestation || string(got.InstanceKey) != string(want[:]) {
					t.Errorf("%s, %s: %+v", algorithm, name, got)
				}
			}
		}
	}
}

// again is the request with a proof of possession of its own and a client_id.
func (r *rig) again(t *testing.T, q Request, id string) Request {
	q.Header = q.Header.Clone()
	q.Header.Set(PoPHeader, trusttest.Token(t, r.instance, popHeader, r.popClaims()))
	q.Form.Set("client_id", id)
	return q
}

// Checks 120 to 125, 130, 135 and 136: faults of the headers and the attestation.
func TestAttestationRefused_120_121_122_123_124_125_130_135_136(t *testing.T) {
	r := newRig(t, nil)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	header, claims := r.attestationHeader(), r.attestationClaims(t)
	attestation := trusttest.Token(t, r.leaf.Key, header, claims)
	pop := trusttest.Token(t, r.instance, popHeader, r.popClaims())
	signed := func(h, c map[string]any) Request { return request(trusttest.Token(t, r.leaf.Key, h, c), pop) }
	changed := func(name string, value any) Request { return signed(header, trusttest.With(claims, name, value)) }
	jwk := trusttest.JWK(t, r.instance.Public())
	stranger := trusttest.Root(t, "Root").Leaf(t, "Wallet provider", nil)
	selfSigned := trusttest.SelfSigned(t, "Wallet provider")
	twice := func(header, value string) Request {
		q := request(attestation, pop)
		q.Header.Add(header, value)
		return q
	}
	withID := request(attestation, pop)
	withID.Form.Set("client_id", "another")
	for name, q := range map[string]Request{
		"120 no proof":                      request(attestation, ""),
		"120 no attestation":                request("", pop),
		"121 attestation twice":             twice(AttestationHeader, attestation),
		"121 proof twice":                   twice(PoPHeader, pop),
		"121 two in one":                    request(attestation+", "+attestation, pop),
		"122 typ":                           signed(trusttest.With(header, "typ", "JWT"), claims),
		"122 no typ":                        signed(trusttest.With(header, "typ", nil), claims),
		"122 a proof in its place":          request(pop, pop),
		"123 signature":                     request(trusttest.Token(t, stranger.Key, header, claims), pop),
		"123 none":                          request(trusttest.Unsigned(t, header, claims), pop),
		"123 HS256":                         request(trusttest.TokenWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, header, claims), pop),
		"123 RS256":                         request(trusttest.TokenWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, header, claims), pop),
		"123 no token":                      request("x", pop),
		"123 long":                          changed("x", strings.Repeat("x", maxToken)),
		"124 another's anchor":              request(trusttest.Token(t, stranger.Key, trusttest.With(header, "x5c", trusttest.X5C(stranger)), claims), pop),
		"125 no exp":                        changed("exp", nil),
		"125 exp no date":                   changed("exp", "tomorrow"),
		"125 not valid yet":                 changed("nbf", r.now.Unix()+61),
		"125 issued in the future":          changed("iat", r.now.Unix()+61),
		"130 another client_id":             withID,
		"130 no sub":                        changed("sub", nil),
		"130 sub no text":                   changed("sub", 1),
		"130 sub with control characters":   changed("sub", "a\nb"),
		"130 sub the provider may not name": changed("sub", "https://other.example"),
		"130 sub of a registered client":    changed("sub", clientID),
		"135 private cnf":                   changed("cnf", map[string]any{"jwk": trusttest.With(jwk, "d", "AAAA")}),
		"135 symmetric cnf":                 changed("cnf", map[string]any{"jwk": map[string]any{"kty": "oct", "k": "AAAA"}}),
		"135 no cnf":                        changed("cnf", nil),
		"135 cnf without jwk":               changed("cnf", map[string]any{"kid": "1"}),
		"135 cnf off the curve":             changed("cnf", map[string]any{"jwk": trusttest.With(jwk, "x", trusttest.JWK(t, r.client.Public())["x"])}),
		"136 no x5c":                        signed(trusttest.With(header, "x5c", nil), claims),
		"136 anchor inside":                 signed(trusttest.With(header, "x5c", trusttest.X5C(r.leaf, r.ca, r.root)), claims),
		"136 self-signed leaf":              request(trusttest.Token(t, selfSigned.Key, trusttest.With(header, "x5c", trusttest.X5C(selfSigned)), claims), pop),
	} {
		_, err := r.authenticate(q)
		refused(t, name, err, InvalidClient)
	}
	if r.proofs.Len() != 0 {
		t.Error("a refused proof's jti was consumed")
	}
	if _, err := r.authenticate(request(attestation, pop)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Checks 126 to 129: faults of the proof of possession.
func TestProofRefused_126_127_128_129(t *testing.T) {
	r := newRig(t, nil)
	attestation := trusttest.Token(t, r.leaf.Key, r.attestationHeader(), r.attestationClaims(t))
	claims := r.popClaims()
	changed := func(name string, value any) string {
		return trusttest.Token(t, r.instance, popHeader, trusttest.With(claims, name, value))
	}
	null := trusttest.With(claims, "exp", "")
	null["exp"] = nil
	for name, pop := range map[string]string{
		"126 typ":              trusttest.Token(t, r.instance, map[string]any{"typ": "JWT"}, claims),
		"126 DPoP's typ":       trusttest.Token(t, r.instance, map[string]any{"typ": "dpop+jwt"}, claims),
		"126 none":             trusttest.Unsigned(t, popHeader, claims),
		"126 HS256":            trusttest.TokenWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: make([]byte, 32)}, popHeader, claims),
		"126 no token":         "x",
		"127 another key":      trusttest.Token(t, r.client, popHeader, claims),
		"127 the provider's":   trusttest.Token(t, r.leaf.Key, popHeader, claims),
		"128 aud":              changed("aud", "https://issuer.example"),
		"128 aud with a slash": changed("aud", audience+"/"),
		"128 token endpoint":   changed("aud", audience+"/token"),
		"128 aud among others": changed("aud", []string{audience, "https://other.example"}),
		"128 no aud":           changed("aud", nil),
		"129 iss":              changed("iss", "https://other.example"),
		"129 iss empty":        changed("iss", ""),
		"129 the provider's":   changed("iss", "https://provider.example"),
		"no jti":               changed("jti", nil),
		"jti no text":          changed("jti", 1),
		"long jti":             changed("jti", strings.Repeat("x", maxJTI+1)),
		"no iat":               changed("iat", nil),
		"old":                  changed("iat", r.now.Unix()-61),
		"from the future":      changed("iat", r.now.Unix()+61),
		"expired":              changed("exp", r.now.Unix()),
		"exp no date":          changed("exp", "x"),
		"exp null":             trusttest.Token(t, r.instance, popHeader, null),
		"not valid yet":        changed("nbf", r.now.Unix()+61),
		"not valid, no date":   changed("nbf", "x"),
	} {
		_, err := r.authenticate(request(attestation, pop))
		refused(t, name, err, InvalidClient)
	}
	if r.proofs.Len() != 0 {
		t.Error("a refused proof's jti was consumed")
	}
}

// Check 131: a proof of possession is used once, for as long as it could be.
func TestReplay_131(t *testing.T) {
	r := newRig(t, nil)
	q := r.wallet(t, r.attestationClaims(t), trusttest.With(r.popClaims(), "iat", r.now.Unix()+60))
	if _, err := r.authenticate(q); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := r.authenticate(q)
		if e := refused(t, "again", err, InvalidClient); !strings.Contains(e.Description, "used before") {
			t.Error(e)
		}
		r.now = r.now.Add(time.Minute)
	}
	full := newRig(t, func(_ *rig, o *Options) { o.MaxEntries = 1 })
	for n := range 2 {
		_, err := full.authenticate(full.wallet(t, full.attestationClaims(t), full.popClaims()))
		var e *refusal.Refusal
		if n == 0 && err != nil || n == 1 && (!errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.RetryAfter <= 0) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// Check 132: where challenges are demanded, a proof without a good one is
// answered with one that then is accepted; the jti is not consumed.
func TestChallenges_132(t *testing.T) {
	r := newRig(t, func(_ *rig, o *Options) { o.Challenges = challenge.New(time.Minute) })
	expired := r.Challenge()
	r.now = r.now.Add(time.Minute)
	claims := r.popClaims()
	var given string
	for name, value := range map[string]any{"missing": nil, "wrong": "x", "no text": 1, "expired": expired, "another's": challenge.New(time.Minute).Make(r.now)} {
		_, err := r.authenticate(r.wallet(t, r.attestationClaims(t), trusttest.With(claims, "challenge", value)))
		e := refused(t, name, err, UseChallenge)
		if given = e.Header[ChallengeHeader]; given == "" || len(e.Header) != 1 {
			t.Errorf("%s: %v", name, e.Header)
		}
	}
	if _, err := r.authenticate(r.wallet(t, r.attestationClaims(t), trusttest.With(claims, "challenge", given))); err != nil {
		t.Errorf("with the challenge that was given: %v", err)
	}
	if got := newRig(t, nil).Challenge(); got != "" {
		t.Errorf("a challenge although there are none: %q", got)
	}
}

// Checks 125 and 133: an attestation that has expired, or is older than the
// policy allows, must be a fresh one.
func TestFresh_125_133(t *testing.T) {
	r := newRig(t, func(_ *rig, o *Options) { o.MaxAge = time.Hour })
	for name, c := range map[string]struct {
		change map[string]any
		code   string
	}{
		"an hour old":           {map[string]any{}, ""},
		"a second older":        {map[string]any{"iat": r.now.Unix() - 3601}, UseFresh},
		"expired":               {map[string]any{"exp": r.now.Unix()}, UseFresh},
		"nbf in place of iat":   {map[string]any{"iat": nil, "nbf": r.now.Unix() - 60}, ""},
		"old nbf instead":       {map[string]any{"iat": nil, "nbf": r.now.Unix() - 3601}, UseFresh},
		"of an unknown age":     {map[string]any{"iat": nil}, UseFresh},
		"old iat and newer nbf": {map[string]any{"iat": r.now.Unix() - 3601, "nbf": r.now.Unix() - 60}, UseFresh},
	} {
		claims := r.attestationClaims(t)
		for member, value := range c.change {
			claims = trusttest.With(claims, member, value)
		}
		_, err := r.authenticate(r.wallet(t, claims, r.popClaims()))
		if c.code == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if c.code != "" {
			refused(t, name, err, c.code)
		}
	}
}

// ABCA -10 §5.2: without the PoP header a DPoP proof by the instance's key stands
// for it, and its nonce is the challenge where one is demanded.
func TestCombined_119_127_132(t *testing.T) {
	r := newRig(t, nil)
	challenged := newRig(t, func(_ *rig, o *Options) { o.Challenges = challenge.New(time.Minute) })
	for name, c := range map[string]struct {
		rig   *rig
		proof func(r *rig) *dpop.Proof
		code  string
	}{
		"instance's key":           {r, func(r *rig) *dpop.Proof { return proof(r.instance, "", false) }, ""},
		"another key":              {r, func(r *rig) *dpop.Proof { return proof(r.client, "", false) }, InvalidClient},
		"no proof":                 {r, func(r *rig) *dpop.Proof { return nil }, InvalidClient},
		"no challenge":             {challenged, func(r *rig) *dpop.Proof { return proof(r.instance, "", false) }, UseChallenge},
		"another challenge":        {challenged, func(r *rig) *dpop.Proof { return proof(r.instance, "x", false) }, UseChallenge},
		"challenge":                {challenged, func(r *rig) *dpop.Proof { return proof(r.instance, r.Challenge(), false) }, ""},
		"nonce that dpop demanded": {challenged, func(r *rig) *dpop.Proof { return proof(r.instance, "x", true) }, ""},
	} {
		q := request(trusttest.Token(t, c.rig.leaf.Key, c.rig.attestationHeader(), c.rig.attestationClaims(t)), "")
		q.DPoP = c.proof(c.rig)
		got, err := c.rig.authenticate(q)
		if c.code != "" {
			refused(t, name, err, c.code)
		} else if err != nil || got.Method != AttestationDPoP || got.ID != walletID || len(got.InstanceKey) != 32 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// With the PoP header the DPoP proof may be another key's (ABCA -10 §5.2).
	q := r.wallet(t, r.attestationClaims(t), r.popClaims())
	q.DPoP = proof(r.client, "", false)
	if got, err := r.authenticate(q); err != nil || got.Method != Attestation {
		t.Errorf("%+v, %v", got, err)
	}
}

// A wallet whose one proof is DPoP's gets through the nonce round, with the nonce
// or an attestation challenge in it, and is not told of a missing header meanwhile.
func TestCombinedNonces_115_132(t *testing.T) {
	challenges := challenge.New(time.Minute)
	r := newRig(t, func(_ *rig, o *Options) { o.Challenges = challenges })
	checker := dpop.New(dpop.Options{Nonces: true, Challenges: challenges, Now: func() time.Time { return r.now }})
	send := func(nonce any) error {
		r.jti++
		claims := map[string]any{"jti": strconv.Itoa(r.jti), "htm": "POST", "htu": audience + "/token", "iat": r.now.Unix()}
		header := map[string]any{"typ": "dpop+jwt", "jwk": trusttest.JWK(t, r.instance.Public())}
		q := request(trusttest.Token(t, r.leaf.Key, r.attestationHeader(), r.attestationClaims(t)), "")
		q.DPoP, q.DPoPError = checker.Check(dpop.Request{Values: []string{trusttest.Token(t, r.instance, header, trusttest.With(claims, "nonce", nonce))}, Method: "POST", URL: audience + "/token"})
		_, err := r.authenticate(q)
		return err
	}
	e := refused(t, "no nonce", send(nil), dpop.UseNonce)
	for name, nonce := range map[string]string{"nonce": e.Header["DPoP-Nonce"], "challenge": r.Challenge()} {
		if err := send(nonce); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	q := r.wallet(t, r.attestationClaims(t), trusttest.With(r.popClaims(), "challenge", r.Challenge()))
	q.DPoPError = e
	if _, err := r.authenticate(q); err != nil {
		t.Errorf("with a proof of possession of its own the DPoP proof does not matter here: %v", err)
	}
}

// A status is looked at last, and one that cannot be fetched refuses for now.
func TestStatus(t *testing.T) {
	r := newRig(t, func(r *rig, o *Options) {
		o.Status = trust.NewStatus(trust.StatusOptions{Providers: o.Providers, FailClosed: true, Now: o.Now})
	})
	status := map[string]any{"status_list": map[string]any{"idx": 1, "uri": "https://127.0.0.1:1/list"}}
	for name, claims := range map[string]map[string]any{
		"status":        trusttest.With(r.attestationClaims(t), "status", status),
		"client_status": trusttest.With(r.attestationClaims(t), "client_status", map[string]any{"status": status, "exp": r.now.Unix() + 1}),
	} {
		_, err := r.authenticate(r.wallet(t, claims, r.popClaims()))
		var e *refusal.Refusal
		if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.RetryAfter <= 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, claims := range map[string]map[string]any{
		"status":              trusttest.With(r.attestationClaims(t), "status", "x"),
		"client_status":       trusttest.With(r.attestationClaims(t), "client_status", "x"),
		"client_status empty": trusttest.With(r.attestationClaims(t), "client_status", map[string]any{}),
		"its status":          trusttest.With(r.attestationClaims(t), "client_status", map[string]any{"status": "x"}),
	} {
		_, err := r.authenticate(r.wallet(t, claims, r.popClaims()))
		refused(t, name, err, InvalidClient)
	}
	if r.proofs.Len() != 0 {
		t.Error("the jti was consumed before the status was known")
	}
	if _, err := r.authenticate(r.wallet(t, r.attestationClaims(t), r.popClaims())); err != nil {
		t.Errorf("no status: %v", err)
	}
}

// A provider's keys are believed by kid where no chain is demanded.
func TestAttesterByKey_124(t *testing.T) {
	attester := issuancetest.Key(t, issuance.ES384)
	r := newRig(t, func(_ *rig, o *Options) {
		var err error
		if o.Providers, err = trust.New(trust.Provider{Name: "P", Keys: []trust.Key{{KeyID: "1", Public: attester.Public()}}}); err != nil {
			t.Fatal(err)
		}
	})
	header := map[string]any{"typ": "oauth-client-attestation+jwt", "kid": "1"}
	for kid, want := range map[string]bool{"1": true, "2": false} {
		q := request(trusttest.Token(t, attester, trusttest.With(header, "kid", kid), r.attestationClaims(t)), trusttest.Token(t, r.instance, popHeader, r.popClaims()))
		if _, err := r.authenticate(q); (err == nil) != want {
			t.Errorf("%s: %v", kid, err)
		}
	}
}

// The specification's own attestation is read, at its time, where its
// self-signed certificate's key is configured; and not under HAIP's rules.
func TestAttestationVector(t *testing.T) {
	var file struct {
		Attestation struct {
			Compact string `json:"compact"`
		} `json:"wallet_attestation_jwt"`
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "oid4vci-oauth.json"), &file); err != nil {
		t.Fatal(err)
	}
	certificate := leafOf(t, file.Attestation.Compact)
	r := newRig(t, func(_ *rig, o *Options) {
		var err error
		if o.Providers, err = trust.New(trust.Provider{Name: "P", Keys: []trust.Key{{Public: certificate.PublicKey}}}); err != nil {
			t.Fatal(err)
		}
	})
	r.now = time.Unix(1755023548, 0)
	w, err := r.readAttestation(file.Attestation.Compact, "https://wallet.example.com")
	if err != nil || w.clientID != "https://wallet.example.com" {
		t.Fatalf("%+v, %v", w, err)
	}
	if _, err := r.Authenticate(context.Background(), request(file.Attestation.Compact, trusttest.Token(t, r.instance, popHeader, trusttest.With(r.popClaims(), "iss", nil)))); err == nil || !strings.Contains(err.Error(), "cnf") {
		t.Errorf("a proof by another key: %v", err)
	}
	strict := newRig(t, nil)
	strict.now = r.now
	_, err = strict.authenticate(request(file.Attestation.Compact, "x"))
	refused(t, "HAIP", err, InvalidClient)
}

func leafOf(t *testing.T, compact string) *x509.Certificate {
	t.Helper()
	token, err := jwt.Parse(compact, maxToken)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := jwt.Certificates(token.Header["x5c"])
	if err != nil {
		t.Fatal(err)
	}
	return chain[0]
}
