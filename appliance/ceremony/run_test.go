package ceremony_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/ceremony"
	"chancery/appliance/signer"
	"chancery/appliance/signer/registry"
	"chancery/appliance/signer/signertest"
	"chancery/appliance/signer/wire"
	"chancery/config"
	"chancery/hsm"
	"chancery/issuance/iaca"
)

// noon is the time of the tests' ceremonies.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// prepared is the example's ceremony, held at noon; no daemon runs.
func prepared(t *testing.T, o signertest.Options) *signertest.Signer {
	t.Helper()
	o.Now = func() time.Time { return noon }
	return signertest.Prepare(t, o)
}

// head is a further plan without keys.
const head = `issuer = "https://localhost:8443"
country = "UT"
organization = "Utopia Citizen Services"
contact_email = "credentials@utopia.example"
output = "later"
`

// signerKey is a document signer under an IACA.
func signerKey(label, under string, days int) string {
	return fmt.Sprintf(`
[[keys]]
label = %q
purpose = "document-signer"
algorithm = "ES256"
under = %q
common_name = "Utopia Document Signer"
days = %d
[keys.profile]
formats = ["mso_mdoc"]
types = ["org.iso.18013.5.1.mDL"]
longest_validity_hours = 24
`, label, under, days)
}

func didKey(label string) string {
	return fmt.Sprintf("\n[[keys]]\nlabel = %q\npurpose = \"did\"\nalgorithm = \"EdDSA\"\n[keys.profile]\nformats = [\"jwt_vc_json\"]\ntypes = [\"T\"]\nlongest_validity_hours = 24\n", label)
}

// hold writes a plan and carries it out an hour later.
func hold(t *testing.T, s *signertest.Signer, plan string) (*ceremony.Result, error) {
	t.Helper()
	path := filepath.Join(s.Dir, "later.toml")
	if err := os.WriteFile(path, []byte(plan), 0o600); err != nil {
		t.Fatal(err)
	}
	return ceremony.Perform(context.Background(), s.Config, path, noon.Add(time.Hour))
}

// withToken opens the token for a look.
func withToken(t *testing.T, s *signertest.Signer, fn func(token *hsm.Token)) {
	t.Helper()
	cfg, err := signer.TokenConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	token, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	fn(token)
}

// state is everything that a ceremony changes: the token's labels, the log's
// length, the files.
func state(t *testing.T, s *signertest.Signer) (all []string) {
	t.Helper()
	withToken(t, s, func(token *hsm.Token) {
		labels, err := token.Labels()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, labels...)
	})
	all = append(all, fmt.Sprint(len(s.Entries(t)), " entries"))
	for _, dir := range []string{s.Config.Signer.Spool, filepath.Join(s.Dir, "out"), filepath.Join(s.Dir, "later")} {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, f := range files {
			all = append(all, f.Name())
		}
	}
	slices.Sort(all)
	return all
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// keys are the log's key records by label.
func keys(t *testing.T, s *signertest.Signer) map[string]registry.Key {
	t.Helper()
	found := map[string]registry.Key{}
	for _, e := range s.Entries(t, audit.KindKeyCreated) {
		var k registry.Key
		if err := json.Unmarshal(e.Detail, &k); err != nil {
			t.Fatal(err)
		}
		if e.Actor != "ceremony" || e.Key != k.Label {
			t.Errorf("%+v", e)
		}
		found[k.Label] = k
	}
	return found
}

