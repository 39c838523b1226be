package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chancery/appliance/database"
)

// Operator is somebody who may use the admin API.
type Operator struct {
	Name      string
	CreatedAt time.Time
	// LastUsedAt is exact to a few minutes; zero when never.
	LastUsedAt time.Time
	// RevokedAt is zero while the token is valid.
	RevokedAt time.Time
}

// operatorPrefix tells an operator's token from other secrets, for scanners
// that look for leaked ones.
const operatorPrefix = "chancery_op_"

// operatorCache is how long a token that was right is not looked up again; a
// revocation by another process takes as long.
const operatorCache = time.Second

// lastUsedStep is how stale LastUsedAt may be; a use after it is also an event.
const lastUsedStep = 15 * time.Minute

type cachedOperator struct {
	operator Operator
	until    time.Time
}

// reserved are actors of the audit log that no operator may be taken for.
var reserved = []string{"appliance", "ceremony", "signer", "unknown", "wallet"}

// checkName refuses what would mislead in the audit log, or be refused by it.
func checkName(name string) error {
	odd := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == utf8.RuneError }
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("%q is no operator's name: use 1 to 64 bytes of printable characters without spaces", name)
	}
	if slices.Contains(reserved, strings.ToLower(name)) {
		return fmt.Errorf("%s is no operator's name: the audit log uses it for something else", name)
	}
	return nil
}

// CreateOperatorToken adds an operator and returns the token, which is stored
// hashed and cannot be shown again. actor is who did it. [ErrExists] when there
// is an operator of that name, revoked or not: names in the audit log stay one
// person's.
func (s *Store) CreateOperatorToken(ctx context.Context, name, actor string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	token, err := newSecret()
	if err != nil {
		return "", err
	}
	now := s.now()
	var id int64
	err = s.db.Write(ctx, func(tx *database.Tx) error {
		var n int64
		if _, err := tx.Row("SELECT count(*) FROM operators WHERE name = ?", []any{name}, []any{&n}); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("operator %s: %w", name, ErrExists)
		}
		if id, err = tx.Insert("INSERT INTO operators (name, token_hash, created_at) VALUES (?, ?, ?)", name, token.hash(), millis(now)); err != nil {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "operator.added", Actor: actor, Subject: name})
	})
	if err != nil {
		return "", err
	}
	return operatorPrefix + opaque(id, token), nil
}

// OperatorByToken returns the operator whose token it is, or [ErrToken]. The
// first use in a while is an event, "operator.login".
func (s *Store) OperatorByToken(ctx context.Context, token string) (Operator, error) {
	plain, ok := strings.CutPrefix(token, operatorPrefix)
	id, secret, isOpaque := parseOpaque(plain)
	if !ok || !isOpaque {
		return Operator{}, ErrToken
	}
	now, key := s.now(), sha256.Sum256([]byte(plain))
	s.operatorsMu.Lock()
	cached, hit := s.operators[key]
	s.operatorsMu.Unlock()
	if hit && now.Before(cached.until) {
		return cached.operator, nil
	}
	var (
		o                      Operator
		hash                   []byte
		created, used, revoked int64
		found                  bool
	)
	err := s.db.Read(ctx, func(r *database.Reader) (err error) {
		found, err = r.Row("SELECT name, token_hash, created_at, last_used_at, revoked_at FROM operators WHERE id = ?", []any{id}, []any{&o.Name, &hash, &created, &used, &revoked})
		return err
	})
	if err != nil {
		return Operator{}, err
	}
	if !found || !same(hash, secret.hash()) || revoked != 0 {
		return Operator{}, ErrToken
	}
	o.CreatedAt, o.LastUsedAt = timeOf(created), timeOf(used)
	if now.Sub(o.LastUsedAt) >= lastUsedStep {
		if err := s.noteUse(ctx, id, o.Name, now); err != nil {
			return Operator{}, err
		}
	}
	s.operatorsMu.Lock()
	defer s.operatorsMu.Unlock()
	for k, c := range s.operators {
		if !now.Before(c.until) {
			delete(s.operators, k)
		}
	}
	s.operators[key] = cachedOperator{o, now.Add(operatorCache)}
	return o, nil
}

func (s *Store) noteUse(ctx context.Context, id int64, name string, now time.Time) error {
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		n, err := tx.Exec("UPDATE operators SET last_used_at = ? WHERE id = ? AND revoked_at = 0 AND last_used_at <= ?", millis(now), id, millis(now.Add(-lastUsedStep)))
		if err != nil || n == 0 {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "operator.login", Actor: name, Subject: name})
	})
	s.outbox.wake()
	return err
}

// Operators lists everybody, by name.
func (s *Store) Operators(ctx context.Context) (list []Operator, err error) {
	err = s.db.Read(ctx, func(r *database.Reader) error {
		return r.Rows("SELECT name, created_at, last_used_at, revoked_at FROM operators ORDER BY name", nil, func(scan func(...any) error) error {
			var o Operator
			var created, used, revoked int64
			err := scan(&o.Name, &created, &used, &revoked)
			o.CreatedAt, o.LastUsedAt, o.RevokedAt = timeOf(created), timeOf(used), timeOf(revoked)
			list = append(list, o)
			return err
		})
	})
	return list, err
}

// RevokeOperator makes an operator's token invalid; [ErrNotFound] when there is
// none of that name, [ErrState] when it is revoked already.
func (s *Store) RevokeOperator(ctx context.Context, name, actor string) error {
	now := s.now()
	err := s.db.Write(ctx, func(tx *database.Tx) error {
		var revoked int64
		found, err := tx.Row("SELECT revoked_at FROM operators WHERE name = ?", []any{name}, []any{&revoked})
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("operator %s: %w", name, ErrNotFound)
		case revoked != 0:
			return fmt.Errorf("operator %s: %w", name, ErrState)
		}
		if _, err := tx.Exec("UPDATE operators SET revoked_at = ?, token_hash = zeroblob(32) WHERE name = ?", millis(now), name); err != nil {
			return err
		}
		return s.record(tx, Event{Time: now, Kind: "operator.revoked", Actor: actor, Subject: name})
	})
	if err == nil {
		s.operatorsMu.Lock()
		clear(s.operators)
		s.operatorsMu.Unlock()
		s.outbox.wake()
	}
	return err
}
