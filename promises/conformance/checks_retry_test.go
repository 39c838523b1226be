package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// A wallet whose connection broke repeats its request: same token, same keys.

// repeated is a session whose credentials were issued, and its request.
type repeated struct {
	*session
	id    string
	keys  []key
	used  string // the first request's nonce
	body  []byte
	first answer
}

// once asks for n credentials of a configuration.
func (s *session) once(t testing.TB, id string, n int) *repeated {
	t.Helper()
	r := &repeated{session: s, id: id, used: s.nonce(t)}
	var proofs []string
	for range n {
		k := newKey(t, jose.ES256)
		r.keys, proofs = append(r.keys, k), append(proofs, s.proof(t, k, r.used, nil))
	}
	r.body = marshal(t, request(id, proofs...))
	r.first = s.post(t, "/credential", r.body)
	credentials(t, r.first, n)
	return r
}

// proofs are fresh ones of the same keys.
func (r *repeated) proofs(t testing.TB, nonce string) (proofs []string) {
	t.Helper()
	for _, k := range r.keys {
		proofs = append(proofs, r.proof(t, k, nonce, with(nil, members{"fresh": true})))
	}
	return proofs
}

// equivalent checks what a repetition was answered against what came first.
func (r *repeated) equivalent(t testing.TB, a answer) {
	t.Helper()
	first, again := credentials(t, r.first, len(r.keys)), credentials(t, a, len(r.keys))
	for n := range r.keys {
		was, is := r.verified(t, first[n], &r.keys[n]), r.verified(t, again[n], &r.keys[n])
		if first[n] == again[n] {
			t.Error("the credential was not signed anew")
		}
		said := func(c []string) string { return strings.Join(c, "\n") }
		var before, after []string
		for _, c := range was.Claims {
			before = append(before, fmt.Sprint(c.Path, c.Text))
		}
		for _, c := range is.Claims {
			after = append(after, fmt.Sprint(c.Path, c.Text))
		}
		if len(before) == 0 || said(before) != said(after) || was.Type != is.Type || was.Issuer != is.Issuer {
			t.Errorf("another credential:\n%.400s\n%.400s", said(before), said(after))
		}
	}
	if a.text(t, "notification_id") != r.first.text(t, "notification_id") {
		t.Error("another notification_id")
	}
}

// logged demands an intent and an outcome in the audit log for each signature,
// and that each repetition has the identifiers of what came first.
func (r *repeated) logged(t testing.TB, repetitions int) {
	t.Helper()
	state, list := r.look(t, r.offer)
	if state != "issued" || len(list) != len(r.keys)*(1+repetitions) {
		t.Fatalf("%s, %d credentials", state, len(list))
	}
	log := r.auditLog(t)
	intents := map[int]bool{}
	for n, c := range list {
		if c.ID != list[n%len(r.keys)].ID {
			t.Errorf("signature %d has another credential identifier", n)
		}
		intent, made := log[c.Intent], log[c.Outcome]
		if intents[c.Intent] || intent.Kind != "signature.intent" || made.Kind != "signature.made" || made.Intent == nil || *made.Intent != c.Intent ||
			intent.Credential != c.ID || made.Credential != c.ID || intent.Offer != r.offer.id || intent.Configuration != r.id {
			t.Errorf("signature %d: %s%s", n, intent.line, made.line)
		}
		intents[c.Intent] = true
	}
	signatures := 0
	for _, e := range log {
		if e.Kind == "signature.intent" && e.Offer == r.offer.id {
			signatures++
		}
	}
	if signatures != len(list) {
		t.Errorf("the log has %d signatures, the offer %d", signatures, len(list))
	}
}

// The same request, byte for byte, gets equivalent credentials: same keys, same
// identifiers, a signature and a log entry of its own.
func TestRetrySameRequest(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, id := range []string{mdl, pidSDJWT, residence} {
			t.Run(name+" "+id, func(t *testing.T) {
				r := i.session(t, id).once(t, id, 2)
				for range 2 {
					r.equivalent(t, r.post(t, "/credential", r.body))
				}
				r.logged(t, 2)
			})
		}
	}
	t.Run("without binding", func(t *testing.T) {
		i := plain(t)
		s := i.session(t, unbound)
		body := marshal(t, members{"credential_configuration_id": unbound})
		i.verified(t, credentials(t, s.post(t, "/credential", body), 1)[0], nil)
		i.verified(t, credentials(t, s.post(t, "/credential", body), 1)[0], nil)
		if _, list := i.look(t, s.offer); len(list) != 2 || list[0].ID != list[1].ID {
			t.Errorf("%v", list)
		}
	})
	t.Run("before the other configuration is issued", func(t *testing.T) {
		i := plain(t)
		s := (&session{instance: i, offer: i.offer(t, pidSDJWT, func(r map[string]any) { r["credentials"] = []string{pidSDJWT, unbound} })}).redeem(t, nil)
		r := s.once(t, pidSDJWT, 1)
		r.equivalent(t, r.post(t, "/credential", r.body))
		credentials(t, s.ask(t, members{"credential_configuration_id": unbound}), 1)
		r.equivalent(t, r.post(t, "/credential", r.body))
	})
}

