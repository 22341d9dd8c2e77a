-- Who asked for what and how it ended: requests, and what was decided about them. Never what was said.

CREATE TABLE requests (
    tenant    TEXT COLLATE "C" NOT NULL,
    -- Of the row: later ones sort after earlier ones.
    id        TEXT COLLATE "C" NOT NULL,
    at_us     BIGINT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    route     TEXT COLLATE "C" NOT NULL,
    code      TEXT COLLATE "C" NOT NULL,
    body      BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX requests_by_time ON requests (at_us);

CREATE TABLE audit_events (
    tenant    TEXT COLLATE "C" NOT NULL,
    id        TEXT COLLATE "C" NOT NULL,
    at_us     BIGINT NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    -- Of the contract's AuditKind.
    kind      BIGINT NOT NULL,
    outcome   TEXT COLLATE "C" NOT NULL,
    body      BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX audit_events_by_time ON audit_events (at_us);

-- On whose behalf a batch runs, as it was known when the batch was made: a Caller. Empty: owner and roles are all there is.
ALTER TABLE batches ADD COLUMN author BYTEA NOT NULL DEFAULT '';
