package conformance

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/mr-tron/base58"
)

// didKey is a key's did:key (did:key §3.1: multicodec and key in base58btc).
func didKey(t testing.TB, k key) string {
	t.Helper()
	var data []byte
	switch public := k.private.Public().(type) {
	case ed25519.PublicKey:
		data = append([]byte{0xed, 0x01}, public...)
	case *ecdsa.PublicKey:
		code := byte(0x80)
		if public.Curve == elliptic.P384() {
			code = 0x81
		}
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			t.Fatal(err)
		}
		data = append([]byte{code, 0x24, 2 + point[len(point)-1]&1}, point[1:1+len(point)/2]...)
	}
	return "did:key:z" + base58.Encode(data)
}

// method is a DID URL for a DID's only key.
func method(did string) string {
	if multibase, found := strings.CutPrefix(did, "did:key:"); found {
		return did + "#" + multibase
	}
	return did + "#0"
}

// presentation is a di_vp key proof (OpenID4VCI 1.0 App. F.2). c may change
// presentation and proof before they are signed.
func (i *instance) presentation(t testing.TB, k key, did, nonce string, c change) members {
	t.Helper()
	context := []string{"https://www.w3.org/ns/credentials/v2"}
	vp := members{"@context": context, "type": []string{"VerifiablePresentation"}, "holder": did}
	suite := "ecdsa-jcs-2019"
	if k.alg == jose.EdDSA {
		suite = "eddsa-jcs-2022"
	}
	proof := members{"@context": context, "type": "DataIntegrityProof", "cryptosuite": suite, "created": time.Now().UTC().Format(time.RFC3339),
		"verificationMethod": method(did), "proofPurpose": "authentication", "domain": i.issuer, "challenge": nonce}
	if c != nil {
		c(vp, proof)
	}
	for _, m := range []members{vp, proof} {
		maps.DeleteFunc(m, func(_ string, value any) bool { return value == nil })
	}
	proof["proofValue"] = "z" + base58.Encode(integrity(t, k, vp, proof))
	vp["proof"] = proof
	return vp
}

// integrity signs the proof's hash and the document's. All names are ASCII and no
// number is in them, so that package json writes the canonical form of RFC 8785.
func integrity(t testing.TB, k key, document, proof members) []byte {
	t.Helper()
	hash := func(data []byte) []byte { sum := sha256.Sum256(data); return sum[:] }
	if k.alg == jose.ES384 {
		hash = func(data []byte) []byte { sum := sha512.Sum384(data); return sum[:] }
	}
	message := append(hash(marshal(t, proof)), hash(marshal(t, document))...)
	private, isEC := k.private.(*ecdsa.PrivateKey)
	if !isEC {
		return ed25519.Sign(k.private.(ed25519.PrivateKey), message)
	}
	r, s, err := ecdsa.Sign(rand.Reader, private, hash(message))
	if err != nil {
		t.Fatal(err)
	}
	size := private.Params().BitSize / 8
	return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
}

// presented is a request with presentations.
func presented(id string, presentations ...members) members {
	return members{"credential_configuration_id": id, "proofs": members{"di_vp": presentations}}
}

