"""What every client of defeat.py is: a kind, a thread of its own, and what it was told.

A kind does one numbered unit of work at a time; a unit writes one mark or more, all or none. What a
client was told of a unit is one of three: acknowledged, refused (a clear error on a session that
lives), or in doubt (the session was lost). The judge asks the side that lives for the marks."""

import collections
import random
import threading
import time

PAUSE = 0.04
REFUSED_PAUSE = 0.12  # as the error's hint has it
INSERT = "INSERT INTO marks (kind, n) VALUES ('{k}', {n})"
INSERT_2 = "INSERT INTO marks (kind, n) VALUES ('{k}', {m})"
HOLD, LATE = "hold", "late"
SEALED = ("25006", "4151")  # what only a sealed side says


class Refused(Exception):
    """A clear error; what the unit did is undone."""


class Lost(Exception):
    """The session is gone; nobody knows what became of the unit."""


class Kind:
    """name; what it does; steps: statements, HOLD (until the side closes, or not for long), LATE
    (past its seal); or `run`(client, n) in their place. rule: `all` (each acknowledged mark is there)
    or `last` (the last one overwrote the others). observe: how to read the marks. wrong: a count
    that must be 0. marks: how many a unit writes. only: the kinds of direction it is good for."""

    def __init__(self, name, what, steps=(), run=None, rule="all", user="app", marks=1,
                 observe="SELECT n FROM marks WHERE kind = '{k}'", wrong=None, sides=("source",
                 "target"), alike=False, pause=PAUSE, fresh=False, setup=(), whole=True, at_home=False):
        self.name, self.what, self.steps, self.run = name, what, steps, run
        self.rule, self.user, self.marks, self.observe = rule, user, marks, observe
        self.wrong, self.sides, self.alike, self.pause = wrong, sides, alike, pause
        self.fresh, self.setup = fresh, setup  # a session for each unit; what a session begins with
        self.at_home = at_home  # what it writes to is not migrated
        self.whole = whole  # all marks of a unit, or none


class Side:
    """One server as its clients see it: is it closed now? The autocommit client tells."""

    def __init__(self, end, name, open_session):
        self.end, self.name, self.open_session = end, name, open_session
        self.closed = self.sealed = False
        self.opened = 0.0  # when it last took a write after it had refused one
        self.hold = 0.0
        self.ddl_refused = True  # by lockstep's event trigger

    def told(self, code):
        """The code of its refusal, None for none."""
        if self.closed and code is None:
            self.opened = time.monotonic()
        self.closed = code is not None
        self.sealed = code in SEALED


