-- Which process inserts a document, and until when each of those processes lives if it says nothing more.

ALTER TABLE bank_documents ADD COLUMN worker TEXT COLLATE "C" NOT NULL DEFAULT '';

CREATE TABLE memory_workers (
    owner          TEXT COLLATE "C" PRIMARY KEY,
    lease_until_us BIGINT NOT NULL
);
