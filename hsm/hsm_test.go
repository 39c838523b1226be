package hsm

// What tokens do, and the tests that show it does no harm. A test that is part of
// the suite (suite_test.go, suite_faults_test.go) runs on every token of
// tokens_test.go.
//
//	sessions die, handles stay invalid          suite: faults heal inside; TestRetryIsOneRetry, TestFaultsHealInside
//	a logged-out session shows no private key   TestALoggedOutSessionFindsNothing
//	a session that saw an error is poisoned     TestASpoiledSessionIsClosed
//	the token goes away and comes back          suite: gone and back; TestRemoteProcessDies, TestTPMPowerFailure
//	attempts to find it follow one another      TestPausesOfTheSearch, TestAnUnsteadyTokenIsLeftInPeace
//	repeated logins lock the PIN                suite: one login a generation, a refused PIN; TestLoginsAreNotSpent, TestTPMWrongPIN
//	a second open proves no PIN                 TestSecondOpenInAProcessIsRefused, TestAnotherLibraryIsNotOpenBeside
//	C_Finalize beside a call crashes            suite: never side by side; TestCloseWaitsForWhatIsOut
//	finding beside generating breaks it         suite: never side by side
//	a call hangs and cannot be cancelled        TestAHungCallIsReported, TestAHungCallEndsTheProcess, TestACallerIsLetGo
//	the token is slow, callers pile up          TestQueueIsBounded, TestQueueIsFirstInFirstOut; suite: serial device
//	the device has few sessions                 suite: session cap
//	stranger's keys, duplicate label or CKA_ID  suite: strangers, keys; TestWrongKindOfKey
//	a "digest" of any length is signed          suite: keys (no digest is taken); TestMessageSigner
//	corrupted signatures are passed on          suite: bad signatures
//	attributes are not as told                  suite: attributes; TestEveryAttributeCounts, TestKeysThatMayLeave
//	keys can be wrapped out, LOCAL is not set   TestNSSIsRefused, TestKeysThatMayLeave
//	half-made keys stay behind                  TestNothingIsLeftOfAFailedGeneration; suite: what it cannot do
//	new keys are not on disk                    TestTheDirectoryIsSynced
//	Ed25519 has no constants in the binding     suite: keys, on tokens that have it
//	a text that does not open looks like an     TestUnsealTellsGarbageFromATokenThatFails
//	  error of the device
//	three calls where two do                    suite: two calls for each signature; BenchmarkSign
//	another library sees another token          suite: a second opinion; TestTheirHabitsAreRefused

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chancery/hsm/hsmtest"
	"chancery/issuance"
)

func pin() ([]byte, error) { return []byte(hsmtest.PIN), nil }

// config makes a SoftHSM token and returns how to open it.
func config(t testing.TB) Config {
	t.Helper()
	dir := hsmtest.SoftHSM(t)
	return Config{Module: hsmtest.Module(t), TokenLabel: hsmtest.Label, PIN: pin, Sessions: 2, SyncDirectory: dir}
}

func openToken(t testing.TB, cfg Config) *Token {
	t.Helper()
	token, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(token.Close)
	return token
}

func generateKey(t testing.TB, token *Token, label string, a issuance.Algorithm) KeyRecord {
	t.Helper()
	record, err := token.Generate(context.Background(), KeySpec{label, a})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

var keysMade atomic.Int64

// newLabel is a label that no other test has used in this process.
func newLabel() string { return fmt.Sprintf("key %d", keysMade.Add(1)) }

// throughFaults opens a token through the fault module and makes a key in it.
func throughFaults(t testing.TB, cfg Config, change func(c *Config)) (token *Token, fault *hsmtest.Fault, label string) {
	t.Helper()
	fault = hsmtest.WithFaults(t, cfg.Module)
	cfg.Module = fault.Module
	if change != nil {
		change(&cfg)
	}
	token = openToken(t, cfg)
	return token, fault, generateKey(t, token, newLabel(), issuance.ES256).Label
}

// faulty is throughFaults with a SoftHSM token of its own.
func faulty(t testing.TB, change func(c *Config)) (*Token, *hsmtest.Fault, string) {
	t.Helper()
	return throughFaults(t, config(t), change)
}

// sign demands a signature.
func sign(t testing.TB, token *Token, label string) {
	t.Helper()
	if _, err := token.Sign(context.Background(), label, []byte("message")); err != nil {
		t.Fatal(err)
	}
}

// refuses demands that a signature fails with a class.
func refuses(t testing.TB, token *Token, label string, want Class) {
	t.Helper()
	_, err := token.Sign(context.Background(), label, []byte("message"))
	wantClass(t, err, want)
}

func wantClass(t testing.TB, err error, want Class) {
	t.Helper()
	if ClassOf(err) != want {
		t.Errorf("error %v has class %q, want %q", err, ClassOf(err), want)
	}
}

// verifies is a check of its own: it shares nothing with what it checks.
func verifies(public crypto.PublicKey, a issuance.Algorithm, message, signature []byte) bool {
	if key, ok := public.(ed25519.PublicKey); ok {
		return ed25519.Verify(key, message, signature)
	}
	digest := a.Hash().New()
	digest.Write(message)
	n := len(signature) / 2
	return ecdsa.Verify(public.(*ecdsa.PublicKey), digest.Sum(nil), new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
}

// notices collects what the token told its owner.
type notices struct {
	mu   sync.Mutex
	seen []Class
}

func (n *notices) add(c Class) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, c)
}

func (n *notices) all() []Class {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]Class(nil), n.seen...)
}

// until polls with a test's patience.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 600 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("not within patience: " + what)
}

// callIsOut waits until a call of the module is out.
func callIsOut(t testing.TB, token *Token) {
	t.Helper()
	until(t, "a call is out", func() bool { _, out := token.overdue(0); return out })
}
