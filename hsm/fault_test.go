package hsm

import (
	"context"
	"testing"

	"github.com/miekg/pkcs11"

	"chancery/issuance"
)

// TestFaultsHealInside is the long table of what a caller never notices: the
// token is opened anew and the signature made.
func TestFaultsHealInside(t *testing.T) {
	token, fault, key := faulty(t, nil)
	token.pauses.brief = 0 // no number of losses makes this token unsteady
	for name, orders := range map[string][]string{
		"session closed at init":             {"fail C_SignInit 0xB0 1 0"},
		"session handle invalid at sign":     {"fail C_Sign 0xB3 1 0"},
		"object handle invalid":              {"fail C_SignInit 0x82 1 0"},
		"key handle invalid":                 {"fail C_SignInit 0x60 1 0"},
		"user not logged in":                 {"fail C_SignInit 0x101 1 0"},
		"operation active":                   {"fail C_SignInit 0x90 1 0"},
		"operation not initialized":          {"fail C_Sign 0x91 1 0"},
		"device error after init":            {"fail C_Sign 0x30 1 0"},
		"device removed":                     {"fail C_SignInit 0x32 1 0"},
		"device memory":                      {"fail C_Sign 0x31 1 0"},
		"token not present":                  {"fail C_SignInit 0xE0 1 0"},
		"token not recognized":               {"fail C_SignInit 0xE1 1 0"},
		"general error":                      {"fail C_Sign 0x5 1 0"},
		"function failed":                    {"fail C_Sign 0x6 1 0"},
		"host memory":                        {"fail C_SignInit 0x2 1 0"},
		"not initialized":                    {"fail C_SignInit 0x190 1 0"},
		"a vendor's own":                     {"fail C_Sign 0x80000101 1 0"},
		"error although the token signed":    {"late C_Sign 0x30 1 0"},
		"session cannot be closed":           {"fail C_Sign 0x30 1 0", "fail C_CloseSession 0xB3 1 0"},
		"sessions cannot be closed":          {"fail C_Sign 0x30 1 0", "fail C_CloseAllSessions 0x30 1 0"},
		"module cannot be finalised":         {"fail C_Sign 0x30 1 0", "fail C_Finalize 0x30 1 0"},
		"module initialises the second time": {"fail C_Sign 0x30 1 0", "fail C_Initialize 0x30 1 0"},
		"no slots the first time":            {"fail C_Sign 0x30 1 0", "fail C_GetSlotList 0x30 1 0"},
		"token unreadable the first time":    {"fail C_Sign 0x30 1 0", "fail C_GetTokenInfo 0xE0 2 0"},
		"no session the first time":          {"fail C_Sign 0x30 1 0", "fail C_OpenSession 0xB1 1 0"},
		"no mechanisms the first time":       {"fail C_Sign 0x30 1 0", "fail C_GetMechanismList 0x30 1 0"},
		"lost while keys are found":          {"killsessions", "fail C_FindObjects 0xB3 1 0"},
		"lost while attributes are read":     {"killsessions", "fail C_GetAttributeValue 0xB3 1 4"},
		"lost while it is tried to wrap out": {"killsessions", "fail C_WrapKey 0xB3 1 1"},
		"lost while the key is tried":        {"killsessions", "fail C_Sign 0xB3 1 0"},
	} {
		t.Run(name, func(t *testing.T) {
			before := token.State().Generation
			fault.Order(t, orders...)
			sign(t, token, key)
			if token.State().Generation == before {
				t.Error("the fault did not show")
			}
			for range 5 { // no session is left poisoned
				sign(t, token, key)
			}
		})
	}
}

// TestRetryIsOneRetry fails a signature, and its second try in the new
// generation: that is the end of it.
func TestRetryIsOneRetry(t *testing.T) {
	token, fault, key := faulty(t, nil)
	sign(t, token, key)
	calls := callsOf(t, token, fault, func() {
		// The call between the two is the proof of the key.
		fault.Order(t, "fail C_SignInit 0xB3 1 0", "fail C_SignInit 0xB3 1 1")
		refuses(t, token, key, ClassSessionLost)
	})
	if calls["C_SignInit"] != 3 || calls["C_Login"] != 1 {
		t.Errorf("%d tries to sign and %d logins, want 3 (with the proof) and 1", calls["C_SignInit"], calls["C_Login"])
	}
	sign(t, token, key)
}

// TestWhatDoesNotHealIsNotRetried: an error that says nothing of sessions or
// devices is the caller's at once.
func TestWhatDoesNotHealIsNotRetried(t *testing.T) {
	token, fault, key := faulty(t, nil)
	sign(t, token, key)
	for order, want := range map[string]Class{
		"fail C_Sign 0x21 1 0":     ClassRefused,     // data length range
		"fail C_Sign 0x150 1 0":    ClassRefused,     // buffer too small
		"fail C_SignInit 0x68 1 0": ClassRefused,     // key function not permitted
		"fail C_SignInit 0x70 1 0": ClassUnsupported, // mechanism invalid
	} {
		calls := callsOf(t, token, fault, func() {
			fault.Order(t, order)
			refuses(t, token, key, want)
		})
		if calls["C_SignInit"] != 1 || calls["C_Login"] != 0 {
			t.Errorf("%s: %d tries and %d logins", order, calls["C_SignInit"], calls["C_Login"])
		}
	}
}

