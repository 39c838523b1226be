package conformance

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/veraison/go-cose"
)

// issuerSigned is a credential of format mso_mdoc, read by this test alone:
// ISO/IEC 18013-5 says how.
type issuerSigned struct {
	NameSpaces map[string][]cbor.RawMessage `cbor:"nameSpaces"`
	IssuerAuth cbor.RawMessage              `cbor:"issuerAuth"`

	object securityObject
	chain  []*x509.Certificate // x5chain
	// signature is raw, by alg.
	signature []byte
	alg       cose.Algorithm
}

type securityObject struct {
	Version         string                       `cbor:"version"`
	DigestAlgorithm string                       `cbor:"digestAlgorithm"`
	ValueDigests    map[string]map[uint64][]byte `cbor:"valueDigests"`
	DeviceKeyInfo   struct {
		DeviceKey cbor.RawMessage `cbor:"deviceKey"`
	} `cbor:"deviceKeyInfo"`
	DocType      string                 `cbor:"docType"`
	ValidityInfo map[string]cbor.RawTag `cbor:"validityInfo"`
	Status       any                    `cbor:"status"`
}

type signedItem struct {
	DigestID   uint64 `cbor:"digestID"`
	Random     []byte `cbor:"random"`
	Identifier string `cbor:"elementIdentifier"`
	Value      any    `cbor:"elementValue"`
}

