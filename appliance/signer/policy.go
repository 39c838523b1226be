package signer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"chancery/appliance/audit"
	"chancery/appliance/signer/wire"
	"chancery/issuance"
	"chancery/issuance/domainlinkage"
	"chancery/issuance/mdoc"
	"chancery/issuance/metadata"
	"chancery/issuance/sdjwt"
	"chancery/issuance/w3cvc"
)

const (
	// clockSkew is how far ahead chanceryd's clock may be.
	clockSkew = 60 * time.Second
	// oldestStatement is how long before now a credential may say it was signed:
	// timestamps are cut to whole days so that they do not track the holder.
	oldestStatement = 48 * time.Hour
	// maxItems bounds the signatures of one request.
	maxItems = 128
	// maxTypes bounds the types of one credential.
	maxTypes = 16
)

// parsers read to-be-signed bytes back. A format without one is not signed.
var parsers = map[issuance.Format]func(tbs []byte) (issuance.Statement, error){
	issuance.FormatMdoc:     mdoc.ParseTBS,
	issuance.FormatSDJWT:    sdjwt.ParseTBS,
	issuance.FormatJWTVC:    w3cvc.ParseTBS,
	issuance.FormatMetadata: metadata.ParseTBS,
	issuance.FormatDomain:   domainlinkage.ParseTBS,
}

// purposes says which formats a purpose can sign at all, whatever a profile says.
// A purpose that is not here signs nothing that comes through the socket.
var purposes = map[wire.Purpose][]issuance.Format{
	wire.PurposeDocumentSigner:   {issuance.FormatMdoc},
	wire.PurposeCredentialSigner: {issuance.FormatSDJWT},
	wire.PurposeDID:              {issuance.FormatJWTVC, issuance.FormatSDJWT, issuance.FormatDomain},
	wire.PurposeMetadata:         {issuance.FormatMetadata},
}

// refusal says why something is not signed: a code for the log and a message
// for chanceryd.
type refusal struct {
	code    wire.Code
	reason  string
	message string
	retry   time.Duration
}

func refuse(reason, format string, args ...any) *refusal {
	return &refusal{code: wire.CodeRefused, reason: reason, message: fmt.Sprintf(format, args...)}
}

// order is an item that may be signed.
type order struct {
	item      wire.SignItem
	key       *key
	statement issuance.Statement
	hash      string // SHA-256 of the to-be-signed bytes, hex
}

// judge parses a request's items and holds each against its key. It names the
// item that is refused.
func (c *core) judge(in wire.SignRequest) ([]order, int, *refusal) {
	if len(in.Items) == 0 || len(in.Items) > maxItems {
		return nil, 0, &refusal{code: wire.CodeBadRequest, reason: "items", message: fmt.Sprintf("%d items: 1 to %d are signed at once", len(in.Items), maxItems)}
	}
	if !name(in.Offer, true) || !name(in.Configuration, true) {
		return nil, 0, &refusal{code: wire.CodeBadRequest, reason: "name", message: "offer and configuration must be printable ASCII without spaces"}
	}
	orders := make([]order, len(in.Items))
	for i, item := range in.Items {
		o, r := c.judgeItem(item)
		if r != nil {
			return nil, i, r
		}
		orders[i] = o
	}
	if i, r := c.charge(orders); r != nil {
		return nil, i, r
	}
	return orders, 0, nil
}

// name tells whether a string from chanceryd may stand in the log.
func name(s string, optional bool) bool { return s == "" && optional || wire.IsIdentifier(s) }

func (c *core) judgeItem(item wire.SignItem) (order, *refusal) {
	if !name(item.Credential, false) {
		return order{}, &refusal{code: wire.CodeBadRequest, reason: "name", message: "credential must be an identifier in printable ASCII without spaces"}
	}
	k := c.keys[item.Key]
	if k == nil {
		return order{}, &refusal{code: wire.CodeUnknownKey, reason: "unknown-key", message: "no key has this label"}
	}
	if !slices.Contains(purposes[k.Purpose], item.Format) {
		return order{}, refuse("purpose", "a %s key does not sign %q", k.Purpose, item.Format)
	}
	parse := parsers[item.Format]
	if parse == nil {
		return order{}, refuse("format", "format %q cannot be read, so it is not signed", item.Format)
	}
	statement, err := parse(item.TBS)
	if err != nil {
		return order{}, refuse("unparsable", "the bytes are no %s to be signed: %v", item.Format, err)
	}
	if len(statement.Types) > maxTypes {
		return order{}, refuse("types", "%d types: at most %d are signed", len(statement.Types), maxTypes)
	}
	if r := k.check(statement, c.now()); r != nil {
		return order{}, r
	}
	sum := sha256.Sum256(item.TBS)
	return order{item, k, statement, hex.EncodeToString(sum[:])}, nil
}

