#!/usr/bin/python3
"""A MariaDB source that died while it wrote a transaction's binlog: its file ends between two events
of the transaction, or in the middle of one. It never committed, so nothing of it may arrive, and the
migration goes on by itself; unless sync_binlog leaves open what else was cut off.

    cut_binlog.py --binary FILE [--keep]

The server is killed, and what its last file would hold is forged behind its end: the first events of
a transaction like one that it has written, with offsets and checksums of their new place.
"""

import argparse
import pathlib
import struct
import sys
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness.base import Failure, Workdir, guarded, until  # noqa: E402
from harness.ends import make_end  # noqa: E402
from harness.lockstep import Lockstep  # noqa: E402

HEADER, GTID, ROWS = 19, 162, (23, 30)


def events(data):
    """(type, bytes) of a binlog file."""
    at = 4
    while at + HEADER <= len(data):
        kind, size = data[at + 4], struct.unpack_from("<I", data, at + 9)[0]
        yield kind, data[at:at + size]
        at += size


def unfinished(data, rows):
    """The begin of the file's last transaction with rows, up to its first rows event, as it would be
    written once more behind the end. rows: how much of that event, 1.0 or a part."""
    group, last = [], []
    for kind, event in events(data):
        group = [] if kind == GTID else group
        group.append((kind, event))
        if kind in ROWS:
            last = list(group)
    out, end = b"", len(data)
    for kind, event in last:
        event = bytearray(event)
        end += len(event)
        struct.pack_into("<I", event, 13, end)
        if kind == GTID:
            number, = struct.unpack_from("<Q", event, HEADER)
            struct.pack_into("<Q", event, HEADER, number + 1000)
        struct.pack_into("<I", event, len(event) - 4, zlib.crc32(bytes(event[:-4])))
        out += bytes(event) if kind not in ROWS or rows == 1.0 else bytes(event[:int(len(event) * rows)])
    return out


class CutBinlog:
    def __init__(self, args, cleanup):
        self.args, self.cleanup = args, cleanup
        self.workdir = Workdir(prefix="lockstep-cut-")
        self.next = 1000

    def set_up(self):
        self.source = make_end("mariadb", self.workdir.path, "source")
        self.source.server.options["sync-binlog"] = "1"
        self.target = make_end("postgres", self.workdir.path, "target")
        for end in (self.source, self.target):
            self.cleanup.add(end.stop)
            end.start()
        self.source.load(["CREATE TABLE t (id int PRIMARY KEY, v varchar(200) CHARACTER SET utf8mb4)",
                          "INSERT INTO t SELECT seq, md5(seq) FROM seq_1_to_500"])
        self.m = Lockstep(self.args.binary, self.workdir.path / "m", "cut", self.source, self.target,
                          uris=(self.source.uri(), self.target.uri()))
        self.cleanup.add(self.m.end)
        self.m.config(self.source.fence())

    def write(self):
        """A transaction of three rows more; waits until they have arrived."""
        self.next += 3
        ids = [self.next + i for i in range(3)]
        self.source.write("INSERT INTO t VALUES " +
                          ", ".join(f"({i}, repeat(md5({i}), 6))" for i in ids))
        until(f"row {ids[-1]} is on the target", 40, lambda: self.m.must_live() or self.target.query(
            f"SELECT 1 FROM t WHERE id = {ids[-1]}"))

    def die(self, rows):
        """As if it had died while it wrote the transaction once more."""
        server = self.source.server
        log = server.home / "data" / server.value("SHOW MASTER STATUS")
        server.stop(9)
        data = log.read_bytes()
        with log.open("ab") as f:
            f.write(unfinished(data, rows))
        server.start()

    def same(self, what):
        rows = [sorted(end.query("SELECT id, v FROM t")) for end in (self.source, self.target)]
        if rows[0] != rows[1]:
            raise Failure(f"{what}: {len(rows[0])} rows here, {len(rows[1])} there, or other values")
        self.m.none_parked(self.m.must_status())
        print(f"{what}: {len(rows[0])} rows on both sides", flush=True)

    def go(self):
        self.set_up()
        self.m.start()
        self.m.wait_phase(("following",), 60)
        for what, rows, says in (("between two events", 1.0, "transaction-cut"),
                                 ("inside of an event", 0.5, "binlog-torn"),
                                 ("between two events, once more", 1.0, "transaction-cut")):
            self.write()
            before = self.m.tail(1_000_000).count(says)
            self.die(rows)
            self.write()
            if self.m.tail(1_000_000).count(says) <= before:
                raise Failure(f"{what}: the log does not say {says}:\n{self.m.tail()}")
            self.same(f"the file ended {what}")
        self.source.server.options["sync-binlog"] = "0"
        self.die(1.0)
        until("run ends, for nobody knows what else is missing", 40, lambda: not self.m.alive())
        if self.m.process.returncode != 1 or "sync_binlog = 0" not in self.m.tail():
            raise Failure(f"sync_binlog = 0: exit {self.m.process.returncode}:\n{self.m.tail()}")
        self.m.must("finish", "--abandon", "--yes")
        print("4 deaths of a server in the middle of a transaction: healed, or said")


def main(cleanup):
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True, type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    run = CutBinlog(args, cleanup)
    state = {"ok": False}
    cleanup.add(lambda: run.workdir.remove() if state["ok"] and not args.keep else
                print(f"kept: {run.workdir.path} (m/run.log, source/server.log)"))
    run.go()
    state["ok"] = True
    return 0


if __name__ == "__main__":
    guarded(main)
