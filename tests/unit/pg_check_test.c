/* `check` finds each planted fault by name, and nothing on a sound pair. */
#include "tests/unit/pg_support.h"

#define SOURCE "check_source"
#define TARGET "check_target"
#define ROLE "check_test_role"

/* Somebody may write to whatever our role makes. */
#define RIGHTS_AHEAD                                                                               \
    "ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO check_test_plain;"                         \
    "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO check_test_plain"
#define NO_RIGHTS_AHEAD                                                                            \
    "ALTER DEFAULT PRIVILEGES REVOKE INSERT ON TABLES FROM check_test_plain;"                      \
    "ALTER DEFAULT PRIVILEGES REVOKE USAGE ON SCHEMAS FROM check_test_plain"

static struct db *source;
static struct db *target;
static struct arena arena;
static const struct selection everything;

static int group_setup(void **state)
{
    test_role(ROLE);
    test_role("check_test_plain");
    test_database(SOURCE, ROLE);
    test_database(TARGET, ROLE);
    source = test_open(test_uri(SOURCE, ROLE), DB_CONTROL);
    target = test_open(test_uri(TARGET, ROLE), DB_CONTROL);
    test_sql(target, RIGHTS_AHEAD);
    test_sql(source, "CREATE SCHEMA shop;"
                     "CREATE TABLE shop.good (id int PRIMARY KEY, name varchar(10) NOT NULL);"
                     "CREATE TABLE shop.full (a int); ALTER TABLE shop.full REPLICA IDENTITY FULL");
    return 0;
}

static int group_teardown(void **state)
{
    pg_close(source);
    pg_close(target);
    arena_release(&arena);
    return 0;
}

/* Of the last check. Every role that is no superuser is told so: it is counted, and left out. */
static size_t ddl_warnings;

static void leave_out_ddl(struct findings *f)
{
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++)
        if (f->v[i].fatal || strstr(f->v[i].what, "event triggers: during") == NULL)
            f->v[n++] = f->v[i];
    ddl_warnings = f->n - n;
    f->n = n;
}

static struct findings check_side(struct db *db, struct check_request r)
{
    struct findings f = {0};
    struct err e = {0};

    r.selection = r.selection != NULL ? r.selection : &everything;
    r.pg_bindir = r.pg_bindir != NULL ? r.pg_bindir : getenv("LOCKSTEP_TEST_PG_BINDIR");
    assert_ok(pg_check(db, &r, &arena, &f, &e));
    leave_out_ddl(&f);
    return f;
}

static struct findings check_source_now(void)
{
    return check_side(source, (struct check_request){.side = SIDE_SOURCE, .same_engine = true});
}

static struct findings check_target_now(void)
{
    static struct table_list tables;
    struct err e = {0};

    assert_ok(pg_tables(source, &everything, &arena, &tables, &e));
    return check_side(target, (struct check_request){.side = SIDE_TARGET,
                                                     .tables = &tables,
                                                     .source = source,
                                                     .source_version = 150000});
}

static size_t fatals(const struct findings *f)
{
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++) {
        n += f->v[i].fatal;
        assert_true(f->v[i].remedy[0] != '\0');
    }
    return n;
}

static void print_all(const struct findings *f)
{
    for (size_t i = 0; i < f->n; i++)
        print_message("  %s %s: %s [%s]\n", f->v[i].fatal ? "unfit" : "warning", f->v[i].object,
                      f->v[i].what, f->v[i].remedy);
}

/* Exactly one finding about this object says this, with this remedy. */
static void assert_finding(const struct findings *f, bool fatal, const char *object,
                           const char *says, const char *remedy)
{
    size_t n = 0;

    for (size_t i = 0; i < f->n; i++)
        n += f->v[i].fatal == fatal && strcmp(f->v[i].object, object) == 0 &&
             strstr(f->v[i].what, says) != NULL && strstr(f->v[i].remedy, remedy) != NULL;
    if (n != 1) {
        print_all(f);
        fail_msg("%zu findings: %s: %s [%s]", n, object, says, remedy);
    }
}

static void a_sound_pair_has_no_findings(void **state)
{
    struct findings f = check_source_now();

    if (f.n != 0)
        print_all(&f);
    assert_int_equal(f.n, 0);
    assert_int_equal(ddl_warnings, 1);
    f = check_target_now();
    if (f.n != 0)
        print_all(&f);
    assert_int_equal(f.n, 0);
    assert_int_equal(ddl_warnings, 1);

    struct db *admin = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    check_side(admin, (struct check_request){.side = SIDE_SOURCE});
    assert_int_equal(ddl_warnings, 0);
    pg_close(admin);
}

