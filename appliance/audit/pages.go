package audit

import (
	"encoding/binary"
)

// liveCookie is the schema cookie of the signer's own file. It differs in more
// than one byte from those that SQLite gives to copies, so that no changed byte
// makes a file look like the other kind.
const liveCookie = 0x43484c47

// Offsets in the file's first 100 bytes (SQLite file format, section 1.3).
const (
	atVersions = 18 // two bytes, write and read format: 2 with a write-ahead log
	atCookie   = 40
	atWriter   = 96 // the SQLite version that wrote the first page
)

// isLive tells whether the file, which [walkFile] found sound, is the signer's
// own, or a copy of it byte for byte.
func isLive(file []byte) bool { return binary.BigEndian.Uint32(file[atCookie:]) == liveCookie }

// pageSize is the one this program makes files with.
const pageSize = 4096

// walker accounts for every byte of a SQLite file: a byte is part of a
// structure that is checked elsewhere (by SQLite's integrity check, by the
// entries' hashes, by the checkpoints' signatures, by the schema's text), or it
// is checked here, or it must be zero. So no byte can change without notice.
//
// The one exception is the gap between the pointers and the content of interior
// pages below the root, which a log has from about two megabytes on, one in 450
// pages. SQLite leaves stale bytes there when it moves cells to a neighbour.
// Nothing reads a gap, so a changed byte in it changes nothing.
type walker struct {
	file    []byte
	seen    []bool // by page number
	problem func(format string, args ...any)
}

// walkFile checks a file's header and pages.
func walkFile(file []byte, problem func(format string, args ...any)) {
	if len(file) < pageSize || len(file)%pageSize != 0 {
		problem("the file's length of %d bytes is not a number of pages", len(file))
		return
	}
	w := &walker{file: file, seen: make([]bool, len(file)/pageSize+1), problem: problem}
	w.header()
	w.table(1, 0)
	for _, root := range w.roots() {
		w.table(root, 0)
	}
	w.freelist()
	for page := 1; page < len(w.seen); page++ {
		if !w.seen[page] {
			problem("page %d belongs to nothing", page)
		}
	}
}

func (w *walker) u32(at int) int { return int(binary.BigEndian.Uint32(w.file[at:])) }
func (w *walker) u16(at int) int { return int(binary.BigEndian.Uint16(w.file[at:])) }

// header checks every field of the database header.
func (w *walker) header() {
	if string(w.file[:16]) != "SQLite format 3\x00" {
		w.problem("the file is not a SQLite database")
	}
	for _, f := range []struct {
		name     string
		is, want int
	}{
		{"page size", w.u16(16), pageSize},
		{"reserved space", int(w.file[20]), 0},
		{"largest payload fraction", int(w.file[21]), 64},
		{"smallest payload fraction", int(w.file[22]), 32},
		{"leaf payload fraction", int(w.file[23]), 32},
		{"change counter", w.u32(24), w.u32(92)},
		{"number of pages", w.u32(28), len(w.file) / pageSize},
		{"schema format", w.u32(44), 4},
		{"cache size", w.u32(48), 0},
		{"largest root page", w.u32(52), 0},
		{"text encoding", w.u32(56), 1},
		{"schema version", w.u32(60), len(schema.Migrations)},
		{"incremental vacuum", w.u32(64), 0},
		{"application id", w.u32(68), int(schema.ApplicationID)},
	} {
		if f.is != f.want {
			w.problem("the header's %s is %d, not %d", f.name, f.is, f.want)
		}
	}
	w.zero(1, 72, 92)
	shape := [2]int{w.u16(atVersions), w.u32(atCookie)}
	switch shape {
	case [2]int{0x0202, liveCookie}: // the signer's
	case [2]int{0x0202, 1}: // SQLite's backup API, for instance sqlite3's .backup
	case [2]int{0x0101, liveCookie + 1}: // VACUUM INTO
	default:
		w.problem("the header's format version is %#x with a schema cookie of %#x: neither the signer's file nor a copy that SQLite made of it", shape[0], shape[1])
	}
	if version := w.u32(atWriter); version < 3_000_000 || version >= 4_000_000 {
		w.problem("the header's SQLite version is %d", version)
	}
}

