/* Changes into a target, as sets and one by one, and the scans that compare two servers. */
#include "tests/unit/pg_data_support.h"

#include "core/run.h"

#define TARGET "data_apply_test"

static struct arena arena;
static struct db *sql;
static struct db *db;

static const char ddl[] =
    "CREATE SCHEMA s;"
    "CREATE TYPE s.mood AS ENUM ('sad', 'it''s \"ok\"');"
    "CREATE DOMAIN s.code AS varchar(5) CHECK (value <> 'bad');"
    "CREATE TABLE s.wide (id int PRIMARY KEY, t text, b bytea, n numeric(12,2), a text[],"
    " m s.mood, c s.code, g int GENERATED ALWAYS AS (id * 2) STORED, j jsonb, js json, p point,"
    " v varchar(4), ch char(3), bits bit(3), bx box);"
    "CREATE TABLE s.ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text,"
    " seq int UNIQUE);"
    "CREATE TABLE s.ident2 (k text PRIMARY KEY, no int GENERATED ALWAYS AS IDENTITY, v text);"
    "CREATE TABLE s.pair (\"K 1\" text, k2 int, v int, PRIMARY KEY (k2, \"K 1\"));"
    "CREATE TABLE s.heap (a int, n numeric, t text, j json, p point, x xml);"
    "ALTER TABLE s.heap REPLICA IDENTITY FULL;"
    "CREATE TABLE s.swap (id int PRIMARY KEY, u int UNIQUE DEFERRABLE);"
    "CREATE TABLE s.parent (id int PRIMARY KEY);"
    "CREATE TABLE s.child (id int PRIMARY KEY, p int REFERENCES s.parent)";

static int setup(void **state)
{
    test_role(ROLE);
    test_database(TARGET, ROLE);
    sql = test_open(test_uri(TARGET, ROLE), DB_CONTROL);
    db = test_open(test_uri(TARGET, ROLE), DB_APPLY);
    test_control(sql);
    test_sql(sql, ddl);
    return 0;
}

static int teardown(void **state)
{
    pg_close(sql);
    pg_close(db);
    arena_release(&arena);
    return 0;
}

static void begin(void)
{
    struct err e = {0};

    assert_ok(pg_begin(db, &e));
}

static void commit(void)
{
    struct err e = {0};

    assert_ok(pg_commit(db, &e));
}

static uint64_t set(const struct change_set *s)
{
    struct err e = {0};
    uint64_t affected = 99999;

    assert_ok(pg_apply_set(db, s, &affected, &e));
    return affected;
}

static uint64_t apply(const struct table *t, enum change_op op, const struct row *before,
                      const struct row *after)
{
    struct change c = {.op = op, .table = t, .before = before, .after = after};
    struct err e = {0};
    uint64_t affected = 99999;

    assert_ok(pg_apply_row(db, &c, &affected, &e));
    return affected;
}

static struct table *table(const char *name)
{
    return test_table(sql, &arena, "s", name);
}

/* The nastiest row, by number. */
static struct row *nasty(const char *id)
{
    struct row *r =
        test_row(&arena, 15, id, "NULL \"q\" 'a' \\ {x,y} \t\n", NULL, "1.50",
                 "{NULL,\"NULL\",\"a\\\\b \\\"q\\\"\",\"{\",\"\"}", "it's \"ok\"", "é漢", NULL,
                 "{\"a\": 1}", "{\"a\" : 1.0}", "(1,2)", "abcd", "x  ", "101", "(1,1),(0,0)");
    r->v[2] = (struct value){VALUE_SET, 4, "\0\xff\\x"};
    return r;
}

static const char all[] = "SELECT string_agg(w::text, '|' ORDER BY id) FROM s.wide w";

