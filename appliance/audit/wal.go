package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of SQLite's write-ahead log (file format, section 4).
const (
	walHeader   = 32
	frameHeader = 24
	frameSize   = frameHeader + pageSize
	walMagic    = 0x377f0682 // the last bit tells the checksums' byte order
	walVersion  = 3007000
)

// walkWAL checks what SQLite passes over in silence: it takes the log's frames
// up to the last commit before the first frame that does not fit, and forgets the
// rest. After a crash that is right, and the one commit that was under way is all
// that can be missing, as each was durable before the next began. So where
// something follows another commit behind a bad frame, that frame was changed or
// the medium is bad, and SQLite drops what was durable: the log is changed. A bad
// frame in the last commit, or none that ends it, may be of a crash: it is torn.
func walkWAL(wal []byte) (changed, torn error) {
	if len(wal) == 0 {
		return nil, nil
	}
	if len(wal) < walHeader {
		return nil, fmt.Errorf("the write-ahead log has only %d bytes", len(wal))
	}
	w := &walWalker{salts: string(wal[16:24])}
	frames := wal[walHeader:]
	switch fits := w.header(wal[:walHeader]); {
	case !fits && len(frames) >= frameSize: // a header is durable before the first frame is written
		return errors.New("the write-ahead log's header does not fit its checksum, and frames follow it"), nil
	case !fits:
		return nil, errors.New("the write-ahead log's header does not fit its checksum")
	}
	for ; len(frames) >= frameSize; frames = frames[frameSize:] {
		if err := w.frame(frames[:frameSize]); err != nil {
			return err, nil
		}
	}
	if w.torn || w.open || len(frames) > 0 {
		return nil, fmt.Errorf("the write-ahead log ends in a commit that is not whole, after %d frames: SQLite drops it", w.good)
	}
	return nil, nil
}

// walWalker goes through a write-ahead log frame by frame.
type walWalker struct {
	order  binary.ByteOrder
	s0, s1 uint32 // the running checksum
	salts  string // of the present round; frames that earlier rounds left have others

	good  int  // number of frames that fit, from the first on
	open  bool // the last good frame does not end a transaction
	ended bool // the good frames are over
	torn  bool // something of the present round stands behind the good frames
	after bool // a commit stands behind the good frames
}

// header takes the log's header; false when its checksum does not fit.
func (w *walWalker) header(h []byte) bool {
	w.order = binary.LittleEndian
	magic := binary.BigEndian.Uint32(h)
	if magic&1 == 1 {
		w.order = binary.BigEndian
	}
	w.add(h[:24])
	return w.fits(h[24:]) && magic&^1 == walMagic && binary.BigEndian.Uint32(h[4:]) == walVersion &&
		binary.BigEndian.Uint32(h[8:]) == pageSize
}

// frame takes the next frame. The error says that an earlier one was changed.
func (w *walWalker) frame(f []byte) error {
	ours, commits := string(f[8:16]) == w.salts, binary.BigEndian.Uint32(f[4:]) != 0
	if !w.ended {
		w.add(f[:8])
		w.add(f[frameHeader:])
		fits := w.fits(f[16:24])
		if ours && fits {
			w.good, w.open = w.good+1, !commits
			return nil
		}
		w.ended = true
		ours = ours || fits // the checksum's chain begins with the salts
	}
	if !ours {
		return nil
	}
	if w.after {
		return fmt.Errorf("frame %d of the write-ahead log does not fit its checksum, and commits follow it", w.good)
	}
	w.torn, w.after = true, commits
	return nil
}

// add goes on with the checksum over data, whose length is a multiple of eight.
func (w *walWalker) add(data []byte) {
	for ; len(data) >= 8; data = data[8:] {
		w.s0 += w.order.Uint32(data) + w.s1
		w.s1 += w.order.Uint32(data[4:]) + w.s0
	}
}

func (w *walWalker) fits(stored []byte) bool {
	return binary.BigEndian.Uint32(stored) == w.s0 && binary.BigEndian.Uint32(stored[4:]) == w.s1
}
