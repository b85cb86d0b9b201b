/* Chunks on a real server: planned, read and loaded, located. */
#include "tests/unit/pg_data_support.h"

#define SOURCE "data_copy_test"
#define TARGET "data_copy_test_target"

static struct arena arena;
static struct db *control;
static struct db *reader;
static struct db *loader;

static int setup(void **state)
{
    test_role(ROLE);
    test_database(SOURCE, ROLE);
    test_database(TARGET, ROLE);
    control = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    reader = test_open(test_uri(SOURCE, ROLE), DB_READ);
    loader = test_open(test_uri(TARGET, ROLE), DB_LOAD);
    struct db *sql = test_open(test_uri(TARGET, ROLE), DB_CONTROL);

    test_control(sql);
    pg_close(sql);
    test_sql(control, "CREATE SCHEMA s");
    test_sql(loader, "CREATE SCHEMA s");
    return 0;
}

static int teardown(void **state)
{
    pg_close(control);
    pg_close(reader);
    pg_close(loader);
    arena_release(&arena);
    return 0;
}

/* All rows of a range, counted by the lines in its blocks. */
static uint64_t read_range(const struct table *t, const struct range *range, const char *snapshot)
{
    struct read_request r = {
        .table = t, .range = *range, .snapshot = snapshot, .format = BLOCK_NATIVE};
    struct err e = {0};
    struct block b;
    struct cut cut;
    uint64_t rows = 0;
    uint64_t told = 0;
    int rc;

    assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
    while ((rc = pg_read_next(reader, &b, &e)) > 0) {
        for (size_t i = 0; i < b.len; i++)
            rows += b.data[i] == '\n';
    }
    assert_ok(rc);
    assert_ok(pg_read_end(reader, &told, &e));
    assert_int_equal(rows, told);
    assert_true(cut.past.major > 0);
    return rows;
}

static void covers(const char *ddl, const char *name, size_t least, bool by_blocks)
{
    struct range_list ranges;
    struct err e = {0};
    struct table *t;
    char sql[200];
    uint64_t rows = 0;
    uint64_t largest = 0;
    uint64_t all;

    test_sql(control, ddl);
    t = test_table(control, &arena, "s", name);
    t->scattered = by_blocks;
    snprintf(sql, sizeof sql, "SELECT count(*) FROM s.%s", name);
    all = strtoull(test_value(control, sql), NULL, 10);
    assert_ok(pg_chunk_plan(reader, t, 64 * 1024, by_blocks, &arena, &ranges, &e));
    assert_true(ranges.n >= least);
    for (size_t i = 0; i < ranges.n; i++) {
        uint64_t n = read_range(t, &ranges.v[i], NULL);

        rows += n;
        largest = n > largest ? n : largest;
    }
    assert_int_equal(rows, all);
    assert_null(ranges.v[0].lower);
    assert_null(ranges.v[ranges.n - 1].upper);
    assert_true(ranges.v[ranges.n - 1].block_to == UINT64_MAX);
    assert_true(all == 0 || largest * least / 4 < all);
}

static void test_plan_covers_each_row_once(void **state)
{
    covers("CREATE TABLE s.ints (id bigint PRIMARY KEY, t text);"
           "INSERT INTO s.ints SELECT i * 7, repeat('x', 60) FROM generate_series(-9999, 9999) i",
           "ints", 10, false);
    covers("CREATE TABLE s.uuids (id uuid PRIMARY KEY, t text);"
           "INSERT INTO s.uuids SELECT gen_random_uuid(), repeat('x', 60)"
           " FROM generate_series(1, 20000) i",
           "uuids", 10, false);
    covers("CREATE TABLE s.nums (n numeric(20,4) PRIMARY KEY);"
           "INSERT INTO s.nums SELECT i / 7.0 FROM generate_series(-9999, 9999) i",
           "nums", 5, false);
    covers("CREATE COLLATION s.german (provider = icu, locale = 'de');"
           "CREATE TABLE s.pairs (b text COLLATE s.german, \"A a\" int, \"q'\" bytea,"
           " PRIMARY KEY (b, \"q'\", \"A a\"));"
           "INSERT INTO s.pairs SELECT chr(65 + i % 50) || repeat(chr(97 + i % 3), i % 9)"
           " || E'\\'\\\\\\t', i, decode(md5(i::text), 'hex') FROM generate_series(1, 20000) i",
           "pairs", 10, false);
    covers("CREATE TABLE s.heap (a int, b text);"
           "INSERT INTO s.heap SELECT i, repeat('y', 80) FROM generate_series(1, 20000) i;"
           "DELETE FROM s.heap WHERE a % 3 = 0",
           "heap", 10, true);
    covers("CREATE TABLE s.none (id int PRIMARY KEY)", "none", 1, false);
    covers("CREATE TABLE s.few (a int); INSERT INTO s.few VALUES (1), (1)", "few", 1, false);
}

