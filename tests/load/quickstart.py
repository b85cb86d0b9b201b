#!/usr/bin/python3
"""The body of scripts/quickstart: one live migration from first check to finish, there and back again,
watched from outside. It knows lockstep only by its command line, and proves the result without its code."""

import argparse
import pathlib
import shlex
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, mono_ms, until  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep, MemoryWatch, marked  # noqa: E402
from harness.shops import Fence, receipts, shop_for  # noqa: E402
from harness.traffic import Traffic, missing  # noqa: E402

# Orders and scale, for each shop.
SCALES = {"full": {"ops": (1_000_000, 20), "ops_mixed": (300_000, 5)},
          "small": {"ops": (50_000, 1), "ops_mixed": (20_000, 1)}}
KINDS = ("postgres", "mariadb", "mysql")
LEAST_RATE = 200
# A phase that is shorter has no rate: the load makes up for one second, and a single process of it, or
# a server, may stand still for three.
RATED_S = 4
# A nap that takes so much longer than it should is time that this machine did not give to anybody.
NAP_S, STALL_S = 0.02, 0.2
# Phases that are shorter than this are jumped over by `status`, if that is how long it takes.
POLL_GAP_MS = 1000
MEMORY_LIMIT = 64 * 1024
# What `status` calls it -> what the table below calls it. In between phases count as the next.
PHASES = {"schema": "schema", "snapshot": "chunks", "catching_up": "replay",
          "following": "following"}

CONFIG = """snapshot: {workers: 2, chunk_size: 16MiB}
cutover: {max_pause: 20s, lease: 30s, on_switch: ./switch.sh}
"""


def say(text):
    print(text, flush=True)


def under_way(seconds):
    """So much more of the load."""
    end = time.monotonic() + seconds
    until("the load goes on", seconds + 5, lambda: time.monotonic() > end)


class Timeline:
    """Which phase it was when, by polling `status --json` and by what we do ourselves."""

    def __init__(self, lockstep):
        self.lockstep = lockstep
        self.points = []
        self.polls = []
        self.stalls = []
        self.lag = []
        self.last = None
        self.ours = False
        self.over = threading.Event()
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._poll, self._nap)]

    def start(self):
        self.points.append((mono_ms(), "before"))
        for t in self.threads:
            t.start()

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
            self.polls.append((at, name))
            if name and not self.ours and self.points[-1][1] != name:
                self.points.append((at, name))
            if got.get("lag_seconds") is not None and name == "following":
                self.lag.append(got["lag_seconds"])

    def _nap(self):
        while not self.over.is_set():
            began = time.monotonic()
            time.sleep(NAP_S)
            late = time.monotonic() - began - NAP_S
            if late > STALL_S:
                self.stalls.append((mono_ms() - late * 1000, mono_ms()))

    def freeze(self):
        self.over.set()
        for t in self.threads:
            t.join()

    def stalled(self, name):
        """Seconds of it in which this machine stood still."""
        return sum(max(0, min(b, end) - max(a, began)) / 1000
                   for (a, n), (b, _) in zip(self.points, self.points[1:]) if n == name
                   for began, end in self.stalls)

    def unseen_replay(self):
        """The longest time in ms in which nobody looked, from the last look at chunks to the first one
        at what follows."""
        names = [name for _, name in self.polls]
        if "chunks" not in names or "following" not in names:
            return 0
        last, first = len(names) - 1 - names[::-1].index("chunks"), names.index("following")
        looks = [at for at, _ in self.polls[last:first + 1]]
        return max((b - a for a, b in zip(looks, looks[1:])), default=0)

    def seconds(self, name):
        return sum((b - a) / 1000 for (a, n), (b, _) in zip(self.points, self.points[1:])
                   if n == name)


