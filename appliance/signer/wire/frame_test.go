package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"chancery/issuance"
)

// framed puts a length in front of bytes.
func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFrameOnTheWire pins the encoding: length, then deterministic CBOR.
func TestFrameOnTheWire(t *testing.T) {
	var b bytes.Buffer
	if err := WriteFrame(&b, Request{Op: OpStatus}); err != nil {
		t.Fatal(err)
	}
	// 0000000b, map(1), "op", "status"
	if want := fromHex(t, "0000000b a1 626f70 66737461747573"); !bytes.Equal(b.Bytes(), want) {
		t.Errorf("frame %x, want %x", b.Bytes(), want)
	}
}

// TestFrameRefusals has one defect in each frame.
func TestFrameRefusals(t *testing.T) {
	good := fromHex(t, "a1 626f70 66737461747573")
	big, err := Marshal(Request{Op: OpSign, Body: append([]byte{0x5a, 0, 1, 0x40, 0}, make([]byte, 0x14000)...)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  error  // nil: any
		text  string // part of the error
	}{
		"nothing":                  {nil, io.EOF, ""},
		"half a length":            {[]byte{0, 0}, io.ErrUnexpectedEOF, ""},
		"length 0":                 {[]byte{0, 0, 0, 0}, ErrTooLong, "0 bytes"},
		"longer than allowed":      {binary.BigEndian.AppendUint32(nil, MaxFrame+1), ErrTooLong, "4194305 bytes"},
		"as long as can be said":   {bytes.Repeat([]byte{0xff}, 4), ErrTooLong, "4294967295"},
		"no body":                  {[]byte{0, 0, 0, 5}, io.ErrUnexpectedEOF, ""},
		"half a body":              {framed(good)[:8], io.ErrUnexpectedEOF, ""},
		"half a large body":        {framed(big)[:70_000], io.ErrUnexpectedEOF, ""},
		"bytes after the message":  {framed(append(bytes.Clone(good), 0)), nil, "extraneous"},
		"an unknown member":        {framed(fromHex(t, "a2 626f70 66737461747573 6178 01")), nil, "unknown field"},
		"a member in another case": {framed(fromHex(t, "a1 624f70 66737461747573")), nil, "unknown field"},
		"a member twice":           {framed(fromHex(t, "a2 626f70 66737461747573 626f70 66737461747573")), nil, "duplicate"},
		"an indefinite map":        {framed(fromHex(t, "bf 626f70 66737461747573 ff")), nil, "indefinite"},
		"an indefinite string":     {framed(fromHex(t, "a1 626f70 7f 63737461 63747573 ff")), nil, "indefinite"},
		"a tag":                    {framed(fromHex(t, "c0 a1 626f70 66737461747573")), nil, "tag"},
		"text that is not UTF-8":   {framed(fromHex(t, "a1 626f70 62c328")), nil, "UTF-8"},
		"an array":                 {framed(fromHex(t, "81 66737461747573")), nil, "cannot unmarshal array"},
		"a number for the name":    {framed(fromHex(t, "a1 626f70 01")), nil, "cannot unmarshal"},
		"nested too deep":          {framed(fromHex(t, "a1 64626f6479 81818181818181818181 01")), nil, "nested"},
		"an array without end":     {framed(fromHex(t, "a1 64626f6479 9b 7fffffffffffffff")), nil, "array"},
	} {
		t.Run(name, func(t *testing.T) {
			var r Request
			err := ReadFrame(bufio.NewReader(bytes.NewReader(c.frame)), &r)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %v with %q", err, c.want, c.text)
			}
		})
	}
}

