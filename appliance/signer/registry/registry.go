// Package registry is what the signer knows of its keys: read from the audit
// log alone, so that whoever would change it has to change the log.
package registry

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
	"chancery/hsm"
	"chancery/issuance"
)

// Key is a key's record, the detail of a key.created entry.
type Key struct {
	Label   string       `json:"label"`
	Purpose wire.Purpose `json:"purpose"`
	// Algorithm is a JOSE name, or hsm.Sealing.
	Algorithm issuance.Algorithm `json:"algorithm"`
	// ID is the CKA_ID, PublicKey the SubjectPublicKeyInfo (DER); both pin the key.
	ID        []byte `json:"cka_id"`
	PublicKey []byte `json:"public_key,omitempty"`
	// Chain is the key's certificate and its issuers without the anchor, DER;
	// for an IACA it is the root certificate itself.
	Chain [][]byte `json:"chain,omitempty"`
	// Anchor is the label of the IACA that the chain ends at.
	Anchor string `json:"anchor,omitempty"`
	// DID, KeyID and Document are a DID key's.
	DID      string          `json:"did,omitempty"`
	KeyID    string          `json:"key_id,omitempty"`
	Document json.RawMessage `json:"document,omitempty"`
	// Created is the index of the entry; it is not in the record itself.
	Created int64 `json:"-"`
	// Profile bounds what the key may sign.
	Profile issuance.Profile `json:"profile"`
	// Attributes are the key's as the token told them at the ceremony.
	Attributes hsm.Attributes `json:"attributes"`
}

// CRL is a revocation list's record, the detail of a crl.issued entry.
type CRL struct {
	// Issuer is the IACA key's label.
	Issuer string `json:"issuer"`
	Number int64  `json:"number"`
	DER    []byte `json:"der"`
	// URL is where its distribution point says it is.
	URL string `json:"url,omitempty"`
}

// Transcript is a ceremony's record, the detail of a ceremony.transcript entry.
type Transcript struct {
	// Plan and Text are SHA-256 hashes, hex.
	Plan string   `json:"plan"`
	Text string   `json:"text"`
	Keys []string `json:"keys"`
}

// Ref returns what the token must hold.
func (k Key) Ref() (hsm.KeyRef, error) {
	ref := hsm.KeyRef{Label: k.Label, ID: k.ID, Algorithm: k.Algorithm}
	if k.Algorithm == hsm.Sealing {
		return ref, nil
	}
	public, err := k.Public()
	ref.Public = public
	return ref, err
}

// Public returns the pinned public key.
func (k Key) Public() (crypto.PublicKey, error) {
	public, err := x509.ParsePKIXPublicKey(k.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("key %q: its recorded public key: %w", k.Label, err)
	}
	return public, nil
}

// Leaf returns the key's own certificate, or nil when it has none.
func (k Key) Leaf() (*x509.Certificate, error) {
	if len(k.Chain) == 0 {
		return nil, nil
	}
	return x509.ParseCertificate(k.Chain[0])
}

// Registry holds the keys and CRLs by label. It is not safe for concurrent use.
type Registry struct {
	// Origin is the log's name, from its first entry.
	Origin string
	Keys   map[string]Key
	CRLs   map[string]CRL // by the issuer's label, the newest
	// Open holds intents without outcome, by index.
	Open map[int64]audit.Entry
	// LastSeq is the last event of each source.
	LastSeq map[string]uint64
	// Documents holds each DID's newest document, with all its keys.
	Documents map[string]json.RawMessage
	// Each, when set, sees every entry that Replay takes.
	Each func(index int64, e audit.Entry)
}

// New returns an empty registry.
func New() *Registry {
	return &Registry{Keys: map[string]Key{}, CRLs: map[string]CRL{}, Open: map[int64]audit.Entry{},
		LastSeq: map[string]uint64{}, Documents: map[string]json.RawMessage{}}
}

// Replay takes one entry of the log. It refuses what it does not understand: an
// entry of the signer's own that another version wrote may say that a key must
// not be used any more (promise P7).
func (r *Registry) Replay(index int64, leaf []byte) error {
	e, err := audit.ParseEntry(leaf)
	if err != nil {
		return err
	}
	if (index == 0) != (e.Kind == audit.KindLogCreated) {
		return errors.New("a log begins with the entry of its creation, and has one")
	}
	if r.Each != nil {
		r.Each(index, e)
	}
	if e.Source != "" {
		return r.addEvent(e)
	}
	switch e.Kind {
	case audit.KindKeyCreated:
		var k Key
		if err := strictly(e.Detail, &k); err != nil {
			return fmt.Errorf("a key's record: %w", err)
		}
		k.Created = index
		return r.addKey(k)
	case audit.KindCRLIssued:
		var c CRL
		if err := strictly(e.Detail, &c); err != nil {
			return fmt.Errorf("a CRL's record: %w", err)
		}
		return r.addCRL(c)
	case audit.KindIntent:
		r.Open[index] = e
	case audit.KindMade, audit.KindFailed, audit.KindAbandoned:
		return r.closeIntent(e)
	case audit.KindLogCreated:
		r.Origin = e.Subject
	case audit.KindSignerStarted, audit.KindRefused, audit.KindCeremony, audit.KindTokenDegraded, audit.KindTokenRecovered:
	default:
		return fmt.Errorf("kind %q is not known: a newer version wrote the log, run that one", e.Kind)
	}
	return nil
}