static void test_sets(void **state)
{
    const struct table *t = table("wide");
    struct row *nulls = test_row(&arena, 15, "2", NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                                 NULL, NULL, NULL, NULL, NULL, NULL);
    const struct row *rows[] = {nasty("1"), nulls, nasty("3")};
    const struct row *keys[] = {test_row(&arena, 1, "1"), test_row(&arena, 1, "2"),
                                test_row(&arena, 1, "3")};
    bool columns[15] = {0};
    const char *expected;

    test_sql(sql, "INSERT INTO s.wide VALUES (1, E'NULL \"q\" ''a'' \\\\ {x,y} \\t\\n',"
                  " '\\x00ff5c78', 1.5, ARRAY[NULL, 'NULL', E'a\\\\b \"q\"', '{', ''],"
                  " 'it''s \"ok\"', 'é漢', DEFAULT, '{\"a\":1}', '{\"a\" : 1.0}', '(1,2)', 'abcd',"
                  " 'x', '101', '((0,0),(1,1))')");
    expected = test_value(sql, all);
    test_sql(sql, "DELETE FROM s.wide");
    begin();
    assert_int_equal(set(&(struct change_set){SET_INSERT, t, 1, NULL, rows, NULL}), 1);
    commit();
    assert_string_equal(test_value(sql, all), expected);
    begin();
    assert_int_equal(set(&(struct change_set){SET_INSERT, t, 2, NULL, rows + 1, NULL}), 2);
    assert_int_equal(set(&(struct change_set){SET_ABSENT, t, 3, keys, NULL, NULL}), 3);
    columns[1] = columns[2] = columns[4] = columns[10] = true;
    assert_int_equal(set(&(struct change_set){SET_UPDATE, t, 2, keys + 1, rows, columns}), 2);
    commit();
    assert_string_equal(test_value(sql, "SELECT x.t = y.t AND x.a = y.a AND x.b = y.b"
                                        " AND y.n IS NULL FROM s.wide x, s.wide y"
                                        " WHERE x.id = 1 AND y.id = 2"),
                        "t");
    assert_string_equal(test_value(sql, "SELECT t IS NULL AND n = 1.5 FROM s.wide WHERE id = 3"),
                        "t");
    begin();
    assert_int_equal(set(&(struct change_set){SET_DELETE, t, 2, keys, NULL, NULL}), 2);
    assert_int_equal(set(&(struct change_set){SET_DELETE, t, 3, keys, NULL, NULL}), 1);
    assert_int_equal(set(&(struct change_set){SET_ABSENT, t, 3, keys, NULL, NULL}), 0);
    assert_int_equal(set(&(struct change_set){SET_UPDATE, t, 2, keys, rows, columns}), 0);
    commit();
}

/* Nothing is cut or rounded on its way: the server refuses, and says which class it is. */
static void test_refusals(void **state)
{
    const struct table *t = table("wide");
    static const struct {
        size_t column;
        const char *value;
        enum err_class class;
    } cases[] = {
        {11, "abcde", ERR_DATA},      {6, "toolong", ERR_DATA}, {6, "bad", ERR_CONFLICT},
        {5, "happy", ERR_DATA},       {3, "1e12", ERR_DATA},    {8, "{", ERR_DATA},
        {0, "99999999999", ERR_DATA}, {0, NULL, ERR_CONFLICT},  {13, "1011", ERR_DATA},
    };

    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        size_t k = i / 2;
        struct row *r = nasty("7");
        const struct row *rows[] = {r};
        struct change_set s = {SET_INSERT, t, 1, NULL, rows, NULL};
        struct change c = {.op = OP_INSERT, .table = t, .after = r};
        struct err e = {0};
        uint64_t n;

        r->v[cases[k].column] = test_row(&arena, 1, cases[k].value)->v[0];
        begin();
        assert_ok(pg_savepoint(db, &e));
        if ((i % 2 ? pg_apply_row(db, &c, &n, &e) : pg_apply_set(db, &s, &n, &e)) == 0)
            fail_msg("%s was taken", cases[k].value);
        if (e.class != cases[k].class)
            fail_msg("%s: %s %s", cases[k].value, err_class_name(e.class), e.msg);
        assert_ok(pg_rollback_to(db, &e));
        assert_int_equal(apply(t, OP_INSERT, NULL, nasty("7")), 1);
        assert_ok(pg_rollback(db, &e));
    }
    begin();
    {
        const struct row *rows[] = {nasty("8"), nasty("8")};
        struct change_set s = {SET_INSERT, t, 2, NULL, rows, NULL};
        struct err e = {0};
        uint64_t n;

        assert_int_equal(pg_apply_set(db, &s, &n, &e), -1);
        assert_int_equal(e.class, ERR_CONFLICT);
        assert_ok(pg_rollback(db, &e));
    }
}