// check holds a statement against the key: its profile, its algorithm, what
// names it, and the time.
func (k *key) check(s issuance.Statement, now time.Time) *refusal {
	if err := k.Profile.Check(s); err != nil {
		reason := "profile"
		var outside *issuance.OutsideProfile
		if errors.As(err, &outside) {
			reason += "." + outside.Member
		}
		return refuse(reason, "%v", err)
	}
	if s.Algorithm != k.Algorithm {
		return refuse("algorithm", "the bytes name %s, the key signs %s", s.Algorithm, k.Algorithm)
	}
	if s.KeyID != "" && s.KeyID != k.KeyID {
		return refuse("kid", "kid is not the key's")
	}
	if s.Chain != nil && !slices.EqualFunc(s.Chain, k.Chain, bytes.Equal) {
		return refuse("x5c", "x5c is not the key's chain")
	}
	return k.checkTimes(s, now)
}

func (k *key) checkTimes(s issuance.Statement, now time.Time) *refusal {
	switch {
	case s.Signed.IsZero():
		return refuse("signed", "the bytes do not say when they were signed")
	case s.Signed.After(now.Add(clockSkew)):
		return refuse("signed-in-future", "signed lies in the future: look at the clocks")
	case s.Signed.Before(now.Add(-oldestStatement)):
		return refuse("signed-too-old", "signed lies more than %s back", oldestStatement)
	case !s.ValidUntil.After(now):
		return refuse("expired", "the validity has ended already")
	case s.ValidUntil.After(now.Add(k.Profile.LongestValidity() + clockSkew)):
		return refuse("profile.longest_validity_hours", "the validity ends further away than the key's longest validity")
	}
	if k.leaf == nil {
		return nil
	}
	switch {
	case s.Signed.Before(k.leaf.NotBefore) || s.Signed.After(k.leaf.NotAfter):
		return refuse("certificate-validity", "signed lies outside the certificate's validity")
	case s.ValidUntil.After(k.leaf.NotAfter):
		return refuse("certificate-validity", "the validity ends after the certificate's")
	}
	return nil
}

// charge counts the orders against their keys' rate caps: all or none.
func (c *core) charge(orders []order) (int, *refusal) {
	counts := map[*key]int{}
	first := map[*key]int{}
	var keys []*key
	for i, o := range orders {
		if o.key.rate == nil {
			continue
		}
		if counts[o.key] == 0 {
			first[o.key] = i
			keys = append(keys, o.key)
		}
		counts[o.key]++
	}
	now := c.now()
	c.rates.Lock()
	defer c.rates.Unlock()
	for i, k := range keys {
		wait, ok := k.rate.take(counts[k], now)
		if ok {
			continue
		}
		for _, charged := range keys[:i] {
			charged.rate.giveBack(counts[charged])
		}
		return first[k], &refusal{code: wire.CodeBusy, reason: "rate", retry: wait,
			message: fmt.Sprintf("key %q has made its %d signatures of this minute", k.Label, k.Profile.RatePerMinute)}
	}
	return 0, nil
}

// Refusals are written until they come faster than a person could read them.
const (
	refusalBurst = 60
	refusalPause = time.Second
)

// record writes a refusal to the log, but no more than the limit allows: nobody
// may fill the log with what was not done. What was left out is counted.
func (c *core) record(in wire.SignRequest, index int, r *refusal) error {
	dropped, ok := c.refusals.take(c.now())
	if !ok {
		return nil
	}
	e := audit.Entry{Kind: audit.KindRefused, Actor: "appliance", Reason: r.reason}
	if name(in.Offer, false) && name(in.Configuration, true) {
		e.Offer, e.Configuration = in.Offer, in.Configuration
	}
	if index < len(in.Items) {
		item := in.Items[index]
		if k := c.keys[item.Key]; k != nil {
			e.Key = k.Label
		}
		if name(item.Credential, false) {
			e.Credential = item.Credential
		}
		if parsers[item.Format] != nil {
			e.Format = item.Format
		}
		sum := sha256.Sum256(item.TBS)
		e.Hash = hex.EncodeToString(sum[:])
	}
	if dropped > 0 {
		e.Detail = fmt.Appendf(nil, `{"not_recorded":%d}`, dropped)
	}
	return c.append(e)
}
