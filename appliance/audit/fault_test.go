package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"chancery/appliance/database"
)

// inject runs a statement on the log's own writing connection.
func inject(t *testing.T, l *Log, query string) {
	t.Helper()
	if err := l.db.Write(context.Background(), statements(query)); err != nil {
		t.Fatal(err)
	}
}

// faults are what SQLite meets in the process: each makes the next write fail.
var faults = map[string]string{
	"the file may not grow":  "PRAGMA max_page_count = 1",
	"the file is read-only":  "PRAGMA query_only = 1",
	"a statement fails":      "CREATE TEMP TRIGGER fault BEFORE INSERT ON entries WHEN new.id % 3 = 0 BEGIN SELECT raise(ABORT, 'fault'); END",
	"SQLite rolls back":      "CREATE TEMP TRIGGER fault BEFORE INSERT ON entries WHEN new.id % 3 = 0 BEGIN SELECT raise(ROLLBACK, 'fault'); END",
	"a statement half fails": "CREATE TEMP TRIGGER fault BEFORE INSERT ON entries WHEN new.id % 3 = 0 BEGIN SELECT raise(FAIL, 'fault'); END",
}

// TestPromiseP1AFailedAppendRefuses makes one append of several entries fail at
// each of the faults. It is told, nothing of it is there, nothing more is
// appended nor signed, and after a restart the log goes on where it was.
func TestPromiseP1AFailedAppendRefuses(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			k := newKey(t, "ed25519")
			path := create(t)
			l := openLog(t, path, k)
			for i := range 40 {
				mustAppend(t, l, leaf(t, i))
			}
			kept := mustCheckpoint(t, l, k)
			inject(t, l, fault)
			batch := [][]byte{long(t, 9000), long(t, 9000), long(t, 9000)}
			if _, err := l.Append(context.Background(), batch...); !errors.Is(err, ErrFailed) {
				t.Fatalf("the append: %v", err)
			}
			refusesAll(t, l, k)
			if l.Size() != 41 {
				t.Errorf("%d entries after the failure", l.Size())
			}
			closeLog(t, l)
			goesOn(t, path, k, 41, kept)
		})
	}
}

// refusesAll demands that a log that failed takes nothing and signs nothing.
func refusesAll(t *testing.T, l *Log, k key) {
	t.Helper()
	if !errors.Is(l.Failed(), ErrFailed) {
		t.Errorf("the log says it is well: %v", l.Failed())
	}
	if _, err := l.Append(context.Background(), leaf(t, 0)); !errors.Is(err, ErrFailed) {
		t.Errorf("the next append: %v", err)
	}
	if _, err := l.Checkpoint(context.Background(), k.signer); !errors.Is(err, ErrFailed) {
		t.Errorf("the next checkpoint: %v", err)
	}
}

// goesOn opens a log again, demands its size, appends to it and verifies it.
func goesOn(t *testing.T, path string, k key, size int64, kept ...[]byte) {
	t.Helper()
	l, err := tryOpen(t, path, k)
	if err != nil {
		t.Fatalf("the restart: %v", err)
	}
	if l.Size() != size {
		t.Errorf("%d entries after the restart, want %d", l.Size(), size)
	}
	if first := mustAppend(t, l, leaf(t, 1000)); first != size {
		t.Errorf("the next entry has the number %d, want %d", first, size)
	}
	mustCheckpoint(t, l, k)
	closeLog(t, l)
	sound(t, path, k, size+1, kept...)
}

// TestAFailedCheckpointStopsTheLog makes the storing of a checkpoint fail. One
// that was not tried, as its caller left, stops nothing.
func TestAFailedCheckpointStopsTheLog(t *testing.T) {
	k := newKey(t, "p256")
	path := create(t)
	l := openLog(t, path, k)
	mustAppend(t, l, leaf(t, 0))
	gone, leave := context.WithCancel(context.Background())
	leave()
	if _, err := l.Checkpoint(gone, k.signer); !errors.Is(err, context.Canceled) || l.Failed() != nil {
		t.Errorf("a caller that left: %v, the log: %v", err, l.Failed())
	}
	kept := mustCheckpoint(t, l, k)
	mustAppend(t, l, leaf(t, 1))
	inject(t, l, "PRAGMA query_only = 1")
	if _, err := l.Checkpoint(context.Background(), k.signer); !errors.Is(err, ErrFailed) {
		t.Fatalf("the checkpoint: %v", err)
	}
	refusesAll(t, l, k)
	closeLog(t, l)
	goesOn(t, path, k, 3, kept)
}

