-- Tool groups that tenants registered while the stack ran. A body is the request that registered the group, and may hold
-- a token that its server wants.
CREATE TABLE tool_groups (
    tenant     TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    created_us BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    PRIMARY KEY (tenant, id)
);
