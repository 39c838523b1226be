package encryption

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chancery/appliance/store"
)

// kids are the published kids.
func kids(t *testing.T, e *Encryption) string {
	t.Helper()
	var out []string
	for _, k := range published(t, e) {
		out = append(out, k["kid"].(string))
	}
	return strings.Join(out, " ")
}

func refresh(t *testing.T, e *Encryption) {
	t.Helper()
	if err := e.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestRotation: a key is published for its time and decrypts for the overlap
// after its successor; the metadata's version says when it changed; the store
// keeps no key longer.
func TestRotation(t *testing.T) {
	m := &memory{}
	e := opened(t, all(), m)
	first, version := kids(t, e), e.Version()
	public, header := to(t, e)
	old := []byte(forge(t, public, header, []byte("old")))
	reads := func() bool {
		got, err := e.Decrypt(old)
		if err != nil {
			refused(t, err, "JWE header kid")
		}
		return err == nil && string(got) == "old"
	}
	m.clock.pass(rotation - time.Second)
	refresh(t, e)
	if kids(t, e) != first || e.Version() != version || version != 1 || len(m.keys) != 3 {
		t.Fatal("rotated before its time")
	}
	m.clock.pass(time.Second)
	refresh(t, e)
	second := kids(t, e)
	if second == first || e.Version() != 2 || len(m.keys) != 6 || !reads() {
		t.Fatalf("after the rotation: version %d, %d keys, old one reads: %t", e.Version(), len(m.keys), reads())
	}
	m.clock.pass(overlap - time.Second)
	refresh(t, e)
	if !reads() || len(m.keys) != 6 {
		t.Error("the overlap was cut short")
	}
	m.clock.pass(time.Second)
	if reads() {
		t.Error("the old key decrypts after the overlap, before a refresh")
	}
	refresh(t, e)
	if reads() || len(m.keys) != 3 || kids(t, e) != second || e.Version() != 2 {
		t.Errorf("after the overlap: %d keys, version %d", len(m.keys), e.Version())
	}
}

// TestRestart: the same keys are loaded again, published ones and those in overlap.
func TestRestart(t *testing.T) {
	m := &memory{}
	e := opened(t, all(), m)
	public, header := to(t, e)
	old := []byte(forge(t, public, header, []byte("old")))
	m.clock.pass(rotation)
	refresh(t, e)
	again := opened(t, all(), m)
	if kids(t, again) != kids(t, e) || again.Version() != 1 {
		t.Error("a restart changed the keys")
	}
	if got, err := again.Decrypt(old); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	m.clock.pass(overlap)
	if _, err := opened(t, all(), m).Decrypt(old); err == nil || len(m.keys) != 3 {
		t.Errorf("%v, %d keys", err, len(m.keys))
	}
}

// TestAway: what is loaded serves on while the store fails, past its time as
// well; the error and one line of the log say so.
func TestAway(t *testing.T) {
	var log bytes.Buffer
	m := &memory{}
	o := all()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	e := opened(t, o, m)
	had := kids(t, e)
	public, header := to(t, e)
	request := []byte(forge(t, public, header, []byte("x")))
	for name, faults := range map[string][3]error{"read": {errAway}, "add": {nil, errAway}} {
		m.fail(faults[0], faults[1], faults[2])
		log.Reset()
		m.clock.pass(2 * rotation)
		for range 2 {
			if err := e.Refresh(context.Background()); !errors.Is(err, errAway) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := e.Decrypt(request); err != nil || kids(t, e) != had || len(m.keys) != 3 {
			t.Errorf("%s: %v, %d keys", name, err, len(m.keys))
		}
		if strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("%s: %s", name, &log)
		}
		m.fail(nil, nil, nil)
		m.clock.pass(-4 * rotation) // so that nothing is due
		refresh(t, e)
		refresh(t, e)
		if strings.Count(log.String(), "can be loaded and rotated again") != 1 {
			t.Errorf("%s: %s", name, &log)
		}
		m.clock.pass(2 * rotation)
	}
}

// TestNotStoredNotPublished: nobody is shown a key that would be lost with the process.
func TestNotStoredNotPublished(t *testing.T) {
	m := &memory{added: errAway}
	e := closed(t, all(), m)
	if err := e.Refresh(context.Background()); !errors.Is(err, errAway) || e.Version() != 0 {
		t.Errorf("%v, version %d", err, e.Version())
	}
	if request, _ := e.Metadata(); request != nil {
		t.Errorf("%v", request)
	}
	m.fail(nil, nil, nil)
	refresh(t, e)
	if e.Version() != 1 || len(published(t, e)) != 3 {
		t.Errorf("version %d", e.Version())
	}
}

// TestNotDeleted: a key that cannot be deleted decrypts nothing all the same.
func TestNotDeleted(t *testing.T) {
	m := &memory{}
	e := opened(t, all(), m)
	public, header := to(t, e)
	old := []byte(forge(t, public, header, []byte("old")))
	m.clock.pass(rotation)
	refresh(t, e)
	m.clock.pass(overlap)
	m.fail(nil, nil, errAway)
	if err := e.Refresh(context.Background()); !errors.Is(err, errAway) {
		t.Error(err)
	}
	if _, err := e.Decrypt(old); err == nil {
		t.Error("decrypted")
	}
}

// p384 is a private JWK on a curve that requests are not encrypted to.
func p384(t *testing.T) string {
	t.Helper()
	private, _ := walletKey(t, elliptic.P384())
	data, err := jose.JSONWebKey{Key: private, KeyID: bobName, Algorithm: "ECDH-ES"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestUnknownKeyInStore: a key that this program does not make stops the
// loading, and the error shows nothing of it (promise P7).
func TestUnknownKeyInStore(t *testing.T) {
	good := string(bobJWK())
	for name, private := range map[string]string{
		"no JSON":        "secret",
		"no private key": strings.Replace(good, `"d":"`+bobD+`",`, "", 1),
		"other kid":      strings.Replace(good, `"kid":"bob"`, `"kid":"alice"`, 1),
		"other alg":      strings.Replace(good, `"ECDH-ES"`, `"RSA-OAEP"`, 1),
		"no alg":         strings.Replace(good, `"alg":"ECDH-ES",`, "", 1),
		"off the curve":  strings.Replace(good, bobY, bobX, 1),
		"other curve":    p384(t),
		"symmetric":      `{"kty":"oct","k":"c2VjcmV0","kid":"bob","alg":"ECDH-ES"}`,
	} {
		m := &memory{}
		e := opened(t, all(), m)
		had := kids(t, e)
		m.keys = append(m.keys, store.EncryptionKey{Kid: bobName, Private: []byte(private), CreatedAt: start})
		err := e.Refresh(context.Background())
		if err == nil || !strings.Contains(err.Error(), bobName) || strings.Contains(err.Error(), bobD) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if kids(t, e) != had {
			t.Errorf("%s: what was loaded did not stay", name)
		}
	}
}

// TestNothingSecretPublishedOrLogged: neither metadata nor log hold a private key.
func TestNothingSecretPublishedOrLogged(t *testing.T) {
	var log bytes.Buffer
	o := all()
	o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	e := opened(t, o, &memory{})
	for _, k := range published(t, e) {
		if _, has := k["d"]; has {
			t.Error("a private key is published")
		}
	}
	for _, k := range e.keys.Load().published {
		d, err := k.private.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log.String(), b64(d)) || !strings.Contains(log.String(), k.id) {
			t.Errorf("%s", &log)
		}
	}
}

// TestConcurrency: requests are read and answers written while keys rotate.
func TestConcurrency(t *testing.T) {
	m := &memory{}
	e := opened(t, all(), m)
	m.clock.pass(rotation - overlap/4) // they are due amid what follows, and none's overlap ends
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for n := range 30 {
				public, header := to(t, e)
				text := fmt.Sprint(worker, n)
				if got, err := e.Decrypt([]byte(forge(t, public, header, []byte(text)))); err != nil || string(got) != text {
					t.Errorf("%q, %v", got, err)
				}
				r, err := e.ParseResponse(asObject(t, map[string]any{"jwk": published(t, e)[0], "enc": "A256GCM"}))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := r.Encrypt([]byte(text)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wait.Go(func() {
			for range 10 {
				m.clock.pass(overlap / 40)
				if err := e.Refresh(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if e.Version() != 2 || len(m.keys) != 6 {
		t.Errorf("version %d, %d keys", e.Version(), len(m.keys))
	}
}
