#!/usr/bin/python3
"""kill -9 at random moments of one migration under load, and servers that crash; restarted each
time. At the end nothing may differ, no chunk may have been committed twice, no child may be left.

    kill_run.py --binary FILE [--kills 30] [--seed N] [--keep]

The moments are drawn per phase. A moment counts for the phase that `status` names once the process
is dead, when nothing can move any more. Chunks are counted on the target by a trigger of ours.
"""

import argparse
import json
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import compare  # noqa: E402
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.lockstep import Lockstep, command_name, marked  # noqa: E402
from harness.servers import Server, make_database, make_roles  # noqa: E402
from harness.traffic import Traffic  # noqa: E402

ORDERS, SCALE = 50_000, 1
# Of 30 kills; fewer are scaled down, at least one each.
QUOTA = {"schema": 3, "chunks": 12, "overlap": 9, "following": 6}
PHASES = {None: "schema", "schema": "schema", "snapshot": "chunks", "catching_up": "overlap",
          "following": "following", "prepared": "following"}
# Slow chunks, so that they can be killed in and much has to be replayed; small batches, so that the
# replay takes its time.
CONFIG = """tables:
  include: [shop.*, public.*, extra.*]
snapshot: {workers: 2, chunk_size: 1MiB, max_rate: 1MiB}
apply: {batch: 64KiB}
"""

# Many small tables, so that the schema takes long enough to be killed in; half of them with an
# index that is built behind the load.
EXTRA = "CREATE SCHEMA extra;" + "".join(
    f"CREATE TABLE extra.t{i} (id int PRIMARY KEY, v text DEFAULT 'x', n int);"
    f"INSERT INTO extra.t{i} VALUES (1), (2);" for i in range(160)) + "".join(
    f"CREATE INDEX ON extra.t{i} (n);" for i in range(80))

# Every table that appears on the target gets a trigger that notes each COPY into it. What is rolled
# back leaves no note; emptying a table in order to begin it anew takes its notes along.
AUDIT = """
CREATE SCHEMA audit;
GRANT USAGE ON SCHEMA audit TO PUBLIC;
CREATE TABLE audit.copies (xid xid8, name text, n bigint);
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM audit.copies WHERE name = TG_RELID::regclass::text;
    ELSIF current_query() ILIKE 'COPY %' AND NOT EXISTS (
        SELECT 1 FROM pg_index WHERE indrelid = TG_RELID AND indisprimary) THEN
        INSERT INTO audit.copies
        SELECT pg_current_xact_id(), TG_RELID::regclass::text, count(*) FROM fresh;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION audit.watch() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE made record;
BEGIN
    FOR made IN SELECT c.oid::regclass AS t FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE d.classid = 'pg_class'::regclass AND c.relkind = 'r'
          AND n.nspname IN ('shop', 'public', 'extra')
          AND NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = c.oid AND tgname = 'audit_in')
    LOOP
        EXECUTE format('CREATE TRIGGER audit_in AFTER INSERT ON %s REFERENCING NEW TABLE AS fresh'
            ' FOR EACH STATEMENT EXECUTE FUNCTION audit.note()', made.t);
        EXECUTE format('CREATE TRIGGER audit_out AFTER TRUNCATE ON %s'
            ' FOR EACH STATEMENT EXECUTE FUNCTION audit.note()', made.t);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_in', made.t);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER audit_out', made.t);
    END LOOP;
END $$;
CREATE EVENT TRIGGER audit_watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
EXECUTE FUNCTION audit.watch();
"""


def scaled(kills):
    quota = {p: max(1, round(n * kills / 30)) for p, n in QUOTA.items()}
    quota["chunks"] += kills - sum(quota.values())
    return quota


