-- A prompt is a row that counts its versions; the versions themselves never change.

CREATE TABLE prompts (
    tenant          TEXT COLLATE "C" NOT NULL,
    id              TEXT COLLATE "C" NOT NULL,
    newest_version  BIGINT NOT NULL,
    default_version BIGINT NOT NULL,
    created_us      BIGINT NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE prompt_versions (
    tenant    TEXT COLLATE "C" NOT NULL,
    prompt_id TEXT COLLATE "C" NOT NULL,
    version   BIGINT NOT NULL,
    body      BYTEA  NOT NULL,
    PRIMARY KEY (tenant, prompt_id, version),
    FOREIGN KEY (tenant, prompt_id) REFERENCES prompts (tenant, id) ON DELETE CASCADE
);
