#!/usr/bin/python3
"""capture, snapshot, apply and the broker, each a process of its own, killed one at a time at random
moments of a migration under load, in any direction and on either journal. At the end nothing differs.

    roles_run.py --binary FILE [--kills 10] [--seed N] [--from KIND --to KIND --journal WHICH]

Without a direction and a journal the seed chooses them, in turn through all eight.
"""

import argparse
import collections
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep, marked  # noqa: E402
from harness.shops import Fence, MixedShop, receipts  # noqa: E402
from harness.traffic import Traffic  # noqa: E402

ORDERS, SCALE = 20_000, 1
COMBINATIONS = [(source, target, journal) for journal in ("file", "kafka")
                for source in ("postgres", "mariadb") for target in ("postgres", "mariadb")]
ROLES = ("capture", "snapshot", "apply")
# Slow chunks and small batches, so that there is time to be killed in.
CONFIG = """snapshot: {workers: 2, chunk_size: 1MiB, max_rate: 4MiB}
apply: {batch: 64KiB}
"""


class RolesRun:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.rng = random.Random(args.seed)
        self.source_kind, self.target_kind, self.journal = COMBINATIONS[
            args.seed % len(COMBINATIONS)]
        self.source_kind = args.source or self.source_kind
        self.target_kind = args.target or self.target_kind
        self.journal = args.journal or self.journal
        self.workdir = Workdir(args.workdir, "lockstep-roles-")
        self.broker = None
        self.killed = collections.Counter()
        self.began = time.monotonic()

    def say(self, text):
        print(f"{time.monotonic() - self.began:7.1f} s  {text}", flush=True)

    def set_up(self):
        self.source = make_end(self.source_kind, self.workdir.path, "source")
        self.target = make_end(self.target_kind, self.workdir.path, "target")
        for end in (self.source, self.target):
            self.cleanup.add(end.stop)
            end.start()
        extra = CONFIG + (self.source.fence() or self.target.fence())
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "shop",
                                 self.source, self.target,
                                 uris=(self.source.uri(), self.target.uri()))
        if self.journal == "kafka":
            from harness.broker import Kafka
            self.broker = Kafka(self.workdir.path / "kafka")
            self.cleanup.add(self.broker.stop)
            self.broker.start()
            self.lockstep.journal = self.broker.uri()
        MixedShop.load(self.source, ORDERS, SCALE)
        self.lockstep.config(extra)
        self.cleanup.add(self.lockstep.end)
        self.traffic = Traffic(self.workdir.path / "load", self.source.dsn(), ORDERS, SCALE,
                               rate=200, seed=self.args.seed, shop=MixedShop.module)
        self.cleanup.add(self.traffic.end)

    def tend(self):
        """A role that ended by itself with anything but success is a failure."""
        for role, process in self.lockstep.roles.items():
            code = process.poll()
            if code is not None and not (role == "snapshot" and code == 0):
                raise Failure(f"{role} ended by itself (exit {code}):\n"
                              f"{self.lockstep.role_tail(role)}")

    def kill_one(self):
        end = time.monotonic() + self.rng.uniform(0.05, 2.0)
        until("the moment comes", 5, lambda: self.tend() or time.monotonic() > end, every=0.01)
        living = [r for r in ROLES if self.lockstep.roles[r].poll() is None]
        victim = self.rng.choice(living + (["broker"] if self.broker else []))
        phase = self.lockstep.phase()
        self.killed[victim] += 1
        self.say(f"kill {sum(self.killed.values())}: {victim}, in {phase}")
        if victim == "broker":
            if self.rng.random() < 0.3:
                self.broker.freeze(self.rng.uniform(0.5, 3))
            else:
                self.broker.kill()
                self.broker.start()
            return
        self.lockstep.kill_role(victim)
        until("no child outlives its parent", 10, lambda: not [
            p for p in marked(self.lockstep.folder)
            if p not in [x.pid for x in self.lockstep.roles.values()]], every=0.02)
        self.lockstep.start_role(victim)

    def following(self):
        self.tend()
        self.traffic.must_live()
        got = self.lockstep.none_parked(self.lockstep.status())
        return got and got.get("phase") in ("following", "prepared") and all(
            t["lane"] == "following" for t in got["tables"])

    def go(self):
        self.set_up()
        self.say(f"seed {self.args.seed}: {self.source_kind} to {self.target_kind} over "
                 f"{self.journal}")
        for role in ROLES:
            self.lockstep.start_role(role)
        for _ in range((self.args.kills + 1) // 2):
            self.kill_one()
        until("every table follows", 240, self.following, every=0.3)
        for _ in range(self.args.kills // 2):
            self.kill_one()
        until("every table follows again", 240, self.following, every=0.3)
        out = self.lockstep.must("verify", timeout=240)
        if out.strip().splitlines()[-1] != "differences 0":
            raise Failure(out[-2000:])
        self.traffic.stop()
        Fence(MixedShop).pass_through(self.source, self.target)
        lost = self.traffic.acknowledged() - receipts(MixedShop, self.target)
        bad, tables = MixedShop.differing(self.source, self.target)
        if bad or lost:
            raise Failure(f"differences in {bad}; acknowledged and lost: {sorted(lost)[:5]}")
        self.lockstep.must("finish", "--abandon", "--yes")
        for role in ("capture", "apply"):
            until(f"{role} ends after finish", 30,
                  lambda r=role: self.lockstep.roles[r].poll() is not None)
        what = ", ".join(f"{v} {n}" for v, n in sorted(self.killed.items()))
        print(f"seed {self.args.seed}: {self.source_kind} to {self.target_kind} over "
              f"{self.journal}: {sum(self.killed.values())} kills ({what}), {tables} tables equal, "
              "differences 0")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--from", dest="source", choices=("postgres", "mariadb"))
    parser.add_argument("--to", dest="target", choices=("postgres", "mariadb"))
    parser.add_argument("--journal", choices=("file", "kafka"))
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--workdir")
    args = parser.parse_args()
    args.binary = pathlib.Path(args.binary).resolve()
    run = RolesRun(args, cleanup)
    state = {"ok": False}
    cleanup.add(lambda: run.workdir.remove() if state["ok"] and not args.keep else
                print(f"kept: {run.workdir.path} (migration/*.log, source/server.log, …)"))
    run.go()
    state["ok"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
