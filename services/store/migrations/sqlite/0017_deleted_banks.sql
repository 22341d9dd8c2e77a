-- Banks that are deleted: what a turn under way found in one just before is not written any more.

CREATE TABLE deleted_banks (
    tenant  TEXT NOT NULL,
    bank_id TEXT NOT NULL,
    PRIMARY KEY (tenant, bank_id)
) STRICT;
