-- Tasks, their attempts, plans, events, inbox items, commands and logs; tokens and replicas.
-- Words and rules are those of the pure workflow (mainloop-core); the checks below hold it in the database as well.

CREATE TABLE task (
    id               uuid PRIMARY KEY,
    short_id         text NOT NULL UNIQUE,
    version          bigint NOT NULL DEFAULT 1,
    -- What was asked for
    request_id       uuid NOT NULL,
    request_hash     bytea NOT NULL,
    created_by       text NOT NULL,
    repository_url   text NOT NULL,
    owner            text NOT NULL,
    name             text NOT NULL,
    base_ref         text NOT NULL,
    issue_number     integer NOT NULL DEFAULT 0 CHECK (issue_number >= 0),
    title            text NOT NULL,
    description      text NOT NULL,
    model            text NOT NULL,
    priority         integer NOT NULL CHECK (priority BETWEEN -100 AND 100),
    labels           jsonb NOT NULL DEFAULT '{}',
    budget_micros    bigint NOT NULL CHECK (budget_micros > 0),
    policy           jsonb NOT NULL,
    unsandboxed      boolean NOT NULL DEFAULT false,
    -- Where it is: phase x run x wait
    phase            text NOT NULL CHECK (phase IN ('proposed', 'planning', 'plan_review', 'implementing', 'ci',
                         'fixing_ci', 'ready', 'completed', 'failed', 'cancelled', 'declined')),
    completion       text CHECK (completion IN ('merged', 'no_change')),
    failure_class    text,
    failure_message  text,
    failed_from      text CHECK (failed_from IN ('planning', 'implementing', 'ci', 'fixing_ci')),
    run              text NOT NULL CHECK (run IN ('idle', 'queued', 'starting', 'live')),
    wait             text NOT NULL CHECK (wait IN ('none', 'human', 'ci', 'until')),
    gate             text CHECK (gate IN ('spawn', 'plan', 'question', 'worker', 'ci_limit', 'same_failure', 'no_fix',
                         'ci_deadline', 'no_ci', 'no_change')),
    gate_ref         text,
    wait_until       timestamptz,
    wait_why         text,
    phase_version    bigint NOT NULL DEFAULT 1,
    timer_at         timestamptz,
    timer_kind       text CHECK (timer_kind IN ('deadline', 'wait')),
    -- Facts that the workflow decides by
    attempt          integer NOT NULL DEFAULT 0,
    failures         integer NOT NULL DEFAULT 0,
    ci_attempts      integer NOT NULL DEFAULT 0,
    signature        text,
    plan_revision    integer,
    plan_hash        text,
    plan_approved    boolean NOT NULL DEFAULT false,
    head_sha         text,
    green_sha        text,
    pull_number      integer,
    -- Facts that people read
    branch           text NOT NULL DEFAULT '',
    pull_url         text NOT NULL DEFAULT '',
    plan_issue       integer NOT NULL DEFAULT 0,
    plan_issue_url   text NOT NULL DEFAULT '',
    checks           jsonb NOT NULL DEFAULT '[]',
    ci_log           text NOT NULL DEFAULT '',
    guidance         text NOT NULL DEFAULT '',
    diffstat         text NOT NULL DEFAULT '',
    summary          text NOT NULL DEFAULT '',
    milestone        text NOT NULL DEFAULT '',
    session_id       text NOT NULL DEFAULT '',
    cost_micros      bigint NOT NULL DEFAULT 0,
    event_seq        bigint NOT NULL DEFAULT 0,
    log_position     bigint NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    confirmed_at     timestamptz,
    queued_at        timestamptz,
    step_at          timestamptz,
    settled_at       timestamptz,
    UNIQUE (created_by, request_id),
    CONSTRAINT settled_has_a_time CHECK (
        (phase IN ('completed', 'failed', 'cancelled', 'declined')) = (settled_at IS NOT NULL)),
    CONSTRAINT completed_says_how CHECK ((phase = 'completed') = (completion IS NOT NULL)),
    CONSTRAINT failed_says_why CHECK (
        (phase = 'failed') = (failure_class IS NOT NULL AND failure_message IS NOT NULL AND failed_from IS NOT NULL)),
    CONSTRAINT settled_wants_no_worker CHECK (
        phase NOT IN ('proposed', 'ready', 'completed', 'failed', 'cancelled', 'declined') OR run = 'idle'),
    CONSTRAINT worker_has_an_attempt CHECK (run NOT IN ('starting', 'live') OR attempt > 0),
    CONSTRAINT human_wait_has_a_gate CHECK ((wait = 'human') = (gate IS NOT NULL)),
    CONSTRAINT until_has_a_time CHECK ((wait = 'until') = (wait_until IS NOT NULL)),
    CONSTRAINT waits_fit_the_phase CHECK (
        CASE phase
            WHEN 'proposed' THEN wait = 'human' AND gate = 'spawn'
            WHEN 'plan_review' THEN wait = 'human' AND gate = 'plan'
            WHEN 'ready' THEN wait = 'none'
            WHEN 'completed' THEN wait = 'none'
            WHEN 'failed' THEN wait = 'none'
            WHEN 'cancelled' THEN wait = 'none'
            WHEN 'declined' THEN wait = 'none'
            ELSE NOT coalesce(gate IN ('spawn', 'plan'), false)
        END),
    CONSTRAINT nothing_is_stuck CHECK (
        phase IN ('ready', 'completed', 'failed', 'cancelled', 'declined')
        OR run <> 'idle' OR wait = 'human' OR timer_at IS NOT NULL),
    CONSTRAINT timer_has_a_kind CHECK ((timer_at IS NULL) = (timer_kind IS NULL)),
    CONSTRAINT plan_is_whole CHECK ((plan_revision IS NULL) = (plan_hash IS NULL)),
    CONSTRAINT no_work_without_an_approved_plan CHECK (
        phase NOT IN ('implementing', 'ci', 'fixing_ci', 'ready') OR plan_approved),
    CONSTRAINT ready_is_green CHECK (phase <> 'ready' OR (head_sha IS NOT NULL AND head_sha = green_sha))
);
COMMENT ON COLUMN task.short_id IS 'random tail of the id: what people type';
COMMENT ON COLUMN task.version IS 'grows with every change; guards updates, and watchers deduplicate by it';
COMMENT ON COLUMN task.request_hash IS 'SHA-256 of the request: the same id with other content is refused';
COMMENT ON COLUMN task.phase_version IS 'grows when the assignment changes; milestones of an older one are ignored';
COMMENT ON COLUMN task.gate_ref IS 'the worker''s id of its question or blocker';
COMMENT ON COLUMN task.policy IS 'limits and models as they were at the confirmation';
COMMENT ON COLUMN task.step_at IS 'when the present step began';

