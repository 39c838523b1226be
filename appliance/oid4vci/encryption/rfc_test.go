package encryption

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash"
	"io"
	"strings"
	"testing"

	"chancery/appliance/store"
)

// What follows is a second reading of RFC 7516, RFC 7518 and RFC 3394, which
// judges what go-jose makes and forges what go-jose would not make. The vector
// of RFC 7518 appendix C judges it.

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func unb64(t testing.TB, text string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// concatKDF is RFC 7518 §4.6.2.
func concatKDF(z []byte, algorithm string, apu, apv []byte, size int) []byte {
	var info []byte
	for _, part := range [][]byte{[]byte(algorithm), apu, apv} {
		info = append(binary.BigEndian.AppendUint32(info, uint32(len(part))), part...)
	}
	info = binary.BigEndian.AppendUint32(info, uint32(size*8))
	var key []byte
	for round := uint32(1); len(key) < size; round++ {
		h := sha256.New()
		h.Write(binary.BigEndian.AppendUint32(nil, round))
		h.Write(z)
		h.Write(info)
		key = h.Sum(key)
	}
	return key[:size]
}

// unwrapKey is RFC 3394 §2.2.2.
func unwrapKey(t testing.TB, kek, wrapped []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	n := len(wrapped)/8 - 1
	a, r := bytes.Clone(wrapped[:8]), bytes.Clone(wrapped[8:])
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(a)^uint64(n*j+i))
			b := append(bytes.Clone(a), r[(i-1)*8:i*8]...)
			block.Decrypt(b, b)
			copy(a, b[:8])
			copy(r[(i-1)*8:], b[8:])
		}
	}
	if !bytes.Equal(a, bytes.Repeat([]byte{0xa6}, 8)) {
		t.Fatal("the wrapped key does not open")
	}
	return r
}

// contentKeySize is the size of each enc's key in bytes.
var contentKeySize = map[string]int{"A128GCM": 16, "A256GCM": 32, "A128CBC-HS256": 32, "A256CBC-HS512": 64}

// openContent is RFC 7518 §5.2.2.2 and §5.3.
func openContent(t testing.TB, enc string, key, iv, ciphertext, tag, aad []byte) []byte {
	t.Helper()
	if strings.HasSuffix(enc, "GCM") {
		plaintext, err := gcm(t, key).Open(nil, iv, append(ciphertext, tag...), aad)
		if err != nil {
			t.Fatal(err)
		}
		return plaintext
	}
	half := len(key) / 2
	h := map[int]func() hash.Hash{16: sha256.New, 32: sha512.New}[half]
	mac := hmac.New(h, key[:half])
	for _, part := range [][]byte{aad, iv, ciphertext, binary.BigEndian.AppendUint64(nil, uint64(len(aad))*8)} {
		mac.Write(part)
	}
	if subtle.ConstantTimeCompare(mac.Sum(nil)[:half], tag) != 1 {
		t.Fatal("the tag is wrong")
	}
	block, err := aes.NewCipher(key[half:])
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(ciphertext, ciphertext)
	return ciphertext[:len(ciphertext)-int(ciphertext[len(ciphertext)-1])]
}

