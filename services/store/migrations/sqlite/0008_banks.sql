-- Banks of documents. Their chunks and vectors are in the index of their provider; here is what must hold together.

CREATE TABLE banks (
    tenant      TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    provider_id TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    shared      INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    active_us   INTEGER NOT NULL,
    -- 0: never.
    expires_us  INTEGER NOT NULL,
    -- 1: its deletion has begun, and nobody sees it any more.
    doomed      INTEGER NOT NULL,
    body        BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
CREATE INDEX banks_expiry ON banks (provider_id, expires_us);

CREATE TABLE bank_documents (
    tenant       TEXT    NOT NULL,
    bank_id      TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    -- When it came first, and its id: the order of lists.
    place        TEXT    NOT NULL,
    -- Which of the insertions of this id it is.
    revision     TEXT    NOT NULL,
    ingestion_id TEXT    NOT NULL,
    status       INTEGER NOT NULL,
    -- For whom the insertion goes on after a crash.
    principal    TEXT    NOT NULL,
    roles        TEXT    NOT NULL,
    bytes        INTEGER NOT NULL,
    expires_us   INTEGER NOT NULL,
    body         BLOB    NOT NULL,
    content      BLOB    NOT NULL,
    PRIMARY KEY (tenant, bank_id, id),
    FOREIGN KEY (tenant, bank_id) REFERENCES banks (tenant, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX bank_documents_place ON bank_documents (tenant, bank_id, place);
CREATE INDEX bank_documents_status ON bank_documents (status);
CREATE INDEX bank_documents_expiry ON bank_documents (expires_us);

CREATE TABLE ingestions (
    tenant          TEXT    NOT NULL,
    bank_id         TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    created_us      INTEGER NOT NULL,
    -- 0: it goes on.
    ended_us        INTEGER NOT NULL,
    status          INTEGER NOT NULL,
    documents       INTEGER NOT NULL,
    completed       INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    cancelled       INTEGER NOT NULL,
    chunks          INTEGER NOT NULL,
    chunks_embedded INTEGER NOT NULL,
    PRIMARY KEY (tenant, bank_id, id),
    FOREIGN KEY (tenant, bank_id) REFERENCES banks (tenant, id) ON DELETE CASCADE
) STRICT;
