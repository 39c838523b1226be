// Package wire is the protocol between chanceryd and chancery-signer: its
// messages, its framing and its client. It is pure Go and knows no HTTP.
//
// A frame is a big-endian uint32 length and that many bytes of deterministic
// CBOR (RFC 8949 §4.2.1). A connection carries one request at a time; the
// client keeps a pool of connections. Requests above [MaxFrame] bytes, unknown
// members, indefinite lengths, duplicate keys and trailing bytes are refused.
package wire

import "chancery/issuance"

// MaxFrame is the longest frame in bytes that either side accepts.
const MaxFrame = 4 << 20

// Op names what a request asks for.
type Op string

// The operations of sign.sock.
const (
	OpSign        Op = "sign"          // SignRequest → SignResponse
	OpIdentities  Op = "identities"    // nothing → IdentitiesResponse
	OpNewDataKey  Op = "new-data-key"  // NewDataKeyRequest → DataKeyResponse
	OpOpenDataKey Op = "open-data-key" // OpenDataKeyRequest → DataKeyResponse
	OpAppend      Op = "append"        // AppendRequest → AppendResponse
	OpStatus      Op = "status"        // nothing → StatusResponse
)

// The operations of admin.sock, which has identities and status too.
const (
	OpCheckpoint Op = "checkpoint" // nothing → CheckpointResponse
	OpEvidence   Op = "evidence"   // nothing → EvidenceResponse
	OpPause      Op = "pause"      // the signer drains and lets token and log go, for a ceremony
	OpResume     Op = "resume"     // the signer opens a new generation
)

// Code classes an error answer; the client turns it into a *Error.
type Code string

// The error codes.
const (
	CodeBusy        Code = "busy"              // the queue is full; try again after RetryAfter
	CodeUnavailable Code = "token_unavailable" // the token is away or recovering; RetryAfter says when to try again
	CodeRefused     Code = "refused"           // outside the key's profile
	CodeUnknownKey  Code = "unknown_key"
	CodeBadRequest  Code = "bad_request"
	CodeDenied      Code = "denied" // the peer may not use this operation
	CodeInternal    Code = "internal"
)

// SignItem asks for one signature by one key.
type SignItem struct {
	// Key is the key's label.
	Key string `cbor:"key"`
	// Format tells the signer how to parse TBS; it must be one of the key's formats.
	Format issuance.Format `cbor:"format"`
	// TBS are the bytes to be signed, never a digest.
	TBS []byte `cbor:"tbs"`
	// Credential is chanceryd's random identifier of the credential (or other
	// object); it is what ties audit entries to the record in chancery.db.
	Credential string `cbor:"credential"`
}

// SignRequest asks for the signatures of one credential request. All are made or none is answered.
type SignRequest struct {
	// Offer and Configuration name the cause, for the audit log; no personal data.
	Offer         string     `cbor:"offer"`
	Configuration string     `cbor:"configuration"`
	Items         []SignItem `cbor:"items"`
}

// SignResult is one signature with the log's indexes of its two entries.
type SignResult struct {
	Signature []byte `cbor:"signature"` // raw, see issuance.Algorithm.SignatureSize
	Intent    int64  `cbor:"intent"`
	Outcome   int64  `cbor:"outcome"`
}

// SignResponse answers in the order of the request's items.
type SignResponse struct {
	Results []SignResult `cbor:"results"`
}

// Purpose says what a key is for (architecture: keys).
type Purpose string

// The purposes.
const (
	PurposeIACA             Purpose = "iaca"
	PurposeDocumentSigner   Purpose = "document-signer"
	PurposeCredentialSigner Purpose = "credential-signer" // SD-JWT VC, x5c
	PurposeDID              Purpose = "did"               // JWT VC (and SD-JWT VC) under a DID
	PurposeStatus           Purpose = "status-signer"
	PurposeMetadata         Purpose = "metadata-signer"
	PurposeCheckpoint       Purpose = "checkpoint"
	PurposeSealing          Purpose = "sealing"
)

