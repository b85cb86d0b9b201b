#!/usr/bin/python3
"""How long a switch holds writes up, by the client's own clock, and whether that was predicted: file
journal, single-row updates of one client, that follows the switch.

    pauses.py --binary FILE [--from KIND] [--to KIND] [--cutovers N] [--rate N | --half-drain]
              [--state FILE] [--keep]
    pauses.py --report --state FILE [--want N]

The client alone makes --rate updates a second; with --half-drain the batch first measures how many a
second apply drains from a backlog of transactions of 1,000 updates, as the bench's backlog U has, and a
filler inside the server that takes writes makes such transactions at half of that beside the client.

A batch is a migration of its own: N times there (cutover) and back (rollback), each a line of --state,
so that batches add up. A batch with less than 20 % idle CPU is void, says so, and does not count.
--report adds the lines up, a direction at a time; exit 1 unless --want cutovers of each counted and the
aims of the switch are met. At a given rate: median at most 500 ms, slowest at most 2 s, the prediction
held in nine of ten. At half the drain: median at most three times what the flip of the fence, in that
same pause, and the round trip of a marker, measured before it, took.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.bank import MysqlDoor, PostgresDoor  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402
from harness.switch import KINDS, SIDES  # noqa: E402

ROWS = 5000  # that the client writes
FIRST, LAST = 1, 2  # the rows that tell when a backlog's drain begins and ends; the client is not there yet
FILLED = 200000  # rows behind them, that the filler writes
SIZE = 1000  # updates in a transaction of the filler
BACKLOG = 300  # such transactions, whose drain is measured
FILL_SECONDS = 1  # of a filler's statement
BESIDE_RATE = 200  # of the client that has a filler beside it
WARM_UP, BETWEEN = 3.0, 2.0  # seconds under load before the first switch, and before each next one
IDLE_MIN = 0.2
MEDIAN_MAX_MS, SLOWEST_MAX_MS, HELD_MIN = 500, 2000, 0.9
TRIPS_MAX = 3  # times the flip and a marker's round trip
LOAD_MIN = 0.9  # of half the drain: what writes less, the pauses included, does not count as half
TRY_EVERY = 0.001
FILL_TRY_EVERY = 0.02  # it connects anew each time, on the machine whose pause is measured
CLIENT_MAX = 1800  # seconds; nobody who forgets to end it keeps a client
DOORS = {"postgres": PostgresDoor, "mariadb": MysqlDoor}
# Refused for the moment, sealed, ended by the fence: what a switch tells its clients. MariaDB ends a
# session with any of the last three.
CLEAR = {PostgresDoor: {"40001", "25006", "57P01"},
         MysqlDoor: {"1290", "4151", "1927", "2013", "2006"}}
FILL = {
    "postgres": """DO $$ DECLARE due timestamptz := clock_timestamp(); i int; at int;
BEGIN
 SET synchronous_commit = off;
 FOR i IN 1..{times} LOOP
  at := {first} + floor(random() * ({rows} - {size}));
  UPDATE counters SET n = n + 1 WHERE id BETWEEN at AND at + {size} - 1;
  COMMIT;
  due := due + {every} * interval '1 s';
  PERFORM pg_sleep(greatest(0, extract(epoch FROM due - clock_timestamp())));
 END LOOP;
END $$""",
    "mariadb": """BEGIN NOT ATOMIC
 DECLARE due double DEFAULT UNIX_TIMESTAMP(SYSDATE(6));
 DECLARE i, at int DEFAULT 0;
 WHILE i < {times} DO
  SET at = {first} + FLOOR(RAND() * ({rows} - {size}));
  UPDATE counters SET n = n + 1 WHERE id BETWEEN at AND at + {size} - 1;
  SET due = due + {every};
  DO SLEEP(GREATEST(0, due - UNIX_TIMESTAMP(SYSDATE(6))));
  SET i = i + 1;
 END WHILE;