static void test_identity(void **state)
{
    const struct table *t = table("ident");
    const struct table *t2 = table("ident2");
    const struct row *rows[] = {test_row(&arena, 3, "7", "seven", "1"),
                                test_row(&arena, 3, "8", "eight", "2")};
    const struct row *keys[] = {test_row(&arena, 1, "7"), test_row(&arena, 1, "8")};
    const struct row *rows2[] = {test_row(&arena, 3, "a", "5", "x")};
    const struct row *keys2[] = {test_row(&arena, 1, "a")};
    bool columns[3] = {true, true, true};

    begin();
    assert_int_equal(set(&(struct change_set){SET_INSERT, t, 2, NULL, rows, NULL}), 2);
    assert_int_equal(set(&(struct change_set){SET_UPDATE, t, 2, keys, rows, columns}), 2);
    assert_int_equal(set(&(struct change_set){SET_INSERT, t2, 1, NULL, rows2, NULL}), 1);
    assert_int_equal(set(&(struct change_set){SET_UPDATE, t2, 1, keys2, rows2, columns}), 1);
    /* Another identity than the row has: one row too few, so that the caller looks closer. */
    rows2[0] = test_row(&arena, 3, "a", "6", "y");
    assert_int_equal(set(&(struct change_set){SET_UPDATE, t2, 1, keys2, rows2, columns}), 0);
    commit();
    begin();
    assert_int_equal(apply(t, OP_UPDATE, test_row(&arena, 3, "7", TEST_UNCHANGED, TEST_UNCHANGED),
                           test_row(&arena, 3, "9", TEST_UNCHANGED, "3")),
                     1);
    assert_int_equal(apply(t2, OP_UPDATE, NULL, test_row(&arena, 3, "a", "6", TEST_UNCHANGED)), 1);
    assert_int_equal(apply(t2, OP_UPDATE, NULL, test_row(&arena, 3, "zz", "6", TEST_UNCHANGED)), 0);
    assert_int_equal(apply(t, OP_UPDATE, NULL, test_row(&arena, 3, "8", "acht", "2")), 1);
    commit();
    assert_string_equal(
        test_value(sql, "SELECT string_agg(i::text, '|' ORDER BY id) FROM s.ident i"),
        "(8,acht,2)|(9,seven,3)");
    assert_string_equal(test_value(sql, "SELECT string_agg(i::text, '|') FROM s.ident2 i"),
                        "(a,6,x)");
}

static void test_rows(void **state)
{
    const struct table *t = table("pair");
    const struct table *wide = table("wide");
    struct row *r = nasty("1");

    begin();
    assert_int_equal(apply(t, OP_INSERT, NULL, test_row(&arena, 3, "a'", "1", "10")), 1);
    assert_int_equal(apply(t, OP_UPDATE, test_row(&arena, 3, "a'", "1", TEST_UNCHANGED),
                           test_row(&arena, 3, "b", "2", TEST_UNCHANGED)),
                     1);
    assert_int_equal(apply(t, OP_UPDATE, NULL, test_row(&arena, 3, "b", "2", "11")), 1);
    assert_int_equal(apply(t, OP_UPDATE, NULL, test_row(&arena, 3, "none", "2", "11")), 0);
    assert_string_equal(test_value(db, "SELECT p::text FROM s.pair p"), "(b,2,11)");
    assert_int_equal(apply(t, OP_DELETE, test_row(&arena, 3, "b", "2", TEST_UNCHANGED), NULL), 1);
    assert_int_equal(apply(t, OP_DELETE, test_row(&arena, 3, "b", "2", TEST_UNCHANGED), NULL), 0);
    assert_int_equal(apply(wide, OP_INSERT, NULL, r), 1);
    r = nasty("1");
    r->v[1].state = r->v[2].state = VALUE_UNCHANGED;
    r->v[4].state = VALUE_NULL;
    assert_int_equal(apply(wide, OP_UPDATE, NULL, r), 1);
    assert_string_equal(test_value(db, "SELECT b::text || length(t) || (a IS NULL) FROM s.wide"),
                        "\\x00ff5c7823true");
    commit();
}

