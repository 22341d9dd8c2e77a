-- Of which version a document's chunks are: what is of another is not shown. Empty where that was not noted; '-': there are none.

ALTER TABLE bank_documents ADD COLUMN version TEXT NOT NULL DEFAULT '';

-- What is inserted in a document's place, a Document, as long as the chunks are not its own; and for whom. Empty: nothing is.
ALTER TABLE bank_documents ADD COLUMN waiting BYTEA NOT NULL DEFAULT '';
ALTER TABLE bank_documents ADD COLUMN waiting_principal TEXT NOT NULL DEFAULT '';
ALTER TABLE bank_documents ADD COLUMN waiting_roles TEXT NOT NULL DEFAULT '';

-- Which documents were made of which files in banks that are kept elsewhere, so that they go with the file.

CREATE TABLE handed_documents (
    tenant      TEXT NOT NULL,
    bank_id     TEXT NOT NULL,
    document_id TEXT NOT NULL,
    file_id     TEXT NOT NULL,
    PRIMARY KEY (tenant, bank_id, document_id, file_id)
);
CREATE INDEX handed_documents_file ON handed_documents (tenant, file_id);

-- Tenants of whom every process is to let go of what it keeps to be faster, by the newest of these calls; and which process has done so
-- when it called. It is read by processes that have not erased anything, so an erasure leaves it.

CREATE TABLE forgotten (
    whose  TEXT   PRIMARY KEY,
    number BIGINT NOT NULL,
    caller TEXT   NOT NULL
);
CREATE INDEX forgotten_number ON forgotten (number);
