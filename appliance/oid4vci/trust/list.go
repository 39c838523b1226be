package trust

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"errors"
	"io"
	"time"

	"chancery/appliance/oid4vci/jwt"
	"chancery/issuance/jws"
)

// Bounds of a list, in bytes: of the token as it is sent, and of the list when
// it is decompressed, which is room for 32 million entries of one bit.
const (
	maxToken = 2 << 20
	maxList  = 4 << 20
)

// clockSkew is how far a status list's clock may be ahead.
const clockSkew = time.Minute

// list is a Status List, or why there is none, and until when that is so.
type list struct {
	width int // bits of an entry: 1, 2, 4 or 8
	bits  []byte
	err   error
	until time.Time
}

var errList = errors.New("not a valid Status List Token")

// read judges a Status List Token (draft-ietf-oauth-status-list §5.1, §8.3).
func (s *Status) read(compact, uri string) (list, error) {
	t, err := jwt.Parse(compact, maxToken)
	if err != nil {
		return list{}, err
	}
	now := s.options.Now()
	if t.Header["typ"] != "statuslist+jwt" || t.Claims["sub"] != uri {
		return list{}, errList
	}
	source, err := s.options.Providers.Resolve(t, now)
	if err != nil {
		return list{}, err
	}
	if !t.Verify(source.Key) {
		return list{}, errList
	}
	until, err := validity(t.Claims, now)
	if err != nil {
		return list{}, err
	}
	object, _ := t.Claims["status_list"].(map[string]any)
	number, _ := object["bits"].(json.Number)
	text, _ := object["lst"].(string)
	width, err := number.Int64()
	if err != nil || width != 1 && width != 2 && width != 4 && width != 8 {
		return list{}, errList
	}
	bits, err := inflate(text)
	if err != nil {
		return list{}, err
	}
	return list{width: int(width), bits: bits, until: until}, nil
}

// validity holds iat, exp and ttl against the clock and returns how long the
// list may be kept: until exp, for ttl.
func validity(claims map[string]any, now time.Time) (time.Time, error) {
	issued, ok := jwt.Date(claims["iat"])
	if !ok || issued.After(now.Add(clockSkew)) {
		return time.Time{}, errList
	}
	ttl := defaultTTL
	if value, has := claims["ttl"]; has {
		number, _ := value.(json.Number)
		seconds, err := number.Float64()
		if err != nil || seconds <= 0 {
			return time.Time{}, errList
		}
		ttl = maxTTL
		if seconds < maxTTL.Seconds() {
			ttl = time.Duration(seconds * float64(time.Second))
		}
	}
	until := now.Add(ttl)
	if value, has := claims["exp"]; has {
		expires, ok := jwt.Date(value)
		if !ok || !expires.After(now) {
			return time.Time{}, errList
		}
		if expires.Before(until) {
			until = expires
		}
	}
	return until, nil
}

// inflate decodes lst: base64url, zlib. A longer list than maxList is refused
// when so much of it was decompressed.
func inflate(text string) ([]byte, error) {
	compressed, err := jws.Base64URL(text)
	if err != nil {
		return nil, err
	}
	r, err := zlib.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	bits, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err != nil {
		return nil, err
	}
	if len(bits) == 0 || len(bits) > maxList {
		return nil, errList
	}
	return bits, r.Close()
}

// at returns an entry; the lowest bits of a byte come first
// (draft-ietf-oauth-status-list §4.1).
func (l list) at(index uint64) (byte, bool) {
	perByte := uint64(8 / l.width)
	if index/perByte >= uint64(len(l.bits)) {
		return 0, false
	}
	shift := index % perByte * uint64(l.width)
	return l.bits[index/perByte] >> shift & byte(1<<l.width-1), true
}