/* Exactly one of equal rows, and never one that merely compares equal. */
static void test_keyless(void **state)
{
    const struct table *t = table("heap");
    struct row *a = test_row(&arena, 6, "1", "1.0", "x", "{\"k\": 1}", "(1,2)", "<a>b</a>");
    struct row *b = test_row(&arena, 6, "1", "1.00", "x", "{\"k\": 1}", "(1,2)", "<a>b</a>");
    struct row *n = test_row(&arena, 6, NULL, NULL, NULL, NULL, NULL, NULL);

    begin();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(apply(t, OP_INSERT, NULL, a), 1);
        assert_int_equal(apply(t, OP_INSERT, NULL, n), 1);
    }
    assert_int_equal(apply(t, OP_DELETE, b, NULL), 0);
    assert_int_equal(apply(t, OP_UPDATE, a, b), 1);
    assert_int_equal(apply(t, OP_DELETE, n, NULL), 1);
    assert_int_equal(apply(t, OP_UPDATE, n, a), 1);
    assert_string_equal(test_value(db, "SELECT string_agg(h::text, '|' ORDER BY n, n::text)"
                                       " FROM s.heap h WHERE a = 1"),
                        "(1,1.0,x,\"{\"\"k\"\": 1}\",\"(1,2)\",<a>b</a>)|"
                        "(1,1.0,x,\"{\"\"k\"\": 1}\",\"(1,2)\",<a>b</a>)|"
                        "(1,1.0,x,\"{\"\"k\"\": 1}\",\"(1,2)\",<a>b</a>)|"
                        "(1,1.00,x,\"{\"\"k\"\": 1}\",\"(1,2)\",<a>b</a>)");
    assert_int_equal(apply(t, OP_DELETE, b, NULL), 1);
    assert_int_equal(apply(t, OP_DELETE, b, NULL), 0);
    assert_string_equal(test_value(db, "SELECT count(*) FROM s.heap"), "4");
    commit();
}

/* Without a key each change reads the whole table: that takes longer than other statements may. */
static void test_keyless_takes_its_time(void **state)
{
    struct pg_db *d = pg_db_from(db);
    struct row *row;
    struct change c;
    const struct change *one = &c;
    int timeout_ms = d->timeout_ms;
    struct err e = {0};
    uint64_t n = 0;
    size_t failed;

    test_sql(sql,
             "CREATE TABLE s.slow (id int, v text);"
             "ALTER TABLE s.slow REPLICA IDENTITY FULL;"
             "CREATE FUNCTION s.nap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
             " PERFORM pg_sleep(1.5); RETURN NEW; END $$;"
             "CREATE TRIGGER nap BEFORE UPDATE ON s.slow FOR EACH ROW EXECUTE FUNCTION s.nap();"
             "ALTER TABLE s.slow ENABLE ALWAYS TRIGGER nap;"
             "INSERT INTO s.slow VALUES (1, 'a')");
    row = test_row(&arena, 2, "1", "a");
    c = (struct change){.op = OP_UPDATE, .table = table("slow"), .before = row, .after = row};
    begin();
    d->timeout_ms = 500;
    assert_ok(pg_apply_row(db, &c, &n, &e));
    assert_int_equal(n, 1);
    assert_ok(pg_apply_rows(db, &one, 1, &n, &failed, &e));
    assert_int_equal(n, 1);
    assert_int_equal(d->timeout_ms, 500);
    d->timeout_ms = timeout_ms;
    commit();
}

/* Unique values that swap: legal in the order of the rows, because constraints are deferred; after
 * rollback_to too, which takes the SET CONSTRAINTS back. */
static void test_deferred(void **state)
{
    const struct table *t = table("swap");
    struct err e = {0};

    test_sql(sql, "INSERT INTO s.swap VALUES (1, 10), (2, 20)");
    begin();
    assert_ok(pg_savepoint(db, &e));
    assert_int_equal(apply(t, OP_UPDATE, NULL, test_row(&arena, 2, "1", "20")), 1);
    assert_ok(pg_rollback_to(db, &e));
    assert_int_equal(apply(t, OP_UPDATE, NULL, test_row(&arena, 2, "1", "20")), 1);
    assert_int_equal(apply(t, OP_UPDATE, NULL, test_row(&arena, 2, "2", "10")), 1);
    commit();
    assert_string_equal(
        test_value(sql, "SELECT string_agg(s::text, '|' ORDER BY id) FROM s.swap s"),
        "(1,20)|(2,10)");
}

static void test_truncate(void **state)
{
    const struct table *tables[] = {table("child"), table("parent")};
    struct err e = {0};

    test_sql(sql, "INSERT INTO s.parent VALUES (1); INSERT INTO s.child VALUES (1, 1)");
    begin();
    assert_ok(pg_truncate(db, tables, 2, true, &e));
    commit();
    assert_string_equal(test_value(sql, "SELECT count(*) FROM s.child, s.parent"), "0");
    /* The child refers to it and stays: the server would refuse a TRUNCATE. */
    test_sql(sql, "INSERT INTO s.parent VALUES (1); INSERT INTO s.child VALUES (1, 1)");
    begin();
    assert_ok(pg_truncate(db, tables + 1, 1, false, &e));
    commit();
    assert_string_equal(test_value(sql, "SELECT count(*) FROM s.parent"), "0");
    assert_string_equal(test_value(sql, "SELECT count(*) FROM s.child"), "1");
}

