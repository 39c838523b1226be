package audit

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// walOf builds a write-ahead log as SQLite's file format describes it, apart from
// the code that reads it. Each commit is a number of frames.
type walOf struct {
	data   []byte
	order  binary.ByteOrder
	s0, s1 uint32
	salts  [8]byte
}

func newWAL(order binary.ByteOrder) *walOf {
	w := &walOf{order: order, salts: [8]byte{1, 2, 3, 4, 5, 6, 7, 8}}
	magic := uint32(0x377f0682)
	if order == binary.BigEndian {
		magic = 0x377f0683
	}
	w.data = binary.BigEndian.AppendUint32(w.data, magic)
	w.data = binary.BigEndian.AppendUint32(w.data, 3007000)
	w.data = binary.BigEndian.AppendUint32(w.data, 4096)
	w.data = binary.BigEndian.AppendUint32(w.data, 0)
	w.data = append(w.data, w.salts[:]...)
	w.sum(w.data)
	w.data = w.stored(w.data)
	return w
}

func (w *walOf) sum(data []byte) {
	for i := 0; i < len(data); i += 8 {
		w.s0 += w.order.Uint32(data[i:]) + w.s1
		w.s1 += w.order.Uint32(data[i+4:]) + w.s0
	}
}

func (w *walOf) stored(data []byte) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(data, w.s0), w.s1)
}

// commit adds a transaction; its last frame says how many pages the file has.
func (w *walOf) commit(frames int) *walOf {
	for i := range frames {
		pages := uint32(0)
		if i == frames-1 {
			pages = 9
		}
		w.frame(pages)
	}
	return w
}

func (w *walOf) frame(pages uint32) *walOf {
	head := binary.BigEndian.AppendUint32(nil, 3)
	head = binary.BigEndian.AppendUint32(head, pages)
	page := bytes.Repeat([]byte{byte(len(w.data) >> 12)}, 4096)
	w.sum(head)
	w.sum(page)
	head = append(head, w.salts[:]...)
	w.data = append(append(w.data, w.stored(head)...), page...)
	return w
}

// at changes a byte of a frame.
func (w *walOf) at(frame, offset int) []byte { return changed(w.data, 32+frame*4120+offset) }

// foreign adds frames of an earlier round.
func (w *walOf) foreign(frames int) []byte {
	old := &walOf{order: w.order, salts: [8]byte{0, 2, 3, 4, 9, 9, 9, 9}}
	return append(bytes.Clone(w.data), old.commit(frames).data...)
}

// TestWriteAheadLogs says of logs in all conditions whether a crash may have left
// them, or something durable was changed.
func TestWriteAheadLogs(t *testing.T) {
	const fine, torn, damaged = "", "a commit that is not whole", "does not fit its checksum, and"
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		three := func() *walOf { return newWAL(order).commit(1).commit(3).commit(1) }
		for _, test := range []struct {
			name string
			wal  []byte
			want string
		}{
			{"nothing", nil, fine},
			{"a header alone", newWAL(order).data, fine},
			{"three commits", three().data, fine},
			{"three commits, then an earlier round", three().foreign(4), fine},
			{"no commit, then an earlier round", newWAL(order).foreign(4), fine},
			{"less than a header", newWAL(order).data[:31], "only 31 bytes"},
			{"a header of zeros", make([]byte, 32), "header does not fit"},
			{"a changed header, no frame", changed(newWAL(order).data, 17), "header does not fit"},
			{"a changed header", changed(three().data, 17), "header does not fit its checksum, and frames follow it"},
			{"a header's checksum changed", changed(three().data, 28), "header does not fit its checksum, and frames follow it"},
			{"cut in the last frame", three().data[:len(three().data)-1], torn},
			{"cut after a frame's header", newWAL(order).commit(1).commit(1).data[:32+4120+24], torn},
			{"cut in a commit", newWAL(order).commit(1).frame(0).frame(0).data, torn},
			{"the last commit's frame changed", three().at(4, 1000), torn},
			{"its salt changed", three().at(4, 9), torn},
			{"its checksum changed", three().at(4, 17), torn},
			{"its size changed", three().at(4, 7), torn},
			{"the last commit's first frame changed", newWAL(order).commit(1).commit(3).at(1, 1000), torn},
			{"its first frame's salt changed", newWAL(order).commit(1).commit(3).at(1, 15), torn},
			{"a middle commit's first frame changed", three().at(1, 1000), damaged},
			{"its second frame changed", three().at(2, 100), damaged},
			{"its second frame's salt changed", three().at(2, 12), damaged},
			{"its last frame changed", three().at(3, 500), damaged},
			{"its last frame's salt changed", three().at(3, 8), damaged},
			{"the first commit changed", three().at(0, 24), damaged},
			{"the first commit's salt changed", three().at(0, 11), damaged},
			{"the first commit changed, then an earlier round", append(three().at(0, 24), new(walOf).data...), damaged},
		} {
			changed, torn := walkWAL(test.wal)
			var got string
			switch {
			case changed != nil && torn != nil:
				t.Errorf("%s: both %v and %v", test.name, changed, torn)
			case changed != nil:
				got = changed.Error()
			case torn != nil:
				got = torn.Error()
			}
			if (test.want == fine) != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			if strings.HasSuffix(test.want, ", and") != (changed != nil) && test.want != "header does not fit its checksum, and frames follow it" {
				t.Errorf("%s: changed is %v", test.name, changed)
			}
		}
	}
}

// TestTheWalkTakesWhatSQLiteTakes cuts and changes a write-ahead log at random
// and counts the entries that SQLite finds: where the walk says that all is well,
// none is missing, and where it says torn, the last commit alone may be.
func TestTheWalkTakesWhatSQLiteTakes(t *testing.T) {
	k := newKey(t, "ed25519")
	path := create(t)
	l := openLog(t, path, k)
	for i := range 5 {
		mustAppend(t, l, leaf(t, i), long(t, 3000*i))
	}
	s := snap(t, path)
	for cut := len(s.wal) - 3*frameSize; cut <= len(s.wal); cut += 500 {
		wal := s.wal[:cut]
		changed, torn := walkWAL(wal)
		if changed != nil {
			t.Fatalf("cut at %d: %v", cut, changed)
		}
		entries := strings.Count(export(t, snapshot{s.file, wal}.put(t)), "\n")
		if torn == nil && cut == len(s.wal) && entries != 11 || entries < 7 || entries%2 == 0 {
			t.Errorf("cut at %d: %d entries, torn: %v", cut, entries, torn)
		}
	}
}
