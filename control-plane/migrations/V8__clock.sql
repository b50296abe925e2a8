-- Where the clock was last, so that a step back of it is seen, also by a plane that has just started.

CREATE TABLE clock (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    seen timestamptz NOT NULL
);
COMMENT ON TABLE clock IS 'one row; replicas write the time into it whenever they renew their leases';
INSERT INTO clock (seen) VALUES (clock_timestamp());