/* The nasty values, moved in both formats and compared by the servers' own texts. */
static void move(const struct table *t, enum block_format format, bool reread)
{
    struct read_request r = {.table = t, .range = {.kind = RANGE_ALL}, .format = format};
    struct err e = {0};
    struct block b;
    struct cut cut;
    uint64_t read = 0;
    uint64_t loaded = 0;
    int rc;

    assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
    assert_ok(pg_begin(loader, &e));
    test_sql(loader, "TRUNCATE s.nasty");
    assert_ok(pg_load_begin(loader, t, format, &e));
    while ((rc = pg_read_next(reader, &b, &e)) > 0) {
        assert_true(b.len > 0); /* status and max_rate count it */
        assert_ok(pg_load_block(loader, &b, &e));
    }
    assert_ok(rc);
    assert_ok(pg_load_end(loader, &loaded, &e));
    assert_ok(pg_commit(loader, &e));
    assert_ok(pg_read_end(reader, &read, &e));
    assert_int_equal(read, loaded);
    assert_true(read > 0);
}

static void test_values_come_through(void **state)
{
    static const char ddl[] =
        "CREATE TYPE s.mood AS ENUM ('sad', 'it''s \"ok\"', 'a,b');"
        "CREATE DOMAIN s.code AS varchar(5) CHECK (value <> '');"
        "CREATE TABLE s.nasty (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " t text, b bytea, n numeric, f float8, j jsonb, a text[], m s.mood, c s.code,"
        " g int GENERATED ALWAYS AS (id * 2) STORED, ts timestamptz, p point)";
    static const char rows[] =
        "INSERT INTO s.nasty (t, b, n, f, j, a, m, c, ts, p) VALUES"
        " (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),"
        " ('', '', 0, 'NaN', '{}', '{}', 'sad', 'x', '-infinity', '(1,2)'),"
        " ('NULL', '\\x00ff5c0a09', 'NaN', '-0', 'null', '{NULL,\"NULL\",\"\"}', 'it''s \"ok\"',"
        "  '\\N', '4713-01-01 BC', '(1e300,-0)'),"
        " (E'\\\\N', '\\x5c4e', 1e-30, 1e-300, '\"\\\\n\"', E'{\"a\\\\\\\\b\",\"{\",\",\"}', 'a,b',"
        "  '\\.', '294276-12-31 23:59:59.999999+00', NULL),"
        " (E'tab\\t nl\\n cr\\r bs\\\\ \\b\\f\\v \\\\. \\\\x41 é 漢 \U0001F600', NULL, 1.50, 0.1, "
        "'[1]',"
        "  '{{1,2},{3,4}}', NULL, 'é漢', 'epoch', NULL),"
        " (repeat('long\\', 40000), decode(repeat('00ff', 100000), 'hex'), 1, 2, '1', '{a}', 'sad',"
        "  'y', now(), NULL)";
    static const char digest[] = "SELECT string_agg(n::text, E'\\n' ORDER BY n.id) FROM s.nasty n";
    static const char md5[] =
        "SELECT md5(string_agg(n::text, E'\\n' ORDER BY n.id)) || count(*) FROM s.nasty n";
    struct table *t;

    test_sql(control, ddl);
    test_sql(control, rows);
    test_sql(loader, ddl);
    t = test_table(control, &arena, "s", "nasty");
    assert_true(t->columns[9].generated);
    move(t, BLOCK_NATIVE, false);
    assert_string_equal(test_value(loader, md5), test_value(control, md5));
    move(t, BLOCK_ROWS, false);
    assert_string_equal(test_value(loader, digest), test_value(control, digest));
    assert_string_equal(test_value(loader, md5), test_value(control, md5));
}

