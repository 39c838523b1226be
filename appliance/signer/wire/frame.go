package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// Request is a request's frame.
type Request struct {
	Op   Op              `cbor:"op"`
	Body cbor.RawMessage `cbor:"body,omitempty"`
}

// Response is an answer's frame: an error or a body.
type Response struct {
	Error *Error          `cbor:"error,omitempty"`
	Body  cbor.RawMessage `cbor:"body,omitempty"`
}

var encoder = func() cbor.EncMode {
	options := cbor.CoreDetEncOptions() // RFC 8949 §4.2.1
	options.NilContainers = cbor.NilContainerAsEmpty
	mode, err := options.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

var decoder = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		UTF8: cbor.UTF8RejectInvalid, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   8, MaxArrayElements: 4096, MaxMapPairs: 4096,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

// Marshal encodes a message.
func Marshal(v any) ([]byte, error) { return encoder.Marshal(v) }

// Unmarshal decodes a message strictly.
func Unmarshal(data []byte, v any) error { return decoder.Unmarshal(data, v) }

// ErrTooLong says that a frame is longer than [MaxFrame].
var ErrTooLong = errors.New("the frame is too long")

// ReadFrame reads one frame into v. io.EOF means that the peer closed between frames.
func ReadFrame(r *bufio.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > MaxFrame {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, MaxFrame)
	}
	// The length is the peer's word: memory grows with what really arrives.
	var data []byte
	if n <= 64<<10 {
		data = make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			return noEOF(err)
		}
	} else {
		var err error
		if data, err = io.ReadAll(io.LimitReader(r, int64(n))); err != nil {
			return noEOF(err)
		}
		if len(data) != int(n) {
			return io.ErrUnexpectedEOF
		}
	}
	return Unmarshal(data, v)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// WriteFrame writes one frame in one write.
func WriteFrame(w io.Writer, v any) error {
	data, err := Marshal(v)
	if err != nil {
		return err
	}
	if len(data) > MaxFrame {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(data), MaxFrame)
	}
	frame := make([]byte, 4+len(data))
	binary.BigEndian.PutUint32(frame, uint32(len(data)))
	copy(frame[4:], data)
	_, err = w.Write(frame)
	return err
}
