package dpop

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/oid4vci/challenge"
	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
	"chancery/issuance/jws"
)

const (
	tokenURL    = "https://issuer.example/t/token"
	resourceURL = "https://issuer.example/t/credential"
	accessToken = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
)

// rig is a checker with a clock, and a wallet's key.
type rig struct {
	*Checker
	now time.Time
	key crypto.Signer
	jti int
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	r := &rig{now: trusttest.Now, key: issuancetest.Key(t, issuance.ES256)}
	o.Now = func() time.Time { return r.now }
	r.Checker = New(o)
	return r
}

func (r *rig) header(t testing.TB) map[string]any {
	return map[string]any{"typ": "dpop+jwt", "jwk": trusttest.JWK(t, r.key.Public())}
}

// claims are a proof's, with a jti of its own, for the token endpoint or another.
func (r *rig) claims(resource bool) map[string]any {
	r.jti++
	claims := map[string]any{"jti": "jti-" + strconv.Itoa(r.jti), "htm": "POST", "htu": tokenURL, "iat": r.now.Unix()}
	if resource {
		sum := sha256.Sum256([]byte(accessToken))
		claims["htu"], claims["ath"] = resourceURL, base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return claims
}

func request(resource bool, values ...string) Request {
	if resource {
		return Request{Values: values, Method: "POST", URL: resourceURL, Resource: true, AccessToken: accessToken}
	}
	return Request{Values: values, Method: "POST", URL: tokenURL}
}

// refused checks a refusal: at the token endpoint 400 (RFC 9449 §5), at the
// others 401 with a challenge (§7.1).
func refused(t *testing.T, name string, err error, code string, resource bool) *refusal.Refusal {
	t.Helper()
	var e *refusal.Refusal
	if !errors.As(err, &e) {
		t.Errorf("%s: %v", name, err)
		return &refusal.Refusal{}
	}
	if e.Code != code || e.Description == "" || e.Member == "" || e.Section == "" || e.Bare {
		t.Errorf("%s: %+v", name, e)
	}
	if !resource && (e.Status != http.StatusBadRequest || e.Challenge != "") {
		t.Errorf("%s: %d, %q", name, e.Status, e.Challenge)
	}
	if resource && (e.Status != http.StatusUnauthorized || !strings.HasPrefix(e.Challenge, `DPoP error="`+code+`"`) || !strings.HasSuffix(e.Challenge, `, algs="ES256 ES384 ES512 EdDSA"`)) {
		t.Errorf("%s: %d, %q", name, e.Status, e.Challenge)
	}
	return e
}

// Checks 104 and 150 to 153 of a proof that holds: it gives the thumbprint that
// the token becomes bound to, or is.
func TestValid_104(t *testing.T) {
	for _, algorithm := range issuancetest.Algorithms {
		for _, resource := range []bool{false, true} {
			r := newRig(t, Options{})
			r.key = issuancetest.Key(t, algorithm)
			want, err := jws.Thumbprint(r.key.Public())
			if err != nil {
				t.Fatal(err)
			}
			proof, err := r.Check(request(resource, trusttest.Token(t, r.key, r.header(t), r.claims(resource))))
			if err != nil {
				t.Fatalf("%s: %v", algorithm, err)
			}
			if got := base64.RawURLEncoding.EncodeToString(proof.Thumbprint[:]); got != want || proof.Nonce != "" || proof.Fresh {
				t.Errorf("%s: %+v", algorithm, proof)
			}
			q := request(resource, trusttest.Token(t, r.key, r.header(t), r.claims(resource)))
			q.Bound = &proof.Thumbprint
			if _, err := r.Check(q); err != nil {
				t.Errorf("%s: bound to this key: %v", algorithm, err)
			}
		}
	}
	r := newRig(t, Options{})
	if proof, err := r.Check(request(false)); proof != nil || err != nil {
		t.Errorf("without a header: %+v, %v", proof, err)
	}
}

// Checks 105 to 108, 110 to 113 and 153: each fault has its error, at both
// kinds of endpoint, and a refused proof's jti is not consumed.
func TestRefused_105_106_107_108_110_111_112_113_153(t *testing.T) {
	r := newRig(t, Options{})
	stranger := issuancetest.Key(t, issuance.ES256)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range []bool{false, true} {
		header, claims := r.header(t), r.claims(resource)
		valid := trusttest.Token(t, r.key, header, claims)
		signed := func(h, c map[string]any) string { return trusttest.Token(t, r.key, h, c) }
		private := trusttest.With(trusttest.JWK(t, r.key.Public()), "d", "AAAA")
		off := trusttest.With(trusttest.JWK(t, r.key.Public()), "x", trusttest.JWK(t, stranger.Public())["x"])
		hmacKey := jose.SigningKey{Algorithm: jose.HS256, Key: []byte("0123456789abcdef0123456789abcdef")}
		flipped := []byte(valid)
		flipped[len(flipped)-10] ^= 1
		for name, values := range map[string][]string{
			"105 typ":                 {signed(trusttest.With(header, "typ", "JWT"), claims)},
			"105 typ in capitals":     {signed(trusttest.With(header, "typ", "DPoP+jwt"), claims)},
			"105 no typ":              {signed(trusttest.With(header, "typ", nil), claims)},
			"106 none":                {trusttest.Unsigned(t, header, claims)},
			"106 HS256":               {trusttest.TokenWith(t, hmacKey, header, claims)},
			"106 RS256":               {trusttest.TokenWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: rsaKey}, header, claims)},
			"107 private":             {signed(trusttest.With(header, "jwk", private), claims)},
			"107 symmetric":           {signed(trusttest.With(header, "jwk", map[string]any{"kty": "oct", "k": "AAAA"}), claims)},
			"107 off the curve":       {signed(trusttest.With(header, "jwk", off), claims)},
			"107 no jwk":              {signed(trusttest.With(header, "jwk", nil), claims)},
			"108 htm":                 {signed(header, trusttest.With(claims, "htm", "GET"))},
			"108 htm in small":        {signed(header, trusttest.With(claims, "htm", "post"))},
			"108 no htm":              {signed(header, trusttest.With(claims, "htm", nil))},
			"108 htu":                 {signed(header, trusttest.With(claims, "htu", "https://issuer.example/t/nonce"))},
			"108 htu of another host": {signed(header, trusttest.With(claims, "htu", strings.Replace(claims["htu"].(string), "issuer", "attacker", 1)))},
			"108 no htu":              {signed(header, trusttest.With(claims, "htu", nil))},
			"108 htu no text":         {signed(header, trusttest.With(claims, "htu", []string{tokenURL, resourceURL}))},
			"110 old":                 {signed(header, trusttest.With(claims, "iat", r.now.Add(-10*time.Minute).Unix()))},
			"110 61 seconds old":      {signed(header, trusttest.With(claims, "iat", r.now.Unix()-61))},
			"110 61 seconds ahead":    {signed(header, trusttest.With(claims, "iat", r.now.Unix()+61))},
			"110 no iat":              {signed(header, trusttest.With(claims, "iat", nil))},
			"110 iat no number":       {signed(header, trusttest.With(claims, "iat", "now"))},
			"111 another key signed":  {trusttest.Token(t, stranger, header, claims)},
			"111 a bit changed":       {string(flipped)},
			"112 two headers":         {valid, valid},
			"112 two in one":          {valid + ", " + valid},
			"112 an empty one":        {""},
			"112 JSON":                {`{"payload":""}`},
			"112 long":                {signed(header, trusttest.With(claims, "x", strings.Repeat("x", maxProof)))},
			"113 no jti":              {signed(header, trusttest.With(claims, "jti", nil))},
			"113 an empty jti":        {signed(header, trusttest.With(claims, "jti", ""))},
			"113 jti no text":         {signed(header, trusttest.With(claims, "jti", 1))},
			"113 a long jti":          {signed(header, trusttest.With(claims, "jti", strings.Repeat("x", maxJTI+1)))},
		} {
			_, err := r.Check(request(resource, values...))
			refused(t, name, err, InvalidProof, resource)
		}
		if resource {
			for name, ath := range map[string]any{"153 no ath": nil, "153 wrong ath": base64.RawURLEncoding.EncodeToString(make([]byte, 32)), "153 padded": claims["ath"].(string) + "=", "153 no text": 1} {
				_, err := r.Check(request(true, signed(header, trusttest.With(claims, "ath", ath))))
				refused(t, name, err, InvalidProof, true)
			}
		}
		if r.seen[index(resource)].Len() != 0 {
			t.Error("a refused proof's jti was consumed")
		}
		if _, err := r.Check(request(resource, valid)); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// The edges of what is good: the whole window, the longest jti, a date with a
// fraction, ath where none is asked for.
func TestEdges_110_113(t *testing.T) {
	r := newRig(t, Options{})
	for name, change := range map[string][2]any{
		"60 seconds old": {"iat", r.now.Unix() - 60}, "60 seconds ahead": {"iat", r.now.Unix() + 60}, "a fraction": {"iat", float64(r.now.Unix()) + 0.5},
		"the longest jti": {"jti", strings.Repeat("x", maxJTI)}, "an ath": {"ath", "x"}, "a nonce that nobody wants": {"nonce", "x"}, "another claim": {"x", 1},
	} {
		if _, err := r.Check(request(false, trusttest.Token(t, r.key, r.header(t), trusttest.With(r.claims(false), change[0].(string), change[1])))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Check 109: query, fragment, letter case, default port and percent-encoding of
// htu do not matter; all else does.
func TestURL_109(t *testing.T) {
	r := newRig(t, Options{})
	for _, htu := range []string{tokenURL + "?a=b", tokenURL + "#f", tokenURL + "?a#b", "HTTPS://Issuer.EXAMPLE/t/token", "https://issuer.example:443/t/token", "https://issuer.example:/t/token", "https://issuer.example/t/%74oken", "https://issuer.example/t/./x/../token"} {
		if _, err := r.Check(request(false, trusttest.Token(t, r.key, r.header(t), trusttest.With(r.claims(false), "htu", htu)))); err != nil {
			t.Errorf("%s: %v", htu, err)
		}
	}
	for _, htu := range []string{"http://issuer.example/t/token", "https://issuer.example:444/t/token", "https://issuer.example/T/token", "https://issuer.example/t/token/", "https://issuer.example/t//token", "https://issuer.example/t%2Ftoken", "/t/token", "issuer.example/t/token", "https://u@issuer.example/t/token", "https:issuer.example/t/token", "https://issuer.example/t/%zz", " " + tokenURL} {
		_, err := r.Check(request(false, trusttest.Token(t, r.key, r.header(t), trusttest.With(r.claims(false), "htu", htu))))
		refused(t, htu, err, InvalidProof, false)
	}
}

// RFC 3986 §6.2.2 and §6.2.3, and the examples of §5.2.4 and §5.4.
func TestNormal(t *testing.T) {
	for text, want := range map[string]string{
		"eXAMPLE://a/./b/../b/%63/%7bfoo%7d": "", "https://a/./b/../b/%63/%7bfoo%7d": "https://a/b/c/%7Bfoo%7D",
		"https://a": "https://a/", "https://a?q": "https://a/", "http://a:80": "http://a/", "https://a:80": "https://a:80/", "http://A:443/": "http://a:443/",
		"https://a/b/c/./../../g": "https://a/g", "https://a/..": "https://a/", "https://a/../../g": "https://a/g", "https://a/b/..": "https://a/", "https://a/b/.": "https://a/b/",
		"https://a/b/c/..": "https://a/b/", "https://a/.b/..c/...": "https://a/.b/..c/...", "https://a//b": "https://a//b", "https://a/%2e%2e/b": "https://a/b", "https://a/%e4%2F": "https://a/%E4%2F",
		"https://[2001:DB8::1]:443/a": "https://[2001:db8::1]/a", "https://[::1]:8443/": "https://[::1]:8443/", "https://a/~%7E": "https://a/~~",
		"": "", "https://": "", "https://:443/": "", "https://u@a/": "", "mailto:a": "", "//a/b": "", "https://a/%": "", "https://a b/": "",
	} {
		got, ok := normal(text)
		if got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", text, got, ok)
		}
		if again, _ := normal(got); ok && again != got {
			t.Errorf("%q: not at rest: %q", got, again)
		}
	}
}

// Check 114: a proof is used once, at its URL and by its key, for as long as it
// could be.
func TestReplay_114(t *testing.T) {
	for _, resource := range []bool{false, true} {
		r := newRig(t, Options{})
		claims := r.claims(resource)
		claims["iat"] = r.now.Add(time.Minute).Unix() // at the far end of the window
		proof := trusttest.Token(t, r.key, r.header(t), claims)
		if _, err := r.Check(request(resource, proof)); err != nil {
			t.Fatal(err)
		}
		for _, after := range []time.Duration{0, time.Minute, 2 * time.Minute} {
			r.now = trusttest.Now.Add(after)
			_, err := r.Check(request(resource, proof))
			if e := refused(t, after.String(), err, InvalidProof, resource); !strings.Contains(e.Description, "used before") {
				t.Errorf("%s: %v", after, e)
			}
			// The same claims signed again are the same proof.
			_, err = r.Check(request(resource, trusttest.Token(t, r.key, r.header(t), claims)))
			refused(t, "signed again", err, InvalidProof, resource)
		}
		r.key = issuancetest.Key(t, issuance.ES256)
		if _, err := r.Check(request(resource, trusttest.Token(t, r.key, r.header(t), claims))); err != nil {
			t.Errorf("another key's jti: %v", err)
		}
		r.now = trusttest.Now.Add(2*time.Minute + time.Second)
		if _, err := r.Check(request(resource, proof)); err == nil || strings.Contains(err.Error(), "used before") {
			t.Errorf("after the window: %v", err)
		}
	}
}

// When no more can be remembered, nothing more is accepted where a proof shown
// again is worth something; at the token endpoint nobody is kept out.
func TestFull(t *testing.T) {
	r := newRig(t, Options{MaxEntries: 2})
	check := func(resource bool) error {
		_, err := r.Check(request(resource, trusttest.Token(t, r.key, r.header(t), r.claims(resource))))
		return err
	}
	for range 10 {
		if err := check(false); err != nil || r.seen[0].Len() > 2 {
			t.Fatalf("%v, %d remembered", err, r.seen[0].Len())
		}
	}
	for range 2 {
		if err := check(true); err != nil {
			t.Fatal(err)
		}
	}
	var e *refusal.Refusal
	if err := check(true); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable || e.RetryAfter != 60 {
		t.Errorf("%v", err)
	}
	r.now = r.now.Add(10 * time.Minute)
	if err := check(true); err != nil {
		t.Errorf("later: %v", err)
	}
}

// Checks 115 to 117 and 154: with nonces on, a proof without one of this
// endpoint's is answered use_dpop_nonce and a nonce that then is accepted; its
// jti is not consumed.
func TestNonces_115_116_117_154(t *testing.T) {
	for _, resource := range []bool{false, true} {
		r := newRig(t, Options{Nonces: true, NonceLifetime: time.Minute})
		claims := r.claims(resource)
		expired := r.Nonce(resource)
		r.now = r.now.Add(time.Minute)
		claims["iat"] = r.now.Unix()
		with := func(nonce any) error {
			proof, err := r.Check(request(resource, trusttest.Token(t, r.key, r.header(t), trusttest.With(claims, "nonce", nonce))))
			if err == nil && (!proof.Fresh || proof.Nonce != nonce) {
				t.Errorf("%+v", proof)
			}
			return err
		}
		var given string
		for name, nonce := range map[string]any{
			"115 none": nil, "117 wrong": "x", "117 empty": "", "117 no text": 1, "117 expired": expired,
			"117 of the other endpoint": r.Nonce(!resource), "117 of another process": newRig(t, Options{Nonces: true}).Nonce(resource),
		} {
			e := refused(t, name, with(nonce), UseNonce, resource)
			if given = e.Header["DPoP-Nonce"]; given == "" || given == nonce || len(e.Header) != 1 {
				t.Errorf("%s: %v", name, e.Header)
			}
		}
		if err := with(given); err != nil {
			t.Errorf("with the nonce that was given: %v", err)
		}
		claims = r.claims(resource)
		refused(t, "116 none any more", with(nil), UseNonce, resource)
		if err := with(given); err != nil {
			t.Errorf("a nonce may be used for several proofs: %v", err)
		}
		claims = trusttest.With(r.claims(resource), "htm", "GET")
		if e := refused(t, "another fault", with(given), InvalidProof, resource); e.Header["DPoP-Nonce"] == "" {
			t.Error("no nonce for the next try")
		}
	}
	if n := newRig(t, Options{}).Nonce(false); n != "" {
		t.Errorf("a nonce although there are none: %q", n)
	}
}

// An attestation challenge is a nonce at the token endpoint, for wallets whose
// DPoP proof is their proof of possession.
func TestChallengeAsNonce(t *testing.T) {
	challenges := challenge.New(time.Minute)
	r := newRig(t, Options{Nonces: true, Challenges: challenges})
	for _, resource := range []bool{false, true} {
		_, err := r.Check(request(resource, trusttest.Token(t, r.key, r.header(t), trusttest.With(r.claims(resource), "nonce", challenges.Make(r.now)))))
		if resource {
			refused(t, "at a resource", err, UseNonce, true)
		} else if err != nil {
			t.Error(err)
		}
	}
}

// Checks 150 to 152: the answers to a bound token with the wrong scheme, without
// a proof and with another key's; and the challenge where there is no token.
func TestBinding_118_150_151_152(t *testing.T) {
	r := newRig(t, Options{})
	q := request(true, trusttest.Token(t, r.key, r.header(t), r.claims(true)))
	q.Bound = &[32]byte{1}
	_, err := r.Check(q)
	refused(t, "152", err, InvalidToken, true)
	if r.seen[1].Len() != 0 {
		t.Error("152: the jti was consumed")
	}
	refused(t, "151", r.Missing(true), InvalidProof, true)
	refused(t, "118", r.Missing(false), InvalidProof, false)
	refused(t, "150", r.NotBearer(), InvalidToken, true)
	if got := r.Challenge(); got != `DPoP algs="ES256 ES384 ES512 EdDSA"` {
		t.Error(got)
	}
	if got := New(Options{Algorithms: []issuance.Algorithm{issuance.ES256}}).Algorithms(); len(got) != 1 || got[0] != "ES256" {
		t.Error(got)
	}
}

// An algorithm that is not accepted is refused though its signature holds.
func TestAlgorithms(t *testing.T) {
	r := newRig(t, Options{Algorithms: []issuance.Algorithm{issuance.ES256}})
	r.key = issuancetest.Key(t, issuance.ES384)
	if _, err := r.Check(request(false, trusttest.Token(t, r.key, r.header(t), r.claims(false)))); err == nil || !strings.Contains(err.Error(), "one of ES256") {
		t.Error(err)
	}
}

// The RFC's own proofs hold, at their time and URL.
func TestVectors(t *testing.T) {
	var file struct {
		DPoP struct {
			JKT         string `json:"jkt"`
			AccessToken string `json:"access_token"`
			Token       string `json:"token_request_proof"`
			Resource    string `json:"resource_request_proof"`
		} `json:"dpop"`
	}
	if err := json.Unmarshal(issuancetest.Vector(t, "oid4vci-oauth.json"), &file); err != nil {
		t.Fatal(err)
	}
	v := file.DPoP
	r := newRig(t, Options{})
	r.now = time.Unix(1562262617, 0)
	for _, q := range []Request{
		{Values: []string{v.Token}, Method: "POST", URL: "https://server.example.com/token"},
		{Values: []string{v.Resource}, Method: "GET", URL: "https://resource.example.org/protectedresource", Resource: true, AccessToken: v.AccessToken},
	} {
		proof, err := r.Check(q)
		if err != nil {
			t.Fatal(err)
		}
		if got := base64.RawURLEncoding.EncodeToString(proof.Thumbprint[:]); got != v.JKT {
			t.Error(got)
		}
	}
}
