package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestOneKeyForAll has the first offers come all at once: one data key is made.
func TestOneKeyForAll(t *testing.T) {
	f := open(t)
	count(t, together(32, func(int) error {
		_, err := f.CreateOffer(context.Background(), NewOffer{Configurations: []string{"pid"}, Claims: []byte("{}"), ExpiresAt: f.clock.Now().Add(testExpiry), CreatedBy: "registrar"})
		return err
	}), nil)
	if made, opened := f.wrapper.counts(); made != 1 || opened != 0 {
		t.Errorf("%d keys were made and %d opened", made, opened)
	}
}

// TestRotation makes a new epoch when the time of the one before is over, and
// keeps the old one open for its offers.
func TestRotation(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	rotate := func(epochs int64) {
		t.Helper()
		if err := f.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		if n := f.ask("SELECT count(*) FROM epochs"); n != epochs {
			t.Errorf("%d epochs, want %d", n, epochs)
		}
	}
	rotate(1)
	first := f.create(6)
	f.clock.pass(f.options.DataKeyLifetime - time.Second)
	rotate(1)
	f.clock.pass(time.Second - time.Millisecond)
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1", millis(f.clock.Now().Add(testExpiry)))
	f.clock.pass(time.Millisecond)
	rotate(2)
	rotate(2)
	second := f.create(6)
	if n := f.ask("SELECT count(DISTINCT epoch) FROM offers"); n != 2 {
		t.Errorf("the offers are in %d epochs", n)
	}
	f.sweep()
	f.restart()
	made, _ := f.wrapper.counts()
	rotate(2)
	if now, opened := f.wrapper.counts(); now != made || opened != 2 {
		t.Errorf("after a restart %d keys were made and %d opened, want none and both", now-made, opened)
	}
	for _, c := range []Created{first, second} {
		g := f.grant(f.redeem(c))
		if claims, err := g.Claims(ctx); err != nil || string(claims) != claimsText {
			t.Errorf("claims: %v", err)
		}
		g.Release()
	}
}

// TestTokenAway holds what works without the token (promise P10): offers can
// still be made under a key that is open, past its time. What needs the token
// costs nothing, and works when the token is back.
func TestTokenAway(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	with, without := f.create(6), f.create(0)
	f.wrapper.setAway(true)
	f.clock.pass(f.options.DataKeyLifetime - time.Second)
	f.clock.pass(time.Second)
	if err := f.Rotate(ctx); !errors.Is(err, ErrKeyAway) || !errors.Is(err, errAway) {
		t.Errorf("rotated: %v", err)
	}
	late := f.create(6)
	f.redeem(late)
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1 WHERE state = 0", millis(f.clock.Now().Add(testExpiry)))

	f.restart() // now no key is open
	if _, err := f.CreateOffer(ctx, NewOffer{Configurations: []string{"pid"}, Claims: []byte("{}"), ExpiresAt: f.clock.Now().Add(testExpiry), CreatedBy: "registrar"}); !errors.Is(err, ErrKeyAway) {
		t.Errorf("an offer without a key: %v", err)
	}
	for range 2 * testAttempts {
		r := redemption(with)
		r.TransactionCode = wrong(with.TransactionCode)
		if _, err := f.Redeem(ctx, r); !errors.Is(err, ErrKeyAway) {
			t.Fatalf("a guess without a key: %v", err)
		}
	}
	if o := f.offer(with.ID); o.AttemptsLeft != testAttempts {
		t.Errorf("%d attempts left: guesses were counted that could not be judged", o.AttemptsLeft)
	}
	token := f.redeem(without) // needs no key
	g := f.grant(token)
	if _, err := g.Claims(ctx); !errors.Is(err, ErrKeyAway) {
		t.Errorf("claims without a key: %v", err)
	}
	g.Release()
	if err := f.Rotate(ctx); !errors.Is(err, ErrKeyAway) {
		t.Errorf("rotated: %v", err)
	}

	f.wrapper.setAway(false)
	if err := f.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	f.redeem(with)
	f.issue(token, "pid")
	f.create(0)
	if n := f.ask("SELECT max(epoch) FROM offers"); n != 2 {
		t.Errorf("the new offer is in epoch %d", n)
	}
}