static void tables_that_do_not_replicate_are_named(void **state)
{
    test_sql(source,
             "CREATE TABLE shop.\"no Key %s\" (i int);"
             "CREATE TABLE shop.nothing (i int PRIMARY KEY);"
             "ALTER TABLE shop.nothing REPLICA IDENTITY NOTHING;"
             "CREATE UNLOGGED TABLE shop.unlogged (i int PRIMARY KEY);"
             "CREATE MATERIALIZED VIEW shop.mat AS SELECT 1 AS one;"
             "CREATE TABLE shop.parent (i int PRIMARY KEY);"
             "CREATE TABLE shop.child (PRIMARY KEY (i)) INHERITS (shop.parent);"
             "CREATE TABLE shop.gen (a int NOT NULL, g int GENERATED ALWAYS AS (a + 1) STORED"
             " PRIMARY KEY);"
             "CREATE TABLE shop.rls (i int PRIMARY KEY);"
             "ALTER TABLE shop.rls ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY");
    test_sql(source,
             "CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
             "CREATE TABLE shop.trig (i int PRIMARY KEY);"
             "CREATE TRIGGER \"t a\" BEFORE INSERT ON shop.trig FOR EACH ROW EXECUTE FUNCTION"
             " shop.f(); ALTER TABLE shop.trig ENABLE ALWAYS TRIGGER \"t a\";"
             "CREATE RULE r AS ON DELETE TO shop.trig DO INSTEAD NOTHING;"
             "ALTER TABLE shop.trig ENABLE REPLICA RULE r");
    struct findings f = check_source_now();

    assert_finding(&f, true, "shop.no Key %s", "no usable key",
                   "ALTER TABLE \"shop\".\"no Key %s\" REPLICA IDENTITY FULL");
    assert_finding(&f, true, "shop.nothing", "NOTHING", "REPLICA IDENTITY DEFAULT");
    assert_finding(&f, true, "shop.unlogged", "unlogged", "SET LOGGED");
    assert_finding(&f, false, "shop.mat", "materialized view", "REFRESH");
    assert_finding(&f, true, "shop.parent", "inheritance", "NO INHERIT");
    assert_finding(&f, true, "shop.child", "inheritance", "NO INHERIT");
    assert_finding(&f, true, "shop.gen", "generated", "REPLICA IDENTITY USING INDEX");
    assert_finding(&f, true, "shop.rls", "row level security", "BYPASSRLS");
    assert_finding(&f, true, "shop.trig", "trigger \"t a\"", "ENABLE TRIGGER \"t a\"");
    assert_finding(&f, true, "shop.trig", "rule r", "ENABLE RULE r");
    assert_int_equal(fatals(&f), 9);
    test_sql(source, "DROP TABLE shop.\"no Key %s\", shop.nothing, shop.unlogged, shop.child,"
                     " shop.parent, shop.gen, shop.rls, shop.trig; DROP MATERIALIZED VIEW shop.mat;"
                     "DROP FUNCTION shop.f()");
}

