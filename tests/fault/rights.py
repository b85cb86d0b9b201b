#!/usr/bin/python3
"""What docs/rights.md and docs/cutover.md grant is enough, and what is not carried is carried by the
commands that `check` names: a pair of servers of one engine whose accounts are made by the pages'
statements, a migration, the switch, the way back, and what stands beside the tables.

    rights.py --binary FILE [--prefix DIR]      (with --prefix also between two servers of MySQL)
"""

import argparse
import pathlib
import re
import subprocess
import sys

import psycopg2
import pymysql

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import ROOT, Failure, Workdir, guarded  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

POSTGRES_OBJECTS = [
    "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'one')",
    "CREATE TABLE left_out (id int PRIMARY KEY)",
    "CREATE VIEW \"a View\" AS SELECT id FROM t",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM t",
    "CREATE SEQUENCE tickets", "SELECT setval('tickets', 41)",
    "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'"]
MYSQL_OBJECTS = [
    "CREATE TABLE t (id int PRIMARY KEY, v varchar(20) CHARACTER SET utf8mb4)",
    "INSERT INTO t VALUES (1, 'one')", "CREATE VIEW `a View` AS SELECT id FROM t",
    "CREATE FUNCTION twice(n int) RETURNS int DETERMINISTIC RETURN 2 * n",
    "CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO SELECT 1",
    "CREATE TRIGGER loud BEFORE INSERT ON t FOR EACH ROW SET NEW.v = upper(NEW.v)"]
# What must be there in the end, by a statement that fails without it.
POSTGRES_SEEN = ['SELECT id FROM "a View"', "SELECT n FROM counted", "SELECT nextval('tickets')",
                 "SELECT twice(21)"]
MYSQL_SEEN = ["SELECT id FROM `a View`", "SELECT twice(21)"]


def block(page, heading):
    """The statements of the first SQL block behind these words, without remarks."""
    text = (ROOT / "docs" / page).read_text()
    sql = re.search(re.escape(heading) + r".*?```sql\n(.*?)```", text, re.S)
    if not sql:
        raise Failure(f"docs/{page} has no statements behind {heading!r}")
    lines = [re.sub(r"\s*--.*", "", line) for line in sql.group(1).splitlines()]
    return [s.strip() for s in " ".join(lines).split(";") if s.strip()]


class Postgres:
    kind = "postgres"
    objects, seen = POSTGRES_OBJECTS, POSTGRES_SEEN
    applications = "For PostgreSQL, "
    tables = "tables: {include: [public.t]}\n"
    back = True
    refused = psycopg2.Error

    def make_account(self, end):
        """lockstep's role as the page has it, and an application that has nothing but its login."""
        server = end.server
        for role in ("lockstep", "app"):
            server.psql("shop", input=f"DROP OWNED BY {role}; DROP ROLE {role}")
        server.psql("shop", input="CREATE ROLE app LOGIN PASSWORD 'app-secret'")
        server.psql("shop", input=";".join(block("rights.md", f"## PostgreSQL, {end.side}\n")))

    def grant(self, end, statements):
        end.server.psql("shop", input=";".join(statements))

    def command(self, text, source, target):
        for word, end in (("SOURCE", source), ("TARGET", target)):
            text = text.replace(f"-d {word}", f"-d 'host={end.server.home} port={end.port}"
                                              " dbname=shop user=postgres'")
        return text

    def look(self, end, sql):
        return end.query(sql)


class Mysql:
    kind = "mariadb"
    objects, seen = MYSQL_OBJECTS, MYSQL_SEEN
    applications = "For MariaDB and MySQL"
    tables = ""
    back = False  # a trigger on the source would fire on what comes back
    refused = pymysql.err.MySQLError

    def __init__(self, prefix=None):
        self.prefix = prefix
        self.kind = "mysql" if prefix else "mariadb"

    def make_account(self, end):
        page = "## MySQL\n" if self.prefix else "## MariaDB\n"
        end.server.script(["DROP USER lockstep@'%'", *block("rights.md", page)])
        if end.side == "target":
            end.server.script(["REVOKE ALL, GRANT OPTION FROM app@'%'"])

    def grant(self, end, statements):
        end.server.script(statements)

    def command(self, text, source, target):
        text = text.replace(" of the source", "").replace(" of the target", "")
        for program, end in (("mysqldump", source), ("mysql", target)):
            text = re.sub(rf"\b{program} ", f"{program} --no-defaults -h127.0.0.1 -P{end.port} -uroot ",
                          text)
        return text

    def look(self, end, sql):
        return end.query(sql)