// Other proofs of the same keys need a fresh nonce; other keys get nothing.
func TestRetryOtherProofsOtherKeys(t *testing.T) {
	i := plain(t)
	r := i.session(t, pidSDJWT).once(t, pidSDJWT, 2)
	t.Run("other proofs, used nonce", func(t *testing.T) {
		refused(t, r.ask(t, request(pidSDJWT, r.proofs(t, r.used)...)), http.StatusBadRequest, "invalid_nonce")
	})
	nonce := i.nonce(t)
	denied := func(t *testing.T, proofs ...string) {
		refused(t, r.ask(t, request(pidSDJWT, proofs...)), http.StatusBadRequest, "credential_request_denied")
	}
	fresh := r.proofs(t, nonce)
	other := i.proof(t, newKey(t, jose.ES256), nonce, nil)
	t.Run("other keys", func(t *testing.T) { denied(t, other, i.proof(t, newKey(t, jose.ES256), nonce, nil)) })
	t.Run("one other key", func(t *testing.T) { denied(t, fresh[0], other) })
	t.Run("one more key", func(t *testing.T) { denied(t, fresh[0], fresh[1], other) })
	t.Run("one key fewer", func(t *testing.T) { denied(t, fresh[0]) })
	t.Run("another order", func(t *testing.T) { denied(t, fresh[1], fresh[0]) })
	t.Run("other proofs, fresh nonce", func(t *testing.T) { r.equivalent(t, r.ask(t, request(pidSDJWT, fresh...))) })
	r.logged(t, 1)
}

// Another wallet's token repeats nothing, even with the whole request at hand.
func TestRetryOtherToken(t *testing.T) {
	i := plain(t)
	r := i.session(t, pidSDJWT).once(t, pidSDJWT, 1)
	s := i.session(t, pidSDJWT)
	refused(t, s.post(t, "/credential", r.body), http.StatusBadRequest, "invalid_nonce")
	s.nothingIssued(t)
}

// What a wallet has notified is over, whatever it said.
func TestRetryAfterNotification(t *testing.T) {
	i := plain(t)
	// A wallet that has accepted may ask again, as the OpenID Foundation's suite does.
	t.Run("credential_accepted", func(t *testing.T) {
		r := i.session(t, pidSDJWT).once(t, pidSDJWT, 1)
		done(t, r.notify(t, r.first.text(t, "notification_id"), "credential_accepted"))
		r.equivalent(t, r.post(t, "/credential", r.body))
		r.equivalent(t, r.ask(t, request(pidSDJWT, r.proofs(t, i.nonce(t))...)))
		if state, list := i.look(t, r.offer); state != "accepted" || len(list) != 3 {
			t.Errorf("%s, %d signatures", state, len(list))
		}
	})
	for _, event := range []string{"credential_failure", "credential_deleted"} {
		t.Run(event, func(t *testing.T) {
			r := i.session(t, pidSDJWT).once(t, pidSDJWT, 1)
			r.equivalent(t, r.post(t, "/credential", r.body))
			done(t, r.notify(t, r.first.text(t, "notification_id"), event))
			a := r.post(t, "/credential", r.body)
			refused(t, a, http.StatusBadRequest, "invalid_nonce", "credential_request_denied")
			refused(t, r.ask(t, request(pidSDJWT, r.proofs(t, i.nonce(t))...)), http.StatusBadRequest, "credential_request_denied")
			if _, list := i.look(t, r.offer); len(list) != 2 {
				t.Errorf("%d signatures", len(list))
			}
		})
	}
}

// Eight repetitions, and no more, whatever proofs a wallet then sends.
func TestRetryBound(t *testing.T) {
	i := plain(t)
	r := i.session(t, pidSDJWT).once(t, pidSDJWT, 1)
	for range 8 {
		r.equivalent(t, r.post(t, "/credential", r.body))
	}
	for range 2 {
		refused(t, r.post(t, "/credential", r.body), http.StatusBadRequest, "credential_request_denied")
	}
	for name, proofs := range map[string][]string{"the same keys, fresh nonce": r.proofs(t, i.nonce(t)), "other keys": {i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)}} {
		t.Run(name, func(t *testing.T) {
			refused(t, r.ask(t, request(pidSDJWT, proofs...)), http.StatusBadRequest, "credential_request_denied")
		})
	}
	r.logged(t, 8)
}

