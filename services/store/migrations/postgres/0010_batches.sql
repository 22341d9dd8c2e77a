-- Batches of requests, and the answers of those lines that were run. What a batch was answered is in files once it has ended.

CREATE TABLE batches (
    tenant         TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    owner          TEXT COLLATE "C" NOT NULL,
    -- Of the owner, when it was made: its requests are made with them.
    roles          TEXT COLLATE "C" NOT NULL,
    status         BIGINT NOT NULL,
    total          BIGINT NOT NULL,
    completed      BIGINT NOT NULL,
    failed         BIGINT NOT NULL,
    -- Which process runs it; empty: none.
    runner         TEXT COLLATE "C" NOT NULL,
    epoch          BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL,
    body           BYTEA NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX batches_unfinished ON batches (id) WHERE status <= 4;

CREATE TABLE batch_lines (
    tenant   TEXT COLLATE "C" NOT NULL,
    batch_id TEXT COLLATE "C" NOT NULL,
    line     BIGINT NOT NULL,
    failed   BIGINT NOT NULL,
    body     BYTEA NOT NULL,
    PRIMARY KEY (tenant, batch_id, line),
    FOREIGN KEY (tenant, batch_id) REFERENCES batches (tenant, id) ON DELETE CASCADE
);
