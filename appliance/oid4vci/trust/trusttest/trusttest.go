// Package trusttest makes what tests of the wallet-facing side need of others:
// tokens signed by another library, certificate authorities and their chains.
package trusttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/issuance"
	"chancery/issuance/jws"
)

// Now is the time that chains are made for.
var Now = time.Unix(1_800_000_000, 0)

// Token signs claims with go-jose; the key says the algorithm.
func Token(t testing.TB, key crypto.Signer, header map[string]any, claims any) string {
	t.Helper()
	algorithm, err := issuance.AlgorithmFor(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return TokenWith(t, jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, header, claims)
}

// TokenWith signs claims with any key and algorithm of go-jose's.
func TokenWith(t testing.TB, key jose.SigningKey, header map[string]any, claims any) string {
	t.Helper()
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{}}
	for name, value := range header {
		o.ExtraHeaders[jose.HeaderKey(name)] = value
	}
	signer, err := jose.NewSigner(key, o)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// Unsigned is a token of alg none.
func Unsigned(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	encode := func(v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b64(data)
	}
	return encode(With(header, "alg", "none")) + "." + encode(claims) + "."
}

// JWK is a public key as a decoded JWK.
func JWK(t testing.TB, public crypto.PublicKey) map[string]any {
	t.Helper()
	data, err := jws.PublicJWK(public)
	if err != nil {
		t.Fatal(err)
	}
	members, err := jws.Object(data)
	if err != nil {
		t.Fatal(err)
	}
	return members
}

// With returns a copy of members with one of them changed; nil leaves it out.
func With(members map[string]any, name string, value any) map[string]any {
	out := map[string]any{}
	for n, v := range members {
		out[n] = v
	}
	if out[name] = value; value == nil {
		delete(out, name)
	}
	return out
}

// Certificate is a certificate and its key.
type Certificate struct {
	*x509.Certificate
	Key crypto.Signer
}

// Root makes a self-signed CA.
func Root(t testing.TB, name string) Certificate {
	t.Helper()
	return make509(t, name, nil, authority)
}

// Authority makes an intermediate CA.
func (c Certificate) Authority(t testing.TB, name string) Certificate {
	t.Helper()
	return make509(t, name, &c, authority)
}

// Leaf makes a signing certificate; change may be nil.
func (c Certificate) Leaf(t testing.TB, name string, change func(*x509.Certificate)) Certificate {
	t.Helper()
	return make509(t, name, &c, change)
}

// SelfSigned makes a signing certificate that no CA has issued.
func SelfSigned(t testing.TB, name string) Certificate {
	t.Helper()
	return make509(t, name, nil, nil)
}

func authority(c *x509.Certificate) {
	c.BasicConstraintsValid, c.IsCA, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
}

func make509(t testing.TB, name string, issuer *Certificate, change func(*x509.Certificate)) Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: Now.Add(-24 * time.Hour), NotAfter: Now.Add(365 * 24 * time.Hour), BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return Certificate{made, key}
}

// X5C is certificates as an x5c header, leaf first.
func X5C(chain ...Certificate) []string {
	out := make([]string, len(chain))
	for n, c := range chain {
		out[n] = base64.StdEncoding.EncodeToString(c.Raw)
	}
	return out
}
