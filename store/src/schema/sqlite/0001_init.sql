-- Godwit's runtime store, schema 1.
--
-- Rows hang on `agent.key`, an integer; `agent.id` names it only while the row is bound (home below 4). Numbers that
-- operators ask for are plain columns. Columns called `sealed` or `body` are sealed values (codec.rs): format, checksum,
-- postcard. `change` is the agent's change number of the row's last write: unique and ascending per agent.
--
-- home:      0 here, 1 handing off, 2 prepared, 3 moved, 4 a copy that no id names yet
-- lifecycle: 0 active, 1 broken, 2 paused, 3 retiring, 4 retired, 5 suspended, 6 deleted
-- lane:      0 steer, 1 queue
-- state of inputs:  0 queued, 1 staged, 2 consumed, 3 dead-lettered, 4 replaced, 5 abandoned
-- state of outputs: 0 pending, 1 undeliverable
-- role:      0 source, 1 target

CREATE TABLE meta (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    store           BLOB NOT NULL CHECK (length(store) = 16),
    -- How often it was restored from a backup.
    epoch           INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- Set in a backup: no host may join before it was restored.
    is_backup       INTEGER NOT NULL DEFAULT 0 CHECK (is_backup IN (0, 1)),
    probes          INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The payload of auth flows, sealed under a key that is not in this file.
CREATE TABLE auth_flow (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    sealed          BLOB NOT NULL
) STRICT;

-- The agents and edges that there should be; the store understands nothing of it.
CREATE TABLE roster (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    revision        INTEGER NOT NULL CHECK (revision > 0),
    sealed          BLOB NOT NULL
) STRICT;

-- One row per join, kept for ever: an incarnation is never given twice.
CREATE TABLE session (
    incarnation     INTEGER PRIMARY KEY,
    dead            INTEGER NOT NULL DEFAULT 0 CHECK (dead IN (0, 1)),
    host            BLOB NOT NULL CHECK (length(host) = 32),
    name            TEXT NOT NULL,
    api             TEXT NOT NULL,
    mesh            TEXT NOT NULL,
    joined_at_ms    INTEGER NOT NULL,
    -- Boot id and boot clock (nanoseconds) at which it expires; without them holding the lock file is the session.
    boot            TEXT,
    ttl_ns          INTEGER,
    expires_ns      INTEGER
) STRICT;
CREATE INDEX session_living ON session (host) WHERE dead = 0;

CREATE TABLE agent (
    key             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL,
    home            INTEGER NOT NULL CHECK (home BETWEEN 0 AND 4),
    lifecycle       INTEGER NOT NULL CHECK (lifecycle BETWEEN 0 AND 6),
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL CHECK (revision >= 0),
    token           INTEGER NOT NULL CHECK (token >= 0),
    holder          INTEGER,
    -- Why the token was raised; NULL when it was acquired.
    cause_migration BLOB,
    cause_revision  INTEGER,
    head            BLOB NOT NULL CHECK (length(head) = 32),
    next_seq        INTEGER NOT NULL CHECK (next_seq > 0),
    open_inputs     INTEGER NOT NULL CHECK (open_inputs >= 0),
    -- Those of the open inputs that wake: with one, the agent is runnable.
    waking_inputs   INTEGER NOT NULL CHECK (waking_inputs BETWEEN 0 AND open_inputs),
    -- Payloads and headers of the open inputs; rows of the guest's state, and bytes of their keys and values.
    open_bytes      INTEGER NOT NULL DEFAULT 0 CHECK (open_bytes >= 0),
    state_keys      INTEGER NOT NULL DEFAULT 0 CHECK (state_keys >= 0),
    state_bytes     INTEGER NOT NULL DEFAULT 0 CHECK (state_bytes >= 0),
    pending_outputs INTEGER NOT NULL CHECK (pending_outputs >= 0),
    next_output     INTEGER NOT NULL CHECK (next_output > 0),
    time_ms         INTEGER NOT NULL,
    -- Ended inputs whose rows retention has removed.
    inputs_pruned   INTEGER NOT NULL DEFAULT 0 CHECK (inputs_pruned >= 0),
    -- Starts that have failed in a row: the process died in them, or init gave an error.
    failed_starts   INTEGER NOT NULL DEFAULT 0 CHECK (failed_starts >= 0),
    -- The number that the agent's next event gets.
    next_event      INTEGER NOT NULL DEFAULT 1 CHECK (next_event > 0),
    -- The last change number given, and the one of this row.
    change          INTEGER NOT NULL,
    row_change      INTEGER NOT NULL CHECK (row_change <= change),
    -- Whether deletes leave tombstones: a migration is open at its source.
    tracked         INTEGER NOT NULL DEFAULT 0 CHECK (tracked IN (0, 1)),
    spec_revision   INTEGER NOT NULL,
    plugin          BLOB NOT NULL CHECK (length(plugin) = 32),
    -- Whether its current spec takes no inputs from outside.
    internal        INTEGER NOT NULL DEFAULT 0 CHECK (internal IN (0, 1)),
    created_at_ms   INTEGER NOT NULL,
    -- The migration that home 1..4 names.
    migration       BLOB,
    home_sealed     BLOB,
    -- Why it is broken or suspended.
    lifecycle_sealed BLOB,
    labels_sealed   BLOB NOT NULL,
    -- The label that makes it a member of a group, and the one that gives it a standby.
    group_name      TEXT,
    standby         TEXT
) STRICT;
CREATE UNIQUE INDEX agent_id ON agent (id) WHERE home < 4;
CREATE INDEX agent_migration ON agent (migration) WHERE migration IS NOT NULL;
CREATE INDEX agent_guarded ON agent (id) WHERE standby IS NOT NULL AND home < 3;
CREATE INDEX agent_group ON agent (group_name, id) WHERE group_name IS NOT NULL AND home < 3;
CREATE INDEX agent_runnable ON agent (key)
    WHERE home = 0 AND (lifecycle = 3 OR (waking_inputs > 0 AND lifecycle = 0)
        OR (pending_outputs > 0 AND lifecycle IN (0, 2, 4, 6)));

-- Complete copies (home 4) of agents of other hosts, each as of one change number.
CREATE TABLE standby (
    agent           TEXT NOT NULL PRIMARY KEY,
    session         BLOB NOT NULL CHECK (length(session) = 16),
    source          BLOB NOT NULL CHECK (length(source) = 32),
    token           INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    change          INTEGER NOT NULL,
    at_ms           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Ids of agents that hosts are about to create, by the wall clock.
CREATE TABLE claim (
    agent           TEXT NOT NULL,
    host            BLOB NOT NULL CHECK (length(host) = 32),
    id              BLOB NOT NULL CHECK (length(id) = 16),
    until_ms        INTEGER NOT NULL,
    PRIMARY KEY (agent, host)
) STRICT, WITHOUT ROWID;

-- The agent's entity key: the public half, and the secret sealed under a key that is not in this file. No secret: of a
-- deleted agent, or of one that came without it.
CREATE TABLE entity_key (
    agent           INTEGER PRIMARY KEY REFERENCES agent (key) ON DELETE CASCADE,
    change          INTEGER NOT NULL,
    public          BLOB NOT NULL CHECK (length(public) = 32),
    secret          BLOB
) STRICT;

CREATE TABLE spec (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    revision        INTEGER NOT NULL,
    change          INTEGER NOT NULL,
    plugin          BLOB NOT NULL CHECK (length(plugin) = 32),
    internal        INTEGER NOT NULL CHECK (internal IN (0, 1)),
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, revision)
) STRICT, WITHOUT ROWID;
CREATE INDEX spec_plugin ON spec (plugin);

-- The authoritative state of an input is in plain columns. A large body and a large outcome lie in input_part, so that staging and
-- ending an input never rewrites a large payload, and finding one never reads the payloads of others; `body` is NULL then, and
-- `outcome_sealed` empty.
CREATE TABLE input (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    seq             INTEGER NOT NULL CHECK (seq > 0),
    change          INTEGER NOT NULL,
    state           INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    attempts        INTEGER NOT NULL,
    deaths          INTEGER NOT NULL,
    accepted_by     INTEGER NOT NULL,
    revision        INTEGER,
    token           INTEGER,
    kind            TEXT NOT NULL,
    id              BLOB NOT NULL CHECK (length(id) = 16),
    key             TEXT,
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    lane            INTEGER NOT NULL CHECK (lane IN (0, 1)),
    wakes           INTEGER NOT NULL CHECK (wakes IN (0, 1)),
    -- A queued input ends as replaced when a newer one of its kind is accepted with the same text here.
    scope           TEXT,
    traceparent     TEXT,
    -- Payload and headers.
    bytes           INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    outcome_sealed  BLOB,
    ended_at_ms     INTEGER,
    body            BLOB,
    PRIMARY KEY (agent, seq),
    CHECK ((state < 2) = (outcome_sealed IS NULL)),
    CHECK ((state < 2) = (ended_at_ms IS NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX input_id ON input (agent, id);
CREATE UNIQUE INDEX input_key ON input (agent, key) WHERE key IS NOT NULL;
CREATE INDEX input_change ON input (agent, change);
CREATE INDEX input_open ON input (agent, seq) WHERE state < 2;
CREATE INDEX input_scope ON input (agent, kind, scope) WHERE scope IS NOT NULL AND state = 0;
CREATE INDEX input_dead_letter ON input (agent, seq) WHERE state = 3;

-- Has a key of its own: rows of a table without one are compared by reading all of them.
CREATE TABLE input_part (
    key             INTEGER PRIMARY KEY,
    agent           INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    -- The body, or the outcome.
    part            INTEGER NOT NULL CHECK (part IN (0, 1)),
    bytes           BLOB NOT NULL,
    UNIQUE (agent, seq, part),
    FOREIGN KEY (agent, seq) REFERENCES input (agent, seq) ON DELETE CASCADE
) STRICT;

-- `body` holds the receipt's canonical bytes, `digest` their BLAKE3.
CREATE TABLE receipt (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL CHECK (revision > 0),
    change          INTEGER NOT NULL,
    kind            INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    incarnation     INTEGER NOT NULL,
    committed_at_ms INTEGER NOT NULL,
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    body            BLOB NOT NULL,
    PRIMARY KEY (agent, generation, revision)
) STRICT, WITHOUT ROWID;

-- What stands for the oldest receipts of a generation, which were removed.
CREATE TABLE receipt_checkpoint (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    generation      INTEGER NOT NULL,
    change          INTEGER NOT NULL,
    revision        INTEGER NOT NULL CHECK (revision > 0),
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, generation)
) STRICT, WITHOUT ROWID;

-- Packed states that are too large for one transaction: put in pieces, each in a transaction of its own, and then named by
-- one snapshot. Keys are never given twice, so that whoever was slow can't name another's.
--
-- state: 0 put, 1 named, 2 dropped (its pieces go when something else is put, or by retention)
CREATE TABLE snapshot_body (
    key             INTEGER PRIMARY KEY AUTOINCREMENT,
    state           INTEGER NOT NULL CHECK (state BETWEEN 0 AND 2),
    put_at_ms       INTEGER NOT NULL
) STRICT;
CREATE INDEX snapshot_body_unnamed ON snapshot_body (state, key) WHERE state <> 1;

CREATE TABLE snapshot_piece (
    key             INTEGER PRIMARY KEY,
    body            INTEGER NOT NULL REFERENCES snapshot_body (key),
    position        INTEGER NOT NULL CHECK (position >= 0),
    bytes           BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX snapshot_piece_place ON snapshot_piece (body, position);

-- The two slots for kept snapshots; the newest is the one with the higher generation and revision. They are tables of one
-- shape, so that a row is found by its integer key. `digest` covers the header columns and the digest of the unpacked state.
-- A large state is in `body` and `state` is empty then. A row that lets go of its body drops it.
CREATE TABLE snapshot (
    agent           INTEGER PRIMARY KEY REFERENCES agent (key) ON DELETE CASCADE,
    change          INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    time_ms         INTEGER NOT NULL,
    plugin_version  TEXT NOT NULL,
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    -- Size of the unpacked state, and whether `state` is zstd.
    bytes           INTEGER NOT NULL,
    packed          INTEGER NOT NULL CHECK (packed IN (0, 1)),
    body            INTEGER REFERENCES snapshot_body (key),
    state           BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX snapshot_of_body ON snapshot (body) WHERE body IS NOT NULL;
CREATE TRIGGER snapshot_replaced AFTER UPDATE OF body ON snapshot
WHEN OLD.body IS NOT NULL AND OLD.body IS NOT NEW.body
BEGIN UPDATE snapshot_body SET state = 2 WHERE key = OLD.body; END;
CREATE TRIGGER snapshot_deleted AFTER DELETE ON snapshot WHEN OLD.body IS NOT NULL
BEGIN UPDATE snapshot_body SET state = 2 WHERE key = OLD.body; END;

CREATE TABLE snapshot_beside (
    agent           INTEGER PRIMARY KEY REFERENCES agent (key) ON DELETE CASCADE,
    change          INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    time_ms         INTEGER NOT NULL,
    plugin_version  TEXT NOT NULL,
    digest          BLOB NOT NULL CHECK (length(digest) = 32),
    bytes           INTEGER NOT NULL,
    packed          INTEGER NOT NULL CHECK (packed IN (0, 1)),
    body            INTEGER REFERENCES snapshot_body (key),
    state           BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX snapshot_beside_of_body ON snapshot_beside (body) WHERE body IS NOT NULL;
CREATE TRIGGER snapshot_beside_replaced AFTER UPDATE OF body ON snapshot_beside
WHEN OLD.body IS NOT NULL AND OLD.body IS NOT NEW.body
BEGIN UPDATE snapshot_body SET state = 2 WHERE key = OLD.body; END;
CREATE TRIGGER snapshot_beside_deleted AFTER DELETE ON snapshot_beside WHEN OLD.body IS NOT NULL
BEGIN UPDATE snapshot_body SET state = 2 WHERE key = OLD.body; END;

-- What running a turn again needs beside its receipt and inputs.
CREATE TABLE journal (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL CHECK (revision > 0),
    change          INTEGER NOT NULL,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, generation, revision)
) STRICT, WITHOUT ROWID;

-- Found by an integer, with the names in an index: where a row is found by its name in the table itself, each comparison on the
-- way to it reads a whole value, which may have many pages.
CREATE TABLE state (
    row             INTEGER PRIMARY KEY,
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    key             TEXT NOT NULL,
    change          INTEGER NOT NULL,
    sealed          BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX state_key ON state (agent, key);
CREATE INDEX state_change ON state (agent, change);

CREATE TABLE output (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    position        INTEGER NOT NULL,
    change          INTEGER NOT NULL,
    destination     TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    committed_at_ms INTEGER NOT NULL,
    state           INTEGER NOT NULL CHECK (state IN (0, 1)),
    reason          INTEGER,
    -- Of a copy of a publication: its position. All others say what they are.
    publication     INTEGER,
    sealed          BLOB,
    PRIMARY KEY (agent, position),
    CHECK ((state = 0) = (reason IS NULL)),
    CHECK ((publication IS NULL) = (sealed IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX output_number ON output (agent, destination, generation, number);

CREATE TABLE destination (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    destination     TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    change          INTEGER NOT NULL,
    next_number     INTEGER NOT NULL,
    -- Pending outputs of the generation.
    waiting         INTEGER NOT NULL DEFAULT 0 CHECK (waiting >= 0),
    PRIMARY KEY (agent, destination, generation)
) STRICT, WITHOUT ROWID;

-- What copies of a publication say, once for all of them; `outputs` are those that are left. It takes a position of its own.
CREATE TABLE publication (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    position        INTEGER NOT NULL,
    outputs         INTEGER NOT NULL CHECK (outputs >= 0),
    channel         TEXT NOT NULL,
    number          INTEGER NOT NULL,
    published_by    TEXT,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, position)
) STRICT, WITHOUT ROWID;

-- The agent's channels; who subscribes to them; and what the agent subscribes to.
CREATE TABLE channel (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    change          INTEGER NOT NULL,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE subscriber (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    channel         TEXT NOT NULL,
    subscriber      TEXT NOT NULL,
    change          INTEGER NOT NULL,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, channel, subscriber)
) STRICT, WITHOUT ROWID;

CREATE TABLE subscription (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    owner           TEXT NOT NULL,
    channel         TEXT NOT NULL,
    change          INTEGER NOT NULL,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, owner, channel)
) STRICT, WITHOUT ROWID;

CREATE TABLE receiver (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    origin          TEXT NOT NULL,
    change          INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    next            INTEGER NOT NULL,
    -- Which agent of that name has sent in this generation: a u64, little endian.
    origin_hash     BLOB CHECK (length(origin_hash) = 8),
    PRIMARY KEY (agent, origin)
) STRICT, WITHOUT ROWID;
CREATE INDEX receiver_origin ON receiver (origin);

-- The agent's side of an edge: the other agent, and whether a roster made it.
CREATE TABLE edge (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    peer            TEXT NOT NULL,
    change          INTEGER NOT NULL,
    managed_by      BLOB CHECK (length(managed_by) = 16),
    PRIMARY KEY (agent, peer)
) STRICT, WITHOUT ROWID;

-- Timers that wait. `revision` is the boundary that set one; `sealed` holds the payload.
CREATE TABLE timer (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    change          INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    at_ms           INTEGER NOT NULL,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX timer_at ON timer (at_ms);

-- Operations that have not ended. `revision` is the boundary that started one, as the `position`-th; `token` is of the
-- owner that has begun it; `sealed` holds the request.
CREATE TABLE operation (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    id              BLOB NOT NULL CHECK (length(id) = 16),
    change          INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    token           INTEGER,
    since_ms        INTEGER NOT NULL,
    cancelled       INTEGER NOT NULL CHECK (cancelled IN (0, 1)),
    sealed          BLOB NOT NULL,
    PRIMARY KEY (agent, id)
) STRICT, WITHOUT ROWID;

-- Rows deleted while a migration is open (at the source), or known to be deleted (in a copy). `key` is the RowKey.
CREATE TABLE tombstone (
    agent           INTEGER NOT NULL REFERENCES agent (key) ON DELETE CASCADE,
    key             BLOB NOT NULL,
    change          INTEGER NOT NULL,
    PRIMARY KEY (agent, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE plugin (
    digest          BLOB PRIMARY KEY CHECK (length(digest) = 32),
    name            TEXT NOT NULL,
    version         TEXT NOT NULL,
    -- Inputs that were given up because the host's process died each time they ran in it.
    killed_hosts    INTEGER NOT NULL DEFAULT 0 CHECK (killed_hosts >= 0),
    sealed          BLOB NOT NULL,
    UNIQUE (name, version)
) STRICT;

CREATE TABLE component (
    digest          BLOB PRIMARY KEY REFERENCES plugin (digest) ON DELETE CASCADE,
    bytes           BLOB NOT NULL
) STRICT;

-- `generation`, `number` and `labels_sealed` were the agent's when it happened; NULL when it was not at home here.
CREATE TABLE event (
    seq             INTEGER PRIMARY KEY,
    agent           TEXT,
    kind            INTEGER NOT NULL,
    at_ms           INTEGER NOT NULL,
    generation      INTEGER,
    number          INTEGER CHECK (number > 0),
    labels_sealed   BLOB,
    sealed          BLOB NOT NULL,
    CHECK ((number IS NULL) = (generation IS NULL)),
    CHECK ((number IS NULL) = (labels_sealed IS NULL))
) STRICT;
CREATE INDEX event_agent ON event (agent, seq) WHERE agent IS NOT NULL;
CREATE INDEX event_number ON event (agent, number) WHERE number IS NOT NULL;

CREATE TABLE migration (
    id              BLOB NOT NULL CHECK (length(id) = 16),
    role            INTEGER NOT NULL CHECK (role IN (0, 1)),
    agent           TEXT NOT NULL,
    -- 2: it was forced, and is open until its source has heard of it; it keeps the agent from no other
    is_open         INTEGER NOT NULL CHECK (is_open IN (0, 1, 2)),
    phase           INTEGER NOT NULL,
    started_at_ms   INTEGER NOT NULL,
    sealed          BLOB NOT NULL,
    PRIMARY KEY (id, role)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX migration_open ON migration (agent, role) WHERE is_open = 1;
CREATE INDEX migration_started ON migration (is_open, started_at_ms);
CREATE INDEX migration_agent ON migration (agent, role, started_at_ms);
-- Those at their target that are over and did not complete.
CREATE INDEX migration_fruitless ON migration (started_at_ms, id) WHERE role = 1 AND is_open = 0 AND phase <> 5;
