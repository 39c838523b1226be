package mdoc

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
	"pgregory.net/rapid"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

var day = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// request is a small credential with a value of every type.
func request(t testing.TB, a issuance.Algorithm) Request {
	t.Helper()
	return Request{
		DocType: "org.iso.18013.5.1.mDL", DeviceKey: issuancetest.Key(t, issuance.ES256).Public(), Chain: [][]byte{{0x30, 0x03, 1, 2, 3}}, Algorithm: a,
		Signed: day, ValidFrom: day, ValidUntil: day.Add(14*24*time.Hour - time.Second), PadTo: 8,
		Elements: []Element{
			{"org.iso.18013.5.1", "family_name", "Ångström-Müller"},
			{"org.iso.18013.5.1", "birth_date", FullDate("1987-03-14")},
			{"org.iso.18013.5.1", "portrait_capture_date", TDate(day.Add(9 * time.Hour))},
			{"org.iso.18013.5.1", "portrait", []byte{0xff, 0xd8, 0xff}},
			{"org.iso.18013.5.1", "age_over_18", true},
			{"org.iso.18013.5.1", "sex", int64(2)},
			{"org.iso.18013.5.1", "height", uint64(171)},
			{"org.iso.18013.5.1", "driving_privileges", []any{map[string]any{"vehicle_category_code": "B", "issue_date": FullDate("2006-03-20")}}},
			{"org.iso.18013.5.1.UT", "organ_donor", false},
		},
	}
}

// credential is IssuerSigned as a reader sees it.
type credential struct {
	NameSpaces map[string][]cbor.RawMessage `cbor:"nameSpaces"`
	IssuerAuth cbor.RawMessage              `cbor:"issuerAuth"`
}

func open(t testing.TB, text string) (credential, []byte) {
	t.Helper()
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var c credential
	if err := cbor.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c, data
}

// item is IssuerSignedItem as the library reads and writes it.
type item struct {
	DigestID          uint64          `cbor:"digestID"`
	Random            []byte          `cbor:"random"`
	ElementIdentifier string          `cbor:"elementIdentifier"`
	ElementValue      cbor.RawMessage `cbor:"elementValue"`
}

