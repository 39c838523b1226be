package conformance

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Headers of wallet attestation.
const (
	attestationHeader = "OAuth-Client-Attestation"
	popHeader         = "OAuth-Client-Attestation-PoP"
	challengeHeader   = "OAuth-Client-Attestation-Challenge"
)

// attempt is a token request with a wallet attestation; a test spoils a part.
type attempt struct {
	attestation, pop string
	dpop             key // signs the DPoP proof where the instance demands one
	parameters       []string
	header           []string // in place of attestation and pop
}

// attempt makes one in which everything is right.
func (i *instance) attempt(t testing.TB, k key) attempt {
	t.Helper()
	return attempt{attestation: i.attester.attestation(t, k, nil), pop: i.pop(t, k, i.challenge(t), nil), dpop: newKey(t, jose.ES256)}
}

// try sends an attempt to redeem a code.
func (i *instance) try(t testing.TB, code string, a attempt) answer {
	t.Helper()
	header := a.header
	if header == nil {
		header = []string{attestationHeader, a.attestation, popHeader, a.pop}
	}
	if i.nonces {
		header = append(header, "DPoP", i.dpop(t, a.dpop, "/token", "", i.tokenNonce(t), nil))
	}
	return i.tokenRequest(t, code, a.parameters, header)
}

// tokenType is what the instance's tokens are for an attempt.
func (i *instance) tokenType() string {
	if i.nonces {
		return "DPoP"
	}
	return "Bearer"
}

func TestCheck119(t *testing.T) {
	for name, i := range dpopInstances(t) {
		for of, parameters := range map[string][]string{"119": nil, "119 130 with its client_id": {"client_id", walletID}} {
			t.Run(of+" "+name, func(t *testing.T) {
				a := i.attempt(t, newKey(t, jose.ES256))
				a.parameters = parameters
				granted(t, i.try(t, i.offer(t, pidSDJWT, nil).code, a), i.tokenType())
			})
		}
		t.Run("119 every algorithm "+name, func(t *testing.T) {
			for _, alg := range []jose.SignatureAlgorithm{jose.ES384, jose.ES512, jose.EdDSA} {
				granted(t, i.try(t, i.offer(t, pidSDJWT, nil).code, i.attempt(t, newKey(t, alg))), i.tokenType())
			}
		})
		t.Run("119 DPoP proof in place of the PoP "+name, func(t *testing.T) { // ABCA -10 §5.2
			k := newKey(t, jose.ES256)
			header := []string{attestationHeader, i.attester.attestation(t, k, nil), "DPoP", i.dpop(t, k, "/token", "", i.challenge(t), nil)}
			granted(t, i.tokenRequest(t, i.offer(t, pidSDJWT, nil).code, nil, header), "DPoP")
		})
		t.Run("137 without iss "+name, func(t *testing.T) {
			k := newKey(t, jose.ES256)
			a := i.attempt(t, k)
			a.attestation = i.attester.attestation(t, k, with(nil, members{"iss": nil}))
			a.pop = i.pop(t, k, i.challenge(t), with(nil, members{"iss": nil}))
			granted(t, i.try(t, i.offer(t, pidSDJWT, nil).code, a), i.tokenType())
		})
	}
}

