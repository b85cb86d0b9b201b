#!/usr/bin/python3
"""The live load: clients that write all the time and follow a switch.

    load.py --dir DIR --orders N --scale S [--shop ops|ops_mixed] [--clients 8] [--rate 400]
            [--max-seconds 1200]

DIR/dsn    where to write (a libpq conninfo, or mysql://user:password@host:port/database): read at
           the start and whenever a write was refused or the connection lost
DIR/stop   ends the clients;  DIR/pause: they finish their transaction and wait (DIR/paused.N says so)
DIR/N.log  one line a transaction: {"t": monotonic ms when it was answered, "op", "k": kinds counted,
           "ok", "s": SQLSTATE or null, "d": 0 at the first DSN, +1 at each later one, "r": receipts}

Every committed transaction carries a receipt (client, n); "r" lists those that were acknowledged.
"""

import argparse
import importlib
import json
import os
import pathlib
import random
import signal
import sys
import time
import urllib.parse

import psycopg2
import pymysql

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import ops  # noqa: E402

ERRORS = (psycopg2.Error, pymysql.Error)

LONGEST_BACKOFF = 0.1


def mono_ms():
    return time.monotonic_ns() // 1_000_000


def open_mysql(dsn):
    """In READ COMMITTED, so that clients wait for each other's rows and not for gaps."""
    u = urllib.parse.urlparse(dsn)
    conn = pymysql.connect(host=u.hostname, port=u.port, user=u.username, password=u.password,
                           database=u.path[1:], charset="utf8mb4", connect_timeout=5,
                           client_flag=pymysql.constants.CLIENT.FOUND_ROWS, autocommit=False,
                           init_command="SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'")
    with conn.cursor() as cur:
        cur.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    return conn


def state_of(e):
    if isinstance(e, pymysql.Error):
        return str(e.args[0]) if e.args else "?"
    return e.pgcode or ("08006" if isinstance(e, psycopg2.OperationalError) else "?")