class Client:
    def __init__(self, kind, side, seed):
        self.kind, self.side = kind, side
        self.label = f"{kind.name}@{side.name}"
        self.rng = random.Random(f"{self.label} {seed}")
        self.session, self.since = None, 0.0
        self.began_closed = False
        self.acked, self.refused, self.doubts = set(), set(), set()
        self.met, self.late, self.logins = 0, 0, 0
        self.asked, self.latest = 0.0, 0.0  # begin of its last statement, and of the last one done
        self.codes = collections.Counter()
        self.trouble = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def marks(self, n):
        return {n * 10 + i for i in range(self.kind.marks)}

    def words(self, n):
        return {"k": self.label, "n": n * 10, "m": n * 10 + 1, "s": self.side.name}

    def do(self, sql, n=0):
        self.asked = time.monotonic()
        return self.session.do(sql.format(**self.words(n)) if "{" in sql else sql)

    def hold(self):
        """Keeps the unit open until the side closes, so that it goes on when it is closed."""
        end = time.monotonic() + self.side.hold * self.rng.uniform(0.3, 1)
        while not self.side.closed and time.monotonic() < end:
            time.sleep(0.002)
        if self.side.closed and not self.began_closed:
            time.sleep(self.rng.uniform(0, 0.06))
        self.asked = time.monotonic()

    def outlast(self):
        """Past the seal, so that what nobody has waited for comes behind the last marker."""
        end = time.monotonic() + 3
        while self.side.closed and not self.began_closed and time.monotonic() < end:
            if self.side.sealed:
                end = min(end, time.monotonic() + 0.5)
            time.sleep(0.01)

    def unit(self, n):
        if self.kind.run:
            self.kind.run(self, n)
            return
        for step in self.kind.steps:
            if step == HOLD:
                self.hold()
            elif step == LATE:
                self.outlast()
            else:
                self.do(step, n)

    def open(self):
        if self.session is None:
            self.session = self.side.open_session(self.kind.user, self.label)
            self.since = time.monotonic()
            for sql in self.kind.setup:
                self.do(sql)

    def close(self):
        if self.session is not None:
            self.session.close()
            self.session = None

    def work(self):
        n = 0 if self.side.name == "source" else 1_000_000
        try:
            while not self.over.is_set():
                n += self.step(n + 1)
                self.over.wait(max(self.kind.pause, REFUSED_PAUSE if self.side.closed else 0))
        except Exception as e:  # a bug of this test
            self.trouble = repr(e)
        finally:
            self.close()

    def step(self, n):
        """One unit; 0 if it did not come to it."""
        self.began_closed = self.side.closed
        try:
            self.open()
        except (Refused, Lost) as e:
            self.logins += 1
            self.codes[str(e)] += 1
            self.tell(e)
            self.close()
            return 0
        try:
            self.unit(n)
            self.acked |= self.marks(n)
            self.latest = self.asked
            self.late += self.side.closed and not self.began_closed
            self.tell(None)
        except Refused as e:
            self.refused |= self.marks(n)
            self.failed(e)
            self.session.undo()
        except Lost as e:
            self.doubts |= self.marks(n)
            self.failed(e)
            self.close()
        if self.kind.fresh:
            self.close()
        return 1

    def failed(self, e):
        self.codes[str(e)] += 1
        self.tell(e)
        self.met += self.side.closed and not self.began_closed

    def tell(self, e):
        if self.kind.name == "autocommit":
            self.side.told(None if e is None else str(e))

    # ---- the verdict ----

    def wrongs(self, query):
        """What is wrong with it on the side that lives, as sentences."""
        words = {"k": self.label, "s": self.side.name}
        seen = {int(n) for (n,) in query(self.kind.observe.format(**words))}
        found = self.last_wrong(seen) if self.kind.rule == "last" else self.all_wrong(seen)
        if self.kind.wrong:
            count = int(query(self.kind.wrong.format(**words))[0][0])
            if count:
                found.append(f"{count} rows that contradict its marks")
        return [f"{self.label}: {text}" for text in found]

    def lost(self, query, opened):
        """While its side is closed, of what it was told: what the other one has not, and what was
        asked for when that was open already (and is carried there as a stranger's write)."""
        if self.latest > opened:
            return [f"{self.label}: acknowledged {self.latest - opened:.3f} s after the other side "
                    f"had opened, by a session {self.latest - self.since:.3f} s old"]
        told, doubts = set(self.acked), set(self.doubts)
        words = {"k": self.label, "s": self.side.name}
        seen = {int(n) for (n,) in query(self.kind.observe.format(**words))}
        if self.kind.rule == "last":
            last = max(told, default=0)
            fine = last in seen or not seen or any(n > last for n in doubts & seen)
        else:
            fine = told <= seen
        return [] if fine else [f"{self.label}: acknowledged, and not on the side that lives: "
                                f"{sorted(told - seen)[-5:]}"]

    def all_wrong(self, seen):
        lost, slipped = self.acked - seen, self.refused & seen
        unknown = seen - self.acked - self.doubts - slipped
        torn = [n for n in seen if self.kind.whole and not self.marks(n // 10) <= seen]
        return [f"{len(numbers)} {what}: {sorted(numbers)[:5]}" for numbers, what in (
            (lost, "acknowledged and not there"), (slipped, "refused and there"),
            (unknown, "there and never tried"), (torn, "there in part")) if numbers]

    def last_wrong(self, seen):
        last = max(self.acked, default=0)
        later = {n for n in self.doubts | self.refused if n > last}
        wanted = {last} | {n for n in self.doubts if n > last}
        if seen <= wanted and (seen or later):
            return []
        return [f"holds {sorted(seen)[:5]}, the last acknowledged is {last}, in doubt are "
                f"{sorted(later)[:5]}"]

    def row(self):
        codes = ", ".join(f"{c} ×{n}" for c, n in self.codes.most_common(4))
        return (f"{self.label:28} {len(self.acked):6} acknowledged ({self.late} when it had closed) "
                f"{len(self.refused):5} refused {len(self.doubts):4} in doubt "
                f"({self.met} in mid-unit) {codes}")


class Crew:
    """One client of each kind on one side."""

    def __init__(self, side, kinds, seed, alike):
        self.side = side
        self.clients = [Client(k, side, seed) for k in kinds
                        if side.name in k.sides and (alike or not k.alike)]

    def start(self):
        for c in self.clients:
            c.thread.start()

    def stop(self):
        for c in self.clients:
            c.over.set()
        for c in self.clients:
            c.thread.join(40)

    def trouble(self):
        return [f"{c.label}: {c.trouble}" for c in self.clients if c.trouble]

    def acknowledged(self):
        return sum(len(c.acked) for c in self.clients)


class Innocent:
    """Asks the same again and again; remembers the longest answer, whatever it was."""

    def __init__(self, side, name, user, sql):
        self.side, self.name, self.user, self.sql = side, name, user, sql
        self.longest, self.count = 0.0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def start(self):
        self.thread.start()

    def work(self):
        session = None
        while not self.over.wait(0.01):
            self.count += 1
            began = time.monotonic()
            try:
                session = session or self.side.open_session(self.user, self.name)
                began = time.monotonic()
                session.do(self.sql.format(n=self.count))
            except Refused:
                pass
            except Lost:
                session = session and session.close()
            self.longest = max(self.longest, time.monotonic() - began)
        if session:
            session.close()

    def stop(self):
        self.over.set()
        self.thread.join(20)
