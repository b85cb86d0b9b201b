"""The live load as a test sees it: start, pause, stop, and what the clients' own logs say."""

import bisect
import collections
import json
import pathlib
import subprocess
import sys

from .base import Failure, ROOT, until

sys.path.insert(0, str(ROOT / "tests" / "load"))
import ops  # noqa: E402

CLIENTS = 8


class Traffic:
    def __init__(self, folder, dsn, orders, scale, rate=400, seed=1, max_seconds=1800,
                 shop="ops"):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.point_at(dsn)
        self.err = (self.dir / "load.err").open("ab")
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(ROOT / "tests/load/load.py"), "--dir", str(self.dir),
             "--orders", str(orders), "--scale", str(scale), "--clients", str(CLIENTS),
             "--rate", str(rate), "--seed", str(seed), "--max-seconds", str(max_seconds),
             "--shop", shop],
            stdin=subprocess.DEVNULL, stdout=self.err, stderr=self.err, start_new_session=True)

    def point_at(self, dsn):
        fresh = self.dir / "dsn.new"
        fresh.write_text(dsn + "\n")
        fresh.rename(self.dir / "dsn")

    def must_live(self):
        if self.process.poll() is not None:
            raise Failure(f"the load ended: {(self.dir / 'load.err').read_text()[-2000:]}")

    def pause(self):
        (self.dir / "pause").touch()

        def all_wait():
            self.must_live()
            return len(list(self.dir.glob("paused.*"))) == CLIENTS
        until("all clients wait", 60, all_wait)

    def resume(self):
        (self.dir / "pause").unlink(missing_ok=True)
        until("all clients go on", 20, lambda: not list(self.dir.glob("paused.*")))

    def stop(self):
        """Lets the clients finish; Failure if one of them had broken down."""
        (self.dir / "stop").touch()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.end()
            raise Failure("the load did not stop within 60 s")
        if code:
            raise Failure(f"a client broke down: {(self.dir / 'load.err').read_text()[-2000:]}")

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()

    def lines(self):
        for number in range(1, CLIENTS + 1):
            path = self.dir / f"{number}.log"
            if not path.exists():
                continue
            with path.open() as f:
                for line in f:
                    if line.endswith("\n"):
                        yield number, json.loads(line)

    def counts(self, timeline):
        """timeline: [(mono_ms, name), …] in order. -> {name: (seconds, committed, Counter)};
        a name that comes back is added up."""
        spans = collections.OrderedDict()
        for (start, name), (end, _) in zip(timeline, timeline[1:]):
            spans.setdefault(name, [0.0, 0, collections.Counter()])[0] += (end - start) / 1000
        starts = [t for t, _ in timeline]
        for _, line in self.lines():
            at = bisect.bisect_right(starts, line["t"]) - 1
            if at < 0 or at >= len(timeline) - 1 or not line["ok"]:
                continue
            span = spans[timeline[at][1]]
            span[1] += max(len(line["r"]), 0)
            span[2].update(line["k"])
        return spans

    def acknowledged(self):
        """{(client, n)}: every transaction that a client was told is committed."""
        return {(number, n) for number, line in self.lines() for n in line["r"]}

    def write_pause(self, since, to=1):
        """(ms from the first write refused after `since` to the first one accepted at DSN number
        `to`, number of refusals); None if no client got there."""
        first, accepted, refusals, last_before = None, None, 0, since
        for _, line in self.lines():
            t = line["t"]
            if line["ok"] and line["r"]:
                if line["d"] == to:
                    accepted = min(accepted or t, t)
                elif line["d"] < to:
                    last_before = max(last_before, t)
            elif not line["ok"] and line["d"] == to - 1 and t >= since:
                first, refusals = min(first or t, t), refusals + 1
        if accepted is None:
            return None
        return accepted - (first or last_before), refusals

    def errors(self):
        """Refusals and their reasons, by SQLSTATE."""
        seen = collections.Counter()
        for _, line in self.lines():
            if not line["ok"]:
                seen[line["s"]] += 1
        return seen


def missing(counts, required=ops.REQUIRED):
    return [kind for kind in required if not counts[kind]]
