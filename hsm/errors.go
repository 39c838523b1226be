package hsm

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Class says what kind of failure it was and what follows from it.
type Class string

// The classes.
const (
	// ClassSessionLost: sessions or handles died; the token is opened anew and the operation tried once more.
	ClassSessionLost Class = "session-lost"
	// ClassTokenGone: the token or its module does not answer; it is sought until it is back.
	ClassTokenGone Class = "token-gone"
	// ClassPINRefused: the token refused the PIN or has locked it; nothing is tried again.
	ClassPINRefused Class = "pin-refused"
	// ClassBusy: the queue is full, or the caller's time ran out in it.
	ClassBusy Class = "busy"
	// ClassHung: a call of the module is out past its time; what became of it is not known.
	ClassHung Class = "hung"
	// ClassBadSignature: the token returned something that is not a signature of the message.
	ClassBadSignature Class = "bad-signature"
	// ClassKeyMissing: the key is not in the token as the ceremony recorded it.
	ClassKeyMissing Class = "key-missing"
	// ClassKeyUnsafe: the key's attributes or the token's behaviour let it be used otherwise or out of the token.
	ClassKeyUnsafe Class = "key-unsafe"
	// ClassUnsupported: the token has no mechanism for it.
	ClassUnsupported Class = "unsupported"
	// ClassRefused: the operation was refused for a reason of its own.
	ClassRefused Class = "refused"
	// ClassClosed: the token was closed by this program.
	ClassClosed Class = "closed"
)

// Error is every failure of this package.
type Error struct {
	Class Class
	// Op is what was tried, for instance "C_Sign".
	Op string
	// Key is the key's label, when it concerns one.
	Key string
	// Err is the cause.
	Err error
}

// Error names the operation, the key and the cause.
func (e *Error) Error() string {
	if e.Key != "" {
		return fmt.Sprintf("token: %s: key %q: %v (%s)", e.Op, e.Key, e.Err, e.Class)
	}
	return fmt.Sprintf("token: %s: %v (%s)", e.Op, e.Err, e.Class)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns an error's class, or "" when it is not this package's.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

func failure(class Class, op, key, format string, args ...any) *Error {
	return &Error{Class: class, Op: op, Key: key, Err: fmt.Errorf(format, args...)}
}

// classify turns a module's return value into a class. An error that has its
// class already only learns which key it concerns.
func classify(op, key string, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		if own.Key == "" {
			own.Key = key
		}
		return own
	}
	class := ClassRefused
	var rv pkcs11.Error
	if errors.As(err, &rv) {
		if uint(rv) >= pkcs11.CKR_VENDOR_DEFINED {
			class = ClassTokenGone // a vendor's own codes tell of its device and the way to it
		}
		switch uint(rv) {
		case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_OBJECT_HANDLE_INVALID,
			pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_OPERATION_ACTIVE,
			pkcs11.CKR_OPERATION_NOT_INITIALIZED, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_HOST_MEMORY:
			class = ClassSessionLost
		case pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_TOKEN_NOT_PRESENT,
			pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED,
			pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_LIBRARY_LOAD_FAILED:
			class = ClassTokenGone
		case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
			pkcs11.CKR_USER_PIN_NOT_INITIALIZED:
			class = ClassPINRefused
		case pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_CURVE_NOT_SUPPORTED:
			class = ClassUnsupported
		}
	}
	return &Error{Class: class, Op: op, Key: key, Err: err}
}

// heals tells whether an operation that failed so is tried again on the token opened anew.
func (c Class) heals() bool { return c == ClassSessionLost || c == ClassTokenGone }

// final tells that a token which could not be opened for this reason is not
// sought any more: trying again would cost tries of the PIN, or use a key that
// is not safe. Every other reason may pass; a key that a token coming back does
// not show yet is one.
func (c Class) final() bool {
	return c == ClassPINRefused || c == ClassKeyUnsafe || c == ClassClosed
}
