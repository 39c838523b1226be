package conformance

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"math/big"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func base64url(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// offCurve is a point that is not on P-256, as a JWK's x and y.
func offCurve(t testing.TB) (x, y string) {
	t.Helper()
	k := newKey(t, jose.ES256).members(t)
	data, err := base64.RawURLEncoding.DecodeString(k["y"].(string))
	if err != nil {
		t.Fatal(err)
	}
	// The points with this x have y and p-y; as p is odd, y+2 is neither.
	moved := new(big.Int).Add(new(big.Int).SetBytes(data), big.NewInt(2))
	return k["x"].(string), base64url(moved.FillBytes(make([]byte, 33))[1:])
}

// deflated compresses with DEFLATE (RFC 1951).
func deflated(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// mayGrow is by how much the daemon's memory may grow over hostile requests, in
// KiB: far less than they would take if they were kept whole or inflated.
const mayGrow = 32 << 10

// bounded demands that the daemon's peak memory stays within limit KiB of what it
// had while something is done to it.
func (i *instance) bounded(t *testing.T, limit int, do func()) {
	t.Helper()
	i.forgetPeak(t)
	before := i.peak(t)
	do()
	if grown := i.peak(t) - before; grown > limit {
		t.Errorf("the memory grew from %d to %d KiB", before, before+grown)
	} else {
		t.Logf("from %d KiB by %d KiB", before, grown)
	}
}
