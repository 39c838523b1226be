package store

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func (f *fixture) operator(name string) string {
	f.t.Helper()
	token, err := f.CreateOperatorToken(context.Background(), name, "console")
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// TestOperators takes an operator's token through its life.
func TestOperators(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	token := f.operator("registrar")
	if !strings.HasPrefix(token, operatorPrefix) || len(token) != len(operatorPrefix)+opaqueLength {
		t.Errorf("a token of %d characters", len(token))
	}
	created := f.clock.Now()
	f.clock.pass(time.Minute)
	o, err := f.OperatorByToken(ctx, token)
	if err != nil || o.Name != "registrar" || !o.CreatedAt.Equal(created) || !o.RevokedAt.IsZero() {
		t.Errorf("%+v, %v", o, err)
	}
	if err := f.RevokeOperator(ctx, "registrar", "console"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.OperatorByToken(ctx, token); !errors.Is(err, ErrToken) {
		t.Errorf("a revoked token: %v", err)
	}
	for want, err := range map[error]error{
		ErrState:    f.RevokeOperator(ctx, "registrar", "console"),
		ErrNotFound: f.RevokeOperator(ctx, "nobody", "console"),
		ErrExists:   func() error { _, err := f.CreateOperatorToken(ctx, "registrar", "console"); return err }(),
	} {
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	f.restart()
	if _, err := f.OperatorByToken(ctx, token); !errors.Is(err, ErrToken) {
		t.Errorf("a revoked token after a restart: %v", err)
	}
	if n := f.ask("SELECT count(*) FROM operators WHERE token_hash = zeroblob(32)"); n != 1 {
		t.Error("the revoked token's hash is still there")
	}
	archivist := f.operator("archivist")
	f.tamper("UPDATE operators SET revoked_at = 1 WHERE name = 'archivist'") // its hash is there
	if _, err := f.OperatorByToken(ctx, archivist); !errors.Is(err, ErrToken) {
		t.Errorf("a revoked token: %v", err)
	}
	list, err := f.Operators(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "archivist" || list[1].Name != "registrar" || list[1].RevokedAt.IsZero() || !list[1].LastUsedAt.Equal(created.Add(time.Minute)) {
		t.Errorf("%+v, %v", list, err)
	}
	f.drain()
	kinds := f.log.kinds("registrar")
	if kinds["operator.added"] != 1 || kinds["operator.login"] != 1 || kinds["operator.revoked"] != 1 || len(kinds) != 3 {
		t.Errorf("events: %v", kinds)
	}
}

// TestOperatorNames refuses what the audit log would refuse, or would show as
// somebody else's doing.
func TestOperatorNames(t *testing.T) {
	f := open(t)
	for _, name := range []string{"", strings.Repeat("x", 65), "a b", "a\tb", "a\u00a0b", "a\u2028b", "a\u202eb", "a\x00", "a\x7f", "a\xff", "\ufffd", "wallet", "appliance", "Signer", "ceremony", "unknown"} {
		if _, err := f.CreateOperatorToken(context.Background(), name, "console"); err == nil {
			t.Errorf("%q is an operator", name)
		}
	}
	for _, name := range []string{"a", "Žofie", "registry@example.org", "山田", strings.Repeat("x", 64), "wallets"} {
		f.operator(name)
	}
	if n := f.ask("SELECT count(*) FROM operators"); n != 6 {
		t.Errorf("%d operators", n)
	}
}

// TestOperatorTokens gives what is no operator's token.
func TestOperatorTokens(t *testing.T) {
	f := open(t)
	c := f.create(0)
	token := f.operator("registrar")
	for name, wrong := range map[string]string{
		"nothing": "", "the prefix": operatorPrefix, "without the prefix": strings.TrimPrefix(token, operatorPrefix), "more": token + "A",
		"twice the prefix": operatorPrefix + token, "another row": operatorPrefix + opaque(99, secret{}), "another secret": token[:len(operatorPrefix)+8] + strings.Repeat("A", 32),
		"an access token": operatorPrefix + f.redeem(c), "a code": operatorPrefix + c.Code,
	} {
		if _, err := f.OperatorByToken(context.Background(), wrong); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.OperatorByToken(context.Background(), token); err != nil {
		t.Error(err)
	}
}

// TestLogins holds that the first use in a while is an event, however many
// requests come at once, and that the database is not written at every request.
func TestLogins(t *testing.T) {
	f := open(t)
	token := f.operator("registrar")
	logins := func() int {
		f.drain()
		return f.log.kinds("registrar")["operator.login"]
	}
	use := func() {
		t.Helper()
		count(t, f.race(16, func(int) error {
			_, err := f.OperatorByToken(context.Background(), token)
			return err
		}), nil)
	}
	use()
	use()
	if n := logins(); n != 1 {
		t.Errorf("%d log-ins, want 1", n)
	}
	f.clock.pass(lastUsedStep - time.Second)
	use()
	if n := logins(); n != 1 {
		t.Errorf("%d log-ins before the step, want 1", n)
	}
	f.clock.pass(time.Second)
	use()
	if n := logins(); n != 2 {
		t.Errorf("%d log-ins after the step, want 2", n)
	}
	if len(f.operators) != 1 {
		t.Errorf("%d tokens are remembered", len(f.operators))
	}
}

// TestASecondProcess adds and revokes an operator beside the daemon, as the
// command line does: it takes a second at most, and the events reach the log.
func TestASecondProcess(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	second, err := Open(f.path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	token, err := second.CreateOperatorToken(ctx, "registrar", "root")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.OperatorByToken(ctx, token); err != nil {
		t.Errorf("an operator of another process: %v", err)
	}
	if err := second.RevokeOperator(ctx, "registrar", "root"); err != nil {
		t.Fatal(err)
	}
	f.clock.pass(operatorCache)
	if _, err := f.OperatorByToken(ctx, token); !errors.Is(err, ErrToken) {
		t.Errorf("revoked by another process: %v", err)
	}
	f.drain()
	f.wantLog()
	if kinds := f.log.kinds("registrar"); kinds["operator.added"] != 1 || kinds["operator.revoked"] != 1 {
		t.Errorf("events: %v", kinds)
	}
}
