"""The clients of a MariaDB or MySQL server that defeat.py lets loose, and what they need there."""

import pathlib
import time

import pymysql

from defeat_clients import HOLD, INSERT, INSERT_2, LATE, Kind, Lost, Refused
from harness.base import until
from harness.ends import DATABASE

LOST = {1053, 1317, 1927, 2006, 2013, 4031}  # killed, shut down, gone
NO_SUCH_XA = "1397"
COM_RESET_CONNECTION = 0x1F

TABLES = [
    "CREATE TABLE marks (kind varchar(40), n bigint, PRIMARY KEY (kind, n))",
    "CREATE TABLE registers (kind varchar(40) PRIMARY KEY, n bigint NOT NULL)",
    "CREATE TABLE numbered (id bigint AUTO_INCREMENT PRIMARY KEY, kind varchar(40) NOT NULL,"
    " n bigint NOT NULL)",
    *(f"CREATE TABLE {t}_{s} (n bigint PRIMARY KEY)"
      for t in ("emptied", "locked") for s in ("source", "target")),
]
# XA is not carried by this version: capture stops at a branch that changes a migrated table. One
# that changes another table stands in the fence's way just as well.
ASIDE = "INSERT INTO aside (kind, n) VALUES ('{k}', {n})"
ASIDE_SEEN = {"observe": "SELECT n FROM aside WHERE kind = '{k}'", "at_home": True}
REGISTER = {"rule": "last", "observe": "SELECT n FROM registers WHERE kind = '{k}'"}


