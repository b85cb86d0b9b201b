"""A bank whose books can be audited, for every test of the switch, on every engine: accounts, clients
that move money between them and follow the switch, a numbered receipt of each transfer in the same
transaction; and a prober that asks both sides all the time whether they take a write.

Both log in as the application, by a Door. What a client was told is kept: acknowledged, or in doubt
(the connection was lost at COMMIT); every error that is not clear and retryable is trouble."""

import random
import threading
import time

import psycopg2

from .base import Failure, mono_ms, until

ACCOUNTS, BALANCE = 200, 1000
CLIENTS = 16
DATABASE = "shop"
LOOK_EVERY = 20  # transfers of a client between two looks at the sum
FIRST_ACK_S = 60


# ---- doors ----

class Door:
    """Where an application logs in. Codes: SQLSTATEs, or MySQL's numbers as text; `connect`: nobody
    answered, `connection`: it broke."""

    # The transaction met another one: the same server may be asked again.
    meets = frozenset()
    # Its outcome is not known if this answers a COMMIT.
    lost = frozenset()
    # Clear and retryable, and to be seen in a switch.
    clear = frozenset()
    # Only when a server is killed or restarted.
    crash = frozenset()


class PostgresDoor(Door):
    errors = psycopg2.Error
    meets = frozenset(("40P01",))
    lost = frozenset(("57P01", "57P02", "connection"))
    clear = frozenset(("40001", "40P01", "25006", "57P01", "connection"))
    crash = frozenset(("57P02", "57P03", "connect"))
    levels = ("READ COMMITTED", "REPEATABLE READ", "READ COMMITTED", "SERIALIZABLE")

    def __init__(self, port):
        self.port = port

    def connect(self, level=None):
        conn = psycopg2.connect(host="127.0.0.1", port=self.port, dbname=DATABASE, user="app",
                                password="app-secret", connect_timeout=20)
        conn.set_session(isolation_level=level, autocommit=level is None)
        return conn

    @staticmethod
    def code(e, conn):
        return e.pgcode or ("connect" if conn is None else "connection")

    @staticmethod
    def broken(conn):
        return bool(conn.closed)


class MysqlDoor(Door):
    meets = frozenset(("1213", "1205"))
    lost = frozenset(("1927", "2013", "2006", "1053"))
    # Read only; account locked (MariaDB, MySQL); session killed; connection lost.
    clear = frozenset(("1290", "4151", "3118", "1213", "1205", "1927", "2013", "2006"))
    crash = frozenset(("1053", "2003"))
    levels = ("READ COMMITTED", "REPEATABLE READ")

    def __init__(self, port):
        import pymysql
        self.port, self.pymysql = port, pymysql
        self.errors = pymysql.Error

    def connect(self, level=None):
        words = f"SET SESSION TRANSACTION ISOLATION LEVEL {level}" if level else "DO 0"
        return self.pymysql.connect(
            host="127.0.0.1", port=self.port, user="app", password="app-secret",
            database=DATABASE, connect_timeout=20, autocommit=level is None, init_command=words,
            client_flag=self.pymysql.constants.CLIENT.FOUND_ROWS)

    @staticmethod
    def code(e, conn):
        return str(e.args[0]) if e.args else type(e).__name__

    @staticmethod
    def broken(conn):
        return not conn.open


def door(end):
    return (PostgresDoor if getattr(end, "kind", "postgres") == "postgres" else MysqlDoor)(end.port)


# ---- tables ----

def ddl(kind, prefix=""):
    """Statements: the bank's tables with their first rows. `prefix`: "schema."; the names are plain."""
    number = {"postgres": "bigint GENERATED ALWAYS AS IDENTITY"}.get(kind, "bigint AUTO_INCREMENT")
    rows = ", ".join(f"({i}, {BALANCE})" for i in range(1, ACCOUNTS + 1))
    return [
        f"CREATE TABLE {prefix}accounts (id int NOT NULL, balance bigint NOT NULL, PRIMARY KEY (id))",
        f"INSERT INTO {prefix}accounts VALUES {rows}",
        f"CREATE TABLE {prefix}receipts (client int NOT NULL, n int NOT NULL, payer int NOT NULL,"
        " payee int NOT NULL, amount int NOT NULL, PRIMARY KEY (client, n))",
        f"CREATE TABLE {prefix}ledger (id {number}, amount int NOT NULL, PRIMARY KEY (id))",
        f"CREATE TABLE {prefix}probes (side varchar(20) NOT NULL, n bigint NOT NULL,"
        " PRIMARY KEY (side))",
        f"INSERT INTO {prefix}probes VALUES ('source', 0), ('target', 0)"]


