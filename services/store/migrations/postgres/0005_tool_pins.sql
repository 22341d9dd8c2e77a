-- Tools that a person has approved, each by the hash of its definition then. Of the stack's own tools, server is empty.
CREATE TABLE tool_pins (
    tenant TEXT COLLATE "C" NOT NULL,
    server TEXT COLLATE "C" NOT NULL,
    tool   TEXT COLLATE "C" NOT NULL,
    hash   TEXT NOT NULL,
    PRIMARY KEY (tenant, server, tool)
);
