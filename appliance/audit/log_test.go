package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"chancery/appliance/database"
)

func TestASoundLogVerifies(t *testing.T) {
	for _, kind := range []string{"ed25519", "p256"} {
		k := newKey(t, kind)
		path := filled(t, k, 40)
		if r := sound(t, path, k, 41); r.Covered != 41 || r.Origin != origin || r.Checkpoints != 1 {
			t.Errorf("%s: %+v", kind, r)
		}
		sound(t, filepath.Dir(path), k, 41) // by its folder
		l := openLog(t, path, k)
		if l.Size() != 41 || l.Origin() != origin {
			t.Errorf("reopened with %d entries of %q", l.Size(), l.Origin())
		}
	}
}

// TestAnyHistoryVerifies takes a log through random acts. Whatever they were, it
// verifies against every checkpoint that was ever given out, and the newest one
// is proven to go on from any of them.
func TestAnyHistoryVerifies(t *testing.T) {
	k := newKey(t, "ed25519")
	rapid.Check(t, func(r *rapid.T) {
		path := create(t)
		l := openLog(t, path, k)
		size, n := int64(1), 0
		var kept [][]byte
		acts := map[string]func(*rapid.T){
			"append": func(r *rapid.T) {
				var batch [][]byte
				for range rapid.IntRange(1, 20).Draw(r, "entries") {
					n++
					batch = append(batch, marshal(t, Entry{Kind: "offer.created", Subject: fmt.Sprint(n), Reason: strings.Repeat("y", rapid.SampledFrom([]int{0, 10, 300, 9000}).Draw(r, "length"))}))
				}
				if first := mustAppend(t, l, batch...); first != size {
					r.Fatalf("the first of the batch is %d, want %d", first, size)
				}
				size += int64(len(batch))
			},
			"checkpoint": func(*rapid.T) { kept = append(kept, mustCheckpoint(t, l, k)) },
			"restart": func(*rapid.T) {
				closeLog(t, l)
				l = openLog(t, path, k)
			},
			"crash": func(*rapid.T) {
				s := snap(t, path)
				closeLog(t, l)
				path = s.put(t)
				l = openLog(t, path, k)
			},
			"flush": func(*rapid.T) {
				if err := l.db.Flush(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
		}
		for _, act := range rapid.SliceOfN(rapid.SampledFrom([]string{"append", "append", "checkpoint", "restart", "crash", "flush"}), 1, 12).Draw(r, "acts") {
			acts[act](r)
			if l.Size() != size {
				r.Fatalf("%d entries after %s, want %d", l.Size(), act, size)
			}
		}
		kept = append(kept, mustCheckpoint(t, l, k))
		closeLog(t, l)
		sound(t, path, k, size, kept...)
		older := rapid.SampledFrom(kept).Draw(r, "older")
		proof, err := Prove(path, k.vkey, Wanted{Kept: older})
		if err != nil {
			r.Fatal(err)
		}
		if _, err := VerifyProof(proof, k.vkey, older, kept[len(kept)-1]); err != nil {
			r.Fatal(err)
		}
	})
}

func TestConcurrentAppendsAreAllThere(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	var mu sync.Mutex
	seen := map[int64]bool{0: true}
	var wait sync.WaitGroup
	for i := range 200 {
		wait.Go(func() {
			first, err := l.Append(context.Background(), leaf(t, 2*i), leaf(t, 2*i+1))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[first] || seen[first+1] {
				t.Errorf("append %d: index %d, %v", i, first, err)
			}
			seen[first], seen[first+1] = true, true
		})
		if i%20 == 0 {
			wait.Go(func() {
				if _, err := l.Checkpoint(context.Background(), k.signer); err != nil {
					t.Errorf("checkpoint: %v", err)
				}
			})
		}
	}
	wait.Wait()
	if l.Size() != 401 {
		t.Errorf("%d entries, want 401", l.Size())
	}
	mustCheckpoint(t, l, k)
	closeLog(t, l)
	sound(t, path, k, 401)
}

// TestCloseUnderLoad closes a log while others append: each append is there or
// was refused.
func TestCloseUnderLoad(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	var mu sync.Mutex
	acknowledged := int64(1)
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			for {
				_, err := l.Append(context.Background(), leaf(t, i))
				if errors.Is(err, database.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged++
				mu.Unlock()
			}
		})
	}
	for l.Size() < 500 {
		time.Sleep(time.Millisecond)
	}
	closeLog(t, l)
	wait.Wait()
	if l := openLog(t, path, k); l.Size() != acknowledged {
		t.Errorf("%d entries, %d acknowledged", l.Size(), acknowledged)
	}
}

