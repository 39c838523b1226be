package conformance

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// tokenNonce returns a DPoP nonce for the token endpoint, "" where there are none.
func (i *instance) tokenNonce(t testing.TB) string {
	t.Helper()
	if !i.nonces {
		return ""
	}
	return i.do(t, http.MethodPost, "/token", nil).header.Get("DPoP-Nonce")
}

// clientHeader is what a wallet with that instance key authenticates with,
// where the instance demands it.
func (i *instance) clientHeader(t testing.TB, k key) []string {
	t.Helper()
	if !i.haipOn {
		return nil
	}
	return []string{"OAuth-Client-Attestation", i.attester.attestation(t, k, nil), "OAuth-Client-Attestation-PoP", i.pop(t, k, i.challenge(t), nil)}
}

// withProofs sends a token request for a code with the given DPoP headers and
// whatever else the instance demands, which is right.
func (i *instance) withProofs(t testing.TB, k key, code string, proofs ...string) answer {
	t.Helper()
	header := i.clientHeader(t, k)
	for _, p := range proofs {
		header = append(header, "DPoP", p)
	}
	return i.tokenRequest(t, code, nil, header)
}

// oneNonce checks that an answer has one DPoP-Nonce where the instance has nonces.
func (i *instance) oneNonce(t testing.TB, a answer) {
	t.Helper()
	if values := a.header.Values("DPoP-Nonce"); i.nonces && (len(values) != 1 || values[0] == "") || !i.nonces && len(values) != 0 {
		t.Errorf("DPoP-Nonce %q", values)
	}
}

// dpopInstances are the two that DPoP is checked on: one that demands it with
// nonces, and one that lets wallets use it.
func dpopInstances(t testing.TB) map[string]*instance {
	t.Helper()
	return map[string]*instance{"plain": plain(t), "haip": haip(t)}
}

func TestCheck104(t *testing.T) {
	for name, i := range dpopInstances(t) {
		t.Run("104 "+name, func(t *testing.T) {
			s := i.bound(t, pidSDJWT)
			granted(t, s.answer, "DPoP")
			proof := func() members {
				return request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), func(_, claims members) {
					if s.client != nil {
						claims["iss"] = walletID
					}
				}))
			}
			resourceNonce := i.do(t, http.MethodPost, "/nonce", nil).header.Get("DPoP-Nonce")
			stranger := i.dpop(t, newKey(t, jose.ES256), "/credential", s.token, resourceNonce, nil)
			refused(t, s.ask(t, proof(), "DPoP", stranger), 401, "invalid_token", "invalid_dpop_proof")
			refused(t, s.ask(t, proof(), "Authorization", "Bearer "+s.token), 401, "invalid_token")
			credentials(t, s.ask(t, proof()), 1)
		})
		t.Run("104 every algorithm "+name, func(t *testing.T) {
			for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.EdDSA} {
				k := newKey(t, alg)
				granted(t, i.withProofs(t, k, i.offer(t, pidSDJWT, nil).code, i.dpop(t, k, "/token", "", i.tokenNonce(t), nil)), "DPoP")
			}
		})
	}
}

// badProofs are DPoP proofs with one defect each.
var badProofs = []struct {
	name   string
	change change
}{
	{"105 typ JWT", with(members{"typ": "JWT"}, nil)},
	{"105 no typ", with(members{"typ": nil}, nil)},
	{"105 typ of a key proof", with(members{"typ": "openid4vci-proof+jwt"}, nil)},
	{"107 no jwk", with(members{"jwk": nil}, nil)},
	{"107 a key by name alone", with(members{"jwk": nil, "kid": "1"}, nil)},
	{"108 htm GET", with(nil, members{"htm": "GET"})},
	{"108 htm in lower case", with(nil, members{"htm": "post"})},
	{"108 no htm", with(nil, members{"htm": nil})},
	{"108 no htu", with(nil, members{"htu": nil})},
	{"108 htu of another host", with(nil, members{"htu": "https://other.example/token"})},
	{"108 htu of another endpoint", func(_, c members) { c["htu"] = strings.Replace(c["htu"].(string), "/token", "/credential", 1) }},
	{"108 htu with http", func(_, c members) { c["htu"] = strings.Replace(c["htu"].(string), "https:", "http:", 1) }},
	{"108 htu with a slash behind", func(_, c members) { c["htu"] = c["htu"].(string) + "/" }},
	{"108 htu with a path in upper case", func(_, c members) { c["htu"] = strings.Replace(c["htu"].(string), "/token", "/TOKEN", 1) }},
	{"108 htu without scheme", with(nil, members{"htu": "/token"})},
	{"110 iat ten minutes ago", func(_, c members) { c["iat"] = time.Now().Add(-10 * time.Minute).Unix() }},
	{"110 iat in ten minutes", func(_, c members) { c["iat"] = time.Now().Add(10 * time.Minute).Unix() }},
	{"110 no iat", with(nil, members{"iat": nil})},
	{"110 iat a text", func(_, c members) { c["iat"] = "now" }},
	{"113 no jti", with(nil, members{"jti": nil})},
	{"113 an empty jti", with(nil, members{"jti": ""})},
	{"113 jti a number", with(nil, members{"jti": 7})},
	{"critical header", with(members{"crit": []string{"x"}, "x": 1}, nil)},
}

