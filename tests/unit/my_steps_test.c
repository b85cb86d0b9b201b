/* snapshot/steps.c on a server whose steps are all online ones: what a failed attempt leaves is
 * undone, and what it did not make is left alone. */
#include "my_support.h"
#include "snapshot/internal.h"

static struct db *control;
static struct migration migration;
static struct db *schema;

static struct schema_step table_step = {
    .phase = SCHEMA_PRE,
    .name = "table ls_steps.t",
    .sql = "CREATE TABLE ls_steps.t (ours int)",
    .undo = "DROP TABLE IF EXISTS ls_steps.t",
    .online = true,
    .whole = true,
};

static struct step read_step(struct arena *a)
{
    struct step_list steps;
    struct err e = {0};

    assert_ok(steps_load(control, a, &steps, &e));
    assert_int_equal(steps.n, 1);
    return steps.v[0];
}

static int setup(void **state)
{
    struct schema_steps steps = {1, &table_step};
    struct arena a = ARENA_INIT;
    struct err e = {0};
    struct step step;

    test_database("ls_steps");
    control = test_open(test_uri("ls_steps", NULL), DB_CONTROL);
    assert_ok(my_control_install(control, SIDE_TARGET, &e));
    assert_ok(steps_store(control, &steps, &e));
    step = read_step(&a);
    assert_ok(step_move(control, &step, STEP_READY, &e));
    arena_release(&a);
    migration = (struct migration){
        .name = "shop", .target = {&engine_mysql, test_uri("ls_steps", NULL)}, .holder = "me"};
    return 0;
}

static int teardown(void **state)
{
    if (schema)
        my_close(schema);
    schema = NULL;
    my_close(control);
    return 0;
}

static int run_one(struct err *e)
{
    *e = (struct err){0};
    return steps_run_one(&migration, control, &schema, false, e);
}

static void a_table_of_somebody_else_stays(void **state)
{
    struct err e = {0};

    test_sql(control, "CREATE TABLE ls_steps.t (theirs int); INSERT INTO ls_steps.t VALUES (7)");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(run_one(&e), -1);
        assert_int_equal(e.class, ERR_FATAL);
        assert_non_null(strstr(e.msg, "already exists"));
        assert_string_equal(test_value(control, "SELECT theirs FROM ls_steps.t"), "7");
    }
    test_sql(control, "DROP TABLE ls_steps.t");
    assert_int_equal(run_one(&e), 1);
    assert_int_equal(run_one(&e), 0);
}

/* The process died behind the statement and before its end was written down. */
static void what_a_dead_process_made_is_made_again(void **state)
{
    struct conductor c = {.m = &migration, .target = control};
    struct arena a = ARENA_INIT;
    struct err e = {0};
    struct step step = read_step(&a);

    step.runner = "dead#1";
    assert_ok(step_move(control, &step, STEP_RUNNING, &e));
    test_sql(control, "CREATE TABLE ls_steps.t (half int)");
    assert_ok(steps_recover(&c, &e));
    assert_int_equal(run_one(&e), 1);
    assert_ok(my_execf(my_db_from(control), &e, "SELECT ours FROM ls_steps.t"));
    arena_release(&a);
}

/* The server is told to end the session under the statement: nobody heard what became of it. */
static void an_attempt_that_was_cut_off_is_undone(void **state)
{
    struct arena a = ARENA_INIT;
    struct err e = {0};
    struct step step = read_step(&a);

    step.s.sql = "CREATE TABLE ls_steps.t (half int); KILL CONNECTION_ID()";
    assert_ok(step_move(control, &step, STEP_READY, &e));
    assert_int_equal(run_one(&e), -1);
    assert_string_equal(test_value(control, "SELECT COUNT(*) FROM ls_steps.t"), "0");
    step = read_step(&a);
    assert_true(step.repeated);
    step.s.sql = table_step.sql;
    assert_ok(step_move(control, &step, STEP_READY, &e));
    assert_int_equal(run_one(&e), 1);
    assert_ok(my_execf(my_db_from(control), &e, "SELECT ours FROM ls_steps.t"));
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_table_of_somebody_else_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_dead_process_made_is_made_again, setup, teardown),
        cmocka_unit_test_setup_teardown(an_attempt_that_was_cut_off_is_undone, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
