-- Work that Nawal (learning) and Kinich (quantum) were given, and what they reported.
CREATE TABLE platform.jobs (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  service text NOT NULL CHECK (service IN ('nawal', 'kinich')),
  state text NOT NULL DEFAULT 'accepted' CHECK (state IN ('accepted', 'running', 'done', 'failed')),
  request jsonb NOT NULL,
  result jsonb,
  accepted timestamptz NOT NULL DEFAULT now(),
  ended timestamptz,
  CHECK ((ended IS NOT NULL) = (state IN ('done', 'failed')))
);
CREATE INDEX jobs_open ON platform.jobs (service, accepted) WHERE ended IS NULL;

-- Content that Pakit keeps, by its hash.
CREATE TABLE platform.content (
  hash text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
  bytes bigint NOT NULL CHECK (bytes >= 0),
  owner bigint REFERENCES platform.accounts (id),
  stored timestamptz NOT NULL DEFAULT now()
);
