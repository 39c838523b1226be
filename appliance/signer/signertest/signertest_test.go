package signertest

import (
	"context"
	"testing"

	"chancery/appliance/audit"
)

// TestSignerServes makes a signer, stops it and starts it again on the same
// token and log.
func TestSignerServes(t *testing.T) {
	s := Start(t, Options{})
	if len(s.Ceremony.Keys) != 8 {
		t.Errorf("the example's ceremony made %v", s.Ceremony.Keys)
	}
	for range 2 {
		status, err := s.Sign.Status(context.Background())
		if err != nil || status.State != "ready" {
			t.Fatalf("status %+v, %v", status, err)
		}
		for label, ready := range status.Keys {
			if !ready {
				t.Errorf("key %q is not ready", label)
			}
		}
		s.Restart(t)
	}
	if err := s.Stop(t); err != nil {
		t.Error(err)
	}
	if n := len(s.Entries(t, audit.KindSignerStarted)); n != 3 {
		t.Errorf("%d starts in the log, want 3", n)
	}
}

// TestFaultModule takes the token away from a running signer.
func TestFaultModule(t *testing.T) {
	s := Start(t, Options{Faults: true})
	s.Fault.Order(t, "gone 0x32")
	if _, err := s.Sign.NewDataKey(context.Background(), "test"); err == nil {
		t.Error("a data key without a token")
	}
	s.Fault.Order(t)
}
