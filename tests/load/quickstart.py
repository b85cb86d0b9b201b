#!/usr/bin/python3
"""The body of scripts/quickstart: one live migration from first check to finish, watched from
outside. It knows lockstep only by its command line, and proves the result without its code."""

import argparse
import pathlib
import shlex
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import compare  # noqa: E402
from harness.base import Failure, Workdir, guarded, mono_ms, until  # noqa: E402
from harness.lockstep import Lockstep, MemoryWatch, marked  # noqa: E402
from harness.servers import Server, make_database, make_roles  # noqa: E402
from harness.traffic import Traffic, missing  # noqa: E402

SCALES = {"full": (1_000_000, 20), "small": (50_000, 1)}
LEAST_RATE = 200
MEMORY_LIMIT = 64 * 1024
# What `status` calls it -> what the table below calls it. In between phases count as the next.
PHASES = {"schema": "schema", "snapshot": "chunks", "catching_up": "replay",
          "following": "following"}

CONFIG = """tables:
  include: [shop.*, public.*]
snapshot: {workers: 2, chunk_size: 16MiB}
cutover: {max_pause: 5s, lease: 30s, on_switch: ./switch.sh}
"""


def say(text):
    print(text, flush=True)


class Timeline:
    """Which phase it was when, by polling `status --json` and by what we do ourselves."""

    def __init__(self, lockstep):
        self.lockstep = lockstep
        self.points = []
        self.lag = []
        self.last = None
        self.ours = False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)

    def start(self):
        self.points.append((mono_ms(), "before"))
        self.thread.start()

    def mark(self, name):
        """From the first of our own marks on, we alone say what the time is spent on."""
        self.ours = True
        if self.points[-1][1] != name:
            self.points.append((mono_ms(), name))

    def _poll(self):
        while not self.over.wait(0.25):
            at = mono_ms()
            got = self.lockstep.status()
            if got is None or self.over.is_set():
                continue
            self.last = got
            name = PHASES.get(got.get("phase"))
            if name and not self.ours and self.points[-1][1] != name:
                self.points.append((at, name))
            if got.get("lag_seconds") is not None and name == "following":
                self.lag.append(got["lag_seconds"])

    def freeze(self):
        self.over.set()
        self.thread.join()

    def seconds(self, name):
        return sum((b - a) / 1000 for (a, n), (b, _) in zip(self.points, self.points[1:])
                   if n == name)


