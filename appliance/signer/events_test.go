package signer_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"chancery/appliance/audit"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
)

// events are those of a source from a number on.
func events(source string, from, n uint64) wire.AppendRequest {
	in := wire.AppendRequest{Source: source}
	for i := range n {
		in.Events = append(in.Events, wire.Event{Seq: from + i, Time: 1_800_000_000_123, Kind: "offer.created", Actor: "Jürgen",
			Subject: fmt.Sprintf("offer-%d", from+i), Detail: map[string]string{"configuration": "c"}})
	}
	return in
}

// foreign are the log's entries of a source.
func foreign(t *testing.T, f *fixture, source string) (entries []audit.Entry) {
	t.Helper()
	for _, e := range f.Entries(t) {
		if e.Source == source {
			entries = append(entries, e)
		}
	}
	return entries
}

// TestEvents sends events once, again, in part again, and with a gap, before and
// after a restart: the log has each once, in order.
func TestEvents(t *testing.T) {
	f := start(t, signertest.Options{})
	for _, step := range []struct {
		from, n, last uint64
		restart       bool
		code          wire.Code
	}{
		{from: 1, n: 3, last: 3},
		{from: 1, n: 3, last: 3},                       // the answer was lost
		{from: 2, n: 4, last: 5},                       // some are new
		{from: 7, n: 1, code: wire.CodeBadRequest},     // 6 is missing
		{from: 6, n: 1, last: 6, restart: true},        // the log remembers
		{from: 1, n: 6, last: 6},                       // all of them again
		{from: 7, n: 0, last: 6},                       // none: how far is it?
		{from: 7, n: 512, last: 518},                   // as many as fit
		{from: 519, n: 513, code: wire.CodeBadRequest}, // one more
	} {
		if step.restart {
			f.Restart(t)
		}
		out, err := f.Sign.Append(soon(t), events("one", step.from, step.n))
		if code(err) != step.code || out.LastSeq != step.last {
			t.Fatalf("%+v: %d, %v", step, out.LastSeq, err)
		}
	}
	entries := foreign(t, f, "one")
	for i, e := range entries {
		if e.Seq != uint64(i+1) || e.Kind != "offer.created" || e.Actor != "Jürgen" || e.Subject != fmt.Sprintf("offer-%d", i+1) ||
			e.Time != "2027-01-15T08:00:00.123Z" || string(e.Detail) != `{"configuration":"c"}` {
			t.Fatalf("entry %d: %+v", i, e)
		}
	}
	if len(entries) != 518 {
		t.Errorf("%d entries", len(entries))
	}
	// Another source, that of a new or restored database, counts for itself.
	if out, err := f.Sign.Append(soon(t), events("two", 1, 1)); err != nil || out.LastSeq != 1 {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := f.Sign.Append(soon(t), events("three", 2, 1)); code(err) != wire.CodeBadRequest {
		t.Errorf("a source that begins with 2: %v", err)
	}
}

// TestGapWithinARequest records nothing of a request that is not whole.
func TestGapWithinARequest(t *testing.T) {
	f := start(t, signertest.Options{})
	in := events("one", 1, 4)
	in.Events[2].Seq = 9
	if _, err := f.Sign.Append(soon(t), in); code(err) != wire.CodeBadRequest || len(foreign(t, f, "one")) != 0 {
		t.Errorf("%v, %d entries", err, len(foreign(t, f, "one")))
	}
	backwards := events("one", 1, 2)
	backwards.Events[0], backwards.Events[1] = backwards.Events[1], backwards.Events[0]
	if _, err := f.Sign.Append(soon(t), backwards); code(err) != wire.CodeBadRequest || len(foreign(t, f, "one")) != 0 {
		t.Errorf("%v, %d entries", err, len(foreign(t, f, "one")))
	}
}

// TestEventsTogether sends the same outbox from eight callers at once.
func TestEventsTogether(t *testing.T) {
	f := start(t, signertest.Options{})
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for from := uint64(1); from <= 50; from += 5 {
				if _, err := f.Sign.Append(soon(t), events("one", from, 5)); err != nil && code(err) != wire.CodeBadRequest {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	entries := foreign(t, f, "one")
	for i, e := range entries {
		if e.Seq != uint64(i+1) {
			t.Fatalf("entry %d has number %d", i, e.Seq)
		}
	}
	if len(entries) != 50 {
		t.Errorf("%d entries, want 50", len(entries))
	}
}

// TestForeignEvents has chanceryd write what is not its own to write
// (promise P8), or what the log could not hold.
func TestForeignEvents(t *testing.T) {
	f := start(t, signertest.Options{})
	before := len(f.Entries(t))
	long := map[string]string{}
	for i := range 16 {
		long[fmt.Sprint(i)] = strings.Repeat("\x01", 1024) // six bytes each in JSON
	}
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprint(i)] = ""
	}
	cases := map[string]func(in *wire.AppendRequest){
		"no source":               func(in *wire.AppendRequest) { in.Source = "" },
		"a source with a space":   func(in *wire.AppendRequest) { in.Source = "a b" },
		"a source of 257 bytes":   func(in *wire.AppendRequest) { in.Source = strings.Repeat("x", 257) },
		"number 0":                func(in *wire.AppendRequest) { in.Events[0].Seq = 0 },
		"before 1970":             func(in *wire.AppendRequest) { in.Events[0].Time = -1 },
		"after 9999":              func(in *wire.AppendRequest) { in.Events[0].Time = 253402300800000 },
		"the signer as actor":     func(in *wire.AppendRequest) { in.Events[0].Actor = "signer" },
		"a ceremony as actor":     func(in *wire.AppendRequest) { in.Events[0].Actor = "ceremony" },
		"an actor of 257 bytes":   func(in *wire.AppendRequest) { in.Events[0].Actor = strings.Repeat("x", 257) },
		"a subject of 257 bytes":  func(in *wire.AppendRequest) { in.Events[0].Subject = strings.Repeat("x", 257) },
		"a detail of 1025 bytes":  func(in *wire.AppendRequest) { in.Events[0].Detail["x"] = strings.Repeat("x", 1025) },
		"a detail without a name": func(in *wire.AppendRequest) { in.Events[0].Detail[""] = "x" },
		"17 details":              func(in *wire.AppendRequest) { in.Events[0].Detail = many },
		"details that grow":       func(in *wire.AppendRequest) { in.Events[0].Detail = long },
	}
	for _, kind := range []string{"", "offer", "offer.", ".created", "unknown.kind", "offer.cre ated", "offer.é", "Offer.created", "offers.created",
		string(audit.KindLogCreated), string(audit.KindSignerStarted), string(audit.KindIntent), string(audit.KindMade), string(audit.KindFailed),
		string(audit.KindAbandoned), string(audit.KindRefused), string(audit.KindKeyCreated), string(audit.KindCRLIssued), string(audit.KindCeremony),
		string(audit.KindTokenDegraded), string(audit.KindTokenRecovered), "key.retired", "log.x", "offer." + strings.Repeat("x", 256)} {
		cases["kind "+kind] = func(in *wire.AppendRequest) { in.Events[0].Kind = kind }
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			in := events("one", 1, 1)
			change(&in)
			if _, err := f.Sign.Append(soon(t), in); code(err) != wire.CodeBadRequest {
				t.Errorf("%v, want bad_request", err)
			}
		})
	}
	if after := len(f.Entries(t)); after != before {
		t.Errorf("%d entries were written", after-before)
	}
	for i, kind := range []string{"offer.created", "credential.issued", "configuration.changed", "operator.login", "database.opened",
		"appliance.started", "metadata.signed", "status.changed", "wallet.attested", "notification.received"} {
		in := events("one", uint64(i+1), 1)
		in.Events[0].Kind = kind
		if _, err := f.Sign.Append(soon(t), in); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	f.Restart(t) // what was written can be read again
}

