package clientauth

import (
	"testing"
	"time"

	"chancery/appliance/oid4vci/trust/trusttest"
)

// An assertion is used once, also when it lasted long at first and expires soon
// when it comes again.
func TestALastingAssertionIsUsedOnce_131(t *testing.T) {
	for _, lasts := range []time.Duration{time.Minute, soon, soon + time.Second, 10 * time.Minute, maxAssertionAge} {
		r := newRig(t, nil)
		end := r.now.Add(lasts)
		q := asserted(trusttest.Token(t, r.client, nil, trusttest.With(r.assertionClaims(), "exp", end.Unix())))
		if _, err := r.authenticate(q); err != nil {
			t.Fatal(err)
		}
		for ; r.now.Before(end); r.now = r.now.Add(37 * time.Second) {
			if e := refused(t, lasts.String(), second(r.authenticate(q)), InvalidClient); e.Member != "client_assertion jti" {
				t.Fatalf("%s, %s before its end: %+v", lasts, end.Sub(r.now), e)
			}
		}
	}
}

func second(_ Identity, err error) error { return err }

// Assertions that expire in a minute are forgotten in minutes: a client that sends
// them without pause is never told that there are too many.
func TestAssertionsInARow(t *testing.T) {
	const entries = 64
	r := newRig(t, func(_ *rig, o *Options) { o.MaxEntries = entries })
	every := 2 * (soon + 2*clockSkew) / entries
	for n := range 8 * entries {
		if _, err := r.authenticate(asserted(trusttest.Token(t, r.client, nil, r.assertionClaims()))); err != nil {
			t.Fatalf("assertion %d: %v", n, err)
		}
		r.now = r.now.Add(every)
	}
}
