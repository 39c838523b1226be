package verifier

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

// A flipped bit in any byte of a golden credential is noticed, and the verifier
// says so without falling over.
func TestFlippedBytesOfGoldenCredentials(t *testing.T) {
	o := goldenOptions(t)
	for _, g := range goldenSet(t) {
		raw, err := base64.RawURLEncoding.DecodeString(g.Credential)
		if err != nil {
			t.Fatal(err)
		}
		step := 1
		if g.Alg == "ES384" {
			step = 5 // P-384 is slow; the rest of the bytes are of the same kinds
		}
		t.Run(g.Name, func(t *testing.T) {
			t.Parallel()
			for i := 0; i < len(raw); i += step {
				mutant := bytes.Clone(raw)
				mutant[i] ^= 1 << (i % 8)
				if r, err := Verify(t.Context(), mutant, o); err == nil && r.Verified {
					t.Errorf("verified with byte %d flipped", i)
				}
			}
		})
	}
}

// Every character of the text form counts, too, and so does its case.
func TestChangedCharactersOfAGoldenCredential(t *testing.T) {
	o := goldenOptions(t)
	text := []byte(goldenSet(t)[3].Credential)
	for i := range text {
		for _, flip := range []byte{1, 0x20} {
			mutant := bytes.Clone(text)
			mutant[i] ^= flip
			if r, err := Verify(t.Context(), mutant, o); err == nil && r.Verified {
				t.Errorf("verified with character %d changed", i)
			}
		}
	}
}

// Any number of random changes, cuts and doublings is noticed.
func TestMangledGoldenCredential(t *testing.T) {
	o := goldenOptions(t)
	raw, err := base64.RawURLEncoding.DecodeString(goldenSet(t)[3].Credential)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		mutant := bytes.Clone(raw)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			at := rapid.IntRange(0, len(mutant)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				mutant[at] = rapid.Byte().Draw(t, "byte")
			case 1:
				mutant = slices.Delete(mutant, at, at+1)
			case 2:
				mutant = slices.Insert(mutant, at, mutant[at])
			}
		}
		if r, err := Verify(t.Context(), mutant, o); err == nil && r.Verified && !bytes.Equal(mutant, raw) {
			t.Fatalf("verified although changed")
		}
	})
}

// sample is an mdoc in parts, encoded by the test's own few lines.
type sample struct {
	items      map[string][]map[string]any
	digests    map[string]map[uint64][]byte // nil: computed
	version    string
	algorithm  string
	docType    string
	validity   map[string]any
	deviceKey  any
	status     any
	protected  map[any]any
	chain      any
	tag        bool // wrap the COSE_Sign1 in tag 18
	bare       bool // leave out tag 24 around the payload
	key        *ecdsa.PrivateKey
	extraParts int
}

func date(text string) any { return cbor.Tag{Number: 0, Content: text} }

func goldenKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "credentials.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		D string `json:"dsPrivateKey_P256_d"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), fromHex(t, []byte(file.D)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func goldenSigner(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "ds.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, data).Raw
}

func goldenRoot(t testing.TB) []byte { return goldenOptions(t).Anchors[0].Raw }

// newSample is a flawless age attestation with two elements.
func newSample(t testing.TB) *sample {
	x, y := coordinates(goldenKey(t))
	item := func(id uint64, name string, value any) map[string]any {
		salt := sha256.Sum256([]byte(name))
		return map[string]any{"digestID": id, "random": salt[:], "elementIdentifier": name, "elementValue": value}
	}
	return &sample{
		items:   map[string][]map[string]any{"eu.europa.ec.av.1": {item(0, "age_over_18", true), item(1, "issuing_country", "UT")}},
		version: "1.0", algorithm: "SHA-256", docType: "eu.europa.ec.av.1",
		validity:  map[string]any{"signed": date("2026-11-23T00:00:00Z"), "validFrom": date("2026-11-23T00:00:00Z"), "validUntil": date("2026-12-01T00:00:00Z")},
		deviceKey: map[int64]any{1: 2, -1: 1, -2: x, -3: y},
		protected: map[any]any{1: -7}, chain: goldenSigner(t), key: goldenKey(t),
	}
}

