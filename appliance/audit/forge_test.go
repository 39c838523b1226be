package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"chancery/appliance/database"
)

// forgeries are what somebody would do who may write to signer.db. Each keeps the
// file as consistent as it can.
var forgeries = []struct {
	name   string
	forge  func(t *testing.T, tx *database.Tx) error
	why    string // what the verifier says
	starts bool   // the signer starts: only a checkpoint kept elsewhere shows it
}{
	{"an entry's text", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("UPDATE entries SET leaf = ? WHERE id = 3", leaf(t, 99))
		return err
	}, "entry 2 does not hash to what is stored", false},
	{"an entry with its hash", func(t *testing.T, tx *database.Tx) error {
		h := tlog.RecordHash(leaf(t, 99))
		_, err := tx.Exec("UPDATE entries SET leaf = ?, hash = ? WHERE id = 3", leaf(t, 99), h[:])
		return err
	}, "do not give the root of the checkpoint", false},
	{"an entry's hash", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("UPDATE entries SET hash = zeroblob(32) WHERE id = 3")
		return err
	}, "entry 2 does not hash to what is stored", false},
	{"the last entry dropped", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM entries WHERE id = (SELECT max(id) FROM entries)")
		return err
	}, "a checkpoint covers 21 entries, but there are 20", false},
	{"an entry dropped", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM entries WHERE id = 5")
		return err
	}, "entry 4 is missing", false},
	{"all entries dropped", func(t *testing.T, tx *database.Tx) error {
		return statements("DELETE FROM entries", "DELETE FROM checkpoints")(tx)
	}, "a checkpoint covers 21 entries, but there are 0", false},
	{"two entries swapped", func(t *testing.T, tx *database.Tx) error {
		return statements("UPDATE entries SET id = 1000 WHERE id = 3", "UPDATE entries SET id = 3 WHERE id = 4", "UPDATE entries SET id = 4 WHERE id = 1000")(tx)
	}, "do not give the root of the checkpoint", false},
	{"another key's checkpoint", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("UPDATE checkpoints SET note = ?", newKey(t, "ed25519").sign(t, Checkpoint{Origin: origin, Size: 21}))
		return err
	}, "is not signed by", false},
	{"a checkpoint in another row", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("UPDATE checkpoints SET size = 20")
		return err
	}, "checkpoint 21 stands in the row 0 of 20", false},
	{"no checkpoint", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM checkpoints")
		return err
	}, "", true},
	{"the tail dropped with the checkpoints", func(t *testing.T, tx *database.Tx) error {
		return statements("DELETE FROM entries WHERE id > 5", "DELETE FROM checkpoints")(tx)
	}, "a checkpoint covers 21 entries, but there are 5", true},
	{"the tail written anew", func(t *testing.T, tx *database.Tx) error {
		for id := 10; id <= 21; id++ {
			h := tlog.RecordHash(leaf(t, 100+id))
			if _, err := tx.Exec("UPDATE entries SET leaf = ?, hash = ? WHERE id = ?", leaf(t, 100+id), h[:], id); err != nil {
				return err
			}
		}
		_, err := tx.Exec("DELETE FROM checkpoints")
		return err
	}, "do not give the root of the checkpoint", true},
	{"the log's name", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("UPDATE meta SET origin = 'other.example/log'")
		return err
	}, `the log is of "other.example/log"`, false},
	{"no name", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("DELETE FROM meta")
		return err
	}, "the meta row", false},
	{"a trigger", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE id = 3; END")
		return err
	}, "not those of an audit log", false},
	{"a table more", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("CREATE TABLE more (id INTEGER PRIMARY KEY) STRICT")
		return err
	}, "not those of an audit log", false},
	{"an index more", func(t *testing.T, tx *database.Tx) error {
		_, err := tx.Exec("CREATE INDEX i ON entries (hash)")
		return err
	}, "not those of an audit log", false},
}

// TestForgeriesAreNoticed holds each forgery against a checkpoint that was kept
// elsewhere, and against the signer's start.
func TestForgeriesAreNoticed(t *testing.T) {
	for _, f := range forgeries {
		t.Run(f.name, func(t *testing.T) {
			k := newKey(t, "ed25519")
			path := filled(t, k, 20)
			kept := newest(t, path)
			change(t, path, func(tx *database.Tx) error { return f.forge(t, tx) })
			if f.why != "" {
				unsound(t, path, k, f.why, kept)
			}
			l, err := tryOpen(t, path, k)
			if err == nil {
				closeLog(t, l)
			}
			if f.starts != (err == nil) || !f.starts && !errors.Is(err, ErrTampered) {
				t.Errorf("the signer's start: %v", err)
			}
		})
	}
}

// newest returns the newest checkpoint in a copy.
func newest(t testing.TB, path string) []byte {
	t.Helper()
	signed, err := NewestCheckpoint(path)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestCheckpointsAreAcceptedInOneFormAlone changes stored notes in ways that
// leave a lenient reader content.
func TestCheckpointsAreAcceptedInOneFormAlone(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 5)
	good := string(newest(t, path))
	lines := strings.SplitAfter(good, "\n")
	signature := strings.TrimSuffix(lines[4], "\n")
	other, err := note.Sign(&note.Note{Text: "x\n"}, k.signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"signed twice":        good + lines[4],
		"another's signature": good + "\u2014 witness.example AAAAAHNpZ25hdHVyZQ==\n",
		"an extension":        lines[0] + lines[1] + lines[2] + "more\n" + lines[3] + lines[4],
		"loose base64":        strings.Join(lines[:4], "") + loosened(t, signature) + "\n",
		"another text":        string(other),
		"nothing":             "",
		"no signature":        strings.Join(lines[:4], ""),
	} {
		if changed == good {
			t.Fatalf("%s: nothing changed", name)
		}
		change(t, path, func(tx *database.Tx) error {
			_, err := tx.Exec("UPDATE checkpoints SET note = ?", []byte(changed))
			return err
		})
		unsound(t, path, k, "checkpoint 6")
		if l, err := tryOpen(t, path, k); !errors.Is(err, ErrTampered) {
			l.Close()
			t.Errorf("%s: the signer's start: %v", name, err)
		}
	}
}