// underWay returns what is on the disk before and after one commit of a batch to
// a log of four entries with a checkpoint.
func underWay(t *testing.T, k key, batch ...[]byte) (before, after snapshot, kept []byte) {
	t.Helper()
	path := create(t)
	l := openLog(t, path, k)
	mustAppend(t, l, leaf(t, 0), leaf(t, 1), leaf(t, 2))
	kept = mustCheckpoint(t, l, k)
	before = snap(t, path)
	mustAppend(t, l, batch...)
	return before, snap(t, path), kept
}

// TestACrashAtEachPointOfACommit stops the process at each point of a commit of
// three entries: as many bytes of the commit as were written are there. What was
// durable before is there afterwards, the commit wholly or not at all, and the
// log goes on by itself.
func TestACrashAtEachPointOfACommit(t *testing.T) {
	k := newKey(t, "ed25519")
	before, after, kept := underWay(t, k, leaf(t, 3), long(t, 5000), leaf(t, 4))
	if !bytes.Equal(before.file, after.file) || !bytes.HasPrefix(after.wal, before.wal) {
		t.Fatal("a commit does more than go on with the write-ahead log")
	}
	for cut := len(before.wal); cut <= len(after.wal); cut += min(457, max(1, len(after.wal)-cut)) {
		size := int64(4)
		if cut == len(after.wal) {
			size = 7
		}
		path := snapshot{after.file, after.wal[:cut]}.put(t)
		if cut > len(before.wal) && cut < len(after.wal) {
			unsound(t, path, k, "a commit that is not whole")
		}
		goesOn(t, path, k, size, kept)
	}
}

// TestAPowerCutInACommit lets any of the sectors that a commit writes reach the
// disk and any other not. The log starts again, with the commit wholly or not at
// all, and never takes the crash for tampering.
func TestAPowerCutInACommit(t *testing.T) {
	k := newKey(t, "ed25519")
	before, after, kept := underWay(t, k, leaf(t, 3), long(t, 9000), leaf(t, 4))
	const sector = 512
	rapid.Check(t, func(r *rapid.T) {
		old := append(bytes.Clone(before.wal), make([]byte, len(after.wal)-len(before.wal))...)
		torn := bytes.Clone(after.wal)
		lost := 0
		for at := len(before.wal) / sector * sector; at < len(torn); at += sector {
			if end := min(at+sector, len(torn)); rapid.IntRange(0, 3).Draw(r, "lost") == 0 && !bytes.Equal(old[at:end], torn[at:end]) {
				copy(torn[at:end], old[at:end])
				lost++
			}
		}
		size := int64(4)
		if lost == 0 {
			size = 7
		}
		goesOn(t, snapshot{after.file, torn}.put(t), k, size, kept)
	})
}

// TestACrashWhileTheWriteAheadLogIsMoved stops the process while SQLite moves
// pages from the write-ahead log into the file: any of them are moved.
func TestACrashWhileTheWriteAheadLogIsMoved(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	for i := range 30 {
		mustAppend(t, l, long(t, 2000+i))
	}
	kept := mustCheckpoint(t, l, k)
	before := snap(t, path)
	if err := l.db.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	moved := read(t, path)
	for range 20 {
		mixed := append(bytes.Clone(before.file), make([]byte, len(moved)-len(before.file))...)
		for at := 0; at < len(mixed); at += pageSize {
			if mathrand.IntN(2) == 0 {
				copy(mixed[at:at+pageSize], moved[at:])
			}
		}
		path := snapshot{mixed, before.wal}.put(t)
		sound(t, path, k, 31, kept)
		goesOn(t, path, k, 31, kept)
	}
}

// TestWhatWasDurableIsNotDroppedInSilence changes a frame of a write-ahead log,
// behind which more commits stand. SQLite would drop them all and go on.
func TestWhatWasDurableIsNotDroppedInSilence(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	mustCheckpoint(t, l, k)
	first := len(read(t, path+"-wal"))
	for i := range 5 {
		mustAppend(t, l, leaf(t, i))
	}
	s := snap(t, path)
	damaged := snapshot{s.file, changed(s.wal, first+frameHeader+100)}.put(t)
	if l, err := tryOpen(t, damaged, k); !errors.Is(err, ErrTampered) {
		t.Errorf("the log opens with %v, %v", l, err)
	}
	unsound(t, damaged, k, "commits follow it")

	l, err := tryOpen(t, s.put(t), k)
	if err != nil || l.Size() != 6 {
		t.Fatalf("unchanged: %v", err)
	}
	closeLog(t, l)
}

