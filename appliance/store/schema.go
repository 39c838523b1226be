package store

import "chancery/appliance/database"

// schema is chancery.db's. Times are Unix milliseconds, 0 for never; sets of
// configurations are bits, in the order of the offer's list.
var schema = database.Schema{ApplicationID: 0x43484359, Migrations: []string{`
CREATE TABLE meta (
	id          INTEGER PRIMARY KEY CHECK (id = 1),
	source      TEXT NOT NULL,      -- names the outbox in the audit log
	source_base INTEGER NOT NULL,   -- outbox number before the source's first event
	sent        INTEGER NOT NULL    -- last outbox number that is durable in the audit log
) STRICT;

CREATE TABLE epochs (
	id         INTEGER PRIMARY KEY,
	context    TEXT NOT NULL,       -- what the token bound to the wrapped key
	wrapped    BLOB NOT NULL,       -- the epoch's data key, wrapped by the token
	created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE offers (
	id             INTEGER PRIMARY KEY,
	uuid           BLOB NOT NULL,   -- the public identifier, which holds id
	state          INTEGER NOT NULL,
	configurations TEXT NOT NULL,   -- JSON array of configuration ids
	created_at     INTEGER NOT NULL,
	expires_at     INTEGER NOT NULL,
	created_by     TEXT NOT NULL,
	fetched_at     INTEGER NOT NULL DEFAULT 0,
	redeemed_at    INTEGER NOT NULL DEFAULT 0,
	finished_at    INTEGER NOT NULL DEFAULT 0,
	due_at         INTEGER,         -- when the sweeper has to do with it again; see expire
	code_hash      BLOB NOT NULL,   -- SHA-256 of the code's secret
	required_client TEXT NOT NULL DEFAULT '', -- the client_id that must redeem; '' for any
	client_authentication INTEGER NOT NULL DEFAULT 0, -- the client that redeems must authenticate
	replays        INTEGER NOT NULL DEFAULT 0,
	tx_code        TEXT,            -- JSON of TxCode, NULL without one
	tx_mac         BLOB,            -- MAC of the transaction code under the epoch's key
	attempts_left  INTEGER NOT NULL,
	token_hash     BLOB,            -- SHA-256 of the access token's secret
	token_expires  INTEGER NOT NULL DEFAULT 0,
	refresh_hash   BLOB,            -- SHA-256 of the refresh token's secret, NULL without a live one
	refresh_expires INTEGER NOT NULL DEFAULT 0,
	refreshes      INTEGER NOT NULL DEFAULT 0, -- how often it was used
	client         TEXT NOT NULL DEFAULT '', -- the token request's client_id
	authenticated  INTEGER NOT NULL DEFAULT 0, -- the client had authenticated
	jkt            BLOB,            -- thumbprint of the DPoP key
	client_key     BLOB,            -- thumbprint of the attested client instance's key
	identified     INTEGER NOT NULL DEFAULT 0, -- credential_identifiers were returned
	granted        INTEGER NOT NULL DEFAULT 0, -- what the token covers
	pending        INTEGER NOT NULL DEFAULT 0, -- granted and not yet issued
	deferred       INTEGER NOT NULL DEFAULT 0, -- pending with a transaction
	signed         INTEGER NOT NULL DEFAULT 0, -- rows in credentials
	epoch          INTEGER          -- NULL once shredded
) STRICT;
CREATE INDEX offers_due ON offers (due_at, epoch) WHERE due_at IS NOT NULL;

CREATE TABLE claims (
	offer  INTEGER PRIMARY KEY REFERENCES offers (id) ON DELETE CASCADE,
	sealed BLOB NOT NULL            -- AES-256-GCM under the offer's own key
) STRICT;

CREATE TABLE keys (                 -- see putKey
	block   INTEGER PRIMARY KEY,    -- offer id / 64
	wrapped BLOB NOT NULL CHECK (length(wrapped) = 64 * 60) -- offers' own keys, each wrapped by its epoch's or for retries; zeros where there is none
) STRICT;

CREATE TABLE credentials (
	offer         INTEGER NOT NULL REFERENCES offers (id) ON DELETE CASCADE,
	n             INTEGER NOT NULL,
	credential    TEXT NOT NULL,    -- the identifier in the audit log
	configuration TEXT NOT NULL,
	version       TEXT NOT NULL,    -- of the configuration
	key           TEXT NOT NULL,    -- label of the signing key
	intent        INTEGER NOT NULL, -- indexes in the audit log
	outcome       INTEGER NOT NULL,
	issued_at     INTEGER NOT NULL,
	repeat        INTEGER NOT NULL, -- 0 for the first signature, then which repetition
	PRIMARY KEY (offer, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE issues (               -- the latest of each configuration
	offer         INTEGER NOT NULL REFERENCES offers (id) ON DELETE CASCADE,
	configuration INTEGER NOT NULL, -- place in the offer's list
	first         INTEGER NOT NULL, -- n of its first credential
	size          INTEGER NOT NULL, -- how many there are
	repeats       INTEGER NOT NULL DEFAULT 0, -- how often they were signed again
	keys_hash     BLOB,             -- of the holder's keys, in order; NULL once nothing can be repeated
	proofs_hash   BLOB,             -- of the request's proofs, likewise
	notification  BLOB NOT NULL,    -- SHA-256 of the notification_id's secret
	accepted_at   INTEGER NOT NULL DEFAULT 0, -- when the wallet said so
	failed_at     INTEGER NOT NULL DEFAULT 0,
	deleted_at    INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (offer, configuration)
) STRICT, WITHOUT ROWID;

CREATE TABLE deferred (
	id               INTEGER PRIMARY KEY,
	uuid             BLOB NOT NULL,    -- the public identifier, which holds id
	offer            INTEGER NOT NULL REFERENCES offers (id) ON DELETE CASCADE,
	configuration    INTEGER NOT NULL, -- place in the offer's list
	state            INTEGER NOT NULL DEFAULT 0, -- see DeferredState
	transaction_hash BLOB,             -- SHA-256 of the transaction_id's secret; NULL once it is used
	keys_hash        BLOB NOT NULL,    -- of the holder's keys, in order
	proofs_hash      BLOB NOT NULL,    -- of the request's proofs
	holders          BLOB,             -- the holder's keys, AES-256-GCM under the offer's own key
	interval         INTEGER NOT NULL, -- milliseconds between polls
	requested_at     INTEGER NOT NULL,
	decided_at       INTEGER NOT NULL DEFAULT 0,
	decided_by       TEXT NOT NULL DEFAULT '', -- an operator
	reason           TEXT NOT NULL DEFAULT '', -- the operator's words
	UNIQUE (offer, configuration)
) STRICT;

CREATE TABLE encryption_keys (      -- private keys that open encrypted requests
	kid        TEXT PRIMARY KEY,
	context    TEXT NOT NULL,       -- what the token bound to the wrapped key
	wrapped    BLOB NOT NULL,       -- a data key, wrapped by the token
	sealed     BLOB NOT NULL,       -- the private key, AES-256-GCM under that data key
	created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE outbox (
	seq     INTEGER PRIMARY KEY,
	time    INTEGER NOT NULL,
	kind    TEXT NOT NULL,
	actor   TEXT NOT NULL,
	subject TEXT NOT NULL,
	detail  TEXT NOT NULL           -- JSON object of strings, or empty
) STRICT;

CREATE TABLE configurations (
	id      TEXT PRIMARY KEY,       -- of a credential configuration in force
	version TEXT NOT NULL           -- of its file
) STRICT, WITHOUT ROWID;

CREATE TABLE operators (
	id           INTEGER PRIMARY KEY,
	name         TEXT NOT NULL UNIQUE,
	token_hash   BLOB NOT NULL,     -- SHA-256 of the token's secret
	created_at   INTEGER NOT NULL,
	last_used_at INTEGER NOT NULL DEFAULT 0,
	revoked_at   INTEGER NOT NULL DEFAULT 0
) STRICT;
`}}
