package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
)

// FuzzOffer: a body gives an offer within the policy or faults that hold none of
// the claims' values (promise P9).
func FuzzOffer(f *testing.F) {
	for _, id := range []string{residenceID, pidID, mdlID} {
		without := claims(f, id) // a picture is a parser of its own, and slow
		delete(without, "picture")
		delete(without, "portrait")
		data, err := json.Marshal(map[string]any{"credentials": []string{id}, "claims": without})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, c := range createFaults {
		body := map[string]any{"credentials": []string{residenceID}, "claims": map[string]any{"family_name": "Zaubernuss"}}
		c.change(body)
		data, err := json.Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"claims":{"family_name":"Zaubernuss","family_name":"Zaubernuss"}}`))
	f.Add([]byte(`{"credentials":["` + residenceID + `"],"claims":{},"clientId":"https://wallet.example","clientAuthenticationRequired":true}`))
	now := time.Unix(1_800_000_000, 0)
	a := &api{Config: Config{Configurations: examples(f), ClientAuthentication: true, DefaultExpiry: 10 * time.Minute, LongestExpiry: 24 * time.Hour, CodeLength: 6, Now: func() time.Time { return now }}}
	f.Fuzz(func(t *testing.T, data []byte) {
		var request createRequest
		members, err := decodeBytes(data, &request)
		var n store.NewOffer
		if err == nil {
			n, err = a.offer(request, members["claims"], store.Operator{Name: "clerk"})
		}
		if err == nil {
			checkOffer(t, a, n, now)
			return
		}
		checkFault(t, err)
	})
}

// checkFault demands faults that say something, and nothing of what was sent.
func checkFault(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Status != http.StatusBadRequest || len(e.Details) == 0 || len(e.Details) > mostDetails+1 {
		t.Fatalf("%v", err)
	}
	for _, d := range e.Details {
		if d.Msg == "" || strings.Contains(d.Msg, "Zaubernuss") {
			t.Errorf("%+v", d)
		}
	}
}

// FuzzRefuse: a body gives a reason that the store takes, or faults.
func FuzzRefuse(f *testing.F) {
	for _, body := range []string{`{}`, `{"reason":"not found in the register"}`, `{"reason":null}`, `{"reason":"Zaubernuss\n"}`, `{"reason":"\ud800"}`, `{"reasons":""}`, `{"reason":"a","reason":"b"}`, `[]`, ``} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var body refuseRequest
		_, err := decodeBytes(data, &body)
		if err == nil {
			err = body.check()
		}
		if err != nil {
			checkFault(t, err)
		} else if len([]rune(body.Reason)) > store.MaxReason || strings.ContainsFunc(body.Reason, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", body.Reason)
		}
	})
}

// checkOffer holds what was accepted against the policy.
func checkOffer(t *testing.T, a *api, n store.NewOffer, now time.Time) {
	t.Helper()
	life := n.ExpiresAt.Sub(now)
	if life < shortestLife || life > a.LongestExpiry || len(n.Configurations) == 0 || n.CreatedBy != "clerk" {
		t.Errorf("%+v", n)
	}
	if id := n.RequiredClient; len(id) > longestClientID || strings.ContainsFunc(id, func(r rune) bool { return r > 0x7e || !unicode.IsPrint(r) }) {
		t.Errorf("%q", id)
	}
	seen := map[string]bool{}
	for _, id := range n.Configurations {
		if a.Configurations[id] == nil || seen[id] {
			t.Errorf("%v", n.Configurations)
		}
		seen[id] = true
		if len(n.Configurations) == 1 {
			if problems := a.Configurations[id].CheckClaims(n.Claims, now); len(problems) > 0 {
				t.Errorf("%+v", problems)
			}
		}
	}
	if c := n.TxCode; c != nil && (c.Length < shortestCode || c.Length > longestCode || c.InputMode != "numeric" && c.InputMode != "text" || len([]rune(c.Description)) > longestDescription) {
		t.Errorf("%+v", c)
	}
}

// BenchmarkCreate measures an offer with a portrait, from body to checked offer;
// the database is not in it.
func BenchmarkCreate(b *testing.B) {
	a := &api{Config: Config{Configurations: examples(b), DefaultExpiry: 10 * time.Minute, LongestExpiry: 24 * time.Hour, CodeLength: 6, Now: time.Now}}
	for _, id := range []string{mdlID, pidID, residenceID} {
		data := []byte(`{"credentials":["` + id + `"],"claims":` + signertest.Example(b, "claims/"+id+".json") + `}`)
		b.Run(id, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				var request createRequest
				members, err := decodeBytes(data, &request)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := a.offer(request, members["claims"], store.Operator{Name: "clerk"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