class Rights:
    def __init__(self, args, cleanup, engine):
        self.engine = engine
        self.workdir = Workdir(prefix="lockstep-rights-")
        cleanup.add(self.workdir.remove)
        self.source, self.target = (make_end(engine.kind, self.workdir.path, side, args.prefix)
                                    for side in ("source", "target"))
        for end in (self.source, self.target):
            cleanup.add(end.stop)
            end.start()
            engine.make_account(end)
        self.lockstep = Lockstep(args.binary, self.workdir.path / "m", "shop", self.source,
                                 self.target, uris=(self.source.uri(), self.target.uri()))
        cleanup.add(self.lockstep.kill)
        self.lockstep.config(self.source.fence() + engine.tables)

    def check(self):
        """(what, remedy) of its warnings."""
        return re.findall(r"^warning ([^\n]*)\n +→ ([^\n]*)", self.lockstep.must("check"), re.M)

    def rights_missing(self):
        return [w for w, _ in self.check() if "the applications are refused" in w]

    def carry(self, found, when):
        """Runs the commands that are to be said then."""
        done = 0
        for what, remedy in found:
            command, told, _ = remedy.partition(", " + when)
            if "not carried" not in what or not told or \
                    not re.match(r"(pg_dump|psql|mysqldump) ", command):
                continue
            shell = self.engine.command(command, self.source, self.target)
            ran = subprocess.run(["bash", "-c", f"set -o pipefail; {shell}"], text=True,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, timeout=60)
            if ran.returncode or "ERROR" in ran.stdout:
                raise Failure(f"{command}: exit {ran.returncode}\n{ran.stdout}")
            done += 1
        return done

    def write(self, end, number):
        end.write(f"INSERT INTO t VALUES ({number}, 'by the application')")

    def go(self):
        engine, m = self.engine, self.lockstep
        self.source.load(engine.objects)
        if not self.rights_missing():
            raise Failure("check does not say that the applications have no rights on the target")
        m.start()
        m.wait_phase(("following",), 60)
        found = self.check()
        if not self.rights_missing():
            raise Failure("check does not say that the applications have no rights on the tables")
        engine.grant(self.target, block("cutover.md", engine.applications))
        if self.rights_missing():
            raise Failure("the rights of docs/cutover.md are not enough for check")
        carried = sum(self.carry(found, when) for when in ("once the tables are there",
                                                           "before the switch"))
        m.must("cutover", "--yes", "--max-pause", "60s", timeout=120)
        carried += self.carry(found, "behind the switch")
        for sql in engine.seen:
            engine.look(self.target, sql)
        self.write(self.target, 2)
        if engine.back:
            m.must("rollback", "--yes", "--max-pause", "60s", timeout=120)
            if not self.source.query("SELECT 1 FROM t WHERE id = 2"):
                raise Failure("what the application wrote on the target is not on the source")
        m.must("finish", "--yes", *(["--abandon"] if engine.back else []))
        carried += self.carry(found, "after lockstep finish")
        print(f"{engine.kind}: the pages' rights are enough, {carried} commands carry what is not",
              flush=True)
        if carried < len(engine.seen):
            raise Failure(f"only {carried} commands were told: {found}")


def main(cleanup):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--prefix")
    args = parser.parse_args()
    args.binary = pathlib.Path(args.binary).resolve()
    engines = [Postgres(), Mysql()] + ([Mysql(args.prefix)] if args.prefix else [])
    for engine in engines:
        Rights(args, cleanup, engine).go()
    print(f"{len(engines)} pairs of servers with the rights of the pages")
    return 0


if __name__ == "__main__":
    guarded(main)
