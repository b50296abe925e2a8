-- Reminders, answers that policy assumes, the time that workers may take for a task, and what a cancelled one leaves.

ALTER TABLE task
    ADD COLUMN asked_at   timestamptz,
    ADD COLUMN reminded   boolean NOT NULL DEFAULT false,
    ADD COLUMN recommends boolean NOT NULL DEFAULT false,
    ADD COLUMN worked_ms  bigint NOT NULL DEFAULT 0,
    ADD COLUMN busy_since timestamptz;
COMMENT ON COLUMN task.asked_at IS 'since when a person is asked';
COMMENT ON COLUMN task.recommends IS 'the open question has an answer that the worker recommends';
COMMENT ON COLUMN task.worked_ms IS 'time that workers took since the last human word, up to busy_since';

ALTER TABLE task DROP CONSTRAINT task_timer_kind_check;
ALTER TABLE task ADD CONSTRAINT task_timer_kind_check CHECK (timer_kind IN ('deadline', 'wait', 'remind', 'assume'));

ALTER TABLE human_word ADD COLUMN assumed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN human_word.assumed IS 'nobody answered, and policy took what the worker recommends';

CREATE TABLE tidying (
    task_id uuid PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    due_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    errors  integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE tidying IS 'cancelled and declined tasks whose issue, pull request and branch are to be closed';