// Without retries the claims are gone with the first answer.
func TestRetryOff(t *testing.T) {
	i, to := sealed(t), newRecipient(t)
	s, k, nonce := i.session(t, pidSDJWT), newKey(t, jose.ES256), i.nonce(t)
	ask := func(proof string) answer {
		r := request(pidSDJWT, proof)
		r["credential_response_encryption"] = to.parameters(t)
		return s.post(t, "/credential", i.seal(t, r), "Content-Type", "application/jwt")
	}
	proof := i.proof(t, k, nonce, nil)
	i.verified(t, credentials(t, to.open(t, ask(proof)), 1)[0], &k)
	refused(t, ask(proof), http.StatusBadRequest, "invalid_nonce")
	refused(t, ask(i.proof(t, k, i.nonce(t), nil)), http.StatusBadRequest, "credential_request_denied")
	if state, list := i.look(t, s.offer); state != "issued" || len(list) != 1 {
		t.Errorf("%s, %d credentials", state, len(list))
	}
}

// restart kills chanceryd, as a crash would, and waits until its supervisor has
// it serving again.
func (i *instance) restart(t testing.TB) {
	t.Helper()
	before := i.env["CHANCERYD_PID"]
	pid, err := strconv.Atoi(before)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "chanceryd serves again", func() error {
		data, err := os.ReadFile(filepath.Join(i.run, "env"))
		if err != nil || !bytes.Contains(data, []byte("CHANCERYD_PID=")) || bytes.Contains(data, []byte("CHANCERYD_PID="+before+"\n")) {
			return errors.Join(err, errors.New("it is not started yet"))
		}
		i.connect(t)
		response, err := i.client.Get(i.admin + "/readyz")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("readiness %d", response.StatusCode)
		}
		return nil
	})
}

// A repetition is answered after chanceryd was killed: what it needs is on disk,
// and only the wallet's token opens it. So is a poll.
func TestRetryAfterACrash(t *testing.T) {
	i := plain(t)
	bearer, dpop := i.session(t, pidSDJWT).once(t, pidSDJWT, 2), i.bound(t, mdl).once(t, mdl, 1)
	waits := i.session(t, approved).later(t)
	i.decide(t, waits.offer, "approve")
	i.restart(t)
	for _, r := range []*repeated{bearer, dpop} {
		r.equivalent(t, r.post(t, "/credential", r.body))
		r.logged(t, 1)
		// Its nonce serves no other request.
		refused(t, r.ask(t, request(r.id, r.proofs(t, r.used)...)), http.StatusBadRequest, "invalid_nonce")
	}
	i.verified(t, credentials(t, waits.poll(t), 1)[0], &waits.keys[0])
}

// Requests with one token at the same time: those with the same keys all get the
// credential, under one identifier; of others one wallet wins, and the rest get nothing.
func TestRetryAtTheSameTime(t *testing.T) {
	i := plain(t)
	atOnce := func(s *session, bodies [][]byte) (succeeded int) {
		statuses := make(chan int, len(bodies))
		for _, body := range bodies {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, i.issuer+"/credential", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+s.token)
			go func() {
				response, err := i.client.Do(r)
				if err != nil {
					statuses <- 0
					return
				}
				response.Body.Close()
				statuses <- response.StatusCode
			}()
		}
		for range bodies {
			switch status := <-statuses; status {
			case http.StatusOK:
				succeeded++
			case http.StatusBadRequest:
			default:
				t.Errorf("status %d", status)
			}
		}
		return succeeded
	}
	t.Run("the same keys", func(t *testing.T) {
		s := i.session(t, pidSDJWT)
		body := marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
		if n := atOnce(s, [][]byte{body, body, body, body}); n != 4 {
			t.Errorf("%d of 4 got the credential", n)
		}
		_, list := i.look(t, s.offer)
		for _, c := range list {
			if c.ID != list[0].ID {
				t.Error("two credential identifiers")
			}
		}
	})
	t.Run("other keys", func(t *testing.T) {
		s := i.session(t, pidSDJWT)
		var bodies [][]byte
		for range 4 {
			bodies = append(bodies, marshal(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil))))
		}
		if n := atOnce(s, bodies); n != 1 {
			t.Errorf("%d of 4 wallets got a credential", n)
		}
		if _, list := i.look(t, s.offer); len(list) != 1 {
			t.Errorf("%d signatures", len(list))
		}
	})
}
