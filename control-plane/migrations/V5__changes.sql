-- A push that changes CI definitions is held until a person allows exactly that change.

ALTER TABLE task ADD COLUMN allowed_changes text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN task.allowed_changes IS 'hashes of the CI definitions that a person allowed to be pushed';

ALTER TABLE task DROP CONSTRAINT task_gate_check;
ALTER TABLE task ADD CONSTRAINT task_gate_check CHECK (gate IN ('spawn', 'plan', 'question', 'worker', 'change', 'stuck'));
COMMENT ON COLUMN task.gate_ref IS
    'the worker''s id of its question or blocker, the hash of a change that is held, or the reason why it is stuck';
