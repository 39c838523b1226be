package audit

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"chancery/issuance"
)

// anyEntry draws an entry as a caller could make one.
func anyEntry(r *rapid.T) Entry {
	text := func(name string) string {
		return rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[ -~]{1,20}`), rapid.String()).Draw(r, name)
	}
	e := Entry{
		Time: Stamp(time.UnixMilli(rapid.Int64Range(0, 253402300799999).Draw(r, "time"))),
		Kind: Kind(rapid.StringMatching(`[a-z]{1,9}\.[a-z]{1,9}`).Draw(r, "kind")), Actor: text("actor"), Key: text("key"),
		Credential: text("credential"), Offer: text("offer"), Configuration: text("configuration"), Format: issuance.Format(text("format")),
		ValidUntil: text("valid until"), Hash: text("hash"), Reason: text("reason"), Subject: text("subject"), Source: text("source"),
		Seq: rapid.Uint64().Draw(r, "seq"),
	}
	if rapid.Bool().Draw(r, "is an outcome") {
		intent := rapid.Int64Range(0, 1<<62).Draw(r, "intent")
		e.Intent = &intent
	}
	for range rapid.IntRange(0, 3).Draw(r, "types") {
		e.Types = append(e.Types, text("type"))
	}
	if rapid.Bool().Draw(r, "has a detail") {
		e.Detail, _ = json.Marshal(map[string]string{text("name"): text("value")})
	}
	return e
}

// TestEntriesAreReadAsTheyWereWritten takes random entries through their leaves.
func TestEntriesAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		e := anyEntry(r)
		leaf, err := e.Marshal()
		if err != nil {
			r.Fatal(err)
		}
		got, err := ParseEntry(leaf)
		if err != nil {
			r.Fatalf("%s: %v", leaf, err)
		}
		if !reflect.DeepEqual(got, e) {
			r.Fatalf("%s: read as %+v", leaf, got)
		}
		agree(r, leaf)
	})
}

// agree demands that the fast way of reading a leaf, where it takes it, reads
// what encoding/json reads, and takes only what is written in the one form.
func agree(t rapid.TB, leaf []byte) {
	t.Helper()
	fast, ok := parsePlain(leaf)
	if !ok {
		return
	}
	var slow Entry
	if err := json.Unmarshal(leaf, &slow); err != nil || !reflect.DeepEqual(fast, slow) {
		t.Fatalf("%s: read as %+v and as %+v (%v)", leaf, fast, slow, err)
	}
	if again, err := slow.encode(); err != nil || string(again) != string(leaf) {
		t.Fatalf("%s: written as %s (%v)", leaf, again, err)
	}
}

// TestPlainEntriesAreReadFast demands that what the signer writes most takes the
// fast way.
func TestPlainEntriesAreReadFast(t *testing.T) {
	at := int64(7)
	for _, e := range []Entry{
		{Kind: KindIntent, Actor: "appliance", Key: "mdl-ds-2026", Credential: "0198c1f2-7a7b", Offer: "0198c1f2-7a7a", Configuration: "mdl",
			Format: issuance.Format("mso_mdoc"), Types: []string{"org.iso.18013.5.1.mDL"}, ValidUntil: "2027-01-01T00:00:00Z", Hash: "00ff"},
		{Kind: KindMade, Actor: "signer", Key: "mdl-ds-2026", Credential: "0198c1f2-7a7b", Hash: "00ff", Intent: &at},
		{Kind: "offer.redeemed", Actor: "wallet", Subject: "0198c1f2-7a7a", Source: "0198c1f2", Seq: 12},
		{Kind: KindRefused, Reason: "profile: <a & b>", Types: []string{"a", "b"}},
	} {
		data := marshal(t, e)
		if _, ok := parsePlain(data); !ok {
			t.Errorf("%s is not read the fast way", data)
		}
		agree(t, data)
	}
}

// TestLeavesInAnyOtherFormAreRefused changes a leaf in ways that leave JSON's
// meaning to encoding/json as it is, or that two readers may read differently.
func TestLeavesInAnyOtherFormAreRefused(t *testing.T) {
	const good = `{"time":"2026-01-01T00:00:00.000Z","kind":"offer.created","types":["a","b"],"intent":4,"seq":1,"detail":{"a":1}}`
	if _, err := ParseEntry([]byte(good)); err != nil {
		t.Fatal(err)
	}
	const plain = `{"time":"2026-01-01T00:00:00.000Z","kind":"signature.made","types":["a","b"],"intent":4,"seq":1}`
	if _, err := ParseEntry([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) func(string) string {
		return func(leaf string) string { return strings.Replace(leaf, old, new, 1) }
	}
	for name, change := range map[string]func(string) string{
		"white space":          replace(`,"kind"`, `, "kind"`),
		"white space behind":   func(leaf string) string { return leaf + " " },
		"a line behind":        func(leaf string) string { return leaf + "\n" },
		"another behind":       func(leaf string) string { return leaf + leaf },
		"a member twice":       replace(`"seq":1`, `"seq":2,"seq":1`),
		"a null":               replace(`"seq":1`, `"reason":null,"seq":1`),
		"an empty member":      replace(`"seq":1`, `"reason":"","seq":1`),
		"a member of no use":   replace(`"seq":1`, `"more":1,"seq":1`),
		"another order":        replace(`"intent":4,"seq":1`, `"seq":1,"intent":4`),
		"another case":         replace(`"seq"`, `"Seq"`),
		"an escape":            replace(`"a"`, `"\u0061"`),
		"a number with a zero": replace(`"intent":4`, `"intent":04`),
		"a number as a float":  replace(`"intent":4`, `"intent":4.0`),
		"a negative intent":    replace(`"intent":4`, `"intent":-4`),
		"an intent too large":  replace(`"intent":4`, `"intent":9223372036854775808`),
		"a zero seq":           replace(`"seq":1`, `"seq":0`),
		"no intent":            replace(`"intent":4`, `"intent":`),
		"no list":              replace(`["a","b"]`, `["a","b"`),
		"a list that goes on":  replace(`["a","b"]`, `["a","b",]`),
		"an empty list":        replace(`["a","b"]`, `[]`),
		"no kind":              func(leaf string) string { return leaf[:35] + "}" },
		"a time without Z":     replace(`.000Z`, `.000`),
		"a time with a zone":   replace(`.000Z`, `.000+00:00`),
		"a time of no day":     replace(`2026-01-01`, `2026-02-30`),
		"a time too exact":     replace(`.000Z`, `.000000Z`),
		"no UTF-8":             replace(`"a"`, "\"\xff\""),
		"a control character":  replace(`"a"`, "\"\x01\""),
		"no value":             replace(`"a"`, `a`),
		"cut":                  func(leaf string) string { return leaf[:len(leaf)-1] },
	} {
		for _, leaf := range []string{good, plain} {
			changed := change(leaf)
			if changed == leaf {
				t.Fatalf("%s: nothing changed", name)
			}
			if e, err := ParseEntry([]byte(changed)); err == nil {
				t.Errorf("%s: %s is read as %+v", name, changed, e)
			}
		}
	}
}

// TestEntriesThatCannotBeWritten are refused before they are in the log.
func TestEntriesThatCannotBeWritten(t *testing.T) {
	at := int64(-1)
	for name, e := range map[string]Entry{
		"no kind":           {Time: Stamp(noon)},
		"no time":           {Kind: KindIntent},
		"another time":      {Time: noon.UTC().Format(time.RFC3339), Kind: KindIntent},
		"no UTF-8":          {Time: Stamp(noon), Kind: KindIntent, Subject: "\xff"},
		"no UTF-8 in types": {Time: Stamp(noon), Kind: KindIntent, Types: []string{"a", "\xff"}},
		"no UTF-8 below":    {Time: Stamp(noon), Kind: KindIntent, Detail: json.RawMessage("\"\xff\"")},
		"a negative intent": {Time: Stamp(noon), Kind: KindMade, Intent: &at},
		"no JSON below":     {Time: Stamp(noon), Kind: KindIntent, Detail: json.RawMessage("{")},
		"too long":          {Time: Stamp(noon), Kind: KindIntent, Reason: strings.Repeat("x", MaxLeaf)},
	} {
		if leaf, err := e.Marshal(); err == nil {
			t.Errorf("%s: written as %s", name, leaf)
		}
	}
	longest := Entry{Time: Stamp(noon), Kind: KindIntent}
	longest.Reason = strings.Repeat("x", MaxLeaf-len(marshal(t, longest))-len(`,"reason":""`))
	if leaf := marshal(t, longest); len(leaf) != MaxLeaf {
		t.Errorf("the longest entry has %d bytes", len(leaf))
	} else if _, err := ParseEntry(leaf); err != nil {
		t.Error(err)
	}
	if _, err := ParseEntry(make([]byte, MaxLeaf+1)); err == nil {
		t.Error("a longer one is read")
	}
}

// TestAnEntryIsReadableAsItIsHashed shows one, for whoever reads logs.
func TestAnEntryIsReadableAsItIsHashed(t *testing.T) {
	e := Entry{Kind: KindRefused, Reason: "Łódź <&>", Detail: json.RawMessage(` { "a" : 1 } `)}
	const want = `{"time":"2027-01-15T08:00:00.000Z","kind":"signature.refused","reason":"Łódź <&>","detail":{"a":1}}`
	if got := string(marshal(t, e)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestWhoseKind tells the signer's kinds from those of events.
func TestWhoseKind(t *testing.T) {
	for _, k := range []Kind{KindLogCreated, KindSignerStarted, KindIntent, KindMade, KindFailed, KindAbandoned, KindRefused, KindKeyCreated, KindCRLIssued, KindCeremony, KindTokenDegraded, KindTokenRecovered, "key.retired", "signature"} {
		if !k.OfSigner() {
			t.Errorf("%s is not the signer's", k)
		}
	}
	for _, k := range []Kind{"offer.created", "operator.login", "signatures.made", "", "."} {
		if k.OfSigner() {
			t.Errorf("%s is the signer's", k)
		}
	}
}
