package conformance

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// notify sends a notification.
func (s *session) notify(t testing.TB, id, event string) answer {
	t.Helper()
	return s.post(t, "/notification", marshal(t, members{"notification_id": id, "event": event}))
}

// issued is a session whose credential was issued, and its notification_id.
func (i *instance) issued(t testing.TB, id string) (s *session, notification string) {
	t.Helper()
	s = i.session(t, id)
	a := s.ask(t, request(id, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
	credentials(t, a, 1)
	return s, a.text(t, "notification_id")
}

// done checks a notification's success, which has no body.
func done(t testing.TB, a answer) {
	t.Helper()
	if a.status != http.StatusNoContent || len(a.body) != 0 || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %.300s, Cache-Control %q", a.status, a.body, a.header.Get("Cache-Control"))
	}
}

// Each event, with and without a description, said twice, and what it makes of
// the offer.
func TestCheck287To289Events(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		for _, c := range []struct{ number, event, state, recorded string }{
			{"287", "credential_accepted", "accepted", "offer.accepted"},
			{"288", "credential_failure", "failed", "offer.failed"},
			{"288", "credential_deleted", "issued", "credential.deleted"},
		} {
			t.Run(c.number+" and 289 "+name+" "+c.event, func(t *testing.T) {
				s, id := i.issued(t, pidSDJWT)
				body := marshal(t, members{"notification_id": id, "event": c.event, "event_description": "as the holder wished"})
				for range 3 { // 289: again and again
					done(t, s.post(t, "/notification", body))
				}
				done(t, s.notify(t, id, c.event))
				if state, _ := i.look(t, s.offer); state != c.state {
					t.Errorf("the offer is %s, want %s", state, c.state)
				}
				i.recorded(t, s.offer, c.recorded) // once
			})
		}
	}
}

// What the holder wrote is kept nowhere.
func TestCheck288DescriptionIsNotKept(t *testing.T) {
	i := plain(t)
	const secret = "my-husband-moved-to-Port-Utopie-4711"
	for _, event := range []string{"credential_failure", "credential_deleted", "credential_accepted", "credential_" + secret} {
		s, id := i.issued(t, pidSDJWT)
		s.post(t, "/notification", marshal(t, members{"notification_id": id, "event": event, "event_description": secret, secret: secret}))
		s.post(t, "/notification", marshal(t, members{"notification_id": secret, "event": event, "event_description": secret}))
		s.post(t, "/notification", []byte(secret), "Content-Type", secret)
	}
	looked := 0
	for _, dir := range []string{i.env["LOG_DIR"], filepath.Dir(i.env["CHANCERY_DB"])} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // the appliance runs: a file may have gone
				return err
			}
			looked += len(data)
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds it", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if looked == 0 {
		t.Fatal("neither logs nor databases were found")
	}
}

func TestCheck290And294NotificationID(t *testing.T) {
	i := plain(t)
	s, id := i.issued(t, pidSDJWT)
	other, otherID := i.issued(t, pidSDJWT)
	t.Run("290", func(t *testing.T) {
		for _, unknown := range []string{"x", strings.Repeat("A", len(id)), id + "A", id[:len(id)-1], s.token} {
			refused(t, s.notify(t, unknown, "credential_accepted"), http.StatusBadRequest, "invalid_notification_id")
		}
		early := i.session(t, pidSDJWT) // nothing was issued yet
		refused(t, early.notify(t, id, "credential_accepted"), http.StatusBadRequest, "invalid_notification_id")
	})
	t.Run("294", func(t *testing.T) {
		refused(t, s.notify(t, otherID, "credential_failure"), http.StatusBadRequest, "invalid_notification_id")
		refused(t, other.notify(t, id, "credential_failure"), http.StatusBadRequest, "invalid_notification_id")
	})
	for _, o := range []offer{s.offer, other.offer} {
		if state, _ := i.look(t, o); state != "issued" {
			t.Errorf("the offer is %s", state)
		}
	}
}

