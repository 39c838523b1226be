package signer_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/ceremony"
	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
	"chancery/issuance/iaca"
	"chancery/issuance/mdoc"
)

// state is the signer's state by its own word.
func state(t *testing.T, f *fixture) string {
	t.Helper()
	status, err := f.Sign.Status(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return status.State
}

const later = `
issuer = "https://localhost:8443"
country = "UT"
organization = "Utopia Citizen Services"
contact_email = "credentials@utopia.example"
output = "out-2"

[[keys]]
label = "ds-later"
purpose = "document-signer"
algorithm = "ES256"
under = "iaca-1"
common_name = "Utopia Document Signer, later"
days = 300
[keys.profile]
formats = ["mso_mdoc"]
types = ["org.iso.18013.5.1.mDL"]
longest_validity_hours = 24
`

// plan writes a ceremony's plan beside the configuration.
func plan(t *testing.T, f *fixture, text string) string {
	t.Helper()
	path := filepath.Join(f.Dir, "later.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCeremonyWhilePaused makes a key while the signer has let token and log go,
// and signs with it afterwards.
func TestCeremonyWhilePaused(t *testing.T) {
	f := start(t, signertest.Options{})
	before, err := f.Admin.Identities(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Admin.Pause(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := f.Admin.Pause(soon(t)); err != nil {
		t.Errorf("again, by the same connection: %v", err)
	}
	if got := state(t, f); got != "paused" {
		t.Errorf("state %s", got)
	}
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); code(err) != wire.CodeUnavailable || wire.AsError(err).RetryAfter == 0 {
		t.Errorf("signing meanwhile: %v", err)
	}
	other := wire.NewClient(f.Config.Signer.AdminSocket)
	defer other.Close()
	if err := other.Pause(soon(t)); code(err) != wire.CodeBusy {
		t.Errorf("a second ceremony: %v, want busy", err)
	}
	f.advance(time.Second) // transcripts are named by the second
	if _, err := ceremony.Perform(soon(t), f.Config, plan(t, f, later), f.now()); err != nil {
		t.Fatal(err)
	}
	if err := f.Admin.Resume(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := f.Admin.Resume(soon(t)); err != nil {
		t.Errorf("again: %v", err)
	}
	after, err := f.Admin.Identities(soon(t))
	if err != nil || after.Generation <= before.Generation || len(after.Identities) != len(before.Identities)+1 {
		t.Errorf("generation %d after %d, %d identities, %v", after.Generation, before.Generation, len(after.Identities), err)
	}
	f.read(t)
	in := request(f.mdoc(t, "ds-later", func(r *mdoc.Request) { r.ValidUntil = r.ValidFrom.Add(24 * time.Hour) }))
	out, err := f.Sign.Sign(soon(t), in)
	if err != nil || !f.verifies(t, in.Items[0], out.Results[0].Signature) {
		t.Errorf("the new key: %v", err)
	}
}

// TestPauseDrains pauses while a slow signature is under way: it is made and
// answered first.
func TestPauseDrains(t *testing.T) {
	f := start(t, signertest.Options{Faults: true})
	before := len(f.Entries(t))
	f.Fault.Order(t, "latency C_Sign 700000")
	result := make(chan error, 1)
	in := request(f.mdoc(t, "ds-1", nil))
	go func() {
		_, err := f.Sign.Sign(context.Background(), in)
		result <- err
	}()
	until(t, "an intent", func() bool { return len(f.Entries(t)) > before })
	if err := f.Admin.Pause(soon(t)); err != nil {
		t.Fatal(err)
	}
	// Paused, so the log is closed: the outcome must be in it already.
	if e := f.Entries(t, audit.KindMade); len(e) != 1 {
		t.Errorf("%d outcomes when the pause began", len(e))
	}
	if err := <-result; err != nil {
		t.Errorf("the signature under way: %v", err)
	}
	f.Fault.Order(t)
	if err := f.Admin.Resume(soon(t)); err != nil {
		t.Fatal(err)
	}
}

// pausing opens a connection of its own and pauses by it.
func pausing(t *testing.T, f *fixture) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", f.Config.Signer.AdminSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	var answer wire.Response
	if err := errors.Join(wire.WriteFrame(c, wire.Request{Op: wire.OpPause}), wire.ReadFrame(bufio.NewReader(c), &answer)); err != nil || answer.Error != nil {
		t.Fatal(err, answer.Error)
	}
	return c
}

// TestPauserGone closes the connection that paused, as the death of its process
// does: the signer resumes by itself, but not before the log is free.
func TestPauserGone(t *testing.T) {
	f := start(t, signertest.Options{})
	pausing(t, f).Close()
	until(t, "ready", func() bool { return state(t, f) == "ready" })

	c := pausing(t, f)
	r := registry.New()
	held, err := audit.Open(f.Config.Signer.Database, r.Replay, r.NoteVerifier) // what the ceremony's process has
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Admin.Resume(soon(t)); code(err) != wire.CodeBusy {
		t.Errorf("resuming beside the ceremony: %v, want busy", err)
	}
	c.Close()
	if err := f.Admin.Pause(soon(t)); code(err) != wire.CodeBusy {
		t.Errorf("a second ceremony beside it: %v, want busy", err)
	}
	if got := state(t, f); got != "paused" {
		t.Errorf("state %s", got)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "ready", func() bool { return state(t, f) == "ready" })
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
		t.Error(err)
	}
}

// TestStopWhilePaused ends a paused daemon, with its pauser there or gone.
func TestStopWhilePaused(t *testing.T) {
	f := start(t, signertest.Options{})
	pausing(t, f)
	if err := f.Stop(t); err != nil {
		t.Error(err)
	}
	f.Start(t)
	c := pausing(t, f)
	r := registry.New()
	held, err := audit.Open(f.Config.Signer.Database, r.Replay, r.NoteVerifier)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := f.Stop(t); err != nil {
		t.Errorf("while it waits for the ceremony's process: %v", err)
	}
	held.Close()
}

// edit changes the log's file behind the signer's back.
func edit(t *testing.T, path, statement string, arguments ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	result, err := db.Exec(statement, arguments...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%q changed nothing (%v)", statement, err)
	}
}

// TestChangedLog does not start on a log that was changed, and a paused daemon
// does not resume on one (promise P5, promise P7).
func TestChangedLog(t *testing.T) {
	for name, c := range map[string]struct {
		statement string
		want      error
	}{
		"a changed entry": {`UPDATE entries SET leaf = CAST(replace(CAST(leaf AS TEXT), 'ceremony', 'cerem0ny') AS BLOB) WHERE id = 2`, audit.ErrTampered},
		"a changed hash":  {`UPDATE entries SET hash = zeroblob(32) WHERE id = 3`, audit.ErrTampered},
		"a lost entry":    {`DELETE FROM entries WHERE id = 4`, audit.ErrTampered},
		"lost at the end": {`DELETE FROM entries WHERE id > (SELECT max(id) - 2 FROM entries)`, audit.ErrTampered},
		"another origin":  {`UPDATE meta SET origin = 'somebody.else/log'`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, signertest.Options{})
			if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
				t.Fatal(err)
			}
			if err := f.Admin.Pause(soon(t)); err != nil {
				t.Fatal(err)
			}
			edit(t, f.Config.Signer.Database, c.statement)
			if err := f.Admin.Resume(soon(t)); err == nil {
				t.Error("resumed on a changed log")
			}
			if err := f.Wait(t); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("the daemon ended with %v", err)
			}
			if err := f.TryStart(t); err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("started on a changed log: %v", err)
			}
		})
	}
}

