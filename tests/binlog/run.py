"""The zoo: a binlog of a real MariaDB, decoded by us (binlog_print) and by mariadb-binlog -v, and
held together change for change. run.py PRINT PORT [KEEP]; KEEP: a folder for binlog and plan."""

import datetime
import decimal
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))
from mysql_server import MysqlServer  # noqa: E402

KINDS = {"tinyint": "int16", "smallint": "int16", "mediumint": "int32", "int": "int32",
         "bigint": "int64", "float": "float32", "double": "float64", "decimal": "decimal",
         "char": "text", "varchar": "text", "tinytext": "text", "text": "text",
         "mediumtext": "text", "longtext": "text", "enum": "enum", "binary": "bytes",
         "varbinary": "bytes", "tinyblob": "bytes", "blob": "bytes", "longblob": "bytes",
         "date": "date", "datetime": "timestamp", "timestamp": "timestamptz", "time": "time"}
COLUMNS = """SELECT c.table_name, c.column_name, c.data_type, c.column_type, c.numeric_precision,
 c.numeric_scale, c.character_maximum_length, c.datetime_precision, k.ordinal_position, c.extra
 FROM information_schema.columns c LEFT JOIN information_schema.key_column_usage k
 ON k.table_schema = c.table_schema AND k.table_name = c.table_name
 AND k.column_name = c.column_name AND k.constraint_name = 'PRIMARY'
 WHERE c.table_schema = 'zoo' AND c.table_name <> 'other'
 ORDER BY c.table_name, c.ordinal_position"""


class Column:
    def __init__(self, row):
        (self.table, self.name, data, self.type, precision, scale, length, fraction, key,
         extra) = row
        self.kind = "bool" if self.type == "tinyint(1)" else KINDS[data]
        self.labels = re.findall(r"'((?:[^']|'')*)'", self.type) if data == "enum" else []
        self.precision, self.scale = (precision, scale) if data == "decimal" else (0, 0)
        self.length = length if data in ("binary", "char") else 0
        self.fraction = fraction or 0
        self.key = key or 0
        self.generated = "GENERATED" in extra

    def line(self):
        return "\t" + "\t".join(str(w) for w in (
            self.name, self.kind, self.type, self.precision, self.scale, self.length,
            self.fraction, self.key, int(self.generated)))


def read_plan(server):
    tables = {}
    for row in server.query(COLUMNS):
        column = Column(row)
        tables.setdefault(column.table, []).append(column)
    return tables


def our_changes(text, tables):
    """(operation, table, before, after); values bytes, None or "unchanged"."""
    values = {"N": lambda h: None, "U": lambda h: "unchanged", "S": bytes.fromhex}
    for line in text.splitlines():
        words = line.split("\t")
        if words[0] == "table" and "the source ran on it: CREATE" not in line:
            raise SystemExit(f"a table was parked: {line}")
        if words[0] != "change":
            continue
        rows = {}
        for part in words[3:]:
            what, *cells = part.split(" ")
            rows[what] = [values[c[0]](c[1:]) for c in cells]
        yield words[1].lower(), words[2].split(".")[1], rows.get("before"), rows.get("after")


HEAD = re.compile(r"### (INSERT INTO|UPDATE|DELETE FROM) `zoo`\.`(\w+)`$")


def their_changes(text, tables):
    """The same of mariadb-binlog, values as it prints them; {} for an image that is not there."""
    current = None
    image = None
    for line in text.split("\n"):
        head = HEAD.match(line)
        if head or not line.startswith("### "):
            if current and current[1] in tables:
                yield current
            current = None
        if head:
            current = (head[1].split()[0].lower(), head[2], {}, {})
        elif current and line == "### WHERE":
            image = current[2]
        elif current and line == "### SET":
            image = current[3]
        elif current:
            cell = re.match(r"###   @(\d+)=(.*)$", line)
            image[int(cell[1]) - 1] = cell[2]


def unquoted(text):
    assert text[0] == text[-1] == "'", text
    raw = text[1:-1].encode("utf-8", "surrogateescape")
    # Quotes and backslashes stand as they are, other control characters in hex.
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes.fromhex(m[1].decode()), raw)


def trimmed(text):
    return text.rstrip("0").rstrip(".") if "." in text else text


def digits(text):
    return re.sub(r"[^0-9]", "", text.lower().partition("e")[0]).strip("0")


def same_float(theirs, ours, single):
    """Of a float they print six digits only. Of a double more than it has: ours has to read back as
    the same bits, with no digit too many (Python prints the shortest form)."""
    if single:
        return "%g" % struct.unpack("f", struct.pack("f", float(ours)))[0] == theirs.strip()
    return float(theirs) == float(ours) and digits(ours) == digits(repr(float(ours)))


