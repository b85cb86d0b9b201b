#!/usr/bin/python3
"""Two migrations from one source: the one's switch closes it, and nothing that is said of the other one
opens it again.

    neighbours.py --binary FILE [--from KIND] [--to KIND] [--keep]
"""

import argparse
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, guarded  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402
from harness.switch import CONFIG, Bank, add_arguments, conduct  # noqa: E402

WRITE = "UPDATE probes SET n = n + 1 WHERE side = 'source'"
REFUSED = 4


class Neighbours(Bank):
    def set_up(self):
        super().set_up()
        source = self.ends["source"]
        self.scratch = make_end("postgres", self.workdir.path / "scratch", "target")
        self.cleanup.add(self.scratch.stop)
        self.scratch.start()
        self.other = Lockstep(self.args.binary, self.workdir.path / "other", "scratch", source,
                              self.scratch, uris=(source.uri(), self.scratch.uri()))
        self.cleanup.add(self.other.end)
        self.other.config(CONFIG % (source.schema, self.max_pause, self.lease)
                          + (source.fence() or self.scratch.fence()))

    def source_takes(self, wanted, when):
        try:
            self.ends["source"].write(WRITE)
            taken = True
        except Exception:  # by whatever name the driver calls it
            taken = False
        if taken != wanted:
            raise Failure(f"{when}: the source {'takes' if taken else 'refuses'} a write")

    def refused(self, *command):
        code, out, err = self.other.do(*command, timeout=60)
        if code != REFUSED or "another migration's" not in out + err:
            raise Failure(f"{' '.join(command)} beside a closed source: {code}\n{out}{err}")

    def go(self):
        self.set_up()
        for one in (self.lockstep, self.other):
            one.start()
        for one in (self.lockstep, self.other):
            one.wait_phase(("following",), 120)
        self.other.must("cutover", "--rehearse", timeout=90)
        self.lockstep.must("cutover", "--yes", timeout=90)
        self.source_takes(False, "behind the cutover")
        self.refused("cutover", "--yes")
        self.other.stop()
        self.other.must("finish", "--abandon", "--yes", timeout=120)
        self.source_takes(False, "the other migration was abandoned")
        if self.scratch.leftovers():
            raise Failure(f"abandoned, and left on the scratch target: {self.scratch.leftovers()}")
        self.lockstep.must("rollback", "--yes", timeout=90)
        self.source_takes(True, "behind the rollback")
        self.lockstep.must("finish", "--yes", timeout=120)
        left = {side: end.leftovers() for side, end in self.ends.items()}
        if any(left.values()):
            raise Failure(f"finish leaves {left}")
        print(f"{self.args.source} to {self.args.target}: what is said of another migration from "
              "the same source leaves it closed")


def main(cleanup):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    args.source = args.source or "postgres"
    args.target = args.target or "postgres"
    return conduct(args, cleanup, Neighbours(args, cleanup))


if __name__ == "__main__":
    guarded(main)
