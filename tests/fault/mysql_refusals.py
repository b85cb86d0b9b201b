#!/usr/bin/python3
"""What `check` must find unfit on a MariaDB server, by name and with what mends it: exit 3; and `run`
refuses the same with exit 4 before anything has changed on either side.

    mysql_refusals.py --binary FILE
"""

import argparse
import pathlib
import re
import subprocess
import sys
import threading

import pymysql

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

FENCE = "fence: {accounts: ['app@%']}\n"
PATIENT = "cutover: {max_pause: 30s}\n"
READ_ALL_THE_TIME = ("BEGIN NOT ATOMIC FOR i IN 1..300000 DO"
                     " SET @n = (SELECT count(*) FROM information_schema.innodb_trx);"
                     " DO SLEEP(0.001); END FOR; END")
TABLE = "CREATE TABLE shop.t (id int PRIMARY KEY, v varchar(20) CHARACTER SET utf8mb4)"


class Case:
    """Statements of root that make it unfit, what check must say, and what takes it back."""

    def __init__(self, name, make, says, undo, config=FENCE, hold=None):
        self.name, self.make, self.says, self.undo = name, make, says, undo
        self.config, self.hold = config, hold


CASES = [
    Case("statement format", ["SET GLOBAL binlog_format = 'STATEMENT'"],
         r"binlog_format.*SET GLOBAL binlog_format", ["SET GLOBAL binlog_format = 'ROW'"]),
    Case("row image", ["SET GLOBAL binlog_row_image = 'MINIMAL'"],
         r"binlog_row_image.*SET GLOBAL binlog_row_image", ["SET GLOBAL binlog_row_image = 'FULL'"]),
    Case("row metadata", ["SET GLOBAL binlog_row_metadata = 'NO_LOG'"],
         r"binlog_row_metadata.*SET GLOBAL binlog_row_metadata",
         ["SET GLOBAL binlog_row_metadata = 'FULL'"]),
    Case("replication right", ["REVOKE REPLICATION SLAVE ON *.* FROM lockstep@'%'"],
         r"REPLICATION SLAVE.*GRANT", ["GRANT REPLICATION SLAVE ON *.* TO lockstep@'%'"]),
    Case("replica right", ["REVOKE SLAVE MONITOR ON *.* FROM lockstep@'%'"],
         r"SLAVE MONITOR.*GRANT SLAVE MONITOR", ["GRANT SLAVE MONITOR ON *.* TO lockstep@'%'"]),
    Case("replica", ["CHANGE MASTER TO master_host = '127.0.0.1', master_user = 'nobody'"],
         r"replica.*log_slave_updates", ["RESET SLAVE ALL"]),
    Case("running replica", ["CHANGE MASTER TO master_host = '127.0.0.1', master_user = 'nobody'",
                             "START SLAVE SQL_THREAD"],
         r"replicates from another server.*STOP REPLICA", ["STOP SLAVE", "RESET SLAVE ALL"]),
    Case("read-only right", ["REVOKE READ_ONLY ADMIN ON *.* FROM lockstep@'%'"],
         r"READ_ONLY ADMIN", ["GRANT READ_ONLY ADMIN ON *.* TO lockstep@'%'"]),
    Case("MyISAM", ["CREATE TABLE shop.m (id int PRIMARY KEY) ENGINE = MyISAM"],
         r"shop\.m.*MyISAM.*InnoDB", ["DROP TABLE shop.m"]),
    Case("other database", ["CREATE DATABASE other", "CREATE TABLE other.t (id int PRIMARY KEY)"],
         r"other.*whole_server", ["DROP DATABASE other"]),
    Case("event scheduler", ["SET GLOBAL event_scheduler = OFF"],
         r"event.scheduler.*SET GLOBAL event_scheduler", ["SET GLOBAL event_scheduler = ON"]),
    Case("no fence accounts", [], r"fence.*accounts", [], config=""),
    Case("fence accounts of another name", ["RENAME USER app@'%' TO shopkeeper@'%'"],
         r"none of fence\.accounts.*shopkeeper@%.*accounts: \[",
         ["RENAME USER shopkeeper@'%' TO app@'%'"]),
    Case("read only", ["SET GLOBAL read_only = 1"], r"read_only is on.*SET GLOBAL read_only = 0",
         ["SET GLOBAL read_only = 0"]),
    Case("cascade", ["CREATE TABLE shop.c (id int PRIMARY KEY, t int, CONSTRAINT follows FOREIGN KEY"
                     " (t) REFERENCES shop.t (id) ON DELETE CASCADE)"],
         r"shop\.c.*follows", ["DROP TABLE shop.c"]),
    Case("type", ["CREATE TABLE shop.g (id int PRIMARY KEY, place point)"],
         r"shop\.g.*place.*point", ["DROP TABLE shop.g"]),
    Case("charset", ["CREATE TABLE shop.l (id int PRIMARY KEY, v varchar(9) CHARACTER SET latin1)"],
         r"shop\.l.*latin1", ["DROP TABLE shop.l"]),
    Case("zero date", ["SET sql_mode = ''", "CREATE TABLE shop.z (id int PRIMARY KEY, d date)",
                       "INSERT INTO shop.z VALUES (1, '0000-00-00')"],
         r"shop\.z.*0000-00-00|shop\.z.*zero", ["DROP TABLE shop.z"]),
    Case("open XA branch", [], r"XA", [], hold=["XA START 'b'", "INSERT INTO shop.t VALUES (9, 'x')",
                                                "XA END 'b'", "XA PREPARE 'b'"]),
]


