package hsm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// occupy takes the place of one operation until leave.
func occupy(token *Token) {
	<-token.permits
	token.waiting.Add(1)
}

// TestQueueIsBounded: one operation is out, three wait, the others are told at once.
func TestQueueIsBounded(t *testing.T) {
	token, _, key := faulty(t, func(c *Config) { c.Sessions, c.Queue = 1, 3 })
	occupy(token)
	const callers = 12
	var busy, signed atomic.Int64
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			_, err := token.Sign(context.Background(), key, []byte("m"))
			switch ClassOf(err) {
			case "":
				signed.Add(1)
			case ClassBusy:
				busy.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	until(t, "the others are told", func() bool { return busy.Load() == callers-3 })
	if s := token.State(); s.Waiting != 3 || !s.Ready {
		t.Errorf("%+v", s)
	}
	token.leave()
	wait.Wait()
	if signed.Load() != 3 || busy.Load() != callers-3 {
		t.Errorf("%d signed and %d busy", signed.Load(), busy.Load())
	}
	if s := token.State(); s.Waiting != 0 || !s.Ready {
		t.Errorf("%+v", s)
	}
}

// TestQueueIsFirstInFirstOut lets callers come one by one while a call is out.
func TestQueueIsFirstInFirstOut(t *testing.T) {
	token, _, key := faulty(t, func(c *Config) { c.Sessions = 1 })
	occupy(token)
	var mu sync.Mutex
	var order []int
	var wait sync.WaitGroup
	const n = 20
	for i := range n {
		wait.Go(func() {
			_, err := do(context.Background(), token, "C_Sign", key, func(*visit) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
				return i, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		until(t, "the caller waits", func() bool { return token.State().Waiting == i+1 })
		time.Sleep(time.Millisecond) // counted, and now in the queue
	}
	token.leave()
	wait.Wait()
	if !slices.IsSorted(order) || len(order) != n {
		t.Errorf("served in the order %v", order)
	}
}

// TestAGoneCallerIsNotServed: who gives up in the queue, or came too late, costs
// the token nothing.
func TestAGoneCallerIsNotServed(t *testing.T) {
	token, fault, key := faulty(t, func(c *Config) { c.Sessions = 1 })
	sign(t, token, key)
	ctx, cancel := context.WithCancel(context.Background())
	calls := callsOf(t, token, fault, func() {
		occupy(token)
		done := make(chan error)
		go func() {
			_, err := token.Sign(ctx, key, nil)
			done <- err
		}()
		until(t, "the caller waits", func() bool { return token.State().Waiting == 1 })
		cancel()
		err := <-done
		wantClass(t, err, ClassBusy)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the cause is lost: %v", err)
		}
		token.leave()
		for range 20 { // whichever of the two is seen first
			_, err := token.Sign(ctx, key, nil)
			wantClass(t, err, ClassBusy)
		}
	})
	if calls["C_SignInit"] != 0 {
		t.Errorf("%d signatures for nobody", calls["C_SignInit"])
	}
	sign(t, token, key)
	if n := token.waiting.Load(); n != 0 {
		t.Errorf("%d callers are still counted", n)
	}
}

// TestASessionThatWasClosedMeanwhile: a caller hears that the device has no more
// sessions, after the one there was has been closed. It asks again.
func TestASessionThatWasClosedMeanwhile(t *testing.T) {
	token, fault, _ := faulty(t, nil)
	gen := token.gen
	session, err := token.session(gen)
	if err != nil {
		t.Fatal(err)
	}
	fault.Order(t, "maxsessions 2", "latency C_OpenSession 1000000")
	done := make(chan error)
	go func() {
		s, err := token.session(gen)
		if err == nil {
			token.release(gen, s, false)
		}
		done <- err
	}()
	callIsOut(t, token)
	token.release(gen, session, true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
