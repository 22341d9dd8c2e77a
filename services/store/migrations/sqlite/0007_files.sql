-- Uploaded files. `blob` is where the content lies, and is shared by a tenant's files of the same content.

CREATE TABLE files (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    owner      TEXT    NOT NULL,
    purpose    TEXT    NOT NULL,
    blob       TEXT    NOT NULL,
    -- 0: never.
    expires_us INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE INDEX files_by_blob ON files (blob);
CREATE INDEX files_by_expiry ON files (expires_us) WHERE expires_us > 0;
