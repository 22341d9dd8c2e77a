-- Who asked for what and how it ended: requests, and what was decided about them. Never what was said.

CREATE TABLE requests (
    tenant    TEXT    NOT NULL,
    -- Of the row: later ones sort after earlier ones.
    id        TEXT    NOT NULL,
    at_us     INTEGER NOT NULL,
    principal TEXT    NOT NULL,
    route     TEXT    NOT NULL,
    code      TEXT    NOT NULL,
    body      BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX requests_by_time ON requests (at_us);

CREATE TABLE audit_events (
    tenant    TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    at_us     INTEGER NOT NULL,
    principal TEXT    NOT NULL,
    -- Of the contract's AuditKind.
    kind      INTEGER NOT NULL,
    outcome   TEXT    NOT NULL,
    body      BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX audit_events_by_time ON audit_events (at_us);

-- On whose behalf a batch runs, as it was known when the batch was made: a Caller. Empty: owner and roles are all there is.
ALTER TABLE batches ADD COLUMN author BLOB NOT NULL DEFAULT x'';