/* Of a schema that is chosen whole all comes along, but what needs a table that is left out. */
static void what_does_not_come_along(void **state)
{
    static const char *const good = "shop.good";
    static const char *const full = "shop.full";
    static const struct selection one = {.include = &good, .ninclude = 1};
    static const struct selection but_one = {.exclude = &full, .nexclude = 1};
    struct check_request r = {.side = SIDE_SOURCE, .same_engine = true};

    test_sql(source,
             "CREATE VIEW shop.\"a View\" AS SELECT id FROM shop.good;"
             "CREATE VIEW shop.fuller AS SELECT * FROM shop.full;"
             "CREATE VIEW shop.over AS SELECT * FROM shop.fuller;"
             "CREATE MATERIALIZED VIEW shop.mat AS SELECT 1 AS one;"
             "CREATE SEQUENCE shop.tickets; CREATE SEQUENCE shop.used;"
             "ALTER TABLE shop.good ADD n int DEFAULT nextval('shop.used'), ADD m serial;"
             "CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
             "CREATE TRIGGER t BEFORE INSERT ON shop.good FOR EACH ROW EXECUTE FUNCTION shop.f();"
             "CREATE POLICY p ON shop.good USING (true)");
    struct findings f = check_source_now();
    assert_int_equal(f.n, 1);
    assert_finding(&f, false, "shop.mat", "arrives empty", "REFRESH");
    r.selection = &but_one;
    f = check_side(source, r);
    assert_finding(&f, false, "views", "2 views are not carried: shop.fuller, shop.over",
                   "pg_dump -s -O -x -t 'shop.fuller' -t 'shop.over' -d SOURCE");
    r.selection = &one;
    f = check_side(source, r);
    assert_finding(&f, false, "views", "3 views are not carried: shop.\"a View\", shop.fuller",
                   "-t 'shop.\"a View\"' ");
    assert_finding(&f, false, "materialized views", "1 materialized view is not carried",
                   "pg_dump");
    assert_finding(&f, false, "sequences that no column owns", "not carried: shop.tickets",
                   "-t 'shop.tickets' -d");
    assert_finding(&f, false, "functions and procedures", "shop.f()",
                   "ARRAY['shop.f()'::regprocedure]");
    assert_finding(&f, false, "triggers", "t on shop.good", "--section=post-data");
    assert_int_equal(f.n, 5); /* a policy goes with its table */
    r = (struct check_request){.side = SIDE_SOURCE};
    f = check_side(source, r);
    assert_finding(&f, false, "views", "3 views", "in its own SQL");
    assert_finding(&f, false, "row security policies", "p on shop.good", "--section=post-data");
    assert_int_equal(f.n, 6);
    test_sql(source, "DROP VIEW shop.\"a View\", shop.over, shop.fuller; DROP MATERIALIZED VIEW"
                     " shop.mat; ALTER TABLE shop.good DROP n, DROP m; DROP SEQUENCE shop.tickets,"
                     " shop.used; DROP POLICY p ON shop.good; DROP FUNCTION shop.f() CASCADE");
}

/* The apply worker passes the fence's statement triggers. TARGET's database publishes. */
static void tables_that_a_subscription_feeds(void **state)
{
    struct db *publisher = test_open(test_uri(TARGET, NULL), DB_CONTROL);
    struct db *admin = test_open(test_uri(SOURCE, NULL), DB_CONTROL);

    test_sql(publisher, "CREATE SCHEMA shop; CREATE TABLE shop.fed (i int PRIMARY KEY);"
                        "CREATE TABLE shop.root (i int PRIMARY KEY) PARTITION BY LIST (i);"
                        "CREATE PUBLICATION check_test FOR TABLE shop.fed, shop.root"
                        " WITH (publish_via_partition_root)");
    test_sql(publisher, "SELECT pg_create_logical_replication_slot('check_test', 'pgoutput')");
    test_sql(source, "CREATE TABLE shop.fed (i int PRIMARY KEY);"
                     "CREATE TABLE shop.root (i int PRIMARY KEY) PARTITION BY LIST (i);"
                     "CREATE TABLE shop.leaf PARTITION OF shop.root FOR VALUES IN (1)");
    char sql[600];
    snprintf(sql, sizeof sql,
             "CREATE SUBSCRIPTION \"check Test\" CONNECTION '%s' PUBLICATION check_test WITH"
             " (slot_name = check_test, create_slot = false, copy_data = false, enabled = false)",
             test_uri(TARGET, NULL));
    test_sql(admin, sql);
    struct findings f = check_source_now();
    assert_int_equal(fatals(&f), 0);
    test_sql(admin, "ALTER SUBSCRIPTION \"check Test\" ENABLE");
    f = check_source_now();
    test_sql(admin, "ALTER SUBSCRIPTION \"check Test\" DISABLE; ALTER SUBSCRIPTION"
                    " \"check Test\" SET (slot_name = NONE)");
    test_sql(admin, "DROP SUBSCRIPTION \"check Test\"");
    test_sql(source, "DROP TABLE shop.fed, shop.root");
    /* Its worker may still hold the slot for a moment, or take it once more. */
    for (int i = 0; strcmp(test_value(publisher, "SELECT count(*) FROM pg_replication_slots WHERE"
                                                 " slot_name = 'check_test'"),
                           "0") != 0;
         i++) {
        struct err e = {0};

        assert_true(i < 20);
        test_sql(publisher, "SELECT pg_terminate_backend(active_pid, 5000) FROM"
                            " pg_replication_slots WHERE slot_name = 'check_test' AND active");
        (void)pg_exec(pg_db_from(publisher), "SELECT pg_drop_replication_slot('check_test')", &e);
    }
    test_sql(publisher, "DROP PUBLICATION check_test; DROP SCHEMA shop CASCADE");
    assert_finding(&f, true, "shop.fed", "\"check Test\"",
                   "ALTER SUBSCRIPTION \"check Test\" DISABLE");
    assert_finding(&f, true, "shop.leaf", "\"check Test\"", "DISABLE");
    assert_int_equal(fatals(&f), 2);
    pg_close(publisher);
    pg_close(admin);
}