/* More statements than are kept; a large row, after which the connection is another. */
static void test_statements_are_bounded(void **state)
{
    const struct table *t = table("wide");
    const struct row *rows[] = {nasty("100")};
    const struct row *keys[] = {test_row(&arena, 1, "100")};
    struct err e = {0};
    struct row *large;
    char *text;
    const char *pid = arena_strdup(&arena, test_value(db, "SELECT pg_backend_pid()"));

    begin();
    assert_int_equal(set(&(struct change_set){SET_INSERT, t, 1, NULL, rows, NULL}), 1);
    for (unsigned mask = 1; mask < 200; mask++) {
        bool columns[15] = {0};

        for (unsigned i = 0; i < 8; i++)
            columns[i < 6 ? i + 1 : i + 2] = mask >> i & 1;
        assert_int_equal(set(&(struct change_set){SET_UPDATE, t, 1, keys, rows, columns}), 1);
    }
    commit();
    assert_string_equal(test_value(db, "SELECT count(*) <= 64 FROM pg_prepared_statements"), "t");
    assert_string_equal(test_value(db, "SELECT pg_backend_pid()"), pid);

    text = calloc(1, 6000000);
    assert_non_null(text);
    memset(text, 'z', 6000000);
    large = nasty("101");
    large->v[1] = (struct value){VALUE_SET, 6000000, text};
    large->v[2] = large->v[1];
    begin();
    assert_int_equal(apply(t, OP_INSERT, NULL, large), 1);
    assert_string_equal(test_value(db, "SELECT pg_backend_pid()"), pid);
    assert_ok(pg_commit(db, &e));
    assert_string_not_equal(test_value(db, "SELECT pg_backend_pid()"), pid);
    assert_string_equal(
        test_value(sql, "SELECT (t = repeat('z', 6000000)) || length(b)::text FROM s.wide"
                        " WHERE id = 101"),
        "true6000000");
    begin();
    assert_int_equal(set(&(struct change_set){SET_DELETE, t, 1, keys, NULL, NULL}), 1);
    commit();
    free(text);
    test_sql(sql, "DELETE FROM s.wide");
}

/* What is said again is prepared, and survives that its answer changes its type. */
static void test_said_again(void **state)
{
    static const char kept[] = "SELECT v FROM s.kept";
    static const char count[] = "SELECT count(*)::text FROM pg_prepared_statements"
                                " WHERE statement = 'SELECT v FROM s.kept'";
    struct err e = {0};

    test_sql(sql, "CREATE TABLE s.kept (v int); INSERT INTO s.kept VALUES (7)");
    test_sql(sql, "GRANT ALL ON s.kept TO PUBLIC");
    assert_string_equal(test_value(db, kept), "7");
    assert_string_equal(test_value(db, count), "0");
    assert_string_equal(test_value(db, kept), "7");
    assert_string_equal(test_value(db, count), "1");
    test_sql(sql, "ALTER TABLE s.kept ALTER v TYPE text USING 'seven'");
    assert_string_equal(test_value(db, kept), "seven");
    assert_string_equal(test_value(db, kept), "seven");
    test_sql(sql, "ALTER TABLE s.kept ALTER v TYPE int USING 8");
    begin();
    assert_null(pg_query(pg_db_from(db), kept, 0, NULL, &e));
    assert_string_equal(e.sqlstate, "0A000");
    assert_int_equal(e.class, ERR_RETRY);
    assert_ok(pg_rollback(db, &e));
    assert_string_equal(test_value(db, kept), "8");
    test_sql(sql, "DROP TABLE s.kept");
}

/* ---- many at once ---- */

#define MANY 10000

static struct change change(const struct table *t, enum change_op op, const struct row *before,
                            const struct row *after)
{
    return (struct change){.op = op, .table = t, .before = before, .after = after};
}

static const char *number(size_t i)
{
    return arena_printf(&arena, "%zu", i);
}

/* The i-th of a mixed load: ten changes to each of 1000 round numbers, over three tables, with
 * every special statement among them. Each meets one row. */
