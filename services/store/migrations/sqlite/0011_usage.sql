-- What tenants and principals have used, by day of UTC: counted by all processes together.

CREATE TABLE daily_usage (
    tenant      TEXT    NOT NULL,
    -- Empty: the whole tenant.
    principal   TEXT    NOT NULL,
    -- Days since 1970.
    day         INTEGER NOT NULL,
    tokens      INTEGER NOT NULL,
    -- In millionths of the currency of the prices.
    cost_micros INTEGER NOT NULL,
    PRIMARY KEY (tenant, principal, day)
) STRICT;
