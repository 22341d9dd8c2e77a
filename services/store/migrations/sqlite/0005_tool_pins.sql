-- Tools that a person has approved, each by the hash of its definition then. Of the stack's own tools, server is empty.
CREATE TABLE tool_pins (
    tenant TEXT NOT NULL,
    server TEXT NOT NULL,
    tool   TEXT NOT NULL,
    hash   TEXT NOT NULL,
    PRIMARY KEY (tenant, server, tool)
) STRICT;