# ---- clients ----

class Client:
    def __init__(self, bank, number):
        self.bank, self.number = bank, number
        self.rng = random.Random(bank.seed * 1000 + number)
        self.conn, self.n = None, 0
        self.side = bank.route(None)
        self.waits = 0  # the last hold that it has seen

    def run(self):
        bank = self.bank
        while not bank.over.is_set():
            if bank.held.is_set():
                self.waits = bank.holds
                bank.over.wait(0.02)
                continue
            try:
                self.once()
            except Exception as e:  # a bug of this test
                bank.trouble.append(f"client {self.number}: {e!r}")
                break
            bank.over.wait(bank.pace)
        self.drop()

    def once(self):
        door = self.bank.doors[self.side]
        self.n += 1
        committing = False
        try:
            if self.conn is None:
                self.conn = door.connect(door.levels[self.number % len(door.levels)])
            with self.conn.cursor() as cur:
                if self.n % LOOK_EVERY == 0:
                    self.look(cur)
                else:
                    self.transfer(cur)
            committing = True
            self.conn.commit()
        except door.errors as e:
            self.refused(door, e, committing)
            return
        if self.n % LOOK_EVERY:
            self.bank.acknowledged.add((self.number, self.n))
            self.bank.times.append(mono_ms())

    def transfer(self, cur):
        p = self.bank.prefix
        payer, payee = self.rng.sample(range(1, ACCOUNTS + 1), 2)
        amount = self.rng.randint(1, 9)
        moves = sorted(((payer, -amount), (payee, amount)))
        for account, by in moves:
            cur.execute(f"UPDATE {p}accounts SET balance = balance + %s WHERE id = %s", (by, account))
            if cur.rowcount != 1:
                raise Failure(f"account {account} is not there once, but {cur.rowcount} times")
        cur.execute(f"INSERT INTO {p}ledger (amount) VALUES (%s)", (amount,))
        if self.number == 0 and self.n % 10 == 0:  # an application that thinks while it holds locks
            time.sleep(0.15)
        cur.execute(f"INSERT INTO {p}receipts VALUES (%s, %s, %s, %s, %s)",
                    (self.number, self.n, payer, payee, amount))

    def look(self, cur):
        cur.execute(f"SELECT sum(balance) FROM {self.bank.prefix}accounts")
        found = int(cur.fetchone()[0])
        if found != ACCOUNTS * BALANCE:
            self.bank.trouble.append(f"client {self.number} saw the sum {found} on the {self.side}")

    def refused(self, door, e, committing):
        bank = self.bank
        code = door.code(e, self.conn)
        bank.codes.setdefault(self.side, set()).add(code)
        if committing and code in door.lost:
            bank.doubts.add((self.number, self.n))
        if code not in door.clear and not (bank.crashes and code in door.crash):
            bank.trouble.append(f"client {self.number} on the {self.side}"
                                f"{' at COMMIT' if committing else ''}: {code}: {e}")
        self.drop()
        if code not in door.meets:
            self.side = bank.route(self.side)
        bank.over.wait(0.02)

    def drop(self):
        if self.conn is not None:
            try:
                self.conn.close()
            except Exception:  # pymysql: it is closed already
                pass
        self.conn = None


