#!/usr/bin/python3
"""The pause, predicted: a rehearsal that leaves no trace, one that is killed, a cutover that is refused
because of what is predicted, and one that is made, with its record and page.

    predict.py --binary FILE [--keep]
"""

import argparse
import json
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness.base import Failure, guarded, until  # noqa: E402
from harness.switch import conduct  # noqa: E402
from rollback import Rollback  # noqa: E402

# Each next call finds what the one before left: a rehearsal, another one, at last the cutover.
POINTS = ["prepared:before", "prepared:after", "rehearsed:before", "undo:before", "undo:after",
          "rehearsed:after"]
LEGS = ["prepared", "marked", "drained", "settled", "marked again", "drained again", "settled again"]
PARTS = {"arm", "guards", "record", "open", "fence", "sequences", "writers", "drain", "digest"}
# What a rehearsal may not leave on the source: the fence, the way back.
ON_SOURCE = """SELECT
    (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '!lockstep%%')
    + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
       WHERE n.nspname = 'lockstep' AND p.proname LIKE 'fence%%')"""
WAY_BACK = "SELECT count(*) FROM lockstep.fact WHERE kind IN ('stream', 'lane', 'shape', 'checkpoint')"


class Predict(Rollback):
    def file(self, name):
        return self.lockstep.folder / name

    def record(self, command):
        return json.loads(self.file(f"{command}-bank.json").read_text())

    def nobody_refused(self, what, since):
        """No probe of the source was refused since. (Writers conflict with each other, too.)"""
        refused = {s[3] for s in self.prober.seen[since:] if s[2] == "source" and s[3]}
        refused |= set().union(*self.writers.codes.values()) & {"25006", "57P01"}
        if refused:
            raise Failure(f"{what}: writes were refused on the source with {refused}")

    def untouched(self, what):
        self.must(f"{what}: fence on the source", self.source.value(ON_SOURCE, "shop"), 0)
        self.must(f"{what}: slots on the target", self.target.value(
            "SELECT count(*) FROM pg_replication_slots", "shop"), 0)
        if self.source.value("SELECT to_regclass('lockstep.fact') IS NOT NULL", "shop"):
            self.must(f"{what}: the way back's facts", self.source.value(WAY_BACK, "shop"), 0)
        self.must(f"{what}: state", self.state(), None, "none")
        until(f"{what}: the target is open as before", 10,
              lambda: self.prober.last("target") is None, every=0.02)

    def predicted(self, what, found):
        got = found.get("predicted") or {}
        if not 0 <= got.get("low_ms", -1) <= got["expected_ms"] <= got["high_ms"]:
            raise Failure(f"{what}: no prediction, or one without order: {got}")
        self.must(f"{what}: its parts", {p["part"] for p in got["parts"]}, PARTS)
        for name in ("low_ms", "expected_ms", "high_ms"):
            self.must(f"{what}: the sum of {name}", sum(p[name] for p in got["parts"]), got[name])
        for p in got["parts"]:
            self.must(f"{what}: samples of {p['part']}", len(p["samples_ms"]), 5)
        return f"{got['expected_ms']} ms ({got['low_ms']} to {got['high_ms']})"

    def rehearsed(self, command, *args):
        code, out, err = self.lockstep.do(command, "--rehearse", "--json", *args, timeout=90)
        self.must(f"{command} --rehearse ({err or out})", code, 0)
        answer = json.loads(out)
        self.must("the steps of the rehearsal", [s["state"] for s in answer["steps"]], LEGS)
        self.must("it would be made", answer["fits"], True)
        return self.predicted("rehearsal", answer)

    def rehearses(self):
        since = len(self.prober.seen)
        text = self.rehearsed("cutover")
        self.untouched("rehearsed")
        self.nobody_refused("rehearsed", since)
        if self.file("hook.env").exists():
            raise Failure("the rehearsal ran the hook")
        page = self.file("rehearsal-bank.md").read_text()
        for word in ("Rehearsal", *LEGS, "a marker from one side to the other"):
            if word not in page:
                raise Failure(f"the page of the rehearsal does not say {word!r}:\n{page}")
        code, out, err = self.lockstep.do("cutover", "--dry-run")
        self.must("dry-run after it", code, 0)
        if f"last prediction of the pause: {text}" not in out:
            raise Failure(f"the dry run does not tell the last prediction {text}:\n{out}")
        self.must("--dry-run with --rehearse",
                  self.lockstep.do("cutover", "--dry-run", "--rehearse")[0], 2)
        self.say(f"rehearsed: {text}; nothing is left of it")

    def refused(self):
        """A transaction that writes may run until it is ended, so less is never predicted."""
        since = len(self.prober.seen)
        code, out, err = self.cutover("--max-pause", "100ms")
        self.must(f"cutover with 100 ms allowed ({out}{err})", code, 4)
        for word in ("predicted at", "max_pause is 100 ms", "largest part"):
            if word not in err:
                raise Failure(f"the refusal does not say {word!r}: {err}")
        self.must("state after it", self.state(), "none")
        self.must("slots on the target", self.target.value(
            "SELECT count(*) FROM pg_replication_slots", "shop"), 0)
        self.must("the way back's facts", self.source.value(WAY_BACK, "shop"), 0)
        until("the target is open as before", 10, lambda: self.prober.last("target") is None)
        self.nobody_refused("refused by the prediction", since)
        found = self.record("cutover")
        text = self.predicted("refused", found)
        if "predicted at" not in found.get("undone_because", ""):
            raise Failure(f"the record does not tell why it was undone: {found}")
        page = self.file("cutover-bank.md").read_text()
        if "What stood in the way" not in page or "not made" not in page:
            raise Failure(f"the page does not tell that it was not made, and why:\n{page}")
        self.say(f"refused by the prediction {text}: undone, nobody was refused a write")

    def killed_rehearsals(self):
        since = len(self.prober.seen)
        for point in POINTS:
            self.lockstep.env["LOCKSTEP_TEST_KILL"] = point
            try:
                code, out, err = self.lockstep.do("cutover", "--rehearse", timeout=90)
            finally:
                self.lockstep.env.pop("LOCKSTEP_TEST_KILL", None)
            self.must(f"rehearsal killed at {point} ({out}{err})", code, -signal.SIGKILL)
            self.must(f"state after {point}", self.state(), "none")
            if point == "rehearsed:before":
                self.shut("target", "sealed by the one that was killed")
                self.rehearsed("cutover")
                self.untouched(f"rehearsed behind one that was killed at {point}")
        self.nobody_refused("rehearsals that were killed", since)
        self.say(f"rehearsals killed at {', '.join(POINTS)}: each next one goes on")

    def prepared_stays(self):
        """What an earlier cutover has prepared is found, used, and left as it is; what one has begun
        beyond that is not touched."""
        self.asked_to_stop()
        origin = "SELECT body->>'start' FROM lockstep.fact WHERE kind = 'stream'"
        before = self.source.value(origin, "shop")
        self.rehearsed("cutover")
        self.must("state behind a rehearsal", self.state(), "prepared")
        self.shut("target", "behind a rehearsal of what is prepared")
        self.must("the way back behind it", self.source.value(origin, "shop"), before)
        self.must("cutover, killed", self.cutover(kill="fenced:after")[0], -signal.SIGKILL)
        code, out, err = self.lockstep.do("cutover", "--rehearse")
        self.must("rehearsal of a cutover that is not finished", code, 4)
        if "not been finished" not in err:
            raise Failure(f"the refusal does not tell why: {err}")
        self.must("state behind that", self.state(), "prepared")
        self.say("prepared stays prepared, and a cutover that is not finished is let alone")

    def made(self):
        code, out, err = self.cutover()
        self.must(f"cutover behind a rehearsal that was killed ({out}{err})", code, 0)
        found = self.record("cutover")
        text = self.predicted("cutover", found)
        if f"writes were held for {found['pause_ms']} ms; predicted were {text}" not in out:
            raise Failure(f"the closing words do not tell both pauses:\n{out}")
        if "undone_because" in found or "failed" in found:
            raise Failure(f"the record tells of the attempt before: {found}")
        page = self.file("cutover-bank.md").read_text()
        for word in ("prepared", "fenced", "drained", "settled", "closed", "switched", text,
                     f"{found['pause_ms']} ms", found["position"], "shop.ledger_id_seq",
                     "on_switch: done", "The way back", "Whom the fence waited for"):
            if word not in page:
                raise Failure(f"the page does not say {word!r}:\n{page}")
        sequence = next(s for s in found["sequences"] if s["name"] == "ledger_id_seq")
        if not sequence["was"] < sequence["last_value"] < sequence["set"]:
            raise Failure(f"the sequence's values are out of order: {sequence}")
        for name in ("cutover-bank.md", "cutover-bank.json", "rehearsal-bank.md",
                     "rehearsal-bank.json"):
            if "secret" in self.file(name).read_text():
                raise Failure(f"{name} holds a password")
        held = "held" if found["pause_ms"] <= found["predicted"]["high_ms"] else "did NOT hold"
        self.goes("target")
        self.say(f"cut over in {found['pause_ms']} ms, predicted {text}: it {held}")

    def rehearses_back(self):
        self.must("cutover --rehearse behind the switch",
                  self.lockstep.do("cutover", "--rehearse")[0], 4)
        refused = len([s for s in self.prober.seen if s[2] == "target" and s[3]])
        text = self.rehearsed("rollback")
        self.must("the cutover's state", self.state(), "switched")
        self.must("the rollback's state", self.state_on(self.source), "none")
        self.must("refusals on the target meanwhile",
                  len([s for s in self.prober.seen if s[2] == "target" and s[3]]), refused)
        self.shut("source", "behind the rehearsal of a rollback")
        self.say(f"rollback rehearsed: {text}")

    def go(self):
        self.set_up()
        self.follow()
        self.rehearses()
        self.killed_rehearsals()
        self.refused()
        self.prepared_stays()
        self.made()
        self.rehearses_back()
        self.writers.stop()
        self.prober.stop()
        self.lockstep.must("finish", "--yes")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    args.undisturbed = False
    run = Predict(args, cleanup)
    return conduct(args, cleanup, run)


if __name__ == "__main__":
    guarded(main)
