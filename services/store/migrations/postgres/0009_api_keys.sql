-- API keys: only hashes of their secrets. `body` is what may be told of a key.

CREATE TABLE api_keys (
    tenant       TEXT COLLATE "C" NOT NULL,
    id           TEXT COLLATE "C" NOT NULL,
    hash         TEXT COLLATE "C" NOT NULL,
    -- The secret before the last rotation, and until when it is good; empty and 0 where there is none.
    old_hash     TEXT COLLATE "C" NOT NULL,
    old_until_us BIGINT NOT NULL,
    body         BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- A key is looked for before its tenant is known.
CREATE UNIQUE INDEX api_keys_by_id ON api_keys (id);

-- Whose a thing is, for what has no column of its own for it.
CREATE TABLE owners (
    tenant    TEXT COLLATE "C" NOT NULL,
    id        TEXT COLLATE "C" NOT NULL,
    principal TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, id)
);
