package audit

import (
	"bytes"
	"database/sql"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// changed returns the data with another byte at one place.
func changed(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] = another(out[at])
	return out
}

func another(b byte) byte { return b ^ byte(1+mathrand.IntN(255)) }

// flip changes each of the places of a file, one at a time, to another random
// value, on all processors, and tells unnoticed about those changes in which
// Verify finds nothing. What the walk over the bytes finds, Verify finds, as it
// begins with it; that saves most of the work.
func flip(t *testing.T, file []byte, places []int, k key, unnoticed func(at int, to byte)) {
	t.Helper()
	work := make(chan int)
	var wait sync.WaitGroup
	var mu sync.Mutex
	for range runtime.GOMAXPROCS(0) {
		copied, path := bytes.Clone(file), filepath.Join(t.TempDir(), "copy.db")
		write(t, path, copied)
		wait.Go(func() {
			for at := range work {
				copied[at] = another(copied[at])
				if !notices(t, path, copied, at, k) {
					mu.Lock()
					unnoticed(at, copied[at])
					mu.Unlock()
				}
				copied[at] = file[at]
			}
		})
	}
	for _, at := range places {
		work <- at
	}
	close(work)
	wait.Wait()
}

// notices tells whether Verify finds something in a file whose copy at path
// differs in one byte alone.
func notices(t *testing.T, path string, file []byte, at int, k key) bool {
	found := false
	walkFile(file, func(string, ...any) { found = true })
	if found {
		return true
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Error(err)
		return true
	}
	defer f.Close()
	before := make([]byte, 1)
	if _, err := f.ReadAt(before, int64(at)); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt(file[at:at+1], int64(at)); err != nil {
		t.Error(err)
	}
	r, err := Verify(path, k.vkey)
	if _, err := f.WriteAt(before, int64(at)); err != nil {
		t.Error(err)
	}
	return err != nil || !r.OK()
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// TestPromiseP5EveryByteFlipIsNoticed changes each byte of a small log, one at a
// time, to another random value.
func TestPromiseP5EveryByteFlipIsNoticed(t *testing.T) {
	for _, kind := range []string{"ed25519", "p256"} {
		k := newKey(t, kind)
		path := filled(t, k, 6)
		sound(t, path, k, 7)
		file := read(t, path)
		flip(t, file, upTo(len(file)), k, func(at int, to byte) {
			t.Errorf("byte %d (page %d, offset %d) changed from %#x to %#x without notice", at, at/pageSize+1, at%pageSize, file[at], to)
		})
	}
}

// TestTheWalkIsPartOfVerify holds the short cut of flip against Verify.
func TestTheWalkIsPartOfVerify(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 6)
	file := read(t, path)
	for range 100 {
		c := changed(file, mathrand.IntN(len(file)))
		found := false
		walkFile(c, func(string, ...any) { found = true })
		write(t, path, c)
		if r, err := Verify(path, k.vkey); found && err == nil && r.OK() {
			t.Fatal("Verify does not tell what the walk found")
		}
	}
}

// TestFlipsInAGrownLog changes bytes of a log with interior pages below the root,
// overflow pages and old checkpoints. The one place where a change may pass
// unnoticed is the gap of such an interior page; there it changes nothing.
func TestFlipsInAGrownLog(t *testing.T) {
	k := newKey(t, "p256")
	path := grown(t, k)
	file := read(t, path)
	gaps := interiorGaps(file)
	if len(gaps) == 0 {
		t.Fatal("the log has no interior page below the root")
	}
	var flips []int
	for range 100 {
		flips = append(flips, mathrand.IntN(len(file)))
	}
	for page := 2; page <= len(file)/pageSize; page++ { // the structure of interior pages
		if base := (page - 1) * pageSize; file[base] == interiorPage {
			for range 20 {
				flips = append(flips, base+mathrand.IntN(100), base+pageSize-1-mathrand.IntN(100))
			}
		}
	}
	for at := range gaps {
		if flips = append(flips, at); len(flips) > 200 {
			break
		}
	}
	var harmless [][]byte
	flip(t, file, flips, k, func(at int, to byte) {
		if !gaps[at] {
			t.Errorf("byte %d (page %d, offset %d) changed from %#x to %#x without notice", at, at/pageSize+1, at%pageSize, file[at], to)
		}
		c := bytes.Clone(file)
		c[at] = to
		harmless = append(harmless, c)
	})
	if len(harmless) == 0 {
		t.Error("no gap was tried")
	}
	whole := export(t, path)
	for _, c := range harmless[:min(len(harmless), 5)] {
		write(t, path, c)
		if export(t, path) != whole {
			t.Error("a change in a gap changes what is read")
		}
	}
}

