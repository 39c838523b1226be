package conformance

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// iaca is the anchor that verifiers have from the issuer.
func (i *instance) iaca(t testing.TB) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(i.env["IACA_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("the IACA's file is no PEM")
	}
	anchor, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return anchor
}

// readSigned checks the signature of signed metadata with the key of its x5c
// header's leaf, which must lead to the IACA (checks 055, 056).
func (i *instance) readSigned(t testing.TB, compact string) signedForm {
	t.Helper()
	signed, err := jose.ParseSignedCompact(compact, asymmetric)
	if err != nil {
		t.Fatal(err)
	}
	s := signedForm{compact: compact}
	header, err := base64.RawURLEncoding.DecodeString(compact[:strings.IndexByte(compact, '.')])
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		X5C []string `json:"x5c"`
	}
	if json.Unmarshal(header, &parsed) != nil || json.Unmarshal(header, &s.header) != nil {
		t.Fatalf("header %s", header)
	}
	s.x5c = parsed.X5C
	roots := x509.NewCertPool()
	roots.AddCert(i.iaca(t))
	chains, err := signed.Signatures[0].Header.Certificates(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		t.Fatalf("x5c: %v", err)
	}
	content, err := signed.Verify(chains[0][0].PublicKey)
	if err != nil {
		t.Fatalf("the signature: %v", err)
	}
	if err := json.Unmarshal(content, &s.payload); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCheckSignedMetadata is of each instance that signs.
func TestCheckSignedMetadata(t *testing.T) {
	for name, i := range everywhere(t) {
		s := i.signedMetadata(t)
		t.Run("052 header "+name, func(t *testing.T) {
			if s.header["typ"] != "openidvci-issuer-metadata+jwt" || s.header["alg"] != "ES256" || s.header["x5c"] == nil || len(s.header) > 4 {
				t.Errorf("%v", s.header)
			}
			for _, key := range []string{"jwk", "jku", "x5u", "crit"} {
				if s.header[key] != nil {
					t.Errorf("%s in the header", key)
				}
			}
		})
		t.Run("053 payload "+name, func(t *testing.T) {
			iat, ok := s.payload["iat"].(float64)
			if s.payload["sub"] != i.issuer || !ok || iat != float64(int64(iat)) || time.Unix(int64(iat), 0).After(time.Now().Add(time.Minute)) {
				t.Errorf("sub %v, iat %v", s.payload["sub"], s.payload["iat"])
			}
		})
		t.Run("054 the JSON form "+name, func(t *testing.T) {
			want := i.metadata(t).all
			got := map[string]any{}
			for member, v := range s.payload {
				if member != "iss" && member != "sub" && member != "iat" && member != "exp" {
					got[member] = v
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s\n%s", marshal(t, got), marshal(t, want))
			}
		})
		t.Run("055 chain "+name, func(t *testing.T) { chainRule(t, i, s.x5c) })
		t.Run("056 signature "+name, func(t *testing.T) {
			// readSigned has verified it with the leaf; one bit of it, or of what is
			// signed, and it does not verify.
			leaf, err := base64.StdEncoding.DecodeString(s.x5c[0])
			if err != nil {
				t.Fatal(err)
			}
			c, err := x509.ParseCertificate(leaf)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(s.compact, ".")
			for n, part := range parts[1:] {
				data, err := base64.RawURLEncoding.DecodeString(part)
				if err != nil {
					t.Fatal(err)
				}
				data[len(data)/2] ^= 1
				changed := append([]string{}, parts...)
				changed[n+1] = base64.RawURLEncoding.EncodeToString(data)
				signed, err := jose.ParseSignedCompact(strings.Join(changed, "."), asymmetric)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := signed.Verify(c.PublicKey); err == nil {
					t.Error("what was changed verifies")
				}
			}
		})
		t.Run("057 expiry "+name, func(t *testing.T) {
			exp, ok := s.payload["exp"].(float64)
			iat, _ := s.payload["iat"].(float64)
			left := time.Until(time.Unix(int64(exp), 0))
			// More than the minute that caches may keep it.
			if !ok || left < time.Minute || time.Duration(exp-iat)*time.Second > signedFor {
				t.Errorf("exp %v, %v left", s.payload["exp"], left)
			}
		})
	}
}

// chainRule is HAIP's: standard base64, leaf first, the anchor not inside, no
// certificate in it that is self-signed.
func chainRule(t testing.TB, i *instance, x5c []string) {
	t.Helper()
	anchor := i.iaca(t)
	var chain []*x509.Certificate
	for n, text := range x5c {
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			t.Fatalf("x5c[%d]: %v", n, err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatalf("x5c[%d]: %v", n, err)
		}
		if c.Equal(anchor) || c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			t.Errorf("x5c[%d], %s, is an anchor", n, c.Subject)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 || chain[0].IsCA {
		t.Fatalf("%d certificates, leaf first", len(chain))
	}
	for n, c := range chain {
		issuer := anchor
		if n+1 < len(chain) {
			issuer = chain[n+1]
		}
		if err := c.CheckSignatureFrom(issuer); err != nil {
			t.Errorf("x5c[%d] is not under %s: %v", n, issuer.Subject, err)
		}
	}
}