// TestPromiseP1WhatWasAcknowledgedSurvivesAKill kills a process that appends, in
// the middle of it. What it was told is durable is in the log, and the log opens
// by itself.
func TestPromiseP1WhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	if path := os.Getenv("AUDIT_TEST_APPEND_TO"); path != "" {
		appendForEver(t, path)
		return
	}
	k := newKey(t, "ed25519")
	path := create(t)
	size := int64(1)
	for round := range 8 {
		command := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
		command.Env = append(os.Environ(), "AUDIT_TEST_APPEND_TO="+path)
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := int64(0)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			var index int64
			if _, err := fmt.Sscanf(lines.Text(), "durable %d", &index); err != nil {
				continue
			}
			if acknowledged = max(acknowledged, index+1); acknowledged > size+int64(100*(round+1)) {
				command.Process.Kill()
			}
		}
		command.Wait()
		l, err := tryOpen(t, path, k)
		if err != nil {
			t.Fatalf("after kill %d: %v", round, err)
		}
		if l.Size() < acknowledged || acknowledged == 0 {
			t.Errorf("%d entries, %d acknowledged", l.Size(), acknowledged)
		}
		size = l.Size()
		closeLog(t, l)
		sound(t, path, k, size)
	}
}

// appendForEver appends from several goroutines until it is killed.
func appendForEver(t *testing.T, path string) {
	l, err := Open(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		go func() {
			for {
				first, err := l.Append(context.Background(), leaf(t, i), leaf(t, i))
				if err != nil {
					os.Exit(3)
				}
				fmt.Printf("durable %d\n", first+1)
			}
		}()
	}
	select {}
}

// TestArguments gives the log what it must not take; it stays as it is.
func TestArguments(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	gone, leave := context.WithCancel(context.Background())
	leave()
	for name, bad := range map[string][]byte{"empty": {}, "no JSON": []byte("x"), "two lines": []byte("{}\n{}"), "long": bytes.Repeat([]byte("x"), MaxLeaf+1)} {
		if _, err := l.Append(context.Background(), leaf(t, 0), bad); err == nil {
			t.Errorf("%s: appended", name)
		}
	}
	if _, err := l.Append(gone, leaf(t, 0)); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
	if l.Size() != 1 || l.Failed() != nil {
		t.Errorf("%d entries, failed: %v", l.Size(), l.Failed())
	}
	if first := mustAppend(t, l); first != 1 {
		t.Errorf("nothing appended, as number %d", first)
	}
	for _, name := range []string{"", "two words", "a+b", "line\nbreak", "\xff"} {
		if err := Create(filepath.Join(t.TempDir(), "signer.db"), name, noon); err == nil {
			t.Errorf("a log was made for %q", name)
		}
	}
	if err := Create(path, origin, noon); !errors.Is(err, database.ErrExists) {
		t.Errorf("a second creation: %v", err)
	}
	if _, err := tryOpen(t, filepath.Join(t.TempDir(), "signer.db"), k); !errors.Is(err, database.ErrMissing) {
		t.Errorf("a log that is not there: %v", err)
	}
}

// TestCheckpoints gives checkpoints, keeps of each stretch the newest, and signs
// with the log's own key alone.
func TestCheckpoints(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	if signed, covered := l.LatestCheckpoint(); signed != nil || covered != 0 {
		t.Errorf("a new log has a checkpoint of %d entries", covered)
	}
	if _, err := NewestCheckpoint(path); err == nil || !strings.Contains(err.Error(), "no checkpoint yet") {
		t.Errorf("the newest of none: %v", err)
	}
	first := mustCheckpoint(t, l, k)
	if again := mustCheckpoint(t, l, k); !bytes.Equal(again, first) {
		t.Error("the same tree was signed twice")
	}
	batch := make([][]byte, 512)
	for i := range batch {
		batch[i] = leaf(t, i)
	}
	kept := [][]byte{first}
	for range 20 {
		mustAppend(t, l, batch...)
		kept = append(kept, mustCheckpoint(t, l, k))
	}
	stranger, err := NewSigner("other.example/log", newPublic(t), func([]byte) ([]byte, error) { return nil, errors.New("not asked") })
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, leaf(t, 0))
	if _, err := l.Checkpoint(context.Background(), stranger); err == nil || !strings.Contains(err.Error(), `named "other.example/log"`) {
		t.Errorf("another log's key: %v", err)
	}
	away := errors.New("the token is away")
	broken, err := NewSigner(origin, newPublic(t), func([]byte) ([]byte, error) { return nil, away })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Checkpoint(context.Background(), broken); !errors.Is(err, away) || l.Failed() != nil {
		t.Errorf("a token that is away: %v, the log: %v", err, l.Failed())
	}
	closeLog(t, l)
	if r := sound(t, path, k, 1+20*512+1, kept...); r.Checkpoints != 3 || r.Covered != 1+20*512 {
		t.Errorf("%d checkpoints are kept, the newest of %d entries", r.Checkpoints, r.Covered)
	}
}