// readItem reads an IssuerSignedItemBytes without this package's decoder.
func readItem(t testing.TB, raw cbor.RawMessage) item {
	t.Helper()
	var tag cbor.Tag
	if err := cbor.Unmarshal(raw, &tag); err != nil || tag.Number != 24 {
		t.Fatalf("item %x: %v", raw, err)
	}
	var i item
	if err := cbor.Unmarshal(tag.Content.([]byte), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

// TestCOSEJudges lets go-cose read and verify issuerAuth, with every algorithm.
func TestCOSEJudges(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		for certificates := 1; certificates <= 2; certificates++ {
			key := issuancetest.Key(t, a)
			r := request(t, a)
			r.Chain = [][]byte{{0x30, 1, 1}, {0x30, 1, 2}}[:certificates]
			p, err := Prepare(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := p.Assemble(issuancetest.Sign(t, key, p.TBS))
			if err != nil {
				t.Fatal(err)
			}
			c, _ := open(t, text)
			if c.IssuerAuth[0] != 0x84 {
				t.Errorf("%s: issuerAuth begins with %x: it must be an array of four without a tag", a, c.IssuerAuth[0])
			}
			var message cose.UntaggedSign1Message
			if err := message.UnmarshalCBOR(c.IssuerAuth); err != nil {
				t.Fatalf("%s: go-cose: %v", a, err)
			}
			verifier, err := cose.NewVerifier(cose.Algorithm(a.COSE()), key.Public())
			if err != nil {
				t.Fatal(err)
			}
			if err := message.Verify(nil, verifier); err != nil {
				t.Errorf("%s: go-cose does not verify it: %v", a, err)
			}
			if len(message.Headers.Protected) != 1 || len(message.Headers.Unprotected) != 1 {
				t.Errorf("%s: headers %v, %v", a, message.Headers.Protected, message.Headers.Unprotected)
			}
			chain := message.Headers.Unprotected[cose.HeaderLabelX5Chain]
			_, single := chain.([]byte)
			list, several := chain.([]any)
			if single != (certificates == 1) || several != (certificates == 2) || several && len(list) != 2 {
				t.Errorf("%d certificates stand in x5chain as %T", certificates, chain)
			}
			if !bytes.Equal(message.Payload, payloadOf(t, p.TBS)) {
				t.Errorf("%s: the payload is not what was signed", a)
			}
		}
	}
}

func payloadOf(t testing.TB, tbs []byte) []byte {
	t.Helper()
	_, payload, err := parseSigStructure(tbs)
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

// object reads the security object back as a reader would.
func object(t testing.TB, tbs []byte) securityObject {
	t.Helper()
	mso, err := unembed(payloadOf(t, tbs))
	if err != nil {
		t.Fatal(err)
	}
	var o securityObject
	if err := cbor.Unmarshal(mso, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// drawRequest draws any request that Prepare takes.
func drawRequest(t *rapid.T, key crypto.PublicKey) Request {
	text := rapid.Map(rapid.String(), func(s string) any { return s })
	leaf := rapid.OneOf(text, rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.Uint64(), func(n uint64) any { return n }), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 70000), func(b []byte) any { return b }),
		rapid.Map(rapid.Int64Range(-6e10, 2e11), func(n int64) any { return TDate(time.Unix(n, 0)) }),
		rapid.Map(rapid.Int64Range(-6e10, 2e11), func(n int64) any { return FullDate(time.Unix(n, 0).UTC().Format(time.DateOnly)) }))
	value := rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(leaf, 0, 3), func(s []any) any { return s }), rapid.Map(rapid.MapOfN(rapid.String(), leaf, 0, 3), func(m map[string]any) any { return m }))
	name := rapid.StringMatching(`[ -~]{1,20}`)
	from := day.Add(time.Duration(rapid.IntRange(0, 1e6).Draw(t, "from")) * time.Second)
	r := Request{
		DocType: name.Draw(t, "docType"), DeviceKey: key, Chain: [][]byte{{0x30}}, Algorithm: rapid.SampledFrom(issuancetest.Algorithms).Draw(t, "alg"),
		Signed: day, ValidFrom: from.Add(time.Duration(rapid.IntRange(0, 999).Draw(t, "ms")) * time.Millisecond),
		ValidUntil: from.Add(time.Duration(rapid.IntRange(1, 1e6).Draw(t, "until")) * time.Second), PadTo: rapid.IntRange(0, 9).Draw(t, "pad"),
	}
	namespaces := rapid.SliceOfNDistinct(name, 1, 3, rapid.ID).Draw(t, "namespaces")
	for _, identifier := range rapid.SliceOfNDistinct(name, 1, 20, rapid.ID).Draw(t, "identifiers") {
		r.Elements = append(r.Elements, Element{rapid.SampledFrom(namespaces).Draw(t, "namespace"), identifier, value.Draw(t, "value")})
	}
	if rapid.Bool().Draw(t, "status") {
		r.Status = &StatusReference{"https://status.example/" + rapid.StringMatching(`[a-z]{0,8}`).Draw(t, "list"), rapid.Uint64().Draw(t, "index")}
	}
	if rapid.Bool().Draw(t, "update") {
		r.ExpectedUpdate = from.Add(time.Second)
	}
	return r
}