class Quickstart:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.orders, self.scale = SCALES[args.scale]
        self.workdir = Workdir(args.workdir)
        self.rows = []

    def servers(self):
        say(f"starting two private PostgreSQL servers in {self.workdir.path}")
        self.source = Server(self.workdir.path, "source")
        self.target = Server(self.workdir.path, "target")
        for server in (self.source, self.target):
            self.cleanup.add(lambda s=server: s.stop("immediate"))
            server.init()
            server.start()
        make_roles(self.source, "source")
        make_roles(self.target, "target")
        make_database(self.source, "source", "shop")
        make_database(self.target, "target", "shop")

    def load(self):
        say(f"loading pgbench (scale {self.scale}) and a shop with {self.orders:,} orders")
        self.source.pgbench_init("shop", self.scale)
        self.source.psql("shop", "-v", f"orders={self.orders}", "-f",
                         str(pathlib.Path(__file__).with_name("shop.sql")), user="shop_owner")

    def dsn(self, server):
        return (f"host=127.0.0.1 port={server.port} dbname=shop user=app password=app-secret "
                "connect_timeout=5")

    def prepare(self):
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "shop",
                                 self.source, self.target)
        self.cleanup.add(self.lockstep.end)
        self.traffic = Traffic(self.workdir.path / "load", self.dsn(self.source), self.orders,
                               self.scale, rate=self.args.rate)
        self.cleanup.add(self.traffic.end)
        hook = self.lockstep.folder / "switch.sh"
        dsn_file = shlex.quote(str(self.traffic.dir / "dsn"))
        hook.write_text("#!/bin/sh\n# Moves the clients: they read this file when refused.\n"
                        f"set -e\nprintf '%s\\n' {shlex.quote(self.dsn(self.target))} "
                        f">{dsn_file}.new\nmv {dsn_file}.new {dsn_file}\n")
        hook.chmod(0o700)
        self.lockstep.config(CONFIG)

    def migrate(self):
        say("lockstep check")
        self.lockstep.must("check")
        say("lockstep run, under load")
        self.memory = MemoryWatch(self.lockstep.folder)
        self.cleanup.add(self.memory.stop)
        self.timeline = Timeline(self.lockstep)
        self.cleanup.add(self.timeline.over.set)
        self.timeline.start()
        self.lockstep.start()

        def following():
            self.lockstep.must_live()
            self.traffic.must_live()
            got = self.lockstep.none_parked(self.timeline.last)
            return got and got.get("phase") in ("following", "prepared") and all(
                t["lane"] == "following" for t in got["tables"])
        until("every table follows", 420, following)
        # Enough of the steady state to count in.
        end = time.monotonic() + 5
        until("some seconds of following", 10, lambda: time.monotonic() > end)
        self.loaded = self.timeline.last

    def verify(self):
        say("lockstep verify, under load")
        self.timeline.mark("verify")
        out = self.lockstep.must("verify", timeout=240)
        self.verdict = out.strip().splitlines()[-1]
        if self.verdict != "differences 0":
            raise Failure(f"verify: {out[-1500:]}")

    def compare(self):
        say("comparing without lockstep, writers paused: COPY … ORDER BY key | sha256sum")
        self.timeline.mark("comparing")
        self.traffic.pause()
        # Everything before this row was committed before it; so when it is there, all is.
        self.source.psql("shop", input="INSERT INTO shop.receipts VALUES (0, 1, 'fence', now())")
        until("the target has the last row", 120, lambda: self.target.query(
            "SELECT 1 FROM shop.receipts WHERE client = 0 AND n = 1", "shop"))
        bad, tables = compare.differing(self.source, self.target)
        if bad:
            raise Failure(f"the second comparison found differences in: {', '.join(bad)}")
        self.compared = tables
        self.traffic.resume()

    def cutover(self):
        say("lockstep cutover --yes; the clients follow")
        # Some seconds of load before the switch, so that it happens under way.
        end = time.monotonic() + 3
        until("the load is under way again", 10, lambda: time.monotonic() > end)
        self.timeline.mark("cutover")
        began = mono_ms()
        self.lockstep.must("cutover", "--yes", timeout=180)
        self.timeline.mark("target")
        until("the clients write to the target", 30, lambda: self.traffic.write_pause(began))
        end = time.monotonic() + 5
        until("some seconds on the target", 10, lambda: time.monotonic() > end)
        self.timeline.mark("end")
        self.timeline.freeze()
        self.traffic.stop()
        self.pause = self.traffic.write_pause(began)
        wanted = self.traffic.acknowledged()
        there = set(self.target.query("SELECT client, n FROM shop.receipts", "shop"))
        lost = wanted - there
        if lost:
            raise Failure(f"{len(lost)} acknowledged transactions are not on the target, "
                          f"such as (client, n) = {sorted(lost)[:5]}")
        self.receipts = len(wanted)

    def finish(self):
        say("lockstep finish --yes")
        self.lockstep.must("finish", "--yes")
        until("run ends by itself after finish", 30, lambda: not self.lockstep.alive())
        if self.lockstep.process.returncode != 0:
            raise Failure(f"run ended with {self.lockstep.process.returncode} after finish, "
                          f"expected 0:\n{self.lockstep.tail()}")
        self.peak = self.memory.stop()
        left = []
        for server in (self.source, self.target):
            left += [f"slot {s}" for (s,) in server.query(
                "SELECT slot_name FROM pg_replication_slots")]
            left += [f"{server.name}: {w}" for (w,) in server.query("""
                SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'lockstep'
                UNION ALL SELECT 'publication ' || pubname FROM pg_publication
                UNION ALL SELECT 'trigger on ' || tgrelid::regclass FROM pg_trigger
                          WHERE tgname LIKE '!lockstep%%'""", "shop")]
        left += [f"process {pid}" for pid in marked(self.lockstep.folder)]
        if left:
            raise Failure(f"finish left behind: {', '.join(left)}")

    def check_load(self):
        self.counts = self.traffic.counts(self.timeline.points)
        for phase in ("chunks", "replay"):
            if phase not in self.counts:
                raise Failure(f"phase {phase} was never seen by status")
            none = missing(self.counts[phase][2])
            if none:
                raise Failure(f"in {phase} the load did none of: {', '.join(none)}")
        for phase in ("chunks", "replay", "following", "verify", "target"):
            seconds, committed, _ = self.counts[phase]
            # A phase of less than a second is too short to have a rate.
            if seconds > 1 and committed / seconds < LEAST_RATE:
                raise Failure(f"the load did only {committed / seconds:.0f} tx/s in {phase}")

    def table(self):
        rows = sum(t.get("rows") or 0 for t in self.loaded["tables"])
        size = sum(t.get("bytes") or 0 for t in self.loaded["tables"])
        chunks = self.timeline.seconds("chunks") or 1
        lag = sorted(self.timeline.lag)
        lines = [
            ("tables", f"{len(self.loaded['tables'])}"),
            ("rows copied", f"{rows:,} ({size / 2**20:,.0f} MiB) in {chunks:.1f} s: "
             f"{rows / chunks:,.0f} rows/s"),
            ("lag while following", f"median {lag[len(lag) // 2]:.2f} s, most {lag[-1]:.2f} s"
             if lag else "not known"),
            ("write pause", f"{self.pause[0]} ms, by the clients' own logs "
             f"({self.pause[1]} refused writes)"),
            ("acknowledged writes", f"{self.receipts:,}, all on the target"),
            ("second comparison", f"{self.compared} tables equal by sha256"),
        ]
        lines += [("memory " + name, f"peak {kib / 1024:.1f} MiB")
                  for name, kib in sorted(self.peak.items()) if name.startswith(("lockstep", "pg_"))]
        say("")
        for name, value in lines:
            say(f"  {name:<22}{value}")
        phases = [p for p in ("schema", "chunks", "replay", "following", "verify", "target")
                  if p in self.counts]
        say("\n  " + f"{'load, by phase':<22}" + "".join(f"{p:>11}" for p in phases))
        say("  " + f"{'seconds':<22}" + "".join(f"{self.counts[p][0]:>11.1f}" for p in phases))
        say("  " + f"{'tx/s':<22}" + "".join(
            f"{self.counts[p][1] / max(self.counts[p][0], 0.1):>11.0f}" for p in phases))
        kinds = sorted({k for p in phases for k in self.counts[p][2]})
        for kind in kinds:
            say(f"  {kind:<22}" + "".join(f"{self.counts[p][2][kind]:>11}" for p in phases))
        say(f"\n{self.verdict}")

    def check_memory(self):
        for name, kib in self.peak.items():
            if name.startswith("lockstep") and kib > MEMORY_LIMIT:
                raise Failure(f"{name} had {kib / 1024:.1f} MiB resident, more than 64")

    def go(self):
        self.servers()
        self.load()
        self.prepare()
        self.migrate()
        self.verify()
        self.compare()
        self.cutover()
        self.finish()
        self.check_load()
        self.table()
        self.check_memory()


def main(cleanup):
    parser = argparse.ArgumentParser(prog="scripts/quickstart")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--rate", type=float, default=400, help="transactions a second, in all")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    parser.add_argument("--workdir", help="an empty folder to use instead of a temporary one")
    parser.add_argument("--spent", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    began = time.monotonic()
    run = Quickstart(args, cleanup)
    state = {"done": False}
    # First registered, so last: the servers have ended when the folder goes.
    cleanup.add(lambda: run.workdir.remove() if state["done"] and not args.keep else
                say(f"kept: {run.workdir.path} (logs: migration/run.log, migration/commands.log, "
                    "load/, source/server.log, target/server.log)"))
    try:
        run.go()
        state["done"] = True
    except KeyboardInterrupt:
        state["done"] = True
        raise
    say(f"done in {time.monotonic() - began + args.spent:.0f} s")
    return 0


if __name__ == "__main__":
    guarded(main)
