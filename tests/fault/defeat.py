#!/usr/bin/python3
"""Clients of many kinds that try to write past the fence, through a cutover and a rollback: nothing
that one was told is done may be missing on the side that lives, nothing that one was refused may be
there, and nobody may wait behind a lock of ours.

    defeat.py --binary FILE [--from postgres|mariadb|mysql] [--to postgres|mariadb|mysql]
              [--seed N] [--rounds N] [--prefix DIR] [--keep]

Without --from and --to the seed decides. The kinds are the tables in defeat_postgres.py and
defeat_mysql.py. One client of each kind works on the source all the time, also when it is closed,
and one of each kind on the target from the moment on when that is sealed. MySQL needs a prefix that
scripts/fetch-mysql has made.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1]))
sys.path.insert(0, str(HERE.parent))
import defeat_mysql  # noqa: E402
import defeat_postgres  # noqa: E402
from defeat_clients import Crew, Innocent, Refused, Side  # noqa: E402
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import DATABASE, make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

KINDS = ("postgres", "mariadb")
HOLD_S = 0.35
# Nobody here waits for a lease to end, so it may outlast whatever a busy machine does.
SETTINGS = "cutover: {max_pause: 30s, lease: 30s}\n"
# Triggers are armed under a lock that is waited for 200 ms at most (engines/postgres/fence_sql.c),
# read_only for a second at most (engines/mysql/fence_sql.c); the rest, and whatever an innocent took
# that asks for nothing that anybody locks, is for a busy machine.
LOCK_S, ANSWER_S = 0.4, 2.5
ATTEMPTS = 5


def clients_of(end):
    return defeat_postgres if end.kind == "postgres" else defeat_mysql


def kinds_of(end):
    kinds = clients_of(end).KINDS
    # read_only there knows no account's lock: `check` names such a procedure, and it is left out.
    return [k for k in kinds if end.kind != "mysql" or k.name != "definer root"]


class Defeat:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(None, "lockstep-defeat-")
        self.began = time.monotonic()
        self.attempts = []

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    # ---- setting up ----

    def set_up(self):
        prefix = self.args.prefix
        self.source, self.target = (make_end(kind, self.workdir.path, side, prefix) for kind, side in
                                    ((self.args.source, "source"), (self.args.target, "target")))
        for end in (self.source, self.target):
            if end.kind == "postgres":
                end.server.settings["max_prepared_transactions"] = "10"
            self.cleanup.add(end.stop)
            end.start()
        self.alike = self.source.kind == self.target.kind == "postgres"
        self.sides = [Side(e, e.side, lambda user, name, e=e: clients_of(e).Session(e, user, name))
                      for e in (self.source, self.target)]
        self.crews = [Crew(side, kinds_of(side.end), self.args.seed, self.alike)
                      for side in self.sides]
        labels = [c.label for crew in self.crews for c in crew.clients if c.kind.rule == "last"]
        clients_of(self.source).load(self.source, self.alike, labels)
        clients_of(self.source).aside(self.source)
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "defeat",
                                 self.source, self.target,
                                 uris=(self.source.uri(), self.target.uri()))
        self.cleanup.add(self.lockstep.end)
        apart = ", exclude: [shop.apart, shop.aside]" if self.source.kind != "postgres" else ""
        self.lockstep.config(f"tables: {{include: ['{self.source.schema}.*']{apart}}}\n{SETTINGS}"
                             + (self.source.fence() or self.target.fence()))

    def check_says(self, *words):
        code, out, err = self.lockstep.do("check")
        for word in words:
            if word not in out + err:
                raise Failure(f"check (exit {code}) does not say {word!r}:\n{out}{err}")
        return code

    def names_what_it_cannot_hold(self):
        """What no fence can hold must be said before anybody relies on it."""
        if self.source.kind == "postgres":
            self.source.write("SELECT lo_create(0)")
            self.check_says("large objects", "may not create event triggers")
            self.say("check names large objects, and DDL that it cannot refuse without superuser")
        else:
            self.source.server.script([
                "CREATE USER boss@'%'",
                "GRANT " + ("CONNECTION_ADMIN" if self.source.kind == "mysql" else "READ_ONLY ADMIN")
                + " ON *.* TO boss@'%'",
                "CREATE TABLE shop.old (id int PRIMARY KEY) ENGINE = MyISAM"])
            if self.check_says("boss@%", "MyISAM", "procedure shop.mark_as_root") != 3:
                raise Failure("check takes a MyISAM table")
            self.source.server.script(["DROP TABLE shop.old", "DROP USER boss@'%'"])
            self.say("check names a MyISAM table, an account that read_only does not stop, and the"
                     " procedure of one")
        # From here on with what it takes to refuse DDL, too.
        for end in (self.source, self.target):
            if end.kind == "postgres":
                end.server.psql("postgres", input="ALTER ROLE lockstep SUPERUSER")

    def follow(self):
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)
        clients_of(self.target).aside(self.target)
        self.crews[0].start()
        self.cleanup.add(self.crews[0].stop)
        self.innocents = [Innocent(self.sides[0], *what)
                          for what in clients_of(self.source).innocents(self.source)]
        self.watches = [defeat_postgres.LockWatch(e) for e in (self.source, self.target)
                        if e.kind == "postgres"]
        self.idlers = [Innocent(side, f"nobody's lock, {side.name}", "app", "SELECT 1")
                       for side in self.sides]
        for one in self.innocents + self.idlers + self.watches:
            one.start()
            self.cleanup.add(one.stop)

    def prepare(self):
        """Up to `prepared`: the target is sealed, so its clients may come."""
        self.lockstep.env["LOCKSTEP_TEST_KILL"] = "fenced:before"
        code, out, err = self.lockstep.do("cutover", "--yes", timeout=90)
        self.lockstep.env.pop("LOCKSTEP_TEST_KILL")
        if code != -signal.SIGKILL:
            raise Failure(f"cutover up to prepared: {code}\n{out}{err}")
        for side in self.sides:
            side.hold = HOLD_S
            if side.end.kind != "postgres":
                defeat_mysql.job(side.end)
        self.sides[1].told("sealed")
        self.crews[1].start()
        self.cleanup.add(self.crews[1].stop)
        self.say(f"{sum(len(c.clients) for c in self.crews)} clients of "
                 f"{len(set(c.kind.name for w in self.crews for c in w.clients))} kinds are at work")

    # ---- switching ----

    def stuck(self):
        """What is prepared and undecided would hold a cutover up: it names it, and refuses nobody."""
        word, decide = clients_of(self.source).stuck(self.source)
        code, out, err = self.lockstep.do("cutover", "--yes", "--max-pause", "8s", timeout=90)
        if code != 4 or word not in err:
            raise Failure(f"cutover past a prepared transaction: {code}\n{out}{err}")
        until("the source is open again", 10, lambda: not self.sides[0].closed, every=0.02)
        decide()
        self.say("a prepared transaction: named, refused, then decided by its owner")

    def disarmed(self):
        """Where lockstep may not refuse DDL (its event trigger is off here), the owner takes the
        trigger off under the lease and writes: that is carried, and he is refused by the seal. The
        event trigger goes off under the lease, since every step before it turns it on again; and
        the table is one that nobody else writes, or the digest may find the two sides different."""
        owner = self.sides[0].open_session("shop_owner", "owner")
        self.sides[0].ddl_refused = False
        env = dict(self.lockstep.env, LOCKSTEP_TEST_STOP="fenced:after")
        log = self.lockstep.folder / "stopped.log"
        with log.open("wb") as out:
            stopped = subprocess.Popen([self.lockstep.binary, "-c", str(self.lockstep.file),
                                        "cutover", "--yes"], cwd=self.lockstep.folder, env=env,
                                       stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        self.cleanup.add(stopped.kill)
        stat = pathlib.Path(f"/proc/{stopped.pid}/stat")
        until("it stands when it has fenced", 60, lambda: stopped.poll() is not None or
              stat.read_text().rsplit(")", 1)[1].split()[0] == "T", every=0.01)
        self.source.server.psql(DATABASE, input='ALTER EVENT TRIGGER "!lockstep_fence" DISABLE')
        owner.do("ALTER TABLE owned DISABLE TRIGGER ALL")
        owner.do("INSERT INTO owned VALUES (1)")
        until("apply has carried it", 10,
              lambda: self.target.query("SELECT 1 FROM owned WHERE n = 1"), every=0.02)
        stopped.send_signal(signal.SIGCONT)
        code = stopped.wait(90)
        if code != 0:
            raise Failure(f"cutover past a disarmed table: {code}\n{log.read_text()}")
        try:
            owner.do("INSERT INTO owned VALUES (2)")
            raise Failure("the owner writes on a sealed source: his trigger was not put back")
        except Refused as e:
            if str(e) != "25006":
                raise Failure(f"the owner on the sealed source: {e}") from None
        owner.close()
        self.sides[0].ddl_refused = True  # the seal has turned it on again
        self.say("the owner took the trigger off under the lease: carried, and refused by the seal")

    def switch(self, command, opening):
        """Its clients keep trying; one of them may be in the way, which must be told and undone."""
        for attempt in range(1, ATTEMPTS + 1):
            code, out, err = self.lockstep.do(command, "--yes", "--json", timeout=120)
            if code == 0:
                break
            self.attempts.append(f"{command}: {err.strip().splitlines()[0][:200] if err else out}")
            if code != 1 and "too far behind" not in err + out:
                raise Failure(f"{command}: exit {code}\n{out}{err}")
            self.lockstep.must_live()
            time.sleep(1)
        else:
            raise Failure(f"{command} failed {ATTEMPTS} times:\n" + "\n".join(self.attempts))
        mark = opening.acknowledged()
        until("the clients go on there", 30, lambda: opening.acknowledged() > mark + 150)
        time.sleep(self.args.linger)
        self.nothing_lost(opening)
        self.say(f"{command}: writes were held for {json.loads(out).get('pause_ms')} ms"
                 + (f", {attempt} attempts" if attempt > 1 else ""))

    # ---- the verdict ----

    def nothing_lost(self, opening):
        """All that the clients of the closed side were told is on the one that opened, by now."""
        found = [text for crew in self.crews if crew is not opening for c in crew.clients
                 if not c.kind.at_home for text in c.lost(opening.side.end.query, opening.side.opened)]
        found += [w for w in self.lockstep.must_status()["warnings"] if "it is sealed" in w]
        if found:
            raise Failure("\n  ".join([f"{len(found)} findings (seed {self.args.seed}):", *found]))

    def marks(self, end):
        return {(k, int(n)) for k, n in end.query("SELECT kind, n FROM marks")}

    def judge(self, live, closed):
        for crew in self.crews:
            crew.stop()
        for end in (self.source, self.target):
            if end.kind != "postgres":
                end.server.script(["DROP EVENT shop.job"])
        for one in self.innocents + self.idlers + self.watches:
            one.stop()
        wrong = [w for crew in self.crews for w in crew.trouble()]
        until("both sides have the same marks", 60,
              lambda: self.marks(live) == self.marks(closed), every=0.5) if not wrong else None
        if not clients_of(self.source).stuck_seen(self.source):
            wrong.append("the branch that was stuck: acknowledged and not there")
        for crew in self.crews:
            for c in crew.clients:
                wrong += c.wrongs((c.side.end if c.kind.at_home else live).query)
                wrong += self.idle(c)
        for crew in self.crews:
            for c in crew.clients:
                self.say(c.row())
        for text in self.attempts:
            self.say(f"gave up once: {text}")
        wrong += self.waits()
        if wrong:
            raise Failure("\n  ".join([f"{len(wrong)} findings (seed {self.args.seed}):", *wrong]))

    @staticmethod
    def idle(c):
        """A client that met no fence, or no open side, has proven nothing."""
        if c.kind.user == "reader":
            return []
        found = [] if c.acked else [f"{c.label}: nothing was acknowledged to it"]
        if not c.refused and not c.doubts and not c.logins and not c.codes:
            found.append(f"{c.label}: it was never refused")
        return found

    def waits(self):
        found = []
        slow = {one.side.end: one.longest for one in self.idlers}
        for one in self.innocents + self.idlers:
            self.say(f"{one.name}: {one.count} statements, the longest took "
                     f"{one.longest * 1000:.0f} ms")
            if one in self.innocents and one.longest > ANSWER_S + slow[one.side.end]:
                found.append(f"{one.name} waited for {one.longest:.2f} s")
        for watch in self.watches:
            self.say(f"{watch.end.side}: the longest wait behind a lock of ours "
                     f"{watch.longest * 1000:.0f} ms {watch.who or ''}")
            if watch.longest > LOCK_S + slow[watch.end]:
                found.append(f"{watch.who} waited {watch.longest:.2f} s behind a lock of ours")
        return found

    def go(self):
        self.say(f"{self.args.source} to {self.args.target}, seed {self.args.seed}")
        self.set_up()
        self.names_what_it_cannot_hold()
        self.follow()
        self.prepare()
        self.stuck()
        for i in range(self.args.rounds):
            if i == 0 and self.source.kind == "postgres":
                self.disarmed()
            self.switch("cutover", self.crews[1])
            self.switch("rollback", self.crews[0])
        self.judge(self.source, self.target)
        total = sum(crew.acknowledged() for crew in self.crews)
        met = sum(c.met for crew in self.crews for c in crew.clients)
        late = sum(c.late for crew in self.crews for c in crew.clients)
        print(f"{self.args.source} to {self.args.target} and back: {total} acknowledged writes of "
              f"{len(set(c.kind.name for w in self.crews for c in w.clients))} kinds of client, all "
              f"on the side that lives ({late} units were acknowledged behind the flip, {met} "
              f"refused in mid-unit; seed {self.args.seed})")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--from", dest="source", choices=(*KINDS, "mysql"))
    parser.add_argument("--to", dest="target", choices=(*KINDS, "mysql"))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rounds", type=int, default=1, help="cutovers, each with a rollback")
    parser.add_argument("--linger", type=float, default=0.5, help="seconds on each side")
    parser.add_argument("--prefix", help="where scripts/fetch-mysql has put MySQL",
                        default=str(HERE.parents[2] / ".cache/mysql-prefix"))
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    args.source = args.source or KINDS[args.seed // 2 % 2]
    args.target = args.target or KINDS[args.seed % 2]
    run = Defeat(args, cleanup)
    state = {"done": False}
    cleanup.add(lambda: run.workdir.remove() if state["done"] and not args.keep else
                print(f"kept: {run.workdir.path}"))
    run.go()
    state["done"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
