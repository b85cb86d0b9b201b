#!/usr/bin/python3
"""The switch under live writers: killed before and after each of its states, stopped for longer than
its lease, refused, timed out, and at last made. No acknowledged write may be missing on the side
that lives, and never may both sides take writes.

    cutover.py --binary FILE [--keep] [--undisturbed]

The writers are the bank's (harness/bank.py); they follow a file that the hook writes. The prober asks
both sides all the time, through the application's role.
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
from harness.bank import Clients, PostgresDoor, Prober, ddl  # noqa: E402
from harness.base import Failure, Workdir, guarded, mono_ms, until  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402
from harness.servers import Server, make_database, make_roles  # noqa: E402

WRITERS = 6
LEASE_MS = 2000
# What a switch says that was undone since a process or a server stood still for longer than that; a
# busy machine may do it to any of them, so it is said again.
LAPSED = "lease could not be renewed"
TRIES = 3
# Of one migration, in this order: each next call first takes back (or completes) what the killed
# one had begun, and is killed in its turn one point further on.
BEFORE_CLOSED = ["prepared:before", "prepared:after", "fenced:before", "fenced:after",
                 "undo:before", "undo:after", "drained:before", "drained:after", "settled:before",
                 "settled:after", "closed:before", "closed:sealed", "closed:after"]
FROM_CLOSED = ["switched:before", "switched:opened", "switched:after"]
SCHEMA = f"""
CREATE SCHEMA shop;
{"; ".join(ddl("postgres", "shop."))};
CREATE TABLE shop.prepared (id int PRIMARY KEY);
GRANT USAGE ON SCHEMA shop TO app;
GRANT ALL ON ALL TABLES IN SCHEMA shop TO app;
"""
CONFIG = """tables: {include: [shop.*]}
snapshot: {workers: 2}
cutover: {max_pause: 30s, lease: %dms, on_switch: ./switch.sh}
""" % LEASE_MS


def dsn(server):
    return (f"host=127.0.0.1 port={server.port} dbname=shop user=app password=app-secret "
            "connect_timeout=5")


class Cutover:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(None, "lockstep-cutover-")
        self.began = time.monotonic()

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def set_up(self):
        servers = []
        for side in ("source", "target"):
            server = Server(self.workdir.path, side, {"max_prepared_transactions": "5"})
            self.cleanup.add(lambda s=server: s.stop("immediate"))
            server.init()
            server.start()
            make_roles(server, side)
            make_database(server, side, "shop")
            servers.append(server)
        self.source, self.target = servers
        self.source.psql("shop", user="shop_owner", input=SCHEMA)
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "bank",
                                 self.source, self.target)
        self.cleanup.add(self.lockstep.end)
        self.lockstep.config(CONFIG)
        self.dsn_file = self.lockstep.folder / "dsn"
        self.dsn_file.write_text(dsn(self.source))
        hook = self.lockstep.folder / "switch.sh"
        hook.write_text("#!/bin/sh\nset -e\n"
                        "env | grep '^LOCKSTEP_' | sort >hook.env\n"
                        f"printf '%s' '{dsn(self.target)}' >dsn.new\nmv dsn.new dsn\n")
        hook.chmod(0o700)
        self.doors = {s.name: PostgresDoor(s.port) for s in servers}
        self.writers = Clients(self.doors, WRITERS, 0.004, "shop.", self.route, crashes=True)
        self.cleanup.add(self.writers.over.set)

    def route(self, refused):
        return "target" if self.dsn_file.read_text() == dsn(self.target) else "source"

    def follow(self):
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)
        # The target's tables exist from here on; the application may use them there.
        self.target.psql("shop", input="GRANT USAGE ON SCHEMA shop TO app;"
                         "GRANT ALL ON ALL TABLES IN SCHEMA shop TO app")
        self.prober = Prober(self.doors, "shop.", every=0.003)
        self.cleanup.add(self.prober.over.set)

    def switch(self, command, *args, kill=None):
        """Its exit status and what it said; once more if it was undone only for its lease."""
        for left in reversed(range(TRIES)):
            code, out, err = self.lockstep.do(command, "--yes", *args, timeout=90, kill=kill)
            if code != 1 or LAPSED not in out + err or not left:
                return code, out, err
            self.say(f"    {command} lost its lease, and is said again")

    def cutover(self, *args, kill=None):
        return self.switch("cutover", *args, kill=kill)

    def state(self):
        return self.state_on(self.target)

    @staticmethod
    def state_on(server):
        rows = server.query("SELECT body->>'state' FROM lockstep.fact WHERE kind = 'cutover'",
                            "shop")
        return rows[0][0] if rows else None

    def must(self, what, got, *wanted):
        if got not in wanted:
            raise Failure(f"{what}: {got!r}, expected {' or '.join(map(repr, wanted))}")

    def fence(self):
        """(the lease's end, the clock), both the source's: 0 is a fence that was lifted, and a lease that
        has lapsed stays what it was."""
        return self.source.query("SELECT lease, now_ms FROM lockstep.fence_read()", "shop")[0]

    def writes_at_once(self, what):
        """Judged by the server, since a clock of ours also counts what this machine sleeps."""
        conn = psycopg2.connect(dsn(self.source))
        conn.autocommit = True
        try:
            conn.cursor().execute("UPDATE shop.probes SET n = n WHERE side = 'source'")
        except psycopg2.Error as e:
            raise Failure(f"{what}: the source takes no writes: {e.pgcode}: {e}") from None
        finally:
            conn.close()

    def source_is_open(self, what):
        """Right behind an exit that has undone the switch: lifted, not lapsed."""
        self.must(f"{what}: the lease of the source's fence", self.fence()[0], 0)
        self.writes_at_once(what)
        self.prober.await_taken("source", 20, what)

    def source_lapses(self, what):
        """Nobody lifts it: by the end of the lease, which is the one that was given, it is open. After
        how many ms, for the reader."""
        began = mono_ms()
        lease, now = self.fence()
        if not 0 < lease <= now + LEASE_MS:
            raise Failure(f"{what}: the source is fenced until {lease}, now is {now}")
        until(f"{what}: the lease ends", 20, lambda: self.fence()[1] >= lease, every=0.01)
        self.writes_at_once(what)
        self.prober.await_taken("source", 20, what)
        self.must(f"{what}: the lease behind its end", self.fence()[0], lease)
        return mono_ms() - began

    def shut(self, side, what):
        """It takes no write, and soon says why: an answer in flight may be an older one."""
        self.prober.must_refuse(side, 0.2, what)
        until(f"{what}: the {side} says that it is closed", 10,
              lambda: self.prober.last(side) == "25006", every=0.02)

    def follows_again(self):
        def ready():
            self.lockstep.must_live()
            return self.lockstep.do("cutover", "--dry-run")[0] == 0
        until("everything follows again", 60, ready, every=0.3)

    # ---- the parts ----

    def refuses(self):
        code, out, err = self.lockstep.do("cutover", "--dry-run")
        self.must("dry-run", code, 0)
        for word in ("none -> prepared", "closed -> switched", "undo: lift", "holds"):
            if word not in out:
                raise Failure(f"dry-run does not say {word!r}:\n{out}")
        self.must("state after the dry-run", self.state(), None)
        code, out, err = self.lockstep.do("cutover")
        self.must("cutover that nobody can confirm", code, 2)
        self.lockstep.stop()
        code, out, err = self.cutover()
        self.must("cutover without stages", code, 4)
        if "capture and apply" not in err:
            raise Failure(f"the refusal does not name the stages: {err}")
        self.must("state after the refusal", self.state(), None)
        self.lockstep.start()
        self.follows_again()
        self.say("refused without stages, dry run changes nothing")

    def beside_a_prepared(self):
        conn = psycopg2.connect(dsn(self.source))
        conn.autocommit = True
        with conn.cursor() as cur:
            cur.execute("BEGIN; INSERT INTO shop.prepared VALUES (1)")
            cur.execute("PREPARE TRANSACTION 'stuck-gid'")
        code, out, err = self.cutover("--max-pause", "6s")
        self.must("cutover with a prepared transaction", code, 4)
        if "stuck-gid" not in err or "prepared transaction has stood" not in err:
            raise Failure(f"the refusal does not name what stood in the way: {err}")
        self.must("state after it", self.state(), "prepared")
        self.must("the source beside it", self.prober.last("source"), None)
        with conn.cursor() as cur:
            cur.execute("ROLLBACK PREPARED 'stuck-gid'")
        conn.close()
        self.say("C01: refused beside a prepared transaction, named it, nobody was refused a write")

    def validated(self):
        """Before anybody writes there: every constraint is validated, every index stands, and the
        planner knows the tables."""
        here, there = [server.query("""
            SELECT conrelid::regclass::text, contype::text, convalidated FROM pg_constraint
            WHERE connamespace = 'shop'::regnamespace ORDER BY 1, 2""", "shop")
            for server in (self.source, self.target)]
        self.must("constraints of the target", there, here)
        unfit = self.target.value("SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                                  " WHERE c.relnamespace = 'shop'::regnamespace AND NOT i.indisvalid", "shop")
        self.must("invalid indexes of the target", unfit, 0)
        if not self.target.value("SELECT count(*) FROM pg_stats WHERE schemaname = 'shop'"
                                 " AND tablename = 'accounts'", "shop"):
            raise Failure("the target's tables were not analysed")
        self.say(f"C13: {len(there)} constraints validated, statistics there, the target still shut")

    def killed(self, points):
        for point in points:
            code, out, err = self.cutover(kill=point)
            self.must(f"killed at {point}", code, -signal.SIGKILL)
            if self.state() in ("closed", "switched"):
                raise Failure(f"killed at {point}: the state is {self.state()}")
            waited = ""
            if point == "fenced:after":
                waited = f"; open again by itself after {self.source_lapses(point)} ms"
            self.say(f"C07: killed at {point}, state {self.state()}{waited}")

    def stopped_at(self, point, *args, command="cutover"):
        """A coordinator that stands still there until it gets SIGCONT."""
        for left in reversed(range(TRIES)):
            self.standing = self.lockstep.stand(point, command, "--yes", *args)
            self.cleanup.add(self.standing.kill)
            if self.standing.ended() is None:
                return self.standing.process
            if self.standing.ended() != 1 or LAPSED not in self.hung_log() or not left:
                raise Failure(f"{command} ended before {point}: {self.hung_log()}")
            self.say(f"    {command} lost its lease before {point}, and is said again")

    def hung_log(self):
        return self.standing.text()

    def stalls(self):
        """Apply stands still: neither marker may be taken for passed."""
        for point in ("fenced:after", "closed:sealed"):
            hung = self.stopped_at(point, "--max-pause", "6s")
            self.lockstep.process.send_signal(signal.SIGSTOP)
            try:
                hung.send_signal(signal.SIGCONT)
                self.must(f"cutover while apply stands still, from {point} on ({self.hung_log()})",
                          hung.wait(40), 1)
                self.must("state after it", self.state(), "prepared")
                self.source_is_open(f"apply stands still, from {point} on")
            finally:
                self.lockstep.process.send_signal(signal.SIGCONT)
            self.follows_again()
            self.say(f"C02: apply stands still from {point} on: undone")

    def differs(self):
        """A row that is not the same on both sides, and no log tells why: as a bug of apply would
        leave it. (Somebody who forges our origin.)"""
        self.target.psql("shop", user="lockstep", input="BEGIN; INSERT INTO lockstep.origin VALUES ('bank',"
                         " pg_backend_pid(), 1); INSERT INTO shop.prepared VALUES (-5); COMMIT")
        # A slow preparation leaves no time for this table: killed before that would make the switch.
        for _ in range(5):
            code, out, err = self.cutover(kill="settled:after")
            if code != -signal.SIGKILL:
                break
        self.must(f"cutover of a pair that differs ({out}{err})", code, 1)
        if "shop.prepared differs though both sides are quiet" not in err:
            raise Failure(f"the failure does not name the table: {err}")
        self.must("state after it", self.state(), "prepared")
        self.source_is_open("a pair that differs")
        self.target.psql("shop", user="lockstep", input="BEGIN; INSERT INTO lockstep.origin VALUES ('bank',"
                         " pg_backend_pid(), 1); DELETE FROM shop.prepared WHERE id = -5; COMMIT")
        self.say("C14: a row that differs on the quiet pair is found, the switch undone")

    def asked_to_stop(self):
        for left in reversed(range(TRIES)):
            hung = self.stopped_at("drained:after")
            hung.send_signal(signal.SIGTERM)
            hung.send_signal(signal.SIGCONT)
            code = hung.wait(60)
            self.must("state after it", self.state(), "prepared")
            if code != 1 or LAPSED not in self.hung_log() or not left:
                break
        self.must(f"cutover that was asked to stop ({self.hung_log()})", code, 75)
        self.source_is_open("asked to stop")
        self.say("asked to stop in the pause: undone")

    def crashes(self):
        """A server is lost in the middle of the pause: the rest is undone, the source open."""
        for point, server in (("drained:after", self.source), ("closed:sealed", self.target),
                              ("closed:sealed", self.source)):
            hung = self.stopped_at(point)
            server.crash_restart()
            server.wait_ready()
            # Before anybody undoes: the seal outlives a crash of the side that it closes.
            if point == "closed:sealed":
                self.shut("source", f"{server.name} crashed at {point}")
            hung.send_signal(signal.SIGCONT)
            self.must(f"cutover after the {server.name} crashed at {point} ({self.hung_log()})",
                      hung.wait(40), 1)
            self.must(f"state after {point}", self.state(), "prepared")
            self.source_is_open(f"{server.name} crashed at {point}")
            self.lockstep.must_live()
            self.say(f"C08: {server.name} crashes at {point}: undone, the source open")
            self.follows_again()

    def hangs(self):
        """A coordinator that sleeps through its lease and wakes up when another has gone on."""
        hung = self.stopped_at("settled:after")
        code, out, err = self.cutover()
        self.must("cutover beside a living coordinator", code, 4)
        took = self.source_lapses("coordinator hangs")
        self.say(f"a coordinator hangs: the second is refused, the source open after {took} ms")
        until("its lease has ended, a second one takes over", 30,
              lambda: self.cutover(kill="closed:after")[0] == -signal.SIGKILL, every=0.5)
        return hung

    def wakes(self, hung):
        before = self.state()
        hung.send_signal(signal.SIGCONT)
        code = hung.wait(40)
        text = self.hung_log()
        self.must("the coordinator that woke up late", code, 1)
        if "took the cutover over" not in text:
            raise Failure(f"the late coordinator did not see that it is late: {text}")
        if "next: go by what the other one says" not in text or "fence-not-lifted" in text:
            raise Failure(f"the late coordinator warns, or does not say what to do: {text}")
        self.must("state after it woke up", self.state(), before)
        self.say("it wakes up late, sees that it is, and touches nothing")

    def switches(self):
        code, out, err = self.cutover(kill="switched:before")
        self.must("killed at switched:before", code, -signal.SIGKILL)
        self.must("state", self.state(), "closed")
        for side in ("source", "target"):
            self.shut(side, "closed")
        for point in FROM_CLOSED[1:]:
            code, out, err = self.cutover(kill=point)
            self.must(f"killed at {point}", code, -signal.SIGKILL)
            self.must("state", self.state(), "closed")
            self.say(f"C07: killed at {point}")
        # With both sides shut a coordinator does not give up at the first lost connection.
        hung = self.stopped_at("switched:opened")
        self.target.crash_restart()
        hung.send_signal(signal.SIGCONT)
        self.must(f"the last cutover ({self.hung_log()})", hung.wait(60), 0)
        self.say("the target crashes at switched:opened: it goes on")
        self.must("state", self.state(), "switched")
        code, again, err = self.cutover()
        self.must("cutover said again", code, 0)
        if "switched" not in again:
            raise Failure(f"the second answer is another: {again}")
        self.say("C12: cutover said again: the same answer, nothing changed")
        for verb in ("park", "recopy"):
            code = self.lockstep.do("tables", verb, "shop.accounts")[0]
            self.must(f"tables {verb} behind the switch", code, 4)
        code, out, err = self.cutover("--json")
        answer = json.loads(out)
        self.must("the state in the JSON", answer.get("state"), "switched")
        self.must("the exit in the JSON", answer.get("exit"), 0)
        self.must("status", self.lockstep.must_status()["phase"], "switched")
        self.refuses_verify()

    def refuses_verify(self):
        """No way back here: what the writers write on the target is no difference."""
        code, out, err = self.lockstep.do("verify")
        if code != 4 or "no way back" not in err or "next: " not in err or "differences" in out:
            raise Failure(f"verify behind a switch without a way back: exit {code}\n{out}{err}")
        self.say("verify without a way back: refused, with the reason")

    def judge(self):
        self.writers.go_on("on the target")
        self.shut("source", "switched")
        self.prober.stop()
        self.writers.stop()
        first_refusal = next(s[0] for s in self.prober.seen if s[2] == "target" and s[3])
        self.prober.judge(first_refusal)
        self.writers.audit(lambda sql: self.target.query(sql, "shop"), "target")
        most = self.target.value("SELECT max(id) FROM shop.ledger", "shop")
        last = self.target.value("SELECT last_value FROM shop.ledger_id_seq", "shop")
        if last < most:
            raise Failure(f"the identity's sequence stands at {last}, below {most}")
        record = json.loads((self.lockstep.folder / "cutover-bank.json").read_text())
        self.must("the record's state", record["state"], "switched")
        env = (self.lockstep.folder / "hook.env").read_text()
        for name in ("MIGRATION=bank", "DIRECTION=forward", "SOURCE=", "TARGET=", "POSITION="):
            if f"LOCKSTEP_{name}" not in env:
                raise Failure(f"the hook was not told LOCKSTEP_{name}: {env}")
        facts = [li for li in env.splitlines() if not li.startswith("LOCKSTEP_SOURCE_PASSWORD")]
        if "lockstep-secret" in "\n".join(facts):
            raise Failure("the hook's facts hold a password")
        gaps = sorted(b - a for a, b in zip(self.writers.times, self.writers.times[1:]))
        self.say(f"C01: {len(self.writers.acknowledged)} acknowledged transfers, all on the target; the "
                 f"sum holds; errors seen: {self.writers.seen()}; longest gap {gaps[-1]} ms")

    def undisturbed(self):
        """The pause, by the writers' own clock, of a cutover that nobody disturbs."""
        self.must("cutover", self.cutover()[0], 0)
        self.refuses_verify()
        self.judge()
        record = json.loads((self.lockstep.folder / "cutover-bank.json").read_text())
        self.say("steps: " + ", ".join(f"{s['state']} {s['took_ms']} ms"
                                       for s in record["steps"])
                 + f"; writes held for {record['pause_ms']} ms")

    def finishes(self):
        self.lockstep.must("finish", "--yes")
        until("run ends", 30, lambda: not self.lockstep.alive())
        conn = psycopg2.connect(dsn(self.source))
        conn.autocommit = True
        with conn.cursor() as cur:
            cur.execute("INSERT INTO shop.probes VALUES ('after finish', 1)")
        conn.close()
        for server in (self.source, self.target):
            left = server.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE '!lockstep%%'",
                                "shop")
            self.must(f"triggers left on the {server.name}", left, 0)

    def finishes_alone(self):
        """The old source is gone for good: the target can be freed of all of lockstep."""
        self.source.stop("immediate")
        code, _, err = self.lockstep.do("finish", "--yes")
        self.must(f"finish without the source ({err})", code, 1)
        if "--abandon" not in err:
            raise Failure(f"finish without the source does not say what to do: {err}")
        self.lockstep.must("finish", "--yes", "--abandon")
        until("run ends", 60, lambda: not self.lockstep.alive())
        self.must("what is left on the target", self.target.value("""SELECT
            (SELECT count(*) FROM pg_trigger WHERE tgname LIKE '!lockstep%%') +
            (SELECT count(*) FROM pg_namespace WHERE nspname = 'lockstep') +
            (SELECT count(*) FROM pg_replication_slots)""", "shop"), 0)
        self.say("the source is gone: finish --abandon frees the target of lockstep")

    def go(self):
        self.set_up()
        self.follow()
        if self.args.undisturbed:
            self.undisturbed()
            self.finishes_alone()
            return
        self.refuses()
        self.killed(BEFORE_CLOSED[:2])
        self.validated()
        self.killed(BEFORE_CLOSED[2:])
        self.stalls()
        self.beside_a_prepared()
        self.differs()
        self.asked_to_stop()
        self.crashes()
        hung = self.hangs()
        self.wakes(hung)
        self.switches()
        self.judge()
        self.finishes()


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--undisturbed", action="store_true", help="one plain cutover, its pause")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    run = Cutover(args, cleanup)
    state = {"done": False}
    cleanup.add(lambda: run.workdir.remove() if state["done"] and not args.keep else
                print(f"kept: {run.workdir.path}"))
    run.go()
    state["done"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
