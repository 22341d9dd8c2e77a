-- What a document was before an insertion in the background that has not replaced it yet, or did not: its chunks are of that. Empty:
-- they are of what the row says.

ALTER TABLE bank_documents ADD COLUMN replaces BYTEA NOT NULL DEFAULT '';
