package oid4vci

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"sync"
	"time"
)

// A c_nonce is base64url(time ‖ random ‖ MAC): nothing is stored for an
// unauthenticated request. The key lives in this process; after a restart
// wallets are told invalid_nonce and fetch another one (OpenID4VCI 1.0 §13.8).
const (
	nonceTime   = 8 // Unix milliseconds
	nonceRandom = 16
	nonceMAC    = 15
	nonceSize   = nonceTime + nonceRandom + nonceMAC
)

// maxNonceAhead is how far in the future a nonce may have been made: the clock
// was set back meanwhile. Further back, and all of them are unknown.
const maxNonceAhead = 10 * time.Second

// nonceID is the random part.
type nonceID [nonceRandom]byte

// nonces makes and checks c_nonces and remembers those that were used.
type nonces struct {
	key      [32]byte
	lifetime time.Duration

	mu sync.Mutex // guards what follows
	// used holds nonces that a credential was issued on, or is being. Two
	// generations, each as long as a nonce can last: the older is dropped whole.
	used, older map[nonceID]struct{}
	turned      time.Time
}

func newNonces(lifetime time.Duration) (*nonces, error) {
	n := &nonces{lifetime: lifetime, used: map[nonceID]struct{}{}, older: map[nonceID]struct{}{}}
	_, err := rand.Read(n.key[:])
	return n, err
}

func (n *nonces) mac(body []byte) []byte {
	mac := hmac.New(sha256.New, n.key[:])
	mac.Write(body)
	return mac.Sum(nil)[:nonceMAC]
}

// make returns a new nonce.
func (n *nonces) make(now time.Time) (string, error) {
	var b [nonceSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli()))
	if _, err := rand.Read(b[nonceTime : nonceTime+nonceRandom]); err != nil {
		return "", err
	}
	copy(b[nonceTime+nonceRandom:], n.mac(b[:nonceTime+nonceRandom]))
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// check returns a nonce's identity when this process made it and it has not
// expired.
func (n *nonces) check(nonce string, now time.Time) (id nonceID, ok bool) {
	if len(nonce) != nonceSize/3*4 {
		return id, false
	}
	var b [nonceSize]byte
	if m, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(nonce)); err != nil || m != nonceSize {
		return id, false
	}
	if !hmac.Equal(b[nonceTime+nonceRandom:], n.mac(b[:nonceTime+nonceRandom])) {
		return id, false
	}
	made := time.UnixMilli(int64(binary.BigEndian.Uint64(b[:])))
	copy(id[:], b[nonceTime:])
	age := now.Sub(made)
	return id, age < n.lifetime && age >= -maxNonceAhead
}

// claim reserves nonces for one request, all or none; false when one was used.
// The same nonce may stand in several proofs of a request.
func (n *nonces) claim(ids []nonceID, now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.turned) >= n.lifetime+maxNonceAhead {
		n.used, n.older, n.turned = map[nonceID]struct{}{}, n.used, now
	}
	for _, id := range ids {
		if _, used := n.used[id]; used {
			return false
		}
		if _, used := n.older[id]; used {
			return false
		}
	}
	for _, id := range ids {
		n.used[id] = struct{}{}
	}
	return true
}

// release gives nonces back after a failure: they were not used.
func (n *nonces) release(ids []nonceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		delete(n.used, id)
		delete(n.older, id)
	}
}

// serveNonce is the nonce endpoint (OpenID4VCI 1.0 §7). It takes no token and
// ignores whatever else is sent.
func (i *Issuer) serveNonce(c *call) string {
	nonce, err := i.nonces.make(i.now())
	if err != nil {
		return i.failed(c, err)
	}
	if nonce := i.dpop.Nonce(true); nonce != "" {
		c.w.Header().Set("DPoP-Nonce", nonce)
	}
	body := make([]byte, 0, 80)
	body = append(body, `{"c_nonce":"`...)
	body = append(body, nonce...)
	body = append(body, `"}`...)
	writeJSON(c.w, http.StatusOK, body)
	return "ok"
}
