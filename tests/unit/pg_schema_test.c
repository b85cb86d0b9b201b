/* The schema plan: run step by step on an empty database it gives the source's schema, as pg_dump
 * itself tells; run on what is there it changes nothing; of one table only what it needs. */
#include "tests/unit/pg_support.h"

#include <libgen.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SOURCE "schema_source"
#define ROLE "schema_test_role"

static struct db *source;
static struct arena arena;
static char workdir[] = "/tmp/lockstep-schema-test.XXXXXX";

static char *file_text(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 20);

    if (f == NULL)
        fail_msg("cannot read %s", path);
    text[fread(text, 1, (1 << 20) - 1, f)] = '\0';
    fclose(f);
    return text;
}

static int group_setup(void **state)
{
    char here[] = __FILE__;
    char path[400];

    test_role(ROLE);
    test_database(SOURCE, ROLE);
    source = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    snprintf(path, sizeof path, "%s/pg_schema_nasty.sql", dirname(here));
    char *sql = file_text(path);
    test_sql(source, "SET search_path = public");
    test_sql(source, sql);
    test_sql(source, "SET search_path = pg_catalog");
    free(sql);
    assert_non_null(mkdtemp(workdir));
    return 0;
}

static int group_teardown(void **state)
{
    pg_close(source);
    arena_release(&arena);
    rmdir(workdir); /* fails where a plan has left a file behind: seen by the next assertion */
    struct stat st;
    return stat(workdir, &st) == 0;
}

static struct schema_steps plan(const struct selection *s, struct db *target, const char *snapshot)
{
    struct table_list tables;
    struct schema_steps steps;
    struct err e = {0};

    assert_ok(pg_tables(source, s, &arena, &tables, &e));
    struct schema_request r = {
        .source = source,
        .source_uri = test_uri(SOURCE, ROLE),
        .snapshot = snapshot,
        .selection = s,
        .tables = &tables,
        .target = target,
        .target_version = 150000,
        .bindir = getenv("LOCKSTEP_TEST_PG_BINDIR"),
        .workdir = workdir,
    };
    assert_ok(pg_schema_steps(&r, &arena, &steps, &e));
    return steps;
}

static void run_step(struct db *db, const struct schema_step *s)
{
    struct err e = {0};
    int rc;

    if (s->online) {
        rc = pg_schema_run(db, s->sql, true, &e);
    } else {
        assert_ok(pg_begin(db, &e));
        rc = pg_schema_run(db, s->sql, false, &e);
        if (rc == 0)
            rc = pg_commit(db, &e);
    }
    if (rc != 0)
        fail_msg("step \"%s\": %s\n%s", s->name, e.msg, s->sql);
}

static void run_steps(const char *database, const struct schema_steps *steps)
{
    struct db *db = test_open(test_uri(database, ROLE), DB_SCHEMA);

    for (size_t i = 0; i < steps->n; i++)
        run_step(db, &steps->v[i]);
    pg_close(db);
}

/* pg_dump's text without what names the run. */
static char *dump(const char *database)
{
    char command[1000];

    snprintf(
        command, sizeof command,
        "%s/pg_dump --schema-only -d '%s' | grep -v -e '^.restrict' -e '^.unrestrict' >%s/dump",
        getenv("LOCKSTEP_TEST_PG_BINDIR"), test_uri(database, ROLE), workdir);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/dump", workdir);
    char *text = file_text(command);
    unlink(command);
    return text;
}

static void assert_same_schema(const char *database)
{
    char *want = dump(SOURCE);
    char *have = dump(database);
    size_t i = 0;

    assert_true(strlen(want) > 10000);
    while (want[i] != '\0' && want[i] == have[i])
        i++;
    if (want[i] != have[i]) {
        size_t from = i > 300 ? i - 300 : 0;

        fail_msg("the dumps differ at byte %zu:\n--- source\n%.600s\n--- target\n%.600s", i,
                 want + from, have + from);
    }
    free(want);
    free(have);
}

static const struct schema_step *step_named(const struct schema_steps *steps, const char *name)
{
    for (size_t i = 0; i < steps->n; i++)
        if (strcmp(steps->v[i].name, name) == 0)
            return &steps->v[i];
    fail_msg("no step \"%s\"", name);
    return NULL;
}

static void names_are_unique_and_in_order(const struct schema_steps *steps)
{
    for (size_t i = 0; i < steps->n; i++) {
        const struct schema_step *a = &steps->v[i];

        for (size_t j = i + 1; j < steps->n; j++)
            assert_string_not_equal(a->name, steps->v[j].name);
        if (i + 1 < steps->n)
            assert_true(a->phase < a[1].phase ||
                        (a->phase == a[1].phase && a->order <= a[1].order));
        assert_true(!a->online || a->undo != NULL);
    }
}

