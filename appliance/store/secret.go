package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"math/big"
)

// A code, token or offer URI is base64url(row id, 6 bytes ‖ secret, 24 bytes):
// 40 characters, 192 random bits (RFC 6749 §10.10 asks for 160).
const (
	idSize     = 6
	secretSize = 24
	opaqueSize = idSize + secretSize
	// opaqueLength is an opaque string's length in characters.
	opaqueLength = opaqueSize / 3 * 4
)

type secret [secretSize]byte

func newSecret() (s secret, err error) {
	_, err = rand.Read(s[:])
	return s, err
}

// hash is what the row keeps.
func (s secret) hash() []byte {
	sum := sha256.Sum256(s[:])
	return sum[:]
}

// opaque joins a row's id and a secret.
func opaque(id int64, s secret) string {
	var b [opaqueSize]byte
	putID(b[:idSize], id)
	copy(b[idSize:], s[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// parseOpaque takes an opaque string apart; ok is false when it is none.
func parseOpaque(text string) (id int64, s secret, ok bool) {
	if len(text) != opaqueLength {
		return 0, s, false
	}
	var b [opaqueSize]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(text)); err != nil || n != opaqueSize {
		return 0, s, false
	}
	copy(s[:], b[idSize:])
	return getID(b[:idSize]), s, true
}

func putID(b []byte, id int64) {
	for i := range idSize {
		b[i] = byte(id >> (8 * (idSize - 1 - i)))
	}
}

func getID(b []byte) (id int64) {
	for i := range idSize {
		id = id<<8 | int64(b[i])
	}
	return id
}

// same compares two hashes in constant time.
func same(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// codeOf derives the pre-authorized code's secret from the offer URI's: who may
// fetch the offer gets the code anyway, and the row needs to keep neither.
func codeOf(uri secret) (code secret) {
	mac := hmac.New(sha256.New, uri[:])
	mac.Write([]byte("pre-authorized_code"))
	copy(code[:], mac.Sum(nil))
	return code
}

// derive makes another secret of an access token's, for a configuration's place
// in the offer: a request that is repeated gets the same again, and only its hash
// needs to be kept.
func (s secret) derive(purpose string, place int) (out secret) {
	mac := hmac.New(sha256.New, s[:])
	mac.Write([]byte(purpose))
	mac.Write([]byte{byte(place)})
	copy(out[:], mac.Sum(nil))
	return out
}

// newUUID makes a row's public identifier, a UUID of version 8 (RFC 9562
// §5.8): 48 bits are the row's id, 74 are random.
func newUUID(id int64) (u [16]byte, err error) {
	if _, err = rand.Read(u[idSize:]); err != nil {
		return u, err
	}
	putID(u[:idSize], id)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u, nil
}

func formatUUID(u []byte) string {
	if len(u) != 16 {
		return ""
	}
	text := hex.EncodeToString(u)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// parseUUID reads the canonical form only.
func parseUUID(text string) (u [16]byte, ok bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return u, false
	}
	plain := text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
	if _, err := hex.Decode(u[:], []byte(plain)); err != nil || formatUUID(u[:]) != text {
		return u, false
	}
	return u, true
}

// NewCredentialID returns a random identifier of a credential (UUID, version 4).
func NewCredentialID() (string, error) {
	var u [16]byte
	if _, err := rand.Read(u[:]); err != nil {
		return "", err
	}
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	return formatUUID(u[:]), nil
}

// Alphabets of transaction codes. The text one has no letters that people
// mistake for digits.
const (
	numericAlphabet = "0123456789"
	textAlphabet    = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
)

// newTransactionCode draws each character without bias.
func newTransactionCode(alphabet string, length int) (string, error) {
	code := make([]byte, length)
	for i := range code {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			return "", err
		}
		code[i] = alphabet[n.Int64()]
	}
	return string(code), nil
}
