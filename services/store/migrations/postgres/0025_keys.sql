-- The API key that a turn was begun with, by its id, which is charged for it whichever process goes on with it. Empty: none.

ALTER TABLE turns ADD COLUMN api_key TEXT COLLATE "C" NOT NULL DEFAULT '';

-- What the tokens of pages are sealed under, the same for all processes. It is no data: a backup leaves it out, and what is restored
-- over it leaves it here.
CREATE TABLE IF NOT EXISTS page_keys (
    id  BIGINT PRIMARY KEY,
    key BYTEA NOT NULL
);
INSERT INTO page_keys (id, key) VALUES (1, decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'))
    ON CONFLICT (id) DO NOTHING;
