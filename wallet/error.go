package wallet

import (
	"fmt"
	"strings"
)

// Step names a part of the flow in errors.
type Step string

// The steps, in order.
const (
	StepOffer        Step = "offer"
	StepMetadata     Step = "issuer metadata"
	StepServer       Step = "authorization server metadata"
	StepChallenge    Step = "attestation challenge"
	StepToken        Step = "token"
	StepNonce        Step = "nonce"
	StepCredential   Step = "credential"
	StepDeferred     Step = "deferred credential"
	StepNotification Step = "notification"
)

// protected says that a step presents the access token.
func (s Step) protected() bool {
	return s == StepCredential || s == StepDeferred || s == StepNotification
}

// Error ends a flow. Code and Description are the server's own words, when it
// answered with an error object or a WWW-Authenticate header.
type Error struct {
	Step        Step
	Status      int    // HTTP status; 0 when there was no answer
	Code        string // the error member, for instance "invalid_grant"
	Description string // the error_description member
	Problem     string // what the wallet found wrong
	// RetryAfter is the server's Retry-After header; empty when absent.
	RetryAfter string
	Err        error
	// broken says that the connection broke before the answer was whole.
	broken bool
}

// Error tells step, status, the server's error and the wallet's finding.
func (e *Error) Error() string {
	text := string(e.Step) + ":"
	if e.Status != 0 {
		text += fmt.Sprintf(" HTTP %d", e.Status)
	}
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Description != "" {
		text += fmt.Sprintf(" (%s)", e.Description)
	}
	for _, part := range []string{e.Problem, retryText(e.RetryAfter)} {
		if part != "" {
			text = strings.TrimSuffix(text, ";") + " " + part + ";"
		}
	}
	if e.Err != nil {
		text += " " + e.Err.Error()
	}
	return strings.TrimRight(text, ":; ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func retryText(after string) string {
	if after == "" {
		return ""
	}
	return "try again after " + after + " s"
}

func wrong(step Step, format string, args ...any) *Error {
	return &Error{Step: step, Problem: fmt.Sprintf(format, args...)}
}

// failed wraps the wallet's own failure in a step.
func failed(step Step, err error) error { return &Error{Step: step, Err: err} }