class Quickstart:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.shop = shop_for(args.source, args.target)
        self.orders, self.scale = SCALES[args.scale][self.shop.module]
        self.workdir = Workdir(args.workdir)
        self.fence = Fence(self.shop)
        self.broker = None
        self.pauses = []

    def servers(self):
        say(f"starting {self.args.source} and {self.args.target}, private, in "
            f"{self.workdir.path}")
        self.source = make_end(self.args.source, self.workdir.path, "source", self.args.mysql)
        self.target = make_end(self.args.target, self.workdir.path, "target", self.args.mysql)
        for end in (self.source, self.target):
            self.cleanup.add(end.stop)
            end.start()
        if self.args.journal == "kafka":
            from harness.broker import Kafka  # with Java only
            say("starting a Kafka broker and a schema registry")
            self.broker = Kafka(self.workdir.path / "kafka", registry=True)
            self.cleanup.add(self.broker.stop)
            self.broker.start()

    def load(self):
        say(f"loading {self.shop.what}: {self.orders:,} orders, {self.scale * 100_000:,} accounts")
        self.shop.load(self.source, self.orders, self.scale)

    def prepare(self):
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "shop",
                                 self.source, self.target,
                                 uris=(self.source.uri(), self.target.uri()))
        self.cleanup.add(self.lockstep.end)
        self.traffic = Traffic(self.workdir.path / "load", self.source.dsn(), self.orders,
                               self.scale, rate=self.args.rate, shop=self.shop.module)
        self.cleanup.add(self.traffic.end)
        hook = self.lockstep.folder / "switch.sh"
        dsn_file = shlex.quote(str(self.traffic.dir / "dsn"))
        hook.write_text(f"""#!/bin/sh
# Moves the clients: they read this file when refused.
set -e
case $LOCKSTEP_DIRECTION in
forward) dsn={shlex.quote(self.target.dsn())} ;;
back) dsn={shlex.quote(self.source.dsn())} ;;
esac
printf '%s\\n' "$dsn" >{dsn_file}.new
mv {dsn_file}.new {dsn_file}
""")
        hook.chmod(0o700)
        extra = self.shop.config + CONFIG + (self.source.fence() or self.target.fence())
        if self.broker:
            self.lockstep.journal = self.broker.uri()
            extra += f"schema_registry: {self.broker.registry_url()}\n"
        self.lockstep.config(extra)

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
        under_way(5)
        self.loaded = self.timeline.last

    def verify(self):
        say("lockstep verify, under load")
        self.timeline.mark("verify")
        out = self.lockstep.must("verify", timeout=240)
        self.verdict = out.strip().splitlines()[-1]
        if self.verdict != "differences 0":
            raise Failure(f"verify: {out[-1500:]}")

    def compare(self, live, other):
        say(f"comparing without lockstep, writers paused: the {live.side}'s rows and the "
            f"{other.side}'s, by sha256")
        self.timeline.mark("comparing")
        self.traffic.pause()
        self.fence.pass_through(live, other)
        bad, tables = self.shop.differing(self.source, self.target)
        if bad:
            raise Failure(f"the second comparison found differences in: {', '.join(bad)}")
        self.compared = tables
        self.traffic.resume()

    def switch(self, command, phase):
        """cutover or rollback; the clients follow, and what they were told is committed is there."""
        say(f"lockstep {command} --yes; the clients follow")
        # Some seconds of load before the switch, so that it happens under way.
        under_way(3)
        self.timeline.mark(command)
        for left in (2, 1, 0):
            began = mono_ms()
            code, out, err = self.lockstep.do(command, "--yes", timeout=180)
            if code == 0:
                break
            # A slow moment of the machine: both sides are as they were, and it says so.
            if not left or f"{command} undone" not in err:
                raise Failure(f"lockstep {command} --yes: exit {code}\n{out[-2500:]}{err[-2500:]}")
            say(f"undone, and said once more: {err.strip().splitlines()[0]}")
        self.timeline.mark(phase)
        number = len(self.pauses) + 1
        until(f"the clients write to the {phase}", 30,
              lambda: self.traffic.write_pause(began, number))
        under_way(5)
        self.pauses.append((command, *self.traffic.write_pause(began, number)))

    def receipts(self):
        """Every write that was ever acknowledged, on either side, is on both."""
        self.timeline.mark("end")
        self.timeline.freeze()
        self.traffic.stop()
        self.fence.pass_through(self.source, self.target)
        wanted = self.traffic.acknowledged()
        for end in (self.source, self.target):
            lost = wanted - receipts(self.shop, end)
            if lost:
                raise Failure(f"{len(lost)} acknowledged transactions are not on the {end.side}, "
                              f"such as (client, n) = {sorted(lost)[:5]}")
        self.acknowledged = len(wanted)

    def finish(self):
        say("lockstep finish --yes")
        self.lockstep.must("finish", "--yes")
        until("run ends by itself after finish", 30, lambda: not self.lockstep.alive())
        if self.lockstep.process.returncode != 0:
            raise Failure(f"run ended with {self.lockstep.process.returncode} after finish, "
                          f"expected 0:\n{self.lockstep.tail()}")
        self.peak = self.memory.stop()
        left = [f"{end.side}: {w}" for end in (self.source, self.target) for w in end.leftovers()]
        left += [f"process {pid}" for pid in marked(self.lockstep.folder)]
        if self.broker:
            left += [f"topic {t}" for t in self.broker.topics()]
        if left:
            raise Failure(f"finish left behind: {', '.join(left)}")

    def check_load(self):
        self.counts = self.traffic.counts(self.timeline.points)
        looked = ["chunks", "replay"]
        if self.timeline.unseen_replay() > POLL_GAP_MS:
            say(f"status was silent for {self.timeline.unseen_replay()} ms around the replay, which is"
                " not judged")
            looked.remove("replay")
        for phase in looked:
            if phase not in self.counts:
                raise Failure(f"phase {phase} was never seen by status")
            none = missing(self.counts[phase][2], self.shop.required)
            if none:
                raise Failure(f"in {phase} the load did none of: {', '.join(none)}")
        for phase in (*looked, "following", "verify", "target", "source"):
            seconds, committed, _ = self.counts[phase]
            seconds -= self.timeline.stalled(phase)
            if seconds > RATED_S and committed / seconds < LEAST_RATE:
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
            *[(f"write pause, {command}", f"{ms} ms, by the clients' own logs "
               f"({refused} refused writes)") for command, ms, refused in self.pauses],
            ("acknowledged writes", f"{self.acknowledged:,}, all on both sides at the end"),
            ("second comparison", f"{self.compared} tables equal by sha256"),
        ]
        lines += [("memory " + name, f"peak {kib / 1024:.1f} MiB")
                  for name, kib in sorted(self.peak.items()) if name.startswith(("lockstep", "pg_"))]
        say("")
        for name, value in lines:
            say(f"  {name:<22}{value}")
        phases = [p for p in ("schema", "chunks", "replay", "following", "verify", "target",
                              "source") if p in self.counts]
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
        self.compare(self.source, self.target)
        self.switch("cutover", "target")
        self.compare(self.target, self.source)
        self.switch("rollback", "source")
        self.receipts()
        self.finish()
        self.check_load()
        self.table()
        self.check_memory()


def main(cleanup):
    parser = argparse.ArgumentParser(prog="scripts/quickstart")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--from", dest="source", choices=KINDS, default="postgres")
    parser.add_argument("--to", dest="target", choices=KINDS, default="postgres")
    parser.add_argument("--journal", choices=("file", "kafka"), default="file")
    parser.add_argument("--mysql", help="the prefix of scripts/fetch-mysql, for mysql")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--rate", type=float, default=400, help="transactions a second, in all")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    parser.add_argument("--workdir", help="an empty folder to use instead of a temporary one")
    parser.add_argument("--spent", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    began = time.monotonic()
    args.binary = pathlib.Path(args.binary).resolve()
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
