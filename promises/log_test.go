package promises

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"chancery/appliance/audit"
)

// auditLog is a stopped appliance's log, verified and read by the shipped tool.
type auditLog struct {
	report audit.Report
	// intents and outcomes are the entries by the hash of what was signed.
	intents, outcomes map[string][]indexed
	entries           []audit.Entry
}

type indexed struct {
	index int64
	audit.Entry
}

// readLog verifies the log of a stopped appliance with "chancery audit verify",
// the checkpoint's public key alone, and reads it with "chancery audit export".
func readLog(t testing.TB, a *appliance) *auditLog {
	t.Helper()
	db := filepath.Join(a.run, "data", "signer.db")
	vkey, err := os.ReadFile(filepath.Join(a.run, "out", "checkpoint.vkey"))
	if err != nil {
		t.Fatal(err)
	}
	l := &auditLog{intents: map[string][]indexed{}, outcomes: map[string][]indexed{}}
	out, status := a.chancery("audit", "verify", "--json", "--vkey", strings.TrimSpace(string(vkey)), db)
	if status != 0 {
		t.Fatalf("audit verify: status %d: %s", status, out)
	}
	if err := json.Unmarshal([]byte(out), &l.report); err != nil {
		t.Fatalf("audit verify --json: %v: %s", err, out)
	}
	out, status = a.chancery("audit", "export", db)
	if status != 0 {
		t.Fatalf("audit export: status %d: %.500s", status, out)
	}
	for line := range strings.Lines(out) {
		e, err := audit.ParseEntry([]byte(strings.TrimSuffix(line, "\n")))
		if err != nil {
			t.Fatalf("entry %d: %v", len(l.entries), err)
		}
		at := indexed{int64(len(l.entries)), e}
		switch e.Kind {
		case audit.KindIntent:
			l.intents[e.Hash] = append(l.intents[e.Hash], at)
		case audit.KindMade:
			l.outcomes[e.Hash] = append(l.outcomes[e.Hash], at)
		}
		l.entries = append(l.entries, e)
	}
	return l
}

// holds demands that each outcome of a credential's bytes follows its own intent
// and names the same credential. There is one, but for a credential that was
// signed again for a wallet that had lost it: where nothing in it is random, the
// bytes are the same.
func (l *auditLog) holds(t testing.TB, c taken) {
	t.Helper()
	hash := signedHash(t, c)
	intents, outcomes := l.intents[hash], l.outcomes[hash]
	if len(outcomes) == 0 || len(intents) < len(outcomes) {
		t.Errorf("a credential of %s has %d intents and %d outcomes in the log", c.configuration, len(intents), len(outcomes))
	}
	if len(intents) > 1 && c.configuration != residence {
		t.Errorf("a credential of %s, which has salts of its own, has %d intents", c.configuration, len(intents))
	}
	for _, outcome := range outcomes {
		named := slices.IndexFunc(intents, func(intent indexed) bool { return outcome.Intent != nil && *outcome.Intent == intent.index })
		if named < 0 || outcome.index <= intents[named].index || intents[named].Configuration != c.configuration || intents[named].Credential != outcome.Credential ||
			outcome.Credential != outcomes[0].Credential {
			t.Errorf("the entry %d does not name the credential of %s", outcome.index, c.configuration)
		}
		if named >= 0 {
			intents = slices.Delete(slices.Clone(intents), named, named+1) // each once
		}
	}
}

// redeemedOnce demands that no offer was redeemed twice.
func (l *auditLog) redeemedOnce(t testing.TB) {
	t.Helper()
	count := map[string]int{}
	for _, e := range l.entries {
		if e.Kind == "offer.redeemed" {
			count[e.Subject]++
		}
	}
	if len(count) == 0 {
		t.Error("the log has no redemptions")
	}
	for offer, n := range count {
		if n != 1 {
			t.Errorf("offer %s was redeemed %d times", offer, n)
		}
	}
}

// signedHash is the SHA-256 of the bytes that a credential's signature covers:
// JWS signing input (RFC 7515 §5.1) or COSE Sig_structure (RFC 9052 §4.4).
func signedHash(t testing.TB, c taken) string {
	t.Helper()
	var signed []byte
	switch c.configuration {
	case mdl, pidMdoc:
		data, err := base64.RawURLEncoding.DecodeString(c.credential)
		if err != nil {
			t.Fatal(err)
		}
		var issuerSigned struct {
			NameSpaces cbor.RawMessage `cbor:"nameSpaces"`
			IssuerAuth []any           `cbor:"issuerAuth"`
		}
		if err := cbor.Unmarshal(data, &issuerSigned); err != nil || len(issuerSigned.IssuerAuth) != 4 {
			t.Fatalf("IssuerSigned: %v", err)
		}
		if signed, err = cbor.Marshal([]any{"Signature1", issuerSigned.IssuerAuth[0], []byte{}, issuerSigned.IssuerAuth[2]}); err != nil {
			t.Fatal(err)
		}
	default:
		jwt, _, _ := strings.Cut(c.credential, "~")
		signed = []byte(jwt[:strings.LastIndex(jwt, ".")])
	}
	sum := sha256.Sum256(signed)
	return hex.EncodeToString(sum[:])
}
