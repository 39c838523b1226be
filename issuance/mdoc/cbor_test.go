package mdoc

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/hex"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// TestValues has the bytes of each type of value (RFC 8949, RFC 8943).
func TestValues(t *testing.T) {
	cet := time.FixedZone("CET", 3600)
	for want, value := range map[string]any{
		"c074323032362d31312d32335430303a30303a30305a": TDate(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)),
		"c074323032362d31312d32335432333a35393a35395a": TDate(time.Date(2026, 11, 24, 0, 59, 59, 987654321, cet)),
		"d903ec6a313938372d30332d3134":                 FullDate("1987-03-14"),
		"f5":                                           true,
		"02":                                           int64(2),
		"20":                                           int64(-1),
		"1bffffffffffffffff":                           uint64(1<<64 - 1),
		"43ffd8ff":                                     []byte{0xff, 0xd8, 0xff},
		"40":                                           []byte(nil),
		"80":                                           []any(nil),
		"6ac3856e67737472c3b66d":                       "Ångström",
		"a26161d903ec6a323030362d30332d3230626262820140": map[string]any{"bb": []any{int64(1), []byte{}}, "a": FullDate("2006-03-20")},
	} {
		got, err := encoder.Marshal(value)
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%#v is %x (%v), want %s", value, got, err, want)
		}
	}
}

// TestEmbed has a length of every head, there and back.
func TestEmbed(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536, 1 << 20} {
		data := bytes.Repeat([]byte{0xa5}, n)
		got := mustEmbed(t, data)
		if !bytes.HasPrefix(got, []byte{0xd8, 24}) || !bytes.HasSuffix(got, data) {
			t.Errorf("%d bytes begin with %x", n, got[:2])
		}
		if back, err := unembed(got); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func mustEmbed(t interface {
	Helper()
	Fatal(...any)
}, data []byte) []byte {
	t.Helper()
	out, err := embed(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTDateRefusals(t *testing.T) {
	for _, moment := range []time.Time{{}, time.Date(0, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600))} {
		if data, err := TDate(moment).MarshalCBOR(); err == nil {
			t.Errorf("%s is written as %s", moment, data)
		}
	}
	for name, text := range map[string]string{
		"no tag":        "74323032362d31312d32335430303a30303a30305a",
		"tag 1":         "c174323032362d31312d32335430303a30303a30305a",
		"tag 1004":      "d903ec6a323032362d31312d3233",
		"bytes":         "c054323032362d31312d32335430303a30303a30305a",
		"long head":     "c07814323032362d31312d32335430303a30303a30305a",
		"fractions":     "c07818323032362d31312d32335430303a30303a30302e3030305a",
		"offset":        "c07819323032362d31312d32335430303a30303a30302b30303a3030",
		"small z":       "c074323032362d31312d32335430303a30303a30307a",
		"space for T":   "c074323032362d31312d32332030303a30303a30305a",
		"thirteenth":    "c074323032362d31332d32335430303a30303a30305a",
		"leap second":   "c074323032362d31312d32335432333a35393a36305a",
		"day 31":        "c074323032362d31312d33315430303a30303a30305a",
		"short":         "c073323032362d31312d32335430303a30303a30305a",
		"nothing":       "",
		"integer":       "c01a6a00",
		"comma second":  "c074323032362d31312d32335430303a30302c30305a",
		"single digits": "c074323032362d31312d3233543030303a30303a305a",
	} {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		var d TDate
		if err := d.UnmarshalCBOR(data); err == nil {
			t.Errorf("%s is read as %s", name, time.Time(d))
		}
	}
}

func TestParseFullDate(t *testing.T) {
	for _, good := range []string{"1987-03-14", "2024-02-29", "0001-01-01", "9999-12-31"} {
		if d, err := ParseFullDate(good); err != nil || string(d) != good {
			t.Errorf("%s: %s, %v", good, d, err)
		}
	}
	for _, bad := range []string{"", "1987-3-14", "1987-02-29", "87-03-14", "1987-03-14Z", " 1987-03-14", "14.03.1987", "1987-13-01", "1987-00-01", "1987-01-00", "１987-03-14"} {
		if d, err := ParseFullDate(bad); err == nil {
			t.Errorf("%s is %s", bad, d)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, good := range map[string]bool{
		"org.iso.18013.5.1": true, "a": true, "with space": true, "~": true, string(bytes.Repeat([]byte("a"), 128)): true,
		"": false, string(bytes.Repeat([]byte("a"), 129)): false, "é": false, "a\x00": false, "a\x7f": false, "\n": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestCOSEKey has a key of each kind, read back by the library alone.
func TestCOSEKey(t *testing.T) {
	for a, want := range map[issuance.Algorithm]struct {
		kty, crv int64
		size     int
	}{issuance.ES256: {2, 1, 32}, issuance.ES384: {2, 2, 48}, issuance.ES512: {2, 3, 66}, issuance.EdDSA: {1, 6, 32}} {
		public := issuancetest.Key(t, a).Public()
		data, err := COSEKey(public)
		if err != nil {
			t.Fatal(err)
		}
		var members map[int64]any
		if err := cbor.Unmarshal(data, &members); err != nil {
			t.Fatal(err)
		}
		x, _ := members[-2].([]byte)
		y, _ := members[-3].([]byte)
		if members[1] != uint64(want.kty) || members[-1] != uint64(want.crv) || len(x) != want.size {
			t.Errorf("%s: %v", a, members)
		}
		if key, ok := public.(*ecdsa.PublicKey); ok {
			point, err := key.Bytes()
			if err != nil || !bytes.Equal(point, append(append([]byte{4}, x...), y...)) || len(members) != 4 {
				t.Errorf("%s: %v (%v)", a, members, err)
			}
		} else if len(members) != 3 {
			t.Errorf("%s: %v", a, members)
		}
		if err := checkCOSEKey(data); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// TestCOSEKeyLeadingZeros: one coordinate in 256 begins with a zero byte, which stays.
func TestCOSEKeyLeadingZeros(t *testing.T) {
	for x, y := false, false; !x || !y; {
		key := issuancetest.Key(t, issuance.ES256).Public().(*ecdsa.PublicKey)
		point, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] != 0 && point[33] != 0 {
			continue
		}
		x, y = x || point[1] == 0, y || point[33] == 0
		data, err := COSEKey(key)
		if err != nil || len(data) != 75 || checkCOSEKey(data) != nil {
			t.Fatalf("%x (%v)", data, err)
		}
	}
}