// TestASpoiledSessionIsClosed fails C_Sign after C_SignInit, which leaves the
// operation active in the session for ever: the session must not be used again.
func TestASpoiledSessionIsClosed(t *testing.T) {
	token, fault, key := faulty(t, func(c *Config) { c.Sessions = 1 })
	sign(t, token, key)
	calls := callsOf(t, token, fault, func() {
		for range 3 {
			fault.Order(t, "fail C_Sign 0x21 1 0")
			refuses(t, token, key, ClassRefused)
			sign(t, token, key)
		}
		fault.Order(t, "corrupt 1")
		refuses(t, token, key, ClassBadSignature)
		sign(t, token, key)
	})
	if calls["C_CloseSession"] != 4 || calls["C_OpenSession"] != 4 || calls["C_Initialize"] != 0 {
		t.Errorf("%d sessions closed, %d opened, %d initialisations: want 4, 4, 0", calls["C_CloseSession"], calls["C_OpenSession"], calls["C_Initialize"])
	}
	// Who asks for a key that is not there spoils nothing.
	calls = callsOf(t, token, fault, func() { refuses(t, token, "no such key", ClassKeyMissing) })
	if calls["C_CloseSession"] != 0 {
		t.Error("a session was closed although it saw no error")
	}
}

// TestALoggedOutSessionFindsNothing takes the login away without an error: the
// token then shows no private key, which is not the same as having none.
func TestALoggedOutSessionFindsNothing(t *testing.T) {
	ctx := context.Background()
	for name, work := range map[string]func(token *Token, key KeyRecord) error{
		"load":    func(token *Token, key KeyRecord) error { return token.Load(ctx, []KeyRef{key.KeyRef}) },
		"destroy": func(token *Token, key KeyRecord) error { return token.Destroy(ctx, key.KeyRef) },
		"generate": func(token *Token, _ KeyRecord) error {
			_, err := token.Generate(ctx, KeySpec{newLabel(), issuance.ES256})
			return err
		},
		"labels": func(token *Token, key KeyRecord) error {
			labels, err := token.Labels()
			if n := len(labels); err == nil && n != 2 {
				t.Errorf("%d objects are seen, want both of the key", n)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			token := openToken(t, config(t))
			record := generateKey(t, token, newLabel(), issuance.ES256)
			if err := token.gen.ctx.Logout(token.gen.keeper); err != nil {
				t.Fatal(err)
			}
			err := work(token, record)
			if name == "generate" {
				wantClass(t, err, ClassSessionLost) // the ceremony asks again
			} else if err != nil {
				t.Error(err)
			}
			if s := token.State(); !s.Ready || s.Generation != 2 {
				t.Errorf("%+v", s)
			}
			if name != "destroy" {
				sign(t, token, record.Label)
				return
			}
			left, err := token.Labels()
			if err != nil || len(left) != 0 {
				t.Errorf("left in the token: %q, %v", left, err)
			}
		})
	}
}

// TestClasses is every class that a return value of a module leads to.
func TestClasses(t *testing.T) {
	for rv, want := range map[uint]Class{
		pkcs11.CKR_SESSION_HANDLE_INVALID: ClassSessionLost, pkcs11.CKR_USER_NOT_LOGGED_IN: ClassSessionLost,
		pkcs11.CKR_DEVICE_ERROR: ClassTokenGone, pkcs11.CKR_SLOT_ID_INVALID: ClassTokenGone, pkcs11.CKR_VENDOR_DEFINED: ClassTokenGone,
		pkcs11.CKR_VENDOR_DEFINED + 7: ClassTokenGone, pkcs11.CKR_GENERAL_ERROR: ClassTokenGone,
		pkcs11.CKR_PIN_INCORRECT: ClassPINRefused, pkcs11.CKR_PIN_LOCKED: ClassPINRefused, pkcs11.CKR_PIN_EXPIRED: ClassPINRefused,
		pkcs11.CKR_USER_PIN_NOT_INITIALIZED: ClassPINRefused, pkcs11.CKR_PIN_LEN_RANGE: ClassPINRefused,
		pkcs11.CKR_MECHANISM_INVALID: ClassUnsupported, pkcs11.CKR_FUNCTION_NOT_SUPPORTED: ClassUnsupported,
		pkcs11.CKR_DATA_INVALID: ClassRefused, pkcs11.CKR_USER_ALREADY_LOGGED_IN: ClassRefused, pkcs11.CKR_ARGUMENTS_BAD: ClassRefused,
	} {
		err := classify("C_Any", "k", pkcs11.Error(rv))
		if err.Class != want {
			t.Errorf("%v is %q, want %q", pkcs11.Error(rv), err.Class, want)
		}
		if healing := want == ClassSessionLost || want == ClassTokenGone; err.Class.heals() != healing {
			t.Errorf("%q heals: %v", want, !healing)
		}
		if want.heals() && want.final() {
			t.Errorf("%q heals and is final", want)
		}
	}
	inner := classify("C_Sign", "", pkcs11.Error(pkcs11.CKR_PIN_LOCKED))
	outer := classify("open", "k", inner)
	if outer.Class != ClassPINRefused || outer.Op != "C_Sign" || outer.Key != "k" {
		t.Errorf("an error that has its class was changed: %+v", outer)
	}
	if got, want := outer.Error(), `token: C_Sign: key "k": pkcs11: 0xA4: CKR_PIN_LOCKED (pin-refused)`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if ClassOf(context.Canceled) != "" || ClassOf(nil) != "" {
		t.Error("an error from elsewhere has a class")
	}
}