// grown makes a log whose entries' tree has three levels.
func grown(t *testing.T, k key) string {
	t.Helper()
	path := create(t)
	l := openLog(t, path, k)
	n := 0
	for range 26 {
		batch := make([][]byte, 80)
		for i := range batch {
			batch[i], n = long(t, 800+mathrand.IntN(1200)), n+1
		}
		mustAppend(t, l, batch...)
		mustCheckpoint(t, l, k)
	}
	mustAppend(t, l, long(t, 20_000), leaf(t, 1))
	mustCheckpoint(t, l, k)
	closeLog(t, l)
	sound(t, path, k, int64(n)+3)
	return path
}

// interiorGaps returns the places between pointers and content of the interior
// pages that are not a root.
func interiorGaps(file []byte) map[int]bool {
	gaps := map[int]bool{}
	u16 := func(at int) int { return int(file[at])<<8 | int(file[at+1]) }
	for base := 4 * pageSize; base < len(file); base += pageSize { // pages 2 to 4 are roots
		if file[base] != interiorPage || file[base+1] > 15 {
			continue
		}
		for at := 12 + 2*u16(base+3); at < u16(base+5); at++ {
			gaps[base+at] = true
		}
	}
	return gaps
}

// TestEveryFlipInAWriteAheadLogIsNoticed changes each byte of a write-ahead log
// that a crash left beside the file.
func TestEveryFlipInAWriteAheadLogIsNoticed(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	for i := range 4 {
		mustAppend(t, l, leaf(t, i))
	}
	mustCheckpoint(t, l, k)
	s := snap(t, path)
	copied := s.put(t)
	sound(t, copied, k, 5)
	for at := range s.wal {
		if changed, torn := walkWAL(changed(s.wal, at)); changed == nil && torn == nil {
			t.Errorf("byte %d of the write-ahead log (frame %d, offset %d) changed without notice", at, (at-walHeader)/frameSize, (at-walHeader)%frameSize)
		}
	}
	for range 60 { // what the walk finds, Verify tells
		write(t, copied+"-wal", changed(s.wal, mathrand.IntN(len(s.wal))))
		unsound(t, copied, k, "write-ahead log")
	}
	for range 60 { // the file beside it: noticed, or the page is in the write-ahead log, too
		file := changed(s.file, mathrand.IntN(len(s.file)))
		write(t, copied, file)
		write(t, copied+"-wal", s.wal)
		if r, err := Verify(copied, k.vkey); err == nil && r.OK() && r.Size != 5 {
			t.Errorf("a changed file with its write-ahead log has %d entries", r.Size)
		}
	}
}

// TestFlipsBehindTheWriteAheadLogsEnd changes what earlier rounds left in the
// write-ahead log's file: SQLite never reads it, and the log stays sound.
func TestFlipsBehindTheWriteAheadLogsEnd(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	for i := range 20 {
		mustAppend(t, l, leaf(t, i))
	}
	// As SQLite does by itself from time to time: everything is moved into the
	// file, and the next commit begins the write-ahead log anew.
	db, err := sql.Open("sqlite", source(path, "mode=rw"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA wal_checkpoint(RESTART)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	mustAppend(t, l, leaf(t, 20))
	s := snap(t, path)
	w := &walWalker{salts: string(s.wal[16:24])}
	w.header(s.wal[:walHeader])
	for frames := s.wal[walHeader:]; len(frames) >= frameSize; frames = frames[frameSize:] {
		if err := w.frame(frames[:frameSize]); err != nil {
			t.Fatal(err)
		}
	}
	end := walHeader + w.good*frameSize
	if end >= len(s.wal) || w.torn || w.open {
		t.Fatalf("%d good frames in %d bytes, torn %t: earlier rounds left nothing", w.good, len(s.wal), w.torn)
	}
	for range 40 {
		at := end + mathrand.IntN(len(s.wal)-end)
		c := snapshot{s.file, changed(s.wal, at)}
		sound(t, c.put(t), k, 22)
	}
}
