package conformance

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A clock that is a little off is no defect.
func TestCheck197IatAhead(t *testing.T) {
	i := plain(t)
	for _, off := range []time.Duration{8 * time.Second, -8 * time.Second, -4 * time.Minute} {
		s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
		i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), with(nil, members{"iat": time.Now().Add(off).Unix()})))), 1)[0], &k)
	}
}

func TestCheck199RandomNonce(t *testing.T) {
	i := plain(t)
	random := make([]byte, 39)
	_, _ = rand.Read(random)
	real := i.nonce(t)
	for _, nonce := range []string{"x", base64.RawURLEncoding.EncodeToString(random), real[:len(real)-1], real + "A", flipped(real), strings.Repeat("n", 4000), i.nonce(t) + "="} {
		s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
		refused(t, s.ask(t, request(pidSDJWT, i.proof(t, k, nonce, nil))), http.StatusBadRequest, "invalid_nonce")
		s.nothingIssued(t)
		i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)[0], &k)
	}
}

// flipped changes a nonce's first character.
func flipped(nonce string) string {
	if nonce[0] == 'B' {
		return "C" + nonce[1:]
	}
	return "B" + nonce[1:]
}

func TestCheck200ExpiredNonce(t *testing.T) {
	i := brief(t)
	nonce := i.nonce(t)
	time.Sleep(10 * time.Second)
	s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
	refused(t, s.ask(t, request(pidSDJWT, i.proof(t, k, nonce, nil))), http.StatusBadRequest, "invalid_nonce")
	s.nothingIssued(t)
	i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)[0], &k)
}

func TestCheck201NonceTwice(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		t.Run(name, func(t *testing.T) {
			first, second, k, nonce := i.session(t, pidSDJWT), i.session(t, pidSDJWT), newKey(t, jose.ES256), i.nonce(t)
			proof := i.proof(t, k, nonce, nil)
			credentials(t, first.ask(t, request(pidSDJWT, proof)), 1)
			for _, again := range []string{proof, i.proof(t, k, nonce, nil), i.proof(t, newKey(t, jose.ES256), nonce, nil)} {
				refused(t, second.ask(t, request(pidSDJWT, again)), http.StatusBadRequest, "invalid_nonce")
			}
			// Of two proofs one has the used nonce, the other a fresh one.
			refused(t, second.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil), i.proof(t, newKey(t, jose.ES256), nonce, nil))), http.StatusBadRequest, "invalid_nonce")
			second.nothingIssued(t)
			// Another proof of the same token that is no repetition byte for byte.
			refused(t, first.ask(t, request(pidSDJWT, i.proof(t, k, nonce, with(nil, members{"x": 1})))), http.StatusBadRequest, "invalid_nonce")
		})
	}
}

func TestCheck202WrongIss(t *testing.T) {
	i := haip(t)
	s, k, nonce := i.session(t, pidSDJWT), newKey(t, jose.ES256), i.nonce(t)
	for _, iss := range []any{"https://wallet.example/other", walletID + "/", "", 1, []string{walletID}} {
		refused(t, s.ask(t, request(pidSDJWT, i.proof(t, k, nonce, with(nil, members{"iss": iss})))), http.StatusBadRequest, "invalid_proof")
	}
	s.nothingIssued(t)
	i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, nonce, with(nil, members{"iss": walletID})))), 1)[0], &k)
}

// With an anonymous token there is nothing to compare iss with: the appliance is
// lenient, as many wallets send it.
func TestCheck203IssOfAnAnonymousWallet(t *testing.T) {
	i := plain(t)
	s, k := i.session(t, pidSDJWT), newKey(t, jose.ES256)
	i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), with(nil, members{"iss": "https://wallet.example"})))), 1)[0], &k)
	t.Run("203 strict", func(t *testing.T) {
		i := brief(t)
		s := i.session(t, pidSDJWT)
		refused(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), with(nil, members{"iss": "https://wallet.example"})))), http.StatusBadRequest, "invalid_proof")
		i.verified(t, credentials(t, s.ask(t, request(pidSDJWT, i.proof(t, k, i.nonce(t), nil))), 1)[0], &k)
	})
}

