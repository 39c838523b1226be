package registry

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
	"chancery/issuance"
	"chancery/issuance/iaca"
)

var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// recorded makes a key's record; the private half is for what it must sign.
func recorded(t testing.TB, label string, purpose wire.Purpose, algorithm issuance.Algorithm) (Key, crypto.Signer) {
	t.Helper()
	k := Key{Label: label, Purpose: purpose, Algorithm: algorithm, ID: []byte(label)}
	if algorithm == hsm.Sealing {
		return k, nil
	}
	var private crypto.Signer
	var err error
	if algorithm == issuance.EdDSA {
		_, private, err = ed25519.GenerateKey(rand.Reader)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if k.PublicKey, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		t.Fatal(err)
	}
	return k, private
}

// authority makes an IACA with its first two CRLs.
func authority(t testing.TB) (Key, []CRL) {
	t.Helper()
	k, private := recorded(t, "iaca-1", wire.PurposeIACA, issuance.ES256)
	der, err := iaca.Create(iaca.Plan{Profile: iaca.Root, Subject: iaca.Name{Country: "UT", CommonName: "Root"}, NotBefore: day, NotAfter: day.AddDate(5, 0, 0),
		ContactEmail: "a@b.example", CRL: "https://b.example/crl"}, nil, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	k.Chain = [][]byte{der}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var lists []CRL
	for number := int64(1); number <= 2; number++ {
		der, err := iaca.CreateCRL(root, private, number, []iaca.Revoked{{Serial: big.NewInt(7), Time: day}}, day, day.AddDate(0, 0, 30))
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, CRL{Issuer: k.Label, Number: number, DER: der, URL: "https://b.example/crl"})
	}
	return k, lists
}

