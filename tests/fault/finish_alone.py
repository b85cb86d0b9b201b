#!/usr/bin/python3
"""A migration that was ended while its source was gone, and the source that comes back: finish --abandon
takes away what stands there, and nothing of another migration. On the way: a configuration whose source
and target are exchanged is refused by every command, and what rollback says where there is no way back.

    finish_alone.py --binary FILE [--from KIND] [--to KIND] [--keep]
"""

import argparse
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, guarded, until  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402
from harness.switch import MIGRATION, Bank, add_arguments, conduct  # noqa: E402

WRITE = "UPDATE probes SET n = n + 1 WHERE side = 'source'"
USAGE, UNFIT, REFUSED = 2, 3, 4
EXCHANGED = "the target of this configuration is the source of the migration bank"
# Each command with such a configuration, and its exit.
COMMANDS = [(("status",), REFUSED), (("plan",), REFUSED), (("check",), UNFIT), (("run",), REFUSED),
            (("wait",), REFUSED), (("tables",), REFUSED), (("verify",), REFUSED),
            (("cutover", "--dry-run"), REFUSED), (("cutover", "--yes"), REFUSED),
            (("cutover", "--stage", "reads", "--yes"), REFUSED),
            (("cutover", "--rehearse"), REFUSED), (("rollback", "--dry-run"), REFUSED),
            (("rollback", "--yes"), REFUSED), (("finish", "--yes"), REFUSED),
            (("finish", "--abandon", "--yes"), REFUSED)]


class FinishAlone(Bank):
    def answers(self, lockstep, command, wanted, *words):
        code, out, err = lockstep.do(*command, timeout=90)
        if code != wanted or any(word not in out + err for word in words):
            raise Failure(f"{' '.join(command)}: {code} instead of {wanted} with {words}\n{out}{err}")
        return out + err

    def neighbour(self, name, source, target):
        """Another configuration of the same migration's name."""
        other = Lockstep(self.args.binary, self.workdir.path / name, MIGRATION, source, target,
                         uris=(source.uri(), target.uri()))
        other.config(f"tables: {{include: ['{source.schema}.*']}}\n"
                     + (source.fence() or target.fence()))
        return other

    def takes(self, wanted, when):
        try:
            self.ends["source"].write(WRITE)
            taken = True
        except Exception:  # by whatever name the driver calls it
            taken = False
        if taken != wanted:
            raise Failure(f"{when}: the source {'takes' if taken else 'refuses'} a write")

    def source_answers(self):
        try:
            return self.ends["source"].query("SELECT 1")
        except Exception:  # by whatever name the driver calls it
            return None

    def no_rollback(self, *words):
        for how in ("--yes", "--dry-run"):
            self.answers(self.lockstep, ("rollback", how), REFUSED, *words)

    def exchanged(self, when):
        """Every command refuses, and what stands is as it was."""
        swapped = self.neighbour("swapped", self.ends["target"], self.ends["source"])
        for command, code in COMMANDS:
            self.answers(swapped, command, code, EXCHANGED)
        if when:
            self.takes(False, when)

    def alone(self):
        """The source goes, the migration is ended on the target, the source comes back."""
        self.ends["source"].stop()
        self.answers(self.lockstep, ("finish", "--yes"), 1, "--abandon")
        self.answers(self.lockstep, ("finish", "--abandon"), USAGE, "nobody can answer")
        self.lockstep.must("finish", "--abandon", "--yes", timeout=120)
        until("run ends", 60, lambda: not self.lockstep.alive())
        if self.ends["target"].leftovers():
            raise Failure(f"left on the target: {self.ends['target'].leftovers()}")
        self.ends["source"].server.start()
        until("the source answers", 60, self.source_answers)
        self.takes(False, "the source is back")

    def not_of_another(self):
        """The same source and name, another target: that is another migration."""
        scratch = make_end("postgres", self.workdir.path / "scratch", "target")
        self.cleanup.add(scratch.stop)
        scratch.start()
        other = self.neighbour("other", self.ends["source"], scratch)
        self.answers(other, ("finish", "--abandon", "--yes"), 0, "stays", "another migration's")
        self.takes(False, "another migration was abandoned")

    def comes_back(self):
        back = self.lockstep.folder / "journal.back"
        if not back.exists():
            raise Failure("the way back's journal is gone already: what is to be removed?")
        self.answers(self.lockstep, ("finish", "--yes"), REFUSED, "facts on the source", "--abandon")
        self.answers(self.lockstep, ("finish", "--abandon", "--yes"), 0, "facts on the source",
                     "a fence on the source", "the way back's journal")
        if self.ends["source"].leftovers() or back.exists():
            raise Failure(f"left: {self.ends['source'].leftovers()}, {back}: {back.exists()}")
        self.takes(True, "nothing of lockstep is left")
        self.answers(self.lockstep, ("finish", "--abandon", "--yes"), 0, "nothing left")

    def go(self):
        self.set_up()
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)
        self.no_rollback("the cutover has not been made")
        self.answers(self.lockstep, ("cutover",), USAGE, "nobody can answer")
        self.lockstep.must("cutover", "--rehearse", timeout=90)
        self.exchanged(None)
        self.lockstep.must("cutover", "--yes", timeout=90)
        self.exchanged("a configuration whose sides are exchanged")
        self.alone()
        self.not_of_another()
        self.comes_back()
        self.no_rollback("nothing to go back to")
        print(f"{self.args.source} to {self.args.target}: ended without the source, which is freed "
              "of lockstep when it comes back; exchanged sides are refused")


def main(cleanup):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    args.source = args.source or "postgres"
    args.target = args.target or "postgres"
    return conduct(args, cleanup, FinishAlone(args, cleanup))


if __name__ == "__main__":
    guarded(main)
