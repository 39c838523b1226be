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
	due_at         INTEGER,         -- when the sweeper ends it; NULL once it has ended
	code_hash      BLOB NOT NULL,   -- SHA-256 of the code's secret
	replays        INTEGER NOT NULL DEFAULT 0,
	tx_code        TEXT,            -- JSON of TxCode, NULL without one
	tx_mac         BLOB,            -- MAC of the transaction code under the epoch's key
	attempts_left  INTEGER NOT NULL,
	token_hash     BLOB,            -- SHA-256 of the access token's secret
	token_expires  INTEGER NOT NULL DEFAULT 0,
	client         TEXT NOT NULL DEFAULT '', -- the token request's client_id
	identified     INTEGER NOT NULL DEFAULT 0, -- credential_identifiers were returned
	granted        INTEGER NOT NULL DEFAULT 0, -- what the token covers
	pending        INTEGER NOT NULL DEFAULT 0, -- granted and not yet issued
	epoch          INTEGER          -- NULL once shredded
) STRICT;
CREATE INDEX offers_due ON offers (due_at, epoch) WHERE due_at IS NOT NULL;

CREATE TABLE claims (
	offer  INTEGER PRIMARY KEY REFERENCES offers (id) ON DELETE CASCADE,
	sealed BLOB NOT NULL            -- AES-256-GCM under the offer's own key
) STRICT;

CREATE TABLE keys (                 -- see putKey
	block   INTEGER PRIMARY KEY,    -- offer id / 64
	wrapped BLOB NOT NULL CHECK (length(wrapped) = 64 * 60) -- offers' own keys, each wrapped by its epoch's; zeros where there is none
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
	PRIMARY KEY (offer, n)
) STRICT, WITHOUT ROWID;

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