END""",
}


def fill(kind, times, every):
    """So many transactions, one each so many seconds."""
    return FILL[kind].format(times=times, every=every, first=ROWS + 1, rows=FILLED, size=SIZE)


# ---- the client: a process of its own, so that nothing of the test takes its time ----

class Client:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.facts = json.loads((self.folder / "client.json").read_text())
        self.doors = [DOORS[kind](port) for kind, port in self.facts["ends"]]
        self.conns = [None, None]
        self.side = 0
        self.n = 0
        self.log = (self.folder / "client.log").open("w", buffering=1)

    def tell(self, **what):
        self.log.write(json.dumps(what) + "\n")

    def connect(self, side):
        conn = self.conns[side]
        if conn is None or self.doors[side].broken(conn):
            self.conns[side] = None
            self.conns[side] = self.doors[side].connect()

    def write(self, side):
        """True if the update is acknowledged."""
        door = self.doors[side]
        try:
            self.connect(side)
            with self.conns[side].cursor() as cur:
                cur.execute("UPDATE counters SET n = n + 1 WHERE id = %s",
                            (self.n % ROWS + 1,))
            return True
        except door.errors as e:
            if door.code(e, self.conns[side]) not in CLEAR[type(door)]:
                self.tell(trouble=repr(e))
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
                    due += every
                else:
                    due = self.follow(asked) + every
                # One that cannot keep up does not try to catch up in a rush.
                due = max(due, time.monotonic() - 20 * every)


# ---- the filler ----

class Filler:
    """So many updates a second on the side that takes them, without a client's CPU."""

    def __init__(self, ends, rate):
        self.doors = [DOORS[end.kind](end.port) for end in ends]
        every = SIZE / rate
        self.sql = [fill(end.kind, max(1, round(FILL_SECONDS / every)), every) for end in ends]
        self.over = threading.Event()
        self.trouble = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        side, conn = 0, None
        while not self.over.is_set() and not self.trouble:
            door = self.doors[side]
            try:
                if conn is None:
                    conn = door.connect()
                conn.cursor().execute(self.sql[side])
            except door.errors as e:
                if door.code(e, conn) not in CLEAR[type(door)]:
                    self.trouble = repr(e)
                if conn is not None:
                    conn.close()
                side, conn = 1 - side, None
                self.over.wait(FILL_TRY_EVERY)
        if conn is not None:
            conn.close()

    def stop(self):
        self.over.set()
        self.thread.join(30)
        if self.trouble:
            raise Failure(f"the filler: {self.trouble}")


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
        self.ends = [make_end(kind, self.workdir.path, side)
                     for kind, side in zip((self.args.source, self.args.target), SIDES)]
        for end in self.ends:
            self.cleanup.add(end.stop)
            end.start()
        source, target = self.ends
        source.load(["CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL)"]
                    + [f"INSERT INTO counters VALUES {rows}" for rows in self.rows()])
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "pauses",
                                 source, target, uris=(source.uri(), target.uri()))
        self.cleanup.add(self.lockstep.end)
        self.lockstep.config(f"tables: {{include: ['{source.schema}.*']}}\n"
                             + (source.fence() or target.fence()))
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)
        if target.kind == "postgres":
            target.server.psql("shop", input="GRANT ALL ON ALL TABLES IN SCHEMA public TO app")

    def rows(self):
        for first in range(1, ROWS + FILLED + 1, 5000):
            yield ", ".join(f"({i}, 0)" for i in range(first, min(first + 5000, ROWS + FILLED + 1)))

    def sum(self, end):
        return int(end.query("SELECT sum(n) FROM counters")[0][0])

    def measure_drain(self):
        """Updates a second, from the first that is seen to the last."""
        source, target = self.ends
        self.lockstep.stop()
        conn = DOORS[source.kind](source.port).connect()
        for sql in (self.tick(FIRST), fill(source.kind, BACKLOG, 0), self.tick(LAST)):
            conn.cursor().execute(sql)
        conn.close()
        self.lockstep.start()
        until("the first of the backlog", 60, lambda: self.ticked(target, FIRST), every=0.002)
        began = time.monotonic()
        first = self.sum(target)
        until("the last of the backlog", 300, lambda: self.ticked(target, LAST), every=0.002)
        return (self.sum(source) - first) / (time.monotonic() - began)

    @staticmethod
    def tick(row):
        return f"UPDATE counters SET n = n + 1 WHERE id = {row}"

    @staticmethod
    def ticked(end, row):
        return int(end.query(f"SELECT n FROM counters WHERE id = {row}")[0][0])

    def start_clients(self):
        rate, self.drain, self.filler = self.args.rate, None, None
        if self.args.half_drain:
            self.drain = self.measure_drain()
            rate = BESIDE_RATE
            self.filler = Filler(self.ends, self.drain / 2 - rate)
            self.cleanup.add(self.filler.over.set)
        folder = self.lockstep.folder
        (folder / "client.json").write_text(json.dumps(
            {"ends": [(end.kind, end.port) for end in self.ends], "rate": rate}))
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
        if self.filler and self.filler.trouble:
            self.filler.stop()

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
            # Once each: the flip, as it was made, and a marker's round trip, as measured before.
            "flip_ms": answer["flip_ms"],
            "trip_ms": answer["flip_ms"] + sum(statistics.median(p["samples_ms"])
                                               for p in predicted["parts"] if p["part"] == "drain"),
            "steps": {s["state"]: s["took_ms"] for s in answer["steps"]}})
        got = self.results[-1]
        print(f"{command:8}  {got['client_ms']:7.1f} ms by the client, {got['pause_ms']} by "
              f"lockstep, predicted {got['expected_ms']} ({got['low_ms']} to {got['high_ms']}), "
              f"flip and round trip {got['trip_ms']}", flush=True)

    def run(self):
        self.set_up()
        self.start_clients()
        time.sleep(WARM_UP)
        idle, whole = cpu_times()
        done, began = self.sum(self.ends[0]), time.monotonic()
        for _ in range(self.args.cutovers):
            for command in ("cutover", "rollback"):
                self.switch(command)
                time.sleep(BETWEEN)
        now = cpu_times()
        share = (now[0] - idle) / max(1, now[1] - whole)
        rate = (self.sum(self.ends[0]) - done) / (time.monotonic() - began)
        self.finish()
        for r in self.results:
            r.update(source=self.args.source, target=self.args.target, drain=self.drain,
                     idle=round(share, 3), void=share < IDLE_MIN, rate=round(rate))
        return self.results

    def finish(self):
        if self.filler:
            self.filler.stop()
        (self.lockstep.folder / "client.stop").touch()
        until("the client ends", 20, lambda: self.client.poll() is not None)
        if self.client.returncode:
            self.must_live()
        source, target = self.ends
        # Nothing that was acknowledged is missing: both sides hold the same sum at the end.
        until("both sides hold the same", 30, lambda: self.sum(source) == self.sum(target))
        self.lockstep.must("finish", "--yes", timeout=120)


