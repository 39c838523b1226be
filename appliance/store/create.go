package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"chancery/appliance/database"
)

// NewOffer is what an offer is made of.
type NewOffer struct {
	// Configurations are ids, 1 to [MaxConfigurations], without repetition.
	Configurations []string
	// Claims is a JSON document; the caller has checked it.
	Claims []byte
	// TxCode asks for a transaction code; InputMode and Length must be set.
	TxCode    *TxCode
	ExpiresAt time.Time
	// CreatedBy is the operator's name.
	CreatedBy string
	// RequiredClient is the client_id that must redeem the code; "" for any.
	RequiredClient string
	// ClientAuthentication asks that the client which redeems has authenticated.
	ClientAuthentication bool
}

// Created is a new offer with its secrets, which are given out this once.
type Created struct {
	Offer
	// Code is the pre-authorized code.
	Code string
	// URISecret is the unguessable part of the offer's URI ([Store.Fetch]).
	URISecret string
	// TransactionCode is empty when the offer has none.
	TransactionCode string
}

// check refuses what the caller should have refused.
func (n NewOffer) check() error {
	if len(n.Configurations) == 0 || len(n.Configurations) > MaxConfigurations {
		return fmt.Errorf("an offer names 1 to %d configurations, not %d", MaxConfigurations, len(n.Configurations))
	}
	seen := map[string]bool{}
	for _, id := range n.Configurations {
		if seen[id] {
			return errors.New("an offer names each configuration once")
		}
		seen[id] = true
	}
	if n.TxCode != nil && (n.TxCode.Length < 1 || n.TxCode.Length > 64 || n.TxCode.InputMode != "numeric" && n.TxCode.InputMode != "text") {
		return errors.New("a transaction code needs a length and the input mode numeric or text")
	}
	return nil
}

// CreateOffer seals the claims and records a new offer. The error wraps
// [ErrKeyAway] when no data key is open and the token is away.
func (s *Store) CreateOffer(ctx context.Context, n NewOffer) (Created, error) {
	if err := n.check(); err != nil {
		return Created{}, err
	}
	epoch, err := s.currentEpoch(ctx)
	if err != nil {
		return Created{}, err
	}
	id := s.nextOffer.Add(1)
	uuid, err := newUUID(id)
	if err != nil {
		return Created{}, err
	}
	uri, err := newSecret()
	if err != nil {
		return Created{}, err
	}
	now := s.now().UTC()
	code := codeOf(uri)
	c := Created{Code: opaque(id, code), URISecret: opaque(id, uri), Offer: Offer{
		ID: formatUUID(uuid[:]), Configurations: n.Configurations, State: Made, CreatedAt: now.Truncate(time.Millisecond),
		ExpiresAt: n.ExpiresAt.UTC().Truncate(time.Millisecond), CreatedBy: n.CreatedBy, TxCode: n.TxCode,
		RequiredClient: n.RequiredClient, ClientAuthentication: n.ClientAuthentication,
	}}
	var txCode, txMAC any
	if n.TxCode != nil {
		alphabet := numericAlphabet
		if n.TxCode.InputMode == "text" {
			alphabet = textAlphabet
		}
		if c.TransactionCode, err = newTransactionCode(alphabet, n.TxCode.Length); err != nil {
			return Created{}, err
		}
		shape, err := json.Marshal(n.TxCode)
		if err != nil {
			return Created{}, err
		}
		txCode, txMAC = string(shape), epoch.transactionMAC(uuid[:], c.TransactionCode)
		c.AttemptsLeft = s.options.Attempts
	}
	wrapped, sealed, err := epoch.seal(uuid, n.Claims)
	if err != nil {
		return Created{}, err
	}
	configurations, err := json.Marshal(n.Configurations)
	if err != nil {
		return Created{}, err
	}
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		made, err := tx.Exec(`INSERT INTO offers (id, uuid, state, configurations, created_at, expires_at, created_by, due_at, code_hash, tx_code, tx_mac, attempts_left,
				required_client, client_authentication, epoch) SELECT ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, id FROM epochs WHERE id = ?`, id, uuid[:], string(configurations), millis(now), millis(c.ExpiresAt), n.CreatedBy,
			millis(c.ExpiresAt), code.hash(), txCode, txMAC, c.AttemptsLeft, n.RequiredClient, n.ClientAuthentication, epoch.id)
		if err != nil {
			return err
		}
		if made != 1 { // the key is deleted: nobody could open the claims
			return fmt.Errorf("epoch %d was retired meanwhile: %w", epoch.id, ErrKeyAway)
		}
		if err := putKey(tx, id, wrapped); err != nil {
			return err
		}
		if _, err := tx.Exec("INSERT INTO claims (offer, sealed) VALUES (?, ?)", id, sealed); err != nil {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "offer.created", Actor: n.CreatedBy, Subject: c.ID})
	})
	if err != nil {
		return Created{}, err
	}
	s.outbox.wake()
	return c, nil
}
