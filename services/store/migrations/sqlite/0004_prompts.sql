-- A prompt is a row that counts its versions; the versions themselves never change.

CREATE TABLE prompts (
    tenant          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    newest_version  INTEGER NOT NULL,
    default_version INTEGER NOT NULL,
    created_us      INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

CREATE TABLE prompt_versions (
    tenant    TEXT    NOT NULL,
    prompt_id TEXT    NOT NULL,
    version   INTEGER NOT NULL,
    body      BLOB    NOT NULL,
    PRIMARY KEY (tenant, prompt_id, version),
    FOREIGN KEY (tenant, prompt_id) REFERENCES prompts (tenant, id) ON DELETE CASCADE
) STRICT;