// TestCheck105Proofs sends proofs with a defect, all of them with one code that
// none of them spends.
func TestCheck105Proofs(t *testing.T) {
	for name, i := range dpopInstances(t) {
		k, code := newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
		for _, c := range badProofs {
			t.Run(c.name+" "+name, func(t *testing.T) {
				a := i.withProofs(t, k, code, i.dpop(t, k, "/token", "", i.tokenNonce(t), c.change))
				refused(t, a, 400, "invalid_dpop_proof")
				i.oneNonce(t, a)
			})
		}
		for of, proof := range i.forged(t, k) {
			t.Run(of+" "+name, func(t *testing.T) {
				refused(t, i.withProofs(t, k, code, proof), 400, "invalid_dpop_proof")
			})
		}
		proof := func() string { return i.dpop(t, k, "/token", "", i.tokenNonce(t), nil) }
		t.Run("112 two headers "+name, func(t *testing.T) {
			refused(t, i.withProofs(t, k, code, proof(), proof()), 400, "invalid_dpop_proof")
			same := proof()
			refused(t, i.withProofs(t, k, code, same, same), 400, "invalid_dpop_proof")
			refused(t, i.withProofs(t, k, code, proof()+", "+proof()), 400, "invalid_dpop_proof")
			refused(t, i.withProofs(t, k, code, ""), 400, "invalid_dpop_proof")
		})
		t.Run("the code is good still "+name, func(t *testing.T) {
			granted(t, i.withProofs(t, k, code, proof()), "DPoP")
		})
	}
}

// forged are proofs that no JOSE library makes.
func (i *instance) forged(t testing.TB, k key) map[string]string {
	t.Helper()
	claims := func() members {
		c := members{"jti": rand.Text(), "htm": "POST", "htu": i.issuer + "/token", "iat": time.Now().Unix()}
		if nonce := i.tokenNonce(t); nonce != "" {
			c["nonce"] = nonce
		}
		return c
	}
	header := func(alg string, jwk any) members { return members{"typ": "dpop+jwt", "alg": alg, "jwk": jwk} }
	secret := []byte("0123456789abcdef0123456789abcdef")
	oct := jose.JSONWebKey{Key: secret}
	unsigned := forge(t, header("HS256", oct), claims(), nil)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(strings.TrimSuffix(unsigned, ".")))
	right := i.dpop(t, k, "/token", "", i.tokenNonce(t), nil)
	other := i.dpop(t, k, "/token", "", i.tokenNonce(t), nil)
	spoilt := []byte(right)
	at := strings.LastIndexByte(right, '.') + 10
	spoilt[at] = map[bool]byte{true: 'B', false: 'A'}[spoilt[at] == 'A']
	return map[string]string{
		"106 none":                      forge(t, header("none", k.jwk()), claims(), nil),
		"106 none with a signature":     forge(t, header("none", k.jwk()), claims(), make([]byte, 64)),
		"106 HS256 with its key":        unsigned + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"106 HS256 with a public key":   forge(t, header("HS256", k.jwk()), claims(), make([]byte, 32)),
		"106 another algorithm":         forge(t, header("ES384", k.jwk()), claims(), make([]byte, 96)),
		"106 no alg":                    forge(t, members{"typ": "dpop+jwt", "jwk": k.jwk()}, claims(), make([]byte, 64)),
		"107 a private key":             i.dpop(t, k, "/token", "", i.tokenNonce(t), with(members{"jwk": jose.JSONWebKey{Key: k.private}}, nil)),
		"107 a symmetric key":           i.dpop(t, k, "/token", "", i.tokenNonce(t), with(members{"jwk": oct}, nil)),
		"111 a spoilt signature":        string(spoilt),
		"111 an empty signature":        right[:strings.LastIndexByte(right, '.')+1],
		"111 a signature of zeros":      forge(t, header("ES256", k.jwk()), claims(), make([]byte, 64)),
		"111 another key's signature":   i.dpop(t, newKey(t, jose.ES256), "/token", "", i.tokenNonce(t), with(members{"jwk": k.jwk()}, nil)),
		"111 another proof's signature": right[:strings.LastIndexByte(right, '.')] + other[strings.LastIndexByte(other, '.'):],
		"111 no JWT":                    "x",
	}
}