// certificate reads a PEM file with one certificate.
func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(read(t, path))
	if block == nil || len(rest) != 0 || block.Type != "CERTIFICATE" {
		t.Fatalf("%s is not one certificate", path)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestExample holds the example's ceremony and looks at everything it made.
func TestExample(t *testing.T) {
	s := prepared(t, signertest.Options{})
	out := filepath.Join(s.Dir, "out")
	var names []string
	for _, path := range s.Ceremony.Outputs {
		names = append(names, filepath.Base(path))
	}
	want := []string{"checkpoint.vkey", "cs-1.pem", "did-1.did.json", "ds-1.pem", "iaca-1.crl", "iaca-1.pem", "metadata-1.pem", "status-1.pem", "ceremony-20260301T120000Z.txt"}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("outputs %v, want %v", names, want)
	}
	recorded := keys(t, s)
	if len(recorded) != 8 || len(s.Ceremony.Keys) != 8 {
		t.Fatalf("%d keys in the log, %v made", len(recorded), s.Ceremony.Keys)
	}
	root := certificate(t, filepath.Join(out, "iaca-1.pem"))
	profiles := map[string]iaca.Profile{"iaca-1": iaca.Root, "ds-1": iaca.DocumentSigner, "cs-1": iaca.CredentialSigner, "status-1": iaca.StatusSigner, "metadata-1": iaca.MetadataSigner}
	for label, profile := range profiles {
		c, parent := certificate(t, filepath.Join(out, label+".pem")), root
		if label == "iaca-1" {
			parent = nil
		}
		for _, finding := range (iaca.Linter{Profile: profile, Issuer: parent}).Certificate(c.Raw) {
			t.Errorf("%s: %+v", label, finding)
		}
		if !bytes.Equal(recorded[label].Chain[0], c.Raw) || !bytes.Equal(recorded[label].PublicKey, c.RawSubjectPublicKeyInfo) {
			t.Errorf("%s: the log records another certificate or key", label)
		}
		if !c.NotBefore.Equal(noon.Truncate(24*time.Hour)) || c.NotAfter.After(root.NotAfter) {
			t.Errorf("%s: valid %v to %v", label, c.NotBefore, c.NotAfter)
		}
	}
	list, err := x509.ParseRevocationList(read(t, filepath.Join(out, "iaca-1.crl")))
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(root); err != nil || list.Number.Int64() != 1 || !list.NextUpdate.Equal(list.ThisUpdate.AddDate(0, 0, 60)) {
		t.Errorf("CRL %v to %v, %v", list.ThisUpdate, list.NextUpdate, err)
	}
	if got := root.CRLDistributionPoints; len(got) != 1 || got[0] != "https://localhost:8443/crl/iaca-1.crl" {
		t.Errorf("CRL at %v", got)
	}
	did := recorded["did-1"]
	if did.DID != "did:web:localhost%3A8443" || did.Profile.Issuer != did.DID || !bytes.Equal(bytes.TrimSpace(read(t, filepath.Join(out, "did-1.did.json"))), did.Document) {
		t.Errorf("%+v", did)
	}
	checkTranscript(t, s, recorded)
	checkCheckpoint(t, s)
}

// checkTranscript wants the transcript to name everything that was made, to be
// printable, and to be the one that the log has the hash of.
func checkTranscript(t *testing.T, s *signertest.Signer, recorded map[string]registry.Key) {
	t.Helper()
	text := read(t, s.Ceremony.Transcript)
	if string(text) != s.Ceremony.Text {
		t.Error("the transcript in the spool is not the one that was shown")
	}
	entries := s.Entries(t, audit.KindCeremony)
	var record registry.Transcript
	if len(entries) != 1 || json.Unmarshal(entries[0].Detail, &record) != nil {
		t.Fatalf("%d ceremonies in the log", len(entries))
	}
	sum := sha256.Sum256(text)
	if record.Text != hex.EncodeToString(sum[:]) || entries[0].Hash != record.Text || len(record.Keys) != len(recorded) {
		t.Errorf("%+v", record)
	}
	plan, err := filepath.Glob(filepath.Join(s.Dir, "plan-*.toml"))
	if err != nil || len(plan) != 1 {
		t.Fatal(plan, err)
	}
	if sum := sha256.Sum256(read(t, plan[0])); record.Plan != hex.EncodeToString(sum[:]) || !strings.Contains(string(text), record.Plan) {
		t.Error("the transcript names another plan")
	}
	for label, k := range recorded {
		if !strings.Contains(string(text), "KEY "+label+"\n") || !strings.Contains(string(text), hex.EncodeToString(k.ID)) {
			t.Errorf("the transcript lacks key %s or its CKA_ID", label)
		}
	}
	for _, line := range []string{"SoftHSM", "never extractable yes", "wrapping out refused", "CRL of iaca-1", "witness", "2026-03-01T12:00:00Z", signertest.Origin,
		`at most 48 h valid, 0 a minute (0: no cap), issuer "https://localhost:8443"`} {
		if !strings.Contains(string(text), line) {
			t.Errorf("the transcript lacks %q", line)
		}
	}
	for _, r := range string(text) {
		if r != '\n' && (r < ' ' || r > '~') {
			t.Fatalf("%q cannot be printed everywhere", r)
		}
	}
}

