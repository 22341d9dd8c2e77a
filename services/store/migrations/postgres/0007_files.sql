-- Uploaded files. `blob` is where the content lies, and is shared by a tenant's files of the same content.

CREATE TABLE files (
    tenant     TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    owner      TEXT COLLATE "C" NOT NULL,
    purpose    TEXT COLLATE "C" NOT NULL,
    blob       TEXT COLLATE "C" NOT NULL,
    -- 0: never.
    expires_us BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX files_by_blob ON files (blob);
CREATE INDEX files_by_expiry ON files (expires_us) WHERE expires_us > 0;
