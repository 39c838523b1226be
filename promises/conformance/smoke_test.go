package conformance

import (
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// TestInstances: a credential of each format from each instance, so that what
// the other tests refuse is refused for its defect alone.
func TestInstances(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t), "draft-13": draft(t, "draft-13"), "draft-15": draft(t, "draft-15")} {
		for _, id := range []string{mdl, pidMdoc, pidSDJWT, residence, single, byProof} {
			t.Run(name+" "+id, func(t *testing.T) {
				s := i.session(t, id)
				credentials(t, s.ask(t, request(id, i.proof(t, newKey(t, jose.ES256), i.nonce(t), func(_, claims members) {
					if s.client != nil {
						claims["iss"] = walletID
					}
				}))), 1)
			})
		}
	}
}
