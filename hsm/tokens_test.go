package hsm

import (
	"slices"
	"testing"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

// product is a kind of token that the appliance must be able to live with, and
// what it cannot do.
type product struct {
	// cfg opens the token.
	cfg Config
	// algorithms are those that it makes keys for.
	algorithms []issuance.Algorithm
	// lacks tells which parts of the suite are left out, and why.
	lacks map[string]string
}

var every = []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512, issuance.EdDSA, Sealing}

// signing are the product's algorithms that sign.
func (p product) signing() []issuance.Algorithm {
	return slices.DeleteFunc(slices.Clone(p.algorithms), func(a issuance.Algorithm) bool { return a == Sealing })
}

// part is one part of the suite.
type part struct {
	name string
	test func(t *testing.T, p product)
}

// parts is the suite: what every token must do that the appliance is used with,
// and what must not happen whatever it does.
var parts = []part{
	{"keys", suiteKeys},
	{"attributes", suiteAttributes},
	{"sealing", suiteSealing},
	{"strangers", suiteStrangers},
	{"reopened", suiteReopened},
	{"evidence", suiteEvidence},
	{"a second opinion", suiteOpinion},
	{"keys made elsewhere", suiteElsewhere},
	{"what it cannot do", suiteCannot},
	{"two calls for each signature", suiteTwoCalls},
	{"never side by side", suiteSideBySide},
	{"faults heal inside", suiteHeals},
	{"bad signatures", suiteBadSignatures},
	{"session cap", suiteSessionCap},
	{"no session to be had", suiteNoSession},
	{"serial device", suiteSerial},
	{"gone and back", suiteGoneAndBack},
	{"one login a generation", suiteOneLogin},
	{"a refused PIN", suiteRefusedPIN},
}

// suite runs the parts that the product has.
func suite(t *testing.T, p product) {
	for what := range p.lacks {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == what }) {
			t.Errorf("there is no part %q to leave out", what)
		}
	}
	for _, part := range parts {
		if why, left := p.lacks[part.name]; left {
			t.Logf("left out: %s, because %s", part.name, why)
			continue
		}
		t.Run(part.name, func(t *testing.T) { part.test(t, p) })
	}
}

// TestSoftHSM is the token of demonstrations: it can do everything.
func TestSoftHSM(t *testing.T) {
	suite(t, product{cfg: config(t), algorithms: every})
}

// TestTPM is the second token, other people's work: tpm2-pkcs11 on a TPM, slow,
// serial, with 1024 sessions and a PIN that locks.
func TestTPM(t *testing.T) {
	if !hsmtest.UnderBus(t) {
		return
	}
	suite(t, product{
		cfg: tpmConfig(hsmtest.NewTPM(t)),
		// It gives P-521 points that are not DER.
		algorithms: []issuance.Algorithm{issuance.ES256, issuance.ES384},
		lacks: map[string]string{
			"sealing":             "tpm2-pkcs11 makes no AES keys and lists no AES-GCM",
			"keys made elsewhere": "crypto11 always speaks of verifying, and tpm2-pkcs11 then refuses to be told what the key may not do",
		},
	})
}

// TestRemote is SoftHSM behind another process, which p11-kit's client reaches
// over a socket.
func TestRemote(t *testing.T) {
	suite(t, product{
		cfg:        remoteConfig(hsmtest.NewRemote(t)),
		algorithms: []issuance.Algorithm{issuance.ES256, issuance.ES384, issuance.ES512},
		lacks:      map[string]string{"sealing": "p11-kit's protocol does not carry AES-GCM"},
	})
}