static struct change mixed(const struct table *const tables[3], size_t i)
{
    const struct table *pair = tables[0];
    const struct table *ident = tables[1];
    const struct table *heap = tables[2];
    const char *n = number(i / 10);
    const char *other = number(i / 10 + MANY);
    const struct row *equal =
        test_row(&arena, 6, n, "1.0", i / 10 % 7 ? "x" : NULL, NULL, NULL, NULL);

    switch (i % 10) {
    case 0:
        return change(pair, OP_INSERT, NULL, test_row(&arena, 3, "k", n, "1"));
    case 1:
        return change(heap, OP_INSERT, NULL, equal);
    case 2:
        return change(pair, OP_UPDATE, NULL, test_row(&arena, 3, "k", n, "2"));
    case 3: /* a key change */
        return change(pair, OP_UPDATE, test_row(&arena, 3, "k", n, TEST_UNCHANGED),
                      test_row(&arena, 3, "k", other, TEST_UNCHANGED));
    case 4: /* nothing but the key */
        return change(pair, OP_UPDATE, NULL, test_row(&arena, 3, "k", other, TEST_UNCHANGED));
    case 5:
        return change(ident, OP_INSERT, NULL, test_row(&arena, 3, n, "v", n));
    case 6: /* another identity: written anew */
        return change(ident, OP_UPDATE, test_row(&arena, 3, n, TEST_UNCHANGED, TEST_UNCHANGED),
                      test_row(&arena, 3, other, "w", TEST_UNCHANGED));
    case 7:
        return change(heap, OP_UPDATE, equal, test_row(&arena, 6, n, "2.0", "y", NULL, NULL, NULL));
    case 8:
        return change(heap, OP_DELETE, test_row(&arena, 6, n, "2.0", "y", NULL, NULL, NULL), NULL);
    default:
        return change(pair, OP_UPDATE, NULL, test_row(&arena, 3, "k", other, "3"));
    }
}

static struct many {
    struct change changes[MANY];
    const struct change *list[MANY];
    uint64_t affected[MANY];
} many;

static void fill_many(void)
{
    const struct table *tables[3] = {table("pair"), table("ident"), table("heap")};

    for (size_t i = 0; i < MANY; i++) {
        many.changes[i] = mixed(tables, i);
        many.list[i] = &many.changes[i];
        many.affected[i] = 99999;
    }
}

static size_t apply_many(size_t n, struct err *e)
{
    size_t failed = n;

    if (pg_apply_rows(db, many.list, n, many.affected, &failed, e) == 0)
        return n;
    assert_true(failed < n);
    return failed;
}

static void assert_each_met_one(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        if (many.affected[i] != 1)
            fail_msg("change %zu met %llu rows", i, (unsigned long long)many.affected[i]);
    }
}

static void clean_many(void)
{
    test_sql(sql, "TRUNCATE s.pair, s.ident, s.heap");
}

static void test_many(void **state)
{
    struct err e = {0};

    clean_many();
    fill_many();
    begin();
    assert_int_equal(apply_many(MANY, &e), MANY);
    assert_each_met_one(0, MANY);
    commit();
    assert_string_equal(test_value(sql, "SELECT count(*)::text || sum(v) || min(k2) FROM s.pair"),
                        "1000300010000");
    assert_string_equal(test_value(sql, "SELECT count(*)::text || min(v) || min(id) || sum(seq)"
                                        " FROM s.ident"),
                        "1000w10000499500");
    assert_string_equal(test_value(sql, "SELECT count(*) FROM s.heap"), "0");
    clean_many();
}

/* The server's refusal names its change, wherever in the window it lies; rows that were missed
 * before it are told too; and after rollback_to the same connection goes on. */
static void test_many_refused(void **state)
{
    static const size_t at[] = {0, 1, 15, 16, 255, 256, 257, 5000, MANY - 1};
    const struct table *pair = table("pair");

    clean_many();
    test_sql(sql, "INSERT INTO s.pair VALUES ('there', 1, 1)");
    for (size_t i = 0; i < 2 * sizeof at / sizeof at[0]; i++) {
        size_t k = at[i / 2];
        const char *bad = i % 2 ? "x1" : "1";
        struct err e = {0};

        fill_many();
        many.changes[k] = change(pair, OP_INSERT, NULL, test_row(&arena, 3, "there", "1", bad));
        if (k > 3)
            many.changes[k - 3] =
                change(pair, OP_DELETE, test_row(&arena, 3, "no", "1", TEST_UNCHANGED), NULL);
        begin();
        assert_ok(pg_savepoint(db, &e));
        assert_int_equal(apply_many(k + 400 < MANY ? k + 1 + k % 400 : MANY, &e), k);
        assert_int_equal(e.class, i % 2 ? ERR_DATA : ERR_CONFLICT);
        assert_non_null(strstr(e.msg, "insert of s.pair"));
        assert_each_met_one(0, k > 3 ? k - 3 : k);
        assert_true(k <= 3 || many.affected[k - 3] == 0);
        assert_ok(pg_rollback_to(db, &e));
        assert_string_equal(test_value(db, "SELECT count(*) FROM s.pair"), "1");
        fill_many();
        assert_int_equal(apply_many(100, &e), 100);
        assert_each_met_one(0, 100);
        assert_ok(pg_rollback(db, &e));
    }
    clean_many();
}

