// Package issuancetest holds what the tests of the formats share: a software key
// for each algorithm in the place of the token's, signing inputs that no format
// package would prepare, a judge that is not ours, and the way to the vectors of
// others. It must not import jws, whose own tests import it.
package issuancetest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
)

// Algorithms are all that the appliance signs with.
var Algorithms = []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA}

// Key makes a key of the algorithm.
func Key(t testing.TB, a issuance.Algorithm) crypto.Signer {
	t.Helper()
	curve := map[issuance.Algorithm]elliptic.Curve{issuance.ES256: elliptic.P256(), issuance.ES384: elliptic.P384(), issuance.ES512: elliptic.P521()}[a]
	if curve == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Sign signs to-be-signed bytes as the token does: it hashes them itself and
// returns a raw signature. ECDSA nonces follow RFC 6979, so that signatures of
// vectors can be reproduced.
func Sign(t testing.TB, key crypto.Signer, tbs []byte) []byte {
	t.Helper()
	a, err := issuance.AlgorithmFor(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	message := tbs
	if a.Hash() != 0 {
		h := a.Hash().New()
		h.Write(tbs)
		message = h.Sum(nil)
	}
	signature, err := key.Sign(nil, message, a.Hash())
	if err != nil {
		t.Fatal(err)
	}
	if a == issuance.EdDSA {
		return signature
	}
	var points struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(signature, &points); err != nil || len(rest) > 0 {
		t.Fatalf("signature: %v", err)
	}
	raw := make([]byte, a.SignatureSize())
	points.R.FillBytes(raw[:len(raw)/2])
	points.S.FillBytes(raw[len(raw)/2:])
	return raw
}

// members are the header members that a signing input can be given, in the order
// in which the signer writes the ones that it knows.
var members = []string{"alg", "typ", "kid", "x5c", "jwk", "jku", "crit"}

// SigningInput makes a JWS signing input of any header and payload, also of one
// that must be refused. The header's members stand in the order of members.
func SigningInput(t testing.TB, header, payload map[string]any) []byte {
	t.Helper()
	for name := range header {
		if !slices.Contains(members, name) {
			t.Fatalf("the header member %q has no place in the order", name)
		}
	}
	text := []byte("{")
	for _, name := range members {
		value, has := header[name]
		if !has {
			continue
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(append(text, `"`+name+`":`...), marshal(t, value)...)
	}
	b64 := base64.RawURLEncoding
	return []byte(b64.EncodeToString(append(text, '}')) + "." + b64.EncodeToString(marshal(t, payload)))
}

// marshal writes JSON without HTML's escapes.
func marshal(t testing.TB, value any) []byte {
	t.Helper()
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Judge has go-jose read a compact JWS of this algorithm alone and verify it
// under the key, and returns what it read.
func Judge(t testing.TB, a issuance.Algorithm, public crypto.PublicKey, compact string) *jose.JSONWebSignature {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(a)})
	if err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	if _, err := signed.Verify(public); err != nil {
		t.Fatalf("%s: go-jose does not verify it: %v", a, err)
	}
	return signed
}

// Vector returns a file of the shared vectors, which lie beside the repository.
// Where they do not, the test says so and is left out.
func Vector(t testing.TB, name ...string) []byte {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	data, err := os.ReadFile(filepath.Join(append([]string{dir, "..", "shared", "specs", "vectors"}, name...)...))
	if err != nil {
		t.Skipf("left out: the shared vectors are not on this machine (%v)", err)
	}
	return data
}
