/* The fence on a real server: making its objects, arming tables, and taking all of it away. */
#include "tests/unit/pg_fence_support.h"

/* ---- installing ---- */

static const char leftovers[] =
    "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname = '!lockstep_fence')"
    " + (SELECT count(*) FROM pg_event_trigger WHERE evtname = '!lockstep_fence')"
    " + (SELECT count(*) FROM pg_proc WHERE pronamespace = 'lockstep'::regnamespace)"
    " + (SELECT count(*) FROM pg_class WHERE relnamespace = 'lockstep'::regnamespace)";

static void installs_and_removes_without_a_trace(void **state)
{
    PGconn *c = connect_as("fence_own", DATABASE);

    ok(install());
    ok(pg->fence_flip(own, TOKEN, 3, 10000, 3000, &e));
    ok(install()); /* does not disturb a fence that is held */
    assert_int_equal(mode(), FENCE_LEASED);
    assert_int_equal(number(c, "SELECT count(*) FROM pg_trigger WHERE tgname = '!lockstep_fence'"
                               " AND tgenabled = 'A' AND tgtype = 62"),
                     7); /* parent "Child" pt pt1 pt2 up heir */
    must(c, "ALTER TABLE parent DISABLE TRIGGER \"!lockstep_fence\"");
    must(c, "DROP TRIGGER \"!lockstep_fence\" ON pt1");
    ok(install()); /* mends */
    assert_int_equal(number(c, "SELECT count(*) FROM pg_trigger WHERE tgname = '!lockstep_fence'"
                               " AND tgenabled = 'A'"),
                     7);
    ok(pg->fence_remove(own, &e));
    assert_int_equal(number(c, leftovers), 0);
    ok(pg->fence_remove(own, &e));
    assert_int_equal(mode(), FENCE_NONE);
    refused(pg->fence_flip(own, TOKEN, 1, 100, 3000, &e), ERR_REFUSED);
    PQfinish(c);
}

static const char last_made[] = "SELECT max(xmin::text::bigint) FROM pg_proc"
                                " WHERE pronamespace = 'lockstep'::regnamespace";

static void makes_its_objects_once_but_mends_them(void **state)
{
    PGconn *c = connect_as("fence_own", DATABASE);
    PGconn *app = connect_as("fence_app", DATABASE);
    struct db *other = open_own();
    long long made;

    ok(install());
    made = number(c, last_made);
    ok(install());
    assert_int_equal(number(c, last_made), made);
    must(c, "ALTER FUNCTION lockstep.fence_check() SECURITY INVOKER");
    must(c, "GRANT EXECUTE ON FUNCTION lockstep.fence_lift(text) TO PUBLIC");
    must(c, "DELETE FROM lockstep.fence");
    ok(install());
    assert_int_equal(number(c, "SELECT count(*) FROM pg_proc WHERE proname = 'fence_check'"
                               " AND prosecdef"),
                     1);
    assert_int_equal(number(c, "SELECT count(*) FROM pg_proc, aclexplode(proacl) a"
                               " WHERE proname = 'fence_lift' AND a.grantee = 0"),
                     0);
    assert_int_equal(number(c, "SELECT count(*) FROM lockstep.fence"), 1);
    must(c, "CREATE OR REPLACE FUNCTION lockstep.fence_check() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NULL; END'");
    ok(install());
    ok(pg->fence_seal(own, TOKEN, 1, &e));
    state_is(app, "UPDATE parent SET note = 'm' WHERE id = 1", "25006");
    ok(pg->fence_remove(other, &e)); /* behind the back of the connection that made them */
    ok(install());
    assert_int_equal(mode(), FENCE_OPEN);
    pg->close(other);
    PQfinish(app);
    PQfinish(c);
}

static void installs_while_writers_hold_locks(void **state)
{
    PGconn *app = connect_as("fence_app", DATABASE);
    PGconn *busy = connect_as("fence_app", DATABASE);
    struct later commit = {.c = app, .sql = "COMMIT", .after_ms = 2500};
    struct later write = {.c = busy,
                          .sql = "SET statement_timeout = 1500; SELECT count(*) FROM (SELECT"
                                 " pg_sleep(0.1)) s; UPDATE parent SET note = 'b' WHERE id = 4",
                          .after_ms = 0};

    ok(pg->fence_remove(own, &e));
    must(app, "BEGIN; UPDATE parent SET note = 'l' WHERE id = 1");
    later_start(&commit);
    later_start(&write);
    ok(install());
    pthread_join(commit.thread, NULL);
    pthread_join(write.thread, NULL);
    assert_string_equal(commit.state, "00000");
    assert_string_equal(write.state, "00000"); /* queued behind our lock for 200 ms at most */
    PQfinish(app);
    PQfinish(busy);
}