func coordinates(key *ecdsa.PrivateKey) (x, y []byte) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return point[1:33], point[33:]
}

func encode(value any) []byte {
	data, err := cbor.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}

func embedded(value any) cbor.RawMessage { return encode(cbor.Tag{Number: 24, Content: encode(value)}) }

// build signs the sample.
func (s *sample) build() []byte {
	namespaces := map[string][]cbor.RawMessage{}
	digests := map[string]map[uint64][]byte{}
	for name, items := range s.items {
		digests[name] = map[uint64][]byte{}
		for _, item := range items {
			sent := embedded(item)
			namespaces[name] = append(namespaces[name], sent)
			sum := sha256.Sum256(sent)
			id, _ := item["digestID"].(uint64)
			digests[name][id] = sum[:]
		}
	}
	if s.digests != nil {
		digests = s.digests
	}
	object := map[string]any{"version": s.version, "digestAlgorithm": s.algorithm, "valueDigests": digests,
		"deviceKeyInfo": map[string]any{"deviceKey": s.deviceKey}, "docType": s.docType, "validityInfo": s.validity}
	if s.status != nil {
		object["status"] = s.status
	}
	payload := []byte(embedded(object))
	if s.bare {
		payload = encode(object)
	}
	protected := encode(s.protected)
	digest := sha256.Sum256(encode([]any{"Signature1", protected, []byte{}, payload}))
	r, w, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		panic(err)
	}
	signature := slices.Concat(r.FillBytes(make([]byte, 32)), w.FillBytes(make([]byte, 32)))
	unprotected := map[any]any{}
	if s.chain != nil {
		unprotected[33] = s.chain
	}
	parts := []any{protected, unprotected, payload, signature}
	for range s.extraParts {
		parts = append(parts, nil)
	}
	var auth any = parts
	if s.tag {
		auth = cbor.Tag{Number: 18, Content: parts}
	}
	return encode(map[string]any{"nameSpaces": namespaces, "issuerAuth": auth})
}

func TestSampleIsFlawless(t *testing.T) {
	r := verify(t, newSample(t).build(), goldenOptions(t))
	expectVerified(t, r)
}