class Session:
    def __init__(self, end, user, name):
        secret = {"root": "", "app": "app-secret", "reader": "reader-secret"}[user]
        try:
            self.conn = pymysql.connect(
                host="127.0.0.1", port=end.port, user=user, password=secret, database=DATABASE,
                autocommit=True, charset="utf8mb4", local_infile=True,
                client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
        except pymysql.Error as e:
            raise Lost(str(e.args[0])) from None

    def do(self, sql):
        try:
            with self.conn.cursor() as cur:
                cur.execute(sql)
                rows = cur.fetchall()
                while cur.nextset():
                    pass
                return rows
        except pymysql.Error as e:
            code = e.args[0] if e.args else 0
            if not self.conn.open or code in LOST or not code:
                raise Lost(str(code)) from None
            raise Refused(str(code)) from None

    def reset(self):
        """What a pool does to a connection that is given back."""
        try:
            self.conn._execute_command(COM_RESET_CONNECTION, b"")
            self.conn._read_ok_packet()
        except (pymysql.Error, OSError) as e:
            raise Lost(str(e.args[0]) if e.args else "connection") from None
        self.do("SET autocommit = 1, NAMES utf8mb4")

    def undo(self):
        try:
            self.do("ROLLBACK")
            self.do("UNLOCK TABLES")
        except (Refused, Lost):
            pass  # the next unit sees it

    def close(self):
        if self.conn.open:
            self.conn.close()


def distributed(client, n):
    """XA COMMIT until it is told what became of it, in whatever session."""
    xid = f"{client.label} {n}"
    branch(client, xid, lambda: client.do(ASIDE, n), f"XA PREPARE '{xid}'")
    end, asked_anew = time.monotonic() + 30, 0
    while not client.over.is_set() or time.monotonic() < end:
        try:
            client.open()
            client.do(f"XA COMMIT '{xid}'")
            return
        except Refused as e:
            client.codes[f"XA COMMIT {e}"] += 1
            asked_anew += str(e) == NO_SUCH_XA
            if asked_anew > 100:
                break
        except Lost as e:
            client.codes[f"XA COMMIT {e}"] += 1
            client.close()
        if time.monotonic() > end:
            break
        time.sleep(0.03)
    raise Lost("undecided")


def left_open(client, n):
    """An XA branch with work in it, neither ended nor prepared when the side closes."""
    def work():
        client.do(ASIDE, n)
        client.hold()
        if client.side.closed:
            time.sleep(0.5)
    xid = f"{client.label} {n}"
    branch(client, xid, work, f"XA COMMIT '{xid}' ONE PHASE")


def branch(client, xid, work, last):
    """One that is refused something is rolled back, or its session could begin no other."""
    client.do(f"XA START '{xid}'")
    try:
        work()
        client.do(f"XA END '{xid}'")
        client.do(last)
    except Refused:
        for sql in (f"XA END '{xid}'", f"XA ROLLBACK '{xid}'"):
            try:
                client.do(sql)
            except Refused as e:
                client.codes[f"XA {e}"] += 1
        raise


def loaded(client, n):
    path = pathlib.Path(client.side.end.server.home) / f"load-{client.side.name}.csv"
    path.write_text("".join(f"{client.label},{i}\n" for i in sorted(client.marks(n))))
    client.do(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE marks FIELDS TERMINATED BY ','"
              " (kind, @n) SET n = @n + SLEEP(0.1)")


def reset(client, n):
    client.session.reset()
    client.hold()
    client.do(INSERT, n)


def back_to_savepoint(client, n):
    client.do("BEGIN")
    client.do(INSERT, n)
    client.do("SAVEPOINT s")
    client.hold()
    try:
        client.do("INSERT INTO marks (kind, n) VALUES ('{k} late', {n})", n)
    except Refused as e:
        client.codes[str(e)] += 1
        client.do("ROLLBACK TO s")
    client.do("COMMIT")


def by_temporary(client, n):
    """Temporary tables are written under read_only, too."""
    client.do("CREATE TEMPORARY TABLE IF NOT EXISTS own (n bigint)")
    client.do("DELETE FROM own")
    client.do("INSERT INTO own VALUES ({n})", n)
    client.hold()
    client.do("INSERT INTO marks SELECT '{k}', n FROM own", n)


def emptied(client, n):
    client.do("TRUNCATE emptied_{s}", n)
    client.hold()
    client.do("INSERT INTO emptied_{s} VALUES ({n})", n)


def level(text, *steps):
    return [f"SET TRANSACTION ISOLATION LEVEL {text}", *steps]


KINDS = [
    Kind("autocommit", "single statements", [INSERT]),
    Kind("late commit", "writes, and commits late", ["BEGIN", INSERT, HOLD, "COMMIT"]),
    Kind("late write", "writes, and again late, and commits",
         ["BEGIN", INSERT, HOLD, INSERT_2, "COMMIT"], marks=2),
    Kind("old snapshot", "REPEATABLE READ, writes late with an old snapshot",
         level("REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT",
               "SELECT count(*) FROM registers", HOLD, INSERT, "COMMIT")),
    Kind("serializable", "reads with locks, writes late",
         level("SERIALIZABLE", "BEGIN", "SELECT n FROM registers WHERE kind = '{k}'", HOLD, INSERT,
               "COMMIT")),
    Kind("no autocommit", "SET autocommit = 0", [INSERT, HOLD, "COMMIT"],
         setup=["SET autocommit = 0"]),
    Kind("read write", "overrides every read-only setting",
         ["START TRANSACTION READ WRITE", HOLD, INSERT, "COMMIT"],
         setup=["SET SESSION TRANSACTION READ WRITE"]),
    Kind("xa", "XA PREPARE before, XA COMMIT behind", run=distributed, pause=0.9,
         **ASIDE_SEEN),
    Kind("xa left open", "an XA branch that is not prepared when the side closes", run=left_open,
         **ASIDE_SEEN),
    Kind("load data", "LOAD DATA LOCAL that runs over the flip", run=loaded, marks=2),
    Kind("definer root", "a procedure whose definer read_only does not stop",
         [HOLD, "CALL mark_as_root('{k}', {n})"]),
    Kind("definer function", "SELECT of a function whose definer read_only does not stop",
         [HOLD, "SELECT marked_as_root('{k}', {n})"]),
    Kind("definer", "a procedure whose definer has no more rights than an application",
         [HOLD, "CALL mark_as_app('{k}', {n})"]),
    Kind("user lock", "holds a user lock and writes late",
         ["SELECT GET_LOCK('{k}', 1)", HOLD, INSERT, "SELECT RELEASE_LOCK('{k}')"]),
    Kind("replace", "REPLACE", [HOLD, "REPLACE INTO registers VALUES ('{k}', {n})"], **REGISTER),
    Kind("on duplicate", "INSERT … ON DUPLICATE KEY UPDATE",
         ["INSERT INTO registers VALUES ('{k}', 0) ON DUPLICATE KEY UPDATE n = {n}"], **REGISTER),
    Kind("two tables", "UPDATE of two tables at once",
         ["INSERT INTO marks VALUES ('{k} a', {n})",
          "UPDATE registers r JOIN marks m ON m.kind = '{k} a' AND m.n = {n}"
          " SET r.n = m.n, m.kind = '{k} b' WHERE r.kind = '{k}'"], **REGISTER),
    Kind("for update", "SELECT … FOR UPDATE, then UPDATE",
         ["BEGIN", "SELECT n FROM registers WHERE kind = '{k}' FOR UPDATE", HOLD,
          "UPDATE registers SET n = {n} WHERE kind = '{k}'", "COMMIT"], **REGISTER),
    Kind("truncate", "TRUNCATE, then a new row", run=emptied, rule="last",
         observe="SELECT n FROM emptied_{s}", pause=0.25),
    Kind("creates", "CREATE TABLE AS, then a write",
         ["CREATE TABLE IF NOT EXISTS apart AS SELECT 1 AS n", INSERT]),
    Kind("lock tables", "LOCK TABLES … WRITE over the flip",
         ["LOCK TABLES locked_{s} WRITE", HOLD, "INSERT INTO locked_{s} VALUES ({n})",
          "UNLOCK TABLES"], observe="SELECT n FROM locked_{s}"),
    Kind("reset", "a pool's connection, reset before each use", run=reset),
    Kind("long statement", "one that runs for 0.4 s",
         ["INSERT INTO marks SELECT '{k}', {n} + SLEEP(0.4)"]),
    Kind("temporary", "by way of a temporary table", run=by_temporary),
    Kind("prepared", "a prepared statement, used again",
         ["SET @n = {n}", HOLD, "EXECUTE put USING @n"],
         setup=["PREPARE put FROM \"INSERT INTO marks VALUES ('{k}', ?)\""]),
    Kind("storm", "a new session for each statement", [INSERT], fresh=True),
    Kind("sleeper", "a session that was open before, and writes when the side has closed",
         [HOLD, LATE, INSERT]),
    Kind("identity", "rows whose number the server gives",
         ["BEGIN", "INSERT INTO numbered (kind, n) VALUES ('{k}', {n})", HOLD, "COMMIT"],
         observe="SELECT n FROM numbered WHERE kind = '{k}'"),
    Kind("several at once", "a transaction in one packet",
         ["BEGIN; INSERT INTO marks VALUES ('{k}', {n}); DO SLEEP(0.05);"
          " INSERT INTO marks VALUES ('{k}', {m}); COMMIT"], marks=2),
    Kind("savepoint", "goes back to a savepoint when it is refused, and commits",
         run=back_to_savepoint),
]


def load(end, alike, labels):
    end.load([*TABLES, *registers(labels)])


def registers(labels):
    return [f"INSERT INTO registers VALUES ('{label}', 0)" for label in labels]


def aside(end):
    """What the clients need besides the tables."""
    put = "(k varchar(40), i bigint) SQL SECURITY DEFINER INSERT INTO shop.marks VALUES (k, i)"
    end.server.script([
        "SET GLOBAL local_infile = 1",
        "CREATE USER reader@'%' IDENTIFIED BY 'reader-secret'",
        "GRANT SELECT ON shop.* TO reader@'%'",
        "GRANT CREATE, DROP, EXECUTE, EVENT, LOCK TABLES, CREATE TEMPORARY TABLES ON shop.*"
        " TO app@'%'",
        f"CREATE DEFINER = app@'%' PROCEDURE mark_as_app {put}",
        f"CREATE DEFINER = root@localhost PROCEDURE mark_as_root {put}",
        "CREATE DEFINER = root@localhost FUNCTION marked_as_root(k varchar(40), i bigint) RETURNS"
        " bigint DETERMINISTIC BEGIN INSERT INTO shop.marks VALUES (k, i); RETURN i; END",
        "CREATE TABLE apart (n bigint)",
        "CREATE TABLE aside (kind varchar(40), n bigint, PRIMARY KEY (kind, n))",
    ], DATABASE)


def job(end):
    """Only where nobody is misled by what it writes before the side is sealed."""
    end.server.script([f"CREATE DEFINER = app@'%' EVENT job ON SCHEDULE EVERY 1 SECOND DO"
                       f" INSERT INTO shop.marks VALUES ('job@{end.side}', UNIX_TIMESTAMP())"],
                      DATABASE)


def innocents(end):
    """(name, user, statement): a reader, and a writer to a table that is not migrated."""
    return [("reader", "reader", "SELECT count(*) FROM marks WHERE kind = 'autocommit@source'"),
            ("writer elsewhere", "app", "INSERT INTO apart VALUES ({n})")]


def stuck_seen(end):
    return end.query("SELECT 1 FROM aside WHERE kind = 'stuck' AND n = 1")


def stuck(end):
    """An XA branch that is prepared and not decided: (what names it, decide())."""
    session = Session(end, "app", "stuck")
    session.do("XA START 'stuck-branch'; INSERT INTO aside VALUES ('stuck', 1);"
               " XA END 'stuck-branch'; XA PREPARE 'stuck-branch'")

    def decide():
        """Its session was ended when it was in the way; the branch stands for any other."""
        session.close()
        until("the branch is decided", 10, committed, every=0.1)

    def committed():
        try:
            other = Session(end, "app", "stuck")
            other.do("XA COMMIT 'stuck-branch'")
        except (Refused, Lost):
            return False  # its old session is not quite gone
        other.close()
        return True
    return "stuck-branch", decide