static void everything_arrives_as_it_was(void **state)
{
    test_database("schema_all", ROLE);
    struct db *target = test_open(test_uri("schema_all", ROLE), DB_CONTROL);
    struct schema_steps steps = plan(NULL, target, NULL);

    names_are_unique_and_in_order(&steps);
    assert_int_equal(step_named(&steps, "key shop.orders_pkey")->phase, SCHEMA_KEY);
    assert_string_equal(step_named(&steps, "key shop.code_u")->table, "shop.by_code");
    assert_int_equal(step_named(&steps, "index shop.orders_doc")->phase, SCHEMA_INDEX);
    assert_true(step_named(&steps, "unique index shop.orders_once")->online);
    assert_true(step_named(&steps, "index shop.lines_during_excl")->pauses_apply);
    assert_int_equal(step_named(&steps, "index shop.lines_during_excl")->phase, SCHEMA_UNIQUE);
    assert_true(step_named(&steps, "foreign key shop.events.events_orders_fkey")->pauses_apply);
    assert_false(step_named(&steps, "foreign key shop.orders.orders_customer_fkey")->pauses_apply);
    assert_non_null(strstr(step_named(&steps, "foreign key shop.orders.orders_customer_fkey")->sql,
                           "ON DELETE CASCADE NOT VALID"));
    assert_int_equal(step_named(&steps, "validate shop.orders.orders_customer_fkey")->order, 1);
    run_steps("schema_all", &steps);
    assert_same_schema("schema_all");

    /* Once more: nothing is left to make. */
    steps = plan(NULL, target, NULL);
    for (size_t i = 0; i < steps.n; i++) {
        assert_true(steps.v[i].phase != SCHEMA_PRE);
        assert_true(steps.v[i].phase != SCHEMA_FOREIGN && !steps.v[i].online);
        assert_null(strstr(steps.v[i].sql, "CREATE"));
    }
    run_steps("schema_all", &steps);
    assert_same_schema("schema_all");
    pg_close(target);
}

static void tables_that_exist_are_used(void **state)
{
    test_database("schema_some", ROLE);
    struct db *target = test_open(test_uri("schema_some", ROLE), DB_CONTROL);

    test_sql(target, "CREATE SCHEMA shop; CREATE SCHEMA other;"
                     "CREATE TABLE shop.a (id int PRIMARY KEY, b int);"
                     "CREATE TABLE other.used (id int NOT NULL)");
    struct schema_steps steps = plan(NULL, target, NULL);
    run_steps("schema_some", &steps);
    assert_same_schema("schema_some");
    pg_close(target);
}

static void one_table_brings_what_it_needs(void **state)
{
    const char *include[] = {"shop.orders", "shop.customers"};
    struct selection s = {.include = include, .ninclude = 2};

    test_database("schema_one", ROLE);
    struct db *target = test_open(test_uri("schema_one", ROLE), DB_CONTROL);
    struct schema_steps steps = plan(&s, target, NULL);
    run_steps("schema_one", &steps);
    assert_string_equal(test_value(target, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM"
                                           " pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S')"
                                           " AND relnamespace = 'shop'::regnamespace"),
                        "customers orders orders_id_seq orders_ident_seq");
    assert_string_equal(test_value(target, "SELECT string_agg(conname, ' ' ORDER BY conname) FROM"
                                           " pg_constraint WHERE contype = 'f'"),
                        "best_order orders_customer_fkey");
    assert_string_equal(
        test_value(target, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), "0");
    assert_string_equal(test_value(target, "SELECT string_agg(extname, ' ' ORDER BY extname) FROM"
                                           " pg_extension"),
                        "citext plpgsql");
    assert_string_equal(test_value(target, "SELECT to_regnamespace('other') IS NULL"), "t");
    assert_string_equal(test_value(target, "SELECT relrowsecurity FROM pg_class WHERE"
                                           " oid = 'shop.customers'::regclass"),
                        "t");
    assert_string_equal(test_value(target, "SELECT obj_description('shop.customers'::regclass)"),
                        "who buys; \"quoted\"");
    pg_close(target);

    /* A leaf without its root's other leaves; a key without the table it refers to. */
    const char *leaves[] = {"shop.events_25", "shop.weird"};
    struct selection l = {.include = leaves, .ninclude = 2};
    test_database("schema_leaf", ROLE);
    target = test_open(test_uri("schema_leaf", ROLE), DB_CONTROL);
    steps = plan(&l, target, NULL);
    run_steps("schema_leaf", &steps);
    assert_string_equal(test_value(target, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM"
                                           " pg_class WHERE relkind IN ('r', 'p')"
                                           " AND relnamespace = 'shop'::regnamespace"),
                        "events events_25 events_25_a events_25_rest weird");
    assert_string_equal(test_value(target, "SELECT bool_and(indisvalid) FROM pg_index"), "t");
    assert_string_equal(test_value(target, "SELECT count(*) FROM pg_constraint"
                                           " WHERE contype = 'f'"),
                        "0");
    pg_close(target);
}