// spoilt are attestations and proofs of possession with one defect each. Where
// no code is named it is invalid_client.
func (i *instance) spoilt(t testing.TB, k key) map[string]struct {
	attestation, pop change
	code             string
} {
	t.Helper()
	stranger := newKey(t, jose.ES256)
	type defect = struct {
		attestation, pop change
		code             string
	}
	long := time.Now().Add(-2 * time.Hour).Unix()
	out := map[string]defect{}
	for name, c := range map[string]change{
		"122 typ JWT":                   with(members{"typ": "JWT"}, nil),
		"122 typ of the draft's PoP":    with(members{"typ": "oauth-client-attestation-pop+jwt"}, nil),
		"122 no typ":                    with(members{"typ": nil}, nil),
		"125 no exp":                    with(nil, members{"exp": nil}),
		"125 exp a text":                with(nil, members{"exp": "tomorrow"}),
		"125 not yet valid":             with(nil, members{"nbf": time.Now().Add(time.Hour).Unix()}),
		"127 cnf of another key":        with(nil, members{"cnf": members{"jwk": stranger.jwk()}}),
		"129 130 another sub":           with(nil, members{"sub": "https://wallet.example/other"}),
		"122 no sub":                    with(nil, members{"sub": nil}),
		"135 a private key in cnf":      with(nil, members{"cnf": members{"jwk": jose.JSONWebKey{Key: k.private}}}),
		"135 a symmetric key in cnf":    with(nil, members{"cnf": members{"jwk": jose.JSONWebKey{Key: []byte("0123456789abcdef")}}}),
		"135 no cnf":                    with(nil, members{"cnf": nil}),
		"135 cnf by name alone":         with(nil, members{"cnf": members{"kid": "1"}}),
		"136 no x5c":                    with(members{"x5c": nil}, nil),
		"136 a kid in place of x5c":     with(members{"x5c": nil, "kid": "1"}, nil),
		"136 x5c with the anchor":       with(members{"x5c": append([]string{i.attester.x5c[0]}, base64.StdEncoding.EncodeToString(i.attester.anchor.Raw))}, nil),
		"136 the anchor alone":          with(members{"x5c": []string{base64.StdEncoding.EncodeToString(i.attester.anchor.Raw)}}, nil),
		"136 a self-signed leaf":        with(members{"x5c": []string{selfSigned(t, i.attester.key)}}, nil),
		"136 an empty x5c":              with(members{"x5c": []string{}}, nil),
		"136 x5c of no certificate":     with(members{"x5c": []string{"AAAA"}}, nil),
		"122 a header that is critical": with(members{"crit": []string{"x"}, "x": 1}, nil),
	} {
		out[name] = defect{attestation: c}
	}
	for name, c := range map[string]change{
		"126 typ JWT":                with(members{"typ": "JWT"}, nil),
		"126 no typ":                 with(members{"typ": nil}, nil),
		"126 typ of a DPoP proof":    with(members{"typ": "dpop+jwt"}, nil),
		"128 aud of another server":  with(nil, members{"aud": "https://other.example"}),
		"128 no aud":                 with(nil, members{"aud": nil}),
		"128 aud the token endpoint": with(nil, members{"aud": i.issuer + "/token"}),
		"128 aud of two":             with(nil, members{"aud": []string{i.issuer, "https://other.example"}}),
		"128 aud with a slash":       with(nil, members{"aud": i.issuer + "/"}),
		"129 iss is not the sub":     with(nil, members{"iss": "https://wallet.example/other"}),
		"129 iss of the attester":    with(nil, members{"iss": "https://provider.example"}),
		"131 no jti":                 with(nil, members{"jti": nil}),
		"131 jti a number":           with(nil, members{"jti": 1}),
		"128 iat of yesterday":       with(nil, members{"iat": time.Now().Add(-24 * time.Hour).Unix()}),
		"128 no iat":                 with(nil, members{"iat": nil}),
	} {
		out[name] = defect{pop: c}
	}
	out["125 expired"] = defect{attestation: with(nil, members{"iat": long, "exp": time.Now().Add(-time.Minute).Unix()}), code: "use_fresh_attestation"}
	if i.haipOn {
		out["133 older than the policy allows"] = defect{attestation: with(nil, members{"iat": long}), code: "use_fresh_attestation"}
		out["132 no challenge"] = defect{pop: with(nil, members{"challenge": nil}), code: "use_attestation_challenge"}
		out["132 a wrong challenge"] = defect{pop: with(nil, members{"challenge": "wrong"}), code: "use_attestation_challenge"}
		out["132 a DPoP nonce"] = defect{pop: with(nil, members{"challenge": i.tokenNonce(t)}), code: "use_attestation_challenge"}
	}
	return out
}

// selfSigned is a certificate that a key gave itself, in base64.
func selfSigned(t testing.TB, k key) string {
	t.Helper()
	return certify(t, "Nobody", k, nil, k)
}

// certify makes a certificate, by itself where parent is nil.
func certify(t testing.TB, name string, subject key, parent *x509.Certificate, by key) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, subject.private.Public(), by.private)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// TestCheck122Defects sends attestations that are wrong, all of them with one
// code that none of them spends.
func TestCheck122Defects(t *testing.T) {
	for name, i := range dpopInstances(t) {
		k, code := newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
		for of, c := range i.spoilt(t, k) {
			t.Run(of+" "+name, func(t *testing.T) {
				a := i.attempt(t, k)
				if c.attestation != nil {
					a.attestation = i.attester.attestation(t, k, c.attestation)
				}
				if c.pop != nil {
					a.pop = i.pop(t, k, i.challenge(t), c.pop)
				}
				if c.code == "" {
					c.code = "invalid_client"
				}
				answer := i.try(t, code, a)
				refused(t, answer, 400, c.code)
				fresh := answer.header.Values(challengeHeader)
				if c.code == "use_attestation_challenge" && (len(fresh) != 1 || fresh[0] == "") {
					t.Errorf("%s %q", challengeHeader, fresh)
				}
			})
		}
		t.Run("the code is good still "+name, func(t *testing.T) {
			granted(t, i.try(t, code, i.attempt(t, k)), i.tokenType())
		})
	}
}

