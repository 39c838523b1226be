package encryption

import (
	"bytes"
	"crypto/elliptic"
	"maps"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// TestRow261Decrypt: a good request is read, with whatever harmless header.
func TestRow261Decrypt(t *testing.T) {
	e := opened(t, all(), &memory{})
	for name, more := range map[string]map[string]any{
		"bare": {}, "typ and cty": {"typ": "JWT", "cty": "json"}, "unknown": {"x-wallet": []any{1}}, "zip": {"zip": "DEF"},
	} {
		public, header := to(t, e)
		maps.Copy(header, more)
		text := []byte(`{"credential_configuration_id":"pid"}`)
		sent := text
		if name == "zip" {
			sent = deflated(t, text)
		}
		got, err := e.Decrypt([]byte(forge(t, public, header, sent)))
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestRows263And264Header changes one thing in a good header at a time.
func TestRows263And264Header(t *testing.T) {
	e := opened(t, all(), &memory{})
	others := e.keys.Load().published
	epk := func(x, y string, more ...any) map[string]any {
		m := map[string]any{"kty": "EC", "crv": "P-256", "x": x, "y": y}
		for n := 0; n < len(more); n += 2 {
			m[more[n].(string)] = more[n+1]
		}
		return m
	}
	for name, c := range map[string]struct {
		member  string
		changes map[string]any
	}{
		"unknown kid":        {"kid", map[string]any{"kid": "unknown"}},
		"no kid":             {"kid", map[string]any{"kid": nil}},
		"kid no string":      {"kid", map[string]any{"kid": []any{}}},
		"alg of another key": {"alg", map[string]any{"alg": "ECDH-ES+A256KW"}},
		"key of another alg": {"alg", map[string]any{"kid": others[1].id}},
		"none":               {"alg", map[string]any{"alg": "none"}},
		"dir":                {"alg", map[string]any{"alg": "dir"}},
		"RSA1_5":             {"alg", map[string]any{"alg": "RSA1_5"}},
		"RSA-OAEP":           {"alg", map[string]any{"alg": "RSA-OAEP"}},
		"A128KW":             {"alg", map[string]any{"alg": "A128KW"}},
		"A256GCMKW":          {"alg", map[string]any{"alg": "A256GCMKW", "iv": "AAAA", "tag": "AAAA"}},
		"PBES2, huge p2c":    {"alg", map[string]any{"alg": "PBES2-HS512+A256KW", "p2c": 2147483647, "p2s": "AAAAAAAAAAA"}},
		"alg no string":      {"alg", map[string]any{"alg": map[string]any{}}},
		"no alg":             {"alg", map[string]any{"alg": nil}},
		"enc not offered":    {"enc", map[string]any{"enc": "A192GCM"}},
		"enc unknown":        {"enc", map[string]any{"enc": "none"}},
		"no enc":             {"enc", map[string]any{"enc": nil}},
		"enc no string":      {"enc", map[string]any{"enc": map[string]any{}}},
		"zip unknown":        {"zip", map[string]any{"zip": "GZIP"}},
		"zip null":           {"zip", map[string]any{"zip": nil}},
		"crit":               {"crit", map[string]any{"crit": []any{"exp"}}},
		"crit null":          {"crit", map[string]any{"crit": nil}},
		"no epk":             {"epk", map[string]any{"epk": nil}},
		"epk no object":      {"epk", map[string]any{"epk": "x"}},
		"epk off the curve":  {"epk", map[string]any{"epk": epk(bobX, aliceY)}},
		"epk zero":           {"epk", map[string]any{"epk": epk(strings.Repeat("A", 43), strings.Repeat("A", 43))}},
		"epk private":        {"epk", map[string]any{"epk": epk(bobX, bobY, "d", bobD)}},
		"epk symmetric":      {"epk", map[string]any{"epk": map[string]any{"kty": "oct", "k": "AAAA"}}},
		"epk other curve":    {"epk", map[string]any{"epk": jwkOf(t, elliptic.P384())}},
		"epk short":          {"epk", map[string]any{"epk": epk("AA", "AA")}},
		"epk huge":           {"epk", map[string]any{"epk": epk(strings.Repeat("A", 2000), bobY)}},
		"epk Ed25519":        {"epk", map[string]any{"epk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}},
		"apu long":           {"apu", map[string]any{"apu": strings.Repeat("A", 400)}},
		"apv no string":      {"apv", map[string]any{"apv": 1}},
		"apv padded":         {"apv", map[string]any{"apv": "QQ=="}},
	} {
		public, header := to(t, e)
		maps.Copy(header, c.changes)
		_, err := e.Decrypt([]byte(forge(t, public, header, []byte("{}"))))
		t.Run(name, func(t *testing.T) { refused(t, err, "JWE header "+c.member) })
	}
	// zip is refused where it is not advertised.
	plain := opened(t, Options{Request: Optional, Response: Off}, &memory{})
	public, header := to(t, plain)
	header["zip"] = "DEF"
	_, err := plain.Decrypt([]byte(forge(t, public, header, deflated(t, []byte("{}")))))
	refused(t, err, "JWE header zip")
}

// TestNotAJWE: what is not five strict parts with a strict header.
func TestNotAJWE(t *testing.T) {
	e := opened(t, all(), &memory{})
	public, header := to(t, e)
	good := forge(t, public, header, []byte("{}"))
	part := strings.Split(good, ".")
	with := func(n int, text string) string {
		changed := append([]string{}, part...)
		changed[n] = text
		return strings.Join(changed, ".")
	}
	for name, c := range map[string]struct{ member, body string }{
		"empty":           {"request", ""},
		"JSON":            {"request", `{"credential_configuration_id":"pid"}`},
		"JSON JWE":        {"request", `{"protected":"` + part[0] + `","iv":"` + part[2] + `","ciphertext":"` + part[3] + `","tag":"` + part[4] + `"}`},
		"a JWS":           {"request", "a.b.c"},
		"six parts":       {"request", good + ".AAAA"},
		"only dots":       {"request", strings.Repeat(".", 100000)},
		"padding":         {"request", good + "="},
		"line break":      {"request", good + "\n"},
		"no base64url":    {"request", with(3, "+/")},
		"header empty":    {"JWE header", with(0, "")},
		"header no JSON":  {"JWE header", with(0, b64([]byte("x")))},
		"member twice":    {"JWE header", with(0, b64([]byte(`{"alg":"ECDH-ES","alg":"ECDH-ES"}`)))},
		"header long":     {"JWE header", with(0, b64([]byte(`{"x":"`+strings.Repeat("a", maxHeader)+`"}`)))},
		"header deep":     {"JWE header", with(0, b64([]byte(`{"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`)))},
		"key with direct": {"JWE encrypted key", with(1, strings.Repeat("A", 54))},
		"iv short":        {"JWE", with(2, b64(make([]byte, 11)))},
		"iv of CBC":       {"JWE", with(2, b64(make([]byte, 16)))},
		"tag short":       {"JWE", with(4, b64(make([]byte, 12)))},
		"tag long":        {"JWE", with(4, b64(make([]byte, 17)))},
	} {
		_, err := e.Decrypt([]byte(c.body))
		t.Run(name, func(t *testing.T) { refused(t, err, c.member) })
	}
}

// TestWrappedKey: a key-wrap alg needs an encrypted key, of a size that is one.
func TestWrappedKey(t *testing.T) {
	e := opened(t, all(), &memory{})
	k := e.keys.Load().published[2]
	encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: k.algorithm, Key: &k.private.PublicKey, KeyID: k.id}, nil)
	if err != nil {
		t.Fatal(err)
	}
	object, err := encrypter.Encrypt([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	good, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Decrypt([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for size, member := range map[int]string{0: "JWE encrypted key", 80: "JWE encrypted key", 8: "request", 24: "request", 39: "request", 40: "request"} {
		part := strings.Split(good, ".")
		part[1] = b64(make([]byte, size))
		_, err := e.Decrypt([]byte(strings.Join(part, ".")))
		refused(t, err, member)
	}
}

// TestNoOracle: whatever is wrong behind the header, the answer is the same.
func TestNoOracle(t *testing.T) {
	e := opened(t, all(), &memory{})
	public, header := to(t, e)
	good := forge(t, public, header, []byte(`{"a":"b"}`))
	for at := strings.Index(good, "."); at < len(good); at++ {
		if good[at] == '.' {
			continue
		}
		for _, c := range []byte("AQgw") { // values that any last character may have
			changed := []byte(good)
			if changed[at] == c {
				continue
			}
			changed[at] = c
			if _, err := e.Decrypt(changed); refused(t, err, "request") != "the request cannot be decrypted" {
				t.Errorf("at %d: %v", at, err)
			}
		}
	}
	// What go-jose cannot read in a header that passed.
	for name, value := range map[string]any{"x5c": []string{"AAAA"}, "nonce": 1, "jwk": map[string]any{"kty": "oct", "k": "AAAA"}} {
		public, header := to(t, e)
		header[name] = value
		if _, err := e.Decrypt([]byte(forge(t, public, header, []byte("{}")))); refused(t, err, "request") != "the request cannot be decrypted" {
			t.Errorf("%s: %v", name, err)
		}
	}
	header["zip"] = "DEF"
	for name, sent := range map[string][]byte{
		"not compressed": []byte(`{"a":"b"}`), "cut": deflated(t, make([]byte, 1000))[:5], "a bomb": bomb(t, 10), "a little too much": deflated(t, noise(MaxPlaintext+1)),
	} {
		delete(header, "epk")
		if _, err := e.Decrypt([]byte(forge(t, public, header, sent))); refused(t, err, "request") != "the request cannot be decrypted" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// noise is text that compresses to less than a quarter and more than a tenth.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]byte, n)
	for at := range out {
		out[at] = "ab"[r.IntN(2)]
	}
	return out
}

// allocated returns how many bytes f allocates in all, freed ones as well.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestRow274Bomb: a compressed request that would inflate to a thousand times
// its size costs bounded memory, and one at the limits is read.
func TestRow274Bomb(t *testing.T) {
	e := opened(t, all(), &memory{})
	public, header := to(t, e)
	header["zip"] = "DEF"
	make := func(sent []byte) []byte {
		delete(header, "epk")
		return []byte(forge(t, public, header, sent))
	}
	fits := noise(MaxPlaintext)
	if got, err := e.Decrypt(make(deflated(t, fits))); err != nil || !bytes.Equal(got, fits) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	const mega = 1 << 20
	for name, c := range map[string]struct {
		body   []byte
		member string
		limit  uint64 // bytes
	}{
		"20 KiB to 20 MiB":  {make(bomb(t, 20)), "request", 4 * mega},
		"60 KiB to 60 MiB":  {make(bomb(t, 60)), "request", 6 * mega},
		"100 KiB":           {make(bytes.Repeat([]byte{0}, 100<<10)), "JWE ciphertext", mega},
		"10 MB":             {make(bytes.Repeat([]byte{0}, 10*mega)), "request", mega / 16},
		"10 MB header":      {[]byte(strings.Repeat("A", 10*mega) + "...."), "request", mega / 16},
		"256 KiB of header": {[]byte(strings.Repeat("A", MaxRequest-4) + "...."), "JWE header", mega},
	} {
		var err error
		used := allocated(func() { _, err = e.Decrypt(c.body) })
		refused(t, err, c.member)
		if used > c.limit {
			t.Errorf("%s: %d bytes allocated, the bound is %d", name, used, c.limit)
		}
		t.Logf("%s: a body of %d bytes, %d bytes allocated", name, len(c.body), used)
	}
}

// TestPlaintextLimit: an uncompressed request fits into MaxRequest or is refused.
func TestPlaintextLimit(t *testing.T) {
	e := opened(t, all(), &memory{})
	public, header := to(t, e)
	largest := forge(t, public, header, make([]byte, MaxRequest*3/4-1000))
	if _, err := e.Decrypt([]byte(largest)); err != nil || len(largest) > MaxRequest {
		t.Errorf("%d bytes: %v", len(largest), err)
	}
	delete(header, "epk")
	_, err := e.Decrypt([]byte(forge(t, public, header, make([]byte, MaxRequest*3/4))))
	refused(t, err, "request")
}