// checkCheckpoint wants the log to be signed over everything by the key whose
// public half the ceremony gave out.
func checkCheckpoint(t *testing.T, s *signertest.Signer) {
	t.Helper()
	verifier, err := audit.NewVerifier(string(read(t, filepath.Join(s.Dir, "out", "checkpoint.vkey"))))
	if err != nil {
		t.Fatal(err)
	}
	r := registry.New()
	log, err := audit.Open(s.Config.Signer.Database, r.Replay, r.NoteVerifier)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	note, size := log.LatestCheckpoint()
	if c, err := audit.OpenCheckpoint(note, verifier); err != nil || c.Size != size || size != log.Size() {
		t.Errorf("a checkpoint over %d of %d entries, %v", size, log.Size(), err)
	}
}

// TestKeysInTheToken reads back what the token made: random CKA_IDs, attributes,
// and one object with each label and class.
func TestKeysInTheToken(t *testing.T) {
	s := prepared(t, signertest.Options{})
	recorded := keys(t, s)
	ids := map[string]bool{}
	for label, k := range recorded {
		a := k.Attributes
		if len(k.ID) != 16 || ids[string(k.ID)] || a.Sensitive == nil || !*a.Sensitive || a.NeverExtractable == nil || !*a.NeverExtractable ||
			a.Local == nil || !*a.Local || a.Modifiable == nil || *a.Modifiable || !a.ValueRefused || len(a.WrapRefused) == 0 {
			t.Errorf("%s: CKA_ID %x, %+v", label, k.ID, a)
		}
		ids[string(k.ID)] = true
	}
	withToken(t, s, func(token *hsm.Token) {
		labels, err := token.Labels()
		if err != nil || len(labels) != 7*2+1 { // pairs, and the secret key
			t.Errorf("%v, %v", labels, err)
		}
		var refs []hsm.KeyRef
		for _, k := range recorded {
			ref, err := k.Ref()
			if err != nil {
				t.Fatal(err)
			}
			refs = append(refs, ref)
		}
		if err := token.Load(context.Background(), refs); err != nil {
			t.Error(err)
		}
	})
}

// TestRefusedBeforeAnythingIsMade is the table of plans and places that end the
// ceremony before it begins.
func TestRefusedBeforeAnythingIsMade(t *testing.T) {
	s := prepared(t, signertest.Options{})
	good := *s.Config
	withToken(t, s, func(token *hsm.Token) { // in the token, in no log
		if _, err := token.Generate(context.Background(), hsm.KeySpec{Label: "stray", Algorithm: "ES256"}); err != nil {
			t.Fatal(err)
		}
	})
	for name, c := range map[string]struct {
		plan   string
		change func(c *config.Config)
		file   string // is there already
		want   string
	}{
		"a plan with a fault":            {head + "further = 1\n" + didKey("did-2"), nil, "", "unknown key"},
		"another issuer":                 {strings.Replace(head, "localhost:8443", "localhost", 1) + didKey("did-2"), nil, "", "not the appliance's identifier"},
		"a label in the log":             {head + signerKey("ds-1", "iaca-1", 30), nil, "", "already"},
		"a label in the token":           {head + signerKey("stray", "iaca-1", 30), nil, "", "in the token already"},
		"an unknown IACA":                {head + signerKey("ds-2", "iaca-2", 30), nil, "", "no IACA"},
		"outlasting its IACA":            {head + signerKey("ds-2", "iaca-1", 3286), nil, "", "outlast the IACA"},
		"longer than the profile allows": {head + signerKey("ds-2", "iaca-1", 458), nil, "", "keys[0]: the certificate would not be right"},
		"a country that is none":         {strings.Replace(head, `"UT"`, `"Utopia"`, 1) + signerKey("ds-2", "iaca-1", 30), nil, "", "keys[0]:"},
		"a contact beyond ASCII":         {strings.Replace(head, "credentials@", "büro@", 1) + signerKey("ds-2", "iaca-1", 30), nil, "", "ASCII"},
		"the second key alone":           {head + didKey("did-2") + signerKey("ds-2", "iaca-1", 458), nil, "", "keys[1]:"},
		"an output that exists":          {head + didKey("did-2") + signerKey("ds-2", "iaca-1", 30), nil, "later/ds-2.pem", "nothing is overwritten"},
		"no spool":                       {head + didKey("did-2"), func(c *config.Config) { c.Signer.Spool = filepath.Join(s.Dir, "none") }, "", "no such file"},
		"an output that cannot be made":  {strings.Replace(head, "later", "pin", 1) + didKey("did-2"), nil, "", "pin"},
		"no log":                         {head + didKey("did-2"), func(c *config.Config) { c.Signer.Database = filepath.Join(s.Dir, "none.db") }, "", "chancery-signer init"},
		"another log":                    {head + didKey("did-2"), func(c *config.Config) { c.Signer.Origin = "another/log" }, "", "signer.origin"},
		"no PIN":                         {head + didKey("did-2"), func(c *config.Config) { c.Signer.PIN = filepath.Join(s.Dir, "none") }, "", "signer.pin"},
		"another token":                  {head + didKey("did-2"), func(c *config.Config) { c.Signer.TokenLabel = "another" }, "", "no token with label another"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.file != "" {
				path := filepath.Join(s.Dir, c.file)
				os.Mkdir(filepath.Dir(path), 0o700)
				if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
					t.Fatal(err)
				}
				defer os.Remove(path)
				defer func() {
					if string(read(t, path)) != "precious" {
						t.Error("it was overwritten")
					}
				}()
			}
			before := state(t, s)
			if c.change != nil {
				c.change(s.Config)
			}
			result, err := hold(t, s, c.plan)
			*s.Config = good
			if err == nil || result != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%+v, %v; want %q", result, err, c.want)
			}
			if after := state(t, s); !slices.Equal(after, before) {
				t.Errorf("it left %v where there was %v", after, before)
			}
		})
	}
	if _, err := ceremony.Perform(context.Background(), s.Config, filepath.Join(s.Dir, "no-plan.toml"), noon); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no plan: %v", err)
	}
}

