package encryption

import (
	"bytes"
	"crypto/elliptic"
	"testing"
)

// BenchmarkDecryptEncrypt reads an encrypted request of 2 KB and encrypts an
// answer of 8 KB, which is what encryption adds to one credential request.
func BenchmarkDecryptEncrypt(b *testing.B) {
	e := opened(b, all(), &memory{})
	for _, zips := range []bool{false, true} {
		public, header := to(b, e)
		plaintext, name := noise(2000), "plain"
		jwk := jwkOf(b, elliptic.P256())
		jwk["alg"], jwk["kid"] = "ECDH-ES", "k"
		response := map[string]any{"jwk": jwk, "enc": "A256GCM"}
		if zips {
			header["zip"], response["zip"] = "DEF", "DEF"
			plaintext, name = deflated(b, plaintext), "zip"
		}
		body := []byte(forge(b, public, header, plaintext))
		answer := bytes.Repeat([]byte("credential"), 800)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Decrypt(body); err != nil {
					b.Fatal(err)
				}
				r, err := e.ParseResponse(response)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := r.Encrypt(answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
