-- What the answers of a batch say that they used, added up as its lines end.

ALTER TABLE batches ADD COLUMN input_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN cached_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN output_tokens BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN reasoning_tokens BIGINT NOT NULL DEFAULT 0;
-- The model that they name, and how many they name: none, one, or 2 for several. -1: the batch was made before this was counted.
ALTER TABLE batches ADD COLUMN model TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN models BIGINT NOT NULL DEFAULT -1;