// loosened returns a signature line whose base64 has other bits behind its end,
// which lenient decoders ignore. An Ed25519 signature with the key's id has two
// bits to spare.
func loosened(t *testing.T, line string) string {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	at := strings.Index(line, "=") - 1
	loose := line[:at] + string(alphabet[strings.IndexByte(alphabet, line[at])^1]) + line[at+1:]
	text := func(line string) string { return line[strings.LastIndex(line, " ")+1:] }
	a, err := base64.StdEncoding.DecodeString(text(line))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := base64.StdEncoding.DecodeString(text(loose)); err != nil || !bytes.Equal(a, b) {
		t.Fatalf("%s is not another way to write %s (%v)", loose, line, err)
	}
	return loose
}

// TestTheStory writes entries that a signer would not write, in a tree that is
// sound: the verifier tells what does not fit.
func TestTheStory(t *testing.T) {
	at := func(i int64) *int64 { return &i }
	intent := Entry{Kind: KindIntent, Key: "ds", Credential: "c", Hash: "h"}
	made := Entry{Kind: KindMade, Key: "ds", Credential: "c", Hash: "h", Intent: at(1)}
	event := func(source string, seq uint64) Entry { return Entry{Kind: "offer.created", Source: source, Seq: seq} }
	with := func(e Entry, change func(e *Entry)) Entry { change(&e); return e }
	for _, test := range []struct {
		name    string
		entries []Entry
		why     string
		open    int64
	}{
		{"a signature", []Entry{intent, made}, "", 0},
		{"one that failed", []Entry{intent, with(made, func(e *Entry) { e.Kind = KindFailed })}, "", 0},
		{"one that was abandoned", []Entry{intent, with(made, func(e *Entry) { e.Kind = KindAbandoned })}, "", 0},
		{"one that is open", []Entry{intent}, "", 1},
		{"an outcome twice", []Entry{intent, made, made}, "entry 3 is the outcome of entry 1, which is no open intent", 0},
		{"an outcome before", []Entry{with(made, func(e *Entry) { e.Intent = at(2) }), intent}, "entry 1 is the outcome of entry 2, which is no open intent", 1},
		{"an outcome of nothing", []Entry{intent, with(made, func(e *Entry) { e.Intent = nil })}, "names no intent", 1},
		{"another hash", []Entry{intent, with(made, func(e *Entry) { e.Hash = "i" })}, "names another key, credential or hash", 0},
		{"another key", []Entry{intent, with(made, func(e *Entry) { e.Key = "other" })}, "names another key, credential or hash", 0},
		{"another credential", []Entry{intent, with(made, func(e *Entry) { e.Credential = "d" })}, "names another key, credential or hash", 0},
		{"events of two sources", []Entry{event("a", 1), event("b", 1), event("a", 2)}, "", 0},
		{"an event twice", []Entry{event("a", 1), event("a", 1)}, `entry 2: event 1 of "a" follows 1`, 0},
		{"an event missing", []Entry{event("a", 1), event("a", 3)}, `entry 2: event 3 of "a" follows 1`, 0},
		{"events that begin late", []Entry{event("a", 2)}, `entry 1: event 2 of "a" follows 0`, 0},
		{"an event of the signer's own kind", []Entry{with(intent, func(e *Entry) { e.Source, e.Seq = "a", 1 })}, "has the signer's own kind signature.intent", 1},
		{"a second log", []Entry{{Kind: KindLogCreated, Subject: origin}}, "is made by its first entry and by no other", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := newKey(t, "ed25519")
			path := create(t)
			l := openLog(t, path, k)
			for _, e := range test.entries {
				mustAppend(t, l, marshal(t, e))
			}
			mustCheckpoint(t, l, k)
			closeLog(t, l)
			if test.why != "" {
				unsound(t, path, k, test.why)
			} else {
				sound(t, path, k, int64(len(test.entries)+1))
			}
			if r := verify(t, path, k); r.Open != test.open {
				t.Errorf("%d open intents, want %d", r.Open, test.open)
			}
		})
	}
}

// TestAFirstEntryOfAnotherLog renames the log in its first entry.
func TestAFirstEntryOfAnotherLog(t *testing.T) {
	k := newKey(t, "ed25519")
	for name, first := range map[string]Entry{
		"another name": {Kind: KindLogCreated, Subject: "other.example/log"},
		"another kind": {Kind: KindSignerStarted, Subject: origin},
	} {
		path := create(t)
		data := marshal(t, first)
		h := tlog.RecordHash(data)
		change(t, path, func(tx *database.Tx) error {
			_, err := tx.Exec("UPDATE entries SET leaf = ?, hash = ? WHERE id = 1", data, h[:])
			return err
		})
		unsound(t, path, k, "entry 0")
		if _, err := tryOpen(t, path, k); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAReportEnds verifies a file in which everything is wrong.
func TestAReportEnds(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 200)
	change(t, path, statements("UPDATE entries SET hash = zeroblob(32)"))
	if r := verify(t, path, k); len(r.Problems) != problemLimit {
		t.Errorf("%d problems, want %d", len(r.Problems), problemLimit)
	}
	for _, kept := range []string{"", "x", fmt.Sprintf("%s\n1\nAAAA\n", origin)} {
		unsound(t, filled(t, k, 3), k, "kept checkpoint 1", []byte(kept))
	}
}