// TestEntryOfAnotherVersion does not start on a log with an entry that this
// program does not understand (promise P7).
func TestEntryOfAnotherVersion(t *testing.T) {
	f := prepare(t, signertest.Options{})
	appendLeaf(t, f, audit.Entry{Kind: "key.retired", Key: "ds-1"})
	if err := f.TryStart(t); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("%v", err)
	}
}

// appendLeaf writes an entry while no daemon runs.
func appendLeaf(t *testing.T, f *fixture, e audit.Entry) {
	t.Helper()
	e.Time = audit.Stamp(f.now())
	leaf, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	r := registry.New()
	log, err := audit.Open(f.Config.Signer.Database, r.Replay, r.NoteVerifier)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(soon(t), leaf); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusesToStart is the table of states that are none to work in.
func TestRefusesToStart(t *testing.T) {
	f := prepare(t, signertest.Options{})
	good := *f.Config
	empty := filepath.Join(f.Dir, "empty.db")
	if err := audit.Create(empty, signertest.Origin, f.now()); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(c *config.Config)
		want   string
	}{
		"no log":              {func(c *config.Config) { c.Signer.Database = filepath.Join(f.Dir, "none.db") }, "chancery-signer init"},
		"a log without keys":  {func(c *config.Config) { c.Signer.Database = empty }, "chancery ceremony"},
		"another log's name":  {func(c *config.Config) { c.Signer.Origin = "another/log" }, "signer.origin"},
		"no module":           {func(c *config.Config) { c.Signer.Module = "/none.so" }, "signer.module"},
		"no credential":       {func(c *config.Config) { c.Signer.PIN = "pin" }, "CREDENTIALS_DIRECTORY"},
		"an unknown user":     {func(c *config.Config) { c.Signer.SignUsers = []string{"no-such-user"} }, "signer.sign_users"},
		"an unknown operator": {func(c *config.Config) { c.Signer.AdminUsers = []string{"no-such-user"} }, "signer.admin_users"},
		"no folder":           {func(c *config.Config) { c.Signer.AdminSocket = filepath.Join(f.Dir, "none", "s") }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := good
			*f.Config = changed
			c.change(f.Config)
			defer func() { *f.Config = good }()
			if err := f.TryStart(t); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	f.Start(t) // none of them has left anything behind
	if err := f.TryAnother(t); err == nil || !errors.Is(err, audit.ErrLocked) {
		t.Errorf("a second daemon on the same log: %v", err)
	}
}

// crl reads the served CRL of the IACA.
func crl(t *testing.T, f *fixture) *x509.RevocationList {
	t.Helper()
	f.read(t)
	list, err := x509.ParseRevocationList(f.ids["iaca-1"].CRL)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCRLRenewal issues the CRL anew when half of its life is over, with what it
// said before, and not earlier.
func TestCRLRenewal(t *testing.T) {
	f := start(t, signertest.Options{}) // 60 days
	root, err := x509.ParseCertificate(f.ids["iaca-1"].Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if got := crl(t, f); got.Number.Int64() != 1 || len(got.RevokedCertificateEntries) != 0 {
		t.Errorf("the ceremony's CRL: %v", got.Number)
	}
	if err := f.Stop(t); err != nil {
		t.Fatal(err)
	}
	revoke(t, f, root, 2)
	f.advance(29 * 24 * time.Hour)
	f.Start(t)
	if got := crl(t, f); got.Number.Int64() != 2 {
		t.Errorf("before half of its life: number %v", got.Number)
	}
	f.advance(2 * 24 * time.Hour)
	f.Restart(t)
	until(t, "the next CRL", func() bool { return crl(t, f).Number.Int64() == 3 })
	next := crl(t, f)
	if err := next.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	if span := next.NextUpdate.Sub(next.ThisUpdate); span != 60*24*time.Hour || next.ThisUpdate.Sub(f.now()).Abs() > time.Minute {
		t.Errorf("from %v for %v", next.ThisUpdate, span)
	}
	if len(next.RevokedCertificateEntries) != 1 || next.RevokedCertificateEntries[0].SerialNumber.Int64() != 4711 {
		t.Errorf("revoked %v: what was revoked stays so", next.RevokedCertificateEntries)
	}
	issued := f.Entries(t, audit.KindCRLIssued)
	if len(issued) != 3 || !bytes.Contains(issued[2].Detail, []byte(`"number":3`)) {
		t.Errorf("%d CRLs in the log", len(issued))
	}
	// The last CRL of a root ends with the root.
	f.advance(time.Until(root.NotAfter) - 31*24*time.Hour - time.Duration(f.ahead.Load()))
	f.Restart(t)
	until(t, "the last CRL", func() bool { return crl(t, f).NextUpdate.Equal(root.NotAfter) })
}

// revoke issues a CRL with one entry, dated like the ceremony's.
func revoke(t *testing.T, f *fixture, root *x509.Certificate, number int64) {
	t.Helper()
	r := registry.New()
	log, err := audit.Open(f.Config.Signer.Database, r.Replay, r.NoteVerifier)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	refs, err := r.Refs()
	if err != nil {
		t.Fatal(err)
	}
	var der []byte
	withToken(t, f, func(token *hsm.Token) {
		if err := token.Load(soon(t), refs); err != nil {
			t.Fatal(err)
		}
		key, err := token.MessageSigner("iaca-1")
		if err != nil {
			t.Fatal(err)
		}
		if der, err = iaca.CreateCRL(root, key, number, []iaca.Revoked{{Serial: big.NewInt(4711), Time: f.now()}}, f.now(), f.now().AddDate(0, 0, 60)); err != nil {
			t.Fatal(err)
		}
	})
	leaf, err := registry.CRLEntry(registry.CRL{Issuer: "iaca-1", Number: number, DER: der, URL: r.CRLs["iaca-1"].URL}, f.now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(soon(t), leaf); err != nil {
		t.Fatal(err)
	}
}

// TestCheckpoints signs the log by the clock, on demand and at the end.
func TestCheckpoints(t *testing.T) {
	f := start(t, signertest.Options{Configure: func(c *config.Config) { c.Signer.CheckpointInterval = config.Duration(100 * time.Millisecond) }})
	if _, err := f.Sign.Sign(soon(t), request(f.mdoc(t, "ds-1", nil))); err != nil {
		t.Fatal(err)
	}
	until(t, "a checkpoint over everything", func() bool {
		status, err := f.Sign.Status(soon(t))
		return err == nil && status.CheckpointSize == status.LogSize && status.LogSize == int64(len(f.Entries(t)))
	})
	f.Restart(t) // the log is held against its checkpoints
	if _, err := f.Sign.Append(soon(t), events("one", 1, 1)); err != nil {
		t.Fatal(err)
	}
	out, err := f.Admin.Checkpoint(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	key := checkpointVerifier(t, f)
	opened, err := audit.OpenCheckpoint(out.Note, key)
	if err != nil || opened.Origin != signertest.Origin || opened.Size != int64(len(f.Entries(t))) {
		t.Errorf("%+v, %v", opened, err)
	}
	if again, err := f.Admin.Checkpoint(soon(t)); err != nil || !bytes.Equal(again.Note, out.Note) {
		t.Errorf("nothing came since, but the note is another one (%v)", err)
	}
	if err := f.Stop(t); err != nil {
		t.Fatal(err)
	}
}

// TestEvidence tells an auditor what token and keys are.
func TestEvidence(t *testing.T) {
	f := start(t, signertest.Options{})
	out, err := f.Admin.Evidence(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	text := string(out.JSON)
	for _, want := range []string{"SoftHSM", `"origin":"` + signertest.Origin + `"`, `"never_extractable":true`, `"label":"iaca-1"`, `"crls":[{"issuer":"iaca-1"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the evidence lacks %s", want)
		}
	}
	if strings.Contains(text, `"sensitive":false`) || strings.Contains(text, `"extractable":true`) {
		t.Error("the evidence has a key that could leave the token")
	}
}
