// Package issuancetest holds what the tests of the formats share: a software key
// for each algorithm in the place of the token's, and the way to the vectors of
// others.
package issuancetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"testing"

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
