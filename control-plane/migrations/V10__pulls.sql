-- Pull requests from before they were watched all the time; when people were reminded.

INSERT INTO pull_watch (task_id)
SELECT id FROM task WHERE pull_number IS NOT NULL AND phase NOT IN ('completed', 'cancelled', 'declined')
ON CONFLICT (task_id) DO NOTHING;
COMMENT ON TABLE pull_watch IS 'pull requests of tasks that are not over, whether a worker is at work or not';

-- What is seen says now which commit conflicts: each is read once more.
UPDATE pull_watch SET etag = '';
COMMENT ON COLUMN pull_watch.seen IS
    'draft, base, text and the commit that conflicts as they were seen last; null before the first look';

ALTER TABLE task ADD COLUMN reminded_at timestamptz;
UPDATE task SET reminded_at = clock_timestamp() WHERE reminded;
ALTER TABLE task DROP COLUMN reminded;
COMMENT ON COLUMN task.reminded_at IS 'when the person who is asked was reminded';
