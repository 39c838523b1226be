package store

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestOneAlarm holds that a spent code that comes again and again raises one alarm,
// in the log as among the events.
func TestOneAlarm(t *testing.T) {
	f := open(t)
	var log bytes.Buffer
	f.Store.log = slog.New(slog.NewTextHandler(&log, nil))
	c := f.create(0)
	f.redeem(c)
	for range 3 {
		if _, err := f.Redeem(context.Background(), redemption(c)); !errors.Is(err, ErrCode) {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), c.ID); n != 1 {
		t.Errorf("%d lines: %s", n, log.String())
	}
	if n := f.ask("SELECT count(*) FROM outbox WHERE kind = 'offer.replayed'"); n != 1 {
		t.Errorf("%d events", n)
	}
}
