-- What tenants and principals have used, by day of UTC: counted by all processes together.

CREATE TABLE daily_usage (
    tenant      TEXT COLLATE "C" NOT NULL,
    -- Empty: the whole tenant.
    principal   TEXT COLLATE "C" NOT NULL,
    -- Days since 1970.
    day         BIGINT NOT NULL,
    tokens      BIGINT NOT NULL,
    -- In millionths of the currency of the prices.
    cost_micros BIGINT NOT NULL,
    PRIMARY KEY (tenant, principal, day)
);
