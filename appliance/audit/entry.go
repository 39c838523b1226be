// Package audit is the log that proves what was signed: a Merkle tree over JSON
// lines in signer.db, with signed checkpoints.
//
// A leaf's bytes are one line of JSON; what is hashed (RFC 6962 §2.1) is what an
// auditor reads. Entries hold no personal data. A checkpoint is a C2SP
// tlog-checkpoint, a signed note, under a key in the token. [Verify], [Prove]
// and [Export] work offline, on a copy of the file, with the public key alone.
//
// signer.db belongs to the signer. Whoever changes it is noticed by [Open] and
// by [Verify], back to the last checkpoint that anybody kept.
package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"chancery/issuance"
)

// Kind names what an entry records, in two parts with a dot between them.
type Kind string

// OfSigner tells whether the kind is one of the signer's own, by its first part.
// The others are of chanceryd's events, which have a source and a number.
func (k Kind) OfSigner() bool {
	first, _, _ := strings.Cut(string(k), ".")
	switch first {
	case "log", "signer", "signature", "key", "crl", "ceremony", "token":
		return true
	}
	return false
}

// The signer's own kinds.
const (
	KindLogCreated     Kind = "log.created"
	KindSignerStarted  Kind = "signer.started"
	KindIntent         Kind = "signature.intent"
	KindMade           Kind = "signature.made"
	KindFailed         Kind = "signature.failed"
	KindAbandoned      Kind = "signature.abandoned"
	KindRefused        Kind = "signature.refused"
	KindKeyCreated     Kind = "key.created"
	KindCRLIssued      Kind = "crl.issued"
	KindCeremony       Kind = "ceremony.transcript"
	KindTokenDegraded  Kind = "token.degraded"
	KindTokenRecovered Kind = "token.recovered"
)

// MaxLeaf is the longest entry in bytes.
const MaxLeaf = 64 << 10

// Entry is one line of the log. Members that do not apply are left out.
type Entry struct {
	// Time is UTC with milliseconds.
	Time string `json:"time"`
	Kind Kind   `json:"kind"`
	// Actor is who caused it: an operator's name, "wallet", "signer", "appliance".
	Actor string `json:"actor,omitempty"`
	// Key is the signing key's label.
	Key string `json:"key,omitempty"`
	// Credential, Offer and Configuration are identifiers in chancery.db.
	Credential    string          `json:"credential,omitempty"`
	Offer         string          `json:"offer,omitempty"`
	Configuration string          `json:"configuration,omitempty"`
	Format        issuance.Format `json:"format,omitempty"`
	Types         []string        `json:"types,omitempty"`
	// ValidUntil is the credential's end of validity.
	ValidUntil string `json:"valid_until,omitempty"`
	// Hash is the SHA-256 of the to-be-signed bytes, hex. The bytes hold salts or
	// random identifiers, so the hash gives no claim away.
	Hash string `json:"hash,omitempty"`
	// Intent is the index of the intent entry that this outcome belongs to.
	Intent *int64 `json:"intent,omitempty"`
	// Reason says why, for refusals and failures: a code, no data.
	Reason string `json:"reason,omitempty"`
	// Subject is what an event of chanceryd is about: an identifier.
	Subject string `json:"subject,omitempty"`
	// Source and Seq number chanceryd's events, for deduplication.
	Source string `json:"source,omitempty"`
	Seq    uint64 `json:"seq,omitempty"`
	// Detail holds a record of the entry's kind, for instance a key's.
	Detail json.RawMessage `json:"detail,omitempty"`
}

const stampLayout = "2006-01-02T15:04:05.000Z"

// Stamp renders a time as entries carry it.
func Stamp(t time.Time) string { return t.UTC().Format(stampLayout) }

// Marshal returns the leaf's bytes. Text that is not UTF-8 is refused: the next
// start would refuse the log.
func (e Entry) Marshal() ([]byte, error) {
	for _, text := range append([]string{e.Time, string(e.Kind), e.Actor, e.Key, e.Credential, e.Offer, e.Configuration,
		string(e.Format), e.ValidUntil, e.Hash, e.Reason, e.Subject, e.Source, string(e.Detail)}, e.Types...) {
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("an entry of kind %q holds text that is not UTF-8", e.Kind)
		}
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	return e.encode()
}

func (e Entry) encode() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return nil, err
	}
	leaf := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(leaf) > MaxLeaf {
		return nil, fmt.Errorf("an entry of %d bytes is longer than %d", len(leaf), MaxLeaf)
	}
	return leaf, nil
}

// check demands what every entry has.
func (e Entry) check() error {
	if e.Kind == "" {
		return errors.New("an entry needs a kind")
	}
	if t, err := time.Parse(stampLayout, e.Time); err != nil || t.Format(stampLayout) != e.Time {
		return fmt.Errorf("an entry's time is like %s, not %q", stampLayout, e.Time)
	}
	if e.Intent != nil && *e.Intent < 0 {
		return errors.New("an entry's intent is an index, from 0")
	}
	return nil
}

// ParseEntry reads a leaf. It refuses what [Entry.Marshal] would not have
// written: unknown or doubled members, another order, white space, further
// lines, a missing time or kind. So two readers cannot read one leaf differently.
func ParseEntry(leaf []byte) (Entry, error) {
	if len(leaf) > MaxLeaf || bytes.IndexByte(leaf, '\n') >= 0 || !utf8.Valid(leaf) {
		return Entry{}, errors.New("an entry is one line of UTF-8")
	}
	e, ok := parsePlain(leaf)
	if !ok {
		e = Entry{}
		if err := json.Unmarshal(leaf, &e); err != nil {
			return Entry{}, err
		}
		if again, err := e.encode(); err != nil || !bytes.Equal(again, leaf) {
			return Entry{}, errors.New("not in the one form in which entries are written")
		}
	}
	if err := e.check(); err != nil {
		return Entry{}, err
	}
	return e, nil
}