// TestAKeyThatDoesNotOpen holds that a changed epoch stops its own offers alone.
func TestAKeyThatDoesNotOpen(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	lost := f.create(6)
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1", millis(f.clock.Now().Add(testRetention)))
	f.tamper("UPDATE epochs SET wrapped = zeroblob(60)")
	f.clock.pass(f.options.DataKeyLifetime)
	f.restart()
	if err := f.Rotate(ctx); err == nil {
		t.Error("a changed key was opened")
	}
	c := f.create(6)
	f.issue(f.redeem(c), "pid")
	if _, err := f.Redeem(ctx, redemption(lost)); !errors.Is(err, ErrKeyAway) {
		t.Errorf("an offer whose key is lost: %v", err)
	}
	if err := f.CancelOffer(ctx, lost.ID, "registrar"); err != nil {
		t.Errorf("an offer whose key is lost is not cancelled: %v", err)
	}
	f.sweep()
	if err := f.Rotate(ctx); err != nil {
		t.Errorf("the lost key is still there: %v", err)
	}
}

// TestKeysAreBoundToTheirPlace holds that an epoch's key under another epoch's
// name, or of the wrong size, does not open.
func TestKeysAreBoundToTheirPlace(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	f.create(0)
	f.tamper("UPDATE epochs SET context = context || '0'")
	f.restart()
	if err := f.Rotate(ctx); !errors.Is(err, ErrKeyAway) {
		t.Errorf("opened under another name: %v", err)
	}
	f.options.DataKeys.New = func(context.Context, string) ([]byte, []byte, error) { return make([]byte, 16), []byte("x"), nil }
	f.options.DataKeys.Open = func(context.Context, string, []byte) ([]byte, error) { return make([]byte, 16), nil }
	f.restart()
	if err := f.Rotate(ctx); err == nil || errors.Is(err, ErrKeyAway) {
		t.Errorf("a short key: %v", err)
	}
	f.tamper("DELETE FROM epochs")
	f.restart()
	if err := f.Rotate(ctx); err == nil || f.ask("SELECT count(*) FROM epochs") != 0 {
		t.Errorf("a short new key: %v", err)
	}
}

// TestARetiredEpoch holds that no offer is sealed under a key that was deleted
// while it was on its way: nobody could open it.
func TestARetiredEpoch(t *testing.T) {
	f := open(t)
	f.create(0)
	f.tamper("DELETE FROM epochs") // as a sweep does, behind the offer's back
	_, err := f.CreateOffer(context.Background(), NewOffer{Configurations: []string{"pid"}, Claims: []byte("{}"), ExpiresAt: f.clock.Now().Add(testExpiry), CreatedBy: "registrar"})
	if !errors.Is(err, ErrKeyAway) {
		t.Errorf("sealed under a retired key: %v", err)
	}
	if n := f.ask("SELECT count(*) FROM offers"); n != 1 {
		t.Errorf("%d offers", n)
	}
}

// TestRotationUnderLoad rotates and sweeps while offers are made and redeemed:
// every offer that was made opens.
func TestRotationUnderLoad(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
			}
			f.clock.pass(f.options.DataKeyLifetime)
			if err := errors.Join(f.Rotate(ctx), f.Sweep(ctx)); err != nil {
				t.Error(err)
			}
		}
	}()
	retired := 0
	errs := together(200, func(int) error {
		c, err := f.CreateOffer(ctx, NewOffer{Configurations: []string{"pid"}, Claims: []byte(claimsText), ExpiresAt: f.clock.Now().Add(1e5 * time.Hour), CreatedBy: "registrar", TxCode: &TxCode{InputMode: "numeric", Length: 6}})
		if err != nil {
			return err
		}
		r := redemption(c)
		r.Lifetime = lasting(1e5 * time.Hour)
		token, err := f.Redeem(ctx, r)
		if err != nil {
			return err
		}
		g, err := f.Grant(ctx, token.Token)
		if err != nil {
			return err
		}
		defer g.Release()
		_, err = g.Claims(ctx)
		return err
	})
	close(done)
	<-ended
	retired = count(t, errs, nil, ErrKeyAway)[ErrKeyAway]
	t.Logf("%d of 200 offers came too late for their epoch", retired)
	if retired > 100 {
		t.Errorf("%d offers were refused", retired)
	}
	f.clock.pass(2e5 * time.Hour)
	f.sweep()
	if n := f.ask("SELECT count(*) FROM epochs"); n != 1 {
		t.Errorf("%d epochs without an offer", n)
	}
}
