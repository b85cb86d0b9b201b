"""Private PostgreSQL servers on loopback, run by an unprivileged user."""

import os
import pathlib
import random
import shutil
import socket
import subprocess

import psycopg2

from .base import Failure, as_server_user, server_user, until

# Below the ephemeral range, so that no outgoing connection sits on them.
FIRST_PORT, LAST_PORT = 20200, 32000
GIVEN = set()  # by this process; their servers may not listen yet


def pg_bindir():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    for initdb in reversed(found):
        if initdb.parts[-3] == os.environ.get("LOCKSTEP_PG", "15"):
            return initdb.parent
    raise Failure("no PostgreSQL 15 server programs under /usr/lib/postgresql")


def is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return port not in GIVEN


def free_ports(n):
    """The first of n ports in a row."""
    ports = os.environ.get("LOCKSTEP_PORTS")
    first, last = map(int, ports.split("-")) if ports else (FIRST_PORT, LAST_PORT)
    candidates = list(range(first, last + 2 - n))
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        row = range(port, port + n)
        if all(is_free(p) for p in row):
            GIVEN.update(row)
            return port
    raise Failure(f"no {n} free ports in a row in {first}-{last}")


def free_port():
    return free_ports(1)


class Server:
    """One cluster. The superuser connects through a socket in a folder of mode 0700 only."""

    BASE = {
        "listen_addresses": "127.0.0.1",
        "wal_level": "logical",
        "max_wal_senders": "12",
        "max_replication_slots": "12",
        "max_connections": "120",
        "shared_buffers": "128MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] %u@%d ",
        "log_min_messages": "warning",
        "log_lock_waits": "on",
    }

    def __init__(self, workdir, name, settings=None):
        self.name = name
        self.home = pathlib.Path(workdir) / name
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        self.port = None
        self.settings = dict(self.BASE, **(settings or {}))
        self.bin = pg_bindir()
        self.running = False

    def _make_home(self):
        self.home.mkdir(parents=True)
        user = server_user()
        if user:
            shutil.chown(self.home, user.pw_uid, user.pw_gid)
        self.home.chmod(0o700)

    def init(self):
        self._make_home()
        self._do([self.bin / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8",
                  "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256",
                  "--no-sync"])
        self.configure()

    def init_standby(self, primary):
        """A hot standby of `primary`."""
        self._make_home()
        self._do([self.bin / "pg_basebackup", "-D", self.data, "-h", primary.home, "-p",
                  primary.port, "-U", "postgres", "-R", "--checkpoint=fast"])
        self.configure()

    def configure(self):
        self.port = self.port or free_port()
        lines = dict(self.settings, port=str(self.port), unix_socket_directories=str(self.home))
        text = "".join(f"{k} = '{v}'\n" for k, v in lines.items())
        conf = self.data / "harness.conf"
        conf.write_text(text)
        user = server_user()
        if user:
            shutil.chown(conf, user.pw_uid, user.pw_gid)
        main = self.data / "postgresql.conf"
        if "harness.conf" not in main.read_text():
            with main.open("a") as f:
                f.write("include = 'harness.conf'\n")

    def _do(self, argv, timeout=180):
        done = subprocess.run(as_server_user([str(a) for a in argv]), cwd="/", timeout=timeout,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=dict(os.environ, LC_ALL="C.UTF-8"))
        if done.returncode:
            raise Failure(f"{self.name}: {argv[0]}: {done.stdout.strip()[-2000:]}")

    def pg_ctl(self, *args):
        # The server outlives pg_ctl and would hold a pipe open: its output goes to the log.
        done = subprocess.run(
            as_server_user([str(self.bin / "pg_ctl"), "-D", str(self.data), "-w", "-t", "120",
                            "-l", str(self.log), *args]),
            cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=150, start_new_session=True)
        if done.returncode:
            tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise Failure(f"{self.name}: pg_ctl {' '.join(args)} failed:\n{tail}")

    def start(self):
        self.running = True
        self.pg_ctl("start")

    def stop(self, mode="fast"):
        if self.running:
            self.running = False
            self.pg_ctl("stop", "-m", mode)

    def crash_restart(self):
        """As after a power cut: nothing is flushed, recovery runs."""
        self.pg_ctl("restart", "-m", "immediate")

    def connect(self, database="postgres", user="postgres"):
        """As superuser, or trusted as any role, through the private socket."""
        conn = psycopg2.connect(host=str(self.home), port=self.port, dbname=database, user=user)
        conn.autocommit = True
        return conn

    def query(self, sql, database="postgres", args=None, user="postgres"):
        conn = self.connect(database, user)
        try:
            with conn.cursor() as cur:
                cur.execute(sql, args)
                return cur.fetchall() if cur.description else []
        finally:
            conn.close()

    def value(self, sql, database="postgres", args=None):
        return self.query(sql, database, args)[0][0]

    def psql(self, database, *args, user="postgres", input=None, quiet=True, timeout=600):
        done = subprocess.run(
            [str(self.bin / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.home),
             "-p", str(self.port), "-U", user, "-d", database, *args],
            input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            timeout=timeout)
        if done.returncode:
            raise Failure(f"{self.name}: psql {' '.join(args)}: {done.stderr.strip()[-3000:]}")
        return done.stdout

    def pgbench_init(self, database, scale):
        """pgbench's tables, owned by shop_owner; its history has no key, so it gets full identity."""
        done = subprocess.run([str(self.bin / "pgbench"), "-i", "-q", "-s", str(scale), "-h",
                               str(self.home), "-p", str(self.port), "-U", "shop_owner", database],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=600)
        if done.returncode:
            raise Failure(f"pgbench: {done.stdout[-1000:]}")
        self.psql(database, user="shop_owner",
                  input="ALTER TABLE pgbench_history REPLICA IDENTITY FULL;"
                        "GRANT ALL ON ALL TABLES IN SCHEMA public TO app")

    def psql_argv(self, database):
        return [str(self.bin / "psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h",
                str(self.home), "-p", str(self.port), "-U", "postgres", "-d", database]

    def wait_ready(self, seconds=60):
        def ready():
            try:
                return self.value("SELECT 1") == 1
            except psycopg2.Error:
                return False
        until(f"{self.name} answers", seconds, ready)


def make_roles(server, side):
    """The least that lockstep needs, and an application that has no more than it needs."""
    server.psql("postgres", input="""
        CREATE ROLE shop_owner LOGIN PASSWORD 'owner-secret';
        CREATE ROLE app LOGIN PASSWORD 'app-secret';
        CREATE ROLE lockstep LOGIN %s PASSWORD 'lockstep-secret';
    """ % ("REPLICATION" if side == "source" else ""))
    if side == "source":
        server.psql("postgres", input="GRANT shop_owner, pg_signal_backend TO lockstep")
    else:
        server.psql("postgres", input="GRANT pg_signal_backend TO lockstep;"
                    "GRANT SET ON PARAMETER session_replication_role TO lockstep")


def make_database(server, side, name, template=None):
    """A database as its owner would have prepared it for lockstep (docs: the rights it needs)."""
    owner = "shop_owner" if side == "source" else "postgres"
    server.psql("postgres", input=f'CREATE DATABASE "{name}" OWNER {owner}')
    server.psql("postgres", input=f'GRANT CREATE ON DATABASE "{name}" TO lockstep')
    if side == "target":
        server.psql(name, input="""
            GRANT CREATE ON SCHEMA public TO lockstep WITH GRANT OPTION;
            ALTER DEFAULT PRIVILEGES FOR ROLE lockstep GRANT USAGE ON SCHEMAS TO app;
            ALTER DEFAULT PRIVILEGES FOR ROLE lockstep GRANT ALL ON TABLES TO app;
            ALTER DEFAULT PRIVILEGES FOR ROLE lockstep GRANT ALL ON SEQUENCES TO app;
            GRANT USAGE ON SCHEMA public TO app;
        """)


def drop_database(server, name):
    for (slot,) in server.query("SELECT slot_name FROM pg_replication_slots WHERE database = %s",
                                args=(name,)):
        server.query("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                     "WHERE slot_name = %s AND active", args=(slot,))
        until(f"slot {slot} is dropped", 20, lambda s=slot: _drop_slot(server, s))
    server.psql("postgres", input=f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _drop_slot(server, slot):
    try:
        server.query("SELECT pg_drop_replication_slot(%s)", args=(slot,))
    except psycopg2.errors.UndefinedObject:
        return True
    except psycopg2.errors.ObjectInUse:
        return False
    return True
