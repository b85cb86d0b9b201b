/* A switch that nobody conducts is told of, with what to type; one that somebody conducts is not.
 * So is a hook that failed. */
#include "engines/postgres/visible.h"
#include "engines/scripted/driver.h"
#include "observe/observe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LEASE_MS 10000

static const struct engine *const se = &engine_scripted;
static struct scripted_world *world;
static struct arena arena = ARENA_INIT;
static struct observation seen;
static bool dead;

static const struct migration migration = {
    .name = "t",
    .source = {.engine = &engine_scripted, .uri = SCRIPTED_SOURCE_URI},
    .target = {.engine = &engine_scripted, .uri = SCRIPTED_TARGET_URI},
    .journal = {.uri = "memory:observe"},
};

static bool is_dead(const char *holder)
{
    return dead && strcmp(holder, "here:1:2") == 0;
}

static struct db *connect_to(const char *uri)
{
    const struct db_options o = {.uri = uri, .migration = "t", .use = DB_CONTROL};
    struct err e = {0};
    struct db *db;

    assert_int_equal(se->open(&o, &db, &e), 0);
    return db;
}

static void write_fact(struct db *db, const char *kind, const char *key, json_t *body)
{
    struct err e = {0};

    assert_non_null(body);
    assert_int_equal(fact_write(db, kind, key, body, &e), 0);
}

static int set_up(void **state)
{
    static const struct scripted_options peaceful = {
        .cuts = &pg_cut_ops, .widen = pg_widen_xid, .transactions = 0};
    struct db *target;

    world = scripted_world_new(7, &peaceful);
    target = connect_to(SCRIPTED_TARGET_URI);
    write_fact(target, "migration", "self", json_pack("{s:s}", "name", "t"));
    write_fact(target, "phase", "load", json_pack("{s:s}", "phase", "done"));
    se->close(target);
    dead = false;
    return 0;
}

static int tear_down(void **state)
{
    arena_release(&arena);
    scripted_world_free(world);
    return 0;
}

static void look(void)
{
    struct observe_ends ends = {.m = &migration,
                                .target = connect_to(SCRIPTED_TARGET_URI),
                                .source = connect_to(SCRIPTED_SOURCE_URI),
                                .holder_is_dead = is_dead};
    struct err e = {0};

    if (observe(&ends, &arena, &seen, &e) < 0)
        fail_msg("%s", e.msg);
    se->close(ends.target);
    se->close(ends.source);
}

static bool is_told(const char *a, const char *b)
{
    for (size_t i = 0; i < seen.nwarnings; i++) {
        if (strstr(seen.warnings[i], a) && strstr(seen.warnings[i], b))
            return true;
    }
    return false;
}

static json_t *row_of(const char *state_name, const char *going)
{
    return json_pack("{s:s, s:s?, s:i, s:s}", "state", state_name, "going", going, "epoch", 3,
                     "holder", "here:1:2");
}

/* What `closed` leaves: both sides sealed, by a coordinator whose lease still runs. */
static void stand_at(const char *state_name, const char *going, const char *direction)
{
    bool back = strcmp(direction, "back") == 0;
    struct db *target = connect_to(SCRIPTED_TARGET_URI);
    struct db *source = connect_to(SCRIPTED_SOURCE_URI);
    struct db *opening = back ? source : target;
    struct table_list none = {0};
    struct err e = {0};

    if (back)
        write_fact(target, "cutover", "forward", row_of("switched", NULL));
    write_fact(opening, "cutover", direction, row_of(state_name, going));
    assert_int_equal(lease_take(opening, "cutover", "here:1:2", LEASE_MS, &e), 1);
    assert_int_equal(se->fence_install(source, &none, 0, &e), 0);
    assert_int_equal(se->fence_install(target, &none, 0, &e), 0);
    assert_int_equal(se->fence_seal(source, "m3@t", 3, &e), 0);
    assert_int_equal(se->fence_seal(target, "m3@t", 3, &e), 0);
    se->close(target);
    se->close(source);
}

static void open_side(const char *uri)
{
    struct db *db = connect_to(uri);
    struct err e = {0};

    assert_int_equal(se->fence_lift(db, "m3@t", &e), 0);
    se->close(db);
}

static void test_conducted(void **state)
{
    stand_at("closed", "switched", "forward");
    look();
    assert_false(is_told("nobody conducts", ""));
    assert_null(seen.again);
}

static void test_its_process_is_dead(void **state)
{
    stand_at("closed", "switched", "forward");
    dead = true;
    look();
    assert_true(is_told("nobody conducts this cutover any more (at closed, on its way to switched; "
                        "the process here:1:2 is dead)",
                        "neither side takes writes"));
    assert_non_null(strstr(observe_next(&seen), "lockstep cutover, which goes on"));
}

static void test_its_lease_is_over(void **state)
{
    stand_at("closed", "switched", "forward");
    scripted_pass(world, LEASE_MS + 3000);
    look();
    assert_true(is_told("nobody conducts this cutover", "the lease of here:1:2 ended 3 s ago"));
}

