package promises

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
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

// holds demands one intent and, after it, one outcome for a credential.
func (l *auditLog) holds(t testing.TB, c taken) {
	t.Helper()
	hash := signedHash(t, c)
	intents, outcomes := l.intents[hash], l.outcomes[hash]
	if len(intents) != 1 || len(outcomes) != 1 {
		t.Errorf("a credential of %s has %d intents and %d outcomes in the log, not one each", c.configuration, len(intents), len(outcomes))
		return
	}
	intent, outcome := intents[0], outcomes[0]
	if outcome.Intent == nil || *outcome.Intent != intent.index || outcome.index <= intent.index || intent.Configuration != c.configuration || intent.Credential != outcome.Credential {
		t.Errorf("the entries %d and %d do not name the credential of %s", intent.index, outcome.index, c.configuration)
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