-- The dispatcher takes the head of each lane.
CREATE INDEX task_queue ON task (repository_url, priority DESC, queued_at, id) WHERE run = 'queued';
CREATE INDEX task_slots ON task (repository_url) WHERE run IN ('starting', 'live');
CREATE INDEX task_timers ON task (timer_at) WHERE timer_at IS NOT NULL;
CREATE INDEX task_changes ON task (updated_at);
CREATE INDEX task_newest ON task (created_at DESC, id DESC);

CREATE TABLE attempt (
    id          uuid PRIMARY KEY,
    task_id     uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    n           integer NOT NULL CHECK (n > 0),
    token_hash  bytea NOT NULL,
    host_id     text NOT NULL,
    state       text NOT NULL CHECK (state IN ('wanted', 'started', 'live', 'ending', 'ended')),
    replica     uuid,
    link_epoch  bigint NOT NULL DEFAULT 0,
    lost_at     timestamptz,
    milestone   bigint NOT NULL DEFAULT 0,
    cost_micros bigint NOT NULL DEFAULT 0,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    live_at     timestamptz,
    ended_at    timestamptz,
    end_reason  text NOT NULL DEFAULT '',
    UNIQUE (task_id, n),
    CONSTRAINT ended_has_a_time CHECK ((state = 'ended') = (ended_at IS NOT NULL))
);
COMMENT ON COLUMN attempt.token_hash IS 'SHA-256 of the attempt''s token, which is made when its worker is started';
COMMENT ON COLUMN attempt.state IS 'wanted: no process yet; started: process made; live: said hello; ending: process to be removed';
COMMENT ON COLUMN attempt.milestone IS 'highest milestone that is durable';
COMMENT ON COLUMN attempt.lost_at IS 'when its stream ended; cleared by a reconnect, expiry counts from here';
-- At most one worker per task at any time.
CREATE UNIQUE INDEX attempt_open ON attempt (task_id) WHERE state <> 'ended';
CREATE INDEX attempt_by_host ON attempt (host_id) WHERE state <> 'ended';
CREATE INDEX attempt_lost ON attempt (lost_at) WHERE lost_at IS NOT NULL AND state <> 'ended';

