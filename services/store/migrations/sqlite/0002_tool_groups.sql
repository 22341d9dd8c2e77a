-- Tool groups that tenants registered while the stack ran. A body is the request that registered the group, and may hold
-- a token that its server wants.
CREATE TABLE tool_groups (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    created_us INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;