class Clients:
    """`route`: the side to go to, given the one that has just refused (None: at the beginning); by
    default the other one, as applications do that know two addresses. `crashes`: servers are killed,
    so that it is clear and retryable too when nobody answers."""

    def __init__(self, doors, count=CLIENTS, pace=0.04, prefix="", route=None, crashes=False, seed=1):
        self.doors, self.pace, self.prefix, self.seed = doors, pace, prefix, seed
        self.crashes = crashes
        self.route = route or (lambda refused: "target" if refused == "source" else "source")
        self.over, self.held, self.holds = threading.Event(), threading.Event(), 0
        self.acknowledged, self.doubts = set(), set()
        self.codes, self.times, self.trouble = {}, [], []
        self.clients = [Client(self, i) for i in range(count)]
        self.threads = [threading.Thread(target=c.run, daemon=True) for c in self.clients]
        for t in self.threads:
            t.start()

    def must_be_well(self):
        if self.trouble:
            raise Failure(f"clients saw other than clear, retryable errors: {self.trouble[:3]}")

    def go_on(self, what, more=50, seconds=FIRST_ACK_S):
        mark = len(self.acknowledged)
        until(f"clients go on {what}", seconds, lambda: self.must_be_well() or
              len(self.acknowledged) >= mark + more, every=0.02)

    def hold(self):
        """Until none is in a transaction."""
        self.holds += 1
        self.held.set()
        until("all clients wait", 60, lambda: self.must_be_well() or all(
            c.waits == self.holds for c in self.clients), every=0.02)

    def release(self):
        self.held.clear()

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(20)
        self.must_be_well()

    def seen(self):
        """The codes by side, as text."""
        return ", ".join(f"{side}: {' '.join(sorted(codes))}"
                         for side, codes in sorted(self.codes.items())) or "none"

    def audit(self, query, where):
        """The books of one side, while nobody writes: {receipt: transfer}. `query`: SQL -> rows."""
        p = self.prefix
        rows = query(f"SELECT client, n, payer, payee, amount FROM {p}receipts")
        books = {(int(r[0]), int(r[1])): tuple(int(x) for x in r[2:]) for r in rows}
        lost = self.acknowledged - set(books)
        if lost:
            raise Failure(f"{len(lost)} acknowledged transfers are missing on the {where}:"
                          f" {sorted(lost)[:5]}")
        if len(rows) != len(books):
            raise Failure(f"{len(rows) - len(books)} receipts stand twice on the {where}")
        extra = set(books) - self.acknowledged - self.doubts
        if extra:
            raise Failure(f"{len(extra)} transfers on the {where} that were refused: "
                          f"{sorted(extra)[:5]}")
        self.recount(query, books, where)
        return books

    def recount(self, query, books, where):
        """Each account holds what its receipts say, each transfer counted once."""
        should = dict.fromkeys(range(1, ACCOUNTS + 1), BALANCE)
        for payer, payee, amount in books.values():
            should[payer] -= amount
            should[payee] += amount
        found = {int(i): int(b) for i, b in query(f"SELECT id, balance FROM {self.prefix}accounts")}
        wrong = [i for i in should if found.get(i) != should[i]]
        if wrong or len(found) != ACCOUNTS:
            raise Failure(f"{len(wrong)} of {len(found)} accounts on the {where} do not hold what "
                          f"their receipts say: {[(i, found.get(i), should[i]) for i in wrong[:5]]}")
        if sum(found.values()) != ACCOUNTS * BALANCE:
            raise Failure(f"the sum of all balances on the {where} is {sum(found.values())}")
        n, numbers, total = query(f"SELECT count(*), count(DISTINCT id), coalesce(sum(amount), 0)"
                                  f" FROM {self.prefix}ledger")[0]
        if (int(n), int(numbers)) != (len(books), len(books)) or \
                int(total) != sum(b[2] for b in books.values()):
            raise Failure(f"the ledger on the {where} has {n} lines, {numbers} numbers, {total} in "
                          f"sum, for {len(books)} transfers")

    def audit_both(self, live, other, seconds=90):
        """Stands still; the side that lives is audited, and the other one as soon as it is drained.
        Each a (name, query)."""
        self.hold()
        books = self.audit(live[1], live[0])
        until(f"the {other[0]} is drained", seconds, lambda: int(other[1](
            f"SELECT count(*) FROM {self.prefix}receipts")[0][0]) >= len(books), every=0.2)
        there = self.audit(other[1], other[0])
        if there != books:
            differ = set(books.items()) ^ set(there.items())
            raise Failure(f"{len(differ)} transfers are not the same on both sides: "
                          f"{sorted(differ)[:4]}")
        self.release()
        return len(books)


