package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"chancery/appliance/database"
)

// crashFile names the database in the environment of the process that is killed.
const crashFile = "CHANCERY_STORE_CRASH"

// report is one line of the process that will be killed: what somebody was
// answered, or events as they reached the log.
type report struct {
	What        string // "made", "guessed", "redeemed", "issued", "repeated", "deferred", "cancelled" or "events"
	Offer       string
	Code        string `json:",omitempty"`
	Transaction string `json:",omitempty"`
	Token       string `json:",omitempty"`
	Credential  string `json:",omitempty"`
	Source      string `json:",omitempty"`
	Events      []Event
}

// TestMain lets the test's program be the process that is killed.
func TestMain(m *testing.M) {
	if path := os.Getenv(crashFile); path != "" {
		fmt.Fprintln(os.Stderr, work(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crashOptions are those of both processes; the clock is the real one.
func crashOptions() Options {
	return Options{DataKeys: newWrapper(make([]byte, 32)).keys(), DataKeyLifetime: 50 * time.Millisecond, Retention: time.Hour, Attempts: testAttempts, RetryWindow: time.Minute}
}

// work runs offers through their lives from many callers, and the store's own
// work beside them, and reports each answer after it was given. It ends by being
// killed.
func work(path string) error {
	s, err := Open(path, crashOptions())
	if err != nil {
		return err
	}
	var mu sync.Mutex
	tell := func(r report) {
		line, err := json.Marshal(r)
		if err != nil {
			panic(err)
		}
		mu.Lock()
		defer mu.Unlock()
		os.Stdout.Write(append(line, '\n'))
	}
	ctx := context.Background()
	// What was written into the pipe outlives the process: the log is there.
	send := func(_ context.Context, source string, events []Event) (uint64, error) {
		if len(events) == 0 {
			_, base, sent := s.outbox.position()
			return uint64(sent - base), nil
		}
		tell(report{What: "events", Source: source, Events: events})
		return uint64(events[len(events)-1].Seq), nil
	}
	failed := make(chan error)
	go func() {
		for {
			if err := errors.Join(s.Drain(ctx, send), s.Rotate(ctx), s.Sweep(ctx)); err != nil {
				failed <- err
			}
		}
	}()
	for range 16 {
		go func() {
			for {
				if err := live(ctx, s, tell); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

// live is one offer's life.
func live(ctx context.Context, s *Store, tell func(report)) error {
	n := NewOffer{Configurations: []string{"pid", "mdl"}, Claims: []byte(claimsText), ExpiresAt: time.Now().Add(time.Minute), CreatedBy: "registrar", TxCode: &TxCode{InputMode: "numeric", Length: 6}}
	c, err := s.CreateOffer(ctx, n)
	if errors.Is(err, ErrKeyAway) { // its epoch was retired meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	tell(report{What: "made", Offer: c.ID, Code: c.Code, Transaction: c.TransactionCode})
	for range rand.IntN(testAttempts + 2) {
		r := redemption(c)
		r.TransactionCode = wrong(c.TransactionCode)
		if _, err := s.Redeem(ctx, r); !errors.Is(err, ErrTransactionCodeWrong) {
			break
		}
		tell(report{What: "guessed", Offer: c.ID})
	}
	token, err := s.Redeem(ctx, redemption(c))
	if errors.Is(err, ErrCode) || rand.IntN(8) == 0 {
		return nil
	}
	if errors.Is(err, ErrKeyAway) { // the log was not asked yet
		return nil
	}
	if err != nil {
		return err
	}
	tell(report{What: "redeemed", Offer: c.ID, Token: token.Token})
	if rand.IntN(4) == 0 {
		if err := s.CancelOffer(ctx, c.ID, "registrar"); err != nil {
			return err
		}
		tell(report{What: "cancelled", Offer: c.ID})
		return nil
	}
	for _, id := range n.Configurations[:1+rand.IntN(2)] {
		if err := issueSomehow(ctx, s, token, id, tell); err != nil {
			return err
		}
	}
	return nil
}

// issueSomehow has one configuration issued: at once or after an operator's
// decision, and perhaps once more.
func issueSomehow(ctx context.Context, s *Store, token RedeemedToken, id string, tell func(report)) error {
	g, err := s.Grant(ctx, token.Token)
	if err != nil {
		return err
	}
	defer g.Release()
	record := []Credential{credential(id)}
	if rand.IntN(3) == 0 {
		transaction, err := g.Defer(ctx, id, Deferred{Holders: []byte(id), Interval: time.Second})
		if err != nil {
			return err
		}
		tell(report{What: "deferred", Offer: token.Offer, Transaction: transaction})
		uuid, err := newestDeferred(s, g.id)
		if err == nil {
			err = s.DecideDeferred(ctx, uuid, true, "", "registrar")
		}
		if err != nil {
			return err
		}
		t, err := g.Transaction(ctx, transaction)
		if err != nil || string(t.Holders) != id {
			return fmt.Errorf("the transaction: %v, %v", t, err)
		}
		if _, err := g.Complete(ctx, t, record); err != nil {
			return err
		}
	} else if err := g.issued(ctx, id, record); err != nil {
		return err
	}
	tell(report{What: "issued", Offer: token.Offer, Credential: record[0].ID})
	if rand.IntN(3) > 0 {
		return nil
	}
	g.Release()
	if g, err = s.Grant(ctx, token.Token); err != nil {
		return err
	}
	defer g.Release()
	r, err := g.Repeat(ctx, id)
	if err != nil {
		return fmt.Errorf("repeat: %w", err)
	}
	if _, err := g.Reissue(ctx, r, record); err != nil {
		return err
	}
	tell(report{What: "repeated", Offer: token.Offer, Credential: record[0].ID})
	return nil
}

// newestDeferred returns the public identifier of an offer's last deferred credential.
func newestDeferred(s *Store, offer int64) (string, error) {
	var uuid []byte
	err := s.db.Read(context.Background(), func(r *database.Reader) error {
		_, err := r.Row("SELECT uuid FROM deferred WHERE offer = ? ORDER BY id DESC LIMIT 1", []any{offer}, []any{&uuid})
		return err
	})
	return formatUUID(uuid), err
}

// answered is what one offer's holder has been told.
type answered struct {
	report
	guesses     int
	cancelled   bool
	transaction string // the last, when its credential was not told
	credentials []string
}

// TestKilled kills the process again and again while 16 callers write, with
// SIGKILL and at random instants, and opens what it has left: everything that
// was answered holds, nothing is redeemed or issued twice, claims are there or
// shredded but never half, the log lacks nothing, and nothing needs repair
// (promises P4, P7, P9).
func TestKilled(t *testing.T) {
	f := &fixture{t: t, path: folder(t) + "/chancery.db", log: newAuditLog(), options: crashOptions()}
	if err := Create(f.path); err != nil {
		t.Fatal(err)
	}
	told := map[string]*answered{}
	for range 20 {
		f.crash(told)
		f.start()
		f.drain()
		f.wantLog()
		if _, sources := f.log.all(); sources != 1 {
			t.Errorf("%d sources: a killed database was taken for a restored one", sources)
		}
		f.wantAnswered(told)
		f.wantWhole()
		if err := f.Store.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	f.start()
	f.drain()
	f.wantHistories()
	states := map[State]int{}
	offers, _, err := f.ListOffers(context.Background(), Filter{}, 1<<20, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offers {
		states[o.State]++
	}
	t.Logf("%d offers: %v", len(offers), states)
	f.Store.Close()
}

// crash starts the process, kills it, and takes down what it has told.
func (f *fixture) crash(told map[string]*answered) {
	f.t.Helper()
	program, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), crashFile+"="+f.path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	after := rand.IntN(150)
	n := 0
	for ; lines.Scan(); n++ {
		if n == after {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
			cmd.Process.Kill()
		}
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // the line that the kill has cut
		}
		f.note(told, r)
	}
	cmd.Wait()
	if n <= after {
		f.t.Fatalf("the process ended by itself after %d lines", n)
	}
}

func (f *fixture) note(told map[string]*answered, r report) {
	switch a := told[r.Offer]; r.What {
	case "made":
		told[r.Offer] = &answered{report: r}
	case "guessed":
		a.guesses++
	case "redeemed":
		a.Token = r.Token
	case "issued", "repeated":
		a.credentials, a.transaction = append(a.credentials, r.Credential), ""
	case "deferred":
		a.transaction = r.Transaction
	case "cancelled":
		a.cancelled = true
	case "events":
		if _, err := f.log.send(context.Background(), r.Source, r.Events); err != nil {
			f.t.Errorf("the log: %v", err)
		}
	}
}

// wantAnswered holds what the database says against what was answered.
func (f *fixture) wantAnswered(told map[string]*answered) {
	f.t.Helper()
	ctx := context.Background()
	for id, a := range told {
		o, err := f.Offer(ctx, id)
		if err != nil {
			f.t.Errorf("an offer that was made: %v", err)
			continue
		}
		// One guess may have been counted whose answer was not told.
		if used := testAttempts - o.AttemptsLeft; used < a.guesses || used > a.guesses+1 {
			f.t.Errorf("%d guesses were answered, %d counted", a.guesses, used)
		}
		if locked := o.State == Locked; locked != (o.AttemptsLeft == 0) {
			f.t.Errorf("%d attempts left and %s", o.AttemptsLeft, o.State)
		}
		if a.cancelled && o.State != Cancelled {
			f.t.Errorf("cancelled, and %s after the kill", o.State)
		}
		var recorded []string
		for _, c := range o.Credentials {
			recorded = append(recorded, c.ID)
		}
		if n := len(a.credentials); len(recorded) < n || fmt.Sprint(recorded[:n]) != fmt.Sprint(a.credentials) {
			f.t.Errorf("%v were handed out, %v are recorded", a.credentials, recorded)
		}
		if a.Token == "" {
			continue
		}
		if o.State < Redeemed {
			f.t.Errorf("redeemed, and %s after the kill", o.State)
		}
		tx := a.Transaction
		if _, err := f.Redeem(ctx, Redemption{Code: a.Code, TransactionCode: &tx, Lifetime: lasting(testLifetime)}); !errors.Is(err, ErrCode) {
			f.t.Errorf("redeemed again after the kill: %v", err)
		}
		g, err := f.Grant(ctx, a.Token)
		if open := o.State == Redeemed || o.State == Issued; open != (err == nil) {
			f.t.Errorf("the token of an offer that is %s: %v", o.State, err)
		}
		if err == nil { // the same request is allowed again
			if g.Done("pid") != (len(recorded) > 0) {
				f.t.Errorf("%d credentials recorded, done: %t", len(recorded), g.Done("pid"))
			}
			if claims, err := g.Claims(ctx); err != nil || string(claims) != claimsText {
				f.t.Errorf("the claims of an offer that is %s: %v", o.State, err)
			}
			// Told or used, not in between.
			if _, err := g.Transaction(ctx, a.transaction); a.transaction != "" && (err == nil) != (len(recorded) == len(a.credentials)) {
				f.t.Errorf("a transaction with %d credentials told and %d recorded: %v", len(a.credentials), len(recorded), err)
			}
			g.Release()
		}
	}
}

// wantWhole holds that each offer has all of its claims or nothing of them.
func (f *fixture) wantWhole() {
	f.t.Helper()
	if n := f.ask("SELECT count(*) FROM offers WHERE state <= 2 AND due_at IS NULL OR state > 2 AND epoch IS NULL AND (due_at IS NULL) <> (token_hash IS NULL)"); n != 0 {
		f.t.Errorf("%d offers are due that have ended, or the other way round", n)
	}
	if n := f.ask(`SELECT count(*) FROM offers o JOIN keys k ON k.block = o.id / 64 LEFT JOIN claims c ON c.offer = o.id LEFT JOIN epochs e ON e.id = o.epoch
		WHERE (o.state <= 3) <> (c.sealed IS NOT NULL) OR (o.state <= 3) <> (e.id IS NOT NULL) OR (o.state <= 3) <> (` + keyColumn + ` <> zeroblob(60))`); n != 0 {
		f.t.Errorf("%d offers have a part of their claims", n)
	}
	offers, _, err := f.ListOffers(context.Background(), Filter{}, 1<<20, "")
	if err != nil {
		f.t.Fatal(err)
	}
	for _, o := range offers {
		if o.State > Issued {
			continue
		}
		uuid, _ := parseUUID(o.ID)
		row := getID(uuid[:idSize])
		epoch, err := f.epoch(context.Background(), f.ask("SELECT epoch FROM offers WHERE id = ?", row))
		if err != nil {
			f.t.Error(err)
			continue
		}
		sealed, wrapped := f.parts(row)
		claims, err := unseal(epoch.aead, uuid[:], wrapped, sealed)
		if open := o.State <= Redeemed; open != (err == nil) || open && string(claims) != claimsText {
			f.t.Errorf("the claims of an offer that is %s: %v", o.State, err)
		}
	}
}
