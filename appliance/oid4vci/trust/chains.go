package trust

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
	"time"

	"chancery/appliance/oid4vci/jwt"
)

// A chain that was found good is not judged again for chainLifetime, as a
// provider sends the same one with all its attestations: that is half of what an
// attestation costs. At most maxChains are kept.
const (
	chainLifetime = 5 * time.Minute
	maxChains     = 256
)

// chains remembers good chains; bad ones are judged each time.
type chains struct {
	mu   sync.Mutex // guards good
	good map[[sha256.Size]byte]goodChain
}

// goodChain is what a chain leads to, and the time within which that holds.
type goodChain struct {
	matches     []match
	from, until time.Time
}

// judge returns what judging an x5c header's certificates has given, or gives.
// A chain that only some provider's key stands behind is kept as well: the
// configuration does not change.
func (c *chains) judge(x5c any, now time.Time, judge func([]*x509.Certificate, time.Time) ([]match, error)) ([]match, error) {
	key, keyed := chainKey(x5c)
	if !keyed {
		return nil, ErrChain
	}
	c.mu.Lock()
	known, ok := c.good[key]
	c.mu.Unlock()
	if ok && !now.Before(known.from) && now.Before(known.until) {
		return known.matches, nil
	}
	certificates, err := jwt.Certificates(x5c)
	if err != nil {
		return nil, ErrChain
	}
	matches, err := judge(certificates, now)
	if err != nil {
		return nil, err
	}
	known = goodChain{matches, now, now.Add(chainLifetime)}
	for _, certificate := range certificates {
		// NotAfter itself is still within the validity (RFC 5280 §4.1.2.5).
		if certificate.NotAfter.Before(known.until) {
			known.until = certificate.NotAfter
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil || len(c.good) >= maxChains {
		c.good = map[[sha256.Size]byte]goodChain{}
	}
	c.good[key] = known
	return matches, nil
}

// chainKey hashes an x5c header's texts, each with its end.
func chainKey(x5c any) (key [sha256.Size]byte, ok bool) {
	list, _ := x5c.([]any)
	h := sha256.New()
	for _, element := range list {
		text, isText := element.(string)
		if !isText {
			return key, false
		}
		h.Write([]byte(text))
		h.Write([]byte{0}) // in no base64
	}
	h.Sum(key[:0])
	return key, len(list) > 0
}
