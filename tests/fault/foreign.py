#!/usr/bin/python3
"""Who defeats the seal of a side that is closed is seen and told, and changes nothing where the
applications live (correctness.md C09).

There and back and there again, with somebody who may switch any fence off: a superuser who disables
the triggers (PostgreSQL), an account that read_only does not hold (MariaDB). What is written so on the
sealed target while the source is fenced undoes that cutover. What is written so on the target before
the first switch, on the source behind it, and on the target behind the rollback is told by `status`
with its facts, survives a kill of the process, is never on the other side, and keeps `cutover` and
`rollback` from beginning (4) until the user says that it may stay behind.

    foreign.py --binary FILE [--from postgres|mariadb] [--to postgres|mariadb] [--keep]
"""

import argparse
import json
import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

KINDS = ("postgres", "mariadb")
TABLES = ["CREATE TABLE orders (id int PRIMARY KEY, note varchar(100) NOT NULL)",
          "CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL)"]
KEPT = 20   # transactions that lockstep keeps the facts of
LARGE = 40000


class Intruder:
    """Comes past the fence of one side, whatever it takes."""

    def __init__(self, end):
        self.end = end

    def transactions(self, *each):
        if self.end.kind == "postgres":
            sql = "".join(f"BEGIN; {'; '.join(t)}; COMMIT;\n" for t in each)
            # As somebody would who finds that the server "refuses to work": all fences off, and on.
            self.end.server.psql("shop", input=f"""DO $$ DECLARE t record; BEGIN
                FOR t IN SELECT evtname FROM pg_event_trigger LOOP
                    EXECUTE format('ALTER EVENT TRIGGER %I DISABLE', t.evtname); END LOOP; END $$;
                ALTER TABLE orders DISABLE TRIGGER ALL; ALTER TABLE stock DISABLE TRIGGER ALL;
                {sql}""")
            return
        conn = self.end.server.connect("shop")
        try:
            with conn.cursor() as cur:
                for statements in each:
                    cur.execute("BEGIN")
                    for sql in statements:
                        cur.execute(sql)
                    cur.execute("COMMIT")
        finally:
            conn.close()


