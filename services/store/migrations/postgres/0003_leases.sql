-- Who runs a turn is told by owner, epoch and lease_until_us, which the table has had from the beginning.

-- The turn whose tool call this one answers: such a turn is no part of its session's own history.
ALTER TABLE turns ADD COLUMN caller_turn_id TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX turns_by_caller ON turns (tenant, caller_turn_id) WHERE caller_turn_id <> '';
