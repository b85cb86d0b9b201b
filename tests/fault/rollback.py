#!/usr/bin/python3
"""There and back, under writers that follow the switch: cut over, kill rollback before and after each
of its states (and the stages in between), roll back, cut over once more, roll back, finish. No
acknowledged write may be missing on the side that lives, both sides hold the same rows, and never may
both take writes.

    rollback.py --binary FILE [--keep] [--short]
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

import psycopg2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from cutover import BEFORE_CLOSED, FROM_CLOSED, LAPSED, Cutover, dsn  # noqa: E402
from harness.base import Failure, guarded, until  # noqa: E402

TABLES = ("accounts", "receipts", "ledger", "prepared", "keyless", "wide")
SHORT = ["prepared:after", "fenced:after", "undo:before", "settled:after", "closed:sealed"]
EXTRA = """CREATE TABLE shop.keyless (note text, n int);
ALTER TABLE shop.keyless REPLICA IDENTITY FULL;
GRANT ALL ON shop.keyless TO app;
CREATE TABLE shop.wide (id int PRIMARY KEY, body text, n int NOT NULL DEFAULT 0);
ALTER TABLE shop.wide ALTER body SET STORAGE EXTERNAL;
GRANT ALL ON shop.wide TO app;
"""
# What the way back has to carry besides plain rows: keys that change under values that are not in
# the log, keys that change places, savepoints, a table that is emptied, more than a batch at once.
NASTY = """BEGIN; INSERT INTO shop.wide SELECT g, repeat(md5(g::text), 300) FROM generate_series(1, 60) g;
SAVEPOINT a; DELETE FROM shop.wide; ROLLBACK TO a; SAVEPOINT b;
UPDATE shop.wide SET id = id + 1000 WHERE id % 2 = 0; RELEASE b; UPDATE shop.wide SET n = n + 1; COMMIT;
BEGIN; UPDATE shop.wide SET id = -1 WHERE id = 1; UPDATE shop.wide SET id = 1 WHERE id = 3;
UPDATE shop.wide SET id = 3 WHERE id = -1; COMMIT;
BEGIN; DELETE FROM shop.wide WHERE id = 5; INSERT INTO shop.wide VALUES (5, 'again'); COMMIT;
BEGIN; INSERT INTO shop.keyless VALUES ('gone', 1); TRUNCATE shop.keyless;
INSERT INTO shop.keyless VALUES ('twice', 2), ('twice', 2), (NULL, NULL); COMMIT;
DELETE FROM shop.keyless WHERE ctid = (SELECT ctid FROM shop.keyless WHERE note = 'twice' LIMIT 1);
BEGIN; INSERT INTO shop.wide SELECT g, md5(g::text) FROM generate_series(10000, 80000) g;
UPDATE shop.wide SET body = body || '!' WHERE id % 3 = 0; DELETE FROM shop.wide WHERE id % 7 = 0; COMMIT;
"""


class Rollback(Cutover):
    accepts = ()   # options of every rollback

    def set_up(self):
        super().set_up()
        # What the way back needs besides; `check` names it.
        self.source.psql("postgres", input="GRANT SET ON PARAMETER session_replication_role"
                         " TO lockstep")
        self.target.psql("postgres", input="ALTER ROLE lockstep REPLICATION")
        self.source.psql("shop", user="shop_owner", input=EXTRA)
        hook = self.lockstep.folder / "switch.sh"
        hook.write_text("#!/bin/sh\nset -e\ntest ! -e hook.fails\n"
                        "env | grep '^LOCKSTEP_' | sort >hook.env\n"
                        f"case $LOCKSTEP_DIRECTION in\n"
                        f"forward) printf '%s' '{dsn(self.target)}' >dsn.new ;;\n"
                        f"back) printf '%s' '{dsn(self.source)}' >dsn.new ;;\nesac\n"
                        "mv dsn.new dsn\n")

    def rollback(self, *args, kill=None):
        return self.switch("rollback", *self.accepts, *args, kill=kill)

    def refuses_rollback(self):
        for args in (("--yes",), ("--dry-run",)):
            code, out, err = self.lockstep.do("rollback", *args)
            self.must("rollback before a cutover", code, 4)

    def goes(self, side):
        self.writers.go_on(f"on the {side}", 100)
        self.prober.await_taken(side, 20, "the writers go on")

    def cannot_carry(self):
        """A way back that does not carry is taken away again, and nobody was refused a write."""
        hung = self.stopped_at("prepared:before")
        self.lockstep.kill()
        hung.send_signal(signal.SIGCONT)
        code = hung.wait(90)
        self.must(f"cutover while nothing is carried ({self.hung_log()})", code, 4)
        self.lockstep.start()
        if "does not carry" not in self.hung_log():
            raise Failure(f"the failure does not say that nothing is carried: {self.hung_log()}")
        self.must("state after it", self.state(), "none")
        self.must("slots on the target", self.target.value(
            "SELECT count(*) FROM pg_replication_slots", "shop"), 0)
        self.must("facts of a stream on the source", self.source.value(
            "SELECT count(*) FROM lockstep.fact WHERE kind IN ('stream', 'lane', 'shape')", "shop"), 0)
        if self.prober.last("source"):
            raise Failure("the source refuses writes after a preparation that failed")
        self.follows_again()
        self.say("C05: a way back that does not carry: taken away again, nobody was refused a write")

    def there(self):
        code, out, err = self.cutover("--json")
        self.must(f"cutover ({err or out})", code, 0)
        answer = json.loads(out)
        self.must("a way back", answer.get("way_back"), True)
        status = self.lockstep.must_status()
        self.must("status", status["phase"], "switched")
        self.must("the direction in the status", status["direction"], "back")
        if (status["way_back"] or {}).get("consistent_up_to") is None:
            raise Failure(f"status does not tell of the way back: {status}")
        self.must("another rollback's row", self.state_on(self.source), None, "none", "prepared")
        self.goes("target")
        self.say(f"cut over, writes were held for {answer.get('pause_ms')} ms")

    def both_at_once(self):
        """The first rollback ever, and cutover again for its hook, take the rows at the same moment:
        one of them must see the other, so that no two epochs are alike."""
        fails = self.lockstep.folder / "hook.fails"
        fails.write_text("")
        self.must("cutover with a hook that fails", self.cutover()[0], 1)
        until("the target takes writes", 20, lambda: not self.prober.last("target"))
        self.tells("the on_switch hook of the cutover failed (it exited with 1)",
                   "mend the hook, then lockstep cutover")
        fails.unlink()
        hung = self.stopped_at("take:between", command="rollback")
        self.must("cutover for its hook", self.cutover()[0], 0)
        hung.send_signal(signal.SIGCONT)
        code = hung.wait(90)
        if code == 1 and LAPSED in self.hung_log():
            code = self.rollback()[0]
        self.must(f"rollback behind it ({self.hung_log()})", code, 0)
        there, here = [int(s.value("SELECT body->>'epoch' FROM lockstep.fact WHERE kind = 'cutover'",
                                   "shop")) for s in (self.target, self.source)]
        if here <= there:
            raise Failure(f"the later switch has epoch {here}, the earlier one {there}")
        self.goes("source")
        self.say(f"C12: two directions at once: epochs {there} and {here}")

    def parked_on_the_way_back(self):
        """What the old source refuses parks the table there; mended and resumed, it follows."""
        self.source.psql("shop", user="shop_owner", input="ALTER TABLE shop.keyless"
                         " ADD CONSTRAINT small CHECK (n < 1000)")
        self.target.psql("shop", user="app", input="INSERT INTO shop.keyless VALUES ('big', 5000)")

        def lane():
            code, found, err = self.lockstep.do("tables", "list", "--json")
            self.must(f"tables list ({err or found})", code, 0)
            return {t["name"]: t["lane"] for t in json.loads(found)["tables"]}["shop.keyless"]
        until("the table is parked on the way back", 30, lambda: lane() == "parked", every=0.3)
        self.must("rollback with a parked table", self.rollback()[0], 4)
        self.verify("with a parked table", 1, "differences 0, tables not compared 1",
                    ("shop.keyless: not compared: parked",))
        self.must("recopy on the way back",
                  self.lockstep.do("tables", "recopy", "shop.keyless")[0], 4)
        self.source.psql("shop", user="shop_owner",
                         input="ALTER TABLE shop.keyless DROP CONSTRAINT small")
        self.must("resume on the way back",
                  self.lockstep.do("tables", "resume", "shop.keyless")[0], 0)
        until("it follows again", 30, lambda: lane() == "following", every=0.3)
        self.say("a table parked on the way back: mended, resumed, follows")

    def tells(self, warning, following):
        """What status warns of, and what it says is to be typed."""
        status = self.lockstep.status()
        if not any(warning in w for w in status["warnings"]):
            raise Failure(f"status does not warn of {warning!r}: {status['warnings']}")
        if not status["next"].startswith(following):
            raise Failure(f"status advises {status['next']!r}, not {following!r}")

    def killed_rollbacks(self, points):
        for i, point in enumerate(points):
            code, out, err = self.rollback(kill=point)
            self.must(f"rollback killed at {point} ({err})", code, -signal.SIGKILL)
            if self.state_on(self.source) in ("closed", "switched"):
                raise Failure(f"killed at {point}: the state is {self.state_on(self.source)}")
            self.must(f"the cutover's state after {point}", self.state(), "switched")
            self.tells("nobody conducts this rollback any more", "lockstep rollback")
            if i % 4 == 1:
                self.restart_run()
            self.say(f"C07: rollback killed at {point}, state {self.state_on(self.source)}")
            if i % 4 == 1:
                until("the stages of the way back run", 60, self.stages_run, every=0.3)

    def nobody_carries(self):
        """Killed while writes are held, `run` keeps its leases: that it is dead is told all the same,
        by the rollback that is under way, by the guard of the next one, and by status."""
        hung = self.stopped_at("fenced:after", *self.accepts, command="rollback")
        self.lockstep.kill()
        hung.send_signal(signal.SIGCONT)
        self.must(f"rollback whose carrier died ({self.hung_log()})", hung.wait(60), 1)
        code, out, err = self.rollback("--dry-run")
        self.must(f"rollback that nobody would carry ({err or out})", code, 4)
        for text in (self.hung_log(), out + err):
            if "not running (the process" not in text or "is dead" not in text:
                raise Failure(f"that nobody carries the changes is not told: {text}")
        self.tells("no process runs this migration", "lockstep run")
        self.lockstep.start()
        until("the stages of the way back run again", 60, self.stages_run, every=0.3)
        self.say("C05: run died while writes were held: undone, and told why")

    def restart_run(self):
        began = self.begins()
        self.lockstep.kill()
        self.lockstep.start()
        until("the new process has begun with the way back", 60, lambda: self.begins() > began)

    def begins(self):
        return self.lockstep.tail(1 << 24).count("way-back-begins")

    def stages_run(self):
        self.lockstep.must_live()
        return self.rollback("--dry-run")[0] == 0

    def back(self, points=()):
        for point in points:
            code, out, err = self.rollback(kill=point)
            self.must(f"rollback killed at {point} ({err})", code, -signal.SIGKILL)
            self.must("state", self.state_on(self.source), "closed")
            self.tells("nobody conducts this rollback any more (at closed", "lockstep rollback")
            self.say(f"rollback killed at {point}")
        code, out, err = self.rollback("--json")
        self.must(f"rollback ({err or out})", code, 0)
        answer = json.loads(out)
        self.must("the state in the JSON", answer.get("state"), "switched")
        self.must("the direction in the JSON", answer.get("direction"), "back")
        self.must("the forward row", self.state(), "none")
        self.must("rollback said again (C12)", self.rollback()[0], 0)
        self.goes("source")
        self.shut("target", "rolled back")
        status = self.lockstep.must_status()
        self.must("status after the rollback", status["phase"], "following")
        self.must("the direction after it", status["direction"], "forward")
        self.say(f"rolled back, writes were held for {answer.get('pause_ms')} ms")

    def opens_long_transactions(self):
        """Open at the switch, and used behind it: one that has read on the side that opens, one that
        has read on the side that closes, and one that has written there."""
        self.long = {}
        for name, server, isolation, first in (
                ("there", self.target, "REPEATABLE READ", "SELECT count(*) FROM shop.wide"),
                ("here", self.source, "REPEATABLE READ", "SELECT count(*) FROM shop.wide"),
                ("wrote", self.source, "READ COMMITTED", "INSERT INTO shop.wide VALUES (-72, 'open')")):
            conn = psycopg2.connect(dsn(server))
            conn.set_session(isolation_level=isolation)
            conn.cursor().execute(first)
            self.long[name] = conn

    def uses_long_transactions(self):
        """The way back begins before the first one ends, and carries it."""
        self.long["there"].cursor().execute("INSERT INTO shop.wide VALUES (-71, 'long there')")
        self.long["there"].commit()
        for name in ("here", "wrote"):
            try:
                self.long[name].cursor().execute("INSERT INTO shop.wide VALUES (-73, 'too late')")
                self.long[name].commit()
                raise Failure(f"a transaction that was open on the source ({name}) was acknowledged")
            except psycopg2.Error:
                pass
        for conn in self.long.values():
            conn.close()

        def ids(server):
            return [i for (i,) in server.query("SELECT id FROM shop.wide WHERE id < -70", "shop")]
        until("the long transaction came back", 20, lambda: ids(self.source) == [-71], every=0.1)
        self.must("rows of long transactions on the target", ids(self.target), [-71])
        self.say("C03: a transaction open at the switch is carried back; those open here are on no side")

    def verify(self, what, code, last, words=()):
        """Under the writers; its lines."""
        got, out, err = self.lockstep.do("verify", timeout=120)
        lines = out.strip().splitlines()
        if got != code or not lines or lines[-1] != last or not all(w in out for w in words):
            raise Failure(f"verify {what}: exit {got}, expected {code}, {last!r} and {words}:\n{out}{err}")
        return lines

    def verifies_the_way_back(self):
        """Writers on the target: compared at the target's positions, none of their writes counts as a
        difference. The source's position is what the cutover left behind."""
        for _ in range(4):
            self.verify("under writers on the target", 0, "differences 0",
                        ("the source as of ", " of the target"))
            self.goes("target")
        self.lockstep.kill()
        self.verify("that carries itself", 0, "differences 0", (" of the target",))
        self.lockstep.start()
        until("the way back is carried again", 60, self.stages_run, every=0.3)
        self.say("verify along the way back, under writers on the target: differences 0")

    def verifies_across_a_switch(self):
        """A switch comes between verify's look at which way to go and its snapshots: it begins anew,
        the other way."""
        standing = self.lockstep.stand("verify:way", "verify")
        self.cleanup.add(standing.kill)
        self.there()
        code = standing.go_on(120)
        if code or "the source as of" not in standing.text():
            raise Failure(f"verify across a switch: exit {code}\n{standing.text()}")
        self.say("a switch between verify's look and its snapshots: compared the other way")

    def verifies_what_was_bent(self):
        """One row of each kind changed on the side that is closed, and put back."""
        self.target.psql("shop", user="app", input="INSERT INTO shop.prepared VALUES (7)")
        until("it is carried", 20, lambda: self.source.value(
            "SELECT count(*) FROM shop.prepared WHERE id = 7", "shop") == 1, every=0.1)
        self.source.psql("shop", user="lockstep", input="DELETE FROM shop.prepared WHERE id = 7;"
                         "UPDATE shop.wide SET body = 'bent' WHERE id = -71")
        self.verify("over rows that were bent", 3, "differences 3",
                    ("shop.keyless (note, n)=(foreign, 1): missing on target",
                     "shop.prepared (id)=(7): missing on source",
                     "shop.wide (id)=(-71): differs: body"))
        self.source.psql("shop", user="lockstep", input="INSERT INTO shop.prepared VALUES (7);"
                         "UPDATE shop.wide SET body = 'long there' WHERE id = -71")
        self.verify("over the foreign row", 3, "differences 1")
        self.say("rows changed on the closed side: each named, under writers on the target")

    def comes_past_the_seal(self):
        """Who may set session_replication_role comes past a seal that is of triggers: seen, said."""
        self.source.psql("shop", input="INSERT INTO shop.keyless VALUES ('foreign', 1)",
                         user="lockstep")
        until("status warns of a write on the closed side", 20, lambda: any(
            "though it is sealed" in w for w in self.lockstep.must_status()["warnings"]))
        self.must("rows of it on the target", self.target.value(
            "SELECT count(*) FROM shop.keyless WHERE note = 'foreign'", "shop"), 0)
        self.must("rollback over it", self.rollback()[0], 4)
        self.accepts = ("--accept-foreign",)
        self.say("C09: a write on the closed side is told, kept apart, and holds the rollback up")

    def same(self):
        def rows(server, table):
            return server.query(f"SELECT t::text FROM shop.{table} t ORDER BY 1", "shop")

        def equal():
            return all(rows(self.source, t) == rows(self.target, t) for t in TABLES)
        until("both sides hold the same rows", 60, equal, every=0.5)

    def same_counts(self):
        """Of what was written on the target, all of it is here."""
        for table in ("wide", "keyless"):
            counts = [s.query(f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM"
                              f" shop.{table} t", "shop")[0] for s in (self.source, self.target)]
            self.must(f"rows of {table} behind the rollback", *counts)
        self.say(f"C10: keys, savepoints, TRUNCATE and large values came back: {counts[0][0]} rows")

    def judge_back(self):
        self.prober.stop()
        self.writers.stop()
        self.writers.audit(lambda sql: self.source.query(sql, "shop"), "source")
        most = self.source.value("SELECT max(id) FROM shop.ledger", "shop")
        last = self.source.value("SELECT last_value FROM shop.ledger_id_seq", "shop")
        if last < most:
            raise Failure(f"the identity's sequence stands at {last}, below {most}")
        env = (self.lockstep.folder / "hook.env").read_text()
        if "LOCKSTEP_DIRECTION=back" not in env:
            raise Failure(f"the hook was not told the direction: {env}")
        self.same()
        self.say(f"C05, C06: {len(self.writers.acknowledged)} acknowledged transfers, all on both "
                 f"sides, none twice; the sum holds; errors seen: {self.writers.seen()}")

    def never_both(self):
        """Each accepted probe was written at some moment between its beginning and its end, which may
        be late to be noted. So each side is taken to be open until a probe of the other one must have
        been written, and to be open again only for one that has begun since."""
        taken = [(b, e, side) for b, e, side, code in self.prober.seen
                 if code is None and b >= self.first_switch]
        sides, since = ["source"], self.first_switch
        while True:
            later = [e for b, e, side in taken if side != sides[-1] and b > since]
            if not later:
                break
            since = min(later)
            sides.append("target" if sides[-1] == "source" else "source")
        wanted = ["source"] + ["target", "source"] * self.rounds
        if sides != wanted:
            raise Failure(f"sides took writes in the order {sides}, expected {wanted}")

    def finishes_back(self):
        self.lockstep.must("finish", "--yes")
        until("run ends", 30, lambda: not self.lockstep.alive())
        left = ("SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM"
                " pg_publication) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'lockstep')"
                " + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '!lockstep%%')")
        for server in (self.source, self.target):
            self.must(f"objects left on the {server.name}", server.value(left, "shop"), 0)
        journals = [p.name for p in self.lockstep.folder.iterdir() if "journal" in p.name]
        self.must("journals left", journals, [])

    def go(self):
        self.set_up()
        self.follow()
        self.refuses_rollback()
        self.rounds = 3
        if not self.args.short:
            self.cannot_carry()
        # Opened to probes of both sides until `prepared`: only what comes behind counts.
        self.must("killed when prepared", self.cutover(kill="prepared:after")[0], -signal.SIGKILL)
        self.first_switch = time.monotonic()
        self.both_at_once()
        self.opens_long_transactions()
        self.there()
        self.uses_long_transactions()
        self.verifies_the_way_back()
        self.comes_past_the_seal()
        self.verifies_what_was_bent()
        self.parked_on_the_way_back()
        self.target.psql("shop", user="app", input=NASTY)
        self.nobody_carries()
        self.killed_rollbacks(SHORT if self.args.short else BEFORE_CLOSED)
        self.back(FROM_CLOSED[1:2] if self.args.short else FROM_CLOSED)
        self.same_counts()
        self.source.psql("shop", user="app", input="TRUNCATE shop.wide, shop.keyless;" + NASTY)
        self.verifies_across_a_switch()
        self.restart_run()
        until("the stages run again", 60, self.stages_run, every=0.3)
        self.back()
        self.judge_back()
        self.never_both()
        self.finishes_back()


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--short", action="store_true", help="fewer places to be killed at")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    args.undisturbed = False
    run = Rollback(args, cleanup)
    state = {"done": False}
    cleanup.add(lambda: run.workdir.remove() if state["done"] and not args.keep else
                print(f"kept: {run.workdir.path}"))
    run.go()
    state["done"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