// TestWithinASecond: a further ceremony of the same second has a transcript of its own.
func TestWithinASecond(t *testing.T) {
	s := prepared(t, signertest.Options{})
	path := filepath.Join(s.Dir, "spool", "ceremony-20260301T130000Z.txt")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	result, err := hold(t, s, head+didKey("did-2"))
	if err != nil || !strings.HasSuffix(result.Transcript, "ceremony-20260301T130000Z-2.txt") || string(read(t, result.Transcript)) != result.Text {
		t.Fatalf("%+v, %v", result, err)
	}
	if string(read(t, path)) != "precious" {
		t.Error("the first one was overwritten")
	}
}

// TestBesideTheSigner finds the log in the daemon's hands.
func TestBesideTheSigner(t *testing.T) {
	s := prepared(t, signertest.Options{})
	s.Start(t)
	if _, err := hold(t, s, head+didKey("did-2")); !errors.Is(err, audit.ErrLocked) {
		t.Errorf("%v, want that the log is in use", err)
	}
}

// TestUndone has the token fail at each step: what was made is destroyed, and the
// same plan succeeds afterwards.
func TestUndone(t *testing.T) {
	plan := head + didKey("did-2") + signerKey("ds-2", "iaca-1", 30) + signerKey("ds-3", "iaca-1", 30)
	for name, c := range map[string]struct{ order, want string }{
		"the first key is not made":    {"fail C_GenerateKeyPair 0x6 100 0", "C_GenerateKey"},
		"the third key is not made":    {"fail C_GenerateKeyPair 0x6 100 2", "C_GenerateKey"},
		"the token made it, but fails": {"late C_GenerateKeyPair 0x6 100 1", "C_GenerateKey"},
		"a signature is none":          {"corrupt 100", "bad-signature"},
	} {
		t.Run(name, func(t *testing.T) {
			s := prepared(t, signertest.Options{Faults: true})
			before := state(t, s)
			s.Fault.Order(t, c.order)
			result, err := hold(t, s, plan)
			s.Fault.Order(t)
			if err == nil || result != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%+v, %v; want %q", result, err, c.want)
			}
			if after := state(t, s); !slices.Equal(after, before) {
				t.Errorf("it left %v where there was %v", after, before)
			}
			if result, err := hold(t, s, plan); err != nil || len(result.Keys) != 3 {
				t.Errorf("the same plan afterwards: %+v, %v", result, err)
			}
		})
	}
}

