#!/usr/bin/python3
"""Roles as processes of their own, PostgreSQL to PostgreSQL: started all at once on nothing, two
snapshots side by side, --max-runtime, and each role killed once; whoever conducts is killed while it
does, and the other snapshot takes over. A table that changes its shape is copied again while capture
waits at the journal's ceiling. At the end nothing differs and every role ends by itself.

    roles.py --binary FILE [--keep]
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import compare  # noqa: E402
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402
from harness.servers import Server, make_database, make_roles  # noqa: E402

ROWS = 60_000
JOURNAL_MAX = 64 << 20
BACKLOG = 6  # times that every row of `big` is written: more than the journal may hold
SCHEMA = f"""
CREATE TABLE big (id bigint PRIMARY KEY, v text);
CREATE TABLE small (id int PRIMARY KEY, big bigint REFERENCES big (id), n int DEFAULT 0);
INSERT INTO big SELECT i, repeat(md5(i::text), 6) FROM generate_series(1, {ROWS}) i;
INSERT INTO small SELECT i, i FROM generate_series(1, 1000) i;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
"""
CONFIG = "snapshot: {workers: 1, chunk_size: 1MiB, max_rate: 1MiB}\njournal_max: 64MiB\n"


class Roles:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(None, "lockstep-sides-")
        self.began = time.monotonic()

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
        # Two Lockstep objects of one folder and file: the second is for the second snapshot.
        self.one, self.two = (Lockstep(self.args.binary, self.workdir.path / "migration", "shop",
                                       self.source, self.target) for _ in range(2))
        for lockstep in (self.one, self.two):
            self.cleanup.add(lockstep.end)
        self.one.config(CONFIG)

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def conductor(self):
        """The pid in host:pid:start, or None."""
        got = self.target.query("SELECT body->>'holder' FROM lockstep.fact WHERE kind = 'lease' "
                                "AND key = 'conductor'", "shop")
        return int(got[0][0].split(":")[1]) if got and got[0][0] else None

    def copied(self):
        return self.target.value("SELECT count(*) FROM big", "shop")

    def must_live(self, dead=None):
        for lockstep in (self.one, self.two):
            for role, process in lockstep.roles.items():
                if role != dead and process.poll() is not None:
                    raise Failure(f"{role} ended by itself (exit {process.returncode}):\n"
                                  f"{lockstep.role_tail(role)}")

    def write(self, n):
        self.source.query(f"UPDATE small SET n = n + 1 WHERE id % 10 = {n};"
                          f"INSERT INTO small VALUES ({2000 + n}, 1);"
                          f"DELETE FROM small WHERE id = {100 + n}", "shop", user="app")

    def begin(self):
        """All at once, with nothing there: each checks, one registers, one makes the slot."""
        for role in ("apply", "capture", "snapshot"):
            self.one.start_role(role)
        self.two.start_role("snapshot")
        until("chunks are copied", 40, lambda: self.must_live() or (
            self.one.phase() == "snapshot" and self.copied() > 0))
        self.say("copying")

    def kill_conductor(self):
        first = self.conductor()
        owner = next(x for x in (self.one, self.two) if x.roles["snapshot"].pid == first)
        before = self.copied()
        owner.kill_role("snapshot")
        until("the other snapshot conducts", 20, lambda: self.conductor() not in (None, first))
        if self.conductor() == owner.roles["snapshot"].pid:
            raise Failure("a dead process conducts")
        until("the other snapshot copies on", 20, lambda: self.copied() > before)
        owner.start_role("snapshot")
        self.say("the conductor was killed, the other took over")

    def kill_each(self):
        for n, role in enumerate(("capture", "apply")):
            self.write(n)
            self.one.kill_role(role)
            self.write(n + 5)
            self.one.start_role(role)
        self.say("capture and apply were killed")

    def in_time(self):
        """A third snapshot that may run for two seconds."""
        began = time.monotonic()
        self.one.must("snapshot", "--max-runtime", "2s", status=75, timeout=30)
        took = time.monotonic() - began
        if not 2 <= took < 20:
            raise Failure(f"--max-runtime 2s ended after {took:.1f} s")
        self.one.must("snapshot", "--max-runtime", "soon", status=2)
        self.one.must("capture", status=4, timeout=60)
        self.say("stopped in time with 75; a second capture is refused")

    def lapse(self):
        """An apply that hangs past its lease is not dead: verify waits for it, and it goes on."""
        apply = self.one.roles["apply"]
        apply.send_signal(signal.SIGSTOP)
        try:
            until("its lease lapses", 30, lambda: self.target.value(
                "SELECT (body->>'until_ms')::bigint < extract(epoch from clock_timestamp()) * 1000"
                " FROM lockstep.fact WHERE kind = 'lease' AND key = 'apply'", "shop"), every=0.2)
            verify = subprocess.Popen([self.one.binary, "-c", str(self.one.file), "verify"],
                                      cwd=self.one.folder, env=self.one.env,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            self.cleanup.add(verify.kill)
            time.sleep(1.5)
        finally:
            apply.send_signal(signal.SIGCONT)
        out, _ = verify.communicate(timeout=90)
        if verify.returncode or "differences 0" not in out:
            raise Failure(f"verify beside an apply that hung: exit {verify.returncode}\n{out}")
        self.must_live()
        self.say("an apply hung past its lease: verify waited for it, and it goes on")

    @staticmethod
    def snapshot_ends(lockstep):
        """By itself, when all is copied."""
        code = lockstep.roles["snapshot"].wait(90)
        if code:
            raise Failure(f"snapshot: exit {code}\n{lockstep.role_tail('snapshot')}")
        lockstep.roles.pop("snapshot")

    def fill_journal(self):
        """Without apply the journal grows to its ceiling, where capture waits."""
        self.one.kill_role("apply")
        self.source.psql("shop", user="app", input="".join(
            f"UPDATE big SET v = reverse(v) WHERE id > {n} AND id <= {n + 5000};\n"
            for n in [*range(0, ROWS, 5000)] * BACKLOG))
        self.source.query("INSERT INTO small SELECT i, 1 FROM generate_series(10000, 10099) i",
                          "shop", user="app")
        until("capture waits", 60, lambda: self.must_live("apply") or self.captured("journal-full"),
              every=0.2)
        size = sum(f.stat().st_size for f in (self.one.folder / "journal").rglob("*") if f.is_file())
        if not 0.9 * JOURNAL_MAX < size <= JOURNAL_MAX:
            raise Failure(f"capture paused at {size} bytes of {JOURNAL_MAX}")
        if not any("journal_max" in w for w in self.one.must_status()["warnings"]):
            raise Failure(f"status does not warn: {self.one.must_status()['warnings']}")

    def change_again(self):
        self.source.query("ALTER TABLE small ADD w2 int", "shop")

    def wait_lane(self, state, reason=""):
        def probe():
            self.must_live()
            small = next(t for t in self.one.must_status()["tables"] if t["name"] == "public.small")
            seen.append((small["lane"], small["reason"]))
            return small["lane"] == state and reason in (small["reason"] or "")

        seen = []
        try:
            until(f"small is {state}", 60, probe, every=0.2)
        except Failure as e:
            raise Failure(f"{e}: {seen[-1:]}") from e

    def captured(self, word):
        return word in (self.one.folder / "capture.log").read_text()

    def reshape_behind(self):
        """A table changes its shape and is copied again while capture is behind by more than the
        journal holds: what it still has to read speaks of the old shape, and must not park the table
        anew; and nothing is kept for the lane that waits for it, or there would be no room."""
        self.fill_journal()
        for server in (self.source, self.target):
            server.query("ALTER TABLE small ADD w int DEFAULT 7", "shop")
        self.source.query("INSERT INTO small VALUES (9999, 1, 2, 3)", "shop", user="app")
        self.one.must("tables", "recopy", "public.small")
        self.one.start_role("snapshot")
        self.one.start_role("apply")
        self.wait_lane("loading")
        self.change_again()
        until("capture goes on", 60, lambda: self.must_live() or self.captured("journal-room"),
              every=0.2)
        self.snapshot_ends(self.one)
        self.wait_lane("parked", "changed again while it was copied")
        # As that lane's record may be gone from the journal, it must not go on from there.
        self.source.query("INSERT INTO small VALUES (9997, 1, 2, 3, 4)", "shop", user="app")
        self.one.do("tables", "resume", "public.small")
        self.wait_lane("parked", "that was not planned")
        self.target.query("ALTER TABLE small ADD w2 int", "shop")
        self.one.must("tables", "recopy", "public.small")
        self.one.start_role("snapshot")
        self.snapshot_ends(self.one)
        self.wait_lane("following")
        self.source.query("INSERT INTO small VALUES (9998, 1, 2, 3)", "shop", user="app")
        until("its last change is there", 60, lambda: self.target.query(
            "SELECT 1 FROM small WHERE id = 9998", "shop"), every=0.2)
        self.say("a table copied again in a new shape while capture waited at the journal's ceiling")

    def end(self):
        for lockstep in (self.one, self.two):
            self.snapshot_ends(lockstep)
        until("following", 60, lambda: self.one.none_parked(self.one.must_status())["phase"] ==
              "following")
        self.write(8)
        self.one.must("verify", timeout=120)
        self.lapse()
        self.reshape_behind()
        until("the last change is there", 30, lambda: self.target.query(
            "SELECT 1 FROM small WHERE id = 2008", "shop"))
        bad, tables = compare.differing(self.source, self.target)
        if bad:
            raise Failure(f"differences in {bad}")
        self.one.must("finish", "--abandon", "--yes", timeout=90)
        for role in ("capture", "apply"):
            code = self.one.roles[role].wait(30)
            if code:
                raise Failure(f"{role}: exit {code}\n{self.one.role_tail(role)}")
        return tables

    def go(self):
        self.set_up()
        self.begin()
        self.kill_conductor()
        self.kill_each()
        self.in_time()
        tables = self.end()
        print(f"three roles killed once each, {tables} tables equal, "
              f"{time.monotonic() - self.began:.0f} s")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    run = Roles(args, cleanup)
    state = {"ok": False}
    cleanup.add(lambda: run.workdir.remove() if state["ok"] and not args.keep else
                print(f"kept: {run.workdir.path} (migration/*.log, source/server.log, …)"))
    run.go()
    state["ok"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
