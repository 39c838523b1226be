// Package challenge makes values that somebody unauthenticated is given and
// must soon show again: DPoP nonces and attestation challenges. A value is
// base64url(time ‖ random ‖ MAC), so nothing is stored for it. The key lives in
// this process; after a restart the values are unknown and clients are given
// another one.
package challenge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"

	"chancery/issuance/jws"
)

const (
	timeSize   = 8 // Unix milliseconds
	randomSize = 16
	macSize    = 15
	size       = timeSize + randomSize + macSize
)

// MaxAhead is how far in the future a value may have been made: the clock was
// set back meanwhile. Further, and all of them are unknown.
const MaxAhead = 10 * time.Second

// ID is the random part of a value.
type ID [randomSize]byte

// Source makes and checks values. One source does not know another's. Any
// number of goroutines may use it.
type Source struct {
	key      [32]byte
	lifetime time.Duration
}

// New returns a source whose values are good for lifetime.
func New(lifetime time.Duration) *Source {
	s := &Source{lifetime: lifetime}
	_, _ = rand.Read(s.key[:]) // never fails: it ends the process instead
	return s
}

func (s *Source) mac(body []byte) []byte {
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write(body)
	return mac.Sum(nil)[:macSize]
}

// Make returns a new value, 52 characters of base64url.
func (s *Source) Make(now time.Time) string {
	var b [size]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli()))
	_, _ = rand.Read(b[timeSize : timeSize+randomSize])
	copy(b[timeSize+randomSize:], s.mac(b[:timeSize+randomSize]))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Check returns a value's identity when this source made it and it has not
// expired. A value may be shown any number of times.
func (s *Source) Check(value string, now time.Time) (id ID, ok bool) {
	if len(value) != size/3*4 {
		return id, false
	}
	b, err := jws.Base64URL(value)
	if err != nil || !hmac.Equal(b[timeSize+randomSize:], s.mac(b[:timeSize+randomSize])) {
		return id, false
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(b))))
	return ID(b[timeSize:]), age < s.lifetime && age >= -MaxAhead
}
