"""Both ends of a migration as a test sees them, whatever engine they are: started, given the shop and
the roles, asked for rows, compared without lockstep."""

import subprocess
import sys

from . import mysql_server
from .base import Failure, ROOT
from .servers import Server, free_port, make_database, make_roles

sys.path.insert(0, str(ROOT / "tests" / "load"))
import shop_mixed  # noqa: E402

DATABASE = "shop"


class PostgresEnd:
    """The mixed shop stands in the schema `public`."""

    kind = "postgres"
    dialect = shop_mixed.POSTGRES
    schema = "public"

    def __init__(self, workdir, side, settings=None):
        self.side = side
        self.server = Server(workdir, side, settings)

    @property
    def port(self):
        return self.server.port

    def start(self):
        self.server.init()
        self.server.start()
        make_roles(self.server, self.side)
        if self.side == "target":
            # The way back reads this side's log, so it needs what a source needs.
            self.server.psql("postgres", input="ALTER ROLE lockstep REPLICATION")
        else:
            self.server.psql("postgres", input="GRANT SET ON PARAMETER session_replication_role"
                                               " TO lockstep")
        make_database(self.server, self.side, DATABASE)
        self.server.psql("postgres", input="ALTER ROLE app SET timezone = 'UTC'")

    def stop(self):
        self.server.stop("immediate")

    def uri(self):
        return f"postgresql://lockstep:lockstep-secret@127.0.0.1:{self.server.port}/{DATABASE}"

    def dsn(self):
        return (f"host=127.0.0.1 port={self.server.port} dbname={DATABASE} user=app "
                "password=app-secret connect_timeout=5")

    def load(self, statements):
        with self.server.connect(DATABASE, "shop_owner") as conn, conn.cursor() as cur:
            conn.autocommit = True
            cur.execute("SET timezone = 'UTC'")
            for sql in statements:
                cur.execute(sql)
        conn.close()
        self.server.psql(DATABASE, user="shop_owner",
                         input="GRANT ALL ON ALL TABLES IN SCHEMA public TO app;"
                               "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")

    def query(self, sql):
        return self.server.query(sql, DATABASE)

    def write(self, sql):
        """As the application."""
        self.server.query(sql, DATABASE, user="app")

    def digest(self, sql):
        return [*self.server.psql_argv(DATABASE), "-c", "SET timezone = 'UTC'", "-c", sql]

    def leftovers(self):
        left = [f"slot {s}" for (s,) in self.server.query(
            "SELECT slot_name FROM pg_replication_slots")]
        return left + [w for (w,) in self.query("""
            SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'lockstep'
            UNION ALL SELECT 'publication ' || pubname FROM pg_publication
            UNION ALL SELECT 'trigger on ' || tgrelid::regclass FROM pg_trigger
                      WHERE tgname LIKE '!lockstep%%'""")]

    def crash_restart(self):
        self.server.crash_restart()
        self.server.wait_ready()

    def fence(self):
        return ""


class MysqlEnd:
    """MariaDB; MySQL 9 with a prefix made by scripts/fetch-mysql. The shop is the database `shop`."""

    dialect = shop_mixed.MYSQL
    schema = DATABASE

    def __init__(self, workdir, side, options=None, prefix=None):
        self.side = side
        self.kind = "mysql" if prefix else "mariadb"
        number = "11" if side == "source" else "12"
        self.server = mysql_server.MysqlServer(f"{workdir}/{side}", free_port(),
                                               {"server-id": number, **(options or {})}, prefix)

    @property
    def port(self):
        return self.server.port

    def start(self):
        self.server.init()
        self.server.start()
        mysql_server.make_roles(self.server, self.side)
        mysql_server.make_database(self.server, self.side, DATABASE)

    def stop(self):
        self.server.stop(9)

    def uri(self):
        return f"mysql://lockstep:lockstep-secret@127.0.0.1:{self.server.port}/{DATABASE}"

    def dsn(self):
        return f"mysql://app:app-secret@127.0.0.1:{self.server.port}/{DATABASE}"

    def load(self, statements):
        self.server.script(["SET time_zone = '+00:00'", *statements], DATABASE)

    def query(self, sql):
        return self.server.query(sql, DATABASE)

    def write(self, sql):
        """As the application."""
        self.server.query(sql, DATABASE, user="app", password="app-secret")

    def digest(self, sql):
        return ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{self.server.port}", "-uroot", "-N",
                "-B", "-r", "--quick", "--default-character-set=utf8mb4", DATABASE, "-e",
                f"SET time_zone = '+00:00', sort_buffer_size = 67108864; {sql}"]

    def leftovers(self):
        left = [f"database {d}" for (d,) in self.server.query("SHOW DATABASES LIKE 'lockstep'")]
        left += [f"event {e}" for (e,) in self.server.query(
            "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'lockstep'")]
        return left

    def crash_restart(self):
        self.server.crash_restart()

    def fence(self):
        return "fence: {accounts: ['app@%']}\n"


def make_end(kind, workdir, side, prefix=None):
    if kind == "postgres":
        return PostgresEnd(workdir, side)
    return MysqlEnd(workdir, side, prefix=prefix if kind == "mysql" else None)




def _digest(end, table):
    sql = shop_mixed.digest_sql(table, end.dialect, end.schema)
    rows = subprocess.Popen(end.digest(sql), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    summed = subprocess.Popen(["sha256sum"], stdin=rows.stdout, stdout=subprocess.PIPE)
    rows.stdout.close()
    return rows, summed


def differing(source, target):
    """Names of the mixed shop's tables that are not equal on both ends, by sha256 of their rows as
    text, made by the servers and their own clients; and how many tables there are."""
    bad = []
    for table in shop_mixed.TABLES:
        sums = []
        for rows, summed in [_digest(end, table) for end in (source, target)]:
            out = summed.communicate(timeout=600)[0].split()[0].decode()
            trouble = rows.stderr.read().decode()
            rows.stderr.close()
            if rows.wait(60):
                raise Failure(f"{table.name} cannot be read: {trouble.strip()[-500:]}")
            sums.append(out)
        if sums[0] != sums[1]:
            bad.append(table.name)
    return bad, len(shop_mixed.TABLES)


