#!/usr/bin/python3
"""How long a switch holds writes up, by the client's own clock, and whether that was predicted:
PostgreSQL to PostgreSQL, file journal, single-row updates of one client paced at --rate a second, that
follows the switch.

    pauses.py --binary FILE [--cutovers N] [--rate N] [--state FILE] [--keep]
    pauses.py --report --state FILE [--want N]

A batch is a migration of its own: N times there (cutover) and back (rollback), each a line of --state,
so that batches add up. A batch with less than 20 % idle CPU is void, says so, and does not count.
--report adds the lines up; exit 1 unless --want cutovers counted and the aims of the switch are met:
median at most 500 ms, slowest at most 2 s, the prediction held in nine of ten.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import psycopg2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import PostgresEnd  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

ROWS = 10000
WARM_UP, BETWEEN = 3.0, 2.0  # seconds under load before the first switch, and before each next one
IDLE_MIN = 0.2
MEDIAN_MAX_MS, SLOWEST_MAX_MS, HELD_MIN = 500, 2000, 0.9
TRY_EVERY = 0.001
CLIENT_MAX = 1800  # seconds; nobody who forgets to end it keeps a client
# Refused for the moment, sealed, ended by the fence: what a switch tells its clients.
CLEAR = ("40001", "25006", "57P01")


# ---- the client: a process of its own, so that nothing of the test takes its time ----

class Client:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.facts = json.loads((self.folder / "client.json").read_text())
        self.conns = [None, None]
        self.side = 0
        self.n = 0
        self.log = (self.folder / "client.log").open("w", buffering=1)

    def tell(self, **what):
        self.log.write(json.dumps(what) + "\n")

    def connect(self, side):
        if self.conns[side] is None or self.conns[side].closed:
            self.conns[side] = psycopg2.connect(self.facts["dsns"][side])
            self.conns[side].autocommit = True

    def write(self, side):
        """True if the update is acknowledged."""
        try:
            self.connect(side)
            with self.conns[side].cursor() as cur:
                cur.execute("UPDATE counters SET n = n + 1 WHERE id = %s", (self.n % ROWS + 1,))
            return True
        except psycopg2.Error as e:
            if e.pgcode is None or e.pgcode not in CLEAR:
                self.tell(trouble=f"{e.pgcode}: {e}")
                raise
            return False

    def follow(self, began):
        """Refused: asks both sides in turn until one of them takes the write."""
        refusals, side = 1, self.side
        while True:
            time.sleep(TRY_EVERY)
            side = 1 - side
            if self.write(side):
                break
            refusals += 1
        ended = time.monotonic()
        self.tell(refused=began, accepted=ended, ms=(ended - began) * 1000, refusals=refusals,
                  moved=side != self.side, to=("source", "target")[side])
        self.side = side
        return ended

    def run(self):
        every = 1 / self.facts["rate"]
        end = time.monotonic() + CLIENT_MAX
        second, count = time.monotonic() + 1, 0
        due = time.monotonic()
        self.connect(1 - self.side)  # it stands ready, as a pool's would
        while time.monotonic() < end and not (self.folder / "client.stop").exists():
            for _ in range(100):
                now = time.monotonic()
                if now < due:
                    time.sleep(due - now)
                self.n += 1
                asked = time.monotonic()
                if self.write(self.side):
                    count += 1
                    due += every
                else:
                    due = self.follow(asked) + every
                # One that cannot keep up does not try to catch up in a rush.
                due = max(due, time.monotonic() - 20 * every)
                if time.monotonic() >= second:
                    self.tell(rate=count)
                    second, count = second + 1, 0


# ---- the batch ----

def cpu_times():
    """(idle, all) of the machine, in ticks; waiting for a disk is idle."""
    fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


class Batch:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(None, "lockstep-pauses-")
        self.results = []

    def set_up(self):
        self.ends = [PostgresEnd(self.workdir.path, side, {"shared_buffers": "64MB"})
                     for side in ("source", "target")]
        for end in self.ends:
            self.cleanup.add(end.stop)
            end.start()
        source, target = self.ends
        source.load(["CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL)",
                     f"INSERT INTO counters SELECT i, 0 FROM generate_series(1, {ROWS}) i"])
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "pauses",
                                 source, target, uris=(source.uri(), target.uri()))
        self.cleanup.add(self.lockstep.end)
        self.lockstep.config("tables: {include: [public.*]}\n")
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)
        target.server.psql("shop", input="GRANT ALL ON ALL TABLES IN SCHEMA public TO app")

    def start_client(self):
        folder = self.lockstep.folder
        (folder / "client.json").write_text(json.dumps(
            {"dsns": [end.dsn() for end in self.ends], "rate": self.args.rate}))
        err = (folder / "client.err").open("ab")
        self.client = subprocess.Popen(["/usr/bin/python3", __file__, "--client", str(folder)],
                                       stdin=subprocess.DEVNULL, stdout=err, stderr=err)
        err.close()
        self.cleanup.add(self.end_client)

    def end_client(self):
        if self.client.poll() is None:
            self.client.kill()
            self.client.wait()

    def lines(self):
        path = self.lockstep.folder / "client.log"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def must_live(self):
        if self.client.poll() is not None:
            raise Failure("the client ended: "
                          + (self.lockstep.folder / "client.err").read_text()[-1500:])

    def moved(self):
        self.must_live()
        return [li for li in self.lines() if li.get("moved")]

    def switch(self, command):
        before = len(self.moved())
        code, out, err = self.lockstep.do(command, "--yes", "--json", timeout=120)
        if code != 0:
            raise Failure(f"{command}: {code}, {out}{err}")
        answer = json.loads(out)
        seen = until("the client follows", 20, lambda: self.moved()[before:], every=0.05)[0]
        predicted = answer["predicted"]
        self.results.append({
            "command": command, "client_ms": round(seen["ms"], 1), "pause_ms": answer["pause_ms"],
            **{name: predicted[name] for name in ("low_ms", "expected_ms", "high_ms")},
            "parts": {p["part"]: p["expected_ms"] for p in predicted["parts"]},
            "steps": {s["state"]: s["took_ms"] for s in answer["steps"]}})
        got = self.results[-1]
        print(f"{command:8}  {got['client_ms']:7.1f} ms by the client, {got['pause_ms']} by "
              f"lockstep, predicted {got['expected_ms']} ({got['low_ms']} to {got['high_ms']})",
              flush=True)

    def run(self):
        self.set_up()
        self.start_client()
        time.sleep(WARM_UP)
        idle, whole = cpu_times()
        for _ in range(self.args.cutovers):
            for command in ("cutover", "rollback"):
                self.switch(command)
                time.sleep(BETWEEN)
        now = cpu_times()
        share = (now[0] - idle) / max(1, now[1] - whole)
        rates = [li["rate"] for li in self.lines() if "rate" in li]
        self.finish()
        for r in self.results:
            r.update(idle=round(share, 3), void=share < IDLE_MIN,
                     rate=statistics.median(rates) if rates else 0)
        return self.results

    def finish(self):
        (self.lockstep.folder / "client.stop").touch()
        until("the client ends", 20, lambda: self.client.poll() is not None)
        if self.client.returncode:
            self.must_live()
        source, target = self.ends
        # Nothing that was acknowledged is missing: both sides hold the same sum at the end.
        sums = "SELECT sum(n) FROM counters"
        until("both sides hold the same", 30, lambda: source.query(sums) == target.query(sums))
        self.lockstep.must("finish", "--yes", timeout=120)


# ---- the figures ----

def as_predicted(r):
    """It held, and was worth something."""
    return r["pause_ms"] <= r["high_ms"] and r["high_ms"] <= 4 * r["expected_ms"] + 100


def figures(results):
    client = sorted(r["client_ms"] for r in results)
    return (statistics.median(client), client[-1], sum(map(as_predicted, results)),
            sum(r["client_ms"] <= r["high_ms"] for r in results))


def describe(what, results):
    if not results:
        return f"{what}: none"
    median, slowest, held, by_client = figures(results)
    n = len(results)
    rates = statistics.median(r["rate"] for r in results)
    return (f"{n} {what}: pause median {median:.0f} ms, slowest {slowest:.0f} ms; predicted in "
            f"{held} of {n} ({by_client} by the client's clock); {rates:.0f} tx/s")


def tell(results):
    """The last line is for the evidence."""
    void = [r for r in results if r["void"]]
    good = [r for r in results if not r["void"]]
    if void:
        print(f"void: {len(void)} switches with idle CPU of "
              f"{min(r['idle'] for r in void):.0%} to {max(r['idle'] for r in void):.0%}, less than "
              f"{IDLE_MIN:.0%}: {describe('of them', void)}")
    cutovers = [r for r in good if r["command"] == "cutover"]
    print(f"{describe('cutovers', cutovers)}; "
          f"{describe('rollbacks', [r for r in good if r['command'] == 'rollback'])}", flush=True)
    return cutovers


def report(args):
    results = [json.loads(line) for line in args.state.read_text().splitlines()] \
        if args.state.exists() else []
    cutovers = tell(results)
    if len(cutovers) < args.want:
        raise Failure(f"{len(cutovers)} cutovers counted, {args.want} are wanted")
    if not cutovers:
        return 0
    median, slowest, held, _ = figures(cutovers)
    if median > MEDIAN_MAX_MS or slowest > SLOWEST_MAX_MS or held < HELD_MIN * len(cutovers):
        raise Failure(f"aims: median {MEDIAN_MAX_MS} ms, slowest {SLOWEST_MAX_MS} ms, predicted in "
                      f"{HELD_MIN:.0%}")
    return 0


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary")
    parser.add_argument("--cutovers", type=int, default=5)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--state", type=pathlib.Path)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--want", type=int, default=0)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    if args.client:
        Client(args.client).run()
        return 0
    if args.report:
        return report(args)
    if not args.binary:
        parser.error("--binary is missing")
    args.binary = os.path.abspath(args.binary)
    batch = Batch(args, cleanup)
    state = {"done": False}
    cleanup.add(lambda: batch.workdir.remove() if state["done"] and not args.keep else
                print(f"kept: {batch.workdir.path}"))
    results = batch.run()
    state["done"] = True
    if args.state:
        with args.state.open("a") as f:
            f.write("".join(json.dumps(r) + "\n" for r in results))
    tell(results)
    return 0


if __name__ == "__main__":
    guarded(main)