static void rights_and_names_on_the_source(void **state)
{
    struct db *admin = test_open(test_uri(SOURCE, NULL), DB_CONTROL);
    struct db *plain = test_open(test_uri(SOURCE, "check_test_plain"), DB_CONTROL);
    struct db *app;
    struct db_options o = {.uri = test_uri(SOURCE, ROLE), .migration = "shop"};
    struct err e = {0};

    test_sql(admin, "SELECT pg_create_logical_replication_slot('lockstep_shop', 'pgoutput');"
                    "ALTER ROLE check_test_plain NOREPLICATION");
    test_sql(source, "CREATE PUBLICATION lockstep_shop FOR TABLE shop.good");
    assert_ok(pg_open(&o, &app, &e));
    test_sql(app, "SET application_name = 'the shop'");
    struct findings f = check_source_now();
    assert_finding(&f, true, "slot lockstep_shop", "exists already", "pg_drop_replication_slot");
    assert_finding(&f, true, "publication lockstep_shop", "exists already", "DROP PUBLICATION");
    assert_finding(&f, true, "role " ROLE, "the shop", "login role of its own");
    f = check_side(source, (struct check_request){.side = SIDE_SOURCE, .started = true});
    assert_int_equal(fatals(&f), 1);
    pg_close(app);
    test_sql(admin, "SELECT pg_drop_replication_slot('lockstep_shop')");
    test_sql(source, "DROP PUBLICATION lockstep_shop");

    f = check_side(plain, (struct check_request){.side = SIDE_SOURCE});
    assert_finding(&f, true, "role check_test_plain", "REPLICATION",
                   "ALTER ROLE check_test_plain REPLICATION");
    assert_finding(&f, true, "database " SOURCE, "may not create", "GRANT CREATE ON DATABASE");
    assert_finding(&f, true, "shop.good", "belongs to role " ROLE,
                   "GRANT " ROLE " TO check_test_plain");
    f = check_side(source,
                   (struct check_request){.side = SIDE_SOURCE, .pg_bindir = "/no/such/place"});
    assert_finding(&f, true, "pg_dump", "/no/such/place", "pg_bindir");
    pg_close(plain);
    pg_close(admin);
}

static void a_server_without_free_slots(void **state)
{
    struct db *admin = test_open(test_uri(SOURCE, NULL), DB_CONTROL);

    test_sql(admin, "SELECT pg_create_physical_replication_slot('check_test_' || g) FROM"
                    " generate_series(2, current_setting('max_replication_slots')::int) g");
    struct findings f = check_source_now();
    assert_finding(&f, false, "source", "1 of 10 replication slots", "max_replication_slots = 14");
    test_sql(admin, "SELECT pg_create_physical_replication_slot('check_test_1')");
    f = check_source_now();
    assert_finding(&f, true, "source", "0 of 10 replication slots", "max_replication_slots = 14");
    f = check_side(source, (struct check_request){.side = SIDE_SOURCE, .started = true});
    assert_int_equal(f.n, 0);
    test_sql(admin, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                    " WHERE slot_name LIKE 'check_test_%'");
    pg_close(admin);
}

static void what_stands_on_the_target(void **state)
{
    test_sql(target, "CREATE SCHEMA shop;"
                     "CREATE TABLE shop.good (id int PRIMARY KEY, name varchar(10) NOT NULL)");
    struct findings f = check_target_now();
    if (f.n != 0)
        print_all(&f);
    assert_int_equal(f.n, 0); /* empty and equal: used */

    test_sql(target, "INSERT INTO shop.good VALUES (1, 'x');"
                     "CREATE TABLE shop.full (a bigint)");
    f = check_target_now();
    assert_finding(&f, true, "shop.good", "not empty", "TRUNCATE \"shop\".\"good\"");
    assert_finding(&f, true, "shop.full", "column 1 is a bigint", "DROP TABLE");
    assert_int_equal(fatals(&f), 2);
    test_sql(target, "DROP TABLE shop.full; CREATE VIEW shop.full AS SELECT 1 AS a;"
                     "TRUNCATE shop.good");
    f = check_target_now();
    assert_finding(&f, true, "shop.full", "something else", "rename or drop");
    assert_int_equal(fatals(&f), 1);
    test_sql(target, "DROP SCHEMA shop CASCADE; CREATE SCHEMA lockstep; CREATE TABLE"
                     " lockstep.mine (i int)");
    f = check_target_now();
    assert_finding(&f, true, "schema lockstep", "not lockstep's", "rename");
    assert_int_equal(fatals(&f), 1);
    test_sql(target, "DROP SCHEMA lockstep CASCADE");
}