// One defect each: the check that is named must fail, whatever else does.
func TestMdocWithOneDefect(t *testing.T) {
	first := func(s *sample) map[string]any { return s.items["eu.europa.ec.av.1"][0] }
	for _, c := range []struct {
		name, check string
		spoil       func(*sample)
	}{
		{"COSE tag 18", checkEncoding, func(s *sample) { s.tag = true }},
		{"five parts", checkEncoding, func(s *sample) { s.extraParts = 1 }},
		{"payload without tag 24", checkEncoding, func(s *sample) { s.bare = true }},
		{"no alg", checkEncoding, func(s *sample) { s.protected = map[any]any{} }},
		{"critical header", checkEncoding, func(s *sample) { s.protected[2] = []int{99} }},
		{"x5chain protected only", checkEncoding, func(s *sample) { s.protected[33] = s.chain; s.chain = nil }},
		{"x5chain in both headers", checkEncoding, func(s *sample) { s.protected[33] = s.chain }},
		{"x5chain array of one", checkEncoding, func(s *sample) { s.chain = [][]byte{s.chain.([]byte)} }},
		{"x5chain is text", checkEncoding, func(s *sample) { s.chain = "chain" }},
		{"x5chain is no certificate", "certificates", func(s *sample) { s.chain = []byte("chain") }},
		{"root in the chain", "chain without anchor", func(s *sample) { s.chain = [][]byte{s.chain.([]byte), goldenRoot(t)} }},
		{"self-signed signer", "chain without anchor", func(s *sample) { s.chain = goldenRoot(t) }},
		{"root as signer", "document signer certificate", func(s *sample) { s.chain = goldenRoot(t) }},
		{"other alg than the key's", checkSignature, func(s *sample) { s.protected = map[any]any{1: -35} }},
		{"fully specified alg", checkSignature, func(s *sample) { s.protected = map[any]any{1: -9} }},
		{"other key", checkSignature, func(s *sample) { s.key = otherKey(t) }},
		{"version", "mobile security object", func(s *sample) { s.version = "1.1" }},
		{"digest algorithm", "mobile security object", func(s *sample) { s.algorithm = "SHA-1" }},
		{"no docType", "mobile security object", func(s *sample) { s.docType = "" }},
		{"no digests", "mobile security object", func(s *sample) { s.digests = map[string]map[uint64][]byte{} }},
		{"wrong digest", checkDigests, func(s *sample) {
			s.digests = map[string]map[uint64][]byte{"eu.europa.ec.av.1": {0: make([]byte, 32), 1: make([]byte, 32)}}
		}},
		{"short digest", checkDigests, func(s *sample) {
			s.digests = map[string]map[uint64][]byte{"eu.europa.ec.av.1": {0: make([]byte, 20)}}
		}},
		{"digest of another namespace", checkDigests, func(s *sample) {
			s.digests = map[string]map[uint64][]byte{"eu.europa.ec.av.2": {0: make([]byte, 32)}}
		}},
		{"digest ID too large", checkDigests, func(s *sample) { first(s)["digestID"] = uint64(1 << 31) }},
		{"digest ID twice", "data elements", func(s *sample) { first(s)["digestID"] = uint64(1) }},
		{"element twice", "data elements", func(s *sample) { first(s)["elementIdentifier"] = "issuing_country" }},
		{"item without identifier", "data elements", func(s *sample) { delete(first(s), "elementIdentifier") }},
		{"item without value", "data elements", func(s *sample) { delete(first(s), "elementValue") }},
		{"item without digest ID", "data elements", func(s *sample) { delete(first(s), "digestID") }},
		{"nothing in it", "data elements", func(s *sample) { s.items = map[string][]map[string]any{} }},
		{"short salt", "salts", func(s *sample) { first(s)["random"] = make([]byte, 15) }},
		{"shared salt", "salts", func(s *sample) { s.items["eu.europa.ec.av.1"][1]["random"] = first(s)["random"] }},
		{"signed with fraction", "validity info", func(s *sample) { s.validity["signed"] = date("2026-11-23T00:00:00.5Z") }},
		{"signed with offset", "validity info", func(s *sample) { s.validity["signed"] = date("2026-11-23T00:00:00+01:00") }},
		{"signed as plain text", "validity info", func(s *sample) { s.validity["signed"] = "2026-11-23T00:00:00Z" }},
		{"validFrom before signed", "validity info", func(s *sample) { s.validity["validFrom"] = date("2026-11-22T23:59:59Z") }},
		{"validUntil equals validFrom", "validity info", func(s *sample) { s.validity["validUntil"] = date("2026-11-23T00:00:00Z") }},
		{"not yet valid", checkValidity, func(s *sample) { s.validity["validFrom"] = date("2026-11-30T00:00:00Z") }},
		{"expired", checkValidity, func(s *sample) { s.validity["validUntil"] = date("2026-11-24T00:00:00Z") }},
		{"signed before the certificate", "signed in the certificate's time", func(s *sample) { s.validity["signed"] = date("2020-11-23T00:00:00Z") }},
		{"outlives the certificate", "ends in the certificate's time", func(s *sample) { s.validity["validUntil"] = date("2036-11-24T00:00:00Z") }},
		{"country", "issuing country", func(s *sample) {
			s.items["eu.europa.ec.av.1"][1]["elementValue"] = "XX"
			s.items = map[string][]map[string]any{namespaceMDL: s.items["eu.europa.ec.av.1"]}
		}},
		{"jurisdiction", "issuing jurisdiction", func(s *sample) {
			first(s)["elementIdentifier"] = "issuing_jurisdiction"
			s.items = map[string][]map[string]any{namespaceMDL: s.items["eu.europa.ec.av.1"]}
		}},
		{"incomplete mDL", "mandatory elements", func(s *sample) { s.docType = docTypeMDL }},
		{"tagged device key", "device key", func(s *sample) { s.deviceKey = cbor.Tag{Number: 99, Content: s.deviceKey} }},
		{"device key of no curve", "device key", func(s *sample) { s.deviceKey.(map[int64]any)[-1] = 8 }},
		{"device key off its curve", "device key", func(s *sample) { s.deviceKey.(map[int64]any)[-3] = make([]byte, 32) }},
		{"device key short", "device key", func(s *sample) { s.deviceKey.(map[int64]any)[-2] = make([]byte, 31) }},
		{"device key compressed", "device key", func(s *sample) { s.deviceKey.(map[int64]any)[-3] = true }},
		{"no device key", "device key", func(s *sample) { s.deviceKey = map[int64]any{} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSample(t)
			c.spoil(s)
			expectFailure(t, verify(t, s.build(), goldenOptions(t)), c.check)
		})
	}
}