// zero demands that bytes from to of a page are zero.
func (w *walker) zero(page, from, to int) {
	base := (page - 1) * pageSize
	for i := from; i < to; i++ {
		if w.file[base+i] != 0 {
			w.problem("page %d holds a byte at %d that belongs to nothing", page, i)
			return
		}
	}
}

// take marks a page as reached; false when it cannot be.
func (w *walker) take(page int) bool {
	if page < 1 || page >= len(w.seen) || w.seen[page] {
		w.problem("page %d is reached twice or does not exist", page)
		return false
	}
	w.seen[page] = true
	return true
}

// A table's kinds of b-tree pages (section 1.6).
const (
	interiorPage = 0x05
	leafPage     = 0x0d
)

// table walks a table's b-tree and returns the last key in it.
func (w *walker) table(page, depth int) (last int64) {
	if depth > 20 || !w.take(page) {
		return 0
	}
	base, start := (page-1)*pageSize, 0
	if page == 1 {
		start = 100
	}
	kind, pointers := w.file[base+start], start+8
	switch kind {
	case interiorPage:
		pointers = start + 12
	case leafPage:
	default:
		w.problem("page %d is not of a table", page)
		return 0
	}
	cells := w.u16(base + start + 3)
	if pointers+2*cells > pageSize {
		w.problem("page %d has too many cells", page)
		return 0
	}
	used := make([]bool, pageSize)
	mark(used, 0, pointers+2*cells)
	first := pageSize
	for i := range cells {
		at := w.u16(base + pointers + 2*i)
		if at < pointers+2*cells || at >= pageSize {
			w.problem("page %d: cell %d lies outside", page, i)
			return 0
		}
		first = min(first, at)
		last = w.cell(page, at, kind, used, depth)
	}
	w.freeBlocks(page, w.u16(base+start+1), used)
	if kind == interiorPage {
		if depth > 0 {
			mark(used, pointers+2*cells, first)
		}
		last = w.table(w.u32(base+start+8), depth+1)
	}
	for i, u := range used {
		if !u && w.file[base+i] != 0 {
			w.problem("page %d holds a byte at %d that belongs to nothing", page, i)
			break
		}
	}
	return last
}

func mark(used []bool, from, to int) {
	for i := from; i < to && i < len(used); i++ {
		used[i] = true
	}
}

// varint reads SQLite's variable-length integer and its length in bytes.
func (w *walker) varint(at int) (value int64, n int) {
	for n < 9 && at+n < len(w.file) {
		b := w.file[at+n]
		n++
		if n == 9 {
			return value<<8 | int64(b), n
		}
		value = value<<7 | int64(b&0x7f)
		if b < 0x80 {
			return value, n
		}
	}
	return value, n
}

// cell marks a cell's bytes, follows its child or its overflow chain, and
// returns its key.
func (w *walker) cell(page, at int, kind byte, used []bool, depth int) (key int64) {
	base := (page - 1) * pageSize
	if kind == interiorPage {
		key, n := w.varint(base + at + 4)
		if at+4+n > pageSize {
			w.problem("page %d: a cell ends beyond the page", page)
			return 0
		}
		mark(used, at, at+4+n)
		// Tables here grow at the end alone, so that a key is the last one below.
		if last := w.table(w.u32(base+at), depth+1); last != key {
			w.problem("page %d: a key is %d, the last one below is %d", page, key, last)
		}
		return key
	}
	payload, n := w.varint(base + at)
	key, m := w.varint(base + at + n)
	head := n + m
	if page != 1 {
		w.keyColumn(page, base+at+head)
	}
	if payload < 0 || payload > int64(len(w.file)) {
		w.problem("page %d: a cell claims %d bytes", page, payload)
		return key
	}
	local := localSize(int(payload))
	end := at + head + local
	if local < int(payload) {
		end += 4
	}
	if end > pageSize {
		w.problem("page %d: a cell ends beyond the page", page)
		return key
	}
	// A cell takes at least four bytes; what is left over must be zero and is
	// left unmarked, unless SQLite counts it to the cell.
	mark(used, at, max(end, at+4))
	if local < int(payload) {
		w.overflow(w.u32(base+end-4), int(payload)-local)
	}
	return key
}