// A DID in kid: the key is bound, and a W3C VC's subject is the DID.
func TestCheck204DID(t *testing.T) {
	i := plain(t)
	supported := i.object(t, residence)["cryptographic_binding_methods_supported"]
	if fmt.Sprint(supported) != "[jwk did:jwk did:key]" {
		t.Fatalf("binding methods %v", supported)
	}
	for _, id := range []string{pidSDJWT, mdl, residence} {
		for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA} {
			t.Run(id+" "+string(alg), func(t *testing.T) {
				s, k := i.session(t, id), newKey(t, alg)
				did := didJWK(t, k)
				credential := credentials(t, s.ask(t, request(id, i.proof(t, k, i.nonce(t), with(members{"jwk": nil, "kid": did + "#0"}, nil)))), 1)[0]
				i.verified(t, credential, &k)
				if id != residence {
					return
				}
				claims := payload(t, credential)
				vc, _ := claims["vc"].(members)
				subject, _ := vc["credentialSubject"].(members)
				if claims["sub"] != did || subject["id"] != did {
					t.Errorf("sub %v, credentialSubject.id %v", claims["sub"], subject["id"])
				}
			})
		}
	}
}

// object is a configuration's object in the metadata.
func (i *instance) object(t testing.TB, id string) members {
	t.Helper()
	a := i.operator(t, http.MethodGet, "/v1/openid/configurations/"+id, nil)
	object, _ := a.object(t)["metadata"].(members)
	if object == nil {
		t.Fatalf("%d %.300s", a.status, a.body)
	}
	return object
}

func TestCheck206Certificate(t *testing.T) {
	i := plain(t)
	for _, id := range []string{pidSDJWT, mdl, residence} {
		s, k := i.session(t, id), newKey(t, jose.ES256)
		i.verified(t, credentials(t, s.ask(t, request(id, i.proof(t, k, i.nonce(t), with(members{"jwk": nil, "x5c": chain(t, k)}, nil)))), 1)[0], &k)
	}
}

// One bad proof fails the whole request, wherever it stands.
func TestCheck209OneOfSeveralIsWrong(t *testing.T) {
	i := plain(t)
	s, nonce := i.session(t, pidSDJWT), i.nonce(t)
	a, b, c := newKey(t, jose.ES256), newKey(t, jose.EdDSA), newKey(t, jose.ES384)
	good := []string{i.proof(t, a, nonce, nil), i.proof(t, b, nonce, nil), i.proof(t, c, nonce, nil)}
	for place := range good {
		for _, bad := range []string{i.proof(t, newKey(t, jose.ES256), nonce, with(members{"jwk": newKey(t, jose.ES256).jwk()}, nil)), i.proof(t, newKey(t, jose.ES256), nonce, with(nil, members{"aud": "https://issuer.example"})), "", "x", "..", good[0] + "."} {
			proofs := append([]string(nil), good...)
			proofs[place] = bad
			refused(t, s.ask(t, request(pidSDJWT, proofs...)), http.StatusBadRequest, "invalid_proof")
		}
	}
	s.nothingIssued(t)
	// One with an unknown nonce does so, too.
	refused(t, s.ask(t, request(pidSDJWT, good[0], i.proof(t, b, "x", nil))), http.StatusBadRequest, "invalid_nonce")
	s.nothingIssued(t)
	credentials(t, s.ask(t, request(pidSDJWT, good...)), 3)
}

func TestCheck210TheSameKeyTwice(t *testing.T) {
	i := plain(t)
	s, k, nonce := i.session(t, pidSDJWT), newKey(t, jose.ES256), i.nonce(t)
	one := i.proof(t, k, nonce, nil)
	for name, proofs := range map[string][]string{
		"the same proof":   {one, one},
		"another proof":    {one, i.proof(t, k, i.nonce(t), nil)},
		"under a DID":      {one, i.proof(t, k, nonce, with(members{"jwk": nil, "kid": didJWK(t, k) + "#0"}, nil))},
		"in a certificate": {one, i.proof(t, k, nonce, with(members{"jwk": nil, "x5c": chain(t, k)}, nil))},
		"not side by side": {one, i.proof(t, newKey(t, jose.ES256), nonce, nil), one},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, s.ask(t, request(pidSDJWT, proofs...)), http.StatusBadRequest, "invalid_proof")
			s.nothingIssued(t)
		})
	}
}
