package mdoc

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// loose encodes what no builder here would: generic maps, sorted or as given.
var loose = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// generic returns a good security object as a generic map, to be changed.
func generic(t testing.TB, r Request) map[string]any {
	t.Helper()
	p, err := Prepare(r)
	if err != nil {
		t.Fatal(err)
	}
	mode, err := cbor.DecOptions{DefaultMapType: reflect.TypeOf(map[string]any{}), TimeTagToAny: cbor.TimeTagToRFC3339}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	mso, err := unembed(payloadOf(t, p.TBS))
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string]cbor.RawMessage
	if err := cbor.Unmarshal(mso, &raw); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for name, member := range raw {
		if name == "valueDigests" || name == "deviceKeyInfo" {
			out[name] = member // its keys are numbers
			continue
		}
		var value any
		if err := mode.Unmarshal(member, &value); err != nil {
			t.Fatal(err)
		}
		out[name] = value
	}
	for _, name := range []string{"signed", "validFrom", "validUntil"} {
		info := out["validityInfo"].(map[string]any)
		info[name] = cbor.Tag{Number: 0, Content: info[name]}
	}
	return out
}

func encodeLoose(t testing.TB, v any) []byte {
	t.Helper()
	data, err := loose.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// around puts a security object into a Sig_structure.
func around(t testing.TB, mso []byte) []byte {
	t.Helper()
	protected, err := protectedHeader(issuance.ES256)
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := sigStructure(protected, mustEmbed(t, mso))
	if err != nil {
		t.Fatal(err)
	}
	return tbs
}

// TestParseRefusals changes one thing in a good security object at a time.
func TestParseRefusals(t *testing.T) {
	r := request(t, issuance.ES256)
	r.Status = &StatusReference{"https://status.example/1", 7}
	r.ExpectedUpdate = day.Add(time.Hour)
	if _, err := ParseTBS(around(t, encodeLoose(t, fixUpdate(generic(t, r))))); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	date := func(text string) cbor.Tag { return cbor.Tag{Number: 0, Content: text} }
	validity := func(name string, value any) func(m map[string]any) {
		return func(m map[string]any) { m["validityInfo"].(map[string]any)[name] = value }
	}
	digests := func(value any) func(m map[string]any) { return func(m map[string]any) { m["valueDigests"] = value } }
	key := func(value any) func(m map[string]any) {
		return func(m map[string]any) { m["deviceKeyInfo"] = map[string]any{"deviceKey": value} }
	}
	good := make([]byte, 32)
	x, y := coordinates(t)
	for name, test := range map[string]struct {
		change func(m map[string]any)
		wants  string
	}{
		"no version":              {func(m map[string]any) { delete(m, "version") }, "version"},
		"version 1.1":             {func(m map[string]any) { m["version"] = "1.1" }, "version"},
		"version a number":        {func(m map[string]any) { m["version"] = 1 }, "string"},
		"SHA-512":                 {func(m map[string]any) { m["digestAlgorithm"] = "SHA-512" }, "SHA-256"},
		"sha-256":                 {func(m map[string]any) { m["digestAlgorithm"] = "sha-256" }, "SHA-256"},
		"no docType":              {func(m map[string]any) { delete(m, "docType") }, "docType"},
		"docType with a newline":  {func(m map[string]any) { m["docType"] = "a\nb" }, "docType"},
		"docType too long":        {func(m map[string]any) { m["docType"] = strings.Repeat("a", 129) }, "docType"},
		"docType bytes":           {func(m map[string]any) { m["docType"] = []byte("org.iso.18013.5.1.mDL") }, ""},
		"docType in another case": {func(m map[string]any) { m["doctype"] = m["docType"]; delete(m, "docType") }, "unknown field"},
		"unknown member":          {func(m map[string]any) { m["x"] = 1 }, "unknown field"},
		"null member":             {func(m map[string]any) { m["status"] = nil }, "deterministic"},
		"keyAuthorizations": {func(m map[string]any) {
			m["deviceKeyInfo"] = map[string]any{"deviceKey": map[int]any{1: 2, -1: 1, -2: x, -3: y}, "keyAuthorizations": map[string]any{"nameSpaces": []string{"a"}}}
		}, "unknown field"},
		"no digests":            {digests(map[string]any{}), "namespaces"},
		"empty namespace":       {digests(map[string]map[uint64][]byte{"a": {}}), "namespace"},
		"unnamed namespace":     {digests(map[string]map[uint64][]byte{"": {0: good}}), "namespace"},
		"digest of 31 bytes":    {digests(map[string]map[uint64][]byte{"a": {0: good[:31]}}), "32"},
		"digest of 48 bytes":    {digests(map[string]map[uint64][]byte{"a": {0: make([]byte, 48)}}), "32"},
		"digest id of 2^31":     {digests(map[string]map[uint64][]byte{"a": {1 << 31: good}}), "2^31"},
		"negative digest id":    {digests(map[string]map[int64][]byte{"a": {-1: good}}), ""},
		"digest id a text":      {digests(map[string]map[string][]byte{"a": {"0": good}}), ""},
		"digest a text":         {digests(map[string]map[uint64]string{"a": {0: strings.Repeat("a", 32)}}), ""},
		"too many namespaces":   {digests(manyNamespaces(maxNamespaces + 1)), "namespaces"},
		"too many digests":      {digests(map[string]map[uint64][]byte{"a": manyDigests(maxDigests + 1)}), "too large"},
		"no device key":         {func(m map[string]any) { m["deviceKeyInfo"] = map[string]any{} }, "deviceKey"},
		"device key tagged":     {key(cbor.Tag{Number: 24, Content: []byte{0xa0}}), "deviceKey"},
		"key with kid":          {key(map[int]any{1: 2, 2: []byte("k"), -1: 1, -2: x, -3: y}), "deviceKey"},
		"key with alg":          {key(map[int]any{1: 2, 3: -7, -1: 1, -2: x, -3: y}), "deviceKey"},
		"key with d":            {key(map[int]any{1: 2, -1: 1, -2: x, -3: y, -4: x}), "deviceKey"},
		"key without y":         {key(map[int]any{1: 2, -1: 1, -2: x}), "coordinates"},
		"key with y as sign":    {key(map[int]any{1: 2, -1: 1, -2: x, -3: true}), "deviceKey"},
		"key off the curve":     {key(map[int]any{1: 2, -1: 1, -2: x, -3: x}), "curve"},
		"key of another curve":  {key(map[int]any{1: 2, -1: 2, -2: x, -3: y}), "coordinates"},
		"key of X25519":         {key(map[int]any{1: 1, -1: 4, -2: x}), "P-256"},
		"key of secp256k1":      {key(map[int]any{1: 2, -1: 8, -2: x, -3: y}), "P-256"},
		"OKP key of P-256":      {key(map[int]any{1: 1, -1: 1, -2: x, -3: y}), "P-256"},
		"Ed25519 with y":        {key(map[int]any{1: 1, -1: 6, -2: x, -3: y}), "P-256"},
		"Ed25519 too short":     {key(map[int]any{1: 1, -1: 6, -2: x[:31]}), "P-256"},
		"symmetric key":         {key(map[int]any{1: 4, -1: x}), "deviceKey"},
		"key without leading 0": {key(map[int]any{1: 2, -1: 1, -2: x[1:], -3: y}), "coordinates"},
		"no validityInfo":       {func(m map[string]any) { delete(m, "validityInfo") }, ""},
		"no signed":             {func(m map[string]any) { delete(m["validityInfo"].(map[string]any), "signed") }, ""},
		"signed untagged":       {validity("signed", "2026-11-24T00:00:00Z"), "tdate"},
		"signed with fractions": {validity("signed", date("2026-11-24T00:00:00.000Z")), "tdate"},
		"signed with offset":    {validity("signed", date("2026-11-24T00:00:00+00:00")), "tdate"},
		"signed as seconds":     {validity("signed", cbor.Tag{Number: 1, Content: 1795478400}), "tdate"},
		"validFrom earlier":     {validity("validFrom", date("2026-11-23T23:59:59Z")), "validity"},
		"validUntil is from":    {validity("validUntil", date("2026-11-24T00:00:00Z")), "validity"},
		"expectedUpdate early":  {validity("expectedUpdate", date("2026-11-24T00:00:00Z")), "expectedUpdate"},
		"unknown date":          {validity("revoked", date("2026-11-24T00:00:00Z")), "unknown field"},
		"status without uri":    {func(m map[string]any) { m["status"] = map[string]any{"status_list": map[string]any{"idx": 1}} }, "uri"},
		"negative index": {func(m map[string]any) {
			m["status"] = map[string]any{"status_list": map[string]any{"idx": -1, "uri": "u"}}
		}, ""},
		"identifier list": {func(m map[string]any) {
			m["status"] = map[string]any{"identifier_list": map[string]any{"id": good, "uri": "u"}}
		}, "unknown field"},
	} {
		m := fixUpdate(generic(t, r))
		test.change(m)
		s, err := ParseTBS(around(t, encodeLoose(t, m)))
		if err == nil || !strings.Contains(err.Error(), test.wants) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// fixUpdate puts expectedUpdate's tag back.
func fixUpdate(m map[string]any) map[string]any {
	info := m["validityInfo"].(map[string]any)
	if text, ok := info["expectedUpdate"].(string); ok {
		info["expectedUpdate"] = cbor.Tag{Number: 0, Content: text}
	}
	return m
}

func coordinates(t testing.TB) (x, y []byte) {
	t.Helper()
	data, err := COSEKey(issuancetest.Key(t, issuance.ES256).Public())
	if err != nil {
		t.Fatal(err)
	}
	var members map[int64]any
	if err := cbor.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	return members[-2].([]byte), members[-3].([]byte)
}

func manyDigests(n int) map[uint64][]byte {
	out := map[uint64][]byte{}
	for i := range n {
		out[uint64(i)] = make([]byte, 32)
	}
	return out
}

func manyNamespaces(n int) map[string]map[uint64][]byte {
	out := map[string]map[uint64][]byte{}
	for i := range n {
		out[strings.Repeat("a", i+1)] = manyDigests(1)
	}
	return out
}

// TestParseEnvelopeRefusals changes one thing around a good security object.
func TestParseEnvelopeRefusals(t *testing.T) {
	p, err := Prepare(request(t, issuance.ES256))
	if err != nil {
		t.Fatal(err)
	}
	payload := payloadOf(t, p.TBS)
	mso, err := unembed(payload)
	if err != nil {
		t.Fatal(err)
	}
	protected, err := protectedHeader(issuance.ES256)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		t.Helper()
		if bytes.Count(mso, []byte(old)) != 1 {
			t.Fatalf("%q is not there once", old)
		}
		return around(t, bytes.Replace(mso, []byte(old), []byte(new), 1))
	}
	long := append([]byte{}, payload[:2]...)
	long = append(append(long, 0x5a, 0, 0, byte(len(mso)>>8), byte(len(mso))), mso...)
	for name, tbs := range map[string][]byte{
		"nothing":                    nil,
		"a map":                      {0xa0},
		"an empty array":             {0x80},
		"three parts":                encodeLoose(t, []any{"Signature1", protected, payload}),
		"five parts":                 encodeLoose(t, []any{"Signature1", protected, []byte{}, payload, []byte{}}),
		"many signatures":            encodeLoose(t, []any{"Signature", protected, []byte{}, []byte{}, payload}),
		"another context":            encodeLoose(t, []any{"CounterSignature0", protected, []byte{}, payload}),
		"MAC":                        encodeLoose(t, []any{"MAC0", protected, []byte{}, payload}),
		"external data":              encodeLoose(t, []any{"Signature1", protected, []byte{1}, payload}),
		"external data null":         encodeLoose(t, []any{"Signature1", protected, nil, payload}),
		"payload null":               encodeLoose(t, []any{"Signature1", protected, []byte{}, nil}),
		"payload a text":             encodeLoose(t, []any{"Signature1", protected, []byte{}, "payload"}),
		"payload a map":              encodeLoose(t, []any{"Signature1", protected, []byte{}, cbor.RawMessage(mso)}),
		"payload not embedded":       encodeLoose(t, []any{"Signature1", protected, []byte{}, mso}),
		"payload in another tag":     encodeLoose(t, []any{"Signature1", protected, []byte{}, encodeLoose(t, cbor.Tag{Number: 25, Content: mso})}),
		"map in tag 24":              encodeLoose(t, []any{"Signature1", protected, []byte{}, append([]byte{0xd8, 24}, mso...)}),
		"payload with a long head":   encodeLoose(t, []any{"Signature1", protected, []byte{}, long}),
		"payload with a tail":        encodeLoose(t, []any{"Signature1", protected, []byte{}, append(bytes.Clone(payload), 0)}),
		"no protected header":        encodeLoose(t, []any{"Signature1", []byte{}, []byte{}, payload}),
		"header a map":               encodeLoose(t, []any{"Signature1", map[int]int{1: -7}, []byte{}, payload}),
		"RS256":                      encodeLoose(t, []any{"Signature1", encodeLoose(t, map[int]int{1: -257}), []byte{}, payload}),
		"ESP256":                     encodeLoose(t, []any{"Signature1", encodeLoose(t, map[int]int{1: -9}), []byte{}, payload}),
		"alg a text":                 encodeLoose(t, []any{"Signature1", encodeLoose(t, map[int]string{1: "ES256"}), []byte{}, payload}),
		"x5chain protected":          encodeLoose(t, []any{"Signature1", encodeLoose(t, map[int]any{1: -7, 33: []byte{1}}), []byte{}, payload}),
		"crit":                       encodeLoose(t, []any{"Signature1", encodeLoose(t, map[int]any{1: -7, 2: []int{1}}), []byte{}, payload}),
		"alg in a long form":         encodeLoose(t, []any{"Signature1", []byte{0xa1, 0x01, 0x38, 0x06}, []byte{}, payload}),
		"a tail":                     append(bytes.Clone(p.TBS), 0),
		"tagged":                     append([]byte{0xd2}, p.TBS...),
		"array in a long form":       append([]byte{0x98, 4}, p.TBS[1:]...),
		"array without length":       append(append([]byte{0x9f}, p.TBS[1:]...), 0xff),
		"context in a long form":     append([]byte{0x84, 0x78, 10}, p.TBS[2:]...),
		"security object an array":   around(t, []byte{0x80}),
		"security object empty":      around(t, []byte{0xa0}),
		"security object cut off":    around(t, mso[:len(mso)-1]),
		"security object with more":  around(t, append(bytes.Clone(mso), 0)),
		"map without length":         around(t, append(append([]byte{0xbf}, mso[1:]...), 0xff)),
		"text in a long form":        replace("\x631.0", "\x78\x031.0"),
		"date in a long form":        replace("signed\xc0\x74", "signed\xc0\x78\x14"),
		"date tag in a long form":    replace("signed\xc0\x74", "signed\xd8\x00\x74"),
		"key number in a long form":  replace("deviceKey\xa4\x01\x02", "deviceKey\xa4\x01\x18\x02"),
		"member twice":               around(t, twiceVersion(mso)),
		"text that is not UTF-8":     replace("18013.5.1.mDL", "18013.5.1.mD\xff"),
		"members in another order":   around(t, rotated(t, mso)),
		"larger than any":            around(t, largeObject(t)),
		"deep nesting":               bytes.Repeat([]byte{0x81}, 10000),
		"a length beyond the end":    {0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"floating point for integer": replace("deviceKey\xa4\x01\x02", "deviceKey\xa4\x01\xf9\x40\x00"),
	} {
		if s, err := ParseTBS(tbs); err == nil {
			t.Errorf("%s: read as %+v", name, s)
		}
	}
}

// largeObject is a security object within all bounds but that of its size.
func largeObject(t testing.TB) []byte {
	t.Helper()
	r := request(t, issuance.ES256)
	m := generic(t, Request{DocType: r.DocType, Elements: r.Elements, DeviceKey: r.DeviceKey, Chain: r.Chain, Algorithm: r.Algorithm,
		Signed: r.Signed, ValidFrom: r.ValidFrom, ValidUntil: r.ValidUntil})
	namespaces := map[string]map[uint64][]byte{}
	for i := range maxNamespaces {
		namespaces[strings.Repeat("a", i+1)] = manyDigests(maxDigests)
	}
	m["valueDigests"] = namespaces
	return encodeLoose(t, m)
}

// twiceVersion adds a second version member.
func twiceVersion(mso []byte) []byte {
	out := bytes.Clone(mso)
	out[0]++
	return append(out, "\x67version\x631.0"...)
}

// rotated moves the first member behind the last.
func rotated(t testing.TB, mso []byte) []byte {
	t.Helper()
	name := []byte("\x67docType\x75org.iso.18013.5.1.mDL")
	if bytes.Count(mso, name) != 1 {
		t.Fatal("docType is not there once")
	}
	return append(bytes.Replace(mso, name, nil, 1), name...)
}

// TestEveryByteCounts: no byte of what is to be signed can be changed without
// the parser refusing it or the statement or the signed values being others; and
// what it takes is, again, the one encoding.
func TestEveryByteCounts(t *testing.T) {
	p, err := Prepare(request(t, issuance.ES256))
	if err != nil {
		t.Fatal(err)
	}
	taken := 0
	for at := range p.TBS {
		for _, flip := range []byte{1, 0x20, 0x80} {
			tbs := bytes.Clone(p.TBS)
			tbs[at] ^= flip
			if s, err := ParseTBS(tbs); err == nil {
				taken++
				if reflect.DeepEqual(object(t, tbs), object(t, p.TBS)) && s.Algorithm == issuance.ES256 {
					t.Errorf("byte %d: the same security object in other bytes", at)
				}
			}
		}
	}
	if taken == 0 || taken > 3*len(p.TBS)*9/10 {
		t.Errorf("%d of %d changes were taken", taken, 3*len(p.TBS))
	}
}

func FuzzParseTBS(f *testing.F) {
	for _, a := range issuancetest.Algorithms {
		r := request(f, a)
		r.DeviceKey = issuancetest.Key(f, a).Public()
		p, err := Prepare(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.TBS)
	}
	for _, g := range golden(f).Credentials {
		f.Add([]byte(g.SigStructure))
	}
	f.Add([]byte{0x84, 0x6a})
	f.Fuzz(func(t *testing.T, tbs []byte) {
		s, err := ParseTBS(tbs)
		if err != nil {
			return
		}
		if s.Algorithm.COSE() == 0 || len(s.Types) != 1 || s.Types[0] == "" || s.ValidFrom.Before(s.Signed) || !s.ValidUntil.After(s.ValidFrom) {
			t.Fatalf("%x is read as %+v", tbs, s)
		}
		mso, err := encoder.Marshal(object(t, tbs))
		if err != nil {
			t.Fatal(err)
		}
		protected, err := protectedHeader(s.Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := sigStructure(protected, mustEmbed(t, mso)); err != nil || !bytes.Equal(again, tbs) {
			t.Fatalf("%x is taken, and would be written as %x (%v)", tbs, again, err)
		}
	})
}

// licence is an mDL of the usual size: 32 elements, 40 digests, a portrait of 20 kB.
func licence(b *testing.B) Request {
	r := request(b, issuance.ES256)
	r.Chain = [][]byte{make([]byte, 650)}
	r.Elements[3].Value = make([]byte, 20<<10)
	for i := range 24 {
		r.Elements = append(r.Elements, Element{"org.iso.18013.5.1", "element_" + string(rune('a'+i)), "Rue de l'Église 7"})
	}
	return r
}

func BenchmarkPrepare(b *testing.B) {
	r := licence(b)
	for b.Loop() {
		if _, err := Prepare(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTBS(b *testing.B) {
	p, err := Prepare(licence(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ParseTBS(p.TBS); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepareAndAssemble(b *testing.B) {
	r, signature := licence(b), make([]byte, 64)
	for b.Loop() {
		p, err := Prepare(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Assemble(signature); err != nil {
			b.Fatal(err)
		}
	}
}