func expectFailure(t testing.TB, r *Report, check string) {
	t.Helper()
	if r.Verified {
		t.Error("verified")
	}
	if !slices.ContainsFunc(r.Failures(), func(c Check) bool { return c.Name == check }) {
		t.Errorf("%q did not fail; these did: %+v", check, r.Failures())
	}
}

func otherKey(testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func TestMdocOptions(t *testing.T) {
	credential := newSample(t).build()
	for _, c := range []struct {
		name, check string
		change      func(*Options)
	}{
		{"no anchor", checkTrust, func(o *Options) { o.Anchors = nil }},
		{"other anchor", checkTrust, func(o *Options) { o.Anchors = o.Anchors[1:] }},
		{"other type", "type", func(o *Options) { o.Type = docTypeMDL }},
		{"other holder", "holder binding", func(o *Options) { o.Holder = otherKey(t).Public() }},
		{"before the certificates", checkTrust, func(o *Options) { o.Now = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"after the certificates", checkTrust, func(o *Options) { o.Now = time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := goldenOptions(t)
			c.change(&o)
			expectFailure(t, verify(t, credential, o), c.check)
		})
	}
	o := goldenOptions(t)
	o.Holder, o.Type = goldenKey(t).Public(), "eu.europa.ec.av.1"
	expectVerified(t, verify(t, credential, o))
}

// Superfluous but harmless things are warned of, and do not spoil the credential.
func TestMdocWarnings(t *testing.T) {
	s := newSample(t)
	s.deviceKey.(map[int64]any)[2] = []byte("kid")
	s.items["eu.europa.ec.av.1"][1]["elementValue"] = "XX"
	s.status = map[string]any{"status_list": map[string]any{"idx": 1, "uri": "https://status.example/1"}}
	r := verify(t, s.build(), goldenOptions(t))
	expectVerified(t, r)
	for name, outcome := range map[string]Outcome{"device key": Warning, "issuing country": Warning, "status": NotChecked, "revocation of the signer": NotChecked} {
		if !slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == name && c.Outcome == outcome }) {
			t.Errorf("%s is not %q", name, outcome)
		}
	}
}

func TestShortest(t *testing.T) {
	for _, c := range []struct {
		hex  string
		want bool
	}{
		{"00", true}, {"17", true}, {"1818", true}, {"1817", false}, {"190100", true}, {"1900ff", false},
		{"1a00010000", true}, {"1a0000ffff", false}, {"1b0000000100000000", true}, {"1b00000000ffffffff", false},
		{"a2616101616202", true}, {"b90002616101616202", false}, {"580161", false}, {"fb3ff8000000000000", true}, {"d818426161", true},
		{"59", false}, {"4261", false},
	} {
		if got := shortest(fromHex(t, []byte(c.hex))); got != c.want {
			t.Errorf("%s: %v", c.hex, got)
		}
	}
}

// What the verifier encodes itself is what the CBOR library reads.
func TestByteString(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536} {
		content := bytes.Repeat([]byte{7}, n)
		if !bytes.Equal(byteString(content), encode(content)) {
			t.Errorf("length %d", n)
		}
	}
}