/* Excluded: one table of a whole schema, with the view and the keys that need it. */
static void an_excluded_table_takes_its_views_along(void **state)
{
    const char *include[] = {"shop.*"};
    const char *exclude[] = {"shop.orders"};
    struct selection s = {include, 1, exclude, 1};

    test_database("schema_but", ROLE);
    struct db *target = test_open(test_uri("schema_but", ROLE), DB_CONTROL);
    struct schema_steps steps = plan(&s, target, NULL);
    run_steps("schema_but", &steps);
    assert_string_equal(test_value(target, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM"
                                           " pg_class WHERE relkind IN ('v', 'm', 'S')"
                                           " AND relnamespace = 'shop'::regnamespace"),
                        "numbers");
    assert_string_equal(test_value(target, "SELECT to_regprocedure('shop.agg(int)') IS NOT NULL"),
                        "t");
    assert_string_equal(test_value(target, "SELECT string_agg(tgname, ' ' ORDER BY tgname) FROM"
                                           " pg_trigger WHERE NOT tgisinternal"),
                        "off touch");
    pg_close(target);
}

/* The plan is of the snapshot's schema, and the dump reads under it. */
static void a_snapshot_is_read_under(void **state)
{
    struct db *holder = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    const char *include[] = {"shop.a"};
    struct selection s = {.include = include, .ninclude = 1};
    struct err e = {0};

    assert_ok(pg_begin(holder, &e));
    test_sql(holder, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    const char *snapshot = test_value(holder, "SELECT pg_export_snapshot()");
    struct schema_steps steps = plan(&s, NULL, snapshot);
    assert_non_null(
        strstr(step_named(&steps, "tables and what they need")->sql, "CREATE TABLE shop.a"));
    pg_close(holder);

    struct table_list tables;
    assert_ok(pg_tables(source, &s, &arena, &tables, &e));
    struct schema_request r = {.source = source,
                               .source_uri = test_uri("no_such_database", ROLE),
                               .selection = &s,
                               .tables = &tables,
                               .bindir = getenv("LOCKSTEP_TEST_PG_BINDIR"),
                               .workdir = workdir};
    assert_int_equal(pg_schema_steps(&r, &arena, &steps, &e), -1);
    assert_non_null(strstr(e.msg, "no_such_database"));
}

static void a_half_made_index_is_undone(void **state)
{
    const char *include[] = {"shop.by_code", "shop.nulls"};
    struct selection s = {.include = include, .ninclude = 2};
    struct err e = {0};

    test_database("schema_half", ROLE);
    struct db *target = test_open(test_uri("schema_half", ROLE), DB_SCHEMA);
    struct schema_steps steps = plan(&s, target, NULL);
    run_step(target, step_named(&steps, "tables and what they need"));
    test_sql(target, "INSERT INTO shop.nulls VALUES (1, 7), (2, 7)");
    const struct schema_step *u = step_named(&steps, "unique index shop.nulls_u_key");
    assert_int_equal(pg_schema_run(target, u->sql, true, &e), -1);
    assert_int_equal(e.class, ERR_CONFLICT);
    /* It is there, and invalid: a plan does not take it for made. */
    assert_string_equal(test_value(target, "SELECT indisvalid FROM pg_index WHERE indexrelid ="
                                           " 'shop.nulls_u_key'::regclass"),
                        "f");
    steps = plan(&s, target, NULL);
    u = step_named(&steps, "unique index shop.nulls_u_key");
    test_sql(target, "DELETE FROM shop.nulls WHERE id = 2");
    assert_ok(pg_schema_run(target, u->undo, true, &e));
    assert_ok(pg_schema_run(target, u->sql, true, &e));
    run_step(target, step_named(&steps, "unique shop.nulls_u_key"));
    pg_close(target);
}

static void leftover_sessions_are_ended(void **state)
{
    struct db *dead = test_open(test_uri(SOURCE, ROLE), DB_SCHEMA);
    struct db *control = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    struct db *db = test_open(test_uri(SOURCE, ROLE), DB_SCHEMA);
    struct err e = {0};

    assert_ok(pg_begin(dead, &e));
    test_sql(dead, "LOCK TABLE shop.a");
    assert_ok(pg_schema_settle(db, &e));
    assert_string_equal(test_value(db, "SELECT count(*) FROM pg_locks WHERE relation ="
                                       " 'shop.a'::regclass"),
                        "0");
    assert_string_equal(test_value(control, "SELECT 1"), "1");
    assert_int_equal(pg_exec(pg_db_from(dead), "SELECT 1", &e), -1);
    pg_close(dead);
    pg_close(control);
    pg_close(db);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_arrives_as_it_was),
        cmocka_unit_test(tables_that_exist_are_used),
        cmocka_unit_test(one_table_brings_what_it_needs),
        cmocka_unit_test(an_excluded_table_takes_its_views_along),
        cmocka_unit_test(a_snapshot_is_read_under),
        cmocka_unit_test(a_half_made_index_is_undone),
        cmocka_unit_test(leftover_sessions_are_ended),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
