-- Ids sort by time of creation (UUID version 7), so an index over ids is an index over time.
-- The "C" collation compares bytes, as SQLite does. Bodies are encoded messages of the contract; the columns beside them are what queries ask for.

CREATE TABLE agents (
    tenant     TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE sessions (
    tenant     TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    agent_id   TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX sessions_by_agent ON sessions (tenant, agent_id, id);

-- owner, epoch and lease_until_us are for replicas that share the work: who runs the turn, and a number that grows
-- with every new owner, so that an old one can be refused.
CREATE TABLE turns (
    tenant         TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    session_id     TEXT COLLATE "C" NOT NULL,
    parent_id      TEXT COLLATE "C" NOT NULL,
    status         BIGINT NOT NULL,
    head_seq       BIGINT NOT NULL,
    keep           BIGINT NOT NULL,
    created_us     BIGINT NOT NULL,
    owner          TEXT COLLATE "C" NOT NULL DEFAULT '',
    epoch          BIGINT NOT NULL DEFAULT 0,
    lease_until_us BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, id),
    FOREIGN KEY (tenant, session_id) REFERENCES sessions (tenant, id) ON DELETE CASCADE
);
CREATE INDEX turns_by_session ON turns (tenant, session_id, id);
CREATE INDEX turns_unfinished ON turns (status, id) WHERE status IN (1, 2);

CREATE TABLE journal (
    tenant  TEXT COLLATE "C" NOT NULL,
    turn_id TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    body    BYTEA  NOT NULL,
    PRIMARY KEY (tenant, turn_id, seq),
    FOREIGN KEY (tenant, turn_id) REFERENCES turns (tenant, id) ON DELETE CASCADE
);

-- Outlives its turn: a repetition after the turn's deletion must not run it again.
CREATE TABLE idempotency_keys (
    tenant       TEXT COLLATE "C" NOT NULL,
    key          TEXT COLLATE "C" NOT NULL,
    request_hash TEXT COLLATE "C" NOT NULL,
    turn_id      TEXT COLLATE "C" NOT NULL,
    created_us   BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_us);