// TestCheck123Forged sends what no wallet and no attester of ours has signed.
func TestCheck123Forged(t *testing.T) {
	for name, i := range dpopInstances(t) {
		k, stranger, code := newKey(t, jose.ES256), newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
		right := i.attempt(t, k)
		lying := attester{key: stranger, x5c: i.attester.x5c} // a stranger with the attester's certificate
		authority := newKey(t, jose.ES256)
		unknown := attester{key: stranger, x5c: []string{certify(t, "Demonstration attester", stranger, &x509.Certificate{Subject: i.attester.anchor.Subject, RawSubject: i.attester.anchor.RawSubject}, authority)}}
		edited := strings.Split(right.attestation, ".")
		edited[1] = strings.Split(i.attester.attestation(t, k, with(nil, members{"sub": walletID, "wallet_name": "x"})), ".")[1]
		header := members{"typ": "oauth-client-attestation+jwt", "x5c": i.attester.x5c}
		claims := members{"iss": "https://provider.example", "sub": walletID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "cnf": members{"jwk": k.jwk()}}
		headed := func(alg string) members {
			h := maps.Clone(header)
			h["alg"] = alg
			return h
		}
		popClaims := members{"iss": walletID, "aud": i.issuer, "jti": rand.Text(), "iat": time.Now().Unix(), "challenge": i.challenge(t)}
		for of, a := range map[string]attempt{
			"123 another key's signature":  {attestation: lying.attestation(t, k, nil)},
			"123 an edited attestation":    {attestation: strings.Join(edited, ".")},
			"123 none":                     {attestation: forge(t, headed("none"), claims, nil)},
			"123 HS256":                    {attestation: forge(t, headed("HS256"), claims, make([]byte, 32))},
			"123 zeros":                    {attestation: forge(t, headed("ES256"), claims, make([]byte, 64))},
			"123 no JWT":                   {attestation: "x"},
			"124 an attester of no anchor": {attestation: unknown.attestation(t, k, nil)},
			"124 a self-signed attester":   {attestation: attester{key: stranger, x5c: []string{selfSigned(t, stranger)}}.attestation(t, k, nil)},
			"126 none":                     {pop: forge(t, members{"typ": "oauth-client-attestation-pop+jwt", "alg": "none"}, popClaims, nil)},
			"126 HS256":                    {pop: forge(t, members{"typ": "oauth-client-attestation-pop+jwt", "alg": "HS256"}, popClaims, make([]byte, 32))},
			"127 by another key":           {pop: i.pop(t, stranger, i.challenge(t), nil)},
			"127 by the attester":          {pop: i.pop(t, i.attester.key, i.challenge(t), nil)},
			"127 no JWT":                   {pop: "x"},
			"130 another client_id":        {parameters: []string{"client_id", "https://wallet.example/other"}},
			"120 no PoP":                   {header: []string{attestationHeader, right.attestation}},
			"120 no attestation":           {header: []string{popHeader, right.pop}},
			"120 both in one":              {header: []string{attestationHeader, right.attestation + "~" + right.pop}},
			"121 attestation twice":        {header: []string{attestationHeader, right.attestation, attestationHeader, right.attestation, popHeader, i.pop(t, k, i.challenge(t), nil)}},
			"121 PoP twice":                {header: []string{attestationHeader, right.attestation, popHeader, i.pop(t, k, i.challenge(t), nil), popHeader, i.pop(t, k, i.challenge(t), nil)}},
			"121 two in one header":        {header: []string{attestationHeader, right.attestation + ", " + right.attestation, popHeader, i.pop(t, k, i.challenge(t), nil)}},
		} {
			t.Run(of+" "+name, func(t *testing.T) {
				a.dpop = newKey(t, jose.ES256)
				if a.attestation == "" {
					a.attestation = right.attestation
				}
				if a.pop == "" {
					a.pop = i.pop(t, k, i.challenge(t), nil)
				}
				refused(t, i.try(t, code, a), 400, "invalid_client", "invalid_client_attestation")
			})
		}
		t.Run("the code is good still "+name, func(t *testing.T) { granted(t, i.try(t, code, right), i.tokenType()) })
	}
}

