-- Batches of requests, and the answers of those lines that were run. What a batch was answered is in files once it has ended.

CREATE TABLE batches (
    tenant         TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    owner          TEXT    NOT NULL,
    -- Of the owner, when it was made: its requests are made with them.
    roles          TEXT    NOT NULL,
    status         INTEGER NOT NULL,
    total          INTEGER NOT NULL,
    completed      INTEGER NOT NULL,
    failed         INTEGER NOT NULL,
    -- Which process runs it; empty: none.
    runner         TEXT    NOT NULL,
    epoch          INTEGER NOT NULL,
    lease_until_us INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX batches_unfinished ON batches (id) WHERE status <= 4;

CREATE TABLE batch_lines (
    tenant   TEXT    NOT NULL,
    batch_id TEXT    NOT NULL,
    line     INTEGER NOT NULL,
    failed   INTEGER NOT NULL,
    body     BLOB    NOT NULL,
    PRIMARY KEY (tenant, batch_id, line),
    FOREIGN KEY (tenant, batch_id) REFERENCES batches (tenant, id) ON DELETE CASCADE
) STRICT;
