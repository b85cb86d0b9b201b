"""A table of odd names and values, what is done to it, and what any reader of the journal must find:
the lines {"schema": …} and {"record": [name, record]} that tests/avro/read.py and
tests/kafka/read.py print."""

import json

from .base import Failure

SETUP = """
CREATE TABLE "Od.d ü" (id int PRIMARY KEY, price numeric(10,2), loose numeric, day date,
    at timestamptz, local timestamp, t time, u uuid, raw bytea, doc jsonb, flag boolean,
    long_text text, tags text[]);
INSERT INTO "Od.d ü" VALUES (1, 1.50, 1.10, '2026-01-02', '2026-01-02 03:04:05.000006Z',
    '2026-01-02 03:04:05', '03:04:05', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\\x00ff', '{"a": 1}',
    true, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) i), '{a,NULL}');
"""
CHANGES = """
INSERT INTO "Od.d ü" (id, price, loose, day, at, u, raw) VALUES (2, -0.01, 'NaN', 'infinity',
    '4713-01-01 00:00:00Z BC', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', '');
UPDATE "Od.d ü" SET price = 2.50 WHERE id = 1;
UPDATE "Od.d ü" SET id = 3 WHERE id = 2;
BEGIN;
DELETE FROM "Od.d ü" WHERE id = 3;
INSERT INTO "Od.d ü" (id, flag) VALUES (4, false);
COMMIT;
TRUNCATE "Od.d ü";
"""
# (op, key before, key after) in order.
EXPECTED = [("c", None, 2), ("u", None, 1), ("u", 2, 3), ("d", 3, None), ("c", None, 4),
            ("t", None, None)]
LOGICAL = {"price": "decimal", "day": "date", "at": "timestamp-micros",
           "local": "local-timestamp-micros", "t": "time-micros", "u": "uuid"}
SOURCE_TYPES = {"id": "integer", "price": "numeric(10,2)", "loose": "numeric", "day": "date",
                "at": "timestamp with time zone", "raw": "bytea", "doc": "jsonb",
                "tags": "text[]", "u": "uuid"}


def records_in(schema, found):
    """Every named record in a schema, by its name."""
    if isinstance(schema, list):
        for branch in schema:
            records_in(branch, found)
    elif isinstance(schema, dict):
        if schema.get("type") == "record":
            found[schema["name"]] = schema
        for field in schema.get("fields", []):
            records_in(field["type"], found)
        for inner in ("type", "items", "values"):
            if isinstance(schema.get(inner), (dict, list)):
                records_in(schema[inner], found)


def row_of(value):
    """A row, whether fastavro names its union's branch or not."""
    return value[1] if isinstance(value, list) and len(value) == 2 else value


def key_of(value):
    row = row_of(value)
    return row_of(row["id"]) if row else None


def check_changes(lines):
    changes = [r[1] for r in (row["record"] for row in lines if "record" in row)
               if isinstance(r, list) and "op" in r[1]]
    got = [(c["op"], key_of(c["before"]), key_of(c["after"])) for c in changes]
    # An update that keeps its key need not say the old one.
    got = [(op, None if op == "u" and before == after else before, after)
           for op, before, after in got]
    if got != EXPECTED:
        raise Failure(f"the changes are {got}, expected {EXPECTED}")
    if "long_text" not in changes[1]["unchanged"]:
        raise Failure(f"the untouched long text is not named: {changes[1]['unchanged']}")
    places = [(c["version"]["epoch"], c["version"]["commit"], c["version"]["ordinal"])
              for c in changes]
    if len(set(places)) != len(places) or changes[3]["version"]["commit"] != \
            changes[4]["version"]["commit"]:
        raise Failure(f"versions: {places}")
    first = {k: row_of(v) for k, v in row_of(changes[0]["after"]).items()}
    texts = json.dumps(first, ensure_ascii=False)
    for wanted in ("Decimal:-0.01", '"NaN"', '"infinity"', "4713-01-01 00:00:00", "BC",
                   "UUID:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"):
        if wanted not in texts:
            raise Failure(f"{wanted} is not in the first change: {texts}")
    return len(changes)


def check_schema(lines):
    found = {}
    for line in lines:
        if "schema" in line:
            records_in(line["schema"], found)
    rows = [r for r in found.values()
            if any(f.get("lockstep.source_type") for f in r.get("fields", []))]
    if not rows:
        raise Failure(f"no record has lockstep.source_type; records: {sorted(found)}")
    fields = {f["lockstep.column"]: f for f in rows[0]["fields"]}
    for column, logical in LOGICAL.items():
        if f'"logicalType": "{logical}"' not in json.dumps(fields[column]["type"]):
            raise Failure(f"{column} has no logical type {logical}: {fields[column]}")
    for column, wanted in SOURCE_TYPES.items():
        if fields[column]["lockstep.source_type"] != wanted:
            raise Failure(f"{column}: source type {fields[column]['lockstep.source_type']}, "
                          f"expected {wanted}")
    if '"lockstep.table": "Od.d ü"' not in json.dumps(found, ensure_ascii=False) and \
            '"lockstep.table": "public.Od.d ü"' not in json.dumps(found, ensure_ascii=False):
        raise Failure("the table's true name is not in the schema")