CREATE TABLE plan (
    task_id    uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    revision   integer NOT NULL CHECK (revision > 0),
    hash       text NOT NULL,
    body       text NOT NULL,
    feedback   text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, revision)
);
COMMENT ON COLUMN plan.feedback IS 'what a person wanted changed in this revision';

CREATE TABLE event (
    task_id uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    seq     bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind    text NOT NULL,
    text    text NOT NULL,
    actor   text NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    detail  jsonb NOT NULL DEFAULT '{}',
    ignored boolean NOT NULL DEFAULT false,
    PRIMARY KEY (task_id, seq)
);
COMMENT ON TABLE event IS 'append-only; the task row is the truth, events are never replayed to find it';
CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only';
END $$;
CREATE TRIGGER event_append_only BEFORE UPDATE ON event FOR EACH ROW EXECUTE FUNCTION event_is_append_only();

CREATE TABLE inbox_item (
    id          text PRIMARY KEY,
    task_id     uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('spawn', 'plan', 'question', 'blocker')),
    revision    integer NOT NULL CHECK (revision > 0),
    state       text NOT NULL CHECK (state IN ('open', 'resolved', 'withdrawn')),
    gate        text NOT NULL,
    gate_ref    text,
    title       text NOT NULL,
    body        text NOT NULL,
    previous    text NOT NULL DEFAULT '',
    plan_hash   text NOT NULL DEFAULT '',
    questions   jsonb NOT NULL DEFAULT '[]',
    opened_at   timestamptz NOT NULL DEFAULT now(),
    action      text CHECK (action IN ('approve', 'reject', 'revise', 'answer')),
    text        text NOT NULL DEFAULT '',
    actor       text NOT NULL DEFAULT '',
    closed_at   timestamptz,
    CONSTRAINT closed_has_a_time CHECK ((state = 'open') = (closed_at IS NULL)),
    CONSTRAINT resolved_says_how CHECK ((state = 'resolved') = (action IS NOT NULL))
);
-- A task asks one thing at a time.
CREATE UNIQUE INDEX inbox_item_open ON inbox_item (task_id) WHERE state = 'open';
CREATE INDEX inbox_item_newest ON inbox_item (opened_at DESC, id DESC);
CREATE INDEX inbox_item_by_task ON inbox_item (task_id, kind);

CREATE TABLE command (
    id         uuid PRIMARY KEY,
    task_id    uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    n          bigint GENERATED ALWAYS AS IDENTITY,
    kind       text NOT NULL CHECK (kind IN ('say', 'answer')),
    payload    jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    done_at    timestamptz
);
COMMENT ON TABLE command IS 'addressed to the task, not the attempt; delivered at least once, idempotent by id';
CREATE INDEX command_open ON command (task_id, n) WHERE done_at IS NULL;

CREATE TABLE human_word (
    task_id  uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    n        bigint GENERATED ALWAYS AS IDENTITY,
    question text NOT NULL DEFAULT '',
    text     text NOT NULL,
    actor    text NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, n)
);
COMMENT ON TABLE human_word IS 'what people said and answered: it goes into every later attempt''s prompt';

CREATE TABLE log_chunk (
    task_id  uuid NOT NULL REFERENCES task ON DELETE CASCADE,
    position bigint NOT NULL,
    attempt  integer NOT NULL,
    source   text NOT NULL CHECK (source IN ('agent', 'harness', 'claude', 'tool')),
    at       timestamptz NOT NULL,
    text     text NOT NULL,
    dropped  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (task_id, position)
);

CREATE TABLE token (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    hash       bytea NOT NULL UNIQUE,
    scopes     text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'submit', 'approve', 'admin']),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    used_at    timestamptz
);
COMMENT ON COLUMN token.hash IS 'SHA-256 of the secret, which has 256 random bits';
CREATE UNIQUE INDEX token_name ON token (name) WHERE revoked_at IS NULL;

CREATE TABLE replica (
    id          uuid PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
);
COMMENT ON TABLE replica IS 'a replica acknowledges heartbeats only while its lease is valid';

CREATE TABLE pull_watch (
    task_id uuid PRIMARY KEY REFERENCES task ON DELETE CASCADE,
    etag    text NOT NULL DEFAULT '',
    due_at  timestamptz NOT NULL DEFAULT now(),
    errors  integer NOT NULL DEFAULT 0
);
COMMENT ON TABLE pull_watch IS 'pull requests of tasks without a worker';
CREATE INDEX pull_watch_due ON pull_watch (due_at);