func gcm(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func asECDH(t testing.TB, private *ecdsa.PrivateKey) *ecdh.PrivateKey {
	t.Helper()
	key, err := private.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// openJWE opens a compact JWE without go-jose.
func openJWE(t testing.TB, compact string, private *ecdsa.PrivateKey) (header map[string]any, plaintext []byte) {
	t.Helper()
	parts := strings.Split(compact, ".")
	if len(parts) != 5 {
		t.Fatalf("%d parts", len(parts))
	}
	if err := json.Unmarshal(unb64(t, parts[0]), &header); err != nil {
		t.Fatal(err)
	}
	alg, enc := header["alg"].(string), header["enc"].(string)
	epk := header["epk"].(map[string]any)
	point := append(append([]byte{4}, unb64(t, epk["x"].(string))...), unb64(t, epk["y"].(string))...)
	key := asECDH(t, private)
	public, err := key.Curve().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	z, err := key.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	var cek []byte
	switch alg {
	case "ECDH-ES":
		if parts[1] != "" {
			t.Fatal("ECDH-ES with an encrypted key")
		}
		cek = concatKDF(z, enc, nil, nil, contentKeySize[enc])
	case "ECDH-ES+A128KW":
		cek = unwrapKey(t, concatKDF(z, alg, nil, nil, 16), unb64(t, parts[1]))
	case "ECDH-ES+A256KW":
		cek = unwrapKey(t, concatKDF(z, alg, nil, nil, 32), unb64(t, parts[1]))
	default:
		t.Fatalf("alg %s", alg)
	}
	if len(cek) != contentKeySize[enc] {
		t.Fatalf("a content key of %d bytes for %s", len(cek), enc)
	}
	plaintext = openContent(t, enc, cek, unb64(t, parts[2]), unb64(t, parts[3]), unb64(t, parts[4]), []byte(parts[0]))
	if header["zip"] == "DEF" {
		if plaintext, err = io.ReadAll(flate.NewReader(bytes.NewReader(plaintext))); err != nil {
			t.Fatal(err)
		}
	}
	return header, plaintext
}

// forge encrypts to a P-256 key with ECDH-ES and A128GCM under whatever header
// is wanted; epk is put in unless it is there.
func forge(t testing.TB, public *ecdsa.PublicKey, header map[string]any, plaintext []byte) string {
	t.Helper()
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	to, err := public.ECDH()
	if err != nil {
		t.Fatal(err)
	}
	z, err := ephemeral.ECDH(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, has := header["epk"]; !has {
		point := ephemeral.PublicKey().Bytes()
		header["epk"] = map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
	}
	return seal(t, header, concatKDF(z, "A128GCM", nil, nil, 16), plaintext)
}

// seal makes a compact JWE with A128GCM and no encrypted key.
func seal(t testing.TB, header map[string]any, key, plaintext []byte) string {
	t.Helper()
	data, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	protected := b64(data)
	iv := make([]byte, 12)
	if _, err := rand.Read(iv); err != nil {
		t.Fatal(err)
	}
	sealed := gcm(t, key).Seal(nil, iv, plaintext, []byte(protected))
	at := len(sealed) - 16
	return strings.Join([]string{protected, "", b64(iv), b64(sealed[:at]), b64(sealed[at:])}, ".")
}

// deflated compresses.
func deflated(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bomb is about a KiB for each MiB that it inflates to.
func bomb(t testing.TB, mebibytes int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	one := bytes.Clone(out.Bytes())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(bytes.Repeat(one, mebibytes), out.Bytes()[len(one):]...)
}

// The keys and the result of RFC 7518 appendix C.
const (
	aliceX  = "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0"
	aliceY  = "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps"
	bobX    = "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ"
	bobY    = "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck"
	bobD    = "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw"
	agreed  = "VqqN6vgjbSBcIijNcacQGg"
	bobName = "bob"
)

// bobJWK is Bob's private key as the store keeps one.
func bobJWK() []byte {
	return []byte(`{"kty":"EC","crv":"P-256","x":"` + bobX + `","y":"` + bobY + `","d":"` + bobD + `","alg":"ECDH-ES","use":"enc","kid":"` + bobName + `"}`)
}

// TestVectorOfRFC7518 appendix C: the second reading derives the key, and a
// message under that key from the appendix decrypts with apu and apv.
func TestVectorOfRFC7518(t *testing.T) {
	bob, err := load(store.EncryptionKey{Kid: bobName, Private: bobJWK()})
	if err != nil {
		t.Fatal(err)
	}
	alice, err := ecdh.P256().NewPublicKey(append(append([]byte{4}, unb64(t, aliceX)...), unb64(t, aliceY)...))
	if err != nil {
		t.Fatal(err)
	}
	z, err := asECDH(t, bob.private).ECDH(alice)
	if err != nil {
		t.Fatal(err)
	}
	key := concatKDF(z, "A128GCM", []byte("Alice"), []byte("Bob"), 16)
	if b64(key) != agreed {
		t.Fatalf("derived %s", b64(key))
	}
	e := opened(t, Options{Request: Required, Response: Off}, &memory{keys: []store.EncryptionKey{{Kid: bobName, Private: bobJWK(), CreatedAt: start}}})
	header := map[string]any{"alg": "ECDH-ES", "enc": "A128GCM", "apu": "QWxpY2U", "apv": "Qm9i", "kid": bobName,
		"epk": map[string]any{"kty": "EC", "crv": "P-256", "x": aliceX, "y": aliceY}}
	got, err := e.Decrypt([]byte(seal(t, header, unb64(t, agreed), []byte("plain"))))
	if err != nil || string(got) != "plain" {
		t.Errorf("%q, %v", got, err)
	}
}
