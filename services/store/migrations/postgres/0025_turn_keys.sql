-- The API key that a turn was begun with, by its id, which is charged for it whichever process goes on with it. Empty: none.

ALTER TABLE turns ADD COLUMN api_key TEXT COLLATE "C" NOT NULL DEFAULT '';
