-- Rates that hold over all processes: what each let in is counted beside what was used, and read where it changed lately.

ALTER TABLE daily_usage ADD COLUMN requests BIGINT NOT NULL DEFAULT 0;
-- When somebody last added to it, by that one's clock.
ALTER TABLE daily_usage ADD COLUMN changed_us BIGINT NOT NULL DEFAULT 0;
CREATE INDEX daily_usage_by_change ON daily_usage (changed_us);
