package store

import (
	"context"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/appliance/database"
)

// parts returns what the database holds of an offer's claims.
func (f *fixture) parts(row int64) (sealed, wrapped []byte) {
	f.t.Helper()
	if err := f.db.Read(context.Background(), func(r *database.Reader) error {
		_, err := r.Row("SELECT c.sealed, "+keyColumn+" FROM offers o JOIN claims c ON c.offer = o.id JOIN keys k ON k.block = o.id / 64 WHERE o.id = ?", []any{row}, []any{&sealed, &wrapped})
		return err
	}); err != nil {
		f.t.Fatal(err)
	}
	return sealed, wrapped
}

// unseal opens claims with the key that wraps an offer's own.
func unseal(wrapping cipher.AEAD, uuid, wrapped, sealed []byte) ([]byte, error) {
	key, err := unwrap(wrapping, uuid, wrapped)
	if err != nil {
		return nil, err
	}
	return openClaims(key, uuid, sealed)
}

// piece is enough of something to know it by.
type piece [16]byte

// pieces cuts beginning, middle and end out of something: a page may keep any
// part of what was deleted from it.
func pieces[T string | []byte](data T) (out []piece) {
	for _, from := range []int{0, (len(data) - len(piece{})) / 2, len(data) - len(piece{})} {
		out = append(out, piece([]byte(data[from:from+len(piece{})])))
	}
	return out
}

// traces counts the pieces that are in any file of the database.
func (f *fixture) traces(pieces []piece) (n int) {
	f.t.Helper()
	names, err := filepath.Glob(f.path + "*")
	if err != nil || len(names) < 2 {
		f.t.Fatalf("%v: %v", names, err)
	}
	wanted := make(map[piece]bool, len(pieces))
	for _, p := range pieces {
		wanted[p] = true
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.t.Fatal(err)
		}
		for i := 0; i+len(piece{}) <= len(data); i++ {
			if p := piece(data[i:]); wanted[p] {
				delete(wanted, p)
				n++
			}
		}
	}
	return n
}

func (f *fixture) absent(what string, pieces []piece) {
	f.t.Helper()
	if n := f.traces(pieces); n > 0 {
		f.t.Errorf("%s: %d of %d pieces are in the files", what, n, len(pieces))
	}
}

// endings end an offer for good and return what was given out for it.
var endings = []func(f *fixture, c Created) (given []string){
	func(f *fixture, c Created) []string {
		token := f.redeem(c)
		f.issue(token, "pid")
		return []string{token}
	},
	func(f *fixture, c Created) []string {
		token := f.redeem(c)
		g := f.grant(token)
		defer g.Release()
		if err := g.Fail(context.Background(), "claims do not fit"); err != nil {
			f.t.Error(err)
		}
		return []string{token}
	},
	func(f *fixture, c Created) []string {
		if err := f.CancelOffer(context.Background(), c.ID, "registrar"); err != nil {
			f.t.Error(err)
		}
		return nil
	},
	func(f *fixture, c Created) []string {
		r := redemption(c)
		r.TransactionCode = wrong(c.TransactionCode)
		for range testAttempts {
			if _, err := f.Redeem(context.Background(), r); err == nil {
				f.t.Error("a wrong code was right")
			}
		}
		return nil
	},
	func(f *fixture, c Created) []string { return []string{f.redeem(c)} }, // the token runs out
	func(*fixture, Created) []string { return nil },                       // the code runs out
}

