package encryption

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chancery/appliance/signer/signertest"
	"chancery/appliance/store"
)

// realStore makes a chancery.db with a real token behind it.
func realStore(t *testing.T, s *signertest.Signer, path string) *store.Store {
	t.Helper()
	if err := store.Create(path); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(path, store.Options{DataKeyLifetime: time.Hour, Retention: time.Hour, Attempts: 3, DataKeys: store.DataKeys{
		New: func(ctx context.Context, bound string) ([]byte, []byte, error) {
			k, err := s.Sign.NewDataKey(ctx, bound)
			return k.Key, k.Wrapped, err
		},
		Open: func(ctx context.Context, bound string, wrapped []byte) ([]byte, error) {
			k, err := s.Sign.OpenDataKey(ctx, bound, wrapped)
			return k.Key, err
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestTokenAwayAndBack: keys are kept by a real store under a real token.
// Without the token those that are loaded serve on, and after a restart nothing
// does until the token is back; then what was sent meanwhile is read (promise P10). No
// private key lies in the files (promise P9).
func TestTokenAwayAndBack(t *testing.T) {
	s := signertest.Start(t, signertest.Options{Faults: true})
	path := filepath.Join(s.Dir, "chancery.db")
	o := all()
	o.Rotation, o.Overlap, o.Store = rotation, overlap, realStore(t, s, path)
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	refresh(t, e)
	had := kids(t, e)
	public, header := to(t, e)
	request := []byte(forge(t, public, header, []byte("sent")))
	k := e.keys.Load().published[0]
	d, err := k.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}

	s.Fault.Order(t, "gone 0x32")
	if err := e.Refresh(t.Context()); !errors.Is(err, store.ErrKeyAway) {
		t.Errorf("a refresh without the token: %v", err)
	}
	if got, err := e.Decrypt(request); err != nil || string(got) != "sent" {
		t.Errorf("%q, %v", got, err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	file = append(file, wal...)
	if !bytes.Contains(file, []byte(k.id)) || bytes.Contains(file, d) || bytes.Contains(file, []byte(b64(d))) {
		t.Error("the files must hold the key's id and not the key")
	}

	again, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Refresh(t.Context()); !errors.Is(err, store.ErrKeyAway) || again.Version() != 0 {
		t.Errorf("a restart without the token: %v", err)
	}
	s.Fault.Order(t)
	for again.Refresh(t.Context()) != nil {
		if t.Context().Err() != nil {
			t.Fatal("the token did not come back")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got, err := again.Decrypt(request); err != nil || string(got) != "sent" || kids(t, again) != had {
		t.Errorf("%q, %v", got, err)
	}
}
