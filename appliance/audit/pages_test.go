package audit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"chancery/appliance/database"
)

// structured makes a file with interior pages, overflow pages, and checkpoints
// that stand far apart, and returns it with the pages of a kind.
func structured(t *testing.T) (file []byte, pages func(kind byte) []int) {
	t.Helper()
	k := newKey(t, "ed25519")
	path := filled(t, k, 60)
	l := openLog(t, path, k)
	mustAppend(t, l, long(t, 9000))
	closeLog(t, l)
	change(t, path, func(tx *database.Tx) error {
		for slot := range 100 {
			if _, err := tx.Exec("INSERT INTO checkpoints (slot, size, note) VALUES (?, 0, zeroblob(300))", 10*(slot+1)); err != nil {
				return err
			}
		}
		return nil
	})
	file = read(t, path)
	return file, func(kind byte) (list []int) {
		for page := 2; page <= len(file)/pageSize; page++ {
			if file[(page-1)*pageSize] == kind {
				list = append(list, page)
			}
		}
		return list
	}
}

// TestStructure changes what a page says of itself, in ways of which SQLite's own
// check does not tell all.
func TestStructure(t *testing.T) {
	good, pages := structured(t)
	report := &Report{}
	if walkFile(good, report.problem); !report.OK() {
		t.Fatalf("unchanged: %v", report.Problems)
	}
	interior, leaves := pages(interiorPage), pages(leafPage)
	if len(interior) < 2 {
		t.Fatalf("%d interior pages", len(interior))
	}
	u16 := func(file []byte, at int) int { return int(binary.BigEndian.Uint16(file[at:])) }
	put16 := func(file []byte, at, to int) { binary.BigEndian.PutUint16(file[at:], uint16(to)) }
	put32 := func(file []byte, at, to int) { binary.BigEndian.PutUint32(file[at:], uint32(to)) }
	at := func(page int) int { return (page - 1) * pageSize }
	overflow := 0
	for page := 2; page <= len(good)/pageSize; page++ {
		if base := at(page); good[base] == 0 && overflow == 0 {
			overflow = page
		}
	}
	for name, test := range map[string]struct {
		change func(file []byte)
		why    string
	}{
		"an interior key":        {func(f []byte) { f[at(interior[1])+u16(f, at(interior[1])+14)+5]++ }, "a key is"},
		"an interior cell's end": {func(f []byte) { put16(f, at(interior[0])+12, pageSize-3) }, "a cell ends beyond the page"},
		"a cell in the pointers": {func(f []byte) { put16(f, at(leaves[0])+8, 9) }, "lies outside"},
		"a cell behind the page": {func(f []byte) { put16(f, at(leaves[0])+8, pageSize) }, "lies outside"},
		"a leaf cell's end":      {func(f []byte) { put16(f, at(leaves[0])+8, pageSize-5) }, "page %leaf"},
		"too many cells":         {func(f []byte) { put16(f, at(leaves[0])+3, 3000) }, "too many cells"},
		"another kind of page":   {func(f []byte) { f[at(leaves[0])] = 0x0a }, "is not of a table"},
		"a page twice":           {func(f []byte) { put32(f, at(interior[0])+8, leaves[0]) }, "is reached twice"},
		"a page that is not":     {func(f []byte) { put32(f, at(interior[0])+8, len(f)) }, "does not exist"},
		"a page of its own":      {func(f []byte) { put32(f, at(interior[0])+8, interior[0]) }, "is reached twice"},
		"a byte in a leaf's gap": {func(f []byte) { f[at(leaves[0])+8+2*u16(f, at(leaves[0])+3)] = 1 }, "belongs to nothing"},
		"a byte in a root's gap": {func(f []byte) { f[at(interior[0])+12+2*u16(f, at(interior[0])+3)] = 1 }, "belongs to nothing"},
		"a free block":           {func(f []byte) { put16(f, at(leaves[0])+1, pageSize-2) }, "free blocks is broken"},
		"a free block's length":  {func(f []byte) { put16(f, at(leaves[0])+1, 200); put16(f, at(leaves[0])+202, 2) }, "a free block is broken"},
		"a free block's content": {func(f []byte) {
			put16(f, at(leaves[0])+1, 200)
			put16(f, at(leaves[0])+202, 9)
			f[at(leaves[0])+206] = 1
		}, "belongs to nothing"},
		"a list that goes back": {func(f []byte) {
			put16(f, at(leaves[0])+1, 200)
			put16(f, at(leaves[0])+202, 9)
			put16(f, at(leaves[0])+200, 100)
		}, "a free block is broken"},
		"an overflow that goes on": {func(f []byte) {
			next := int(binary.BigEndian.Uint32(f[at(overflow):]))
			put32(f, at(next), leaves[0])
		}, "goes on after its end"},
		"an overflow that ends":    {func(f []byte) { put32(f, at(overflow), 0) }, "does not exist"},
		"a free page that is not":  {func(f []byte) { put32(f, 32, len(f)) }, "does not exist"},
		"a free page that is used": {func(f []byte) { put32(f, 32, leaves[0]) }, "is reached twice"},
		"a number of free pages":   {func(f []byte) { put32(f, 36, 1) }, "0 free pages, the header says 1"},
		"a row's stored id":        {func(f []byte) { f[at(leaves[0])+recordOf(f, at(leaves[0]))+1] = 1 }, "a row's id is stored with serial type 1"},
		"a length":                 {func(f []byte) { copy(f[at(leaves[0])+u16(f, at(leaves[0])+8):], []byte{0xff, 0xff, 0xff, 0x7f}) }, "a cell claims"},
	} {
		file := bytes.Clone(good)
		test.change(file)
		report := &Report{}
		walkFile(file, report.problem)
		why := strings.ReplaceAll(test.why, "%leaf", fmt.Sprint(leaves[0]))
		if !strings.Contains(strings.Join(report.Problems, "\n"), why) {
			t.Errorf("%s: %q, want %q", name, report.Problems, why)
		}
	}
}

