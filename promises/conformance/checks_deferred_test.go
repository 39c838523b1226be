package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// deferred is a session whose credential waits for an operator.
type deferred struct {
	*session
	keys        []key
	body        []byte // the credential request
	transaction string
}

// later asks for a credential that an operator approves; s is a session for it.
func (s *session) later(t testing.TB) *deferred {
	t.Helper()
	d := &deferred{session: s, keys: []key{newKey(t, jose.ES256)}}
	d.body = marshal(t, request(approved, s.proof(t, d.keys[0], s.nonce(t), nil)))
	d.transaction = waiting(t, s.post(t, "/credential", d.body))
	return d
}

// waiting checks an answer for a credential that is not ready and returns its
// transaction_id (checks 275, 276).
func waiting(t testing.TB, a answer) string {
	t.Helper()
	var body struct {
		Transaction string `json:"transaction_id"`
		Interval    int    `json:"interval"`
	}
	decoder := json.NewDecoder(bytes.NewReader(a.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil || a.status != http.StatusAccepted || body.Transaction == "" || body.Interval != 1 {
		t.Fatalf("%d %v %.300s", a.status, err, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", a.header)
	}
	return body.Transaction
}

func (d *deferred) poll(t testing.TB) answer {
	t.Helper()
	return d.post(t, "/deferred", marshal(t, members{"transaction_id": d.transaction}))
}

// decide approves or refuses what waits for an offer.
func (i *instance) decide(t testing.TB, o offer, decision string) {
	t.Helper()
	var list struct {
		Data []struct {
			ID      string `json:"id"`
			OfferID string `json:"offerId"`
		} `json:"data"`
	}
	a := i.operator(t, http.MethodGet, "/v1/openid/deferred?state=pending&limit=1000", nil)
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != http.StatusOK {
		t.Fatalf("%d %v %.300s", a.status, err, a.body)
	}
	for _, d := range list.Data {
		if d.OfferID != o.id {
			continue
		}
		if a := i.operator(t, http.MethodPost, "/v1/openid/deferred/"+d.ID+"/"+decision, nil); a.status != http.StatusOK {
			t.Fatalf("%s: %d %.300s", decision, a.status, a.body)
		}
		return
	}
	t.Fatalf("nothing waits for offer %s: %.300s", o.id, a.body)
}

// The life of a deferred credential: asked for, polled, approved, fetched, over.
func TestCheck275To278Approved(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, s := range []*session{i.session(t, approved), i.bound(t, approved)} {
			d := s.later(t) // 275
			t.Run("275 again "+name, func(t *testing.T) {
				if again := waiting(t, d.post(t, "/credential", d.body)); again != d.transaction {
					t.Error("the same request got another transaction_id")
				}
				refused(t, d.ask(t, request(approved, d.proof(t, newKey(t, jose.ES256), d.nonce(t), nil))), http.StatusBadRequest, "credential_request_denied")
			})
			t.Run("276 "+name, func(t *testing.T) {
				for range 3 {
					if again := waiting(t, d.poll(t)); again != d.transaction {
						t.Error("another transaction_id")
					}
				}
				s.nothingIssued(t)
			})
			i.decide(t, d.offer, "approve")
			s.nothingIssued(t) // it is signed when the wallet comes
			t.Run("277 "+name, func(t *testing.T) {
				a := d.poll(t)
				i.verified(t, credentials(t, a, 1)[0], &d.keys[0])
				if a.text(t, "notification_id") == "" {
					t.Error("no notification_id")
				}
				if state, list := i.look(t, d.offer); state != "issued" || len(list) != 1 {
					t.Errorf("%s, %d credentials", state, len(list))
				}
			})
			t.Run("278 "+name, func(t *testing.T) {
				refused(t, d.poll(t), http.StatusBadRequest, "invalid_transaction_id")
			})
			t.Run("278 an answer that was lost "+name, func(t *testing.T) {
				i.verified(t, credentials(t, d.post(t, "/credential", d.body), 1)[0], &d.keys[0])
			})
			i.recorded(t, d.offer, "deferred.requested", "deferred.approved", "offer.issued")
		}
	}
}

// A token that is bound to a key lives long enough to wait for an operator.
func TestCheck275LifeOfTheToken(t *testing.T) {
	i := plain(t)
	for s, want := range map[*session]float64{i.session(t, approved): 300, i.bound(t, approved): 86400, i.bound(t, pidSDJWT): 300} {
		if got := s.answer.object(t)["expires_in"]; got != want {
			t.Errorf("bound %t: expires_in %v, want %v", s.key != nil, got, want)
		}
	}
}

// A batch is deferred, and fetched, as a whole.
func TestCheck277Batch(t *testing.T) {
	i := plain(t)
	// check.approval gives one credential a time: the first key's.
	s, nonce := i.session(t, approved), i.nonce(t)
	d := &deferred{session: s}
	var proofs []string
	for range 3 {
		k := newKey(t, jose.ES256)
		d.keys, proofs = append(d.keys, k), append(proofs, i.proof(t, k, nonce, nil))
	}
	d.transaction = waiting(t, s.ask(t, request(approved, proofs...)))
	i.decide(t, d.offer, "approve")
	i.verified(t, credentials(t, d.poll(t), 1)[0], &d.keys[0])
}

func TestCheck279To281TransactionID(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		d, other := i.session(t, approved).later(t), i.session(t, approved).later(t)
		t.Run("279 "+name, func(t *testing.T) {
			for _, id := range []string{"x", strings.Repeat("A", len(d.transaction)), d.transaction + "A", d.transaction[:len(d.transaction)-1], d.token, "d13." + d.transaction, "d15." + d.transaction} {
				refused(t, d.post(t, "/deferred", marshal(t, members{"transaction_id": id})), http.StatusBadRequest, "invalid_transaction_id")
			}
		})
		t.Run("280 "+name, func(t *testing.T) {
			for _, body := range []string{"{}", `{"transaction_id":null}`, `{"transaction_id":""}`, `{"transaction_id":1}`, `{"transaction_id":["x"]}`, "", "[]", `{"transaction_id":"x","transaction_id":"x"}`} {
				refused(t, d.post(t, "/deferred", []byte(body)), http.StatusBadRequest, "invalid_credential_request")
			}
			refused(t, d.post(t, "/deferred", marshal(t, members{"transaction_id": d.transaction}), "Content-Type", "text/plain"), http.StatusBadRequest, "invalid_credential_request")
		})
		t.Run("281 "+name, func(t *testing.T) {
			i.decide(t, d.offer, "approve")
			refused(t, other.post(t, "/deferred", marshal(t, members{"transaction_id": d.transaction})), http.StatusBadRequest, "invalid_transaction_id")
			s := i.session(t, approved)
			refused(t, s.post(t, "/deferred", marshal(t, members{"transaction_id": d.transaction})), http.StatusBadRequest, "invalid_transaction_id")
			d.nothingIssued(t)
		})
		waiting(t, other.poll(t))
		i.verified(t, credentials(t, d.poll(t), 1)[0], &d.keys[0])
	}
}

func TestCheck282Token(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		t.Run(name, func(t *testing.T) {
			d := i.session(t, approved).later(t)
			i.decide(t, d.offer, "approve")
			body := marshal(t, members{"transaction_id": d.transaction})
			bare(t, i.do(t, http.MethodPost, "/deferred", body, "Content-Type", "application/json"))
			for _, token := range garbage(d.token) {
				challenged(t, i.do(t, http.MethodPost, "/deferred", body, "Content-Type", "application/json", "Authorization", "Bearer "+token), "Bearer", "invalid_token")
			}
			if d.key != nil {
				challenged(t, i.do(t, http.MethodPost, "/deferred", body, "Content-Type", "application/json", "Authorization", "DPoP "+d.token), "DPoP", "invalid_dpop_proof")
				challenged(t, i.do(t, http.MethodPost, "/deferred", body, "Content-Type", "application/json", "Authorization", "Bearer "+d.token), "DPoP", "invalid_token")
			}
			d.nothingIssued(t)
			credentials(t, d.poll(t), 1)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		d := plain(t).session(t, approved).later(t)
		d.decide(t, d.offer, "approve")
		d.operator(t, http.MethodDelete, "/v1/openid/offers/pre-authorized/"+d.offer.id, nil)
		challenged(t, d.poll(t), "Bearer", "invalid_token")
	})
}

func TestCheck283Refused(t *testing.T) {
	i := plain(t)
	for _, s := range []*session{i.session(t, approved), i.bound(t, approved)} {
		d := s.later(t)
		i.decide(t, d.offer, "refuse")
		for range 2 { // as often as the wallet asks
			refused(t, d.poll(t), http.StatusBadRequest, "credential_request_denied")
		}
		refused(t, d.ask(t, request(approved, d.proof(t, d.keys[0], d.nonce(t), nil))), http.StatusBadRequest, "credential_request_denied")
		if state, list := i.look(t, d.offer); state != "failed" || len(list) != 0 {
			t.Errorf("%s, %d credentials", state, len(list))
		}
		i.recorded(t, d.offer, "deferred.requested", "deferred.refused", "offer.failed")
	}
}

// Each poll says anew whether its answer is encrypted, and to which key.
func TestCheck284And285Encryption(t *testing.T) {
	i := plain(t)
	a, b := newRecipient(t), newRecipient(t)
	start := func(t *testing.T) *deferred {
		d := &deferred{session: i.session(t, approved), keys: []key{newKey(t, jose.ES256)}}
		r := request(approved, d.proof(t, d.keys[0], d.nonce(t), nil))
		r["credential_response_encryption"] = a.parameters(t)
		d.transaction = waiting(t, a.open(t, d.post(t, "/credential", i.seal(t, r), "Content-Type", "application/jwt")))
		return d
	}
	t.Run("284 another key", func(t *testing.T) {
		d := start(t)
		poll := func() answer {
			return d.post(t, "/deferred", i.seal(t, members{"transaction_id": d.transaction, "credential_response_encryption": b.parameters(t)}), "Content-Type", "application/jwt")
		}
		waiting(t, b.open(t, poll()))
		i.decide(t, d.offer, "approve")
		i.verified(t, credentials(t, b.open(t, poll()), 1)[0], &d.keys[0])
	})
	t.Run("284 none, after an encrypted request", func(t *testing.T) {
		d := start(t)
		waiting(t, d.poll(t))
		i.decide(t, d.offer, "approve")
		i.verified(t, credentials(t, d.post(t, "/deferred", i.seal(t, members{"transaction_id": d.transaction}), "Content-Type", "application/jwt"), 1)[0], &d.keys[0])
	})
	t.Run("284 one, after a plain request", func(t *testing.T) {
		d := i.session(t, approved).later(t)
		i.decide(t, d.offer, "approve")
		sealed := i.seal(t, members{"transaction_id": d.transaction, "credential_response_encryption": b.parameters(t)})
		i.verified(t, credentials(t, b.open(t, d.post(t, "/deferred", sealed, "Content-Type", "application/jwt")), 1)[0], &d.keys[0])
		// An error is never encrypted.
		refused(t, d.post(t, "/deferred", sealed, "Content-Type", "application/jwt"), http.StatusBadRequest, "invalid_transaction_id")
	})
	t.Run("284 wrong parameters", func(t *testing.T) {
		d := start(t)
		i.decide(t, d.offer, "approve")
		wrong := b.parameters(t)
		wrong["enc"] = "A128"
		refused(t, d.post(t, "/deferred", i.seal(t, members{"transaction_id": d.transaction, "credential_response_encryption": wrong}), "Content-Type", "application/jwt"), http.StatusBadRequest, "invalid_encryption_parameters")
		d.nothingIssued(t)
		credentials(t, d.poll(t), 1)
	})
	t.Run("285", func(t *testing.T) {
		d := i.session(t, approved).later(t)
		waiting(t, d.poll(t))
		i.decide(t, d.offer, "approve")
		credentials(t, d.poll(t), 1)
	})
	t.Run("284 where all must be encrypted", func(t *testing.T) {
		i := sealed(t)
		d := &deferred{session: i.session(t, approved), keys: []key{newKey(t, jose.ES256)}}
		r := request(approved, d.proof(t, d.keys[0], d.nonce(t), nil))
		r["credential_response_encryption"] = a.parameters(t)
		d.transaction = waiting(t, a.open(t, d.post(t, "/credential", i.seal(t, r), "Content-Type", "application/jwt")))
		i.decide(t, d.offer, "approve")
		refused(t, d.poll(t), http.StatusBadRequest, "invalid_encryption_parameters")
		refused(t, d.post(t, "/deferred", i.seal(t, members{"transaction_id": d.transaction}), "Content-Type", "application/jwt"), http.StatusBadRequest, "invalid_encryption_parameters")
		i.verified(t, credentials(t, b.open(t, d.post(t, "/deferred", i.seal(t, members{"transaction_id": d.transaction, "credential_response_encryption": b.parameters(t)}), "Content-Type", "application/jwt")), 1)[0], &d.keys[0])
	})
}

// A request of the draft's form is told issuance_pending when it polls; one of
// 1.0's form is answered as 1.0 has it on the same instance.
func TestCheck286Drafts(t *testing.T) {
	for _, name := range []string{"draft-13", "draft-15"} {
		t.Run(name, func(t *testing.T) {
			i := draft(t, name)
			d := &deferred{session: i.session(t, approved), keys: []key{newKey(t, jose.ES256)}}
			a := d.ask(t, members{"credential_configuration_id": approved, "proof": members{"proof_type": "jwt", "jwt": d.proof(t, d.keys[0], d.nonce(t), nil)}})
			d.transaction = waiting(t, a)
			a = d.poll(t)
			object := a.object(t)
			if a.status != http.StatusBadRequest || object["error"] != "issuance_pending" || object["interval"] != 1.0 || a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("%d %s %v", a.status, a.body, a.header)
			}
			of10 := i.session(t, approved).later(t)
			waiting(t, of10.poll(t))
			i.decide(t, d.offer, "approve")
			i.decide(t, of10.offer, "approve")
			a = d.poll(t)
			object = a.object(t)
			credential, _ := object["credential"].(string)
			if name == "draft-13" {
				if names := slices.Sorted(maps.Keys(object)); fmt.Sprint(names) != "[c_nonce c_nonce_expires_in credential notification_id]" {
					t.Errorf("members %v", names)
				}
				i.asDraft13(t, credential, approved, d.keys[0])
			} else {
				i.verified(t, credentials(t, a, 1)[0], &d.keys[0])
			}
			i.verified(t, credentials(t, of10.poll(t), 1)[0], &of10.keys[0])
			refused(t, of10.poll(t), http.StatusBadRequest, "invalid_transaction_id")
		})
	}
}