// Right presentations get credentials, bound to their key and, in a W3C VC, to
// their DID.
func TestCheck229And230RightPresentations(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, id := range []string{byProof, residence} {
			for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA} {
				for kind, didOf := range map[string]func(testing.TB, key) string{"did:jwk": didJWK, "did:key": didKey} {
					t.Run(fmt.Sprint(name, " ", id, " ", alg, " ", kind), func(t *testing.T) {
						s, k := i.session(t, id), newKey(t, alg)
						did := didOf(t, k)
						credential := credentials(t, s.ask(t, presented(id, i.presentation(t, k, did, i.nonce(t), nil))), 1)[0]
						i.verified(t, credential, &k)
						if id == residence && payload(t, credential)["sub"] != did {
							t.Errorf("sub %v, want %s", payload(t, credential)["sub"], did)
						}
					})
				}
			}
		}
	}
	i := plain(t)
	for name, c := range map[string]change{
		"230 no holder":                    with(members{"holder": nil}, nil),
		"230 holder an object":             func(vp, _ members) { vp["holder"] = members{"id": vp["holder"]} },
		"229 no context in the proof":      with(nil, members{"@context": nil}),
		"229 domain in an array":           with(nil, members{"domain": []string{i.issuer}}),
		"229 no created":                   with(nil, members{"created": nil}),
		"229 unknown members":              with(members{"urn:x": "y"}, members{"urn:x": "y"}),
		"229 the first data model":         with(members{"@context": []string{"https://www.w3.org/2018/credentials/v1"}}, members{"@context": nil}),
		"229 one type, not in an array":    with(members{"type": "VerifiablePresentation"}, nil),
		"229 further contexts after those": with(members{"@context": []string{"https://www.w3.org/ns/credentials/v2", "https://wallet.example/context"}}, members{"@context": nil}),
	} {
		t.Run(name, func(t *testing.T) {
			s, k := i.session(t, byProof), newKey(t, jose.ES256)
			i.verified(t, credentials(t, s.ask(t, presented(byProof, i.presentation(t, k, didJWK(t, k), i.nonce(t), c))), 1)[0], &k)
		})
	}
	t.Run("229 two of them", func(t *testing.T) {
		s, a, b, nonce := i.session(t, byProof), newKey(t, jose.ES256), newKey(t, jose.EdDSA), i.nonce(t)
		list := credentials(t, s.ask(t, presented(byProof, i.presentation(t, a, didJWK(t, a), nonce, nil), i.presentation(t, b, didKey(t, b), nonce, nil))), 2)
		i.verified(t, list[0], &a)
		i.verified(t, list[1], &b)
	})
}

// wrongPresentation changes what is signed, or what was.
type wrongPresentation struct {
	before func(t testing.TB, i *instance, k key) change
	after  func(t testing.TB, vp, proof members)
	code   string // "" for invalid_proof
}

func before(vp, proof members) wrongPresentation {
	return wrongPresentation{before: func(testing.TB, *instance, key) change { return with(vp, proof) }}
}