// keyColumn demands that a record's first column, the row's id in each of this
// program's tables, is stored as SQLite stores it there: as nothing.
func (w *walker) keyColumn(page, record int) {
	_, n := w.varint(record)
	if serial, _ := w.varint(record + n); serial != 0 {
		w.problem("page %d: a row's id is stored with serial type %d", page, serial)
	}
}

// localSize returns how much of a payload a table leaf holds itself.
func localSize(payload int) int {
	const usable = pageSize
	if payload <= usable-35 {
		return payload
	}
	const least = (usable-12)*32/255 - 23
	k := least + (payload-least)%(usable-4)
	if k <= usable-35 {
		return k
	}
	return least
}

// overflow walks a chain of overflow pages.
func (w *walker) overflow(page, left int) {
	for left > 0 {
		if !w.take(page) {
			return
		}
		here := min(left, pageSize-4)
		w.zero(page, 4+here, pageSize)
		left -= here
		page = w.u32((page - 1) * pageSize)
	}
	if page != 0 {
		w.problem("an overflow chain goes on after its end")
	}
}

// freeBlocks walks a page's list of free blocks; their insides must be zero.
func (w *walker) freeBlocks(page, at int, used []bool) {
	base := (page - 1) * pageSize
	for steps := 0; at != 0; steps++ {
		if at+4 > pageSize || steps > pageSize/4 {
			w.problem("page %d: the list of free blocks is broken", page)
			return
		}
		next, size := w.u16(base+at), w.u16(base+at+2)
		if size < 4 || at+size > pageSize || (next != 0 && next < at+size) {
			w.problem("page %d: a free block is broken", page)
			return
		}
		w.zero(page, at+4, at+size)
		mark(used, at, at+size)
		at = next
	}
}

// roots reads the root pages of the tables from the schema on page 1, which
// this program's files hold in one page.
func (w *walker) roots() []int {
	var roots []int
	cells := w.u16(103)
	for i := range min(cells, 64) {
		at := w.u16(108 + 2*i)
		if at < 108 || at >= pageSize {
			continue
		}
		_, n := w.varint(at)
		_, m := w.varint(at + n)
		record := at + n + m
		headerSize, h := w.varint(record)
		field, body := record+h, record+int(headerSize)
		for column := 0; column < 4 && field < record+int(headerSize) && field < pageSize; column++ {
			serial, n := w.varint(field)
			size := serialSize(serial)
			if column == 3 && size >= 1 && size <= 4 && body+size <= pageSize {
				root := 0
				for _, b := range w.file[body : body+size] {
					root = root<<8 | int(b)
				}
				roots = append(roots, root)
			}
			field, body = field+n, body+size
		}
	}
	return roots
}

// serialSize returns the length in bytes of a record's value by its serial type.
func serialSize(serial int64) int {
	switch {
	case serial >= 12 && serial < 1<<30:
		return int(serial-12) / 2
	case serial >= 1 && serial <= 4:
		return int(serial)
	case serial == 5:
		return 6
	case serial == 6 || serial == 7:
		return 8
	}
	return 0
}

// freelist walks the free pages: trunks list leaves, everything else is zero.
func (w *walker) freelist() {
	count := 0
	for trunk := w.u32(32); trunk != 0; {
		if !w.take(trunk) {
			return
		}
		count++
		base := (trunk - 1) * pageSize
		leaves := w.u32(base + 4)
		if leaves > (pageSize-8)/4 {
			w.problem("the list of free pages is broken")
			return
		}
		for i := range leaves {
			if leaf := w.u32(base + 8 + 4*i); w.take(leaf) {
				w.zero(leaf, 0, pageSize)
				count++
			}
		}
		w.zero(trunk, 8+4*leaves, pageSize)
		trunk = w.u32(base)
	}
	if count != w.u32(36) {
		w.problem("%d free pages, the header says %d", count, w.u32(36))
	}
}