func TestCheck291And292Request(t *testing.T) {
	i := plain(t)
	s, id := i.issued(t, pidSDJWT)
	right := `{"notification_id":"` + id + `","event":"credential_accepted"`
	for _, c := range []struct{ name, body string }{
		{"no event", `{"notification_id":"` + id + `"}`},
		{"unknown event", `{"notification_id":"` + id + `","event":"credential_stolen"}`},
		{"empty event", `{"notification_id":"` + id + `","event":""}`},
		{"wrong case", `{"notification_id":"` + id + `","event":"Credential_Accepted"}`},
		{"white space", `{"notification_id":"` + id + `","event":" credential_accepted"}`},
		{"event a number", `{"notification_id":"` + id + `","event":1}`},
		{"event an array", `{"notification_id":"` + id + `","event":["credential_accepted"]}`},
		{"no notification_id", `{"event":"credential_accepted"}`},
		{"empty notification_id", `{"event":"credential_accepted","notification_id":""}`},
		{"notification_id null", `{"event":"credential_accepted","notification_id":null}`},
		{"description a number", right + `,"event_description":1}`},
		{"no body", ""},
		{"cut", right},
		{"array", "[" + right + "}]"},
		{"twice", right + `,"event":"credential_failure"}`},
	} {
		t.Run("291 "+c.name, func(t *testing.T) {
			refused(t, s.post(t, "/notification", []byte(c.body)), http.StatusBadRequest, "invalid_notification_request")
		})
	}
	t.Run("291 media type", func(t *testing.T) {
		for _, mediaType := range []string{"text/plain", "", "application/x-www-form-urlencoded"} {
			refused(t, s.post(t, "/notification", []byte(right+"}"), "Content-Type", mediaType), http.StatusBadRequest, "invalid_notification_request")
		}
	})
	if state, _ := i.look(t, s.offer); state != "issued" {
		t.Errorf("the offer is %s", state)
	}
	t.Run("292", func(t *testing.T) {
		done(t, s.post(t, "/notification", []byte(right+`,"x":{"event":"credential_failure"},"EVENT":"credential_failure","credential":null}`)))
		if state, _ := i.look(t, s.offer); state != "accepted" {
			t.Errorf("the offer is %s", state)
		}
	})
}

func TestCheck293NoToken(t *testing.T) {
	for name, i := range map[string]*instance{"plain": plain(t), "haip": haip(t)} {
		t.Run(name, func(t *testing.T) {
			s, id := i.issued(t, pidSDJWT)
			body := marshal(t, members{"notification_id": id, "event": "credential_failure"})
			bare(t, i.do(t, http.MethodPost, "/notification", body, "Content-Type", "application/json"))
			for _, token := range garbage(s.token) {
				a := i.do(t, http.MethodPost, "/notification", body, "Content-Type", "application/json", "Authorization", "Bearer "+token)
				challenged(t, a, "Bearer", "invalid_token")
			}
			if s.key != nil { // a bound token needs its proof here, too
				challenged(t, i.do(t, http.MethodPost, "/notification", body, "Content-Type", "application/json", "Authorization", "DPoP "+s.token), "DPoP", "invalid_dpop_proof")
			}
			if state, _ := i.look(t, s.offer); state != "issued" {
				t.Errorf("the offer is %s", state)
			}
		})
	}
}

// A credential that was accepted and deleted later: the log has both.
func TestCheck295AcceptedThenDeleted(t *testing.T) {
	i := plain(t)
	s, id := i.issued(t, pidSDJWT)
	done(t, s.notify(t, id, "credential_accepted"))
	done(t, s.notify(t, id, "credential_deleted"))
	done(t, s.notify(t, id, "credential_accepted"))
	if state, _ := i.look(t, s.offer); state != "accepted" {
		t.Errorf("the offer is %s", state)
	}
	i.recorded(t, s.offer, "offer.accepted", "credential.deleted")
	a := i.operator(t, http.MethodGet, "/v1/events?subject="+s.offer.id, nil)
	for _, kind := range []string{"offer.accepted", "credential.deleted"} {
		if !bytes.Contains(a.body, []byte(kind)) {
			t.Errorf("no event %s: %.500s", kind, a.body)
		}
	}
}

// A wallet that never notifies has its credential nevertheless.
func TestCheck296NeverNotified(t *testing.T) {
	i := plain(t)
	s, _ := i.issued(t, pidSDJWT)
	i.recorded(t, s.offer, "offer.issued")
	if state, list := i.look(t, s.offer); state != "issued" || len(list) != 1 {
		t.Errorf("%s, %d credentials", state, len(list))
	}
	for _, e := range i.auditLog(t) {
		if e.Subject == s.offer.id && (e.Kind == "offer.accepted" || e.Kind == "offer.failed" || e.Kind == "credential.withheld") {
			t.Errorf("the log has %s", e.Kind)
		}
	}
}

// An offer of two configurations is accepted when both are.
func TestCheck287EachConfigurationItsOwn(t *testing.T) {
	i := plain(t)
	s := (&session{instance: i, offer: i.offer(t, pidSDJWT, func(r map[string]any) { r["credentials"] = []string{pidSDJWT, unbound} })}).redeem(t, nil)
	first := s.ask(t, request(pidSDJWT, i.proof(t, newKey(t, jose.ES256), i.nonce(t), nil)))
	second := s.ask(t, members{"credential_configuration_id": unbound})
	credentials(t, first, 1)
	credentials(t, second, 1)
	ids := []string{first.text(t, "notification_id"), second.text(t, "notification_id")}
	if ids[0] == ids[1] {
		t.Error("one notification_id for two")
	}
	done(t, s.notify(t, ids[0], "credential_accepted"))
	if state, _ := i.look(t, s.offer); state != "issued" {
		t.Errorf("the offer is %s after the first", state)
	}
	done(t, s.notify(t, ids[1], "credential_accepted"))
	if state, _ := i.look(t, s.offer); state != "accepted" {
		t.Errorf("the offer is %s after both", state)
	}
}
