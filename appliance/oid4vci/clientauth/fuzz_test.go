package clientauth

import (
	"errors"
	"net/http"
	"testing"

	"chancery/appliance/oid4vci/refusal"
	"chancery/appliance/oid4vci/trust/trusttest"
	"chancery/issuance"
	"chancery/issuance/issuancetest"
)

// judged fails unless a request was authenticated as the right one or refused
// with a code of the table.
func judged(t *testing.T, got Identity, err error, id string) {
	t.Helper()
	if err == nil {
		if !got.Authenticated || got.ID != id {
			t.Fatalf("%+v", got)
		}
		return
	}
	var e *refusal.Refusal
	if !errors.As(err, &e) || e.Status != http.StatusBadRequest && e.Status != http.StatusServiceUnavailable || len(e.Description) > 250 {
		t.Fatalf("%v", err)
	}
	switch e.Code {
	case InvalidClient, InvalidRequest, UseFresh, UseChallenge, unavailable:
	default:
		t.Fatalf("%v", err)
	}
}

// FuzzAttestation: whatever the two headers hold, a wallet is authenticated or
// there is an error of the table; a proof of possession authenticates once.
func FuzzAttestation(f *testing.F) {
	r := newRig(f, nil)
	good := trusttest.Token(f, r.leaf.Key, r.attestationHeader(), r.attestationClaims(f))
	pop := trusttest.Token(f, r.instance, popHeader, r.popClaims())
	f.Add(good, pop)
	f.Add(pop, good)
	f.Add(good, "")
	f.Add(good, trusttest.Token(f, issuancetest.Key(f, issuance.EdDSA), popHeader, r.popClaims()))
	f.Add(trusttest.Token(f, r.leaf.Key, trusttest.With(r.attestationHeader(), "x5c", []any{"AAAA", 1}), r.attestationClaims(f)), pop)
	f.Add(trusttest.Unsigned(f, r.attestationHeader(), r.attestationClaims(f)), pop)
	f.Fuzz(func(t *testing.T, attestation, pop string) {
		q := request(attestation, pop)
		if attestation == "" && pop == "" {
			return
		}
		got, err := r.authenticate(q)
		judged(t, got, err, walletID)
		if _, again := r.authenticate(q); err == nil && again == nil {
			t.Fatal("authenticated twice")
		}
	})
}

// FuzzAssertion: whatever the assertion is, the client is authenticated or there
// is an error of the table; an assertion authenticates once.
func FuzzAssertion(f *testing.F) {
	r := newRig(f, nil)
	f.Add(trusttest.Token(f, r.client, map[string]any{"kid": "1"}, r.assertionClaims()))
	f.Add(trusttest.Token(f, r.client, nil, trusttest.With(r.assertionClaims(), "aud", []string{audience})))
	f.Add(trusttest.Token(f, r.instance, nil, r.assertionClaims()))
	f.Add(trusttest.Unsigned(f, nil, r.assertionClaims()))
	f.Add("e30.e30.")
	f.Fuzz(func(t *testing.T, assertion string) {
		q := asserted(assertion)
		got, err := r.authenticate(q)
		judged(t, got, err, clientID)
		if _, again := r.authenticate(q); err == nil && again == nil {
			t.Fatal("authenticated twice")
		}
	})
}

// BenchmarkAuthenticate is the cost of client authentication to a token request.
func BenchmarkAuthenticate(b *testing.B) {
	r := newRig(b, func(_ *rig, o *Options) { o.MaxEntries = 1 << 30 })
	attestation := trusttest.Token(b, r.leaf.Key, r.attestationHeader(), r.attestationClaims(b))
	for name, make := range map[string]func() Request{
		"attestation": func() Request { return request(attestation, trusttest.Token(b, r.instance, popHeader, r.popClaims())) },
		"combined": func() Request {
			q := request(attestation, "")
			q.DPoP = proof(r.instance, "", false)
			return q
		},
		"private_key_jwt": func() Request { return asserted(trusttest.Token(b, r.client, nil, r.assertionClaims())) },
	} {
		b.Run(name, func(b *testing.B) {
			var requests []Request
			for range b.N {
				requests = append(requests, make())
			}
			b.ReportAllocs()
			b.ResetTimer()
			for _, q := range requests {
				if _, err := r.authenticate(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
