/* The guards that ask whether somebody is there to carry the changes, and whether the hook can be
 * started. */
#include "cutover/internal.h"
#include "engines/postgres/visible.h"
#include "engines/scripted/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LEASE_MS 30000

static const struct migration migration = {
    .name = "t",
    .source = {.engine = &engine_scripted, .uri = SCRIPTED_SOURCE_URI},
    .target = {.engine = &engine_scripted, .uri = SCRIPTED_TARGET_URI},
    .journal = {.uri = "memory:guards"},
    .workdir = "/nonexistent",
    .holder = "test",
};

static struct scripted_world *world;
static struct cutover_request request;
static struct cutover *cutover;
static const char *dead;

static bool is_dead(const char *holder)
{
    return dead && strcmp(holder, dead) == 0;
}

static int set_up(void **state)
{
    static const struct scripted_options peaceful = {
        .cuts = &pg_cut_ops, .widen = pg_widen_xid, .transactions = 0};
    struct err e = {0};

    dead = NULL;
    world = scripted_world_new(7, &peaceful);
    request = (struct cutover_request){.m = &migration, .holder_is_dead = is_dead};
    cutover = cutover_open(&request);
    assert_int_equal(connect_opening(cutover, &e), 0);
    assert_int_equal(lease_take(cutover->opening, "capture", "here:1:2", LEASE_MS, &e), 1);
    assert_int_equal(lease_take(cutover->opening, "apply", "here:3:4", LEASE_MS, &e), 1);
    return 0;
}

static int tear_down(void **state)
{
    cutover_close(cutover);
    scripted_world_free(world);
    return 0;
}

/* The refusal's message, or NULL. */
static const char *refusal(unsigned check)
{
    static struct err e;

    memset(&e, 0, sizeof(e));
    if (checks_demand(cutover, check, &e) == 0)
        return NULL;
    assert_int_equal(e.class, ERR_REFUSED);
    assert_true(e.hint[0]);
    return e.msg;
}

static void test_stages_that_run(void **state)
{
    assert_null(refusal(CHECK_STAGES));
    dead = "here:9:9";
    assert_null(refusal(CHECK_STAGES));
}

/* Its lease has not ended yet. */
static void test_a_process_that_is_dead(void **state)
{
    dead = "here:3:4";
    assert_string_equal(refusal(CHECK_STAGES),
                        "apply is not running (the process here:3:4 is dead)");
    request.holder_is_dead = NULL;
    assert_null(refusal(CHECK_STAGES));
}

static void test_a_lease_that_is_over(void **state)
{
    scripted_pass(world, LEASE_MS + 1);
    assert_string_equal(refusal(CHECK_STAGES),
                        "capture and apply are not running (no process holds the lease)");
}

static void say_trouble(int for_s, int age_ms)
{
    struct err e = {0};
    int64_t now;

    assert_int_equal(cutover->opening->engine->clock_ms(cutover->opening, &now, &e), 0);
    assert_int_equal(fact_write(cutover->opening, "status", "process/here:1:2",
                                json_pack("{s:s, s:I, s:{s:{s:s, s:i}}}", "holder", "here:1:2",
                                          "at_ms", (json_int_t)(now - age_ms), "stages", "capture",
                                          "error", "No space left on device", "for_s", for_s),
                                &e),
                     0);
}

static void test_a_stage_in_trouble(void **state)
{
    say_trouble(60, 0);
    assert_string_equal(refusal(CHECK_STAGES),
                        "capture has been failing for 60 s: No space left on device");
    say_trouble(7, 3000);
    assert_non_null(refusal(CHECK_STAGES));
    say_trouble(2, 1000); /* a server that restarts */
    assert_null(refusal(CHECK_STAGES));
    say_trouble(60, 60000); /* long ago: who said it has gone */
    assert_null(refusal(CHECK_STAGES));
    say_trouble(60, 0);
    assert_int_equal(
        fact_write(cutover->opening, "lease", "capture", json_object(), &(struct err){0}), 0);
    assert_int_equal(
        lease_take(cutover->opening, "capture", "here:5:6", LEASE_MS, &(struct err){0}), 1);
    dead = "here:1:2"; /* and its successor fares well */
    assert_null(refusal(CHECK_STAGES));
}

static const char *hook(const char *command)
{
    request.on_switch = command;
    return refusal(CHECK_HOOK);
}

static void test_a_hook_that_cannot_start(void **state)
{
    char folder[] = "/tmp/lockstep-hook-XXXXXX";
    char path[100];
    FILE *f;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/move", folder);
    f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
    request.folder = folder;

    assert_null(hook(NULL));
    assert_non_null(strstr(hook("./gone --now"), "gone: No such file"));
    assert_non_null(strstr(hook("  /nowhere/move"), "/nowhere/move: No such file"));
    assert_non_null(strstr(hook("./move to"), "is not executable"));
    assert_non_null(strstr(hook("/tmp"), "is no file"));
    assert_int_equal(chmod(path, 0755), 0);
    assert_null(hook("./move to"));
    assert_null(hook(path));
    /* What only a shell can tell. */
    assert_null(hook("gone"));
    assert_null(hook("\"./gone\""));
    assert_null(hook("$HOME/gone"));
    assert_null(hook("X=/gone true"));
    assert_null(hook("~/gone"));
    unlink(path);
    rmdir(folder);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_stages_that_run),          TEST(test_a_process_that_is_dead),
        TEST(test_a_lease_that_is_over),     TEST(test_a_stage_in_trouble),
        TEST(test_a_hook_that_cannot_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
