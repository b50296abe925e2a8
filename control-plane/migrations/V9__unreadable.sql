-- A pull request that the code host no longer shows is told of once.

ALTER TABLE pull_watch ADD COLUMN unreadable boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN pull_watch.unreadable IS 'the task says that it cannot be read';