class Client:
    def __init__(self, number, args):
        self.number, self.slot = number, number
        self.dir = pathlib.Path(args.dir)
        self.orders, self.scale = args.orders, args.scale
        self.payments = args.orders // 5
        self.products = max(args.orders // 1000, 500)
        self.documents = max(args.orders // 500, 400)
        self.rng = random.Random(args.seed * 1000 + number)
        self.gap = args.clients / args.rate
        self.end = time.monotonic() + args.max_seconds
        self.log = (self.dir / f"{number}.log").open("a", buffering=1 << 15)
        self.conn = self.cur = None
        self.dsn, self.dsns = None, -1
        self.receipt = self.counter = 0
        self.acked = []
        self.forget()
        shop = importlib.import_module(args.shop)
        self.tables = "shop." if args.shop == "ops" else ""
        self.rolled_back = shop.rolled_back
        self.ops = [f for f, _ in shop.OPERATIONS]
        self.weights = [w for _, w in shop.OPERATIONS]

    def forget(self):
        """What was learned in a transaction whose end is unknown is not built upon."""
        self.fresh_orders, self.fresh_addresses, self.fresh_customers = [], [], []

    # ---- what operations use ----

    def run(self, sql, args=None):
        self.cur.execute(sql, args)
        return self.cur.rowcount

    def row(self):
        return self.cur.fetchone()

    def next_number(self):
        self.counter += 1
        return self.counter

    def fresh_number(self):
        """Unlike any that another client, or this one before a switch, ever used."""
        return 10**9 + self.slot * 10**8 + self.next_number()

    def customer(self):
        return self.rng.randint(1, self.orders // 20)

    def loaded_order(self):
        return ops.order_key(self.rng.randint(1, self.orders))

    def own_ids(self, total, n):
        return [i * ops.SLOTS + self.slot for i in self.rng.sample(range(total // ops.SLOTS), n)]

    def own_coupons(self, n):
        self.run(f"SELECT code FROM {self.tables}coupons WHERE owner = %s", (self.slot,))
        return self.rng.sample([code for (code,) in self.cur.fetchall()], n)

    def document(self, title):
        i = self.rng.randint(0, self.documents // ops.SLOTS - 1) * ops.SLOTS + self.slot
        i = i or ops.SLOTS
        return (title, i, i, -i)

    def commit(self, op):
        """The receipt, then the commit: acknowledged only when this returns."""
        self.receipt += 1
        now = "clock_timestamp()" if self.postgres else "NOW(6)"
        self.run(f"INSERT INTO {self.tables}receipts VALUES (%s, %s, %s, {now})",
                 (self.number, self.receipt, op))
        self.conn.commit()
        self.acked.append(self.receipt)

    def rollback(self):
        self.conn.rollback()

    # ---- the loop ----

    def note(self, op, kinds, ok, state):
        line = {"t": mono_ms(), "op": op, "k": kinds, "ok": ok, "s": state, "d": self.dsns,
                "r": self.acked}
        self.log.write(json.dumps(line, separators=(",", ":")) + "\n")
        self.acked = []

    def connect(self):
        dsn = (self.dir / "dsn").read_text().strip()
        if dsn != self.dsn:
            self.dsn = dsn
            self.dsns += 1
        self.close()
        self.postgres = not dsn.startswith("mysql://")
        self.conn = psycopg2.connect(dsn) if self.postgres else open_mysql(dsn)
        self.cur = self.conn.cursor()

    def close(self):
        if self.conn is not None:
            try:
                self.conn.close()
            except ERRORS:
                pass
        self.conn = self.cur = None

    def moved(self):
        return (self.dir / "dsn").read_text().strip() != self.dsn

    def once(self):
        op = self.rng.choices(self.ops, self.weights)[0]
        try:
            if self.conn is None:
                self.connect()
            kinds = op(self)
            if op is not self.rolled_back:
                self.commit(op.__name__)
            self.note(op.__name__, kinds, True, None)
            return True
        except ERRORS as e:
            self.note(op.__name__, str(e).split("\n")[0][:120], False, state_of(e))
            self.recover()
            return False

    def recover(self):
        self.forget()
        try:
            if self.conn is not None and self.connected():
                self.conn.rollback()
            if self.conn is None or not self.connected() or self.moved():
                self.close()
        except ERRORS:
            self.close()

    def connected(self):
        return not self.conn.closed if self.postgres else self.conn.open

    def hold(self):
        """Waits while paused; the connection has no open transaction."""
        mark = self.dir / f"paused.{self.number}"
        self.log.flush()
        mark.touch()
        while (self.dir / "pause").exists() and not self.over():
            time.sleep(0.05)
        mark.unlink()

    def over(self):
        return time.monotonic() > self.end or (self.dir / "stop").exists()

    def loop(self):
        due, backoff, looked = time.monotonic(), 0.005, 0.0
        while True:
            now = time.monotonic()
            if now - looked > 0.1:
                looked = now
                if self.over():
                    break
                if (self.dir / "pause").exists():
                    self.hold()
                    due = time.monotonic()
            if self.once():
                backoff = 0.005
                # Owed transactions are made up for, but not for ever.
                due = max(due + self.gap, time.monotonic() - 1)
                time.sleep(max(0.0, due - time.monotonic()))
            else:
                time.sleep(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF)
        self.close()
        self.log.close()


def child(number, args):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Client(number, args).loop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--orders", type=int, required=True)
    parser.add_argument("--scale", type=int, required=True)
    parser.add_argument("--shop", default="ops", choices=("ops", "ops_mixed"))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rate", type=float, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=1200)
    args = parser.parse_args()
    pids = []
    for number in range(1, args.clients + 1):
        pid = os.fork()
        if pid == 0:
            try:
                child(number, args)
            except BaseException as e:
                sys.stderr.write(f"client {number}: {type(e).__name__}: {e}\n")
                os._exit(1)
            os._exit(0)
        pids.append(pid)

    def on_term(signo, frame):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        sys.exit(1)
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGINT, on_term)
    failed = 0
    for pid in pids:
        failed += os.waitpid(pid, 0)[1] != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
