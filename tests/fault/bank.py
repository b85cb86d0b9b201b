#!/usr/bin/python3
"""A bank that is cut over, rolled back and cut over again while 16 clients move money, in any direction
over either journal. No acknowledged transfer is missing or doubled on either side, every account holds
what its receipts say, and the clients saw only clear, retryable errors.

    bank.py --binary FILE [--from postgres|mariadb] [--to postgres|mariadb] [--journal file|kafka]
            [--seed N] [--seconds S] [--keep]

What is not chosen of the direction is drawn by the seed.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import switch  # noqa: E402
from harness.base import Failure, guarded, until  # noqa: E402

# A cutover, the way back, and both again: what a first time leaves must not harm a second one. The
# second time apply stands still for a while, so that there is something to be drained.
ROADS = (("cutover", 0), ("rollback", 0), ("cutover", 1), ("rollback", 1))


class BankTest(switch.Bank):
    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def under_way(self, where):
        end = time.monotonic() + self.args.seconds
        self.clients.go_on(where)
        until("the clients go on", self.args.seconds + 5, lambda: time.monotonic() > end)
        self.well()

    def conduct(self, verb):
        code, out, err = self.lockstep.do(verb, "--yes", timeout=180)
        if code:
            raise Failure(f"{verb}: exit {code}: {err or out}")

    def conduct_behind(self, verb, seconds):
        """Capture and apply stand still from before the fence on; nothing may open until they have
        gone on and what was written meanwhile is there."""
        it = self.lockstep.stand("fenced:before", verb, "--yes")
        self.cleanup.add(it.kill)
        self.lockstep.process.send_signal(signal.SIGSTOP)
        try:
            self.clients.go_on("while nothing is captured", more=20)
            it.process.send_signal(signal.SIGCONT)
            end = time.monotonic() + seconds
            until("nothing is captured", seconds + 5, lambda: time.monotonic() > end)
        finally:
            self.lockstep.process.send_signal(signal.SIGCONT)
        code = it.go_on(180)
        if code:
            raise Failure(f"{verb}: exit {code}: {it.text()}")

    def goes(self, verb, behind):
        closing, opening = switch.ROADS[verb]
        if self.sealed:
            self.prober.road(closing, opening, may_open=True)
        if behind:
            self.conduct_behind(verb, behind)
        else:
            self.conduct(verb)
        record = json.loads((self.lockstep.folder / f"{verb}-{switch.MIGRATION}.json").read_text())
        if verb == "cutover" and not record.get("way_back"):
            raise Failure(f"there is no way back: {record.get('way_back_refused')}")
        self.under_way(f"on the {opening}")
        self.prober.must_refuse(closing, 0.2, f"behind the {verb}")
        n = self.audit(verb)
        self.say(f"{verb}{', apply behind' if behind else ''}: writes were held for "
                 f"{record.get('pause_ms')} ms; {n} transfers, the same on both sides")

    def go(self):
        self.began = time.monotonic()
        self.set_up()
        self.follow()
        self.under_way("on the source")
        for verb, behind in ROADS:
            self.goes(verb, behind)
        self.finish()
        self.say(f"clients saw {self.clients.seen()}; {len(self.clients.doubts)} in doubt")
        print(f"{self.args.source} -> {self.args.target}, journal {self.args.journal}: "
              f"{len(ROADS)} switches under {len(self.clients.clients)} clients, "
              f"{len(self.clients.acknowledged)} acknowledged transfers on both sides, the sum holds")


def main(cleanup):
    parser = argparse.ArgumentParser()
    switch.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3, help="of writing between two switches")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    switch.draw_direction(args, args.seed)
    return switch.conduct(args, cleanup, BankTest(args, cleanup, seed=args.seed + 1))


if __name__ == "__main__":
    guarded(main)