// recordOf returns where the record of a leaf page's first cell begins.
func recordOf(file []byte, base int) int {
	at := int(binary.BigEndian.Uint16(file[base+8:]))
	for range 2 { // the payload's length and the key
		for file[base+at] >= 0x80 {
			at++
		}
		at++
	}
	return at
}

// TestFreePages walks files with free pages, as a deletion leaves them, and
// changes bytes in them.
func TestFreePages(t *testing.T) {
	k := newKey(t, "ed25519")
	path := filled(t, k, 200)
	change(t, path, statements("DELETE FROM entries WHERE id > 20"))
	good := read(t, path)
	free := int(binary.BigEndian.Uint32(good[36:]))
	if free < 3 {
		t.Fatalf("%d free pages", free)
	}
	list := func(file []byte) string {
		report := &Report{}
		walkFile(file, report.problem)
		return strings.Join(report.Problems, "\n")
	}
	if problems := list(good); strings.Contains(problems, "free") {
		t.Errorf("unchanged: %s", problems)
	}
	trunk := (int(binary.BigEndian.Uint32(good[32:])) - 1) * pageSize
	leaf := (int(binary.BigEndian.Uint32(good[trunk+8:])) - 1) * pageSize
	for name, test := range map[string]struct {
		at, to int
		why    string
	}{
		"in a free page":      {leaf + 100, 1, "belongs to nothing"},
		"behind the trunk":    {trunk + 4000, 1, "belongs to nothing"},
		"the trunk's length":  {trunk + 4, 0xff, "list of free pages is broken"},
		"one page less":       {trunk + 7, free - 2, "free pages, the header says"},
		"another trunk":       {trunk + 3, 2, "is reached twice"},
		"a page that is not":  {trunk + 8, 0x7f, "does not exist"},
		"the header's number": {39, free + 1, "free pages, the header says"},
	} {
		file := bytes.Clone(good)
		file[test.at] = byte(test.to)
		if problems := list(file); !strings.Contains(problems, test.why) {
			t.Errorf("%s: %q, want %q", name, problems, test.why)
		}
	}
}

// TestLocalSize compares with the figures of SQLite's file format, section 1.6,
// for pages of 4096 bytes: at most 4061 bytes of a payload are local, at least 489.
func TestLocalSize(t *testing.T) {
	for payload, want := range map[int]int{0: 0, 1: 1, 4061: 4061, 4062: 489, 4581: 489, 4582: 490, 8153: 4061, 8154: 489} {
		if got := localSize(payload); got != want {
			t.Errorf("of %d bytes %d are local, want %d", payload, got, want)
		}
	}
}

// TestVarints reads SQLite's integers of each length (section 1.6).
func TestVarints(t *testing.T) {
	for _, test := range []struct {
		bytes []byte
		value int64
		n     int
	}{
		{[]byte{0}, 0, 1}, {[]byte{0x7f}, 127, 1}, {[]byte{0x81, 0}, 128, 2}, {[]byte{0xff, 0x7f}, 16383, 2}, {[]byte{0x81, 0x80, 0}, 16384, 3},
		{[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, -1, 9},
		{[]byte{0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 5}, 5, 9},
		{[]byte{0x81}, 1, 1}, // the file ends
	} {
		w := &walker{file: test.bytes}
		if value, n := w.varint(0); value != test.value || n != test.n {
			t.Errorf("%x is %d in %d bytes, want %d in %d", test.bytes, value, n, test.value, test.n)
		}
	}
}