/* A row above the permit's size goes through, and the connection that carried it is a new one. */
static void test_large_row(void **state)
{
    const char *pid;
    struct table *t;
    struct range all = {.kind = RANGE_ALL};

    test_sql(control, "CREATE TABLE s.large (id int PRIMARY KEY, t text);"
                      "ALTER TABLE s.large ALTER t SET STORAGE EXTERNAL;"
                      "INSERT INTO s.large VALUES (1, 'a'), (2, repeat('x', 9000000)), (3, 'b')");
    t = test_table(control, &arena, "s", "large");
    pid = test_value(reader, "SELECT pg_backend_pid()");
    assert_int_equal(read_range(t, &all, NULL), 3);
    assert_string_not_equal(test_value(reader, "SELECT pg_backend_pid()"), pid);
    pid = test_value(reader, "SELECT pg_backend_pid()");
    all = (struct range){.kind = RANGE_POINT, .lower = test_row(&arena, 1, "3")};
    assert_int_equal(read_range(t, &all, NULL), 1);
    assert_string_equal(test_value(reader, "SELECT pg_backend_pid()"), pid);
}

static void test_common_snapshot(void **state)
{
    struct db *holder = test_open(test_uri(SOURCE, ROLE), DB_READ);
    struct range all = {.kind = RANGE_ALL};
    struct err e = {0};
    struct table *t;
    char snapshot[80];
    struct read_request r = {.format = BLOCK_NATIVE, .snapshot = snapshot};
    struct cut cut;

    test_sql(control, "CREATE TABLE s.shot (id int PRIMARY KEY); INSERT INTO s.shot VALUES (1)");
    assert_ok(pg_begin(holder, &e));
    snprintf(snapshot, sizeof snapshot, "%s", test_value(holder, "SELECT pg_export_snapshot()"));
    test_sql(control, "INSERT INTO s.shot VALUES (2)");
    t = test_table(control, &arena, "s", "shot");
    assert_int_equal(read_range(t, &all, snapshot), 1);
    assert_int_equal(read_range(t, &all, NULL), 2);
    /* TRUNCATE does not obey the snapshot: it would read nothing. */
    test_sql(control, "TRUNCATE s.shot");
    r.table = t;
    r.range = all;
    assert_int_equal(pg_read_begin(reader, &r, &arena, &cut, &e), -1);
    assert_int_equal(e.class, ERR_CONFLICT);
    assert_ok(pg_rollback(holder, &e)); /* a backend that is closed takes a moment to let go */
    pg_close(holder);
    t = test_table(control, &arena, "s", "shot");
    r.table = t;
    assert_int_equal(pg_read_begin(reader, &r, &arena, &cut, &e), -1);
    assert_int_equal(e.class, ERR_DATA);
    assert_int_equal(read_range(t, &all, NULL), 0);
}

/* A commit that did not wait for the disk is seen, and would be gone after a crash, its xid another
 * transaction's: what was read counts only once the log is on disk up to its cut. */
static void test_seen_is_durable(void **state)
{
    struct read_request r = {.range = {.kind = RANGE_ALL}};
    const char *flushed;
    struct block block;
    struct cut cut;
    struct err e = {0};

    test_sql(control, "CREATE TABLE s.later (i int PRIMARY KEY)");
    r.table = test_table(control, &arena, "s", "later");
    for (int i = 0; i < 20; i++) {
        test_sql(control,
                 arena_printf(&arena,
                              "SET synchronous_commit = off; INSERT INTO s.later VALUES (%d)", i));
        assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
        while (pg_read_next(reader, &block, &e) > 0)
            ;
        assert_ok(pg_read_end(reader, NULL, &e));
        flushed = test_value(
            control, arena_printf(&arena, "SELECT pg_current_wal_flush_lsn() - '0/0' >= %llu",
                                  (unsigned long long)cut.past.major));
        assert_string_equal(flushed, "t");
    }
    test_sql(control, "SET synchronous_commit = local; DROP TABLE s.later");
}

