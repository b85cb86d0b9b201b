"""verify is proven: one wrong value of each type, a missing row, an extra row and a NULL for an empty
string are planted on the target, and exactly those are reported, by key."""

from harness.base import Failure

# Type, a value, and the wrong value that is planted; close ones, where a sloppy comparison is blind.
TYPES = [
    ("smallint", "1", "2"), ("integer", "1", "-1"), ("bigint", "9007199254740993",
                                                      "9007199254740992"),
    ("numeric", "1.10", "1.1"), ("numeric(10,3)", "1.001", "1.002"),
    ("real", "16777216", "16777218"), ("double precision", "0.1", "0.10000000000000002"),
    ("money", "1.00", "1.01"), ("text", "a", "a "), ("varchar(20)", "\u00e9", "e\u0301"),
    ("char(5)", "a", "A"), ('"char"', "a", "b"), ("name", "x", "X"), ("bytea", "\\x00",
                                                                      "\\x0000"),
    ("boolean", "t", "f"), ("date", "2026-01-01", "2026-01-02"),
    ("time", "24:00:00", "00:00:00"), ("timetz", "12:00:00+01", "11:00:00+00"),
    ("timestamp", "2026-01-01 00:00:00", "2026-01-01 00:00:00.000001"),
    ("timestamptz", "infinity", "-infinity"), ("interval", "1 day", "24:00:00"),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"),
    ("json", '{"a":1}', '{"a": 1}'), ("jsonb", '{"a": 1.10}', '{"a": 1.1}'),
    ("xml", "<a/>", "<b/>"), ("inet", "10.0.0.1/8", "10.0.0.1/9"),
    ("cidr", "10.0.0.0/8", "10.0.0.0/9"), ("macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    ("macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:06"),
    ("bit(3)", "101", "100"), ("bit varying", "0", "00"), ("point", "(1,2)", "(2,1)"),
    ("line", "{1,2,3}", "{1,2,4}"), ("lseg", "[(0,0),(1,1)]", "[(0,0),(1,2)]"),
    ("box", "(1,1),(0,0)", "(2,1),(0,0)"), ("path", "((0,0),(1,1))", "[(0,0),(1,1)]"),
    ("polygon", "((0,0),(1,1))", "((0,0),(1,2))"), ("circle", "<(0,0),1>", "<(0,0),2>"),
    ("tsvector", "'a':1", "'a':1A"), ("tsquery", "'a' & 'b'", "'a' | 'b'"),
    ("int4range", "[1,2)", "empty"), ("tstzrange", "[2026-01-01,)", "[2026-01-01,infinity)"),
    ("nummultirange", "{[1,2)}", "{[1,2]}"), ("int[]", "{1,NULL}", "[0:1]={1,NULL}"),
    ("text[]", '{"",NULL}', '{NULL,""}'), ("bytea[]", '{"\\\\x00"}', '{"\\\\x01"}'),
    ("oid", "4294967295", "1"), ("pg_lsn", "0/1", "0/2"), ("mood", "sad", "ok"),
    ("positive", "1", "2"), ("pair", "(1,)", '(1,"")'),
]


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def run(s):
    s.prepare()
    columns = ", ".join(f"c{i} {name}" for i, (name, _, _) in enumerate(TYPES))
    values = ", ".join(literal(value) for _, value, _ in TYPES)
    s.source.psql(s.database, user="shop_owner", input=f"""
        CREATE TYPE mood AS ENUM ('sad', 'ok');
        CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE pair AS (a int, b text);
        CREATE TABLE every_type (id int PRIMARY KEY, {columns});
        INSERT INTO every_type SELECT i, {values} FROM generate_series(1, 200) i;
        CREATE TABLE "Two Keys" (a text, "b""q" int, v text, w text, PRIMARY KEY (a, "b""q"));
        INSERT INTO "Two Keys" SELECT 'k' || i % 5, i, '', NULL FROM generate_series(1, 3000) i;
        CREATE TABLE keyless (a int, b text);
        ALTER TABLE keyless REPLICA IDENTITY FULL;
        INSERT INTO keyless SELECT i / 2, 'x' FROM generate_series(1, 100) i;
        CREATE TABLE untouched (id int PRIMARY KEY, v text);
        INSERT INTO untouched SELECT i, 'v' FROM generate_series(1, 3000) i;
    """)
    s.caught_up()
    clean = s.lockstep.must("verify").strip().splitlines()
    if clean[-1] != "differences 0":
        raise Failure(f"verify of equal databases: {clean}")
    expected = plant(s)
    code, out, err = s.lockstep.do("verify", timeout=120)
    got = [line.strip() for line in out.strip().splitlines()]
    if code != 3 or not got or got[-1] != f"differences {len(expected)}":
        raise Failure(f"verify: exit {code}, expected 3 and differences {len(expected)}\n{out}{err}")
    lines = {line for line in got if line.startswith(("public.", '"'))}
    wrong = sorted(lines ^ set(expected))
    if wrong:
        missing = [w for w in wrong if w in expected]
        raise Failure(f"not reported: {missing}\nreported beyond: "
                      f"{[w for w in wrong if w not in expected]}")
    s.finish()


def plant(s):
    """Plants one difference a row and returns the lines that verify must print."""
    sql, expected = [], []
    for i, (name, _, wrong) in enumerate(TYPES):
        sql.append(f"UPDATE every_type SET c{i} = {literal(wrong)} WHERE id = {i + 1}")
        expected.append(f"public.every_type (id)=({i + 1}): differs: c{i}")
    sql.append("UPDATE every_type SET c0 = 5, c8 = NULL WHERE id = 150")
    expected.append("public.every_type (id)=(150): differs: c0, c8")
    sql.append("DELETE FROM every_type WHERE id = 160")
    expected.append("public.every_type (id)=(160): missing on target")
    sql.append("INSERT INTO every_type (id) VALUES (-7)")
    expected.append("public.every_type (id)=(-7): missing on source")
    sql.append("""UPDATE "Two Keys" SET v = NULL WHERE "b""q" = 77""")
    expected.append("""public.Two Keys (a, b"q)=(k2, 77): differs: v""")
    sql.append("""UPDATE "Two Keys" SET w = '' WHERE "b""q" = 78""")
    expected.append("""public.Two Keys (a, b"q)=(k3, 78): differs: w""")
    # As a stray writer would: the trigger that guards the target lets lockstep's role pass.
    s.target.psql(s.database, input="SET session_replication_role = replica;"
                  + ";".join(sql), user="lockstep")
    return expected