# ---- the figures ----

def as_predicted(r):
    """It held, and was worth something."""
    return r["pause_ms"] <= r["high_ms"] and r["high_ms"] <= 4 * r["expected_ms"] + 100


def describe(what, results):
    if not results:
        return f"0 {what}"
    client = sorted(r["client_ms"] for r in results)
    n, held = len(results), sum(map(as_predicted, results))
    by_client = sum(r["client_ms"] <= r["high_ms"] for r in results)
    text = (f"{n} {what}: pause median {statistics.median(client):.0f} ms, slowest {client[-1]:.0f} "
            f"ms; predicted in {held} of {n} ({by_client} by the client's clock); "
            f"{statistics.median(r['rate'] for r in results):.0f} ")
    if not results[0].get("drain"):
        return text + "tx/s"
    return text + (f"updates/s, in transactions of {SIZE} beside {BESIDE_RATE} single ones, of a drain "
                   f"of {statistics.median(r['drain'] for r in results):.0f}; flip and round trip "
                   f"{trip(results):.0f} ms, the pause {in_trips(results):.1f} times that")


def trip(results):
    return statistics.median(r["trip_ms"] for r in results)


def in_trips(results):
    return statistics.median(r["client_ms"] for r in results) / max(1, trip(results))


def short_of(results):
    """What of the aims is not met, None if all are."""
    client = [r["client_ms"] for r in results]
    if results[0].get("drain"):
        least = min(r["rate"] / r["drain"] for r in results) * 2
        if least < LOAD_MIN:
            return f"the load came to {least:.0%} of half the drain only"
        return None if in_trips(results) <= TRIPS_MAX else \
            f"median at most {TRIPS_MAX} times the flip and a round trip"
    if statistics.median(client) > MEDIAN_MAX_MS or max(client) > SLOWEST_MAX_MS:
        return f"median {MEDIAN_MAX_MS} ms, slowest {SLOWEST_MAX_MS} ms"
    return None if sum(map(as_predicted, results)) >= HELD_MIN * len(results) else \
        f"predicted in {HELD_MIN:.0%}"


def tell(results):
    """A line a direction, what was void before it; the last line is for the evidence. Returns the
    cutovers that count, by direction."""
    ways = {}
    for r in results:
        ways.setdefault((r.get("source", "postgres"), r.get("target", "postgres")), []).append(r)
    counted, lines = {}, []
    for way, of in ways.items():
        void = [r for r in of if r["void"]]
        good = [r for r in of if not r["void"]]
        if void:
            print(f"{' to '.join(way)}: void: {len(void)} switches with idle CPU of "
                  f"{min(r['idle'] for r in void):.0%} to {max(r['idle'] for r in void):.0%}, less "
                  f"than {IDLE_MIN:.0%}: {describe('of them', void)}")
        counted[way] = [r for r in good if r["command"] == "cutover"]
        lines.append(f"{' to '.join(way)}: {describe('cutovers', counted[way])}; " + describe(
            "rollbacks", [r for r in good if r["command"] == "rollback"]))
    print("; ".join(lines), flush=True)
    return counted


def report(args):
    results = [json.loads(line) for line in args.state.read_text().splitlines()] \
        if args.state.exists() else []
    counted = tell(results)
    few = [" to ".join(way) for way, of in counted.items() if len(of) < args.want]
    if few or (args.want and not counted):
        raise Failure(f"fewer than {args.want} cutovers counted: {', '.join(few) or 'none'}")
    short = [f"{' to '.join(way)}: {short_of(of)}" for way, of in counted.items()
             if of and short_of(of)]
    if short:
        raise Failure("the aim is missed: " + "; ".join(short))
    return 0


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary")
    parser.add_argument("--from", dest="source", choices=KINDS, default="postgres")
    parser.add_argument("--to", dest="target", choices=KINDS, default="postgres")
    parser.add_argument("--cutovers", type=int, default=5)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--half-drain", action="store_true")
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