// leaf marshals an entry.
func leaf(t testing.TB, e audit.Entry) []byte {
	t.Helper()
	e.Time = audit.Stamp(day)
	data, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func must(t testing.TB) func(data []byte, err error) []byte {
	return func(data []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
}

func index(i int64) *int64 { return &i }

// history is a log as a signer writes it, one leaf an element.
func history(t testing.TB) [][]byte {
	t.Helper()
	root, lists := authority(t)
	didKey, _ := recorded(t, "did-1", wire.PurposeDID, issuance.ES256)
	didKey.DID, didKey.KeyID, didKey.Document = "did:web:b.example", "did:web:b.example#1", json.RawMessage(`{"id":"one"}`)
	second, _ := recorded(t, "did-2", wire.PurposeDID, issuance.ES256)
	second.DID, second.KeyID, second.Document = didKey.DID, "did:web:b.example#2", json.RawMessage(`{"id":"both"}`)
	checkpoint, _ := recorded(t, "checkpoint-1", wire.PurposeCheckpoint, issuance.EdDSA)
	sealing, _ := recorded(t, "sealing-1", wire.PurposeSealing, hsm.Sealing)
	get := must(t)
	return [][]byte{
		leaf(t, audit.Entry{Kind: audit.KindLogCreated, Subject: "b.example/log"}),
		get(KeyEntry(root, day)), get(KeyEntry(didKey, day)), get(KeyEntry(second, day)), get(KeyEntry(checkpoint, day)), get(KeyEntry(sealing, day)),
		get(CRLEntry(lists[0], day)),
		get(TranscriptEntry(Transcript{Plan: "00", Text: "11", Keys: []string{"iaca-1"}}, day)),
		leaf(t, audit.Entry{Kind: audit.KindSignerStarted, Actor: "signer"}),
		leaf(t, audit.Entry{Kind: audit.KindIntent, Key: "did-1", Hash: "aa"}), // 9
		leaf(t, audit.Entry{Kind: audit.KindIntent, Key: "did-1", Hash: "bb"}),
		leaf(t, audit.Entry{Kind: audit.KindIntent, Key: "did-1", Hash: "cc"}),
		leaf(t, audit.Entry{Kind: audit.KindIntent, Key: "did-1", Hash: "dd"}),
		leaf(t, audit.Entry{Kind: audit.KindMade, Key: "did-1", Hash: "bb", Intent: index(10)}),
		leaf(t, audit.Entry{Kind: audit.KindFailed, Key: "did-1", Hash: "aa", Intent: index(9), Reason: "token-gone"}),
		leaf(t, audit.Entry{Kind: audit.KindRefused, Key: "did-1", Reason: "types"}),
		leaf(t, audit.Entry{Kind: audit.KindTokenDegraded, Reason: "token-gone"}),
		leaf(t, audit.Entry{Kind: audit.KindTokenRecovered}),
		leaf(t, audit.Entry{Kind: "offer.created", Source: "one", Seq: 1}),
		leaf(t, audit.Entry{Kind: "offer.created", Source: "two", Seq: 1}),
		leaf(t, audit.Entry{Kind: "offer.redeemed", Source: "one", Seq: 2}),
		get(CRLEntry(lists[1], day)),
		leaf(t, audit.Entry{Kind: audit.KindAbandoned, Key: "did-1", Hash: "cc", Intent: index(11), Reason: "restart"}),
	}
}

// replayed takes a whole log.
func replayed(t testing.TB, leaves [][]byte) *Registry {
	t.Helper()
	r := New()
	for i, l := range leaves {
		if err := r.Replay(int64(i), l); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	return r
}

func TestReplay(t *testing.T) {
	leaves := history(t)
	r := New()
	var seen []int64
	r.Each = func(i int64, e audit.Entry) { seen = append(seen, i) }
	for i, l := range leaves {
		if err := r.Replay(int64(i), l); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	if r.Origin != "b.example/log" {
		t.Errorf("origin %q", r.Origin)
	}
	if len(seen) != len(leaves) || seen[len(seen)-1] != int64(len(leaves)-1) {
		t.Errorf("Each saw %v", seen)
	}
	var labels []string
	for _, k := range r.Sorted() {
		labels = append(labels, k.Label)
	}
	if got := strings.Join(labels, " "); got != "checkpoint-1 did-1 did-2 iaca-1 sealing-1" {
		t.Errorf("keys %s", got)
	}
	if len(r.Open) != 1 || r.Open[12].Hash != "dd" {
		t.Errorf("open intents %v, want the one at 12", r.Open)
	}
	if r.LastSeq["one"] != 2 || r.LastSeq["two"] != 1 {
		t.Errorf("sequences %v", r.LastSeq)
	}
	if r.CRLs["iaca-1"].Number != 2 {
		t.Errorf("CRL %d, want the newest", r.CRLs["iaca-1"].Number)
	}
	var newest []string
	for _, k := range r.Newest() {
		newest = append(newest, k.Label)
	}
	if want := []string{"sealing-1", "checkpoint-1", "did-2", "did-1", "iaca-1"}; !slices.Equal(newest, want) || r.Keys["did-1"].Created != 2 {
		t.Errorf("the newest first: %v, want %v", newest, want)
	}
	if got := string(r.Documents["did:web:b.example"]); got != `{"id":"both"}` {
		t.Errorf("document %s, want the newest", got)
	}
	refs, err := r.Refs()
	if err != nil || len(refs) != 5 || refs[0].Label != "checkpoint-1" || refs[4].Public != nil || refs[0].Public == nil {
		t.Errorf("%+v, %v", refs, err)
	}
	if leaf, err := r.Keys["iaca-1"].Leaf(); err != nil || leaf.Subject.CommonName != "Root" {
		t.Errorf("leaf %v, %v", leaf, err)
	}
	if leaf, err := r.Keys["did-1"].Leaf(); leaf != nil || err != nil {
		t.Errorf("a key without certificate has %v, %v", leaf, err)
	}
}

// TestReplayRefusals appends one entry that does not fit to a good log
// (promise P7).
func TestReplayRefusals(t *testing.T) {
	leaves := history(t)
	r := replayed(t, leaves)
	root, lists := r.Keys["iaca-1"], []CRL{r.CRLs["iaca-1"]}
	key := func(change func(k *Key)) []byte {
		k, _ := recorded(t, "new", wire.PurposeDID, issuance.ES256)
		change(&k)
		return must(t)(KeyEntry(k, day))
	}
	crl := func(change func(c *CRL)) []byte {
		c := lists[0]
		c.Number++
		change(&c)
		return must(t)(CRLEntry(c, day))
	}
	detail := func(kind audit.Kind, detail string) []byte {
		return leaf(t, audit.Entry{Kind: kind, Detail: json.RawMessage(detail)})
	}
	for name, c := range map[string]struct {
		leaf []byte
		want string
	}{
		"no entry":                         {[]byte("{}"), ""},
		"not JSON":                         {[]byte("x"), ""},
		"a second creation":                {leaf(t, audit.Entry{Kind: audit.KindLogCreated, Subject: "x"}), "begins with"},
		"a kind of a newer version":        {detail("key.retired", `{"label":"did-1"}`), "newer version"},
		"a kind without a dot":             {leaf(t, audit.Entry{Kind: "key"}), "newer version"},
		"an event's kind without a source": {leaf(t, audit.Entry{Kind: "offer.created", Seq: 3}), "newer version"},
		"an event of the signer's kind":    {leaf(t, audit.Entry{Kind: audit.KindMade, Source: "one", Seq: 3, Intent: index(12)}), "signer's own kind"},
		"an event that makes a key":        {leaf(t, audit.Entry{Kind: audit.KindKeyCreated, Source: "one", Seq: 3}), "signer's own kind"},
		"an event twice":                   {leaf(t, audit.Entry{Kind: "offer.created", Source: "one", Seq: 2}), "event 2 of a source follows 2"},
		"a gap in the events":              {leaf(t, audit.Entry{Kind: "offer.created", Source: "one", Seq: 4}), "event 4 of a source follows 2"},
		"a source that begins late":        {leaf(t, audit.Entry{Kind: "offer.created", Source: "three", Seq: 2}), "follows 0"},
		"an outcome without intent":        {leaf(t, audit.Entry{Kind: audit.KindMade, Key: "did-1", Hash: "dd"}), "names no intent"},
		"an outcome of no intent":          {leaf(t, audit.Entry{Kind: audit.KindMade, Key: "did-1", Hash: "dd", Intent: index(3)}), "intent 3"},
		"a second outcome":                 {leaf(t, audit.Entry{Kind: audit.KindMade, Key: "did-1", Hash: "bb", Intent: index(10)}), "intent 10"},
		"an outcome of another hash":       {leaf(t, audit.Entry{Kind: audit.KindFailed, Key: "did-1", Hash: "ee", Intent: index(12)}), "intent 12"},
		"an outcome of another key":        {leaf(t, audit.Entry{Kind: audit.KindAbandoned, Key: "did-2", Hash: "dd", Intent: index(12)}), "intent 12"},
		"a key twice":                      {key(func(k *Key) { k.Label = "did-1" }), "twice"},
		"a key without label":              {key(func(k *Key) { k.Label = "" }), "without label"},
		"a key without CKA_ID":             {key(func(k *Key) { k.ID = nil }), "CKA_ID"},
		"a key without public half":        {key(func(k *Key) { k.PublicKey = nil }), "public key"},
		"a key with half a certificate":    {key(func(k *Key) { k.Chain = [][]byte{root.Chain[0][:40]} }), "certificate"},
		"a key's record with more":         {detail(audit.KindKeyCreated, `{"label":"new","not_after":"2026"}`), "unknown field"},
		"a key's record that is none":      {detail(audit.KindKeyCreated, `[]`), "cannot unmarshal"},
		"a key without record":             {leaf(t, audit.Entry{Kind: audit.KindKeyCreated}), "EOF"},
		"a CRL of nobody":                  {crl(func(c *CRL) { c.Issuer = "iaca-2" }), "no IACA"},
		"a CRL of a signing key":           {crl(func(c *CRL) { c.Issuer = "did-1" }), "no IACA"},
		"a CRL twice":                      {crl(func(c *CRL) { c.Number-- }), "follows 2"},
		"an older CRL":                     {crl(func(c *CRL) { c.Number = 1 }), "follows 2"},
		"a CRL that is none":               {crl(func(c *CRL) { c.DER = []byte{0x30, 0} }), "x509"},
		"a CRL's record with more":         {detail(audit.KindCRLIssued, `{"issuer":"iaca-1","delta":true}`), "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			err := replayed(t, leaves).Replay(int64(len(leaves)), c.leaf)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if err := New().Replay(0, leaves[1]); err == nil || !strings.Contains(err.Error(), "begins with") {
		t.Errorf("a log without its creation: %v", err)
	}
	if err := r.Replay(int64(len(leaves)), key(func(*Key) {})); err != nil {
		t.Errorf("the key without a defect: %v", err)
	}
	if err := r.Replay(int64(len(leaves)), crl(func(*CRL) {})); err != nil {
		t.Errorf("the CRL without a defect: %v", err)
	}
}

func TestSole(t *testing.T) {
	r := replayed(t, history(t))
	if k, err := r.Sole(wire.PurposeSealing); err != nil || k.Label != "sealing-1" {
		t.Errorf("%v, %v", k.Label, err)
	}
	for purpose, want := range map[wire.Purpose]string{wire.PurposeStatus: "there are 0 keys", wire.PurposeDID: "there are 2 keys"} {
		if _, err := r.Sole(purpose); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", purpose, err, want)
		}
	}
}

// TestNotes signs a checkpoint as a token would and checks it, for both kinds of
// key.
func TestNotes(t *testing.T) {
	const origin = "b.example/log"
	for _, algorithm := range []issuance.Algorithm{issuance.EdDSA, issuance.ES256} {
		t.Run(string(algorithm), func(t *testing.T) {
			k, private := recorded(t, "checkpoint-1", wire.PurposeCheckpoint, algorithm)
			r := New()
			r.Origin = origin
			if r.NoteVerifier() != nil {
				t.Error("a verifier without a key")
			}
			if err := r.Replay(1, must(t)(KeyEntry(k, day))); err != nil {
				t.Fatal(err)
			}
			signer, err := r.NoteSigner(func(label string, message []byte) ([]byte, error) {
				if label != "checkpoint-1" {
					t.Errorf("asked for key %q", label)
				}
				return raw(t, private, message), nil
			})
			if err != nil {
				t.Fatal(err)
			}
			signed, err := note.Sign(&note.Note{Text: origin + "\n1\nAAAA\n"}, signer)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := note.Open(signed, note.VerifierList(r.NoteVerifier())); err != nil {
				t.Error(err)
			}
			r.Origin = "another"
			if _, err := note.Open(signed, note.VerifierList(r.NoteVerifier())); err == nil {
				t.Error("a note of another log was taken")
			}
			failing, err := r.NoteSigner(func(string, []byte) ([]byte, error) { return nil, errors.New("gone") })
			if err != nil {
				t.Fatal(err)
			}
			if _, err := note.Sign(&note.Note{Text: "x\n"}, failing); err == nil || !strings.Contains(err.Error(), "gone") {
				t.Errorf("a token that fails: %v", err)
			}
		})
	}
}

// raw signs as the token does: r‖s, or Ed25519's 64 bytes.
func raw(t *testing.T, private crypto.Signer, message []byte) []byte {
	t.Helper()
	key, ec := private.(*ecdsa.PrivateKey)
	if !ec {
		signature, err := private.Sign(nil, message, crypto.Hash(0))
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	digest := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

// TestCheckpointKey refuses a key that no verifier of checkpoints knows.
func TestCheckpointKey(t *testing.T) {
	k, _ := recorded(t, "checkpoint-1", wire.PurposeCheckpoint, issuance.ES256)
	k.Algorithm = issuance.ES384
	r := New()
	r.Origin = "b.example/log"
	if err := r.Replay(1, must(t)(KeyEntry(k, day))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CheckpointKey(); err == nil || !strings.Contains(err.Error(), "ES384") {
		t.Errorf("%v", err)
	}
	if r.NoteVerifier() != nil {
		t.Error("a verifier for it")
	}
	if _, err := r.NoteSigner(nil); err == nil {
		t.Error("a signer for it")
	}
}

// FuzzReplay replays foreign leaves after a good log: whatever is taken leaves a
// registry that the signer can use, and no leaf is taken twice for a key, a CRL,
// an outcome or an event.
func FuzzReplay(f *testing.F) {
	leaves := history(f)
	for _, l := range leaves {
		f.Add(l)
	}
	f.Add([]byte(`{"time":"2026-03-01T00:00:00.000Z","kind":"key.created","key":"new","detail":{"label":"new","purpose":"sealing","algorithm":"A256GCM","cka_id":"AA==","profile":{"formats":null},"attributes":{}}}`))
	f.Add([]byte(`{"time":"2026-03-01T00:00:00.000Z","kind":"signature.made","key":"did-1","hash":"dd","intent":12}`))
	f.Add([]byte(`{"time":"2026-03-01T00:00:00.000Z","kind":"offer.created","source":"one","seq":3}`))
	f.Add([]byte(`{"time":"2026-03-01T00:00:00.000Z","kind":"signature.intent","key":"did-1","hash":"ff"}`))
	start := replayed(f, leaves)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &Registry{Keys: maps.Clone(start.Keys), CRLs: maps.Clone(start.CRLs), Open: maps.Clone(start.Open),
			LastSeq: maps.Clone(start.LastSeq), Documents: maps.Clone(start.Documents)}
		if r.Replay(int64(len(leaves)), data) != nil {
			return
		}
		refs, err := r.Refs()
		if err != nil || len(refs) != len(r.Keys) {
			t.Fatalf("%d keys, %d references, %v", len(r.Keys), len(refs), err)
		}
		for label, k := range r.Keys {
			if label != k.Label || len(k.ID) == 0 {
				t.Fatalf("key %q is recorded as %q", k.Label, label)
			}
		}
		e, err := audit.ParseEntry(data)
		if err != nil {
			t.Fatalf("taken, but no entry: %v", err)
		}
		again := r.Replay(int64(len(leaves)+1), data)
		switch {
		case e.Source != "", e.Kind == audit.KindKeyCreated, e.Kind == audit.KindCRLIssued, e.Intent != nil && strings.HasPrefix(string(e.Kind), "signature.") && e.Kind != audit.KindIntent && e.Kind != audit.KindRefused:
			if again == nil {
				t.Fatalf("taken twice: %s", data)
			}
		}
	})
}
