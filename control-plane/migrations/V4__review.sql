-- What happens to a pull request after it was ready: reviews, conflicts with the base, checks that turn red again.

ALTER TABLE task
    ADD COLUMN review_rounds integer NOT NULL DEFAULT 0,
    ADD COLUMN rebases       integer NOT NULL DEFAULT 0,
    ADD COLUMN reds          integer NOT NULL DEFAULT 0,
    ADD COLUMN conflicted    boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN task.review_rounds IS 'rounds of review that were addressed since the last human word';
COMMENT ON COLUMN task.rebases IS 'conflicts with the base that were taken up since the last human word';
COMMENT ON COLUMN task.reds IS 'times that checks turned red on a ready head since the last human word';
COMMENT ON COLUMN task.conflicted IS 'the head conflicts with its base, which is resolved first';

ALTER TABLE task DROP CONSTRAINT task_phase_check;
ALTER TABLE task ADD CONSTRAINT task_phase_check CHECK (phase IN ('proposed', 'planning', 'plan_review', 'implementing',
    'ci', 'fixing_ci', 'ready', 'addressing_review', 'completed', 'failed', 'cancelled', 'declined'));

ALTER TABLE task DROP CONSTRAINT task_failed_from_check;
ALTER TABLE task ADD CONSTRAINT task_failed_from_check CHECK (
    failed_from IN ('planning', 'implementing', 'ci', 'fixing_ci', 'addressing_review'));

ALTER TABLE task DROP CONSTRAINT no_work_without_an_approved_plan;
ALTER TABLE task ADD CONSTRAINT no_work_without_an_approved_plan CHECK (
    phase NOT IN ('implementing', 'ci', 'fixing_ci', 'ready', 'addressing_review') OR plan_approved);

CREATE TABLE review_thread (
    task_id     uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('review', 'comment')),
    id          bigint NOT NULL,
    pull_number integer NOT NULL,
    newest      bigint NOT NULL,
    answered    bigint NOT NULL DEFAULT 0,
    author      text NOT NULL,
    path        text NOT NULL DEFAULT '',
    line        integer NOT NULL DEFAULT 0,
    body        text NOT NULL,
    answer      text NOT NULL DEFAULT '',
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_at timestamptz,
    PRIMARY KEY (task_id, kind, id)
);
COMMENT ON TABLE review_thread IS 'what people with write access said about a pull request; open while answered < newest';
COMMENT ON COLUMN review_thread.id IS 'the code host''s id of the review, or of the first comment of the thread';
COMMENT ON COLUMN review_thread.newest IS 'id of the review, or of the newest comment of such a person in the thread';
COMMENT ON COLUMN review_thread.answered IS 'up to which it is answered there; 0 for not at all';
COMMENT ON COLUMN review_thread.body IS 'what was said, without what others said';
CREATE INDEX review_thread_open ON review_thread (task_id) WHERE answered < newest;

ALTER TABLE pull_watch ADD COLUMN tags jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN pull_watch.tags IS 'tags of reviews, comments and checks as they were seen last';