def expected(column, text):
    """What our text has to be for what mariadb-binlog prints."""
    if column.kind.startswith("int"):
        signed = re.match(r"-?\d+", text)[0]
        wide = re.search(r"\((\d+)\)", text)
        return (wide[1] if wide and "unsigned" in column.type else signed).encode()
    if column.kind == "bool":
        return b"t" if text == "1" else b"f"
    if column.kind == "decimal":
        number = decimal.Decimal(text)
        return f"{number:.{column.scale}f}".encode()
    if column.kind == "enum":
        return column.labels[int(text.split()[0]) - 1].replace("''", "'").encode()
    if column.kind == "date":
        return text.strip("'").replace(":", "-").encode()
    if column.kind == "timestamptz":
        seconds, _, fraction = text.partition(".")
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(seconds))
        return (trimmed(f"{moment}.{fraction}" if fraction else str(moment)) + "+00").encode()
    if column.kind in ("timestamp", "time"):
        return trimmed(text.strip("'")).encode()
    raw = unquoted(text)
    return raw.ljust(column.length, b"\0") if column.type.startswith("binary") else raw


def same_value(column, theirs, ours):
    if theirs == "NULL" or ours is None:
        return theirs == "NULL" and ours is None
    if column.kind.startswith("float"):
        return same_float(theirs, ours.decode(), column.kind == "float32")
    return expected(column, theirs) == ours


def compare_image(columns, theirs, ours, keys_only, where):
    for i, column in enumerate(columns):
        if column.generated or (keys_only and not column.key):
            continue
        if i not in theirs:
            # A partial image: the key is the old row's, the rest is said to be unchanged.
            if ours[i] != "unchanged" and not column.key:
                raise SystemExit(f"{where}: {column.name} is not in the log, we say {ours[i]!r}")
        elif not same_value(column, theirs[i], ours[i]):
            raise SystemExit(f"{where}: {column.name}: they say {theirs[i][:200]!r}, we say "
                             f"{ours[i][:200] if ours[i] else ours[i]!r}")


def compare(tables, ours, theirs):
    n = 0
    for n, (our, their) in enumerate(zip(ours, theirs), 1):
        where = f"change {n}, {their[0]} {their[1]}"
        if our[:2] != their[:2]:
            raise SystemExit(f"{where}: we say {our[0]} {our[1]}")
        columns = tables[our[1]]
        keyed = any(c.key for c in columns)
        if our[2] is not None:
            compare_image(columns, their[2], our[2], keyed, where + " before")
        elif our[0] != "insert":
            moved = [c.name for i, c in enumerate(columns) if c.key and i in their[3]
                     and their[2].get(i) != their[3][i]]
            if moved or our[0] == "delete" or not keyed:
                raise SystemExit(f"{where}: we do not tell the old key ({moved})")
        if our[0] != "delete":
            compare_image(columns, their[3], our[3], False, where + " after")
    return n


def main(argv):
    home = pathlib.Path(tempfile.mkdtemp(prefix="lockstep-zoo."))
    server = MysqlServer(home, int(argv[2]), {"sync-binlog": "0", "max-allowed-packet": "64M"})
    try:
        server.init()
        server.start()
        statements = [s for s in (HERE / "zoo.sql").read_text().split(";\n") if s.strip()]
        server.script(["SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES'"] +
                      statements)
        tables = read_plan(server)
        server.script(["FLUSH BINARY LOGS"])
        file = home / "data" / "binlog.000001"
        if not file.exists() or "zoo" not in file.read_bytes().decode("latin1"):
            file = home / "data" / "binlog.000002"
        plan = home / "plan"
        plan.write_text("".join(f"zoo\t{t}\n" + "".join(c.line() + "\n" for c in columns)
                                for t, columns in tables.items()))
        done = subprocess.run([argv[1], plan, file], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.PIPE, timeout=60)
        if done.returncode:
            raise SystemExit(f"our decoder: {done.stderr}")
        theirs = subprocess.run(["mariadb-binlog", "-v", "--base64-output=decode-rows", file],
                                stdout=subprocess.PIPE, check=True, timeout=60,
                                env=dict(os.environ, TZ="UTC"))
        ours = list(our_changes(done.stdout, tables))
        other = list(their_changes(theirs.stdout.decode("utf-8", "surrogateescape"), tables))
        n = compare(tables, ours, other)
        if len(ours) != len(other):
            raise SystemExit(f"we have {len(ours)} changes, they have {len(other)}")
        if len(argv) > 3:
            shutil.copy(file, pathlib.Path(argv[3]) / "zoo.binlog")
            shutil.copy(plan, pathlib.Path(argv[3]) / "zoo.plan")
        print(f"zoo: {n} changes alike")
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv)
