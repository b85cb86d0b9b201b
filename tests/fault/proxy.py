#!/usr/bin/python3
"""The switch in stages, behind real proxies: PgBouncer and HAProxy, moved by the scripts of
docs/proxies as they stand there. Clients know nothing but the proxies: one address to write through,
one to read through. Reads go ahead, come back, go ahead again; then the writes; then all of it the
other way round. Whoever waits with its token sees its write, each time; no acknowledged write is lost.

    proxy.py --binary FILE [--keep]
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import psycopg2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import (ROOT, Failure, Workdir, as_server_user, guarded,  # noqa: E402
                          mono_ms, server_user, until)
from harness.lockstep import Lockstep  # noqa: E402
from harness.servers import Server, free_port, make_database, make_roles  # noqa: E402
from harness.switch import conduct  # noqa: E402

WRITERS, SEEN, CONTROL = 3, 52, 15
HELD_S = 0.1  # that apply is held up behind each of those writes
WAITS = 32  # observe/waits.h
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.receipts (client int, n int, PRIMARY KEY (client, n));
CREATE TABLE shop.notes (id int PRIMARY KEY, text text);
CREATE TABLE shop.other (id int PRIMARY KEY);
GRANT USAGE ON SCHEMA shop TO app;
GRANT ALL ON ALL TABLES IN SCHEMA shop TO app;
"""
PGBOUNCER = """[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
admin_users = pgbouncer
pool_mode = transaction
server_connect_timeout = 5
server_login_retry = 1
logfile = {folder}/pgbouncer.log
%include {folder}/databases.ini
"""
HAPROXY = """global
    stats socket {folder}/admin.sock mode 600 level admin
    server-state-file {folder}/state
defaults
    mode tcp
    load-server-state-from-file global
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen writes
    bind 127.0.0.1:{writes}
    server source 127.0.0.1:{source}
    server target 127.0.0.1:{target} disabled
listen reads
    bind 127.0.0.1:{reads}
    server source 127.0.0.1:{source}
    server target 127.0.0.1:{target} disabled
"""
# What a client of a proxy may see in a switch; it connects anew and tries again. PgBouncer tells its
# own troubles with 08P01 and 57P01, or cuts the connection.
CLEAR = ("40001", "40P01", "25006", "57P01", "57P02", "57P03", "08P01", "08006", "connection")


class Proxy:
    def __init__(self, folder, name):
        self.folder = folder / name
        self.folder.mkdir()
        self.process = None
        user = server_user()
        if user:
            os.chown(self.folder, user.pw_uid, user.pw_gid)

    def start(self, argv):
        with (self.folder / "out.log").open("wb") as log:
            self.process = subprocess.Popen(as_server_user(argv), cwd=self.folder, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL)

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def must_live(self):
        if self.process.poll() is not None:
            raise Failure(f"the proxy ended: {(self.folder / 'out.log').read_text()[-1000:]}")


class PgBouncer(Proxy):
    def __init__(self, folder, source, target):
        super().__init__(folder, "pgbouncer")
        self.ports = {"writes": free_port()}
        self.ports["reads"] = self.ports["writes"]
        (self.folder / "pgbouncer.ini").write_text(
            PGBOUNCER.format(folder=self.folder, port=self.ports["writes"]))
        (self.folder / "users.txt").write_text(
            '"app" "app-secret"\n"pgbouncer" "console-secret"\n')
        (self.folder / "databases.ini").write_text(
            "[databases]\n"
            f"shop = host=127.0.0.1 port={source.port} dbname=shop\n"
            f"shop_read = host=127.0.0.1 port={source.port} dbname=shop\n"
            f"elsewhere = host=127.0.0.1 port={source.port} dbname=postgres\n")
        self.env = {
            "PGBOUNCER_SOURCE": f"host=127.0.0.1 port={source.port}",
            "PGBOUNCER_TARGET": f"host=127.0.0.1 port={target.port}",
            "PGBOUNCER_DATABASES": str(self.folder / "databases.ini"),
            "PGBOUNCER_CONSOLE": f"host=127.0.0.1 port={self.ports['writes']} user=pgbouncer "
                                 "dbname=pgbouncer"}

    def dsn(self, what):
        database = "shop" if what == "writes" else "shop_read"
        return (f"host=127.0.0.1 port={self.ports[what]} dbname={database} user=app "
                "password=app-secret connect_timeout=5")

    def begin(self):
        self.start(["/usr/sbin/pgbouncer", str(self.folder / "pgbouncer.ini")])


