package oid4vci

import (
	"net/http"
	"sync"
	"time"

	"chancery/appliance/oid4vci/challenge"
)

// nonces makes and checks c_nonces, for which nothing is stored, and remembers
// those that were used. After a restart wallets are told invalid_nonce and fetch
// another one (OpenID4VCI 1.0 §13.8).
type nonces struct {
	source   *challenge.Source
	lifetime time.Duration

	mu sync.Mutex // guards what follows
	// used holds nonces that a credential was issued on, or is being. Two
	// generations, each as long as a nonce can last: the older is dropped whole.
	used, older map[challenge.ID]struct{}
	turned      time.Time
}

func newNonces(lifetime time.Duration) *nonces {
	return &nonces{source: challenge.New(lifetime), lifetime: lifetime, used: map[challenge.ID]struct{}{}, older: map[challenge.ID]struct{}{}}
}

// make returns a new nonce and for how many seconds it is good, which the drafts
// tell wallets.
func (n *nonces) make(now time.Time) (nonce string, seconds int) {
	return n.source.Make(now), int(n.lifetime.Seconds())
}

// claim reserves nonces for one request, all or none; false when one is not this
// process's, has expired, or was used. The same nonce may stand in several proofs
// of a request. Release them when nothing was issued on them.
func (n *nonces) claim(values []string, now time.Time) ([]challenge.ID, bool) {
	ids := make([]challenge.ID, len(values))
	for i, value := range values {
		var ok bool
		if ids[i], ok = n.source.Check(value, now); !ok {
			return nil, false
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if now.Sub(n.turned) >= n.lifetime+challenge.MaxAhead {
		n.used, n.older, n.turned = map[challenge.ID]struct{}{}, n.used, now
	}
	for _, id := range ids {
		if _, used := n.used[id]; used {
			return nil, false
		}
		if _, used := n.older[id]; used {
			return nil, false
		}
	}
	for _, id := range ids {
		n.used[id] = struct{}{}
	}
	return ids, true
}

// release gives nonces back after a failure: they were not used.
func (n *nonces) release(ids []challenge.ID) {
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
	if nonce := i.dpop.Nonce(true); nonce != "" {
		c.w.Header().Set("DPoP-Nonce", nonce)
	}
	body := make([]byte, 0, 80)
	body = append(body, `{"c_nonce":"`...)
	body = append(body, i.nonces.source.Make(i.now())...)
	body = append(body, `"}`...)
	writeJSON(c.w, http.StatusOK, body)
	return "ok"
}