// TestInterrupted is a ceremony whose operator gives up before the first key.
func TestInterrupted(t *testing.T) {
	s := prepared(t, signertest.Options{})
	before := state(t, s)
	path := filepath.Join(s.Dir, "later.toml")
	if err := os.WriteFile(path, []byte(head+didKey("did-2")), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ceremony.Perform(ctx, s.Config, path, noon.Add(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if after := state(t, s); !slices.Equal(after, before) {
		t.Errorf("it left %v where there was %v", after, before)
	}
}

// deps opens token and log as Perform does, so that a test can break one of them.
func deps(t *testing.T, s *signertest.Signer) ceremony.Deps {
	t.Helper()
	r := registry.New()
	log, err := audit.Open(s.Config.Signer.Database, r.Replay, r.NoteVerifier)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	cfg, err := signer.TokenConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	token, err := hsm.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(token.Close)
	refs, err := r.Refs()
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Load(context.Background(), refs); err != nil {
		t.Fatal(err)
	}
	return ceremony.Deps{Token: token, Log: log, Registry: r, Now: noon.Add(time.Hour), Issuer: signertest.Issuer, Spool: s.Config.Signer.Spool}
}

// TestLogFails has the log refuse the ceremony's entries. When it is known that
// nothing was written the keys are destroyed; when it is not they are kept, and
// the operator is told (promise P1).
func TestLogFails(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(t *testing.T, s *signertest.Signer, d ceremony.Deps)
		kept    bool
		want    string
	}{
		"closed": {func(t *testing.T, s *signertest.Signer, d ceremony.Deps) { d.Log.Close() }, false, "closed"},
		"a failed write": {func(t *testing.T, s *signertest.Signer, d ceremony.Deps) {
			db, err := sql.Open("sqlite", "file:"+s.Config.Signer.Database)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec("CREATE TRIGGER broken BEFORE INSERT ON entries BEGIN SELECT raise(ABORT, 'no room'); END"); err != nil {
				t.Fatal(err)
			}
		}, true, "is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			s := prepared(t, signertest.Options{})
			d := deps(t, s)
			c.breakIt(t, s, d)
			path := filepath.Join(s.Dir, "later.toml")
			if err := os.WriteFile(path, []byte(head+didKey("did-2")), 0o600); err != nil {
				t.Fatal(err)
			}
			result, err := ceremony.Run(context.Background(), path, d)
			if err == nil || result != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%+v, %v; want %q", result, err, c.want)
			}
			labels, err := d.Token.Labels()
			if err != nil || slices.Contains(labels, "did-2") != c.kept {
				t.Errorf("%v, %v", labels, err)
			}
			if files, err := os.ReadDir(filepath.Join(s.Dir, "later")); err != nil || len(files) != 0 {
				t.Errorf("%v, %v: nothing may be given out that the log does not have", files, err)
			}
		})
	}
}

// TestNoCheckpoint has the token fail once everything is recorded: the keys stay,
// the outputs are written, the operator is told, and the signer starts.
func TestNoCheckpoint(t *testing.T) {
	s := prepared(t, signertest.Options{Faults: true})
	// Seven proofs of the keys that are there, one of the new key, then the checkpoint.
	s.Fault.Order(t, "fail C_Sign 0x6 100 8")
	result, err := hold(t, s, head+didKey("did-2"))
	s.Fault.Order(t)
	if err == nil || result == nil || !strings.Contains(err.Error(), "made and recorded, but: no checkpoint") {
		t.Fatalf("%+v, %v", result, err)
	}
	if !slices.Equal(result.Keys, []string{"did-2"}) || len(result.Outputs) != 2 || string(read(t, result.Transcript)) != result.Text || result.Text == "" {
		t.Errorf("%+v", result)
	}
	if text := string(read(t, filepath.Join(s.Dir, "later", "did-2.did.json"))); !strings.Contains(text, "did:web:") {
		t.Errorf("%q", text)
	}
	s.Start(t)
	if id := s.Identity(t, "did-2"); !id.Ready {
		t.Errorf("%+v", id)
	}
}