// TestCheckpointsComeOneAfterTheOther asks for a second checkpoint, of a larger
// tree, while the first is in the token. The second may not overtake the first:
// what is stored last is the larger.
func TestCheckpointsComeOneAfterTheOther(t *testing.T) {
	path := create(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var l *Log
	var signer note.Signer
	second, calls := make(chan []byte, 1), 0
	signer, err = NewSigner(origin, public, func(msg []byte) ([]byte, error) {
		if calls++; calls == 1 {
			mustAppend(t, l, leaf(t, 1))
			go func() {
				signed, err := l.Checkpoint(context.Background(), signer)
				if err != nil {
					t.Error(err)
				}
				second <- signed
			}()
			select {
			case overtaking := <-second:
				t.Error("the second overtook the first")
				second <- overtaking
			case <-time.After(100 * time.Millisecond): // it waits
			}
		}
		return ed25519.Sign(private, msg), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := VerifierKey(origin, public)
	if err != nil {
		t.Fatal(err)
	}
	k := key{signer, vkey}
	l = openLog(t, path, k)
	first := mustCheckpoint(t, l, k)
	larger := <-second
	if stored, covered := l.LatestCheckpoint(); covered != 2 || !bytes.Equal(stored, larger) || bytes.Equal(first, larger) {
		t.Errorf("the newest covers %d entries", covered)
	}
	closeLog(t, l)
	if !bytes.Equal(newest(t, path), larger) {
		t.Error("the larger is not the one that is stored")
	}
	sound(t, path, k, 2, first, larger)
}

func newPublic(t *testing.T) ed25519.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// TestOpenWithoutAKey opens a log that has checkpoints, though the replay found
// no key for them.
func TestOpenWithoutAKey(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 3)
	for name, keyOf := range map[string]func() note.Verifier{"nobody": nil, "no key": func() note.Verifier { return nil }} {
		if _, err := Open(path, nil, keyOf); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	closeLog(t, openLog(t, path, k))
}

// TestReplay sees every entry once, in order, and what it refuses stops the start.
func TestReplay(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	var want []string
	for i := range 300 {
		e := long(t, 1+i*10)
		mustAppend(t, l, e)
		want = append(want, string(e))
	}
	closeLog(t, l)
	var got []string
	l, err := Open(path, func(index int64, leaf []byte) error {
		if index != int64(len(got)) {
			t.Fatalf("entry %d comes after %d", index, len(got))
		}
		got = append(got, string(leaf))
		return nil
	}, nil)
	if err != nil || strings.Join(got[1:], "\n") != strings.Join(want, "\n") {
		t.Fatalf("%d entries replayed: %v", len(got), err)
	}
	closeLog(t, l)
	refused := errors.New("refused")
	calls := 0
	_, err = Open(path, func(index int64, _ []byte) error {
		calls++
		if index == 7 {
			return refused
		}
		return nil
	}, nil)
	if !errors.Is(err, refused) || !strings.Contains(err.Error(), "entry 7") || calls != 8 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	closeLog(t, openLog(t, path, k)) // the lock is free again
}

// TestANewerSQLite opens a file that another version of SQLite wrote last: the
// header's first page is written anew, so that the file verifies at once.
func TestANewerSQLite(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 3)
	file := read(t, path)
	binary.BigEndian.PutUint32(file[atWriter:], 3_040_001)
	write(t, path, file)
	unsound(t, path, k, "the header's SQLite version is 3040001")
	change(t, path, statements("UPDATE meta SET writer = 3040001"))
	closeLog(t, openLog(t, path, k))
	sound(t, path, k, 4)
}

// TestVersionNumber reads SQLite's version.
func TestVersionNumber(t *testing.T) {
	if n, err := versionNumber("3.50.4"); err != nil || n != 3_050_004 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := versionNumber("new"); err == nil {
		t.Error("\"new\" is a version")
	}
}

// TestHeaderOfANewLog compares the file's first bytes with what the format's
// description says of them.
func TestHeaderOfANewLog(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	closeLog(t, openLog(t, path, k))
	header := hex.EncodeToString(read(t, path)[:100])
	for at, want := range map[int]string{0: "53514c69746520666f726d6174203300", 16: "1000", 18: "0202", 40: "43484c47", 68: "43484c47", 60: "00000001"} {
		if got := header[2*at : 2*at+len(want)]; got != want {
			t.Errorf("at %d stands %s, want %s", at, got, want)
		}
	}
}