class Refusals:
    def __init__(self, args, cleanup):
        self.workdir = Workdir(prefix="lockstep-refusals-")
        cleanup.add(self.workdir.remove)
        self.source = make_end("mariadb", self.workdir.path, "source")
        self.target = make_end("postgres", self.workdir.path, "target")
        for end in (self.source, self.target):
            cleanup.add(end.stop)
            end.start()
        self.source.server.script([TABLE, "INSERT INTO shop.t VALUES (1, 'one')"])
        self.lockstep = Lockstep(args.binary, self.workdir.path / "m", "shop", self.source,
                                 self.target, uris=(self.source.uri(), self.target.uri()))

    def untouched(self):
        left = self.source.leftovers() + self.target.leftovers()
        tables = self.target.query("SELECT 1 FROM pg_tables WHERE schemaname IN ('public', 'shop')")
        return not left and not tables

    def expect(self, case):
        self.lockstep.config(case.config)
        code, out, err = self.lockstep.do("check")
        said = (out + err).replace("\n", " ")
        if code != 3 or not re.search(case.says, said):
            raise Failure(f"{case.name}: check gave {code}, and said:\n{out}{err}\n"
                          f"expected exit 3 and /{case.says}/")
        code, out, err = self.lockstep.do("run", "--until", "caught-up", timeout=60)
        if code != 4 or not self.untouched():
            raise Failure(f"{case.name}: run gave {code}, expected 4 and both sides as they were:\n"
                          f"{out[-1500:]}{err[-1500:]}")
        print(f"{case.name}: refused", flush=True)

    def one(self, case):
        session = None
        if case.make:
            self.source.server.script(case.make)
        if case.hold:
            session = self.source.server.connect()
            with session.cursor() as cur:
                for sql in case.hold:
                    cur.execute(sql)
        try:
            self.expect(case)
        finally:
            if session:
                with session.cursor() as cur:
                    cur.execute("XA ROLLBACK 'b'")
                session.close()
            if case.undo:
                self.source.server.script(case.undo)

    def same_server_id(self):
        """Another replica under our number throws us out: that is said, and once it is gone the
        migration goes on."""
        m, server = self.lockstep, self.source.server
        m.start()
        m.wait_phase(("following",), 60)
        (number, *_), = server.query("SHOW SLAVE HOSTS")
        log = server.value("SHOW MASTER STATUS")
        twin = subprocess.Popen(
            ["mariadb-binlog", "--no-defaults", "-R", "-h127.0.0.1", f"-P{server.port}", "-uroot",
             "--stop-never", f"--stop-never-slave-server-id={number}", log],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until("run ends beside a replica with its server_id", 60, lambda: not m.alive())
        finally:
            twin.kill()
            twin.wait()
        if m.process.returncode != 1 or f"server_id {number}" not in m.tail():
            raise Failure(f"a second server_id {number}: exit {m.process.returncode}:\n{m.tail()}")
        self.source.write("INSERT INTO t VALUES (2, 'two')")
        m.start()
        until("it goes on when the other is gone", 60, lambda: m.must_live() or self.target.query(
            "SELECT 1 FROM t WHERE id = 2"))
        self.monitored()
        m.must("finish", "--abandon", "--yes")
        print("duplicate server_id: said, and it goes on when the other is gone", flush=True)

    def beside_a_monitor(self, *args):
        """On a busy machine a look may fall into a moment in which nobody reads; then again. If all five
        of a prediction did, the fence itself finds no new list, and undoes itself."""
        for _ in range(10):
            code, out, err = self.lockstep.do(*args, timeout=90)
            if code != 0 and not (code == 1 and "no new list of its transactions" in err):
                break
            if code == 0 and "--rehearse" not in args:
                self.lockstep.must("rollback", "--yes", timeout=90)
        if code != 4 or "no new list of its transactions" not in err or "monitor" not in err:
            raise Failure(f"{' '.join(args)} beside a monitor: {code}, {out}{err}")

    def monitored(self):
        """The list of transactions that the server shows is kept while somebody reads it all the
        time: refused while everybody still writes."""
        server = self.source.server

        def read(conn):
            try:
                conn.cursor().execute(READ_ALL_THE_TIME)
            except pymysql.err.MySQLError:
                pass  # ended

        monitors = [server.connect() for _ in range(6)]
        for conn in monitors:
            threading.Thread(target=read, args=(conn,), daemon=True).start()
        self.beside_a_monitor("cutover", "--rehearse")
        self.beside_a_monitor("cutover", "--yes")
        self.source.write("UPDATE t SET v = 'still open' WHERE id = 2")
        server.script([f"KILL {conn.thread_id()}" for conn in monitors])
        self.lockstep.must("cutover", "--yes", timeout=90)
        self.lockstep.must("rollback", "--yes", timeout=90)
        print("a monitor that keeps the list of transactions: refused, and made without it",
              flush=True)

    def limited(self):
        """What `init` writes migrates the database of the URI, not all that the server has."""
        m = self.lockstep
        self.source.server.script(["CREATE DATABASE other", "CREATE TABLE other.t (id int PRIMARY KEY)"])
        m.file.unlink(missing_ok=True)
        m.must("init", self.source.uri(), self.target.uri())
        m.file.write_text(m.file.read_text() + "fence: {whole_server: true, accounts: ['app@%']}\n")
        m.env.update(LOCKSTEP_SOURCE_PASSWORD="lockstep-secret",
                     LOCKSTEP_TARGET_PASSWORD="lockstep-secret")
        planned = m.must("plan")
        if "shop.t" not in planned or "other.t" in planned:
            raise Failure(f"a database in the URI does not limit what init's file migrates:\n{planned}")
        self.source.server.script(["DROP DATABASE other"])
        print("init: the tables of the URI's database", flush=True)

    def go(self):
        self.limited()
        for case in CASES:
            self.one(case)
        server = self.source.server
        server.stop()
        options = dict(server.options)
        del server.options["log-bin"]
        server.options["skip-log-bin"] = None
        server.start()
        self.expect(Case("no binlog", [], r"binlog.*log.bin", []))
        server.stop()
        server.options = options
        server.start()
        self.lockstep.config(FENCE + PATIENT)
        self.lockstep.must("check")
        self.same_server_id()
        self.lockstep.uris = (self.source.uri().replace("lockstep-secret", "wrong"),
                              self.lockstep.uris[1])
        self.lockstep.config(FENCE)
        code, out, err = self.lockstep.do("check")
        if code != 1 and code != 3 or "wrong" in out + err:
            raise Failure(f"wrong password: exit {code}:\n{out}{err}")
        if (out + err).count("source: cannot connect") != 1 or "target" in out + err:
            raise Failure(f"a source that lets nobody in is not told once:\n{out}{err}")
        print(f"{len(CASES) + 3} refusals, each with its remedy, nothing changed")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    args = parser.parse_args()
    args.binary = pathlib.Path(args.binary).resolve()
    Refusals(args, cleanup).go()
    return 0


if __name__ == "__main__":
    guarded(main)