// TestParseReadsWhatPrepareWrote, for any request, and each item's digest is in
// the security object.
func TestParseReadsWhatPrepareWrote(t *testing.T) {
	var keys []crypto.PublicKey
	for _, a := range issuancetest.Algorithms {
		keys = append(keys, issuancetest.Key(t, a).Public())
	}
	rapid.Check(t, func(rt *rapid.T) {
		r := drawRequest(rt, rapid.SampledFrom(keys).Draw(rt, "key"))
		p, err := Prepare(r)
		if err != nil {
			rt.Fatal(err)
		}
		s, err := ParseTBS(p.TBS)
		if err != nil {
			rt.Fatal(err)
		}
		if s.Format != issuance.FormatMdoc || s.Algorithm != r.Algorithm || !slices.Equal(s.Types, []string{r.DocType}) || s.Issuer != "" || s.KeyID != "" || s.Chain != nil ||
			!s.Signed.Equal(r.Signed) || !s.ValidFrom.Equal(r.ValidFrom.Truncate(time.Second)) || !s.ValidUntil.Equal(r.ValidUntil.Truncate(time.Second)) {
			rt.Fatalf("%+v was read from %+v", s, r)
		}
		text, err := p.Assemble(make([]byte, r.Algorithm.SignatureSize()))
		if err != nil {
			rt.Fatal(err)
		}
		c, _ := open(t, text)
		checkItems(rt, r, c, object(t, p.TBS))
	})
}

func checkItems(t *rapid.T, r Request, c credential, o securityObject) {
	count := 0
	for namespace, items := range c.NameSpaces {
		digests := o.ValueDigests[namespace]
		if r.PadTo > 1 && len(digests)%r.PadTo != 0 || len(digests) < len(items) || r.PadTo < 2 && len(digests) != len(items) {
			t.Fatalf("%d digests for %d items, padded to %d", len(digests), len(items), r.PadTo)
		}
		for _, raw := range items {
			var i item
			var tag cbor.Tag
			if err := cbor.Unmarshal(raw, &tag); err != nil || tag.Number != 24 || cbor.Unmarshal(tag.Content.([]byte), &i) != nil {
				t.Fatalf("item %x", raw)
			}
			if again, err := encoder.Marshal(i); err != nil || !bytes.Equal(mustEmbed(t, again), raw) {
				t.Fatalf("item %x would be written by the library as %x", raw, again)
			}
			sum := sha256.Sum256(raw)
			at := slices.IndexFunc(r.Elements, func(e Element) bool {
				return e.Namespace == namespace && e.Identifier == i.ElementIdentifier
			})
			if at < 0 || !bytes.Equal(digests[i.DigestID], sum[:]) || len(i.Random) != SaltSize {
				t.Fatalf("item %s: element %d, digest id %d, %d bytes of salt", i.ElementIdentifier, at, i.DigestID, len(i.Random))
			}
			if value, err := encoder.Marshal(r.Elements[at].Value); err != nil || !bytes.Equal(value, i.ElementValue) {
				t.Fatalf("element %s has value %x", i.ElementIdentifier, i.ElementValue)
			}
			count++
		}
	}
	if count != len(r.Elements) || len(c.NameSpaces) != len(o.ValueDigests) {
		t.Fatalf("%d items for %d elements in %d namespaces", count, len(r.Elements), len(o.ValueDigests))
	}
}

// TestNothingLinksABatch: of many credentials with the same content no salt and
// no digest is there twice, and an element has another digest id in most.
func TestNothingLinksABatch(t *testing.T) {
	r := request(t, issuance.ES256)
	seen := map[string]bool{}
	ids := map[uint64]int{}
	for range 64 {
		p, err := Prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, digests := range object(t, p.TBS).ValueDigests {
			for _, digest := range digests {
				if seen[string(digest)] {
					t.Fatal("a digest is there twice")
				}
				seen[string(digest)] = true
			}
		}
		text, err := p.Assemble(make([]byte, 64))
		if err != nil {
			t.Fatal(err)
		}
		c, _ := open(t, text)
		for _, raw := range c.NameSpaces["org.iso.18013.5.1"] {
			i := readItem(t, raw)
			if seen[string(i.Random)] {
				t.Fatal("a salt is there twice")
			}
			seen[string(i.Random)] = true
			if i.ElementIdentifier == "family_name" {
				ids[i.DigestID]++
			}
		}
	}
	if len(ids) < 4 { // of 8: fewer than 4 in 64 draws comes less often than once in 10^17
		t.Errorf("family_name had only the digest ids %v", ids)
	}
}

