-- What a bank is for, where its owner has one for that and no more.

ALTER TABLE banks ADD COLUMN purpose TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX banks_by_purpose ON banks (tenant, provider_id, owner, purpose) WHERE purpose <> '' AND doomed = 0;