// TestTornFramesDoNotStayBehindNewOnes crashes in a commit of many frames and
// goes on with small ones: the log that grows over the torn frames is sound, also
// when it is copied with its write-ahead log.
func TestTornFramesDoNotStayBehindNewOnes(t *testing.T) {
	k := newKey(t, "ed25519")
	_, after, kept := underWay(t, k, long(t, 60_000))
	torn := snapshot{after.file, after.wal[:len(after.wal)-100]}.put(t)
	l := openLog(t, torn, k)
	for i := range 3 {
		mustAppend(t, l, leaf(t, i))
		s := snap(t, torn)
		path := s.put(t)
		sound(t, path, k, int64(5+i), kept)
		goesOn(t, path, k, int64(5+i), kept)
	}
}

// fullDisk mounts a small file system with little room left; give makes room.
func fullDisk(t *testing.T) (dir string, give func()) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small file system cannot be mounted here (%v): run as root", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, make([]byte, 1<<20))
	return dir, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAFullDisk fills the disk: the append that meets it is refused, so is every
// later one, and with room again a restart finds what was acknowledged.
func TestAFullDisk(t *testing.T) {
	dir, give := fullDisk(t)
	k := newKey(t, "ed25519")
	path := filepath.Join(dir, "signer.db")
	if err := Create(path, origin, noon); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, path, k)
	acknowledged := int64(1)
	var failure error
	for i := range 100_000 {
		if _, failure = l.Append(context.Background(), leaf(t, i)); failure != nil {
			break
		}
		acknowledged++
	}
	if !errors.Is(failure, ErrFailed) || l.Size() != acknowledged {
		t.Fatalf("%d entries, %d acknowledged: %v", l.Size(), acknowledged, failure)
	}
	refusesAll(t, l, k)
	l.Close() // it may fail: the write-ahead log cannot be moved
	if l, err := tryOpen(t, path, k); err == nil {
		_, err = l.Append(context.Background(), long(t, 60_000), long(t, 60_000), long(t, 60_000))
		if err == nil {
			t.Error("an append to the full disk after the restart")
		}
		l.Close()
	}
	give()
	goesOn(t, path, k, acknowledged)
}

// TestCreateOnAFullDiskLeavesNothing makes a log where there is no room for it.
func TestCreateOnAFullDiskLeavesNothing(t *testing.T) {
	dir, give := fullDisk(t)
	for i := 0; ; i++ { // a file that stops growing fills the rest
		if os.WriteFile(filepath.Join(dir, fmt.Sprintf("more-%d", i)), make([]byte, 4096), 0o600) != nil {
			break
		}
	}
	path := filepath.Join(dir, "signer.db")
	if err := Create(path, origin, noon); err == nil {
		t.Fatal("a log was made on a full disk")
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 0 {
		t.Errorf("%v are left", left)
	}
	give()
	if err := Create(path, origin, noon); err != nil {
		t.Errorf("with room: %v", err)
	}
}

// TestAReadOnlyDisk mounts the log read-only: it is not opened for writing, and
// an auditor may still verify it, with and without a write-ahead log.
func TestAReadOnlyDisk(t *testing.T) {
	dir, _ := fullDisk(t)
	k := newKey(t, "ed25519")
	_, after, kept := underWay(t, k, leaf(t, 3))
	for _, file := range []struct {
		name string
		data []byte
	}{{"signer.db", after.file}, {"signer.db-wal", after.wal}} {
		write(t, filepath.Join(dir, file.name), file.data)
	}
	if err := unix.Mount("tmpfs", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "signer.db")
	if l, err := tryOpen(t, path, k); err == nil {
		l.Close()
		t.Error("the log was opened for writing")
	}
	sound(t, path, k, 5, kept)
}

// TestOneWriter opens a log twice.
func TestOneWriter(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	if _, err := Open(path, nil, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("a second writer: %v", err)
	}
	closeLog(t, l)
	if _, err := l.Append(context.Background(), leaf(t, 1)); !errors.Is(err, database.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if _, err := l.Checkpoint(context.Background(), k.signer); !errors.Is(err, database.ErrClosed) {
		t.Errorf("checkpoint after close: %v", err)
	}
	closeLog(t, openLog(t, path, k))
}