func TestUniform(t *testing.T) {
	counts := [3]int{}
	for v := range 1 << 16 {
		random := bufio.NewReader(bytes.NewReader([]byte{byte(v >> 8), byte(v), 0, 1}))
		n, err := uniform(random, 3)
		if err != nil {
			t.Fatal(err)
		}
		if random.Buffered() == 2 { // taken at the first draw
			counts[n]++
		} else if v != 65535 || n != 1 {
			t.Fatalf("%d was drawn again, and then %d", v, n)
		}
	}
	if counts != [3]int{21845, 21845, 21845} {
		t.Errorf("of all draws %v each", counts)
	}
	for n, short := range [][]byte{{}, {1}, {0xff, 0xff}} {
		if v, err := uniform(bufio.NewReader(bytes.NewReader(short)), 3); err == nil {
			t.Errorf("case %d: %d without randomness", n, v)
		}
	}
}

// TestNoRandomnessNoCredential cuts the randomness off at every byte.
func TestNoRandomnessNoCredential(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Elements = append(r.Elements[:2:2], r.Elements[8])
	all := bytes.Repeat([]byte{7}, 2048)
	whole := bytes.NewReader(all)
	if _, err := prepare(r, bufio.NewReaderSize(whole, 16)); err != nil {
		t.Fatal(err)
	}
	// 2 elements and 6 decoys, 1 element and 7 decoys: a salt or digest for each,
	// and twice 7 draws of two bytes.
	const need = 16*32 + 2*7*2
	for n := range need {
		if _, err := prepare(r, bufio.NewReaderSize(bytes.NewReader(all[:n]), 16)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a credential from %d bytes of %d: %v", n, need, err)
		}
	}
	if _, err := prepare(r, bufio.NewReaderSize(bytes.NewReader(all[:need]), 16)); err != nil {
		t.Fatalf("%d bytes are not enough: %v", need, err)
	}
}

