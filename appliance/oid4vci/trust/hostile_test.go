package trust

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// named makes a certificate of any name that claims any issuer; all but "Leaf" are CAs.
func named(t *testing.T, subject, issuer string, public crypto.PublicKey, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: subject}, IsCA: subject != "Leaf", BasicConstraintsValid: true,
		NotBefore: trusttest.Now.Add(-time.Hour), NotAfter: trusttest.Now.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// A stranger's chain costs a signature check for each of its names at most: eight
// CAs of one name, each signed by the next one's key, are not tried with each other.
func TestAPathHasEachNameOnce(t *testing.T) {
	root := trusttest.Root(t, "Root")
	ca := root.Authority(t, "CA")
	keys := make([]crypto.Signer, 8)
	for n := range keys {
		keys[n] = issuancetest.Key(t, issuance.ES512)
	}
	chain := []*x509.Certificate{ca.Leaf(t, "Leaf", nil).Certificate}
	for n := range 6 {
		chain = append(chain, named(t, "CA", "CA", keys[n].Public(), keys[n+1]))
	}
	chain = append(chain, ca.Certificate) // a real one that anybody has seen
	path, ok := pathOf(chain)
	if !ok || len(path) != 2 || path[1] != chain[1] {
		t.Errorf("%d certificates, %v", len(path), ok)
	}
	p := providers(t, Provider{Name: "P", Anchors: []*x509.Certificate{root.Certificate}, RequireChain: true})
	if _, err := p.byChain(chain, trusttest.Now); err != ErrUntrusted {
		t.Error(err)
	}
	good := []*x509.Certificate{chain[0], ca.Certificate}
	if path, ok := pathOf(good); !ok || len(path) != 2 {
		t.Errorf("%d certificates, %v", len(path), ok)
	}
	if !p.list[0].issued(ca.Certificate) || p.list[0].issued(chain[1]) || p.list[0].issued(named(t, "CA", "Root", keys[0].Public(), keys[1])) {
		t.Error("who issued the top of a path is not told rightly")
	}
}

// An RSA key's length is what a check of its signatures costs.
func TestALongRSAKeyIsNotUsed(t *testing.T) {
	root := trusttest.Root(t, "Root")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	leaf := named(t, "Leaf", "CA", issuancetest.Key(t, issuance.ES256).Public(), key)
	p := providers(t, Provider{Name: "P", Anchors: []*x509.Certificate{root.Certificate}, RequireChain: true})
	if _, err := p.byChain([]*x509.Certificate{leaf, named(t, "CA", "Root", key.Public(), root.Key)}, trusttest.Now); err != nil {
		t.Errorf("2048 bits: %v", err)
	}
	for bits, want := range map[uint]bool{maxRSA: true, maxRSA + 1: false} {
		long := new(big.Int).Lsh(big.NewInt(1), bits-1) // any number will do
		long.Or(long, big.NewInt(1))
		_, ok := pathOf([]*x509.Certificate{leaf, named(t, "CA", "Root", &rsa.PublicKey{N: long, E: 65537}, root.Key)})
		if ok != want {
			t.Errorf("%d bits: %v", bits, ok)
		}
	}
}
