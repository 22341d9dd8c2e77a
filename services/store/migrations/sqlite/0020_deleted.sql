-- Deletions of documents, counted for each tenant, and documents that are deleted, as long as a turn that is under way may have
-- found them before: what it quotes of them is not written any more, whatever has come under their ids since.

CREATE TABLE deletions (
    tenant TEXT    PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT;

CREATE TABLE deleted_documents (
    tenant      TEXT    NOT NULL,
    bank_id     TEXT    NOT NULL,
    document_id TEXT    NOT NULL,
    number      INTEGER NOT NULL,
    PRIMARY KEY (tenant, bank_id, document_id)
) STRICT;
CREATE INDEX deleted_documents_number ON deleted_documents (tenant, number);

-- How many there had been when a turn began, and when each of its tool steps that are under way did.

CREATE TABLE turn_marks (
    tenant  TEXT    NOT NULL,
    turn_id TEXT    NOT NULL,
    -- Empty: the turn.
    step_id TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    PRIMARY KEY (tenant, turn_id, step_id),
    FOREIGN KEY (tenant, turn_id) REFERENCES turns (tenant, id) ON DELETE CASCADE
) STRICT;
CREATE INDEX turn_marks_number ON turn_marks (tenant, number);

-- Uploads in parts that are under way in a bucket, so that what a crash leaves of them is given up there.

CREATE TABLE file_uploads (
    blob       TEXT    PRIMARY KEY,
    upload_id  TEXT    NOT NULL,
    -- When its last part was sent.
    touched_us INTEGER NOT NULL
) STRICT;

-- Which file a document was made of, so that it goes with the file. In vector stores it also has the file's id.

ALTER TABLE bank_documents ADD COLUMN file_id TEXT NOT NULL DEFAULT '';
-- The content is an encoded message: of a file it is field 4, with its length in one byte.
UPDATE bank_documents SET file_id = CAST(substr(content, 3) AS TEXT)
WHERE substr(content, 1, 1) = x'22' AND length(content) < 130;
CREATE INDEX bank_documents_file ON bank_documents (tenant, file_id);

-- Looked for before each insertion and search.

CREATE INDEX bank_documents_of_bank_expiry ON bank_documents (tenant, bank_id, expires_us) WHERE expires_us > 0;