// TestReadFrameDoesNotTrustTheLength announces the longest frame and sends
// little: memory must not be taken for what never comes.
func TestReadFrameDoesNotTrustTheLength(t *testing.T) {
	head := binary.BigEndian.AppendUint32(nil, MaxFrame)
	const rounds = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		var r Request
		if err := ReadFrame(bufio.NewReader(bytes.NewReader(append(head, 1, 2, 3))), &r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / rounds; n > 64<<10 {
		t.Errorf("%d bytes of memory for three that came", n)
	}
}

// TestFrames reads several frames of one stream, and then its end.
func TestFrames(t *testing.T) {
	var b bytes.Buffer
	bodies := [][]byte{nil, {0xf6}, append([]byte{0x5a, 0, 0x10, 0, 0}, make([]byte, 1<<20)...)}
	for _, body := range bodies {
		if err := WriteFrame(&b, Request{Op: OpSign, Body: body}); err != nil {
			t.Fatal(err)
		}
	}
	r := bufio.NewReaderSize(&b, 16)
	for i, body := range bodies {
		var got Request
		if err := ReadFrame(r, &got); err != nil || got.Op != OpSign || !bytes.Equal(got.Body, body) {
			t.Fatalf("frame %d: %v, %d bytes", i, err, len(got.Body))
		}
	}
	if err := ReadFrame(r, new(Request)); err != io.EOF {
		t.Errorf("after the last frame: %v, want io.EOF itself", err)
	}
}

// writes counts calls.
type writes struct{ n int }

func (w *writes) Write(p []byte) (int, error) { w.n++; return len(p), nil }

func TestWriteFrame(t *testing.T) {
	w := &writes{}
	if err := WriteFrame(w, Request{Op: OpSign, Body: []byte{0xf6}}); err != nil || w.n != 1 {
		t.Errorf("%v, %d writes, want 1", err, w.n)
	}
	if err := WriteFrame(w, DataKeyResponse{Key: make([]byte, MaxFrame)}); !errors.Is(err, ErrTooLong) || w.n != 1 {
		t.Errorf("a frame that is too long: %v, %d writes", err, w.n)
	}
	if err := WriteFrame(w, map[string]any{"f": func() {}}); err == nil || w.n != 1 {
		t.Errorf("what CBOR cannot say: %v", err)
	}
}

// messages are one full value of each.
func messages() []any {
	profile := issuance.Profile{Formats: []issuance.Format{issuance.FormatMdoc}, Types: []string{"t"}, Issuer: "i", LongestValidityHours: 1, RatePerMinute: 2}
	return []any{
		Request{Op: OpSign, Body: []byte{0xf6}},
		Response{Body: []byte{0xf6}},
		Response{Error: &Error{Code: CodeBusy, Message: "m", RetryAfter: 1}},
		SignRequest{Offer: "o", Configuration: "c", Items: []SignItem{{Key: "k", Format: issuance.FormatMdoc, TBS: []byte{1}, Credential: "x"}}},
		SignResponse{Results: []SignResult{{Signature: []byte{1}, Intent: 2, Outcome: 3}}},
		NewDataKeyRequest{Context: "c"},
		OpenDataKeyRequest{Context: "c", Wrapped: []byte{1}},
		DataKeyResponse{Key: []byte{1}, Wrapped: []byte{2}},
		AppendRequest{Source: "s", Events: []Event{{Seq: 1, Time: 2, Kind: "offer.created", Actor: "a", Subject: "s", Detail: map[string]string{"k": "v"}}}},
		AppendResponse{LastSeq: 7},
		StatusResponse{State: "ready", Class: "c", Keys: map[string]bool{"k": true}, LogSize: 1, CheckpointSize: 2, Signatures: 3, Queue: 4, QueueLimit: 5, PID: 6},
		IdentitiesResponse{Generation: 9, Identities: []Identity{{Label: "l", Purpose: PurposeDID, Algorithm: issuance.ES256, PublicKey: []byte{1},
			Chain: [][]byte{{2}}, Anchor: []byte{3}, CRL: []byte{4}, DID: "did:web:x", KeyID: "did:web:x#k", DIDDocument: []byte("{}"), Profile: profile, Ready: true}}},
		CheckpointResponse{Note: []byte("n")},
		EvidenceResponse{JSON: []byte("{}")},
	}
}

// TestMessages encodes every message, decodes it to the same, and encodes that
// to the same bytes.
func TestMessages(t *testing.T) {
	for _, m := range messages() {
		t.Run(reflect.TypeOf(m).Name(), func(t *testing.T) {
			data, err := Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			again := reflect.New(reflect.TypeOf(m))
			if err := Unmarshal(data, again.Interface()); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(again.Elem().Interface(), m) {
				t.Errorf("%+v became %+v", m, again.Elem().Interface())
			}
			second, err := Marshal(again.Elem().Interface())
			if err != nil || !bytes.Equal(second, data) {
				t.Errorf("%x became %x (%v)", data, second, err)
			}
			// Every member that is there is known: one more is refused.
			var members map[string]any
			if err := Unmarshal(data, &members); err != nil {
				t.Fatal(err)
			}
			members["further"] = 1
			more, err := Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			if err := Unmarshal(more, reflect.New(reflect.TypeOf(m)).Interface()); err == nil {
				t.Error("an unknown member was taken")
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	e := &Error{Code: CodeBusy, Message: "the token is busy", RetryAfter: 1}
	if got, want := e.Error(), "signer: the token is busy (busy)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if AsError(io.EOF) != nil || AsError(errors.Join(io.EOF, e)) != e || AsError(nil) != nil {
		t.Error("AsError finds the signer's answer in a chain, and nothing else")
	}
}