/* More bytes than the sockets hold on both ways: neither side waits for the other for ever. A row
 * that is too large for the pipeline goes between two of them. */
static void test_many_bytes(void **state)
{
    const struct table *t = table("wide");
    size_t len = 200000;
    char *text = calloc(1, 5000000);
    struct err e = {0};

    assert_non_null(text);
    memset(text, 'q', 5000000);
    for (size_t i = 0; i < 200; i++) {
        struct row *r = test_row(&arena, 15, number(i), NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                                 NULL, NULL, NULL, NULL, NULL, NULL, NULL);

        r->v[1] = (struct value){VALUE_SET, i == 77 ? 5000000 : len, text};
        many.changes[i] = change(t, OP_INSERT, NULL, r);
        many.list[i] = &many.changes[i];
        many.affected[i] = 99999;
    }
    begin();
    assert_int_equal(apply_many(200, &e), 200);
    assert_each_met_one(0, 200);
    commit();
    assert_string_equal(test_value(sql, "SELECT sum(length(t)) FROM s.wide"), "44800000");
    test_sql(sql, "DELETE FROM s.wide");
    free(text);
}

/* Swaps of unique values, and another identity than the log told: as one by one. */
static void test_many_special(void **state)
{
    const struct table *t = table("swap");
    const struct table *t2 = table("ident2");
    struct err e = {0};
    const struct row *rows[] = {
        test_row(&arena, 2, "1", "20"),     test_row(&arena, 2, "2", "10"),
        test_row(&arena, 2, "1", "30"),     test_row(&arena, 2, "2", "20"),
        test_row(&arena, 3, "a", "5", "x"), test_row(&arena, 3, "a", "6", "y"),
        test_row(&arena, 2, "9", "1")};

    test_sql(sql, "DELETE FROM s.swap; DELETE FROM s.ident2;"
                  "INSERT INTO s.swap VALUES (1, 10), (2, 20)");
    for (size_t i = 0; i < 7; i++) {
        many.changes[i] =
            change(i == 4 || i == 5 ? t2 : t, i == 4 ? OP_INSERT : OP_UPDATE, NULL, rows[i]);
        many.list[i] = &many.changes[i];
    }
    begin();
    assert_ok(pg_savepoint(db, &e));
    assert_int_equal(apply_many(7, &e), 7);
    assert_each_met_one(0, 6);
    assert_int_equal(many.affected[6], 0);
    assert_ok(pg_rollback_to(db, &e));
    assert_int_equal(apply_many(6, &e), 6);
    many.list[0] = &many.changes[2];
    many.changes[1].op = OP_TRUNCATE;
    assert_int_equal(apply_many(3, &e), 1);
    assert_int_equal(e.class, ERR_BUG);
    commit();
    assert_string_equal(
        test_value(sql, "SELECT string_agg(s::text, '|' ORDER BY id) FROM s.swap s"),
        "(1,30)|(2,20)");
}

static void wait_session_gone(const char *pid)
{
    const char *gone = arena_printf(
        &arena, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)", pid);
    int64_t deadline = mono_ms() + 10000;

    while (strcmp(test_value(sql, gone), "t") != 0) {
        if (mono_ms() > deadline)
            fail_msg("session %s is still there", pid);
        nap_ms(10);
    }
}