// TestPrepareRefusals changes one thing in a good request at a time.
func TestPrepareRefusals(t *testing.T) {
	deep := any("x")
	for range maxValueDepth + 1 {
		deep = []any{deep}
	}
	many := func(n int, namespace func(i int) string) []Element {
		var all []Element
		for i := range n {
			all = append(all, Element{namespace(i), fmt.Sprintf("e%d", i), true})
		}
		return all
	}
	value := func(v any) func(*Request) { return func(r *Request) { r.Elements[0].Value = v } }
	//lint:ignore SA1019 no constructor gives a point that is off the curve
	offCurve := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}
	for name, change := range map[string]func(r *Request){
		"no docType":                  func(r *Request) { r.DocType = "" },
		"docType too long":            func(r *Request) { r.DocType = strings.Repeat("a", 129) },
		"docType beyond ASCII":        func(r *Request) { r.DocType = "führerschein" },
		"no elements":                 func(r *Request) { r.Elements = nil },
		"no namespace":                func(r *Request) { r.Elements[0].Namespace = "" },
		"namespace with a line break": func(r *Request) { r.Elements[0].Namespace = "a\nb" },
		"no identifier":               func(r *Request) { r.Elements[0].Identifier = "" },
		"identifier not UTF-8":        func(r *Request) { r.Elements[0].Identifier = "\xff" },
		"element twice":               func(r *Request) { r.Elements[1].Identifier = r.Elements[0].Identifier },
		"too many in a namespace":     func(r *Request) { r.Elements = many(maxDigests+1, func(int) string { return "a" }) },
		"too many by padding":         func(r *Request) { r.Elements, r.PadTo = many(maxDigests-1, func(int) string { return "a" }), 1000 },
		"too many namespaces":         func(r *Request) { r.Elements = many(maxNamespaces+1, func(i int) string { return fmt.Sprint(i) }) },
		"too large a security object": func(r *Request) { r.Elements = many(maxDigests*8, func(i int) string { return fmt.Sprint(i % 8) }) },
		"no device key":               func(r *Request) { r.DeviceKey = nil },
		"RSA device key":              func(r *Request) { r.DeviceKey = &rsa.PublicKey{N: big.NewInt(15), E: 3} },
		"device key off the curve":    func(r *Request) { r.DeviceKey = offCurve },
		"device key of P-224": func(r *Request) {
			r.DeviceKey = &ecdsa.PublicKey{Curve: elliptic.P224()}
		},
		"short Ed25519 key":       func(r *Request) { r.DeviceKey = ed25519.PublicKey{1} },
		"private device key":      func(r *Request) { r.DeviceKey = issuancetest.Key(t, issuance.ES256) },
		"no certificate":          func(r *Request) { r.Chain = nil },
		"unknown algorithm":       func(r *Request) { r.Algorithm = "RS256" },
		"no algorithm":            func(r *Request) { r.Algorithm = "" },
		"valid before signed":     func(r *Request) { r.ValidFrom = r.Signed.Add(-time.Second) },
		"ends as it begins":       func(r *Request) { r.ValidUntil = r.ValidFrom.Add(999 * time.Millisecond) },
		"ends before it begins":   func(r *Request) { r.ValidUntil = r.ValidFrom.Add(-time.Hour) },
		"never signed":            func(r *Request) { r.Signed = time.Time{} },
		"no end":                  func(r *Request) { r.ValidUntil = time.Time{} },
		"beyond the calendar":     func(r *Request) { r.ValidUntil = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"update before signed":    func(r *Request) { r.ExpectedUpdate = r.Signed.Add(-time.Second) },
		"status without URI":      func(r *Request) { r.Status = &StatusReference{"", 1} },
		"null":                    value(nil),
		"float":                   value(1.5),
		"big number":              value(big.NewInt(5)),
		"time":                    value(day),
		"int":                     value(5),
		"text not UTF-8":          value("\xff"),
		"member not UTF-8":        value(map[string]any{"\xc3": "x"}),
		"null in a list":          value([]any{nil}),
		"float in a map":          value(map[string]any{"a": 1.5}),
		"too deep":                value(deep),
		"list of strings":         value([]string{"a"}),
		"date out of calendar":    value(FullDate("2026-02-30")),
		"date with a time":        value(FullDate("2026-02-28T00:00:00Z")),
		"date out of reach":       value(TDate{}),
		"date out of reach, deep": value([]any{map[string]any{"a": FullDate("")}}),
		"raw bytes as CBOR":       value(cbor.RawMessage{0xf6}),
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, issuance.ES256)
			change(&r)
			if _, err := Prepare(r); err == nil {
				t.Error("it is prepared")
			} else if strings.Contains(err.Error(), "Ångström") {
				t.Errorf("the error holds a value: %v", err)
			}
		})
	}
}

// TestBoundsAreReached: what is allowed at most is prepared and parsed.
func TestBoundsAreReached(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Elements = nil
	for i := range maxDigests {
		r.Elements = append(r.Elements, Element{strings.Repeat("n", 128), fmt.Sprintf("%0128d", i), true})
	}
	for i := range maxNamespaces - 1 {
		r.Elements = append(r.Elements, Element{fmt.Sprint(i), "e", true})
	}
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseTBS(p.TBS); err != nil {
		t.Error(err)
	}
}

func TestAssembleRefusals(t *testing.T) {
	for _, a := range issuancetest.Algorithms {
		p, err := Prepare(request(t, a))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, a.SignatureSize() - 1, a.SignatureSize() + 1, 71, 72} {
			if _, err := p.Assemble(make([]byte, n)); err == nil {
				t.Errorf("%s: assembled with %d bytes", a, n)
			}
		}
		if _, err := p.Assemble(make([]byte, a.SignatureSize())); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if _, err := p.Assemble(make([]byte, a.SignatureSize())); err == nil {
			t.Errorf("%s: assembled twice", a)
		}
	}
}