class Foreign:
    def __init__(self, args, cleanup, workdir):
        self.ends = {side: make_end(kind, workdir.path, side)
                     for kind, side in ((args.source, "source"), (args.target, "target"))}
        self.source, self.target = self.ends["source"], self.ends["target"]
        for end in self.ends.values():
            cleanup.add(end.stop)
            end.start()
        self.source.load(TABLES)
        self.source.write("INSERT INTO orders VALUES (1, 'one'), (2, 'two'), (3, 'three')")
        self.source.write("INSERT INTO stock VALUES (1, 10)")
        self.lockstep = Lockstep(args.binary, workdir.path / "migration", "foreign", self.source,
                                 self.target, uris=(self.source.uri(), self.target.uri()))
        cleanup.add(self.lockstep.end)
        self.lockstep.config(f"tables: {{include: ['{self.source.schema}.*']}}\n"
                             "cutover: {max_pause: 5m, lease: 2m}\n" +
                             (self.source.fence() or self.target.fence()))
        self.lockstep.start()
        self.lockstep.wait_phase(("following",), 120)

    def must(self, what, got, *wanted):
        if got not in wanted:
            raise Failure(f"{what}: {got!r}, expected {' or '.join(map(repr, wanted))}\n"
                          f"{self.lockstep.tail()}")

    def rows(self, side):
        return {table: sorted(self.ends[side].query(f"SELECT * FROM {table}"))
                for table in ("orders", "stock")}

    def command(self, *args, status, kill=None):
        env = self.lockstep.env
        if kill:
            env["LOCKSTEP_TEST_KILL"] = kill
        try:
            code, out, err = self.lockstep.do(*args, timeout=120)
        finally:
            env.pop("LOCKSTEP_TEST_KILL", None)
        self.must(f"{' '.join(args)} ({err or out})", code, status)
        return out + err

    def told(self, side):
        """What status says of foreign writes on that side."""
        status = self.lockstep.status() or {}
        found = [f for f in status.get("foreign_writes", []) if f["side"] == side]
        return (found[0] if found else None), status.get("warnings", [])

    def wait_told(self, side, transactions):
        def probe():
            self.lockstep.must_live()
            told, _ = self.told(side)
            return told if told and told["transactions"] >= transactions else None
        return until(f"status tells of {transactions} transactions on the {side}", 30, probe, every=0.2)

    def check_facts(self, side, told, transactions, first, at=0):
        """first: {table: (inserts, updates, deletes, key)} of the transaction that stands there."""
        self.must("transactions", told["transactions"], transactions)
        self.must("transactions kept", len(told["first"]),
                  min(KEPT, told["not_acknowledged"]))
        txn = told["first"][at]
        for name in ("position", "transaction", "committed"):
            if not txn.get(name):
                raise Failure(f"no {name} is told: {txn}")
        got = {t["table"].split(".")[1]: (t["inserts"], t["updates"], t["deletes"], t["first_key"])
               for t in txn["tables"]}
        self.must("the transaction's tables", got, first)
        if not any(f"on the {side} though it is sealed" in w for w in self.told(side)[1]):
            raise Failure(f"status does not warn: {self.told(side)[1]}")
        if f"foreign-write side={side}" not in self.lockstep.tail(1 << 24):
            raise Failure("the log does not tell of it")

    def settle(self, side):
        """What an application writes last has arrived: all before it was judged."""
        other = "target" if side == "source" else "source"
        self.ends[side].write("UPDATE stock SET n = n + 1 WHERE id = 1")
        wanted = self.rows(side)["stock"]
        until(f"the {other} follows", 30, lambda: self.rows(other)["stock"] == wanted, every=0.1)

    def restart(self):
        self.lockstep.kill()
        self.lockstep.start()

    def refused(self, verb):
        before = self.rows("source"), self.rows("target")
        said = self.command(verb, "--yes", status=4)
        if "though it is sealed" not in said or "--accept-foreign" not in said:
            raise Failure(f"{verb} does not say why it refuses: {said}")
        self.must("dry run", self.lockstep.do(verb, "--dry-run")[0], 4)
        self.must("rows behind the refusal", (self.rows("source"), self.rows("target")), before)

    def behind_the_fence(self):
        """On the sealed target, behind the fence and the comparison of both sides: a guard finds it."""
        living = self.rows("source")
        standing = self.lockstep.stand("settled:after", "cutover", "--yes")
        self.must("ended before it stood", standing.ended(), None)
        Intruder(self.target).transactions(["INSERT INTO orders VALUES (90, 'in the pause')"])
        told = self.wait_told("target", 1)
        self.check_facts("target", told, 1, {"orders": (1, 0, 0, "(90)")})
        self.must(f"cutover that went on ({standing.text()})", standing.go_on(60), 1)
        for words in ("though it is sealed", "cutover undone"):
            if words not in standing.text():
                raise Failure(f"it does not say {words!r}: {standing.text()}")
        self.source.write("INSERT INTO stock VALUES (3, 3)")
        self.source.write("DELETE FROM stock WHERE id = 3")
        self.must("rows of the living source", self.rows("source"), living)
        Intruder(self.target).transactions(["DELETE FROM orders WHERE id = 90"])
        self.wait_told("target", 2)

    def before_the_switch(self):
        """C09: on the target, sealed since `prepared`, while the applications write on the source."""
        self.command("cutover", "--yes", "--accept-foreign", status=-signal.SIGKILL, kill="prepared:after")
        living = self.rows("source")
        Intruder(self.target).transactions(["INSERT INTO orders VALUES (100, 'too early')"])
        told = self.wait_told("target", 3)
        self.check_facts("target", told, 3, {"orders": (1, 0, 0, "(100)")}, at=2)
        self.must("rows of the living source", self.rows("source"), living)
        self.refused("cutover")
        Intruder(self.target).transactions(["DELETE FROM orders WHERE id = 100"])
        self.wait_told("target", 4)
        self.command("cutover", "--yes", "--accept-foreign", status=0)
        self.must("what is told of the target behind it", self.told("target")[0]["not_acknowledged"], 0)

    def behind_the_switch(self):
        """C09: on the source. Facts of several tables, a large transaction, more than are kept."""
        living = self.rows("target")
        values = ", ".join(f"({n}, 'a stranger''s row, long enough that a batch does not hold all')"
                           for n in range(1000, 1000 + LARGE))
        several = [["INSERT INTO orders VALUES (200, 'old cron'), (201, 'old cron')",
                    "UPDATE orders SET note = 'changed' WHERE id = 2", "DELETE FROM stock WHERE id = 1"],
                   [f"INSERT INTO orders VALUES {values}"]]
        several += [[f"INSERT INTO orders VALUES ({n}, 'more')"] for n in range(300, 300 + KEPT)]
        Intruder(self.source).transactions(*several)
        told = self.wait_told("source", 2 + KEPT)
        self.check_facts("source", told, 2 + KEPT, {"orders": (2, 1, 0, "(200)"), "stock": (0, 0, 1, "(1)")})
        self.must("changes of all", told["changes"], 4 + LARGE + KEPT)
        self.must("changes of the large one", told["first"][1]["changes"], LARGE)
        self.must("rows of the living target", self.rows("target"), living)
        self.restart()
        again = self.wait_told("source", 2 + KEPT)
        self.must("the facts behind a kill", again, told)
        self.lockstep.wait_phase(("switched",), 60)
        self.refused("rollback")

    def behind_the_rollback(self):
        # Mended by hand, as the refusal says, so that both sides can agree again.
        Intruder(self.source).transactions(
            [f"DELETE FROM orders WHERE id >= 200", "UPDATE orders SET note = 'two' WHERE id = 2",
             "INSERT INTO stock VALUES (1, 10)"])
        self.wait_told("source", 3 + KEPT)

        def goes():
            self.lockstep.must_live()
            return self.lockstep.do("rollback", "--dry-run", "--accept-foreign")[0] == 0
        until("the way back is ready", 60, goes, every=0.3)
        self.command("rollback", "--yes", "--accept-foreign", status=0)
        told, warnings = self.told("source")
        self.must("told of the source behind the rollback", told["not_acknowledged"], 0)
        if any("on the source though it is sealed" in w for w in warnings):
            raise Failure(f"acknowledged, and still warned of: {warnings}")
        self.source.write("INSERT INTO orders VALUES (400, 'an application')")
        self.settle("source")
        until("both sides hold the same rows", 30, lambda: self.rows("source") == self.rows("target"),
              every=0.2)
        living = self.rows("source")
        Intruder(self.target).transactions(["UPDATE stock SET n = -1"])
        told = self.wait_told("target", 5)
        self.must("not acknowledged", told["not_acknowledged"], 1)
        self.check_facts("target", told, 5, {"stock": (0, 1, 0, "(1)")})
        self.must("rows of the living source", self.rows("source"), living)
        self.refused("cutover")

    def refuses_again(self):
        """The fences that an intruder switched off are armed again by the next switch."""
        try:
            self.source.write("INSERT INTO stock VALUES (2, 2)")
        except Exception as refusal:   # psycopg2's or pymysql's
            if not any(word in str(refusal) for word in ("lockstep", "read-only", "read_only", "locked")):
                raise
            return
        raise Failure("the source takes an application's write behind the second switch")

    def go(self):
        self.behind_the_fence()
        self.before_the_switch()
        self.settle("target")
        self.behind_the_switch()
        self.behind_the_rollback()
        Intruder(self.target).transactions([f"UPDATE stock SET n = {self.rows('source')['stock'][0][1]}"])
        self.wait_told("target", 6)
        self.command("cutover", "--yes", "--accept-foreign", status=0)
        self.settle("target")
        self.refuses_again()
        self.must("rows of both sides", self.rows("source"), self.rows("target"))
        self.command("finish", "--yes", status=0)


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--from", dest="source", choices=KINDS, default="postgres")
    parser.add_argument("--to", dest="target", choices=KINDS, default="mariadb")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    workdir = Workdir(None, "lockstep-foreign-")
    state = {"done": False}
    cleanup.add(lambda: workdir.remove() if state["done"] and not args.keep else
                print(f"kept: {workdir.path}"))
    Foreign(args, cleanup, workdir).go()
    state["done"] = True
    print(f"C09: {args.source} -> {args.target}: writes past the seal of either side were told, kept "
          "apart, and held the next switch up")
    return 0


if __name__ == "__main__":
    guarded(main)