func TestDescribeValue(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
	}{
		{"Müller\x1b[2J", "Müller\uFFFD[2J"},
		{true, "yes"}, {int64(7), "7"}, {json.Number("1e3"), "1e3"}, {nil, "(nothing)"},
		{[]byte{1, 2}, "0102"}, {make([]byte, 20), "20 bytes, beginning 0000000000000000"},
		{map[string]any{"b": []any{"x"}, "a": "y"}, "{a=y, b=[x]}"},
		{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), "2026-01-02T03:04:05Z"},
	} {
		if got := describeValue(c.value); got != c.want {
			t.Errorf("%v: %q, want %q", c.value, got, c.want)
		}
	}
}

func TestThumbprintOfARSAKeyFails(t *testing.T) {
	if _, err := Thumbprint("no key"); err == nil {
		t.Error("a text has a thumbprint")
	}
	if _, err := suiteOf(crypto.PublicKey(struct{}{})); err == nil {
		t.Error("a struct signs")
	}
}

// FuzzVerify looks for bytes that verify although no issuer signed them. Only
// the smallest credential is a seed, as signatures are slow under instrumentation.
func FuzzVerify(f *testing.F) {
	genuine, err := base64.RawURLEncoding.DecodeString(goldenSet(f)[3].Credential)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(genuine)
	for _, seed := range []string{"", "a.b.c", "a.b.c~", "e30.e30.AA", "e30.e30.AA~WyJhIl0~", "a0", "\xa1\x61a\x01"} {
		f.Add([]byte(seed))
	}
	o := goldenOptions(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Verify(t.Context(), data, o)
		if err != nil || !r.Verified {
			return
		}
		if _, raw := detect(data); !bytes.Equal(raw, genuine) {
			t.Errorf("verified: %x", data)
		}
	})
}

// FuzzCBOR reads an IssuerSigned and its parts without checking signatures.
func FuzzCBOR(f *testing.F) {
	for _, g := range goldenSet(f) {
		raw, err := base64.RawURLEncoding.DecodeString(g.Credential)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		var signed issuerSigned
		if err := decoding.Unmarshal(raw, &signed); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(signed.IssuerAuth))
		for _, items := range signed.NameSpaces {
			f.Add([]byte(items[0]))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var signed issuerSigned
		if decoding.Unmarshal(data, &signed) == nil {
			v := &verification{ctx: t.Context(), report: &Report{}, o: Options{Now: goldenNow}}
			v.elements(signed.NameSpaces)
		}
		if a, err := parseIssuerAuth(data); err == nil && len(a.chain) == 0 {
			t.Error("issuerAuth without a chain was taken")
		}
		var object mso
		if decoding.Unmarshal(data, &object) == nil {
			v := &verification{ctx: t.Context(), report: &Report{}, o: Options{Now: goldenNow}}
			v.objectShape(object)
			v.mdocValidity(object, nil)
		}
		if key, _, err := coseKey(data); err == nil && key == nil {
			t.Error("no key and no error")
		}
		if e, err := readElement("n", data); err == nil {
			describeValue(mdocClaim(e).Value)
		}
		describeValue(cborValue(data, 0))
		shortest(data)
	})
}

// The chain is checked hop by hop: each defect of an issuing CA is found.
func TestPathDefects(t *testing.T) {
	root := goldenOptions(t).Anchors[0]
	key := otherKey(t)
	for _, c := range []struct {
		name   string
		change func(*x509.Certificate)
	}{
		{"no CA", func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = x509.KeyUsageCertSign }},
		{"may not sign certificates", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }},
		{"same name, other key", func(*x509.Certificate) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			template := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: root.Subject, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
				IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: root.SubjectKeyId}
			c.change(template)
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			fake, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			o := goldenOptions(t)
			o.Anchors = []*x509.Certificate{fake}
			expectFailure(t, verify(t, newSample(t).build(), o), checkTrust)
		})
	}
}
