-- Banks of documents. Their chunks and vectors are in the index of their provider; here is what must hold together.

CREATE TABLE banks (
    tenant      TEXT COLLATE "C" NOT NULL,
    id          TEXT COLLATE "C" NOT NULL,
    provider_id TEXT COLLATE "C" NOT NULL,
    owner       TEXT COLLATE "C" NOT NULL,
    shared      BIGINT NOT NULL,
    kind        BIGINT NOT NULL,
    active_us   BIGINT NOT NULL,
    -- 0: never.
    expires_us  BIGINT NOT NULL,
    -- 1: its deletion has begun, and nobody sees it any more.
    doomed      BIGINT NOT NULL,
    body        BYTEA    NOT NULL,
    PRIMARY KEY (tenant, id)
);
CREATE INDEX banks_expiry ON banks (provider_id, expires_us);

CREATE TABLE bank_documents (
    tenant       TEXT COLLATE "C" NOT NULL,
    bank_id      TEXT COLLATE "C" NOT NULL,
    id           TEXT COLLATE "C" NOT NULL,
    -- When it came first, and its id: the order of lists.
    place        TEXT COLLATE "C" NOT NULL,
    -- Which of the insertions of this id it is.
    revision     TEXT COLLATE "C" NOT NULL,
    ingestion_id TEXT COLLATE "C" NOT NULL,
    status       BIGINT NOT NULL,
    -- For whom the insertion goes on after a crash.
    principal    TEXT COLLATE "C" NOT NULL,
    roles        TEXT COLLATE "C" NOT NULL,
    bytes        BIGINT NOT NULL,
    expires_us   BIGINT NOT NULL,
    body         BYTEA    NOT NULL,
    content      BYTEA    NOT NULL,
    PRIMARY KEY (tenant, bank_id, id),
    FOREIGN KEY (tenant, bank_id) REFERENCES banks (tenant, id) ON DELETE CASCADE
);
CREATE INDEX bank_documents_place ON bank_documents (tenant, bank_id, place);
CREATE INDEX bank_documents_status ON bank_documents (status);
CREATE INDEX bank_documents_expiry ON bank_documents (expires_us);

CREATE TABLE ingestions (
    tenant          TEXT COLLATE "C" NOT NULL,
    bank_id         TEXT COLLATE "C" NOT NULL,
    id              TEXT COLLATE "C" NOT NULL,
    created_us      BIGINT NOT NULL,
    -- 0: it goes on.
    ended_us        BIGINT NOT NULL,
    status          BIGINT NOT NULL,
    documents       BIGINT NOT NULL,
    completed       BIGINT NOT NULL,
    failed          BIGINT NOT NULL,
    cancelled       BIGINT NOT NULL,
    chunks          BIGINT NOT NULL,
    chunks_embedded BIGINT NOT NULL,
    PRIMARY KEY (tenant, bank_id, id),
    FOREIGN KEY (tenant, bank_id) REFERENCES banks (tenant, id) ON DELETE CASCADE
);