static void refuses_a_missing_table(void **state)
{
    struct table t = {.schema = (char *)"public", .name = (char *)"no\"such"};
    struct table *v[] = {&t};
    struct table_list list = {1, v};

    refused(pg->fence_install(own, &list, 0, &e), ERR_FATAL);
    assert_non_null(strstr(e.msg, "no\"\"such"));
}

static void refuses_a_table_of_somebody_else(void **state)
{
    struct table t = {.schema = (char *)"public", .name = (char *)"foreign_owned"};
    struct table *v[] = {&t};
    struct table_list list = {1, v};
    PGconn *app = connect_as("fence_app", DATABASE);

    must(app, "CREATE TABLE public.foreign_owned(id int)");
    refused(pg->fence_install(own, &list, 0, &e), ERR_REFUSED);
    assert_non_null(strstr(e.msg, "foreign_owned"));
    must(app, "DROP TABLE public.foreign_owned");
    PQfinish(app);
}

static void refuses_ddl_where_a_superuser_installed(void **state)
{
    char uri[400];
    struct db *mine = own;
    struct db_options o = {.uri = uri, .migration = "fence", .use = DB_CONTROL};
    PGconn *app = connect_as("fence_app", DATABASE);

    snprintf(uri, sizeof uri, "postgresql://fence_sup:fence@%s/" DATABASE, server);
    ok(pg->open(&o, &own, &e));
    ok(install());
    must(app, "CREATE TABLE apps_own(id int)");
    must(app, "CREATE TABLE apps_root(id int) PARTITION BY LIST (id)");
    run(super, "GRANT CREATE ON DATABASE " DATABASE " TO fence_app");
    ok(pg->fence_flip(mine, TOKEN, 1, 10000, 3000, &e));
    state_is(app, "ALTER TABLE apps_own ADD x int", "40001");
    state_is(app, "CREATE TABLE apps_new(id int)", "40001");
    state_is(app, "CREATE TABLE apps_new AS SELECT 1 AS id", "40001");
    state_is(app, "SELECT 1 AS id INTO apps_new", "40001");
    state_is(app,
             "CREATE TRIGGER t BEFORE INSERT ON apps_own EXECUTE FUNCTION"
             " suppress_redundant_updates_trigger()",
             "40001");
    /* The owner's other sessions pass by role; an application that owns the table does not. */
    state_is(app, "CREATE TABLE apps_part PARTITION OF apps_root FOR VALUES IN (1)", "40001");
    state_is(app, "CREATE SCHEMA apps CREATE TABLE part PARTITION OF apps_root FOR VALUES IN (1)",
             "40001");
    /* Turned off, it is on again with the next installation. */
    PGconn *sup = connect_as("fence_sup", DATABASE);
    must(sup, "ALTER EVENT TRIGGER \"!lockstep_fence\" DISABLE");
    ok(install());
    state_is(app, "ALTER TABLE apps_own ADD x int", "40001");
    PQfinish(sup);
    ok(pg->fence_lift(mine, TOKEN, &e));
    state_is(app, "CREATE TABLE apps_part PARTITION OF apps_root FOR VALUES IN (1)", "00000");
    state_is(app, "DROP TABLE apps_own, apps_root", "00000");
    ok(pg->fence_remove(own, &e));
    pg->close(own);
    own = mine;
    PGconn *c = connect_as("fence_own", DATABASE);
    assert_int_equal(number(c, leftovers), 0);
    PQfinish(c);
    PQfinish(app);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        t(installs_and_removes_without_a_trace), t(makes_its_objects_once_but_mends_them),
        t(installs_while_writers_hold_locks),    t(refuses_a_missing_table),
        t(refuses_a_table_of_somebody_else),     t(refuses_ddl_where_a_superuser_installed),
    };

    return run_all(__FILE__, tests, sizeof tests / sizeof tests[0]);
}
