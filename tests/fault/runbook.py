#!/usr/bin/python3
"""The runbook (docs/cutover.md), as it is written: its commands in their order on a living migration,
and each message that it explains is one that lockstep says.

    runbook.py --binary FILE [--from KIND --to KIND] [--journal KIND] [--seed N]
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import switch  # noqa: E402
from harness.base import ROOT, Failure, guarded, until  # noqa: E402

PAGE = ROOT / "docs" / "cutover.md"
SPEAKERS = ("apply", "cli", "control", "cutover", "engines/mysql", "engines/postgres", "observe")
PATIENCE = "60s"
# What must be seen when the command has ended, beside its exit 0.
SEEN = {
    "verify": lambda run, out: out.strip().endswith("differences 0"),
    "cutover --rehearse": lambda run, out: "the pause would be" in out,
    "cutover --dry-run": lambda run, out: "REFUSES" not in out,
    "rollback --dry-run": lambda run, out: "REFUSES" not in out,
    "cutover --stage reads --yes": lambda run, out: "consistent up to" in out,
    "wait": lambda run, out: True,
    "cutover --max-pause 5s --yes": lambda run, out: "writes were held for" in out,
    "rollback --yes": lambda run, out: "the source takes writes" in out,
    "cutover --yes": lambda run, out: "the target takes writes" in out,
}


def commands():
    """The lines of the shell blocks of "The night", without their comments."""
    night = PAGE.read_text().split("## The night", 1)[1].split("\n## ", 1)[0]
    lines = [line.split("#")[0].strip() for block in re.findall(r"```sh\n(.*?)```", night, re.S)
             for line in block.splitlines()]
    if len(lines) < 10 or any(not line.startswith("lockstep ") for line in lines):
        raise Failure(f"the runbook's commands are not found: {lines}")
    return [line.removeprefix("lockstep ") for line in lines]


def texts():
    """All string literals of those who speak to the user, adjacent ones joined."""
    files = [f for folder in SPEAKERS for f in (ROOT / folder).glob("*.c")]
    return "\n".join(re.sub(r'"\s*\n\s*"', "", f.read_text()) for f in files)


def explained():
    """The messages of the table, each as its pieces between the places that vary."""
    table = PAGE.read_text().split("## What it says", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| `([^`]+)`", table, re.M)
    return [[p.strip(" :,") for p in cell.split("…") if p.strip(" :,")] for cell in cells]


def check_page(binary):
    said = texts()
    messages = explained()
    for pieces in messages:
        for piece in pieces:
            if piece not in said:
                raise Failure(f"docs/cutover.md explains a message that nobody says: {piece!r}")
    rows = subprocess.run([binary, "docs", "cutover"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    if rows not in PAGE.read_text():
        raise Failure("docs/cutover.md has not the rows that `lockstep docs cutover` prints")
    return len(messages)


def with_patience(words):
    """What a user's applications bear is the user's; how busy the machine of a test is, is nobody's."""
    return [PATIENCE if before == "--max-pause" else word
            for before, word in zip([""] + words, words)]


class Runbook(switch.Bank):
    def do(self, line):
        self.well()
        out = self.lockstep.must(*with_patience(shlex.split(line)), timeout=180)
        seen = SEEN.get(line)
        if seen and not seen(self, out):
            raise Failure(f"lockstep {line}: not as the runbook says\n{out}")
        print(f"ok  lockstep {line}", flush=True)

    def settle(self):
        """Before `finish`: both sides hold what the clients were told, and those have ended."""
        self.audit("cutover")
        self.clients.stop()
        self.prober.stop()

    def go(self):
        self.set_up()
        self.follow()
        lines = commands()
        for line in lines[:-1]:
            self.do(line)
        self.settle()
        self.do(lines[-1])
        until("run ends", 60, lambda: not self.lockstep.alive())
        left = {side: end.leftovers() for side, end in self.ends.items()}
        if any(left.values()):
            raise Failure(f"finish leaves {left}")
        print(f"{len(lines)} commands of the runbook, {self.args.source} to {self.args.target} over "
              f"{self.args.journal}, and every message that it explains")


def main(cleanup):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    switch.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.binary = str(pathlib.Path(args.binary).resolve())
    switch.draw_direction(args, args.seed)
    check_page(args.binary)
    return switch.conduct(args, cleanup, Runbook(args, cleanup, lease=10, max_pause=60))


if __name__ == "__main__":
    guarded(main)
