-- Which process inserts a document, and until when each of those processes lives if it says nothing more.

ALTER TABLE bank_documents ADD COLUMN worker TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE TABLE memory_workers (
    owner          TEXT COLLATE "C" PRIMARY KEY,
    lease_until_us BIGINT NOT NULL
);

-- Which documents the journal of a turn has passages of, so that they are taken out when a document is deleted.

CREATE TABLE turn_quotes (
    tenant      TEXT COLLATE "C" NOT NULL,
    bank_id     TEXT COLLATE "C" NOT NULL,
    document_id TEXT COLLATE "C" NOT NULL,
    turn_id     TEXT COLLATE "C" NOT NULL,
    -- 1: they were taken out, and what the turn still writes of them is.
    erased      BIGINT NOT NULL,
    PRIMARY KEY (tenant, bank_id, document_id, turn_id),
    FOREIGN KEY (tenant, turn_id) REFERENCES turns (tenant, id) ON DELETE CASCADE
);
CREATE INDEX turn_quotes_turn ON turn_quotes (tenant, turn_id, erased);
