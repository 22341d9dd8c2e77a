-- Which process inserts a document, and until when each of those processes lives if it says nothing more.

ALTER TABLE bank_documents ADD COLUMN worker TEXT NOT NULL DEFAULT '';

CREATE TABLE memory_workers (
    owner          TEXT    PRIMARY KEY,
    lease_until_us INTEGER NOT NULL
) STRICT;

-- Which documents the journal of a turn has passages of, so that they are taken out when a document is deleted.

CREATE TABLE turn_quotes (
    tenant      TEXT    NOT NULL,
    bank_id     TEXT    NOT NULL,
    document_id TEXT    NOT NULL,
    turn_id     TEXT    NOT NULL,
    -- 1: they were taken out, and what the turn still writes of them is.
    erased      INTEGER NOT NULL,
    PRIMARY KEY (tenant, bank_id, document_id, turn_id),
    FOREIGN KEY (tenant, turn_id) REFERENCES turns (tenant, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX turn_quotes_turn ON turn_quotes (tenant, turn_id, erased);