static void test_giving_up_early(void **state)
{
    struct table *t = test_table(control, &arena, "s", "ints");
    struct read_request r = {.table = t, .range = {.kind = RANGE_ALL}, .format = BLOCK_ROWS};
    struct err e = {0};
    struct block b;
    struct cut cut;

    assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
    assert_int_equal(pg_read_next(reader, &b, &e), 1);
    assert_int_equal(b.rows[0]->n, 2);
    assert_ok(pg_read_end(reader, NULL, &e));
    assert_string_equal(test_value(reader, "SELECT 1"), "1");
    assert_ok(pg_begin(loader, &e));
    test_sql(loader, "CREATE TABLE s.ints (id bigint PRIMARY KEY, t text)");
    assert_ok(pg_load_begin(loader, t, BLOCK_NATIVE, &e));
    b = (struct block){.format = BLOCK_NATIVE, .data = "1\tx\n", .len = 4};
    assert_ok(pg_load_block(loader, &b, &e));
    assert_ok(pg_rollback(loader, &e));
    assert_string_equal(test_value(loader, "SELECT to_regclass('s.ints') IS NULL"), "t");
}

/* By the column's collation, in which neither bytes nor the database's order agree. */
static void test_locate(void **state)
{
    struct table *t = test_table(control, &arena, "s", "pairs");
    struct range_list ranges;
    struct err e = {0};
    const struct row *keys[3 * 40];
    size_t out[3 * 40];
    size_t n = 0;

    assert_ok(pg_chunk_plan(reader, t, 64 * 1024, false, &arena, &ranges, &e));
    assert_true(ranges.n > 5);
    for (size_t i = 1; i < ranges.n && n < 38; i++)
        keys[n++] = ranges.v[i].lower;
    keys[n++] = test_row(&arena, 3, "", "", "0");
    keys[n++] = test_row(&arena, 3, "zzzzzzz", "", "0");
    assert_ok(pg_locate(reader, t, &ranges, keys, n, out, &e));
    for (size_t i = 0; i + 2 < n; i++)
        assert_int_equal(out[i], i + 1);
    assert_int_equal(out[n - 2], 0);
    /* And as the chunk's own statement finds them. */
    for (size_t i = 0; i + 2 < n; i++) {
        struct read_request r = {.table = t, .range = ranges.v[out[i]], .format = BLOCK_ROWS};
        bool found = false;
        struct block b;
        struct cut cut;

        assert_ok(pg_read_begin(reader, &r, &arena, &cut, &e));
        while (pg_read_next(reader, &b, &e) > 0) {
            for (size_t k = 0; k < b.nrows; k++)
                found |= row_equal(table_key_of(&arena, t, b.rows[k]), keys[i]);
        }
        assert_ok(pg_read_end(reader, NULL, &e));
        assert_true(found);
    }
}

/* visible.c against the server's own function, over snapshots with transactions in flight. */
static void test_visible_as_the_server_says(void **state)
{
    struct db *open[5];
    struct err e = {0};
    void *parsed;
    char cut[400];
    char sql[2000];

    for (int i = 0; i < 5; i++) {
        open[i] = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
        assert_ok(pg_begin(open[i], &e));
        for (int k = 0; k < i; k++)
            test_sql(control, "SELECT pg_current_xact_id()");
        test_sql(open[i], "SELECT pg_current_xact_id()");
    }
    assert_ok(pg_commit(open[2], &e));
    snprintf(cut, sizeof cut, "%s", test_value(reader, "SELECT pg_current_snapshot()"));
    assert_ok(pg_cut_ops.parse(&arena, cut, &parsed, &e));
    assert_non_null(strchr(cut, ','));
    snprintf(sql, sizeof sql,
             "SELECT string_agg(x || ' ' || pg_visible_in_snapshot(x::text::xid8, '%s'), ',')"
             " FROM generate_series(pg_snapshot_xmin('%s')::text::int8 - 3,"
             " pg_snapshot_xmax('%s')::text::int8 + 3) x",
             cut, cut, cut);
    for (const char *p = test_value(reader, sql); p;
         p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        struct txn txn = {.xid = strtoull(p, NULL, 10)};

        assert_int_equal(pg_cut_ops.sees(parsed, &txn), strchr(p, ' ')[1] == 't');
    }
    for (int i = 0; i < 5; i++)
        pg_close(open[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_covers_each_row_once),
        cmocka_unit_test(test_values_come_through),
        cmocka_unit_test(test_large_row),
        cmocka_unit_test(test_common_snapshot),
        cmocka_unit_test(test_seen_is_durable),
        cmocka_unit_test(test_giving_up_early),
        cmocka_unit_test(test_locate),
        cmocka_unit_test(test_visible_as_the_server_says),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