static void test_a_rollback(void **state)
{
    stand_at("closed", "switched", "back");
    dead = true;
    look();
    assert_string_equal(seen.phase, "closed");
    assert_true(is_told("nobody conducts this rollback", "neither side takes writes"));
    assert_non_null(strstr(observe_next(&seen), "lockstep rollback, which goes on"));
}

static void test_what_is_open_is_said(void **state)
{
    stand_at("drained", "settled", "forward");
    open_side(SCRIPTED_SOURCE_URI);
    dead = true;
    look();
    assert_true(is_told("at drained, on its way to settled", "the source takes writes"));
}

static void test_opened_and_not_recorded(void **state)
{
    stand_at("closed", "switched", "forward");
    open_side(SCRIPTED_TARGET_URI);
    dead = true;
    look();
    assert_true(is_told("the target takes writes", "traffic may not have been moved"));
}

static void test_what_rests_needs_nobody(void **state)
{
    static const char *const rest[] = {"none", "prepared", "switched"};

    dead = true;
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++) {
        stand_at(rest[i], NULL, "forward");
        look();
        assert_false(is_told("nobody conducts", ""));
        assert_null(seen.again);
    }
    stand_at("none", "prepared", "forward");
    look();
    assert_true(is_told("nobody conducts", "on its way to prepared"));
    assert_non_null(strstr(observe_next(&seen), "--rehearse"));
}

static void hook_fails(struct db *db, const char *direction, int epoch)
{
    write_fact(db, "cutover", direction,
               json_pack("{s:s, s:i, s:s, s:b}", "state", "switched", "epoch", epoch, "hook",
                         "it exited with 127", "hook_failed", 1));
}

static void test_a_hook_that_failed(void **state)
{
    struct db *target = connect_to(SCRIPTED_TARGET_URI);
    struct db *source = connect_to(SCRIPTED_SOURCE_URI);

    hook_fails(target, "forward", 3);
    look();
    assert_true(is_told("on_switch hook of the cutover failed (it exited with 127)",
                        "moved to the target"));
    assert_non_null(strstr(observe_next(&seen), "lockstep cutover, which runs it again"));
    /* Rolled back since: it is that switch's hook that counts. */
    write_fact(source, "cutover", "back", json_pack("{s:s, s:i}", "state", "switched", "epoch", 4));
    look();
    assert_null(seen.again);
    hook_fails(source, "back", 4);
    look();
    assert_true(is_told("on_switch hook of the rollback failed", "moved to the source"));
    assert_non_null(strstr(observe_next(&seen), "lockstep rollback, which runs it again"));
    se->close(target);
    se->close(source);
}

static void follow(struct db *target)
{
    struct err e = {0};

    write_fact(target, "status", "caught_up", json_pack("{s:b}", "reached", 1));
    for (int i = 0; i < 3; i++) {
        static const char *const leases[] = {"run", "capture", "apply"};

        assert_int_equal(lease_take(target, leases[i], "here:1:2", LEASE_MS, &e), 1);
    }
}

static void test_no_cutover_is_advised_in_trouble(void **state)
{
    struct db *target = connect_to(SCRIPTED_TARGET_URI);
    struct err e = {0};
    int64_t now;

    follow(target);
    look();
    assert_non_null(strstr(observe_next(&seen), "lockstep cutover"));
    assert_int_equal(se->clock_ms(target, &now, &e), 0);
    write_fact(target, "status", "process/here:1:2",
               json_pack("{s:s, s:I, s:{s:{s:s, s:i}}}", "holder", "here:1:2", "at_ms",
                         (json_int_t)now, "stages", "capture", "error", "disk full", "for_s", 4));
    look();
    assert_true(is_told("capture has been failing", "disk full"));
    assert_null(strstr(observe_next(&seen), "cutover"));
    /* Killed: nobody runs it, and what it said of itself is past. */
    dead = true;
    look();
    assert_true(is_told("no process runs this migration", ""));
    assert_false(is_told("disk full", ""));
    assert_string_equal(observe_next(&seen), "lockstep run");
    se->close(target);
}

static void test_no_cutover_is_advised_without_the_source(void **state)
{
    struct db *target = connect_to(SCRIPTED_TARGET_URI);
    struct observe_ends ends = {
        .m = &migration, .target = target, .source_trouble = "password authentication failed"};
    struct err e = {0};

    follow(target);
    assert_int_equal(observe(&ends, &arena, &seen, &e), 0);
    assert_true(is_told("the source cannot be read", "password"));
    assert_null(strstr(observe_next(&seen), "cutover"));
    se->close(target);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_conducted),
        TEST(test_its_process_is_dead),
        TEST(test_its_lease_is_over),
        TEST(test_a_rollback),
        TEST(test_what_is_open_is_said),
        TEST(test_opened_and_not_recorded),
        TEST(test_what_rests_needs_nobody),
        TEST(test_a_hook_that_failed),
        TEST(test_no_cutover_is_advised_in_trouble),
        TEST(test_no_cutover_is_advised_without_the_source),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