// TestFurtherCeremony makes keys under an earlier ceremony's IACA and beside its
// DID key; the DID's document then has both, and the signer signs with all.
func TestFurtherCeremony(t *testing.T) {
	s := prepared(t, signertest.Options{})
	result, err := hold(t, s, head+"crl_days = 90\n"+signerKey("ds-2", "iaca-1", 457)+didKey("did-2")+didKey("did-0")+`
[[keys]]
label = "iaca-2"
purpose = "iaca"
algorithm = "ES512"
common_name = "Utopia IACA 2"
days = 7300

[[keys]]
label = "iaca-short"
purpose = "iaca"
algorithm = "ES256"
common_name = "Utopia IACA for a month"
days = 31
`+signerKey("ds-3", "iaca-2", 30))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(result.Keys, []string{"ds-2", "did-2", "did-0", "iaca-2", "iaca-short", "ds-3"}) {
		t.Errorf("made %v", result.Keys)
	}
	recorded := keys(t, s)
	if got := slices.Sorted(maps.Keys(recorded)); len(got) != 14 {
		t.Errorf("%v", got)
	}
	for label, root := range map[string]string{"ds-2": "out/iaca-1.pem", "ds-3": "later/iaca-2.pem"} {
		parent := certificate(t, filepath.Join(s.Dir, root))
		c := certificate(t, filepath.Join(s.Dir, "later", label+".pem"))
		if err := c.CheckSignatureFrom(parent); err != nil || recorded[label].Anchor != strings.TrimSuffix(filepath.Base(root), ".pem") {
			t.Errorf("%s: %v, anchor %q", label, err, recorded[label].Anchor)
		}
	}
	list, err := x509.ParseRevocationList(read(t, filepath.Join(s.Dir, "later", "iaca-2.crl")))
	if err != nil || list.NextUpdate.Sub(list.ThisUpdate) != 90*24*time.Hour {
		t.Errorf("the longest CRL: %v, %v", list, err)
	}
	short, err := x509.ParseRevocationList(read(t, filepath.Join(s.Dir, "later", "iaca-short.crl")))
	if root := certificate(t, filepath.Join(s.Dir, "later", "iaca-short.pem")); err != nil || !short.NextUpdate.Equal(root.NotAfter) {
		t.Errorf("a CRL that outlasts its IACA: %v, %v", short, err)
	}
	// The DID's document has every key, the newest first, whatever their labels; a
	// service links it to the host (checks 323, 325).
	document := string(read(t, filepath.Join(s.Dir, "later", "did-0.did.json")))
	var members struct {
		Methods   []struct{ ID string } `json:"verificationMethod"`
		Assertion []string              `json:"assertionMethod"`
	}
	if err := json.Unmarshal([]byte(document), &members); err != nil {
		t.Fatal(err)
	}
	order := []string{recorded["did-0"].KeyID, recorded["did-2"].KeyID, recorded["did-1"].KeyID}
	if !slices.Equal(members.Assertion, order) || len(members.Methods) != 3 || members.Methods[0].ID != order[0] || members.Methods[2].ID != order[2] {
		t.Errorf("%s, want the order %v", document, order)
	}
	if want := `"serviceEndpoint":{"origins":["https://localhost:8443"]},"type":"LinkedDomains"`; !strings.Contains(document, want) {
		t.Errorf("%s lacks %s", document, want)
	}
	s.Start(t)
	if one, two, three := s.Identity(t, "did-1").Created, s.Identity(t, "did-2").Created, s.Identity(t, "did-0").Created; one <= 0 || two <= one || three <= two {
		t.Errorf("created at %d, %d, %d", one, two, three)
	}
	for _, label := range result.Keys {
		if id := s.Identity(t, label); !id.Ready || id.Purpose == wire.PurposeDID && !bytes.Equal(bytes.TrimSpace(id.DIDDocument), bytes.TrimSpace([]byte(document))) {
			t.Errorf("%+v", id)
		}
	}
	if id := s.Identity(t, "did-1"); !bytes.Equal(bytes.TrimSpace(id.DIDDocument), bytes.TrimSpace([]byte(document))) {
		t.Error("the earlier key shows an older document")
	}
	// There is one checkpoint key and one sealing key, for ever.
	if err := s.Stop(t); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"\n[[keys]]\nlabel = \"x\"\npurpose = \"sealing\"\nalgorithm = \"A256GCM\"\n", "\n[[keys]]\nlabel = \"x\"\npurpose = \"checkpoint\"\nalgorithm = \"ES256\"\n"} {
		if _, err := hold(t, s, head+key); err == nil || !strings.Contains(err.Error(), "there is only one") {
			t.Errorf("%v", err)
		}
	}
}
