-- Which host a replica looks after, so that attempts of a host that nobody looks after can be told apart.
ALTER TABLE replica ADD COLUMN host_id text NOT NULL DEFAULT '';
COMMENT ON COLUMN replica.host_id IS 'host whose workers it launches; empty for a replica of an older version';
COMMENT ON COLUMN replica.started_at IS 'since when it has held its lease without a gap';

-- What a person wants changed is the text of the plan's inbox item; this was never written.
ALTER TABLE plan DROP COLUMN feedback;
