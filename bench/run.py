#!/usr/bin/python3
"""How fast, as ratios: each figure of lockstep stands beside a rival or a physical limit measured in
the same run, in turns (ours, theirs, ours, theirs, …), because the machines are noisy.

    bench/run.py --binary FILE [--rounds 3] [--scale full|small] [--only NAME]... [--out FILE]

A line a comparison: the median of the ratios of neighbouring runs, with their spread, and the aim.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import DATABASE, make_end  # noqa: E402
from harness.lockstep import Lockstep, MemoryWatch  # noqa: E402

PASSWORD = "bench-secret"  # of the rivals' superuser
SCALES = {"full": {"scale": 20, "orders": 1_000_000, "u": 500, "t": 100_000},
          "small": {"scale": 2, "orders": 100_000, "u": 100, "t": 10_000}}
ORDERS = """CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, status text,
 total numeric(12,2), placed timestamptz, note text, details jsonb);
INSERT INTO orders SELECT i, i %% 50000, 'paid', i / 100.0, '2025-01-01 00:00+00'::timestamptz +
 i * interval '1 s', repeat(md5(i::text), 3) || 'abcd', jsonb_build_object('a', repeat(md5(i::text), 3),
 'b', repeat(md5((i + 1)::text), 3), 'n', i) FROM generate_series(1, %d) i"""
MY_TABLES = (
    "CREATE TABLE accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))",
    "INSERT INTO accounts SELECT seq, seq DIV 100000, 0, 'x' FROM seq_1_to_%(accounts)d",
    "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, status varchar(20),"
    " total decimal(12,2), placed datetime(6), note varchar(200), details longtext)",
    "INSERT INTO orders SELECT seq, seq %% 50000, 'paid', seq / 100.0,"
    " TIMESTAMPADD(SECOND, seq, '2025-01-01 00:00:00'), CONCAT(REPEAT(MD5(seq), 3), 'abcd'),"
    " CONCAT('{\"a\": \"', REPEAT(MD5(seq), 3), '\", \"b\": \"', REPEAT(MD5(seq + 1), 3), '\"}')"
    " FROM seq_1_to_%(orders)d",
)


def say(text=""):
    print(text, flush=True)


def run(argv, env=None, timeout=900):
    """Wall seconds of a program that must succeed."""
    began = time.monotonic()
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout,
                          env=dict(os.environ, **(env or {})))
    if done.returncode:
        raise Failure(f"{argv[0]}: {done.stdout[-2000:]}")
    return time.monotonic() - began


def cpu_seconds(pid):
    """User and system time of a process and of the children that it has waited for."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.size = SCALES[args.scale]
        self.workdir = Workdir(prefix="lockstep-bench-")
        self.lines = []
        self.number = 0
        self.broker = None

    # ---- what comparisons share ----

    def report(self, name, ours, theirs, aim, note=""):
        """ours, theirs: rates of neighbouring runs (more is better)."""
        ratios = sorted(a / b for a, b in zip(ours, theirs))
        median = statistics.median(ratios)
        mark = "" if aim is None else ("  ok" if median >= aim else f"  SHORT of {aim}")
        line = (f"{name:<46} {median:5.2f} ×  ({ratios[0]:.2f} … {ratios[-1]:.2f}, "
                f"{len(ratios)} pairs; ours {statistics.median(ours):,.0f}, theirs "
                f"{statistics.median(theirs):,.0f}){mark}{'  ' + note if note else ''}")
        say(line)
        self.lines.append({"name": name, "ratio": round(median, 3),
                           "spread": [round(ratios[0], 3), round(ratios[-1], 3)],
                           "ours": ours, "theirs": theirs, "aim": aim, "note": note})

    def figure(self, name, value):
        say(f"{name:<46} {value}")
        self.lines.append({"name": name, "value": value})

    def kafka(self):
        if not self.broker:
            from harness.broker import Kafka
            self.broker = Kafka(self.workdir.path / "kafka")
            self.cleanup.add(self.broker.stop)
            self.broker.start()
        return self.broker

    def migration(self, source, target, config="", journal="file"):
        self.number += 1
        lockstep = Lockstep(self.args.binary, self.workdir.path / f"m{self.number}",
                            f"m{self.number}", source, target, uris=(source.uri(), target.uri()))
        self.cleanup.add(lockstep.end)
        if journal == "kafka":
            lockstep.journal = self.kafka().uri()
        lockstep.config("snapshot: {workers: 2}\n" + config +
                        (source.fence() or target.fence()))
        return lockstep

    def end(self, lockstep):
        lockstep.stop()
        lockstep.must("finish", "--abandon", "--yes")

    def pair(self, source_kind, target_kind):
        ends = []
        for kind, side in ((source_kind, "source"), (target_kind, "target")):
            self.number += 1
            end = make_end(kind, self.workdir.path / f"servers{self.number}", side)
            self.cleanup.add(end.stop)
            end.start()
            if kind == "postgres":
                end.server.psql("postgres", input=f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
            ends.append(end)
        return ends

    def uri(self, end):
        """For a rival: over TCP, as lockstep goes, and not by the cheaper socket."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{end.server.port}/{DATABASE}"

    # ---- the copy ----

    def fill_postgres(self, end):
        end.server.pgbench_init(DATABASE, self.size["scale"])
        end.server.psql(DATABASE, user="shop_owner",
                        input=ORDERS % self.size["orders"] + "; ANALYZE")

    def rows(self):
        return self.size["scale"] * 100_000 + self.size["orders"]

    def fresh_target(self, end):
        """An empty database, by its superuser."""
        end.server.psql("postgres", input=f'DROP DATABASE IF EXISTS "{DATABASE}" WITH (FORCE)')
        from harness.servers import make_database
        make_database(end.server, "target", DATABASE)

    def snapshot_postgres(self):
        source, target = self.pair("postgres", "postgres")
        self.fill_postgres(source)
        ours, theirs, limit = [], [], []
        for _ in range(self.args.rounds):
            self.fresh_target(target)
            lockstep = self.migration(source, target)
            watch = MemoryWatch(lockstep.folder, every=0.5)
            began = time.monotonic()
            lockstep.start("--until", "caught-up")
            until("caught up", 600, lambda: not lockstep.alive(), every=0.02)
            if lockstep.process.returncode:
                raise Failure(lockstep.tail())
            ours.append(self.rows() / (time.monotonic() - began))
            peak = watch.stop()
            self.end(lockstep)
            self.fresh_target(target)
            theirs.append(self.rows() / self.pgcopydb(source, target))
            self.fresh_target(target)
            limit.append(self.rows() / self.copy_copy(source, target))
        self.report("snapshot: pgcopydb clone, 2 jobs", ours, theirs, 0.9)
        self.report("snapshot: COPY to COPY, 1 stream, no check", ours, limit, None)
        self.figure("snapshot: peak memory, lockstep",
                    f"{peak[self.args.binary.name] / 1024:.1f} MiB")
        for end in (source, target):
            end.stop()

    def pgcopydb(self, source, target):
        uris = [self.uri(e) for e in (source, target)]
        folder = self.workdir.path / f"pgcopydb{time.monotonic_ns()}"
        return run(["pgcopydb", "clone", "--source", uris[0], "--target", uris[1], "--table-jobs",
                    "2", "--index-jobs", "2", "--split-tables-larger-than", "64 MB", "--dir",
                    folder, "--no-owner", "--no-acl", "--skip-extensions"],
                   {"PATH": f"{source.server.bin}:{os.environ['PATH']}"})

    def copy_copy(self, source, target):
        """The physical way: the schema, then one psql's COPY into another's."""
        dump = subprocess.run([source.server.bin / "pg_dump", "-s", "-h", source.server.home, "-p",
                               str(source.server.port), "-U", "postgres", "-O", "-x", DATABASE],
                              stdout=subprocess.PIPE, check=True, text=True).stdout
        target.server.psql(DATABASE, input=dump)
        began = time.monotonic()
        for table in ("pgbench_accounts", "orders"):
            out = subprocess.Popen([*source.server.psql_argv(DATABASE), "-c",
                                    f"COPY {table} TO STDOUT"], stdout=subprocess.PIPE)
            subprocess.run([*target.server.psql_argv(DATABASE), "-c", f"COPY {table} FROM STDIN"],
                           stdin=out.stdout, check=True)
            out.stdout.close()
            out.wait()
        return time.monotonic() - began

    def snapshot_pgloader(self):
        source, target = self.pair("mariadb", "postgres")
        numbers = {"accounts": self.size["scale"] * 100_000, "orders": self.size["orders"]}
        source.load([s % numbers for s in MY_TABLES])
        source.server.script(["CREATE USER loader@'%' IDENTIFIED BY 'loader'",
                              "GRANT SELECT ON shop.* TO loader@'%'"])
        ours, theirs = [], []
        for _ in range(self.args.rounds):
            self.fresh_target(target)
            lockstep = self.migration(source, target)
            ours.append(self.rows() / self.until_caught_up(lockstep))
            self.end(lockstep)
            self.fresh_target(target)
            script = self.workdir.path / "pgloader.load"
            script.write_text(
                f"LOAD DATABASE FROM mysql://loader:loader@127.0.0.1:{source.server.port}/shop\n"
                f"INTO {self.uri(target)}\n"
                # With the default of 100,000 rows its heap of 1 GiB is exhausted by these orders.
                "WITH include drop, create tables, create indexes, reset sequences, workers = 2,"
                " concurrency = 1, prefetch rows = 10000;\n")
            theirs.append(self.rows() / run(["pgloader", script]))
        self.report("snapshot MariaDB to PostgreSQL: pgloader", ours, theirs, 2.5)
        for end in (source, target):
            end.stop()

    def until_caught_up(self, lockstep):
        began = time.monotonic()
        lockstep.start("--until", "caught-up")
        until("caught up", 900, lambda: not lockstep.alive(), every=0.02)
        if lockstep.process.returncode:
            raise Failure(lockstep.tail())
        return time.monotonic() - began

    def snapshot_mydumper(self):
        source, target = self.pair("mariadb", "mariadb")
        numbers = {"accounts": self.size["scale"] * 100_000, "orders": self.size["orders"]}
        source.load([s % numbers for s in MY_TABLES])
        ours, theirs = [], []
        for _ in range(self.args.rounds):
            target.server.script(["DROP DATABASE IF EXISTS shop", "CREATE DATABASE shop"])
            lockstep = self.migration(source, target)
            ours.append(self.rows() / self.until_caught_up(lockstep))
            self.end(lockstep)
            target.server.script(["DROP DATABASE IF EXISTS shop", "CREATE DATABASE shop"])
            folder = self.workdir.path / f"dump{time.monotonic_ns()}"
            seconds = run(["mydumper", "-h", "127.0.0.1", "-P", source.server.port, "-u", "root",
                           "-B", "shop", "-t", "2", "-F", "64", "-o", folder])
            seconds += run(["myloader", "-h", "127.0.0.1", "-P", target.server.port, "-u", "root",
                            "-t", "2", "-o", "-d", folder])
            theirs.append(self.rows() / seconds)
        self.report("snapshot MariaDB: mydumper + myloader, 2 threads", ours, theirs, None)
        for end in (source, target):
            end.stop()

    # ---- the stream ----

    def backlog(self, source, kind):
        """Commits a backlog; returns its changes and the log position behind it."""
        if kind == "U":
            n = self.size["u"]
            source.server.psql(DATABASE, input=(
                f"DO $$ BEGIN FOR i IN 0..{n - 1} LOOP UPDATE pgbench_accounts SET abalance ="
                " abalance + 1 WHERE aid BETWEEN i * 1000 % 1000000 + 1 AND"
                " i * 1000 % 1000000 + 1000; COMMIT; END LOOP; END $$"))
            changes = n * 1000
        else:
            run([source.server.bin / "pgbench", "-n", "-c", "8", "-j", "2", "-M", "prepared", "-t",
                 self.size["t"] // 8, "-h", source.server.home, "-p", source.server.port, "-U",
                 "postgres", DATABASE])
            changes = self.size["t"] // 8 * 8 * 4
        return changes, source.server.value("SELECT pg_current_wal_flush_lsn()::text", DATABASE)

    def drain(self, journal):
        """lockstep and a subscription follow the same source, each to a target of its own; while one
        drains, the other sleeps."""
        source, target = self.pair("postgres", "postgres")
        _, other = self.pair("postgres", "postgres")
        self.fill_postgres(source)
        lockstep = self.migration(source, target, journal=journal)
        self.until_caught_up(lockstep)
        self.subscribe(source, other)
        for kind, aim in (("U", 0.9), ("T", 1.5)):
            ours, theirs = [], []
            for _ in range(self.args.rounds):
                changes, lsn = self.backlog(source, kind)
                ours.append(changes / self.until_caught_up(lockstep))
                theirs.append(changes / self.subscription_drain(source, other, lsn))
            self.report(f"drain {kind} over {journal}: built-in replication", ours, theirs,
                        aim if journal == "file" else None)
        self.end(lockstep)
        for end in (source, target, other):
            end.stop()

    def subscribe(self, source, other):
        dump = subprocess.run([source.server.bin / "pg_dump", "-s", "-h", source.server.home, "-p",
                               str(source.server.port), "-U", "postgres", "-O", "-x", "-T",
                               "lockstep.*", "-N", "lockstep", "--no-publications", DATABASE],
                              stdout=subprocess.PIPE, check=True, text=True).stdout
        other.server.psql(DATABASE, input=dump)
        source.server.psql(DATABASE, input=(
            "CREATE PUBLICATION builtin FOR TABLE pgbench_accounts, pgbench_branches,"
            " pgbench_tellers, pgbench_history, orders"))
        other.server.psql(DATABASE, input=(
            f"CREATE SUBSCRIPTION builtin CONNECTION '{self.uri(source)}' PUBLICATION builtin"))
        until("the subscription has copied", 300, lambda: other.server.value(
            "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", DATABASE))
        other.server.psql(DATABASE, input="ALTER SUBSCRIPTION builtin DISABLE")

    def subscription_drain(self, source, other, lsn):
        until("its walsender is gone", 30, lambda: not source.server.query(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = 'builtin'"))
        began = time.monotonic()
        other.server.psql(DATABASE, input="ALTER SUBSCRIPTION builtin ENABLE")
        until("the subscription has drained", 600, lambda: source.server.value(
            f"SELECT coalesce(max(replay_lsn) >= '{lsn}', false) FROM pg_stat_replication"
            " WHERE application_name = 'builtin'"), every=0.02)
        seconds = time.monotonic() - began
        other.server.psql(DATABASE, input="ALTER SUBSCRIPTION builtin DISABLE")
        return seconds

    def capture(self, journal):
        source, target = self.pair("postgres", "postgres")
        self.fill_postgres(source)
        lockstep = self.migration(source, target, journal=journal)
        self.until_caught_up(lockstep)
        slot = f"lockstep_{lockstep.migration}"
        publication = source.server.value("SELECT pubname FROM pg_publication", DATABASE)
        source.server.psql(DATABASE, input=(
            "SELECT pg_create_logical_replication_slot('rival', 'pgoutput')"))
        for kind in ("U", "T"):
            ours, theirs = [], []
            for _ in range(self.args.rounds):
                changes, lsn = self.backlog(source, kind)
                began = time.monotonic()
                lockstep.start_role("capture")
                until("captured", 300, lambda: source.server.value(
                    f"SELECT confirmed_flush_lsn >= '{lsn}' FROM pg_replication_slots"
                    f" WHERE slot_name = '{slot}'"), every=0.02)
                ours.append(changes / (time.monotonic() - began))
                lockstep.roles["capture"].send_signal(signal.SIGTERM)
                lockstep.roles["capture"].wait(20)
                theirs.append(changes / run(
                    [source.server.bin / "pg_recvlogical", "-d", self.uri(source), "-S", "rival",
                     "--start",
                     "-f", "/dev/null", "-o", "proto_version=1", "-o",
                     f"publication_names={publication}", "--endpos", lsn, "--no-loop"]))
                self.until_caught_up(lockstep)
            self.report(f"capture {kind} into {journal}: pg_recvlogical", ours, theirs,
                        0.8 if journal == "file" else None)
        self.end(lockstep)
        for end in (source, target):
            end.stop()

    def latency(self, journal, samples=500):
        source, target = self.pair("postgres", "postgres")
        source.server.psql(DATABASE, user="shop_owner", input="CREATE TABLE beat (id int PRIMARY KEY)")
        lockstep = self.migration(source, target, journal=journal)
        lockstep.start()
        lockstep.wait_phase(("following",), 60)
        write, read = source.server.connect(DATABASE), target.server.connect(DATABASE)
        w, r = write.cursor(), read.cursor()
        taken = []
        due = time.monotonic()
        cpu = cpu_seconds(lockstep.process.pid)
        for i in range(samples):
            w.execute("INSERT INTO beat VALUES (%s)", (i,))
            began = time.monotonic()
            while True:
                r.execute("SELECT 1 FROM beat WHERE id = %s", (i,))
                if r.fetchone():
                    break
                if time.monotonic() > began + 10:
                    raise Failure(f"row {i} did not arrive:\n{lockstep.tail()}")
            taken.append((time.monotonic() - began) * 1000)
            due += 0.01
            time.sleep(max(0.0, due - time.monotonic()))
        cpu = cpu_seconds(lockstep.process.pid) - cpu
        taken.sort()
        p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
        mark = "" if journal != "file" else ("  ok" if p50 <= 10 else "  SHORT of 10 ms")
        self.figure(f"latency at 100 tx/s over {journal}",
                    f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {cpu / samples * 1000:.2f} ms of CPU a "
                    f"transaction{mark}")
        write.close()
        read.close()
        self.end(lockstep)
        for end in (source, target):
            end.stop()

    def go(self):
        wanted = {"snapshot-postgres": self.snapshot_postgres,
                  "snapshot-pgloader": self.snapshot_pgloader,
                  "snapshot-mydumper": self.snapshot_mydumper}
        for journal in ("file", "kafka"):
            wanted[f"drain-{journal}"] = lambda j=journal: self.drain(j)
            wanted[f"capture-{journal}"] = lambda j=journal: self.capture(j)
            wanted[f"latency-{journal}"] = lambda j=journal: self.latency(j)
        unknown = set(self.args.only) - set(wanted)
        if unknown:
            raise Failure(f"no such comparison: {', '.join(sorted(unknown))}; "
                          f"there are {', '.join(wanted)}")
        say(f"load of the machine before: {os.getloadavg()[0]:.1f}; medians of "
            f"{self.args.rounds} pairs; rates a second")
        for name, comparison in wanted.items():
            if not self.args.only or name in self.args.only:
                comparison()
        if self.args.out:
            pathlib.Path(self.args.out).write_text(json.dumps(self.lines, indent=1) + "\n")


def main(cleanup):
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--out", help="also as JSON")
    args = parser.parse_args()
    args.binary = pathlib.Path(args.binary).resolve()
    bench = Bench(args, cleanup)
    cleanup.add(bench.workdir.remove)
    bench.go()
    return 0


if __name__ == "__main__":
    guarded(main)
