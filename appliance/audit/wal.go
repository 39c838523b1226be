package audit

import "encoding/binary"

// Sizes of SQLite's write-ahead log (file format, section 4).
const (
	walHeader   = 32
	frameHeader = 24
	frameSize   = frameHeader + pageSize
	walMagic    = 0x377f0682 // the last bit tells the checksums' byte order
	walVersion  = 3007000
)

// walkWAL checks what SQLite passes over in silence: it takes the log's frames
// up to the first whose checksum does not fit and forgets the rest, as after a
// crash. A crash leaves nothing good after the bad frame; where something
// follows, a byte was changed. A bad last frame may be either, so it is noted
// only: its entries were perhaps never acknowledged.
func walkWAL(wal []byte, problem func(format string, args ...any)) {
	if len(wal) == 0 {
		return
	}
	if len(wal) < walHeader {
		problem("the write-ahead log of %d bytes was cut, or the signer stopped while it began it", len(wal))
		return
	}
	order := binary.ByteOrder(binary.LittleEndian)
	magic := binary.BigEndian.Uint32(wal)
	if magic&1 == 1 {
		order = binary.BigEndian
	}
	sum := walSum{order: order}
	sum.add(wal[:24])
	if magic&^1 != walMagic || binary.BigEndian.Uint32(wal[4:]) != walVersion ||
		binary.BigEndian.Uint32(wal[8:]) != pageSize || !sum.is(wal[24:32]) {
		problem("the write-ahead log's header was changed")
		return
	}
	salts := string(wal[16:24])
	bad, at := -1, 0
	for rest := wal[walHeader:]; len(rest) >= frameSize; rest, at = rest[frameSize:], at+1 {
		frame := rest[:frameSize]
		ours := string(frame[8:16]) == salts
		if bad >= 0 {
			if ours {
				problem("frame %d of the write-ahead log was changed, others follow it", bad)
				return
			}
			continue
		}
		if !ours && (string(frame[8:12]) == salts[:4] || string(frame[12:16]) == salts[4:]) {
			problem("frame %d of the write-ahead log was changed: half of its salt is another one's", at)
			return
		}
		sum.add(frame[:8])
		sum.add(frame[frameHeader:])
		if !ours {
			bad = at // the regular end: frames of an earlier round follow
		} else if !sum.is(frame[16:24]) {
			bad = at
			problem("the write-ahead log's last frame does not fit its checksum: the signer stopped while it wrote it, or it was changed since")
		}
	}
	if len(wal[walHeader:])%frameSize != 0 {
		problem("the write-ahead log ends in the middle of a frame: the copy was cut, or the signer stopped while it wrote")
	}
}

// walSum is the write-ahead log's running checksum.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

func (s *walSum) add(data []byte) {
	for ; len(data) >= 8; data = data[8:] {
		s.s0 += s.order.Uint32(data) + s.s1
		s.s1 += s.order.Uint32(data[4:]) + s.s0
	}
}

func (s *walSum) is(stored []byte) bool {
	return binary.BigEndian.Uint32(stored) == s.s0 && binary.BigEndian.Uint32(stored[4:]) == s.s1
}