// reader takes no member twice, none that it does not know, and nothing of
// indefinite length.
var reader = func() cbor.DecMode {
	mode, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func decode(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := reader.Unmarshal(data, into); err != nil {
		t.Fatalf("%T: %v", into, err)
	}
}

// embedded unwraps a byte string in tag 24.
func embedded(t testing.TB, data []byte) (inner []byte) {
	t.Helper()
	var tag cbor.RawTag
	decode(t, data, &tag)
	if tag.Number != 24 {
		t.Fatalf("tag %d, want 24", tag.Number)
	}
	decode(t, tag.Content, &inner)
	return inner
}

// readMdoc reads a credential and checks its signature with the first certificate
// of x5chain (checks 242, 246).
func readMdoc(t testing.TB, credential string) issuerSigned {
	t.Helper()
	data, err := base64.RawURLEncoding.Strict().DecodeString(credential)
	if err != nil {
		t.Fatal(err)
	}
	var d issuerSigned
	decode(t, data, &d)
	if d.IssuerAuth[0] != 0x84 { // an array of four, without tag 18 before it
		t.Fatalf("issuerAuth begins with %#x", d.IssuerAuth[0])
	}
	var message cose.UntaggedSign1Message
	if err := message.UnmarshalCBOR(d.IssuerAuth); err != nil {
		t.Fatal(err)
	}
	if len(message.Headers.Protected) != 1 || len(message.Headers.Unprotected) != 1 {
		t.Errorf("headers %v, %v: want alg, and x5chain unprotected", message.Headers.Protected, message.Headers.Unprotected)
	}
	switch value := message.Headers.Unprotected[cose.HeaderLabelX5Chain].(type) {
	case []byte: // one stands alone, several in an array (RFC 9360 §2)
		d.chain = []*x509.Certificate{certificate(t, value)}
	case []any:
		for _, element := range value {
			der, _ := element.([]byte)
			d.chain = append(d.chain, certificate(t, der))
		}
		if len(d.chain) < 2 {
			t.Errorf("an array of %d certificates", len(d.chain))
		}
	default:
		t.Fatalf("x5chain is a %T", value)
	}
	if d.alg, err = message.Headers.Protected.Algorithm(); err != nil {
		t.Fatal(err)
	}
	verifier, err := cose.NewVerifier(d.alg, d.chain[0].PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := message.Verify(nil, verifier); err != nil {
		t.Fatal(err)
	}
	d.signature = message.Signature
	decode(t, embedded(t, message.Payload), &d.object)
	return d
}

func certificate(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// date reads a member of validityInfo: a tdate in UTC without fractions.
func (d *issuerSigned) date(t testing.TB, member string) time.Time {
	t.Helper()
	tag, has := d.object.ValidityInfo[member]
	var text string
	if !has || tag.Number != 0 {
		t.Fatalf("%s: there %t, tag %d", member, has, tag.Number)
	}
	decode(t, tag.Content, &text)
	at, err := time.Parse("2006-01-02T15:04:05Z", text)
	if err != nil || len(text) != 20 { // Parse takes fractions that its layout has not
		t.Fatalf("%s %q: %v", member, text, err)
	}
	return at
}

// elements are the values by namespace and identifier.
func (d *issuerSigned) elements(t testing.TB) members {
	t.Helper()
	out := members{}
	for namespace, list := range d.NameSpaces {
		values := members{}
		for _, encoded := range list {
			var item signedItem
			decode(t, embedded(t, encoded), &item)
			values[item.Identifier] = item.Value
		}
		out[namespace] = values
	}
	return out
}

func TestCheck242To246Mdoc(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, id := range []string{mdl, pidMdoc} {
			for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA} {
				k := newKey(t, alg)
				d := readMdoc(t, i.one(t, id, k)) // checks 242
				check := func(what string, f func(t *testing.T)) { t.Run(fmt.Sprint(what, " ", name, " ", id, " ", alg), f) }
				check("242 security object", func(t *testing.T) {
					if d.object.Version != "1.0" || d.object.DigestAlgorithm != "SHA-256" || len(d.NameSpaces) == 0 {
						t.Errorf("version %q, digestAlgorithm %q", d.object.Version, d.object.DigestAlgorithm)
					}
				})
				check("243 docType and deviceKey", func(t *testing.T) {
					if want := i.metadata(t).Configurations[id].DocType; d.object.DocType != want || want == "" {
						t.Errorf("docType %q, want %q", d.object.DocType, want)
					}
					deviceKeyRule(t, d.object.DeviceKeyInfo.DeviceKey, k)
				})
				check("244 digests", func(t *testing.T) { d.itemRules(t) })
				check("245 validity", func(t *testing.T) {
					signed, from, until := d.date(t, "signed"), d.date(t, "validFrom"), d.date(t, "validUntil")
					if signed.After(from) || !from.Before(until) || from.After(time.Now()) || until.Before(time.Now()) {
						t.Errorf("%v %v %v", signed, from, until)
					}
					if leaf := d.chain[0]; signed.Before(leaf.NotBefore) || until.After(leaf.NotAfter) {
						t.Errorf("%v to %v, the certificate's %v to %v", signed, until, leaf.NotBefore, leaf.NotAfter)
					}
				})
				check("246 x5chain", func(t *testing.T) {
					i.chainRules(t, d.chain)
					for n, c := range d.chain {
						if c.IsCA && n == 0 {
							t.Error("the leaf is a CA")
						}
					}
				})
			}
		}
	}
}

// deviceKeyRule: the COSE_Key is the wallet's and has nothing beyond it (RFC 9053 §7).
func deviceKeyRule(t testing.TB, encoded []byte, k key) {
	t.Helper()
	var parameters map[int]any
	decode(t, encoded, &parameters)
	want := 4 // kty, crv, x, y
	if k.alg == jose.EdDSA {
		want = 3
	}
	if len(parameters) != want {
		t.Errorf("deviceKey %v", parameters)
	}
	var deviceKey cose.Key
	if err := deviceKey.UnmarshalCBOR(encoded); err != nil {
		t.Fatal(err)
	}
	public, err := deviceKey.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	bound, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if own, err := x509.MarshalPKIXPublicKey(k.private.Public()); err != nil || string(own) != string(bound) {
		t.Errorf("deviceKey %v is not the wallet's: %v", parameters, err)
	}
}

// itemRules: each item's digest is that of its bytes, tag 24 and all, and nothing
// random is there twice.
func (d *issuerSigned) itemRules(t testing.TB) {
	t.Helper()
	salts, items := map[string]bool{}, 0
	for namespace, list := range d.NameSpaces {
		ids, names := map[uint64]bool{}, map[string]bool{}
		for _, encoded := range list {
			var item signedItem
			decode(t, embedded(t, encoded), &item)
			sum := sha256.Sum256(encoded)
			if string(d.object.ValueDigests[namespace][item.DigestID]) != string(sum[:]) {
				t.Errorf("%s %s: another digest", namespace, item.Identifier)
			}
			if ids[item.DigestID] || names[item.Identifier] || salts[string(item.Random)] || len(item.Random) < 16 || item.DigestID >= 1<<31 {
				t.Errorf("%s %s: digestID %d, %d random bytes: not there before?", namespace, item.Identifier, item.DigestID, len(item.Random))
			}
			ids[item.DigestID], names[item.Identifier], salts[string(item.Random)] = true, true, true
			items++
		}
		digests := map[string]bool{}
		for _, digest := range d.object.ValueDigests[namespace] {
			if len(digest) != sha256.Size || digests[string(digest)] {
				t.Errorf("%s: a digest of %d bytes, or twice", namespace, len(digest))
			}
			digests[string(digest)] = true
		}
	}
	if items < 10 || len(d.object.ValueDigests) != len(d.NameSpaces) {
		t.Errorf("%d items, %d namespaces, digests of %d", items, len(d.NameSpaces), len(d.object.ValueDigests))
	}
}
