#!/usr/bin/python3
"""What may not open a side that a switch has closed. Two migrations from one source: the one's switch
closes it, and nothing that is said of the other one opens it again. And the row of a cutover whose hook
has failed, which a rollback had no time to reset: met while the source is away, it opens no target.

    neighbours.py --binary FILE [--from KIND] [--to KIND] [--keep]
"""

import argparse
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, guarded, until  # noqa: E402
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

    def takes(self, side, wanted, when):
        try:
            self.ends[side].write(WRITE)
            taken = True
        except Exception:  # by whatever name the driver calls it
            taken = False
        if taken != wanted:
            raise Failure(f"{when}: the {side} {'takes' if taken else 'refuses'} a write")

    def answers(self, lockstep, command, wanted, *words):
        code, out, err = lockstep.do(command, "--yes", timeout=90)
        if code != wanted or any(word not in out + err for word in words):
            raise Failure(f"{command}: {code} instead of {wanted} with {words}\n{out}{err}")

    def stale_row(self):
        """The cutover is made, its hook has failed; the rollback dies behind the opening of the
        source, and the source's server with it."""
        source = self.ends["source"]
        self.lockstep.env["LOCKSTEP_TEST_KILL"] = "switched:opened"
        self.answers(self.lockstep, "rollback", -signal.SIGKILL)
        self.lockstep.env.pop("LOCKSTEP_TEST_KILL")
        self.takes("source", True, "behind the rollback")
        self.takes("target", False, "behind the rollback")
        source.stop()
        self.answers(self.lockstep, "cutover", REFUSED, "though it was opened", "start the source")
        self.takes("target", False, "a cutover was said while the source was away")
        source.server.start()
        until("the source answers", 60, self.source_answers)

    def source_answers(self):
        try:
            return self.ends["source"].query("SELECT 1")
        except Exception:  # by whatever name the driver calls it
            return None

    def go(self):
        self.set_up()
        for one in (self.lockstep, self.other):
            one.start()
        for one in (self.lockstep, self.other):
            one.wait_phase(("following",), 120)
        self.other.must("cutover", "--rehearse", timeout=90)
        config = self.lockstep.file.read_text()
        self.lockstep.file.write_text(config.replace("cutover: {", "cutover: {on_switch: 'exit 1', "))
        self.answers(self.lockstep, "cutover", 1, "hook failed")
        self.takes("source", False, "behind the cutover")
        self.answers(self.other, "cutover", REFUSED, "another migration's")
        self.other.stop()
        said = self.other.must("finish", "--abandon", "--yes", timeout=120)
        if "the fence of the source stays" not in said:
            raise Failure(f"finish does not say that the source's fence stays: {said}")
        self.takes("source", False, "the other migration was abandoned")
        if self.scratch.leftovers():
            raise Failure(f"abandoned, and left on the scratch target: {self.scratch.leftovers()}")
        self.stale_row()
        self.lockstep.file.write_text(config)
        self.lockstep.must("rollback", "--yes", timeout=90)
        self.takes("source", True, "behind the rollback")
        self.lockstep.must("finish", "--yes", timeout=120)
        left = {side: end.leftovers() for side, end in self.ends.items()}
        if any(left.values()):
            raise Failure(f"finish leaves {left}")
        print(f"{self.args.source} to {self.args.target}: neither another migration's finish "
              "nor a stale row opens a closed side")


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