func TestCheck131(t *testing.T) {
	for name, i := range dpopInstances(t) {
		t.Run("131 "+name, func(t *testing.T) {
			k := newKey(t, jose.ES256)
			a := i.attempt(t, k)
			granted(t, i.try(t, i.offer(t, pidSDJWT, nil).code, a), i.tokenType())
			refused(t, i.try(t, i.offer(t, pidSDJWT, nil).code, a), 400, "invalid_client")
			jti := with(nil, members{"jti": rand.Text()})
			for n, want := range []int{http.StatusOK, http.StatusBadRequest} {
				a.pop = i.pop(t, k, i.challenge(t), jti)
				if got := i.try(t, i.offer(t, pidSDJWT, nil).code, a); got.status != want {
					t.Errorf("use %d of a jti: %d %.300s", n+1, got.status, got.body)
				}
			}
		})
	}
}

func TestCheck132And134Challenge(t *testing.T) {
	i := haip(t)
	k, code := newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
	a := i.attempt(t, k)
	a.pop = i.pop(t, k, "", nil)
	first := i.try(t, code, a)
	refused(t, first, 400, "use_attestation_challenge")
	t.Run("132 the answer's challenge is good and the code unspent", func(t *testing.T) {
		a.pop = i.pop(t, k, first.header.Get(challengeHeader), nil)
		granted(t, i.try(t, code, a), "DPoP")
	})
	t.Run("134", func(t *testing.T) {
		var seen []string
		for range 2 {
			a := i.do(t, http.MethodPost, "/challenge", nil)
			value := a.text(t, "attestation_challenge")
			if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" || len(value) < 22 {
				t.Fatalf("%d %v %s", a.status, a.header, a.body)
			}
			seen = append(seen, value)
		}
		if seen[0] == seen[1] {
			t.Error("the same challenge twice")
		}
		if a := i.do(t, http.MethodGet, "/challenge", nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != http.MethodPost {
			t.Errorf("GET: %d, Allow %q", a.status, a.header.Get("Allow"))
		}
		metadata := i.do(t, http.MethodGet, strings.Replace(i.issuer, "/tenant", "/.well-known/oauth-authorization-server/tenant", 1), nil)
		if endpoint := metadata.text(t, "challenge_endpoint"); endpoint != i.issuer+"/challenge" {
			t.Errorf("challenge_endpoint %q", endpoint)
		}
		if a := plain(t).do(t, http.MethodPost, "/challenge", nil); a.status != http.StatusNotFound {
			t.Errorf("without challenges: %d", a.status)
		}
	})
}

// An attester that is believed by its key vouches for the wallets of its
// client_ids alone; the one beside it, of any wallet, lends it nothing.
func TestCheck124AttesterByKey(t *testing.T) {
	i, other := closed(t), "https://wallet.example/other"
	code := i.offer(t, pidSDJWT, nil).code
	try := func(t *testing.T, by attester, kid any, sub string) answer {
		k := newKey(t, jose.ES256)
		a := i.attempt(t, k)
		header := members{"kid": kid}
		if kid != nil {
			header["x5c"] = nil
		}
		a.attestation = by.attestation(t, k, with(header, members{"sub": sub}))
		a.pop = i.pop(t, k, i.challenge(t), with(nil, members{"iss": sub}))
		return i.try(t, code, a)
	}
	byKey := attester{key: keyed()}
	byChain := ownAnchor().attester(t, jose.ES256)
	for name, c := range map[string]struct {
		by  attester
		kid any
		sub string
	}{
		"a wallet that is not listed":       {byKey, "1", other},
		"a listed one's name with more":     {byKey, "1", walletID + "/"},
		"another kid":                       {byKey, "2", walletID},
		"its kid over another's signature":  {attester{key: newKey(t, jose.ES256)}, "1", walletID},
		"its kid over the chain's attester": {attester{key: byChain.key}, "1", walletID},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, try(t, c.by, c.kid, c.sub), http.StatusBadRequest, "invalid_client")
		})
	}
	t.Run("a listed wallet", func(t *testing.T) { granted(t, try(t, byKey, "1", walletID), "Bearer") })
	code = i.offer(t, pidSDJWT, nil).code
	t.Run("the other attester's wallet", func(t *testing.T) { granted(t, try(t, byChain, nil, other), "Bearer") })
}