func wrongPresentations() map[string]wrongPresentation {
	challenge := before(nil, members{"challenge": "VGhpcyBub25jZSBpcyBub25lIG9mIHRoZSBpc3N1ZXIncw"})
	challenge.code = "invalid_nonce"
	return map[string]wrongPresentation{
		"229 domain of another issuer": before(nil, members{"domain": "https://issuer.example"}),
		"229 no domain":                before(nil, members{"domain": nil}),
		"229 domain with a slash": {before: func(_ testing.TB, i *instance, _ key) change {
			return with(nil, members{"domain": i.issuer + "/"})
		}},
		"229 two domains": {before: func(_ testing.TB, i *instance, _ key) change {
			return with(nil, members{"domain": []string{i.issuer, "https://issuer.example"}})
		}},
		"229 a random challenge":               challenge,
		"229 no challenge":                     before(nil, members{"challenge": nil}),
		"229 proofPurpose assertionMethod":     before(nil, members{"proofPurpose": "assertionMethod"}),
		"229 no proofPurpose":                  before(nil, members{"proofPurpose": nil}),
		"229 cryptosuite ecdsa-rdfc-2019":      before(nil, members{"cryptosuite": "ecdsa-rdfc-2019"}),
		"229 cryptosuite of another key":       before(nil, members{"cryptosuite": "eddsa-jcs-2022"}),
		"229 no cryptosuite":                   before(nil, members{"cryptosuite": nil}),
		"229 proof of another type":            before(nil, members{"type": "Ed25519Signature2020"}),
		"229 made an hour ago":                 before(nil, members{"created": time.Now().UTC().Add(-time.Hour).Format(time.RFC3339)}),
		"229 made in ten minutes":              before(nil, members{"created": time.Now().UTC().Add(10 * time.Minute).Format(time.RFC3339)}),
		"229 expired":                          before(nil, members{"expires": time.Now().UTC().Add(-10 * time.Minute).Format(time.RFC3339)}),
		"229 no verificationMethod":            before(nil, members{"verificationMethod": nil}),
		"229 verificationMethod of did:web":    before(nil, members{"verificationMethod": "did:web:localhost#0"}),
		"229 another type":                     before(members{"type": []string{"VerifiableCredential"}}, nil),
		"229 no context":                       before(members{"@context": nil}, members{"@context": nil}),
		"229 a context that is not the base's": before(members{"@context": []string{"https://wallet.example/context"}}, members{"@context": nil}),
		"229 signed by another key": {before: func(t testing.TB, _ *instance, _ key) change {
			other := didJWK(t, newKey(t, jose.ES256))
			return with(members{"holder": other}, members{"verificationMethod": method(other)})
		}},
		"229 another document":      {after: func(_ testing.TB, vp, _ members) { vp["urn:x"] = "y" }},
		"229 another option":        {after: func(_ testing.TB, _, proof members) { proof["nonce"] = "y" }},
		"229 no proofValue":         {after: func(_ testing.TB, _, proof members) { delete(proof, "proofValue") }},
		"229 proofValue in another": {after: func(_ testing.TB, _, proof members) { proof["proofValue"] = "u" + proof["proofValue"].(string)[1:] }},
		"229 no proof":              {after: func(_ testing.TB, vp, _ members) { delete(vp, "proof") }},
		"229 proof a text":          {after: func(_ testing.TB, vp, _ members) { vp["proof"] = "z" }},
		"230 holder another DID": {before: func(t testing.TB, _ *instance, _ key) change {
			return with(members{"holder": didJWK(t, newKey(t, jose.ES256))}, nil)
		}},
		"230 holder the key's other DID": {before: func(t testing.TB, _ *instance, k key) change { return with(members{"holder": didKey(t, k)}, nil) }},
		"230 holder the key, not its controller": {before: func(t testing.TB, _ *instance, k key) change {
			return with(members{"holder": method(didJWK(t, k))}, nil)
		}},
		"230 holder empty": before(members{"holder": ""}, nil),
		"230 holder an object of another": {before: func(t testing.TB, _ *instance, _ key) change {
			return with(members{"holder": members{"id": didJWK(t, newKey(t, jose.ES256))}}, nil)
		}},
	}
}

func TestCheck229And230WrongPresentations(t *testing.T) {
	i := plain(t)
	s := i.session(t, byProof)
	all := wrongPresentations()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		w := all[name]
		t.Run(name, func(t *testing.T) {
			k, c, code := newKey(t, jose.ES256), change(nil), w.code
			if w.before != nil {
				c = w.before(t, i, k)
			}
			vp := i.presentation(t, k, didJWK(t, k), i.nonce(t), c)
			if w.after != nil {
				w.after(t, vp, vp["proof"].(members))
			}
			if code == "" {
				code = "invalid_proof"
			}
			refused(t, s.ask(t, presented(byProof, vp)), http.StatusBadRequest, code)
		})
	}
	s.nothingIssued(t)
	k := newKey(t, jose.ES256)
	i.verified(t, credentials(t, s.ask(t, presented(byProof, i.presentation(t, k, didJWK(t, k), i.nonce(t), nil))), 1)[0], &k)
}

// A presentation is an object; and what the configuration does not list is not taken.
func TestCheck229NotListed(t *testing.T) {
	i := plain(t)
	s, k := i.session(t, byProof), newKey(t, jose.ES256)
	text := string(marshal(t, i.presentation(t, k, didJWK(t, k), i.nonce(t), nil)))
	refused(t, s.ask(t, members{"credential_configuration_id": byProof, "proofs": members{"di_vp": []any{text}}}), http.StatusBadRequest, "invalid_credential_request")
	s.nothingIssued(t)
	s = i.session(t, pidSDJWT)
	refused(t, s.ask(t, presented(pidSDJWT, i.presentation(t, k, didJWK(t, k), i.nonce(t), nil))), http.StatusBadRequest, "invalid_credential_request", "invalid_proof")
	s.nothingIssued(t)
}
