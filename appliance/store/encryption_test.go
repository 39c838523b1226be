package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestEncryptionKeys keeps keys over restarts, sealed, and deletes them.
func TestEncryptionKeys(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	private := func(kid string) string { return "the private key of " + kid }
	add := func(kid string) {
		t.Helper()
		if err := f.AddEncryptionKey(ctx, kid, []byte(private(kid))); err != nil {
			t.Fatal(err)
		}
		f.clock.pass(time.Second)
	}
	want := func(kids ...string) {
		t.Helper()
		f.restart()
		keys, err := f.EncryptionKeys(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, k := range keys {
			got = append(got, k.Kid)
			if string(k.Private) != private(k.Kid) || i > 0 && !k.CreatedAt.After(keys[i-1].CreatedAt) {
				t.Errorf("%+v", k)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(kids) {
			t.Errorf("keys %v, want %v", got, kids)
		}
	}
	want()
	add("z")
	add("a")
	want("z", "a")
	f.absent("private keys", append(pieces(private("z")), pieces(private("a"))...))
	if err := f.AddEncryptionKey(ctx, "z", []byte("another")); !errors.Is(err, ErrExists) {
		t.Errorf("a second key with the same kid: %v", err)
	}
	want("z", "a")
	if err := f.RetireEncryptionKeys(ctx, "z", "unknown"); err != nil {
		t.Error(err)
	}
	want("a")
	if err := f.RetireEncryptionKeys(ctx); err != nil {
		t.Error(err)
	}
	f.drain()
	if kinds := f.log.kinds("z"); kinds["encryption_key.added"] != 1 || kinds["encryption_key.deleted"] != 1 || len(f.log.kinds("unknown")) != 0 {
		t.Errorf("%v", kinds)
	}
	f.wantLog()
}

// TestEncryptionKeysAreBound holds that keys need the token, and do not open
// under another name or after a change.
func TestEncryptionKeysAreBound(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	if err := f.AddEncryptionKey(ctx, "a", []byte("the private key of a")); err != nil {
		t.Fatal(err)
	}
	f.wrapper.setAway(true)
	if err := f.AddEncryptionKey(ctx, "b", []byte("the private key of b")); !errors.Is(err, ErrKeyAway) || !errors.Is(err, errAway) {
		t.Errorf("added without the token: %v", err)
	}
	if keys, err := f.EncryptionKeys(ctx); !errors.Is(err, ErrKeyAway) || !errors.Is(err, errAway) || keys != nil {
		t.Errorf("opened without the token: %v", err)
	}
	f.wrapper.setAway(false)
	if err := f.AddEncryptionKey(ctx, "b", []byte("the private key of b")); err != nil {
		t.Fatal(err)
	}
	for _, change := range []string{
		"UPDATE encryption_keys SET kid = 'c' WHERE kid = 'a'", "UPDATE encryption_keys SET sealed = zeroblob(60) WHERE kid = 'c'",
		"UPDATE encryption_keys SET wrapped = (SELECT wrapped FROM encryption_keys WHERE kid = 'b') WHERE kid = 'c'",
	} {
		f.tamper(change)
		if keys, err := f.EncryptionKeys(ctx); err == nil || keys != nil || strings.Contains(err.Error(), "private key of") {
			t.Errorf("%s: %v", change, err)
		}
	}
}
