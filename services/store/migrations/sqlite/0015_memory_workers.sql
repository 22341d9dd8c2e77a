-- Which process inserts a document, and until when each of those processes lives if it says nothing more.

ALTER TABLE bank_documents ADD COLUMN worker TEXT NOT NULL DEFAULT '';

CREATE TABLE memory_workers (
    owner          TEXT    PRIMARY KEY,
    lease_until_us INTEGER NOT NULL
) STRICT;