// strictly decodes a record that this version understands whole.
func strictly(data []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return decoder.Decode(v)
}

// own are the first parts of the signer's own kinds; no event may bear them.
var own = map[string]bool{"log": true, "signer": true, "signature": true, "key": true, "crl": true, "ceremony": true, "token": true}

func (r *Registry) addEvent(e audit.Entry) error {
	if prefix, _, _ := strings.Cut(string(e.Kind), "."); own[prefix] {
		return fmt.Errorf("an event of chanceryd's is of the signer's own kind %q", e.Kind)
	}
	if e.Seq != r.LastSeq[e.Source]+1 {
		return fmt.Errorf("event %d of a source follows %d", e.Seq, r.LastSeq[e.Source])
	}
	r.LastSeq[e.Source] = e.Seq
	return nil
}

func (r *Registry) closeIntent(e audit.Entry) error {
	if e.Intent == nil {
		return errors.New("an outcome names no intent")
	}
	intent, open := r.Open[*e.Intent]
	if !open || intent.Key != e.Key || intent.Hash != e.Hash {
		return fmt.Errorf("an outcome names intent %d, which is not open or of another key or hash", *e.Intent)
	}
	delete(r.Open, *e.Intent)
	return nil
}

func (r *Registry) addKey(k Key) error {
	if _, twice := r.Keys[k.Label]; twice || k.Label == "" || len(k.ID) == 0 {
		return fmt.Errorf("key %q is recorded twice, or without label or CKA_ID", k.Label)
	}
	if _, err := k.Ref(); err != nil {
		return err
	}
	if _, err := k.Leaf(); err != nil {
		return fmt.Errorf("key %q: its recorded certificate: %w", k.Label, err)
	}
	r.Keys[k.Label] = k
	if k.DID != "" {
		r.Documents[k.DID] = k.Document
	}
	return nil
}

func (r *Registry) addCRL(c CRL) error {
	if r.Keys[c.Issuer].Purpose != wire.PurposeIACA {
		return fmt.Errorf("a CRL of %q, which is no IACA", c.Issuer)
	}
	if had, has := r.CRLs[c.Issuer]; has && c.Number <= had.Number {
		return fmt.Errorf("CRL %d of %q follows %d", c.Number, c.Issuer, had.Number)
	}
	if _, err := x509.ParseRevocationList(c.DER); err != nil {
		return fmt.Errorf("CRL %d of %q: %w", c.Number, c.Issuer, err)
	}
	r.CRLs[c.Issuer] = c
	return nil
}

// Sole returns the one key of a purpose; more than one, or none, is an error.
func (r *Registry) Sole(p wire.Purpose) (Key, error) {
	var found []Key
	for _, k := range r.Keys {
		if k.Purpose == p {
			found = append(found, k)
		}
	}
	if len(found) != 1 {
		return Key{}, fmt.Errorf("there are %d keys of purpose %s, there must be one: run a ceremony", len(found), p)
	}
	return found[0], nil
}

// Sorted returns the keys by label.
func (r *Registry) Sorted() []Key {
	keys := make([]Key, 0, len(r.Keys))
	for _, k := range r.Keys {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].Label < keys[j].Label })
	return keys
}

// Newest returns the keys, the newest first.
func (r *Registry) Newest() []Key {
	keys := r.Sorted()
	sort.Slice(keys, func(i, j int) bool { return keys[i].Created > keys[j].Created })
	return keys
}

// Refs returns what the token must hold, by label.
func (r *Registry) Refs() ([]hsm.KeyRef, error) {
	var refs []hsm.KeyRef
	for _, k := range r.Sorted() {
		ref, err := k.Ref()
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// KeyEntry returns the log entry that records a key.
func KeyEntry(k Key, now time.Time) ([]byte, error) {
	return entry(audit.Entry{Time: audit.Stamp(now), Kind: audit.KindKeyCreated, Actor: "ceremony", Key: k.Label}, k)
}

// CRLEntry returns the log entry that records a CRL.
func CRLEntry(c CRL, now time.Time) ([]byte, error) {
	return entry(audit.Entry{Time: audit.Stamp(now), Kind: audit.KindCRLIssued, Actor: "signer", Key: c.Issuer}, c)
}

// TranscriptEntry returns the log entry that records a ceremony.
func TranscriptEntry(t Transcript, now time.Time) ([]byte, error) {
	return entry(audit.Entry{Time: audit.Stamp(now), Kind: audit.KindCeremony, Actor: "ceremony", Hash: t.Text}, t)
}

func entry(e audit.Entry, detail any) ([]byte, error) {
	data, err := json.Marshal(detail)
	if err != nil {
		return nil, err
	}
	e.Detail = data
	return e.Marshal()
}