# ---- prober ----

class Prober:
    """Tries to write on both sides, a thread each, through the application's role; `seen` keeps
    (began, ended, side, code or None). Each side has a row of its own to write to.

    Of a road it is told which side closes and which one opens. Two writable sides are: a write
    taken by the side that opens before it may, or one that the closing side took and that began
    after the other had taken one. That holds until the next road is told."""

    def __init__(self, doors, prefix="", every=0.01):
        self.doors, self.prefix, self.every = doors, prefix, every
        self.seen, self.violations = [], []
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.closing = self.opening = self.opened = None
        self.may_open = True
        self.threads = [threading.Thread(target=self.run, args=(side,), daemon=True)
                        for side in doors]
        for t in self.threads:
            t.start()

    def run(self, side):
        door, conn = self.doors[side], None
        # Leaves nothing behind: before `prepared` both sides are open, and must hold the same.
        sql = f"UPDATE {self.prefix}probes SET n = n WHERE side = '{side}'"
        while not self.over.wait(self.every if conn is not None else 4 * self.every):
            began, code = time.monotonic(), None
            try:
                if conn is None:
                    conn = door.connect()
                with conn.cursor() as cur:
                    cur.execute(sql)
            except door.errors as e:
                code = door.code(e, conn)
                if conn is not None and door.broken(conn):
                    conn = None
            except OSError as e:
                code, conn = repr(e), None
            self.take(began, time.monotonic(), side, code)

    def take(self, began, ended, side, code):
        with self.lock:
            self.seen.append((began, ended, side, code))
            if code is not None or self.closing is None:
                return
            if side == self.opening:
                if not self.may_open and began > self.since:
                    self.violations.append(f"the {side} took a write {began - self.since:.3f} s into "
                                           "a road that had not opened it")
                self.opened = min(self.opened or ended, ended)
            elif self.opened is not None and began > self.opened:
                self.violations.append(f"the {side} took a write {began - self.opened:.3f} s after "
                                       f"the {self.opening} had")

    def road(self, closing, opening, may_open=False):
        with self.lock:
            self.closing, self.opening, self.opened = closing, opening, None
            self.may_open, self.since = may_open, time.monotonic()

    def allow(self):
        """From now on the side that opens may take a write."""
        with self.lock:
            self.may_open = True

    def must_be_well(self):
        if self.violations:
            raise Failure(f"two writable sides: {self.violations[:3]}")

    def last(self, side):
        return next((s[3] for s in reversed(self.seen) if s[2] == side), "none")

    def taken(self, side, since):
        """Has this side taken a write that began after `since` (monotonic seconds)? When?"""
        for began, ended, where, code in reversed(self.seen):
            if ended < since - 60:
                break
            if where == side and code is None and began > since:
                return ended
        return None

    def await_taken(self, side, within, what, since=None):
        """Seconds until the side takes a write; Failure after `within`."""
        since = time.monotonic() if since is None else since
        until(f"{what}: the {side} takes a write", within, lambda: self.must_be_well() or
              self.taken(side, since), every=0.02)
        return min(s[1] for s in self.seen if s[2] == side and s[3] is None and s[0] > since) - since

    def must_refuse(self, side, seconds, what):
        """Asked all the while, none of its answers is a yes."""
        since = time.monotonic()

        def asked():
            if self.taken(side, since):
                raise Failure(f"{what}: the {side} took a write")
            return time.monotonic() > since + seconds and any(
                s[2] == side and s[0] > since for s in reversed(self.seen[-2000:]))
        until(f"the {side} is asked", seconds + 30, asked, every=0.02)

    def judge(self, since):
        """Failure unless the target took a write since then, and the source none that began later."""
        opened = min((ended for _, ended, side, code in self.seen
                      if side == "target" and code is None and ended >= since), default=None)
        if opened is None:
            raise Failure("the target never took a probe")
        late = [began for began, _, side, code in self.seen
                if side == "source" and code is None and began > opened]
        if late:
            raise Failure(f"both sides took writes: the target at {opened:.3f}, the source at "
                          f"{late[0]:.3f}")

    def stop(self):
        self.over.set()
        for t in self.threads:
            t.join(20)