class KillRun:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.rng = random.Random(args.seed)
        self.workdir = Workdir(args.workdir, "lockstep-kill-")
        self.quota = scaled(args.kills)
        self.done = dict.fromkeys(self.quota, 0)
        self.crashes = [("chunks", "source"), ("chunks", "target"), ("overlap", "source"),
                        ("overlap", "target"), ("following", self.rng.choice(("source", "target")))]
        self.began = time.monotonic()

    def set_up(self):
        self.servers = {}
        for side in ("source", "target"):
            server = Server(self.workdir.path, side)
            self.cleanup.add(lambda s=server: s.stop("immediate"))
            server.init()
            server.start()
            make_roles(server, side)
            make_database(server, side, "shop")
            self.servers[side] = server
        source, target = self.servers["source"], self.servers["target"]
        source.psql("shop", user="shop_owner", input=EXTRA)
        source.pgbench_init("shop", SCALE)
        source.psql("shop", "-v", f"orders={ORDERS}", "-f",
                    str(pathlib.Path(__file__).parents[1] / "load" / "shop.sql"),
                    user="shop_owner")
        target.psql("shop", input=AUDIT)
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "shop", source,
                                 target)
        self.lockstep.config(CONFIG)
        self.cleanup.add(self.lockstep.end)
        self.traffic = Traffic(self.workdir.path / "load", f"host=127.0.0.1 port={source.port} "
                               "dbname=shop user=app password=app-secret connect_timeout=5",
                               ORDERS, SCALE, rate=350, seed=self.args.seed)
        self.cleanup.add(self.traffic.end)

    def say(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def phase(self):
        """Where the migration stands; None while the target cannot tell."""
        got = self.lockstep.none_parked(self.lockstep.status())
        return PHASES.get(got["phase"], got["phase"]) if got else None

    def dead_phase(self):
        """The phase of a migration whose process is dead; a status that is refused means that
        nothing was recorded yet."""
        code, out, _ = self.lockstep.do("status", "--json", timeout=30)
        if code == 4:
            return "schema"
        return PHASES.get(json.loads(out)["phase"]) if code == 0 else None

    def kill_after(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.lockstep.must_live()
            time.sleep(0.005)
        children = sorted({command_name(p) for p in marked(self.lockstep.folder)
                           if p != self.lockstep.process.pid})
        self.lockstep.kill()
        phase = until("status tells the phase", 60, self.dead_phase)
        self.done[phase] = self.done.get(phase, 0) + 1
        beside = f", beside {', '.join(children)}" if children else ""
        self.say(f"kill {sum(self.done.values())}: {seconds * 1000:.0f} ms on, in {phase}{beside}")
        until("no child outlives its parent", 10,
              lambda: not marked(self.lockstep.folder), every=0.02)
        self.lockstep.start()
        return phase

    def schema_kills(self):
        """The schema's steps are short: the moments are counted from the start of the process."""
        self.lockstep.start()
        while self.done["schema"] < self.quota["schema"]:
            phase = self.kill_after(self.rng.uniform(0.02, 0.9))
            if phase != "schema":
                self.is_over("schema")

    def is_over(self, phase):
        """A machine that stood still may have left fewer moments to a phase, but some; what is missing
        is made up for at the end."""
        if self.done[phase] == 0:
            raise Failure(f"{phase} was over before a kill, wanted {self.quota[phase]}")
        self.say(f"{phase} was over after {self.done[phase]} kills of {self.quota[phase]}")
        self.quota["following"] += self.quota[phase] - self.done[phase]
        self.quota[phase] = self.done[phase]
        self.crashes = [("following" if at == phase else at, side) for at, side in self.crashes]

    def wait_for(self, phase, seconds=400):
        """Until it is that phase; false if it is over."""
        def probe():
            self.lockstep.must_live()
            self.traffic.must_live()
            now = self.phase()
            order = list(self.quota)
            if now in order and order.index(now) > order.index(phase):
                self.is_over(phase)
                return "over"
            return now == phase
        return until(f"phase {phase}", seconds, probe, every=0.1) != "over"

    def crash(self, phase):
        for at, side in [c for c in self.crashes if c[0] == phase]:
            if not self.wait_for(phase):
                break
            time.sleep(self.rng.uniform(0.05, 0.5))
            self.say(f"the {side} crashes, in {phase}")
            self.servers[side].crash_restart()
            self.servers[side].wait_ready()
            self.lockstep.must_live()
            self.crashes.remove((at, side))

    def phase_kills(self, phase):
        half = self.quota[phase] // 2
        while self.done[phase] < self.quota[phase]:
            if self.done[phase] == half:
                self.crash(phase)
            if not self.wait_for(phase):
                break
            self.kill_after(self.rng.uniform(0.0, 0.4 if phase == "overlap" else 1.2))
        self.crash(phase)

    def chunks_committed_once(self):
        target = self.servers["target"]
        seen = dict((n, (c, r)) for n, c, r in target.query(
            "SELECT name, count(*), sum(n)::bigint FROM audit.copies WHERE n > 0 GROUP BY 1",
            "shop"))
        planned = dict((n, (c, r)) for n, c, r in target.query(
            "SELECT body ->> 'table', count(*), sum((body ->> 'rows')::bigint)::bigint"
            " FROM lockstep.fact WHERE kind = 'chunk' AND (body ->> 'rows')::bigint > 0"
            " AND key ~ '/[0-9]+-[0-9]+$' GROUP BY 1", "shop"))
        total = sum(c for c, _ in seen.values())
        plain = {n.replace('"', ''): v for n, v in seen.items()}
        plain = {n if "." in n else f"public.{n}": v for n, v in plain.items()}
        wrong = [f"{n}: (chunks, rows) planned {planned.get(n)}, committed {plain.get(n)}"
                 for n in sorted(set(plain) | set(planned)) if planned.get(n) != plain.get(n)]
        if wrong or not total:
            raise Failure("chunks were not committed exactly once: " + "; ".join(wrong))
        self.say(f"{total} chunks, each committed exactly once by the target's own count")

    def go(self):
        self.set_up()
        self.say(f"seed {self.args.seed}, kills {self.quota}")
        self.schema_kills()
        self.phase_kills("chunks")
        self.phase_kills("overlap")
        self.phase_kills("following")
        self.wait_for("following")
        self.chunks_committed_once()
        out = self.lockstep.must("verify", timeout=240)
        if out.strip().splitlines()[-1] != "differences 0":
            raise Failure(out[-2000:])
        self.traffic.pause()
        source, target = self.servers["source"], self.servers["target"]
        source.psql("shop", input="INSERT INTO shop.receipts VALUES (0, 1, 'fence', now())")
        until("the target has the last row", 120, lambda: target.query(
            "SELECT 1 FROM shop.receipts WHERE client = 0", "shop"))
        target.query("DROP SCHEMA audit CASCADE", "shop")
        bad, tables = compare.differing(source, target)
        if bad:
            raise Failure(f"differences in {', '.join(bad)}")
        self.traffic.resume()
        self.traffic.stop()
        self.lockstep.must("finish", "--abandon", "--yes")
        until("run ends after finish", 30, lambda: not self.lockstep.alive())
        if marked(self.lockstep.folder):
            raise Failure("processes are left behind")
        self.say(f"{tables} tables equal")
        print(f"seed {self.args.seed}: {sum(self.done.values())} kills "
              f"({', '.join(f'{n} in {p}' for p, n in self.done.items())}), 5 server crashes, "
              "differences 0")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--workdir")
    args = parser.parse_args()
    args.binary = pathlib.Path(args.binary).resolve()
    run = KillRun(args, cleanup)
    state = {"ok": False}
    cleanup.add(lambda: run.workdir.remove() if state["ok"] and not args.keep else
                print(f"kept: {run.workdir.path} (migration/run.log, source/server.log, …)"))
    run.go()
    state["ok"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
