"""Commit order is not the order of becoming visible. With synchronous_standby_names naming a standby
that is not there, a transaction is in the log, decoded and streamed, and new snapshots still do not
see it. A chunk read just then has the old row; an LSN comparison calls the change old; lost update.

The table gets its chunk's cut after the start of the stream: the migration is stopped once its slot
exists and before the chunk is read, so that the common snapshot is gone when it goes on.
"""

import threading

import psycopg2

from harness.base import Failure, until

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL);
INSERT INTO t SELECT i, 'old' FROM generate_series(1, 60000) i;
CREATE TABLE other (id int PRIMARY KEY, v text);
INSERT INTO other SELECT i, repeat('x', 300) FROM generate_series(1, 20000) i;
"""
HUNG = """
SET synchronous_commit = on;
UPDATE t SET v = 'hung' WHERE id % 100 = 1;
DELETE FROM t WHERE id % 100 = 2;
INSERT INTO t VALUES (100001, 'hung'), (-5, 'hung');
"""


def hang(s, done):
    """A commit that waits for the standby; it returns when the setting is taken back."""
    conn = psycopg2.connect(host=str(s.source.home), port=s.source.port, dbname=s.database,
                            user="shop_owner")
    conn.cursor().execute(HUNG)
    conn.commit()
    conn.close()
    done.set()


def commits_wait(s):
    """The postmaster tells of the setting; the checkpointer, which makes commits wait, reads it in its
    own time. A commit of the trap that came before it would not hang: others are sent ahead, each a
    connection of its own, until one is seen to wait."""
    sent = None

    def send():
        try:
            s.source.query("SET synchronous_commit = on; INSERT INTO awaited VALUES (1)")
        except psycopg2.Error:  # the server is stopped behind a trap that failed
            pass

    def seen():
        nonlocal sent
        if sent is None or not sent.is_alive():
            sent = threading.Thread(target=send, daemon=True)
            sent.start()
        return s.source.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                              " AND datname = 'postgres'")
    until("durable commits wait", 60, seen, every=0.02)


def standby(s, names):
    s.source.query(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    s.source.query("SELECT pg_reload_conf()")
    until("the setting is in force", 20, lambda: s.source.value(
        "SHOW synchronous_standby_names") == names)


def run(s):
    s.prepare()
    s.source.psql(s.database, input=SETUP, user="shop_owner")
    # Slow enough that chunks are still to be read when the transaction hangs.
    s.lockstep.config("snapshot: {workers: 1, chunk_size: 1MiB, max_rate: 300KiB}\n")
    s.lockstep.start()
    until("the first chunk is being loaded", 60, lambda: (s.lockstep.must_live() or (
        s.lockstep.status() or {}).get("phase") == "snapshot"))
    # Without its process the common snapshot is gone: the rest gets cuts of its own.
    s.lockstep.kill()
    slot = f"lockstep_{s.lockstep.migration}"
    until("the slot is free", 20, lambda: s.source.value(
        "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s", args=(slot,)))
    done = threading.Event()
    s.source.query("CREATE TABLE awaited (n int)")
    try:
        standby(s, "absent")
        commits_wait(s)
        thread = threading.Thread(target=hang, args=(s, done), daemon=True)
        thread.start()
        until("the commit hangs", 60, lambda: s.source.query(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ILIKE 'COMMIT%%'"
            " AND datname = %s", args=(s.database,)))
        seen = s.source.value("SELECT count(*) FROM t WHERE v = 'hung'", s.database)
        if seen:
            raise Failure("the trap is not set: the hanging transaction is visible")
        committed = s.source.value("SELECT pg_current_wal_flush_lsn()")
        s.lockstep.config("snapshot: {workers: 1, chunk_size: 1MiB}\n")
        s.lockstep.start()
        # All chunks are read while the transaction is in the log and unseen, and captured.
        until("all chunks are loaded", 120, lambda: (s.lockstep.must_live() or (
            s.lockstep.status() or {}).get("phase") in ("catching_up", "following")))
        until("the hanging transaction is captured", 60, lambda: s.source.value(
            "SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots WHERE slot_name = %s",
            args=(committed, slot)))
        if done.is_set():
            raise Failure("the transaction did not hang until the chunks were read")
    finally:
        standby(s, "")
    until("the commit returns", 30, done.is_set)
    s.source.query("DROP TABLE awaited")
    s.lockstep.wait_phase(("following",), 120)
    s.lockstep.stop()
    s.caught_up()
    s.must_be_equal()
    wrong = s.target.value("SELECT count(*) FROM t WHERE v = 'hung'", s.database)
    if wrong != 602:
        raise Failure(f"{wrong} rows of the hung transaction are on the target, not 602")
    s.finish()