// Identity is the public side of one key.
type Identity struct {
	Label   string  `cbor:"label"`
	Purpose Purpose `cbor:"purpose"`
	// Created is the index of the audit log's entry that recorded the key: of two
	// keys the newer one has the higher.
	Created   int64              `cbor:"created"`
	Algorithm issuance.Algorithm `cbor:"algorithm"`
	// PublicKey is the SubjectPublicKeyInfo, DER; empty for the sealing key.
	PublicKey []byte `cbor:"public_key,omitempty"`
	// Chain is the key's certificate and its issuers without the anchor, DER, leaf first.
	Chain [][]byte `cbor:"chain,omitempty"`
	// Anchor is the CA certificate the chain ends at, DER.
	Anchor []byte `cbor:"anchor,omitempty"`
	// CRL is the newest CRL of an IACA key, DER.
	CRL []byte `cbor:"crl,omitempty"`
	// DID is set for DID keys. KeyID is what names the key in a kid header: a DID
	// URL, or a credential signer's RFC 7638 thumbprint; empty for other purposes.
	DID   string `cbor:"did,omitempty"`
	KeyID string `cbor:"key_id,omitempty"`
	// DIDDocument is the did:web document to publish, JSON.
	DIDDocument []byte           `cbor:"did_document,omitempty"`
	Profile     issuance.Profile `cbor:"profile"`
	// Ready is the result of the last periodic probe signature.
	Ready bool `cbor:"ready"`
}

// IdentitiesResponse lists every key. Generation grows whenever the list changes.
type IdentitiesResponse struct {
	Generation uint64     `cbor:"generation"`
	Identities []Identity `cbor:"identities"`
}

// NewDataKeyRequest asks for a fresh data key. Context is bound to it as
// additional authenticated data and must be given again to open it.
type NewDataKeyRequest struct {
	Context string `cbor:"context"`
}

// OpenDataKeyRequest asks for a data key that the sealing key wrapped.
type OpenDataKeyRequest struct {
	Context string `cbor:"context"`
	Wrapped []byte `cbor:"wrapped"`
}

// DataKeyResponse holds a 32-byte AES-256 data key and its form wrapped in the token.
type DataKeyResponse struct {
	Key     []byte `cbor:"key"`
	Wrapped []byte `cbor:"wrapped"`
}

// Event is an entry of chanceryd's own for the audit log.
type Event struct {
	// Seq grows by one per source, without gaps; the signer drops what it already has.
	Seq uint64 `cbor:"seq"`
	// Time is when it happened, Unix milliseconds.
	Time int64 `cbor:"time"`
	// Kind is the event's name, for instance "offer.created".
	Kind string `cbor:"kind"`
	// Actor is the operator's name, or "wallet", or "appliance".
	Actor string `cbor:"actor,omitempty"`
	// Subject is the offer's, configuration's or credential's identifier.
	Subject string `cbor:"subject,omitempty"`
	// Detail holds further members. No personal data, codes or tokens.
	Detail map[string]string `cbor:"detail,omitempty"`
}

// AppendRequest appends chanceryd's events, in order.
type AppendRequest struct {
	// Source names the outbox: chancery.db's random identity, so that a
	// restored or new database starts its own sequence.
	Source string  `cbor:"source"`
	Events []Event `cbor:"events"`
}

// AppendResponse tells the last sequence number now durable in the log for this source.
type AppendResponse struct {
	LastSeq uint64 `cbor:"last_seq"`
}

// StatusResponse is the signer's state for readiness and metrics.
type StatusResponse struct {
	// State is "ready", "degraded", "paused" or "stopped".
	State string `cbor:"state"`
	// Class names the failure when State is not ready, for instance "token-gone".
	Class string `cbor:"class,omitempty"`
	// Keys tells per label whether the last probe signature succeeded.
	Keys map[string]bool `cbor:"keys"`
	// LogSize is the number of entries, CheckpointSize of those under a checkpoint.
	LogSize        int64 `cbor:"log_size"`
	CheckpointSize int64 `cbor:"checkpoint_size"`
	// Signatures counts those answered since the signer started.
	Signatures uint64 `cbor:"signatures"`
	// Queue is the number of requests waiting for the token, QueueLimit its bound.
	Queue      int `cbor:"queue"`
	QueueLimit int `cbor:"queue_limit"`
	// PID is the signer's process id.
	PID int `cbor:"pid"`
}

// CheckpointResponse holds the newest checkpoint, a C2SP signed note.
type CheckpointResponse struct {
	Note []byte `cbor:"note"`
}

// EvidenceResponse tells an auditor what the token and its keys are.
type EvidenceResponse struct {
	// JSON is signer.Evidence.
	JSON []byte `cbor:"json"`
}

// Error is an error answer.
type Error struct {
	Code    Code   `cbor:"code"`
	Message string `cbor:"message"`
	// RetryAfter is in seconds; 0 when trying again does not help.
	RetryAfter int `cbor:"retry_after,omitempty"`
}

// Error returns the message and its code.
func (e *Error) Error() string { return "signer: " + e.Message + " (" + string(e.Code) + ")" }
