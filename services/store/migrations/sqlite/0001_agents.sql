-- Ids sort by time of creation (UUID version 7), so an index over ids is an index over time.
-- Bodies are encoded messages of the contract; the columns beside them are what queries ask for.

CREATE TABLE agents (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    created_us INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE sessions (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    agent_id   TEXT    NOT NULL,
    created_us INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX sessions_by_agent ON sessions (tenant, agent_id, id);

-- owner, epoch and lease_until_us are for replicas that share the work: who runs the turn, and a number that grows
-- with every new owner, so that an old one can be refused.
CREATE TABLE turns (
    tenant         TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    session_id     TEXT    NOT NULL,
    parent_id      TEXT    NOT NULL,
    status         INTEGER NOT NULL,
    head_seq       INTEGER NOT NULL,
    keep           INTEGER NOT NULL,
    created_us     INTEGER NOT NULL,
    owner          TEXT    NOT NULL DEFAULT '',
    epoch          INTEGER NOT NULL DEFAULT 0,
    lease_until_us INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, session_id) REFERENCES sessions (tenant, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX turns_by_session ON turns (tenant, session_id, id);
CREATE INDEX turns_unfinished ON turns (status, id) WHERE status IN (1, 2);

CREATE TABLE journal (
    tenant  TEXT    NOT NULL,
    turn_id TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    PRIMARY KEY (tenant, turn_id, seq),
    FOREIGN KEY (tenant, turn_id) REFERENCES turns (tenant, id) ON DELETE CASCADE
) STRICT;

-- Outlives its turn: a repetition after the turn's deletion must not run it again.
CREATE TABLE idempotency_keys (
    tenant       TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    request_hash TEXT    NOT NULL,
    turn_id      TEXT    NOT NULL,
    created_us   INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_us);
