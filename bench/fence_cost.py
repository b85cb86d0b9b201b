#!/usr/bin/python3
"""What an armed fence costs a PostgreSQL source's statements: single-row updates with and without the
triggers, in turns on one server, and a loop of single inserts in one session.

    fence_cost.py --binary FILE [--turns N] [--seconds N]

The triggers are lockstep's own: a cutover is stopped when it has prepared. Prints the ratios of each
turn; other work on the machine hits both halves of a turn alike."""

import argparse
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from harness.base import Failure, Workdir, as_server_user, guarded  # noqa: E402
from harness.ends import DATABASE, PostgresEnd  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

ROWS, LOOP = 10000, 50000
TABLES = ["CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)",
          f"INSERT INTO t SELECT g, 0 FROM generate_series(1, {ROWS}) g",
          "CREATE TABLE loop (id int PRIMARY KEY)"]
UPDATE = f"\\set id random(1, {ROWS})\nUPDATE t SET n = n + 1 WHERE id = :id;\n"
INSERTS = (f"DO $$ BEGIN FOR i IN 1..{LOOP} LOOP INSERT INTO loop VALUES (i); END LOOP; END $$")


class Cost:
    def __init__(self, args, cleanup):
        self.args = args
        self.workdir = Workdir(prefix="lockstep-fence-cost-")
        cleanup.add(self.workdir.remove)
        self.ends = [PostgresEnd(self.workdir.path, side, {"synchronous_commit": "off"})
                     for side in ("source", "target")]
        for end in self.ends:
            cleanup.add(end.stop)
            end.start()
        self.source = self.ends[0]
        self.source.load(TABLES)
        self.script = self.workdir.path / "update.sql"
        self.script.write_text(UPDATE)
        self.script.chmod(0o644)
        self.lockstep = Lockstep(args.binary, self.workdir.path / "m", "cost", *self.ends,
                                 uris=tuple(e.uri() for e in self.ends))
        cleanup.add(self.lockstep.end)

    def arm(self):
        """Then nothing of lockstep runs: only the triggers are left to be measured."""
        self.lockstep.config("tables: {include: [public.*]}\n")
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)
        self.lockstep.env["LOCKSTEP_TEST_KILL"] = "prepared:after"
        code, out, err = self.lockstep.do("cutover", "--yes")
        if code != -signal.SIGKILL:
            raise Failure(f"cutover up to prepared: {code}\n{out}{err}")
        self.lockstep.stop()

    def triggers(self, on):
        verb = "ENABLE ALWAYS" if on else "DISABLE"
        self.source.server.psql(DATABASE, input="".join(
            f'ALTER TABLE {t} {verb} TRIGGER "!lockstep_fence";' for t in ("t", "loop")))

    def tps(self):
        server = self.source.server
        done = subprocess.run(as_server_user([
            str(server.bin / "pgbench"), "-n", "-M", "prepared", "-c", "4", "-j", "1", "-T",
            str(self.args.seconds), "-f", str(self.script), "-h", str(server.home), "-p",
            str(server.port), "-U", "postgres", DATABASE]), cwd="/", stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=self.args.seconds + 60)
        found = re.search(r"tps = ([0-9.]+)", done.stdout)
        if not found:
            raise Failure(done.stdout[-800:])
        return float(found.group(1))

    def loop_us(self):
        """Microseconds of one insert of the loop, of its process on a processor (schedstat)."""
        conn = self.source.server.connect(DATABASE)
        spent = pathlib.Path(f"/proc/{conn.info.backend_pid}/schedstat")
        with conn.cursor() as cur:
            before = int(spent.read_text().split()[0])
            cur.execute(INSERTS)
            took = int(spent.read_text().split()[0]) - before
            cur.execute("TRUNCATE loop")
        conn.close()
        return took / LOOP / 1000

    def go(self):
        self.arm()
        ratios, added = [], []
        for turn in range(self.args.turns):
            seen = {}
            for on in ((False, True), (True, False))[turn % 2]:
                self.triggers(on)
                seen[on] = (self.tps(), self.loop_us())
            ratios.append(seen[True][0] / seen[False][0])
            added.append(seen[True][1] - seen[False][1])
            print(f"turn {turn + 1}: {seen[False][0]:.0f} tx/s without, {seen[True][0]:.0f} armed; "
                  f"{seen[False][1]:.1f} us an insert without, {seen[True][1]:.1f} armed", flush=True)
        print(f"armed fence: {statistics.median(ratios):.2f} of the single-row updates a second "
              f"({min(ratios):.2f} to {max(ratios):.2f}), {statistics.median(added):.1f} us more of a processor a "
              f"statement ({min(added):.1f} to {max(added):.1f}); {self.args.turns} turns")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    Cost(args, cleanup).go()
    return 0


if __name__ == "__main__":
    guarded(main)
