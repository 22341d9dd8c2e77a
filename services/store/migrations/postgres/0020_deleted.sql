-- Deletions of documents, counted for each tenant, and documents that are deleted, as long as a turn that is under way may have
-- found them before: what it quotes of them is not written any more, whatever has come under their ids since.

CREATE TABLE deletions (
    tenant TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL
);

CREATE TABLE deleted_documents (
    tenant      TEXT COLLATE "C" NOT NULL,
    bank_id     TEXT COLLATE "C" NOT NULL,
    document_id TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    PRIMARY KEY (tenant, bank_id, document_id)
);
CREATE INDEX deleted_documents_number ON deleted_documents (tenant, number);

-- How many there had been when a turn began, and when each of its tool steps that are under way did.

CREATE TABLE turn_marks (
    tenant  TEXT COLLATE "C" NOT NULL,
    turn_id TEXT COLLATE "C" NOT NULL,
    -- Empty: the turn.
    step_id TEXT COLLATE "C" NOT NULL,
    number  BIGINT NOT NULL,
    PRIMARY KEY (tenant, turn_id, step_id),
    FOREIGN KEY (tenant, turn_id) REFERENCES turns (tenant, id) ON DELETE CASCADE
);
CREATE INDEX turn_marks_number ON turn_marks (tenant, number);

-- Uploads in parts that are under way in a bucket, so that what a crash leaves of them is given up there.

CREATE TABLE file_uploads (
    blob       TEXT COLLATE "C" PRIMARY KEY,
    upload_id  TEXT COLLATE "C" NOT NULL,
    -- When its last part was sent.
    touched_us BIGINT NOT NULL
);

-- Which file a document was made of, so that it goes with the file. In vector stores it also has the file's id.

ALTER TABLE bank_documents ADD COLUMN file_id TEXT COLLATE "C" NOT NULL DEFAULT '';
-- The content is an encoded message: of a file it is field 4, with its length in one byte.
UPDATE bank_documents SET file_id = convert_from(substring(content FROM 3), 'UTF8')
WHERE substring(content FROM 1 FOR 1) = '\x22'::bytea AND length(content) < 130;
CREATE INDEX bank_documents_file ON bank_documents (tenant, file_id);

-- Looked for before each insertion and search.

CREATE INDEX bank_documents_of_bank_expiry ON bank_documents (tenant, bank_id, expires_us) WHERE expires_us > 0;