// TestCheck109 writes the same URL in other ways (RFC 9449 §4.3, RFC 3986 §6.2).
func TestCheck109(t *testing.T) {
	for name, i := range dpopInstances(t) {
		k := newKey(t, jose.ES256)
		for of, htu := range map[string]string{
			"109 htu with a query and a fragment":    i.issuer + "/token?a=b#c",
			"109 htu with a host in another case":    strings.Replace(i.issuer, "https://localhost", "HTTPS://LocalHost", 1) + "/token",
			"109 htu with a letter percent-encoded":  i.issuer + "/%74oken",
			"109 htu with a dot segment in its path": i.issuer + "/x/../token",
		} {
			t.Run(of+" "+name, func(t *testing.T) {
				granted(t, i.withProofs(t, k, i.offer(t, pidSDJWT, nil).code, i.dpop(t, k, "/token", "", i.tokenNonce(t), with(nil, members{"htu": htu}))), "DPoP")
			})
		}
		for of, target := range map[string]string{
			"109 a request with a query":                i.issuer + "/token?a=b",
			"109 a request with a host in another case": strings.Replace(i.issuer, "localhost", "LOCALHOST", 1) + "/token",
		} {
			t.Run(of+" "+name, func(t *testing.T) {
				header := append(i.clientHeader(t, k), "Content-Type", "application/x-www-form-urlencoded", "DPoP", i.dpop(t, k, "/token", "", i.tokenNonce(t), nil))
				body := form("grant_type", grantType, "pre-authorized_code", i.offer(t, pidSDJWT, nil).code)
				granted(t, i.do(t, http.MethodPost, target, body, header...), "DPoP")
			})
		}
	}
}

func TestCheck114(t *testing.T) {
	for name, i := range dpopInstances(t) {
		t.Run("114 "+name, func(t *testing.T) {
			k, code := newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
			twice := with(nil, members{"jti": rand.Text()})
			first := i.dpop(t, k, "/token", "", i.tokenNonce(t), twice)
			granted(t, i.withProofs(t, k, i.offer(t, pidSDJWT, nil).code, first), "DPoP")
			refused(t, i.withProofs(t, k, code, first), 400, "invalid_dpop_proof")
			refused(t, i.withProofs(t, k, code, i.dpop(t, k, "/token", "", i.tokenNonce(t), twice)), 400, "invalid_dpop_proof")
			// A jti is a key's own: another wallet may have the same.
			other := newKey(t, jose.ES256)
			granted(t, i.withProofs(t, other, code, i.dpop(t, other, "/token", "", i.tokenNonce(t), twice)), "DPoP")
		})
	}
}

func TestCheck115Nonces(t *testing.T) {
	i := haip(t)
	k, code := newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
	try := func(t *testing.T, nonce string) answer {
		t.Helper()
		a := i.withProofs(t, k, code, i.dpop(t, k, "/token", "", nonce, nil))
		i.oneNonce(t, a)
		return a
	}
	given := try(t, "").header.Get("DPoP-Nonce")
	t.Run("115 none sent", func(t *testing.T) { refused(t, try(t, ""), 400, "use_dpop_nonce") })
	t.Run("116 none sent after one was given and used", func(t *testing.T) {
		granted(t, i.withProofs(t, k, i.offer(t, pidSDJWT, nil).code, i.dpop(t, k, "/token", "", given, nil)), "DPoP")
		refused(t, try(t, ""), 400, "use_dpop_nonce")
	})
	for name, nonce := range map[string]string{"117 a text": "wrong", "117 a c_nonce": i.nonce(t), "117 spoilt": given[:len(given)-1] + map[bool]string{true: "B", false: "A"}[given[len(given)-1] == 'A'],
		"117 another endpoint's": i.do(t, http.MethodPost, "/nonce", nil).header.Get("DPoP-Nonce")} {
		t.Run(name, func(t *testing.T) {
			a := try(t, nonce)
			refused(t, a, 400, "use_dpop_nonce")
			if fresh := a.header.Get("DPoP-Nonce"); fresh == nonce || fresh == given {
				t.Error("the nonce is no new one")
			}
		})
	}
	t.Run("117 a number", func(t *testing.T) {
		refused(t, i.withProofs(t, k, code, i.dpop(t, k, "/token", "", "", with(nil, members{"nonce": 1}))), 400, "use_dpop_nonce", "invalid_dpop_proof")
	})
	t.Run("115 with the nonce", func(t *testing.T) {
		a := try(t, given)
		granted(t, a, "DPoP")
		// The next request's nonce rides on a success (RFC 9449 §8.2).
		code = i.offer(t, pidSDJWT, nil).code
		granted(t, try(t, a.header.Get("DPoP-Nonce")), "DPoP")
	})
}

func TestCheck118(t *testing.T) {
	i := haip(t)
	k, code := newKey(t, jose.ES256), i.offer(t, pidSDJWT, nil).code
	a := i.withProofs(t, k, code)
	refused(t, a, 400, "invalid_dpop_proof")
	i.oneNonce(t, a)
	granted(t, i.withProofs(t, k, code, i.dpop(t, k, "/token", "", i.tokenNonce(t), nil)), "DPoP")
}
