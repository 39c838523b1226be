package audit

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// BenchmarkAppend compares one durable commit an entry with commits that
// concurrent callers share.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		name := fmt.Sprintf("group-commit/callers=%d", callers)
		if callers == 1 {
			name = "commit-an-entry"
		}
		b.Run(name, func(b *testing.B) {
			l := openLog(b, create(b), newKey(b, "ed25519"))
			data := leaf(b, 1)
			work := make(chan struct{})
			var wait sync.WaitGroup
			for range callers {
				wait.Go(func() {
					for range work {
						if _, err := l.Append(context.Background(), data); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// signatures makes a log of n entries as signing makes them.
func signatures(b *testing.B, k key, n int) string {
	b.Helper()
	path := create(b)
	l := openLog(b, path, k)
	for at := int64(1); at < int64(n); {
		var batch [][]byte
		for range 250 {
			intent := at
			named := Entry{Key: "mdl-ds-2026", Credential: "0198c1f2-7a7b-7c3d-8e4f-a16570867728", Hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
			made := named
			named.Kind, named.Actor, named.Configuration, named.Format, named.Types = KindIntent, "appliance", "mdl", "mso_mdoc", []string{"org.iso.18013.5.1.mDL"}
			made.Kind, made.Actor, made.Intent = KindMade, "signer", &intent
			batch = append(batch, marshal(b, named), marshal(b, made))
			at += 2
		}
		mustAppend(b, l, batch...)
	}
	mustCheckpoint(b, l, k)
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkOpen recomputes the tree, as each start does, and parses each entry.
func BenchmarkOpen(b *testing.B) {
	k := newKey(b, "ed25519")
	path := signatures(b, k, 50_000)
	var entries int64
	for b.Loop() {
		l, err := Open(path, func(_ int64, leaf []byte) error {
			_, err := ParseEntry(leaf)
			return err
		}, func() note.Verifier { return k.verifier(b) })
		if err != nil {
			b.Fatal(err)
		}
		entries += l.Size()
		l.Close()
	}
	b.ReportMetric(float64(entries)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkVerify checks a copy as an auditor does.
func BenchmarkVerify(b *testing.B) {
	k := newKey(b, "ed25519")
	path := signatures(b, k, 50_000)
	var entries int64
	for b.Loop() {
		entries += sound(b, path, k, 50_001).Size
	}
	b.ReportMetric(float64(entries)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkProve makes a proof of one entry and of consistency.
func BenchmarkProve(b *testing.B) {
	k := newKey(b, "ed25519")
	path := signatures(b, k, 50_000)
	kept := newest(b, path)
	for b.Loop() {
		if _, err := Prove(path, k.vkey, Wanted{Match: func(i int64, _ Entry) bool { return i == 12_345 }, Kept: kept}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseEntry reads one entry of a signature.
func BenchmarkParseEntry(b *testing.B) {
	data := marshal(b, Entry{Kind: KindIntent, Actor: "appliance", Key: "mdl-ds-2026", Credential: "0198c1f2-7a7b-7c3d-8e4f-a16570867728", Configuration: "mdl",
		Format: "mso_mdoc", Types: []string{"org.iso.18013.5.1.mDL"}, Hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"})
	for b.Loop() {
		if _, err := ParseEntry(data); err != nil {
			b.Fatal(err)
		}
	}
}
