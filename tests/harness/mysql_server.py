"""A private MariaDB server on loopback (or MySQL 9, from a prefix made by scripts/fetch-mysql).

As a program: mysql_server.py start DIR PORT | crash DIR PORT | stop DIR  (tests/with_mariadb)."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import sys
import time

BASE_OPTIONS = {
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "binlog-row-metadata": "FULL",
    "server-id": "1",
    "event-scheduler": "ON",
    "innodb-buffer-pool-size": "64M",
    "max-allowed-packet": "256M",
    "skip-name-resolve": None,
}
MARIADB_OPTIONS = {"innodb-log-file-size": "64M", "performance-schema": "ON"}
MYSQL_OPTIONS = {"gtid-mode": "ON", "enforce-gtid-consistency": "ON", "mysqlx": "OFF",
                 "innodb-redo-log-capacity": "64M", "secure-file-priv": ""}


class MysqlServer:
    """One server with its data in `home`. root needs no password, from this machine only."""

    def __init__(self, home, port, options=None, prefix=None):
        self.home = pathlib.Path(home)
        self.port = int(port)
        self.prefix = pathlib.Path(prefix) if prefix else None
        self.log = self.home / "server.log"
        self.pidfile = self.home / "pid"
        self.socket = self.home / "s.sock"
        more = MYSQL_OPTIONS if self.prefix else MARIADB_OPTIONS
        self.options = dict(BASE_OPTIONS, **more, **(options or {}))

    @property
    def maria(self):
        return self.prefix is None

    def _user(self):
        if os.geteuid() != 0:
            return None
        return "mysql" if self.maria else "root"

    def _program(self):
        """MySQL's own loader and libraries stay inside its prefix: the machine's are older."""
        if self.maria:
            return ["/usr/sbin/mariadbd"]
        lib = self.prefix / "usr/lib/x86_64-linux-gnu"
        return [str(lib / "ld-linux-x86-64.so.2"), "--library-path",
                f"{lib}:{self.prefix}/usr/lib/mysql/private", str(self.prefix / "usr/sbin/mysqld")]

    def _place(self):
        place = [f"--datadir={self.home}/data", f"--socket={self.socket}",
                 f"--pid-file={self.pidfile}", f"--log-error={self.log}",
                 f"--tmpdir={self.home}/tmp"]
        if self._user():
            place.append(f"--user={self._user()}")
        if not self.maria:
            usr = self.prefix / "usr"
            place += [f"--basedir={usr}", f"--lc-messages-dir={usr}/share/mysql",
                      f"--character-sets-dir={usr}/share/mysql/charsets",
                      f"--plugin-dir={usr}/lib/mysql/plugin"]
        return place

    def _defaults(self):
        """MySQL forgets SET PERSIST with --no-defaults, so it gets an empty file."""
        empty = self.home / "empty.cnf"
        empty.write_text("[mysqld]\n")
        return f"--defaults-file={empty}"

    def init(self):
        self.home.mkdir(parents=True, exist_ok=True)
        if self._user() == "mysql":
            mysql = pwd.getpwnam("mysql")
            shutil.chown(self.home, mysql.pw_uid, mysql.pw_gid)
        self.home.chmod(0o755)
        # A server that starts removes all temporary tables from its tmpdir, those of others too.
        tmp = self.home / "tmp"
        tmp.mkdir(exist_ok=True)
        tmp.chmod(0o1777)
        if self.maria:
            argv = ["mariadb-install-db", self._defaults(), f"--datadir={self.home}/data",
                    f"--tmpdir={tmp}", "--skip-test-db",
                    "--auth-root-authentication-method=normal", "--skip-name-resolve"]
            if self._user():
                argv.append(f"--user={self._user()}")
        else:
            # Without name resolution root@localhost is the socket's alone.
            (self.home / "init.sql").write_text(
                "CREATE USER root@'127.0.0.1';\n"
                "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n")
            argv = self._program() + [self._defaults()] + self._place() + [
                "--initialize-insecure", "--innodb-redo-log-capacity=8M",
                f"--init-file={self.home}/init.sql"]
        done = subprocess.run(argv, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=180)
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: {done.stdout[-2000:]}\n{self._tail()}")

    def _tail(self):
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def start(self, timeout=120):
        flags = [f"--{k}" if v is None else f"--{k}={v}" for k, v in self.options.items()]
        argv = (self._program() + [self._defaults()] + self._place() +
                [f"--port={self.port}", "--bind-address=127.0.0.1"] + flags)
        # MySQL asks whether the pid in its lock file lives, and takes one that nobody reaped for it.
        for left in (self.pidfile, pathlib.Path(f"{self.socket}.lock")):
            left.unlink(missing_ok=True)
        child = subprocess.Popen(argv, cwd="/", stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 start_new_session=True)
        (self.home / "child").write_text(str(child.pid))
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if child.poll() is not None:
                raise RuntimeError(f"the server ended at once:\n{self._tail()}")
            if self.pidfile.exists() and self.ready():
                return
            time.sleep(0.05)
        self.stop(signal.SIGKILL)
        raise RuntimeError(f"the server did not answer within {timeout} s:\n{self._tail()}")

    def ready(self):
        try:
            self.connect().close()
            return True
        except Exception:  # whatever the driver says: not yet
            return False

    def pid(self):
        return int((self.home / "child").read_text())

    def stop(self, sig=signal.SIGTERM, timeout=60):
        if not (self.home / "child").exists():
            return
        pid = self.pid()
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass
        end = time.monotonic() + timeout
        while time.monotonic() < end and self._alive(pid):
            time.sleep(0.05)
        if self._alive(pid):
            os.kill(pid, signal.SIGKILL)
        (self.home / "child").unlink()

    @staticmethod
    def _alive(pid):
        try:
            done, _ = os.waitpid(pid, os.WNOHANG)
            if done:
                return False
        except ChildProcessError:
            pass
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, IndexError, ProcessLookupError):
            return False

    def crash_restart(self):
        """As after a power cut of the process: kill -9, then recovery."""
        self.stop(signal.SIGKILL)
        self.start()

    def connect(self, database=None, user="root", password=""):
        import pymysql
        return pymysql.connect(host="127.0.0.1", port=self.port, user=user, password=password,
                               database=database, autocommit=True, charset="utf8mb4")

    def query(self, sql, database=None, args=None, user="root", password=""):
        conn = self.connect(database, user, password)
        try:
            with conn.cursor() as cur:
                cur.execute(sql, args)
                return list(cur.fetchall())
        finally:
            conn.close()

    def script(self, statements, database=None, user="root", password=""):
        """Statements, in one session."""
        conn = self.connect(database, user, password)
        try:
            with conn.cursor() as cur:
                for sql in statements:
                    cur.execute(sql)
        finally:
            conn.close()

    def value(self, sql, database=None, args=None):
        return self.query(sql, database, args)[0][0]


# The least that lockstep needs on either side: the way back makes a source of the target.
MARIADB_RIGHTS = ("REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, READ_ONLY ADMIN, "
                  "CONNECTION ADMIN, RELOAD, PROCESS, SHOW DATABASES, CREATE USER",
                  ["mysql.global_priv", "mysql.proc", "mysql.event", "mysql.db", "mysql.tables_priv"])
MYSQL_RIGHTS = ("REPLICATION SLAVE, REPLICATION CLIENT, SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN, "
                "XA_RECOVER_ADMIN, RELOAD, PROCESS, SHOW DATABASES, CREATE USER, SHOW_ROUTINE, EVENT",
                ["mysql.user", "mysql.global_grants", "mysql.db", "mysql.tables_priv"])


def make_roles(server, side):
    """lockstep's account with no more than it needs, and an application's."""
    rights, tables = MARIADB_RIGHTS if server.maria else MYSQL_RIGHTS
    server.script([
        "CREATE USER lockstep@'%' IDENTIFIED BY 'lockstep-secret'",
        f"GRANT {rights} ON *.* TO lockstep@'%'",
        *(f"GRANT SELECT ON {table} TO lockstep@'%'" for table in tables),
        "GRANT ALL ON lockstep.* TO lockstep@'%'",
        "CREATE USER app@'%' IDENTIFIED BY 'app-secret'",
    ])


def make_database(server, side, name):
    """A database as its owner would have prepared it for lockstep (docs: the rights it needs)."""
    server.script([
        f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4",
        f"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, TRIGGER ON "
        f"`{name}`.* TO lockstep@'%'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{name}`.* TO app@'%'",
    ])


def main(argv):
    home = pathlib.Path(argv[2])
    options = {}
    for word in os.environ.get("MY_OPTS", "").split():
        name, _, value = word.lstrip("-").partition("=")
        options[name] = value or None
    options.setdefault("innodb-flush-log-at-trx-commit", "0")
    options.setdefault("sync-binlog", "0")
    if argv[1] == "start":
        server = MysqlServer(home, argv[3], options, os.environ.get("MYSQL_PREFIX"))
        server.init()
        server.start()
    elif argv[1] == "crash":
        MysqlServer(home, argv[3], options, os.environ.get("MYSQL_PREFIX")).crash_restart()
    else:
        MysqlServer(home, 0).stop()


if __name__ == "__main__":
    main(sys.argv)
