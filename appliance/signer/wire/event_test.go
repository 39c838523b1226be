package wire

import (
	"strings"
	"testing"
)

// What the log does not take is refused where it is recorded.
func TestEventCheck(t *testing.T) {
	good := Event{Seq: 1, Time: 1, Kind: "offer.created", Actor: "Zoë", Subject: "id", Detail: map[string]string{"reason": "because of it"}}
	for name, c := range map[string]struct {
		change func(*Event)
		wants  string
	}{
		"as it is":             {func(*Event) {}, ""},
		"nobody, of nothing":   {func(e *Event) { e.Actor, e.Subject, e.Detail = "", "", nil }, ""},
		"a key's":              {func(e *Event) { e.Kind = "encryption_key.added" }, ""},
		"the signer's kind":    {func(e *Event) { e.Kind = "signature.made" }, "kind must begin"},
		"no dot":               {func(e *Event) { e.Kind = "offer" }, "kind must begin"},
		"nothing after it":     {func(e *Event) { e.Kind = "offer." }, "kind must begin"},
		"a space in the kind":  {func(e *Event) { e.Kind = "offer.is made" }, "kind must begin"},
		"before 1970":          {func(e *Event) { e.Time = -1 }, "time is not"},
		"after 9999":           {func(e *Event) { e.Time = 253402300800000 }, "time is not"},
		"the signer":           {func(e *Event) { e.Actor = "signer" }, "actor is too long"},
		"the ceremony":         {func(e *Event) { e.Actor = "ceremony" }, "actor is too long"},
		"a long actor":         {func(e *Event) { e.Actor = strings.Repeat("x", 257) }, "actor is too long"},
		"an actor, not UTF-8":  {func(e *Event) { e.Actor = "\xff" }, "actor is too long"},
		"a long subject":       {func(e *Event) { e.Subject = strings.Repeat("x", 257) }, "subject is too long"},
		"a detail with spaces": {func(e *Event) { e.Detail = map[string]string{"a b": ""} }, "a detail's name"},
		"a long detail":        {func(e *Event) { e.Detail = map[string]string{"a": strings.Repeat("x", 1025)} }, "a detail's name"},
		"seventeen details": {func(e *Event) {
			e.Detail = map[string]string{}
			for i := range 17 {
				e.Detail[strings.Repeat("x", i+1)] = ""
			}
		}, "17 details: at most 16"},
	} {
		e := good
		c.change(&e)
		err := e.Check()
		if c.wants == "" && err != nil || c.wants != "" && (err == nil || !strings.Contains(err.Error(), c.wants)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
