package promises

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"chancery/appliance/audit"
)

// flips is how many single bytes are changed, one at a time.
const flips = 150

// TestPromiseP5AFlippedByteIsNoticed changes one byte of a copied signer.db at a
// time, anywhere; "chancery audit verify", with nothing but the public key, says
// so each time. Entries that are dropped from the end are noticed against a
// checkpoint that was kept elsewhere.
func TestPromiseP5AFlippedByteIsNoticed(t *testing.T) {
	a := start(t)
	for range 3 {
		for _, id := range formats {
			if _, err := a.client.Whole(context.Background(), id, claims(t, id), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	copied := filepath.Join(a.copyState(), "signer.db")
	vkey := filepath.Join(a.run, "out", "checkpoint.vkey")
	sound, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if out, status := a.chancery("audit", "verify", "--vkey-file", vkey, copied); status != 0 {
		t.Fatalf("the copy itself: status %d: %s", status, out)
	}
	for range flips {
		at, bit := rand.IntN(len(sound)), byte(1)<<rand.IntN(8)
		damaged := append([]byte(nil), sound...)
		damaged[at] ^= bit
		if err := os.WriteFile(copied, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, status := a.chancery("audit", "verify", "--vkey-file", vkey, copied); status != 1 {
			t.Errorf("byte %d of %d, bit %#x: status %d: %s", at, len(sound), bit, status, out)
		}
	}
}

// TestPromiseP7DamageStopsTheSigner changes an entry in the live signer.db of a
// stopped appliance: the signer refuses to start and says why, nothing is
// issued, and with the file put back everything goes on.
func TestPromiseP7DamageStopsTheSigner(t *testing.T) {
	a := start(t)
	if _, err := a.client.Whole(context.Background(), pidSDJWT, claims(t, pidSDJWT), true); err != nil {
		t.Fatal(err)
	}
	a.down()
	for name, damage := range map[string]struct {
		file   string
		change func(data []byte) []byte
		says   string
	}{
		"a changed entry": {"signer.db", func(data []byte) []byte {
			return []byte(strings.Replace(string(data), `"kind":"signature.made"`, `"kind":"signature.mode"`, 1))
		}, "does not match itself"},
		"a schema from the future": {"chancery.db", func(data []byte) []byte { // the header's user_version
			data[63] = 99
			return data
		}, "version"},
	} {
		path := filepath.Join(a.run, "data", damage.file)
		sound, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := damage.change(append([]byte(nil), sound...))
		if string(damaged) == string(sound) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		before := a.logSize()
		go a.demo("up") // it waits for a readiness that does not come
		eventually(t, name+" is said to be so", func() error {
			if said := a.logSince(before); !strings.Contains(said, damage.says) {
				return fmt.Errorf("the log says %q", said)
			}
			return nil
		})
		if status, body := a.readiness(); status == http.StatusOK {
			t.Errorf("%s: ready: %s", name, body)
		}
		a.demo("down")
		if err := os.WriteFile(path, sound, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.up()
	if _, err := a.client.Whole(context.Background(), pidSDJWT, claims(t, pidSDJWT), true); err != nil {
		t.Error(err)
	}
}

func (a *appliance) logSize() int {
	data, _ := os.ReadFile(filepath.Join(a.run, "log", "chanceryd.log"))
	return len(data)
}

func (a *appliance) logSince(size int) string {
	data, _ := os.ReadFile(filepath.Join(a.run, "log", "chanceryd.log"))
	return string(data[min(size, len(data)):])
}

// TestPromiseP1WithoutAnEntryNoSignature fills the disk that holds the audit log:
// no credential leaves. With room again issuing goes on by itself, and every
// credential that did leave is in the log.
func TestPromiseP1WithoutAnEntryNoSignature(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	a := setUp(t)
	a.up()
	a.down()
	small := filepath.Join(filepath.Dir(a.run), "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=8m,mode=700"); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { a.demo("down"); unix.Unmount(small, unix.MNT_DETACH) })
	log, err := os.ReadFile(filepath.Join(a.run, "data", "signer.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(small, "signer.db"), log, 0o600); err != nil {
		t.Fatal(err)
	}
	a.configure(`database = "data/signer.db"`, fmt.Sprintf("database = %q", filepath.Join(small, "signer.db")))
	a.up()
	var held []taken
	w := a.readyWallet(mdl)
	filler := filepath.Join(small, "filler")
	fill(t, filler)
	refused := 0
	for range 2000 {
		ctx := context.Background()
		credential, err := a.client.Whole(ctx, pidSDJWT, claims(t, pidSDJWT), false)
		if err == nil {
			held = append(held, taken{pidSDJWT, credential})
			continue
		}
		if !strings.Contains(err.Error(), "credential: 503") {
			t.Fatalf("on a full disk: %v: want 503 from the credential endpoint", err)
		}
		if refused++; refused == 5 {
			break
		}
	}
	if refused < 5 {
		t.Fatalf("the disk never was full: %d credentials", len(held))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	a.becomesReady()
	eventually(t, "the wallet that was turned away", func() error {
		if answer := w.ask(); answer.Status != http.StatusOK {
			return fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		return nil
	})
	a.down()
	if err := copyOver(filepath.Join(small, "signer.db"), filepath.Join(a.run, "data", "signer.db")); err != nil {
		t.Fatal(err)
	}
	l := readLog(t, a)
	for _, c := range held {
		l.holds(t, c)
	}
	made := 0
	for _, e := range l.entries {
		if e.Kind == audit.KindMade {
			made++
		}
	}
	t.Logf("%d credentials before the disk was full, then %d refusals; the log has %d signatures", len(held), refused, made)
}

// fill takes all the room there is.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}

func copyOver(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}