static void nobody_may_write_on_the_target(void **state)
{
    test_sql(target, NO_RIGHTS_AHEAD);
    struct findings f = check_target_now();
    assert_finding(&f, false, "rights", "will be allowed to write to 2 of the tables (shop.",
                   "ALTER DEFAULT PRIVILEGES FOR ROLE " ROLE);
    test_sql(target,
             "CREATE SCHEMA shop;"
             "CREATE TABLE shop.good (id int PRIMARY KEY, name varchar(10) NOT NULL);"
             "CREATE TABLE shop.full (a int); GRANT INSERT ON shop.full TO check_test_plain;"
             "GRANT SELECT ON shop.good TO check_test_plain");
    f = check_target_now();
    assert_finding(&f, false, "rights", "may write to 2 of the tables", "GRANT SELECT, INSERT");
    test_sql(target, "GRANT USAGE ON SCHEMA shop TO check_test_plain");
    f = check_target_now();
    assert_finding(&f, false, "rights", "may write to 1 of the tables (shop.good)", "GRANT SELECT");
    test_sql(target, "GRANT INSERT ON shop.good TO PUBLIC");
    f = check_target_now();
    assert_int_equal(f.n, 0);
    test_sql(target, "DROP SCHEMA shop CASCADE;" RIGHTS_AHEAD);
}

static void rights_on_the_target(void **state)
{
    struct db *admin = test_open(test_uri(TARGET, NULL), DB_CONTROL);
    struct db *plain = test_open(test_uri(TARGET, "check_test_plain"), DB_CONTROL);
    struct table_list tables;
    struct err e = {0};

    test_sql(admin, "REVOKE SET ON PARAMETER session_replication_role FROM check_test_plain;"
                    "CREATE SCHEMA shop");
    assert_ok(pg_tables(source, &everything, &arena, &tables, &e));
    struct findings f = check_side(plain, (struct check_request){.side = SIDE_TARGET,
                                                                 .tables = &tables,
                                                                 .source = source,
                                                                 .source_version = 990000});
    assert_finding(&f, true, "target", "older than the source's 99", "version 99");
    assert_finding(&f, true, "role check_test_plain", "session_replication_role",
                   "GRANT SET ON PARAMETER");
    assert_finding(&f, true, "schema shop", "may not create tables", "GRANT CREATE, USAGE");
    assert_finding(&f, true, "database " TARGET, "may not create", "GRANT CREATE ON DATABASE");
    test_sql(admin, "DROP SCHEMA shop");

    f = check_side(source, (struct check_request){.side = SIDE_TARGET, .source = source});
    assert_finding(&f, true, "target", "the same server and database", "another");
    pg_close(plain);
    pg_close(admin);
}

static void extensions_that_cannot_be_had(void **state)
{
    struct db *admin = test_open(test_uri(SOURCE, NULL), DB_CONTROL);

    test_sql(admin, "CREATE EXTENSION citext; CREATE EXTENSION pageinspect");
    struct findings f = check_target_now();
    assert_finding(&f, true, "extension pageinspect", "may not create it",
                   "CREATE EXTENSION \"pageinspect\"");
    assert_int_equal(fatals(&f), 1); /* citext is trusted */
    test_sql(admin, "DROP EXTENSION citext; DROP EXTENSION pageinspect");
    pg_close(admin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_pair_has_no_findings),
        cmocka_unit_test(tables_that_do_not_replicate_are_named),
        cmocka_unit_test(what_does_not_come_along),
        cmocka_unit_test(tables_that_a_subscription_feeds),
        cmocka_unit_test(rights_and_names_on_the_source),
        cmocka_unit_test(a_server_without_free_slots),
        cmocka_unit_test(what_stands_on_the_target),
        cmocka_unit_test(nobody_may_write_on_the_target),
        cmocka_unit_test(rights_on_the_target),
        cmocka_unit_test(extensions_that_cannot_be_had),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
