-- Why work stops short, what a person can choose then, and credentials that wait for a limit or for a person.

ALTER TABLE task
    ADD COLUMN waits      integer NOT NULL DEFAULT 0,
    ADD COLUMN ci_allowed integer CHECK (ci_allowed > 0),
    ADD COLUMN generation integer NOT NULL DEFAULT 1 CHECK (generation > 0),
    ADD COLUMN superseded integer[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN task.waits IS 'limits and outages that were waited for in a row';
COMMENT ON COLUMN task.ci_allowed IS 'turns of mending that a person allowed';
COMMENT ON COLUMN task.generation IS 'counts the branches that the work was begun on';
COMMENT ON COLUMN task.superseded IS 'pull requests of the branches before';

ALTER TABLE task RENAME COLUMN failure_class TO failure_reason;
UPDATE task SET failure_reason = CASE failure_reason
    WHEN 'worker' THEN 'worker_lost'
    WHEN 'deadline' THEN 'step_deadline'
    WHEN 'model_service' THEN 'model_unavailable'
    WHEN 'model_result' THEN 'no_plan'
    WHEN 'environment' THEN 'setup'
    WHEN 'ci' THEN 'no_ci'
    ELSE failure_reason END;

ALTER TABLE task DROP CONSTRAINT task_completion_check;
ALTER TABLE task ADD CONSTRAINT task_completion_check CHECK (completion IN ('merged', 'no_change', 'taken_over'));

ALTER TABLE task DROP CONSTRAINT task_gate_check;
UPDATE task SET gate_ref = gate, gate = 'stuck'
WHERE gate IN ('ci_limit', 'same_failure', 'no_fix', 'ci_deadline', 'no_ci', 'no_change');
ALTER TABLE task ADD CONSTRAINT task_gate_check CHECK (gate IN ('spawn', 'plan', 'question', 'worker', 'stuck'));
UPDATE inbox_item SET gate_ref = gate, gate = 'stuck'
WHERE gate IN ('ci_limit', 'same_failure', 'no_fix', 'ci_deadline', 'no_ci', 'no_change');
COMMENT ON COLUMN task.gate_ref IS 'the worker''s id of its question or blocker, or the reason why it is stuck';

ALTER TABLE inbox_item DROP CONSTRAINT inbox_item_action_check;
ALTER TABLE inbox_item ADD CONSTRAINT inbox_item_action_check CHECK (action IN ('approve', 'revise', 'answer', 'retry',
    'more_attempts', 'start_afresh', 'top_up', 'take_over', 'reject'));

CREATE TABLE hold (
    credential text PRIMARY KEY CHECK (credential IN ('model', 'code_host')),
    reason     text NOT NULL,
    why        text NOT NULL,
    task_id    uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    since      timestamptz NOT NULL DEFAULT clock_timestamp(),
    until      timestamptz,
    trial      uuid REFERENCES task ON DELETE SET NULL
);
COMMENT ON TABLE hold IS 'while a credential is held, no task is started that needs it';
COMMENT ON COLUMN hold.why IS 'what the service said to the task that met it';
COMMENT ON COLUMN hold.until IS 'when the limit is over; null until a person says that it is mended';
COMMENT ON COLUMN hold.trial IS 'the one task that tries whether it is over';
