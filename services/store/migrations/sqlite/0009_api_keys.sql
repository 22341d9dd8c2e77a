-- API keys: only hashes of their secrets. `body` is what may be told of a key.

CREATE TABLE api_keys (
    tenant       TEXT    NOT NULL,
    id           TEXT    NOT NULL,
    hash         TEXT    NOT NULL,
    -- The secret before the last rotation, and until when it is good; empty and 0 where there is none.
    old_hash     TEXT    NOT NULL,
    old_until_us INTEGER NOT NULL,
    body         BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

-- A key is looked for before its tenant is known.
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);

-- Whose a thing is, for what has no column of its own for it.
CREATE TABLE owners (
    tenant    TEXT NOT NULL,
    id        TEXT NOT NULL,
    principal TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