/* A lock that is not to be had, and a server that does not answer: errors, with an end. */
static void test_many_interrupted(void **state)
{
    const struct table *t = table("pair");
    struct db *own = db;
    struct err e = {0};
    const char *pid;

    clean_many();
    test_sql(sql, "BEGIN; LOCK TABLE s.pair");
    fill_many();
    begin();
    pg_exec(pg_db_from(db), "SET LOCAL lock_timeout = '50ms'", &e);
    assert_int_equal(apply_many(20, &e), 0);
    assert_int_equal(e.class, ERR_RETRY);
    assert_string_equal(e.sqlstate, "55P03");
    assert_ok(pg_rollback(db, &e));
    db = test_open(test_uri(TARGET, ROLE), DB_APPLY);
    pid = arena_strdup(&arena, test_value(db, "SELECT pg_backend_pid()"));
    begin();
    pg_db_from(db)->timeout_ms = 200; /* no answer at all: given up (one of a table with a key) */
    assert_int_equal(apply_many(1, &e), 0);
    assert_int_equal(e.class, ERR_RETRY);
    assert_true(pg_db_from(db)->broken);
    pg_close(db);
    db = own;
    test_sql(sql, "ROLLBACK");
    wait_session_gone(pid);
    begin();
    assert_int_equal(apply(t, OP_INSERT, NULL, test_row(&arena, 3, "k", "1", "1")), 1);
    assert_ok(pg_rollback(db, &e));
}

static size_t scan(struct db *reader, const struct table *t, const char *snapshot,
                   const struct row *const *keys, size_t nkeys, struct row **last)
{
    struct err e = {0};
    const struct row *row;
    size_t n = 0;
    int rc;

    assert_ok(pg_scan_begin(reader, t, snapshot, keys, nkeys, &e));
    while ((rc = pg_scan_next(reader, &row, &e)) > 0) {
        n++;
        *last = row_copy(&arena, row);
    }
    assert_ok(rc);
    assert_ok(pg_scan_end(reader, &e));
    return n;
}

static void test_scans(void **state)
{
    struct db_options o = {.uri = test_uri(TARGET, ROLE), .migration = "scan"};
    struct db *reader = test_open(o.uri, DB_READ);
    const struct table *t = table("wide");
    const struct table *pair = table("pair");
    const struct row *rows[] = {nasty("1")};
    const struct row *keys[1300];
    struct row *last = NULL;
    struct err e = {0};
    struct pin pin;
    char snapshot[80];

    begin();
    assert_int_equal(set(&(struct change_set){SET_INSERT, t, 1, NULL, rows, NULL}), 1);
    commit();
    for (int i = 0; i < 3; i++) { /* one at a time, each under the same name */
        assert_ok(pg_pin_source(&o, &arena, &pin, &e));
        if (i < 2)
            pg_close(pin.holder);
    }
    assert_true(pin.next.major > 0);
    assert_string_equal(test_value(sql, "SELECT count(*) FROM pg_replication_slots"
                                        " WHERE slot_name LIKE 'lockstep_scan%'"),
                        "0");
    begin();
    assert_ok(pg_pin_target(db, snapshot, sizeof snapshot, &e));
    test_sql(sql, "INSERT INTO s.wide (id) VALUES (2);"
                  "INSERT INTO s.pair SELECT 'k''' || i, i, i FROM generate_series(1, 2000) i");
    assert_int_equal(scan(reader, t, snapshot, NULL, 0, &last), 1);
    assert_int_equal(scan(reader, t, pin.snapshot, NULL, 0, &last), 1);
    assert_true(row_equal(last, rows[0]));
    commit();
    assert_int_equal(scan(reader, t, NULL, NULL, 0, &last), 2);
    pg_close(pin.holder);
    for (int i = 0; i < 1300; i++)
        keys[i] = test_row(&arena, 2, arena_printf(&arena, "%d", i + 1000),
                           arena_printf(&arena, "k'%d", i + 1000));
    assert_int_equal(scan(reader, pair, NULL, keys, 1300, &last), 1001);
    assert_int_equal(scan(reader, pair, NULL, keys, 0, &last), 0);
    keys[0] = test_row(&arena, 1, "1");
    assert_int_equal(scan(reader, t, NULL, keys, 1, &last), 1);
    /* Early to give up. */
    assert_ok(pg_scan_begin(reader, pair, NULL, NULL, 0, &e));
    assert_ok(pg_scan_end(reader, &e));
    assert_int_equal(scan(reader, pair, NULL, NULL, 0, &last), 2000);
    pg_close(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_keyless),
        cmocka_unit_test(test_keyless_takes_its_time),
        cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_statements_are_bounded),
        cmocka_unit_test(test_said_again),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_many_refused),
        cmocka_unit_test(test_many_bytes),
        cmocka_unit_test(test_many_special),
        cmocka_unit_test(test_many_interrupted),
        cmocka_unit_test(test_scans),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