class HAProxy(Proxy):
    def __init__(self, folder, source, target):
        super().__init__(folder, "haproxy")
        self.ports = {"writes": free_port()}
        self.ports["reads"] = free_port()
        (self.folder / "haproxy.cfg").write_text(HAPROXY.format(
            folder=self.folder, source=source.port, target=target.port, **self.ports))
        self.env = {"HAPROXY_SOCKET": str(self.folder / "admin.sock"),
                    "HAPROXY_STATE": str(self.folder / "state")}

    def dsn(self, what):
        return (f"host=127.0.0.1 port={self.ports[what]} dbname=shop user=app password=app-secret "
                "connect_timeout=5")

    def begin(self):
        self.start(["/usr/sbin/haproxy", "-f", str(self.folder / "haproxy.cfg"), "-db"])


class Writer:
    """Numbered receipts through one proxy, one in each transaction; what is acknowledged is kept."""

    def __init__(self, client, dsn, over):
        self.client, self.dsn, self.over = client, dsn, over
        self.acknowledged, self.times, self.codes = set(), [], set()
        self.doubts, self.trouble = 0, None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        conn, n = None, 0
        while not self.over.is_set():
            n += 1
            try:
                if conn is None:
                    conn = psycopg2.connect(self.dsn)
                with conn.cursor() as cur:
                    cur.execute("INSERT INTO shop.receipts VALUES (%s, %s)", (self.client, n))
                conn.commit()
                self.acknowledged.add((self.client, n))
                self.times.append(mono_ms())
                time.sleep(0.02)
            except psycopg2.Error as e:
                code = e.pgcode or "connection"
                self.codes.add(code)
                self.doubts += code not in ("40001", "25006")
                if code not in CLEAR:
                    self.trouble = f"{code}: {e}"
                    return
                conn = self.recover(conn, code)
                self.over.wait(0.01)
        if conn is not None:
            conn.close()

    @staticmethod
    def recover(conn, code):
        """Refused: again on the same connection. Else a new one."""
        if conn is None:
            return None
        try:
            if code in ("40001", "25006") and not conn.closed:
                conn.rollback()
                return conn
        except psycopg2.Error:
            pass
        conn.close()
        return None

    def gap(self, since):
        times = [t for t in self.times if t >= since - 1000]
        return max((b - a for a, b in zip(times, times[1:])), default=0)


