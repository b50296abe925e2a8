-- Checks that skip drafts.

ALTER TABLE task ADD COLUMN ready_first boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN task.ready_first IS 'the pull request is marked ready before its checks, because they skip drafts';

-- What people change of pull requests.

ALTER TABLE pull_watch ADD COLUMN seen jsonb;
COMMENT ON COLUMN pull_watch.seen IS 'draft, base and text as they were seen last; null before the first look';