// TestShredding ends many offers in every way, in random order and at the same
// time, among others that stay. Their claims fill a part of a page, a page and
// several. After a sweep no file holds a piece of any offer's key or of anything
// that was given out; claims were never there in the clear; and what stays still
// opens (promise P9).
func TestShredding(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	const offers = 600
	filler := map[int]string{0: "", 1: strings.Repeat("x", 700), 2: strings.Repeat("y", 3000), 3: strings.Repeat("z", 20000)}
	all := make([]Created, offers)
	together(offers, func(i int) (err error) {
		expires := testExpiry
		if i%4 == 0 {
			expires *= 3 // stays
		}
		all[i], err = f.CreateOffer(ctx, NewOffer{Configurations: []string{"pid"}, CreatedBy: "registrar", ExpiresAt: f.clock.Now().Add(expires), TxCode: &TxCode{InputMode: "text", Length: 16},
			Claims: fmt.Appendf(nil, `{"family_name":"Dvořáková-Wachtmeister","number":"%d","portrait":%q}`, i, filler[i%7%4])})
		if err != nil {
			t.Error(err)
		}
		return err
	})
	f.absent("claims in the clear", append(pieces(`{"family_name":"Dvořáková-Wachtmeister","number":"`), pieces(filler[3])...))
	given, keys, sealedPieces := make([][]piece, offers), make([][]piece, offers), make([][]piece, offers)
	for i, c := range all {
		id, code, _ := parseOpaque(c.Code)
		_, uri, _ := parseOpaque(c.URISecret)
		given[i] = append(append(pieces(c.Code[8:]), pieces(c.URISecret[8:])...), append(pieces(code[:]), pieces(uri[:])...)...)
		given[i] = append(given[i], piece([]byte(c.TransactionCode)))
		if i%4 == 0 {
			continue
		}
		sealed, wrapped := f.parts(id)
		keys[i], sealedPieces[i] = pieces(wrapped), pieces(sealed)
	}
	if n := f.traces(flat(keys)); n != len(flat(keys)) {
		t.Fatalf("only %d of %d pieces of the keys are in the files before: the search is blind", n, len(flat(keys)))
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(offers)
	together(8, func(worker int) error {
		for at := worker; at < offers; at += 8 {
			if i := order[at]; i%4 != 0 {
				for _, token := range endings[i%len(endings)](f, all[i]) {
					given[i] = append(given[i], pieces(token[8:])...)
				}
			}
		}
		return nil
	})
	f.clock.pass(testExpiry)
	f.sweep()
	if left := f.ask("SELECT count(*) FROM claims"); left != offers/4 {
		t.Fatalf("%d offers have claims, want %d", left, offers/4)
	}
	f.absent("offers' keys", flat(keys))
	f.absent("what was given out", flat(given))
	t.Logf("of %d pieces of sealed claims %d left a trace, without a key", len(flat(sealedPieces)), f.traces(flat(sealedPieces)))
	for i := 0; i < offers; i += 4 {
		g := f.grant(f.redeem(all[i]))
		if claims, err := g.Claims(ctx); err != nil || !strings.Contains(string(claims), fmt.Sprintf(`"number":"%d"`, i)) {
			t.Errorf("offer %d, which is open: %v", i, err)
		}
		g.Release()
	}
}

func flat(lists [][]piece) (all []piece) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// TestBlocks holds that 64 offers' keys share a row without touching each other,
// and that rows go when their offers' records do.
func TestBlocks(t *testing.T) {
	f := open(t)
	var made []Created
	for range 3 * keysInBlock {
		made = append(made, f.create(0))
	}
	if n := f.ask("SELECT count(*) FROM keys"); n != 4 { // ids begin with 1
		t.Errorf("%d rows of keys, want 4", n)
	}
	for i, c := range made {
		if i%3 == 1 {
			if err := f.CancelOffer(context.Background(), c.ID, "registrar"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, c := range made {
		if i%3 == 1 {
			f.wantShredded(c.ID, true)
			continue
		}
		g := f.grant(f.redeem(c))
		if claims, err := g.Claims(context.Background()); err != nil || string(claims) != claimsText {
			t.Errorf("offer %d: %v", i+1, err)
		}
		g.Release()
	}
	f.clock.pass(testExpiry)
	f.sweep()
	last := f.create(0)
	f.clock.pass(testRetention + time.Second)
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1 WHERE due_at IS NOT NULL", millis(f.clock.Now().Add(testExpiry)))
	f.sweep()
	if n := f.ask("SELECT count(*) FROM keys"); n != 1 {
		t.Errorf("%d rows of keys for one offer", n)
	}
	g := f.grant(f.redeem(last))
	defer g.Release()
	if _, err := g.Claims(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestAnEpochIsShredded holds that an epoch's wrapped key goes when its last
// offer has ended, and not before.
func TestAnEpochIsShredded(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	c := f.create(0)
	var wrapped []byte
	if err := f.db.Read(ctx, func(r *database.Reader) error {
		_, err := r.Row("SELECT wrapped FROM epochs", nil, []any{&wrapped})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f.tamper("UPDATE offers SET expires_at = ?1, due_at = ?1", millis(f.clock.Now().Add(2*f.options.DataKeyLifetime)))
	f.clock.pass(f.options.DataKeyLifetime)
	if err := f.Rotate(ctx); err != nil {
		t.Fatal(err)
	}
	f.sweep()
	if n := f.ask("SELECT count(*) FROM epochs"); n != 2 {
		t.Fatalf("%d epochs, want the current one and the one that an open offer needs", n)
	}
	f.issue(f.redeem(c), "pid")
	f.sweep()
	if n := f.ask("SELECT min(id) FROM epochs"); n != 2 {
		t.Errorf("epoch %d is still there", n)
	}
	f.absent("the epoch's wrapped key", pieces(wrapped))
	if ids, _ := f.keys.known(); len(ids) != 1 {
		t.Errorf("%d epochs' keys are in memory", len(ids))
	}
}