// TestDataKeys wraps and opens data keys.
func TestDataKeys(t *testing.T) {
	f := start(t, signertest.Options{})
	made, err := f.Sign.NewDataKey(soon(t), "epoch-1")
	if err != nil || len(made.Key) != 32 || strings.Contains(string(made.Wrapped), string(made.Key)) {
		t.Fatalf("%d bytes, %v", len(made.Key), err)
	}
	other, err := f.Sign.NewDataKey(soon(t), "epoch-1")
	if err != nil || string(other.Key) == string(made.Key) {
		t.Errorf("the same key twice, %v", err)
	}
	f.Restart(t)
	opened, err := f.Sign.OpenDataKey(soon(t), "epoch-1", made.Wrapped)
	if err != nil || string(opened.Key) != string(made.Key) {
		t.Errorf("opened to another key, %v", err)
	}
	flipped := append([]byte(nil), made.Wrapped...)
	flipped[20] ^= 1
	for name, c := range map[string]struct {
		context string
		wrapped []byte
		want    wire.Code
	}{
		"another context":    {"epoch-2", made.Wrapped, wire.CodeRefused},
		"no context":         {"", made.Wrapped, wire.CodeBadRequest},
		"a long context":     {strings.Repeat("x", 1025), made.Wrapped, wire.CodeBadRequest},
		"a flipped bit":      {"epoch-1", flipped, wire.CodeRefused},
		"cut":                {"epoch-1", made.Wrapped[:40], wire.CodeRefused},
		"nothing":            {"epoch-1", nil, wire.CodeRefused},
		"random bytes":       {"epoch-1", make([]byte, 60), wire.CodeRefused},
		"the plain data key": {"epoch-1", made.Key, wire.CodeRefused},
	} {
		if _, err := f.Sign.OpenDataKey(soon(t), c.context, c.wrapped); code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := f.Sign.NewDataKey(soon(t), ""); code(err) != wire.CodeBadRequest {
		t.Errorf("a data key without context: %v", err)
	}
	if status, err := f.Sign.Status(soon(t)); err != nil || status.State != "ready" {
		t.Errorf("what does not open has hurt the token: %+v, %v", status, err)
	}
	// The form is fixed: data keys outlive this program's version.
	evidence, err := f.Admin.Evidence(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(t); err != nil {
		t.Fatal(err)
	}
	withToken(t, f, func(token *hsm.Token) {
		if err := token.Load(soon(t), []hsm.KeyRef{keyRef(t, evidence.JSON, "sealing-1")}); err != nil {
			t.Fatal(err)
		}
		key, err := token.Unseal(soon(t), "sealing-1", made.Wrapped, []byte("chancery data key v1\x00epoch-1"))
		if err != nil || string(key) != string(made.Key) {
			t.Errorf("the token opens it to %d bytes, %v", len(key), err)
		}
	})
}
