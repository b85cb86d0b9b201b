#!/usr/bin/python3
"""Lanes on real servers under a live load: what diverges parks its own table and no other, is told
with table, key and position, and can be mended: resumed, or copied again (killed in the middle of
it, too). A table that changed its shape on the source, and TRUNCATEs.

    lanes.py --binary FILE [--keep] [--only PART]...

The load writes to every table but those keys below RESERVED, which are for the parts themselves.
"""

import argparse
import os
import pathlib
import random
import re
import sys
import threading
import time

import psycopg2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import compare  # noqa: E402
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.lockstep import Lockstep, marked  # noqa: E402
from harness.servers import Server, make_database, make_roles  # noqa: E402

CLIENTS, RESERVED, HEAVY = 3, 1000, 12000
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.plain (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0);
CREATE TABLE shop.parent (id int PRIMARY KEY, v text);
CREATE TABLE shop.child (id int PRIMARY KEY, parent int NOT NULL REFERENCES shop.parent
    ON DELETE CASCADE, v text);
CREATE TABLE shop.parts (id int, kind text, v text, PRIMARY KEY (id, kind))
    PARTITION BY LIST (kind);
CREATE TABLE shop.parts_a PARTITION OF shop.parts FOR VALUES IN ('a');
CREATE TABLE shop.parts_b PARTITION OF shop.parts FOR VALUES IN ('b');
CREATE TABLE shop.log (client int, v text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
CREATE TABLE shop.slots (id int PRIMARY KEY, place int NOT NULL UNIQUE);
CREATE TABLE shop.heavy (id int PRIMARY KEY, v text);
CREATE TABLE shop.fence (n serial PRIMARY KEY);
INSERT INTO shop.plain SELECT i, 'v' || i FROM generate_series(1, %(r)d) i;
INSERT INTO shop.parent SELECT i, 'v' || i FROM generate_series(1, %(r)d) i;
INSERT INTO shop.child SELECT i, i, 'v' || i FROM generate_series(1, %(r)d) i;
INSERT INTO shop.parts SELECT i, chr(97 + i %% 2), 'v' || i FROM generate_series(1, %(r)d) i;
INSERT INTO shop.slots SELECT i, i FROM generate_series(1, 100) i;
INSERT INTO shop.heavy SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, %(h)d) i;
GRANT USAGE ON SCHEMA shop TO app;
GRANT ALL ON ALL TABLES IN SCHEMA shop TO app;
""" % {"r": RESERVED, "h": HEAVY}
# A throttle, so that a copy of shop.heavy lasts long enough to be killed in.
CONFIG = """tables: {include: [shop.*]}
snapshot: {workers: 2, max_rate: 2MiB}
apply: {on_error: %s}
"""
LSN = r"\b[0-9A-F]+/[0-9A-F]+\b"


class Load:
    """A few clients with small transactions over all tables; each has keys of its own."""

    def __init__(self, server):
        self.server = server
        self.over = threading.Event()
        self.trouble = []
        self.done = 0
        self.threads = [threading.Thread(target=self.run, args=(i + 1,), daemon=True)
                        for i in range(CLIENTS)]
        for t in self.threads:
            t.start()

    def run(self, client):
        rng = random.Random(client)
        conn = psycopg2.connect(f"host=127.0.0.1 port={self.server.port} dbname=shop user=app "
                                "password=app-secret connect_timeout=5")
        try:
            while not self.over.wait(0.02):
                try:
                    with conn, conn.cursor() as cur:
                        for _ in range(rng.randint(1, 4)):
                            self.write(cur, rng, client)
                    self.done += 1
                except psycopg2.errors.DeadlockDetected:  # with a TRUNCATE or an ALTER of a part
                    continue
        except Exception as e:
            if not self.over.is_set():
                self.trouble.append(repr(e))
        finally:
            conn.close()

    @staticmethod
    def write(cur, rng, client):
        key = client * 10000 + rng.randint(1, 300)
        word = f"w{rng.randint(1, 9)}"
        one = {"k": key, "w": word, "c": client, "h": rng.randint(RESERVED, HEAVY),
               "kind": rng.choice("ab")}
        cur.execute(rng.choice((
            "INSERT INTO shop.plain (id, v) VALUES (%(k)s, %(w)s) ON CONFLICT (id) DO UPDATE "
            "SET v = excluded.v, n = plain.n + 1",
            "DELETE FROM shop.plain WHERE id = %(k)s",
            "INSERT INTO shop.parent VALUES (%(k)s, %(w)s) ON CONFLICT DO NOTHING",
            "UPDATE shop.parent SET v = %(w)s WHERE id = %(k)s",
            "INSERT INTO shop.child SELECT id, id, %(w)s FROM shop.parent WHERE id = %(k)s "
            "ON CONFLICT DO NOTHING",
            "DELETE FROM shop.parent WHERE id = %(k)s",
            "INSERT INTO shop.parts VALUES (%(k)s, %(kind)s, %(w)s) ON CONFLICT DO NOTHING",
            "UPDATE shop.parts p SET kind = %(kind)s, v = %(w)s WHERE id = %(k)s AND NOT EXISTS "
            "(SELECT FROM shop.parts o WHERE o.id = p.id AND o.kind = %(kind)s)",
            "DELETE FROM shop.parts WHERE id = %(k)s",
            "INSERT INTO shop.log SELECT %(c)s, %(w)s FROM generate_series(1, 2)",
            "UPDATE shop.log SET v = v || '!' WHERE ctid = (SELECT ctid FROM shop.log "
            "WHERE client = %(c)s AND v = %(w)s LIMIT 1)",
            "DELETE FROM shop.log WHERE ctid = (SELECT ctid FROM shop.log "
            "WHERE client = %(c)s AND v = %(w)s LIMIT 1)",
            "UPDATE shop.heavy SET v = %(w)s || v WHERE id = %(h)s",
        )), one)

    def must_live(self):
        if self.trouble:
            raise Failure(f"the load broke down: {self.trouble[0]}")

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(20)
        self.must_live()


class Lanes:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(None, "lockstep-lanes-")
        self.began = time.monotonic()

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def set_up(self):
        servers = []
        for side in ("source", "target"):
            server = Server(self.workdir.path, side)
            self.cleanup.add(lambda s=server: s.stop("immediate"))
            server.init()
            server.start()
            make_roles(server, side)
            make_database(server, side, "shop")
            servers.append(server)
        self.source, self.target = servers
        self.source.psql("shop", user="shop_owner", input=SCHEMA)
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "lanes",
                                 self.source, self.target)
        self.cleanup.add(self.lockstep.end)
        self.lockstep.config(CONFIG % "park")
        self.load = Load(self.source)
        self.cleanup.add(self.load.over.set)
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 60)
        self.say("following")

    # ---- what the parts are made of ----

    def on_source(self, sql):
        """As the owner: one transaction, again if it met the load in a deadlock."""
        for again in (True, True, True, False):
            try:
                return self.source.psql("shop", "-1", user="shop_owner", input=sql)
            except Failure as e:
                if not again or "deadlock detected" not in str(e):
                    raise

    def on_target(self, sql):
        self.target.psql("shop", "-1", input=sql)

    def lanes(self):
        got = self.lockstep.status()
        return {t["name"]: t for t in got["tables"]} if got else {}

    def alive(self):
        self.lockstep.must_live()
        self.load.must_live()

    def wait_lane(self, table, state, seconds=60):
        def probe():
            self.alive()
            lane = self.lanes().get(table)
            if lane and lane["lane"] == "parked" and state != "parked":
                raise Failure(f"{table} is parked instead of {state}: {lane['reason']}")
            return lane if lane and lane["lane"] == state else None
        return until(f"{table} is {state}", seconds, probe, every=0.05)

    def caught_up(self, seconds=30):
        """What follows has everything that the source had just now."""
        n = self.source.value("INSERT INTO shop.fence DEFAULT VALUES RETURNING n", "shop")

        def there():
            self.alive()
            return self.target.query("SELECT 1 FROM shop.fence WHERE n = %s", "shop", (n,))
        until("what follows goes on", seconds, there, every=0.03)

    def parked(self, table, *words):
        """It and no other parks, with all the words in its reason; the others go on."""
        lane = self.wait_lane(table, "parked")
        self.caught_up()
        for word in (*words, table):
            if not re.search(word, lane["reason"]):
                raise Failure(f"{table}: the reason does not say {word!r}: {lane['reason']}")
        others = [n for n, t in self.lanes().items() if t["lane"] != "following" and n != table]
        if others:
            raise Failure(f"{', '.join(others)} were taken off the stream with {table}")
        told = [l for l in self.lockstep.must("tables", "list").splitlines()
                if l.split()[:2] == [table, "parked"]]
        if not told or lane["reason"] not in told[0]:
            raise Failure(f"tables list does not tell: {told}")
        return lane["reason"]

    def ask(self, verb, table):
        """tables VERB: also when the command, on a busy machine, did not see it obeyed."""
        if "asked for" in self.lockstep.must("tables", verb, table):
            until(f"{verb} {table} is obeyed", 60, lambda: not self.target.query(
                "SELECT 1 FROM lockstep.fact WHERE kind = 'request' AND key = %s", "shop",
                (f"{verb}/{table}",)))

    def resume(self, table):
        self.ask("resume", table)
        self.wait_lane(table, "following")

    def recopy(self, table, seconds=60):
        self.ask("recopy", table)
        self.wait_lane(table, "following", seconds)

    def verify(self):
        out = self.lockstep.must("verify", timeout=60)
        if out.strip().splitlines()[-1] != "differences 0":
            raise Failure(out[-1500:])

    # ---- the parts ----

    def divergence(self):
        self.on_target("DELETE FROM shop.plain WHERE id = 7")
        self.on_source("UPDATE shop.plain SET v = 'new' WHERE id = 7; UPDATE shop.plain SET n = 3 "
                       "WHERE id = 8")
        reason = self.parked("shop.plain", r"\(7\)", LSN, "update")
        self.say(f"row missing: {reason}")
        self.on_target("INSERT INTO shop.plain VALUES (7, 'v7', 0)")
        self.resume("shop.plain")

        self.on_target("INSERT INTO shop.parent VALUES (-5, 'not the source''s')")
        self.on_source("INSERT INTO shop.parent VALUES (-5, 'x')")
        reason = self.parked("shop.parent", r"\(-5\)", LSN, "insert")
        self.say(f"key there already: {reason}")
        self.on_target("DELETE FROM shop.parent WHERE id = -5")
        self.resume("shop.parent")

        self.on_target("ALTER TABLE shop.plain ADD CONSTRAINT no_evil CHECK (v <> 'evil')")
        self.on_source("UPDATE shop.plain SET v = 'evil' WHERE id = 9")
        reason = self.parked("shop.plain", r"\(9\)", LSN, "no_evil")
        self.say(f"value refused: {reason}")
        self.on_target("ALTER TABLE shop.plain DROP CONSTRAINT no_evil")
        self.resume("shop.plain")
        self.verify()

    def row_by_row(self):
        """What the target refuses as sets goes row by row; counts are looked at there as well."""
        swap = ("UPDATE shop.slots SET place = -1 WHERE id = 1;"
                "UPDATE shop.slots SET place = 3 - place WHERE id = 2;"
                "UPDATE shop.slots SET place = (SELECT 3 - place FROM shop.slots WHERE id = 2) "
                "WHERE id = 1;")
        for what, sql, place in (
                ("in the batch of a swap",
                 swap + "UPDATE shop.slots SET place = 1050 WHERE id = 50", 50),
                ("behind a swap", "UPDATE shop.slots SET place = 2050 WHERE id = 50", 1050),
                ("a DELETE behind a swap", "DELETE FROM shop.slots WHERE id = 50", 2050)):
            self.on_source(swap)
            self.caught_up()
            self.on_target("DELETE FROM shop.slots WHERE id = 50")
            self.on_source(sql)
            reason = self.parked("shop.slots", r"\(50\)", LSN, "met 0 rows")
            self.say(f"{what}: {reason}")
            self.on_target(f"INSERT INTO shop.slots VALUES (50, {place})")
            self.resume("shop.slots")
        self.verify()

    def stops(self):
        """on_error: stop."""
        self.lockstep.stop()
        self.lockstep.config(CONFIG % "stop")
        self.on_target("DELETE FROM shop.plain WHERE id = 17")
        self.on_source("INSERT INTO shop.parent VALUES (-17, 'x');"
                       "UPDATE shop.plain SET v = 'new' WHERE id = 17;"
                       "INSERT INTO shop.child VALUES (-17, -17, 'x')")
        code, out, err = self.lockstep.do("run", timeout=60)
        if code != 1 or not re.search(r"shop\.plain.*\(17\)", err):
            raise Failure(f"on_error: stop: exit {code}\n{out[-800:]}{err[-800:]}")
        if self.target.query("SELECT FROM shop.parent WHERE id = -17 UNION ALL "
                             "SELECT FROM shop.child WHERE id = -17", "shop"):
            raise Failure("on_error: stop: a part of the batch is on the target")
        self.say("on_error stop: exit 1, named, nothing of the batch is there")
        self.on_target("INSERT INTO shop.plain VALUES (17, 'v17', 0)")
        self.lockstep.config(CONFIG % "park")
        self.lockstep.start()
        self.caught_up()

    def copies_again(self):
        for table in ("shop.plain", "shop.parent", "shop.parts_a", "shop.log", "shop.log"):
            self.ask("park", table)
            self.wait_lane(table, "parked")
            self.ask("resume", table)
            self.wait_lane(table, "following")
            # As replica, or the cascade would empty the referring table too.
            self.on_target("SET LOCAL session_replication_role = replica; "
                           f"DELETE FROM ONLY {table}")
            self.recopy(table)
        for _ in range(2):
            self.ask("recopy", "shop.plain")
        self.wait_lane("shop.plain", "following")
        self.verify()
        self.say("recopied while it was written to: plain, referred to, a leaf, without a key")

    def is_claimed(self, table):
        return self.target.query(
            "SELECT 1 FROM lockstep.fact WHERE kind = 'chunk' AND body ->> 'table' = %s "
            "AND body ->> 'state' = 'claimed'", "shop", (table,))

    def copy_killed(self, moment):
        """The lane that tells that the kill was too late: we may stand still, and the copy be made."""
        self.ask("recopy", "shop.heavy")
        if moment == "being copied":
            self.worker_copies()
        self.lockstep.kill()
        until("no child is left", 10, lambda: not marked(self.lockstep.folder), every=0.02)
        lane = until("status tells the lanes", 20, self.lanes)["shop.heavy"]["lane"]
        copies = lane == "loading" and (moment == "asked for" or self.is_claimed("shop.heavy"))
        return None if copies else lane

    def worker_copies(self):
        """Until it does, or did."""
        def probe():
            return (self.is_claimed("shop.heavy") or
                    self.lanes().get("shop.heavy", {}).get("lane") == "following")
        until("a worker copies it", 60, probe, every=0.02)
        time.sleep(0.2)

    def copying_killed(self):
        """Right behind the request, and while a worker copies: its chunk is taken over once its
        claim has lapsed."""
        for moment in ("asked for", "being copied"):
            for left in reversed(range(5)):
                lane = self.copy_killed(moment)
                self.lockstep.start()
                self.wait_lane("shop.heavy", "following")
                if not lane:
                    break
                if not left:
                    raise Failure(f"not killed while {moment}: its lane is {lane}")
        self.verify()
        self.say("killed when a copy was asked for, and in the middle of it")

    def not_following(self):
        """While a lane is parked: exit 3 of --until caught-up, 4 of cutover."""
        self.ask("park", "shop.child")
        self.wait_lane("shop.child", "parked")
        code, out, err = self.lockstep.do("cutover", "--yes", timeout=60)
        if code != 4 or "shop.child" not in out + err:
            raise Failure(f"cutover with a parked table: exit {code}\n{out[-800:]}{err[-800:]}")
        self.lockstep.stop()
        code, out, err = self.lockstep.do("run", "--until", "caught-up", timeout=60)
        if code != 3:
            raise Failure(f"run --until caught-up: exit {code}\n{out[-800:]}{err[-800:]}")
        self.lockstep.start()
        self.caught_up()
        self.resume("shop.child")
        self.say("with a parked table cutover refuses (4), --until caught-up ends with 3")

    def truncates(self):
        self.on_source("INSERT INTO shop.plain VALUES (-1, 'before'); TRUNCATE shop.plain;"
                       "INSERT INTO shop.plain VALUES (-2, 'after')")
        self.on_source("TRUNCATE shop.parent CASCADE; INSERT INTO shop.parent VALUES (-3, 'after')")
        self.on_source("TRUNCATE shop.parts_b")
        self.caught_up()
        if self.target.query("SELECT 1 FROM shop.parent WHERE id BETWEEN 1 AND %s", "shop",
                             (RESERVED,)):
            raise Failure("TRUNCATE CASCADE did not arrive")
        self.verify()
        self.say("TRUNCATE of one, of two with CASCADE, of a leaf")

    def new_shape(self):
        """A changed table is copied again in its new shape, once the target's is changed alike."""
        self.on_source("ALTER TABLE shop.plain ADD COLUMN extra text DEFAULT 'd'")
        reason = self.parked("shop.plain", '"extra"', "tables recopy")
        self.say(f"a column more: {reason}")
        code, out, err = self.lockstep.do("tables", "recopy", "shop.plain")
        if code != 4 or "extra" not in err:
            raise Failure(f"recopy without the target's change: exit {code}: {out}{err}")
        if not self.target.value("SELECT count(*) FROM shop.plain", "shop"):
            raise Failure("a refused recopy has emptied the table")
        self.on_target("SET ROLE lockstep; ALTER TABLE shop.plain ADD COLUMN extra text")
        self.recopy("shop.plain")
        self.on_source("UPDATE shop.plain SET extra = 'x' || id WHERE id < 50")
        self.caught_up()
        self.verify()
        self.say("copied again in the new shape, and followed")

        # Nothing has told of the new shape yet, and the process dies on the way.
        for side in (self.on_target, self.on_source):
            side("ALTER TABLE shop.slots ADD COLUMN note text")
        self.ask("recopy", "shop.slots")
        self.lockstep.kill()
        self.on_source("UPDATE shop.slots SET note = 'n' WHERE id = 5")
        self.lockstep.start()
        self.wait_lane("shop.slots", "following")

        self.on_source("ALTER TABLE shop.parts ALTER COLUMN v TYPE varchar(40)")
        for leaf in ("shop.parts_a", "shop.parts_b"):
            self.wait_lane(leaf, "parked")
        self.on_target("ALTER TABLE shop.parts ALTER COLUMN v TYPE varchar(40)")
        for leaf in ("shop.parts_a", "shop.parts_b"):
            self.recopy(leaf)

        self.on_source("ALTER TABLE shop.child DROP COLUMN v; "
                       "ALTER TABLE shop.child ADD COLUMN v text")
        self.on_target("ALTER TABLE shop.child DROP COLUMN v; "
                       "ALTER TABLE shop.child ADD COLUMN v text")
        self.recopy("shop.child")
        self.caught_up()
        self.verify()
        self.say("so are one that died on the way, the leaves of a changed root, a column made anew")

        self.on_source("ALTER TABLE shop.fence RENAME TO fence_old; CREATE TABLE shop.fence "
                       "(n int PRIMARY KEY DEFAULT nextval('shop.fence_n_seq')); "
                       "GRANT ALL ON shop.fence TO app")
        code, out, err = self.lockstep.do("tables", "recopy", "shop.fence")
        if code != 4 or "new table has taken its name" not in err:
            raise Failure(f"recopy of another table of that name: exit {code}: {out}{err}")
        self.on_source("DROP TABLE shop.fence; ALTER TABLE shop.fence_old RENAME TO fence")
        self.recopy("shop.fence")
        self.caught_up()

    def rewritten(self):
        """Rows that ALTER TABLE rewrote are in no log; names and types are as they were."""
        self.on_source("ALTER TABLE shop.heavy ALTER COLUMN v TYPE text USING upper(v)")
        reason = self.parked("shop.heavy", "rows were rewritten")
        self.say(f"rewritten in place: {reason}")
        self.on_target("ALTER TABLE shop.heavy ALTER COLUMN v TYPE text USING upper(v)")
        self.recopy("shop.heavy")
        # As they were, but in another file; and a column altered without its rows.
        self.source.psql("shop", user="shop_owner", input="VACUUM FULL shop.parent")
        self.on_source("ALTER TABLE shop.plain ALTER COLUMN n SET DEFAULT 0")
        self.on_source("UPDATE shop.parent SET v = 'w' WHERE id < 9;"
                       "UPDATE shop.plain SET n = n + 1 WHERE id < 9")
        self.caught_up()
        self.verify()
        # A table that nobody writes to: no log tells, the guard does.
        change = "ALTER TABLE shop.slots DROP COLUMN IF EXISTS w, ADD COLUMN w int DEFAULT 7"
        for n in range(2):
            self.on_source(change)
            code, out, err = self.lockstep.do("cutover", "--yes", timeout=60)
            word = "made again" if n else "not planned"
            if code != 4 or "shop.slots is not what was planned" not in err or word not in err:
                raise Failure(f"cutover with a rewritten table: exit {code}\n{out}{err}")
            self.on_target(change)
            self.recopy("shop.slots")
        self.verify()
        self.say("said by cutover, of a table that nobody writes to; VACUUM FULL is nothing")

    def new_partition(self):
        self.on_source("CREATE TABLE shop.parts_c PARTITION OF shop.parts FOR VALUES IN ('c');"
                       "INSERT INTO shop.parts VALUES (1, 'c', 'x')")
        for leaf in ("shop.parts_a", "shop.parts_b"):
            lane = self.wait_lane(leaf, "parked")
            if "shop.parts_c" not in lane["reason"]:
                raise Failure(f"{leaf}: the reason does not name the partition: {lane['reason']}")
        self.caught_up()
        self.say(f"a new partition: {lane['reason']}")
        code, out, err = self.lockstep.do("cutover", "--yes", timeout=60)
        if code != 4 or "has a partition shop.parts_c that was not planned" not in err:
            raise Failure(f"cutover with a partition more: exit {code}\n{out}{err}")

    PARTS = ("divergence", "row_by_row", "stops", "copies_again", "copying_killed",
             "not_following", "truncates", "new_shape", "rewritten",
             "new_partition")

    def equal(self):
        self.load.stop()
        self.caught_up()
        bad, tables = compare.differing(self.source, self.target, skip=(
            "shop.parts_a", "shop.parts_b", "shop.parts_c"))
        if bad:
            raise Failure(f"differences in {', '.join(bad)}")
        self.lockstep.stop()
        return tables

    def go(self):
        self.set_up()
        for part in self.PARTS:
            if not self.args.only or part in self.args.only:
                getattr(self, part)()
        tables = self.equal()
        print(f"{tables} tables equal after {self.load.done} transactions, "
              f"{time.monotonic() - self.began:.0f} s")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--only", action="append", choices=Lanes.PARTS)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    run = Lanes(args, cleanup)
    state = {"ok": False}
    cleanup.add(lambda: run.workdir.remove() if state["ok"] and not args.keep else
                print(f"kept: {run.workdir.path} (migration/run.log, source/server.log, …)"))
    run.go()
    state["ok"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
