package wire

import (
	"bufio"
	"bytes"
	"reflect"
	"testing"
)

// FuzzFrame reads a stream as a peer may send it: it ends, and what it took as
// requests can be sent again.
func FuzzFrame(f *testing.F) {
	for _, m := range messages() {
		data, err := Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(framed(data))
		f.Add(append(framed(data), framed(data)...))
		f.Add(framed(data)[:len(data)])
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 1, 0xa0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bufio.NewReader(bytes.NewReader(stream))
		for {
			var request Request
			if err := ReadFrame(r, &request); err != nil {
				return
			}
			var b bytes.Buffer
			if err := WriteFrame(&b, request); err != nil {
				t.Fatalf("a request that came cannot be sent: %v", err)
			}
			var again Request
			if err := ReadFrame(bufio.NewReader(&b), &again); err != nil || !reflect.DeepEqual(again, request) {
				t.Fatalf("%+v came back as %+v, %v", request, again, err)
			}
		}
	})
}

// fuzzMessage decodes a body as a message: what is taken encodes to something
// that decodes to the same.
func fuzzMessage[M any](f *testing.F) {
	for _, m := range messages() {
		data, err := Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m, again M
		if Unmarshal(body, &m) != nil {
			return
		}
		data, err := Marshal(m)
		if err != nil {
			t.Fatalf("%+v cannot be encoded: %v", m, err)
		}
		if err := Unmarshal(data, &again); err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if second, err := Marshal(again); err != nil || !bytes.Equal(second, data) {
			t.Fatalf("%x became %x, %v", data, second, err)
		}
	})
}

func FuzzSignRequest(f *testing.F)        { fuzzMessage[SignRequest](f) }
func FuzzNewDataKeyRequest(f *testing.F)  { fuzzMessage[NewDataKeyRequest](f) }
func FuzzOpenDataKeyRequest(f *testing.F) { fuzzMessage[OpenDataKeyRequest](f) }
func FuzzAppendRequest(f *testing.F)      { fuzzMessage[AppendRequest](f) }

// The answers come from the signer, but chanceryd does not have to believe that.
func FuzzIdentitiesResponse(f *testing.F) { fuzzMessage[IdentitiesResponse](f) }
func FuzzStatusResponse(f *testing.F)     { fuzzMessage[StatusResponse](f) }
