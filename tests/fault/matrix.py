#!/usr/bin/python3
"""Everything that can befall a switch, generated from the rows of its table of states, on both roads:
killed before and after each step, stopped for longer than the lease, both servers crashed while the
coordinator stands there, and all three lost at once. Never are two sides writable; before the seal no longer than the lease is none,
though nobody is alive; behind it neither is until the next call, which goes the road to its end. The
bank's books are right on both sides at the end.

    matrix.py --binary FILE [--from KIND] [--to KIND] [--journal file|kafka]
              [--seed N] [--cases K] [--part N/M] [--only WORD] [--list] [--keep]

One migration is set up once; each case ends behind a switch, and the next one takes the road back. The
direction that is not chosen is drawn by the seed, as are the K cases of --cases. --only: those whose
name has the word in it, e.g. 'crash closed'.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import switch  # noqa: E402
from harness.base import Failure, guarded, until  # noqa: E402

LEASE_S = 3
# This machine may be busy: how long nobody may write is told by the servers, not by our clock.
SLACK_S = 15
# What a switch says that was undone since somebody stood still for longer than its lease.
LAPSED = "could not be renewed"
LAPSES = 3
FENCE = {"postgres": "SELECT lease, now_ms FROM lockstep.fence_read()",
         "mysql": "SELECT lease_end, CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED) FROM lockstep.fence"}
AUDIT_EVERY = 8
READY_S = 90
# Points within a step, beside the two that each row has.
WITHIN = {"closed": ("sealed",), "switched": ("opened",)}
SEAL, OPEN = ("closed", "sealed"), ("switched", "opened")

Point = collections.namedtuple("Point", "state where row place")
Case = collections.namedtuple("Case", "kind point")


def points_of(rows):
    """Every point of the road, in the order in which it is passed."""
    points = []
    for i, row in enumerate(rows):
        for where in ("before", *WITHIN.get(row["to"], ()), "after"):
            points.append(Point(row["to"], where, i, len(points)))
    return points


def cases_of(rows):
    points = points_of(rows)
    names = {(p.state, p.where) for p in points}
    if not {SEAL, OPEN} <= names:
        raise Failure(f"the table has no {SEAL} or {OPEN}: {names}")
    # A coordinator that stands before a step stands at the row behind it too.
    stands = [p for p in points if p.where != "after" or p.state == SEAL[0]]
    return points, [Case("kill", p) for p in points] + [
        Case(kind, p) for p in stands for kind in ("stop", "crash", "outage")]


def name(case):
    return f"{case.kind} {case.point.state}:{case.point.where}"


class Matrix(switch.Bank):
    disturbed = True

    def __init__(self, args, cleanup):
        super().__init__(args, cleanup, lease=LEASE_S, max_pause=20, count=8, pace=0.1,
                         crashes=True, seed=args.seed + 1)
        out = subprocess.run([args.binary, "docs", "cutover", "--json"], check=True, text=True,
                             capture_output=True, timeout=60).stdout
        self.rows = json.loads(out)["rows"]
        self.points, cases = cases_of(self.rows)
        self.place = {(p.state, p.where): p.place for p in self.points}
        self.cases = self.chosen([(verb, case) for case in cases for verb in switch.ROADS])
        self.longest = 0.0
        self.calls = collections.Counter()

    def chosen(self, all_cases):
        """In turn of one road and of the other, since each ends behind a switch."""
        args, rng = self.args, random.Random(self.args.seed)
        if args.only:
            all_cases = [(v, c) for v, c in all_cases if args.only in f"{v} {name(c)}"]
        if args.part:
            part, parts = (int(x) for x in args.part.split("/"))
            # Whole cases, each in both roads.
            all_cases = [x for i, x in enumerate(all_cases) if i // 2 % parts == part - 1]
        roads = {verb: [c for v, c in all_cases if v == verb] for verb in switch.ROADS}
        if args.cases:
            n = (args.cases + 1) // 2
            roads = {verb: rng.sample(cases, min(n, len(cases))) for verb, cases in roads.items()}
        order = []
        for i in range(max(len(r) for r in roads.values())):
            # A road that has no case left is gone undisturbed.
            order += [(verb, cases[i] if i < len(cases) else None)
                      for verb, cases in roads.items()]
        while order and order[-1][1] is None:
            order.pop()
        return order

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    # ---- calls ----

    def call(self, verb, kill=None):
        """The road's command; one that is refused because something still recovers, or that a slow
        machine took the lease from, again. Its exit status and what it said; by how many calls stands
        in self.calls."""
        end, lapses = time.monotonic() + READY_S, 0
        while True:
            code, out, err = self.lockstep.do(verb, "--yes", timeout=180, kill=kill)
            self.calls[code] += 1
            lapses += code == 1 and LAPSED in out + err
            again = code == 4 or code == 1 and LAPSED in out + err and lapses < LAPSES
            if not again or time.monotonic() > end:
                return code, out + err
            self.well()
            time.sleep(0.3)

    def completes(self, verb, what, tries=1):
        """The next call finishes the road; one that has to wait for what recovers from a crash may be
        undone first, and says so."""
        for left in reversed(range(tries)):
            code, text = self.call(verb)
            if code == 0:
                return
            self.well()
            if code != 1 or not left:
                break
            self.say(f"    undone: {text.strip().splitlines()[-1][:200]}")
        raise Failure(f"{what}: the next {verb} ends with {code}: {text[-1500:]}")

    def stand(self, verb, point):
        end, lapses = time.monotonic() + READY_S, 0
        while True:
            it = self.lockstep.stand(f"{point.state}:{point.where}", verb, "--yes")
            self.cleanup.add(it.kill)
            if it.ended() is None:
                self.stood = time.monotonic()
                return it
            lapses += it.ended() == 1 and LAPSED in it.text()
            again = it.ended() == 4 or it.ended() == 1 and LAPSED in it.text() and lapses < LAPSES
            if not again or time.monotonic() > end:
                raise Failure(f"{verb} ended with {it.ended()} before {it.point}: {it.text()}")
            time.sleep(0.3)

    # ---- what must be so while nobody goes on ----

    def must_be_recorded(self, verb, point, what):
        row = self.row(verb)
        was = {self.rows[point.row]["from"]} | ({self.rows[point.row]["to"]}
                                                if self.rows[point.row]["again"] else set())
        if row.get("state") not in was or row.get("going") != point.state:
            raise Failure(f"{what}: the row says {row.get('state')}, on its way to "
                          f"{row.get('going')}; expected {' or '.join(was)} and {point.state}")

    def must_end_in_time(self, side, what):
        """By its server's own clock the fence of that side ends within the lease, or there is none."""
        end = self.ends[side]
        try:
            lease, now = end.query(FENCE["postgres" if end.kind == "postgres" else "mysql"])[0]
        except Exception as e:  # not installed yet, by whatever name the driver calls that
            if "lockstep" in str(e):
                return
            raise
        if int(lease) - int(now) > LEASE_S * 1000:
            raise Failure(f"{what}: the {side} is fenced for {int(lease) - int(now)} ms more, the lease"
                          f" is {LEASE_S} s")

    def nobody_goes_on(self, verb, point, what, since):
        """Sides as they must be at this point, with nobody alive who could change it."""
        closing, opening = switch.ROADS[verb]
        if point.place < self.place[SEAL]:
            self.must_end_in_time(closing, what)
            took = self.prober.await_taken(closing, LEASE_S + SLACK_S, what, since)
            self.longest = max(self.longest, took)
            return f"{closing} open after {took:.1f} s"
        if point.place < self.place[OPEN]:
            for side in (closing, opening):
                self.prober.must_refuse(side, 0.1, what)
            self.prober.must_refuse(closing, LEASE_S + 0.5, what)
        else:
            self.prober.await_taken(opening, SLACK_S, what, since)
            self.prober.must_refuse(closing, LEASE_S + 0.5, what)
        # Also while the servers came back, one before the other.
        if self.prober.taken(closing, self.stood):
            raise Failure(f"{what}: the {closing} took a write though it is sealed")
        return "neither open" if point.place < self.place[OPEN] else f"{opening} open"

    # ---- the kinds ----

    def kill(self, verb, point, what):
        code, text = self.call(verb, kill=f"{point.state}:{point.where}")
        self.stood = since = time.monotonic()
        if code != -signal.SIGKILL:
            raise Failure(f"{what}: the call ended with {code}: {text[-1500:]}")
        self.must_be_recorded(verb, point, what)
        return self.nobody_goes_on(verb, point, what, since)

    def stop(self, verb, point, what):
        it = self.stand(verb, point)
        since = time.monotonic()
        self.must_be_recorded(verb, point, what)
        so = self.nobody_goes_on(verb, point, what, since)
        rest = since + LEASE_S + 1 - time.monotonic()
        if rest > 0:
            until("longer than the lease", rest + 5,
                  lambda: time.monotonic() > since + LEASE_S + 1)
        return f"{so}, {self.wakes(it, verb, what)}"

    def crash(self, verb, point, what):
        it = self.stand(verb, point)
        self.both_crash()
        since = time.monotonic()
        self.must_be_recorded(verb, point, what)
        so = self.nobody_goes_on(verb, point, what, since)
        return f"{so}, {self.wakes(it, verb, what)}"

    def outage(self, verb, point, what):
        """The coordinator is gone and both servers have crashed: only what is durable counts."""
        it = self.stand(verb, point)
        it.kill()
        self.both_crash()
        since = time.monotonic()
        self.must_be_recorded(verb, point, what)
        return self.nobody_goes_on(verb, point, what, since)

    def wakes(self, it, verb, what):
        """Done, or undone: nothing between."""
        self.prober.allow()
        code = it.go_on(150)
        if code not in (0, 1):
            raise Failure(f"{what}: it went on and ended with {code}: {it.text()}")
        return "then it went on" if code == 0 else "then it gave up"

    def both_crash(self):
        trouble = []

        def crash(end):
            try:
                end.crash_restart()
            except Exception as e:
                trouble.append(f"{end.side}: {e!r}")
        threads = [threading.Thread(target=crash, args=(end,)) for end in self.ends.values()]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if trouble:
            raise Failure(f"a server did not come back: {trouble}")

    # ---- the whole ----

    def goes(self, verb, case):
        closing, opening = switch.ROADS[verb]
        what = f"{verb}, {name(case) if case else 'undisturbed'}"
        began = time.monotonic()
        so = ""
        if case:
            late = case.point.place >= self.place[OPEN]
            self.prober.road(closing, opening, may_open=late)
            so = getattr(self, case.kind)(verb, case.point, what)
        else:
            self.prober.road(closing, opening)
        self.prober.allow()
        self.completes(verb, what, tries=3 if case and case.kind in ("crash", "outage") else 1)
        if self.state(verb) != "switched":
            raise Failure(f"{what}: the state is {self.state(verb)}")
        self.prober.await_taken(opening, SLACK_S, what)
        self.clients.go_on(f"on the {opening}, {what}", more=10)
        self.prober.must_refuse(closing, 0.1, what)
        self.well()
        self.say(f"{what}: {so or 'goes'} ({time.monotonic() - began:.1f} s)")

    def first_preparation(self):
        """The target is open to its own users until it is first prepared: so this, and a first way
        there and back, come before the prober judges."""
        for where in ("before", "after"):
            code, text = self.call("cutover", kill=f"{self.rows[0]['to']}:{where}")
            if code != -signal.SIGKILL:
                raise Failure(f"the first preparation ended with {code}: {text[-1500:]}")
            self.prober.await_taken("source", SLACK_S, "the first preparation, killed")
        self.prober.must_refuse("target", 0.1, "prepared")
        for verb in switch.ROADS:
            self.goes(verb, None)

    def go(self):
        self.began = time.monotonic()
        self.set_up()
        self.follow()
        self.say("set up")
        self.first_preparation()
        for i, (verb, case) in enumerate(self.cases, 1):
            self.goes(verb, case)
            if i % AUDIT_EVERY == 0 or i == len(self.cases):
                self.say(f"{self.audit(verb)} transfers, the same on both sides")
        if self.cases and self.cases[-1][0] == "cutover":
            self.goes("rollback", None)
            self.audit("rollback")
        self.finish()
        done = sum(1 for _, case in self.cases if case)
        self.say(f"clients saw {self.clients.seen()}; {len(self.clients.doubts)} in doubt; calls by "
                 f"exit status: {dict(self.calls)}")
        print(f"{self.args.source} -> {self.args.target}, journal {self.args.journal}: {done} cases "
              f"from {len(self.rows)} rows, never two writable sides, longest without one before the "
              f"seal {self.longest:.1f} s (lease {LEASE_S} s), {len(self.clients.acknowledged)} "
              "acknowledged transfers on both sides")


def main(cleanup):
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, help="so many, drawn by the seed")
    parser.add_argument("--part", help="N/M: the Nth of M parts of the cases")
    parser.add_argument("--only", help="cases with this word in their name")
    parser.add_argument("--list", action="store_true", help="print the cases, run nothing")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    switch.draw_direction(args, args.seed)
    test = Matrix(args, cleanup)
    if args.list:
        for verb, case in test.cases:
            print(verb, name(case) if case else "undisturbed")
        test.workdir.remove()
        return 0
    return switch.conduct(args, cleanup, test)


if __name__ == "__main__":
    guarded(main)