class Test:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(None, "lockstep-proxy-")
        self.began = time.monotonic()
        self.note = 0

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    @staticmethod
    def must(what, got, *wanted):
        if got not in wanted:
            raise Failure(f"{what}: {got!r}, expected {' or '.join(map(repr, wanted))}")

    # ---- set-up ----

    def set_up(self):
        servers = []
        for side in ("source", "target"):
            server = Server(self.workdir.path, side)
            self.cleanup.add(lambda s=server: s.stop("immediate"))
            server.init()
            server.start()
            make_roles(server, side)
            make_database(server, side, "shop")
            servers.append(server)
        self.source, self.target = servers
        self.source.psql("postgres", input="GRANT SET ON PARAMETER session_replication_role"
                         " TO lockstep")
        self.target.psql("postgres", input="ALTER ROLE lockstep REPLICATION")
        self.source.psql("shop", user="shop_owner", input=SCHEMA)
        self.lockstep = Lockstep(self.args.binary, self.workdir.path / "migration", "shop",
                                 self.source, self.target)
        self.cleanup.add(self.lockstep.end)
        bouncer, haproxy = (ROOT / "docs/proxies" / name
                            for name in ("pgbouncer.sh", "haproxy.sh"))
        hook = self.lockstep.folder / "switch.sh"
        hook.write_text("#!/bin/sh\ntest ! -e hook.fails || exit 1\n"
                        f"env | grep ^LOCKSTEP_ >>hook.env\n{bouncer} & first=$!\n"
                        f"{haproxy} && wait $first\n")
        hook.chmod(0o700)
        self.lockstep.config(
            "tables: {include: [shop.*]}\n"
            "cutover: {max_pause: 30s, on_switch: ./switch.sh}\n")
        self.proxies()
        with self.lockstep.passfile.open("a") as f:
            f.write("127.0.0.1:*:*:pgbouncer:console-secret\n")

    def proxies(self):
        self.bouncer = PgBouncer(self.workdir.path, self.source, self.target)
        self.haproxy = HAProxy(self.workdir.path, self.source, self.target)
        for proxy in (self.bouncer, self.haproxy):
            proxy.begin()
            self.cleanup.add(proxy.stop)
            self.lockstep.env.update(proxy.env)
        until("both proxies lead to the source", 20, lambda: self.where() == ["source"] * 4)
        self.over = threading.Event()
        self.cleanup.add(self.over.set)
        self.writers = [Writer(i, proxy.dsn("writes"), self.over) for i, proxy in enumerate(
            [self.bouncer] * (WRITERS - 1) + [self.haproxy])]

    def where(self):
        """Where each proxy leads to: writes, reads of PgBouncer; writes, reads of HAProxy."""
        sides = {self.source.port: "source", self.target.port: "target"}
        found = []
        for proxy in (self.bouncer, self.haproxy):
            proxy.must_live()
            for what in ("writes", "reads"):
                try:
                    found.append(sides[self.ask(proxy.dsn(what), "SELECT inet_server_port()")])
                except psycopg2.Error as e:
                    found.append(e.pgcode or "connection")
        return found

    def answered(self):
        """As where(), once there are no errors in it: a wrong side is one at once."""
        got = self.where()
        return got if set(got) <= {"source", "target"} else None

    @staticmethod
    def ask(dsn, sql):
        conn = psycopg2.connect(dsn)
        try:
            conn.autocommit = True
            with conn.cursor() as cur:
                cur.execute(sql)
                return cur.fetchone()[0]
        finally:
            conn.close()

    def leads(self, what, writes, reads):
        got = until(f"{what}: the proxies answer", 20, self.answered)
        self.must(f"{what}: where the proxies lead to", got, [writes, reads] * 2)
        status = self.lockstep.must_status()
        self.must(f"{what}: reads in the status", status["reads"], reads)

    def follow(self):
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 60)
        self.target.psql("shop", input="GRANT USAGE ON SCHEMA shop TO app;"
                         "GRANT ALL ON ALL TABLES IN SCHEMA shop TO app")
        until("the page is served", 20, self.served)

    def served(self):
        found = re.search(r"url=http://127\.0\.0\.1:(\d+)/", self.lockstep.tail(100_000))
        self.port = found and int(found[1])
        return self.port

    def get(self, path, **arguments):
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            conn.request("GET", f"{path}?{urllib.parse.urlencode(arguments)}")
            response = conn.getresponse()
            return response.status, json.loads(response.read())
        finally:
            conn.close()

    def do(self, *args, status=0, answer=None):
        code, out, err = self.lockstep.do(*args, "--yes", "--json", timeout=90)
        self.must(f"lockstep {' '.join(args)} ({err or out})", code, status)
        found = json.loads(out)
        for key, value in (answer or {}).items():
            self.must(f"{key} of lockstep {' '.join(args)}", found.get(key), value)
        return found

    # ---- reads of what one wrote ----

    def write(self, conn):
        """A row, and a token behind its commit: on the same connection, through PgBouncer."""
        self.note += 1
        with conn.cursor() as cur:
            cur.execute("INSERT INTO shop.notes VALUES (%s, 'x')", (self.note,))
            conn.commit()
            cur.execute("SELECT pg_current_wal_insert_lsn()::text")
            token = cur.fetchone()[0]
            conn.commit()
        return self.note, token

    @staticmethod
    def sees(conn, note):
        with conn.cursor() as cur:
            cur.execute("SELECT count(*) FROM shop.notes WHERE id = %s", (note,))
            found = cur.fetchone()[0]
        conn.commit()
        return found == 1

    def waits(self, token, i):
        """In each of the ways that there are."""
        if i % 4 == 0:
            self.lockstep.must("wait", token, "--timeout", "20s")
        elif i % 4 == 1:
            self.must("/wait", self.get("/wait", position=token, timeout_ms=20000)[0], 200)
        elif i % 4 == 2:
            status, found = self.get("/position")
            self.must("/position", status, 200)
            self.must("/wait", self.get("/wait", position=found["position"],
                                        timeout_ms=20000)[0], 200)
        else:
            self.lockstep.must("wait", "--timeout", "20s")

    def reads_its_writes(self, what, times, read):
        writes = psycopg2.connect(self.bouncer.dsn("writes"))
        reads = psycopg2.connect(self.bouncer.dsn("reads"))
        lock = read.connect("shop")
        lock.autocommit = False
        # The control: without waiting, reads miss what was written, or this test proves nothing.
        missed = 0
        for _ in range(CONTROL):
            self.lock_checkpoint(lock)
            missed += not self.sees(reads, self.write(writes)[0])
            lock.rollback()
        if missed == 0:
            raise Failure(f"{what}: also without waiting each of {CONTROL} reads saw its write")
        for i in range(times):
            # Apply is held up for a moment: else asking alone might take long enough.
            self.lock_checkpoint(lock)
            note, token = self.write(writes)
            release = threading.Timer(HELD_S, lock.rollback)
            release.start()
            self.waits(token, i)
            release.join()
            if not self.sees(reads, note):
                raise Failure(f"{what}: waited for {token}, and the read does not see row {note} "
                              f"(way {i % 4})")
        for conn in (lock, writes, reads):
            conn.close()
        self.say(f"{what}: {times} of {times} reads behind a wait saw their write; without one "
                 f"{missed} of {CONTROL} did not")

    def crowd_waits(self, token):
        """How many of more than may wait were told what."""
        codes = []
        many = [threading.Thread(target=lambda: codes.append(
            self.get("/wait", position=token, timeout_ms=2000)[0])) for _ in range(WAITS + 10)]
        for t in many:
            t.start()
        for t in many:
            t.join(60)
        return {code: codes.count(code) for code in set(codes)}

    def waits_in_vain(self):
        """Apply stands still: nobody is told that it is reached, and nobody exhausts us."""
        writes = psycopg2.connect(self.bouncer.dsn("writes"))
        lock = self.target.connect("shop")
        lock.autocommit = False
        self.lock_checkpoint(lock)
        token = self.write(writes)[1]
        found = self.do("wait", token, "--timeout", "300ms", status=75, answer={"reached": False})
        self.must("position", found["position"], token)
        status, found = self.get("/wait", position=token, timeout_ms=300)
        self.must("/wait while nothing is applied", (status, found["reached"]), (504, False))
        for left in (2, 1, 0):  # "at once" is not for a machine that stands still
            counts = self.crowd_waits(token)
            if counts.get(503, 0) >= 1 and counts.get(504, 0) == WAITS:
                break
            if not left or set(counts) - {503, 504}:
                raise Failure(f"{WAITS + 10} who wait at once: {counts}, expected {WAITS} times 504")
        lock.close()
        self.do("wait", token, answer={"reached": True})
        writes.close()
        self.say(f"apply is held: 75, 504; of {WAITS + 10} at once {counts[503]} are sent away")

    @staticmethod
    def lock_checkpoint(conn):
        """Apply moves this row with each of its transactions: it waits until conn has ended its own."""
        with conn.cursor() as cur:
            cur.execute("SELECT 1 FROM lockstep.fact WHERE kind = 'checkpoint' FOR UPDATE")

    def says_what_is_wrong(self):
        for args, word in ((("wait", "nonsense"), "LSN"), (("wait", "1-2-3"), "LSN"),
                           (("wait", "0/1", "--timeout", "soon"), "--timeout"),
                           (("wait", "0/1", "--of", "nobody"), "--of"),
                           (("wait", "0/1", "0/2"), "operand"),
                           (("cutover", "--stage", "both"), "--stage"),
                           (("rollback", "--stage", ""), "--stage")):
            code, out, err = self.lockstep.do(*args)
            self.must(f"lockstep {' '.join(args)}", code, 2)
            if word not in err:
                raise Failure(f"lockstep {' '.join(args)} does not speak of {word}: {err}")
        for arguments in ({}, {"position": "nonsense"}, {"position": "0/1", "of": "x"},
                          {"position": "0/1", "timeout_ms": 30001},
                          {"position": "0/1", "timeout_ms": "-1"}, {"position": "0/1" * 500}):
            self.must(f"/wait {arguments}", self.get("/wait", **arguments)[0], 400)
        code, out, err = self.lockstep.do("wait", "FFFFFF/0", "--timeout", "100ms")
        self.must("wait for what is not written", code, 75)
        for words in (("--stage", "writes"), ("--stage", "reads"), ("POSITION",), ("--of",)):
            command = "wait" if len(words) == 1 else "cutover"
            if words[0] not in self.lockstep.must(command, "--help"):
                raise Failure(f"{command} --help does not tell of {words[0]}")

    def names_tables(self):
        self.lockstep.must("tables", "park", "shop.other")
        code, out, err = self.lockstep.do("wait", "--timeout", "30s")
        self.must("wait with a parked table", code, 3)
        if "shop.other (parked" not in out:
            raise Failure(f"wait does not name the table that is parked: {out}")
        position = self.get("/position")[1]["position"]
        status, found = self.get("/wait", position=position)
        self.must("/wait with a parked table", (status, found["reached"]), (409, False))
        self.must("cutover --stage reads with a parked table",
                  self.lockstep.do("cutover", "--stage", "reads", "--yes")[0], 4)
        self.lockstep.must("tables", "resume", "shop.other")
        until("it follows again", 20, lambda: self.lockstep.do("wait")[0] == 0, every=0.3)
        self.say("a parked table is named: 3, 409; no stage of reads with it")

    # ---- the road ----

    def stage_of_reads(self):
        self.must("cutover --stage reads --dry-run",
                  self.lockstep.do("cutover", "--stage", "reads", "--dry-run")[0], 0)
        self.leads("before", "source", "source")
        for _ in range(2):
            found = self.do("cutover", "--stage", "reads", answer={
                "state": "prepared", "reads": "target", "hook": "done"})
            self.leads("reads ahead", "source", "target")
        if not re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", found["position"]):
            raise Failure(f"no position: {found}")
        self.told("reads", "forward")
        # The side that is read takes no writes of applications.
        try:
            self.ask(self.bouncer.dsn("reads"), "INSERT INTO shop.other VALUES (1) RETURNING id")
            raise Failure("the target took a write while only reads had gone there")
        except psycopg2.Error as e:
            self.must("a write on the side that is read", e.pgcode, "25006")
        self.must("finish --abandon with reads ahead",
                  self.lockstep.do("finish", "--abandon", "--yes")[0], 4)
        self.say(f"reads on the target, consistent up to {found['position']}")

    def told(self, stage, direction):
        """The last call of the hook."""
        lines = (self.lockstep.folder / "hook.env").read_text().splitlines()
        facts = dict(line.split("=", 1) for line in lines)
        self.must("the hook's stage", facts["LOCKSTEP_STAGE"], stage)
        self.must("the hook's direction", facts["LOCKSTEP_DIRECTION"], direction)
        to = self.target if direction == "forward" else self.source
        if f":{to.port}/" not in facts["LOCKSTEP_TO"]:
            raise Failure(f"the hook was sent to {facts['LOCKSTEP_TO']}")

    def calls(self):
        return (self.lockstep.folder / "hook.env").read_text().count("LOCKSTEP_STAGE=")

    def back_and_again(self):
        for _ in range(2):
            self.do("rollback", "--stage", "reads", answer={"reads": "source"})
            self.leads("reads taken back", "source", "source")
        self.told("reads", "back")
        # Killed around its hook, and a hook that fails: said again it is made.
        for point in ("reads:before", "reads:after"):
            self.lockstep.env["LOCKSTEP_TEST_KILL"] = point
            code = self.lockstep.do("cutover", "--stage", "reads", "--yes")[0]
            del self.lockstep.env["LOCKSTEP_TEST_KILL"]
            self.must(f"killed at {point}", code, -signal.SIGKILL)
            self.must("reads in the status", self.lockstep.must_status()["reads"], "target")
        fails = self.lockstep.folder / "hook.fails"
        fails.write_text("")
        self.do("cutover", "--stage", "reads", status=1, answer={"state": "prepared"})
        self.do("rollback", "--stage", "reads", status=1, answer={"state": "prepared"})
        fails.unlink()
        self.do("rollback", "--stage", "reads", answer={"reads": "source"})
        self.leads("taken back behind kills", "source", "source")
        self.do("cutover", "--stage", "reads", answer={"reads": "target"})
        self.leads("reads ahead again", "source", "target")
        self.say("killed around the hook, a hook that fails, reads taken back: each said again")

    def undone(self):
        """What stands in the way of the writes leaves the reads where they are, and says so."""
        env = dict(self.lockstep.env, LOCKSTEP_TEST_STOP="drained:after")
        with (self.lockstep.folder / "undone.log").open("wb") as log:
            child = subprocess.Popen([self.lockstep.binary, "-c", str(self.lockstep.file),
                                      "cutover", "--stage", "writes", "--yes"], env=env,
                                     cwd=self.lockstep.folder, stdout=log, stderr=log,
                                     stdin=subprocess.DEVNULL)
        self.cleanup.add(child.kill)
        stat = pathlib.Path(f"/proc/{child.pid}/stat")
        until("it stands at drained:after", 30,
              lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T", every=0.02)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGCONT)
        code = child.wait(30)
        text = (self.lockstep.folder / "undone.log").read_text()
        self.must(f"cutover that was asked to stop ({text})", code, 75)
        if "the reads stay on the target" not in text:
            raise Failure(f"the undone cutover does not say where the reads are: {text}")
        self.leads("undone", "source", "target")
        self.say("a cutover that is undone leaves the reads on the target, and says so")

    def switch(self, command, writes):
        began = mono_ms()
        calls = self.calls()
        self.do(command, "--stage", "writes", answer={"state": "switched", "hook": "done"})
        self.told("writes", "forward" if writes == "target" else "back")
        self.must("calls of the hook", self.calls(), calls + 1)
        self.leads(f"{command} made", writes, writes)
        marks = [len(w.acknowledged) for w in self.writers]
        until(f"all writers go on on the {writes}", 20, lambda: all(
            len(w.acknowledged) > mark + 10 for w, mark in zip(self.writers, marks)))
        gaps = [w.gap(began) for w in self.writers]
        self.say(f"{command}: writes and reads on the {writes}; the clients' longest gaps: "
                 f"PgBouncer {max(gaps[:-1])} ms, HAProxy {gaps[-1]} ms")

    def tokens_of_both(self, old):
        """A token from before the switch is good behind it, if one says whose it is."""
        side, token = old
        self.do("wait", token, "--of", side, "--timeout", "0s", answer={"reached": True})
        self.must("/wait of the other side",
                  self.get("/wait", position=token, of=side, timeout_ms=0)[0], 200)

    def token(self):
        found = self.get("/position")[1]
        return found["of"], found["position"]

    def source_dies(self):
        """With reads ahead on it: they come back to the target, where the writes are."""
        self.source.stop("immediate")
        self.do("cutover", "--stage", "reads", answer={"reads": "target"})
        self.leads("reads back from the dead source", "target", "target")
        self.source.start()
        self.source.wait_ready()
        self.do("cutover", "--stage", "reads", answer={"reads": "target"})

    def target_dies(self):
        """Reads are ahead, and the side that they went to is gone: they come back all the same."""
        self.do("cutover", "--stage", "reads", answer={"reads": "target"})
        self.target.stop("immediate")
        self.do("rollback", "--stage", "reads", answer={"reads": "source"})
        got = until("the proxies answer", 20, self.answered)
        self.must("where the proxies lead to", got, ["source"] * 4)
        self.target.start()
        self.target.wait_ready()
        until("everything follows again", 60, lambda: self.lockstep.do("wait")[0] == 0, every=0.3)
        self.must("reads before it is said again", self.lockstep.must_status()["reads"], "target")
        self.do("rollback", "--stage", "reads", answer={"reads": "source"})
        self.leads("said again", "source", "source")
        self.say("the target died under its reads: they came back to the source without it")

    def judge(self):
        self.over.set()
        for w in self.writers:
            w.thread.join(20)
            if w.trouble:
                raise Failure(f"a client saw another error than a clear one: {w.trouble}")
        acknowledged = set().union(*(w.acknowledged for w in self.writers))
        here = set(self.source.query("SELECT client, n FROM shop.receipts", "shop"))
        lost = acknowledged - here
        if lost:
            raise Failure(f"{len(lost)} acknowledged writes are missing: {sorted(lost)[:5]}")
        extra = len(here - acknowledged)
        doubts = sum(w.doubts for w in self.writers)
        if extra > doubts:
            raise Failure(f"{extra} receipts that nobody was told of, {doubts} doubts")
        codes = sorted(set().union(*(w.codes for w in self.writers)))
        self.say(f"{len(acknowledged)} acknowledged writes, none is lost; errors seen: {codes}")

    def go(self):
        self.set_up()
        self.follow()
        self.says_what_is_wrong()
        self.names_tables()
        self.stage_of_reads()
        self.reads_its_writes("reads ahead on the target", SEEN, self.target)
        self.waits_in_vain()
        self.back_and_again()
        self.undone()
        old = self.token()
        self.switch("cutover", "target")
        self.tokens_of_both(old)
        self.do("rollback", "--stage", "reads", answer={"reads": "source", "state": "prepared"})
        self.leads("reads ahead of the rollback", "target", "source")
        self.told("reads", "back")
        self.reads_its_writes("reads ahead on the source", SEEN // 4, self.source)
        self.source_dies()
        self.leads("reads with the writes again", "target", "target")
        self.do("rollback", "--stage", "reads", answer={"reads": "source"})
        old = self.token()
        self.switch("rollback", "source")
        self.tokens_of_both(old)
        self.target_dies()
        self.judge()


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    run = Test(args, cleanup)
    return conduct(args, cleanup, run)


if __name__ == "__main__":
    guarded(main)
