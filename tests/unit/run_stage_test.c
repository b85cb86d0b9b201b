/* The supervisor's pure decisions: retries, back-off, what the journal keeps, who is dead. */
#include "core/run.h"
#include "run/janitor.h"
#include "run/run.h"
#include "run/stage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_retries(void **state)
{
    assert_true(stage_retries(&stage_apply, ERR_RETRY, 1000000));
    assert_true(stage_retries(&stage_apply, ERR_UNKNOWN, 1));
    assert_false(stage_retries(&stage_apply, ERR_FENCED, 1));
    assert_true(stage_retries(&stage_worker, ERR_FENCED, 1));
    assert_false(stage_retries(&stage_worker, ERR_FENCED, 1000));
    assert_false(stage_retries(&stage_worker, ERR_FATAL, 1));
    assert_false(stage_retries(&stage_capture, ERR_BUG, 1));
    assert_false(stage_retries(&stage_conductor, ERR_REFUSED, 1));
}

static void test_backoff(void **state)
{
    assert_int_equal(stage_backoff_ms(1), 100);
    assert_int_equal(stage_backoff_ms(2), 200);
    assert_int_equal(stage_backoff_ms(6), 3200);
    assert_int_equal(stage_backoff_ms(7), 5000);
    assert_int_equal(stage_backoff_ms(1000000), 5000);
}

/* A lane that is not on the stream still needs what lies before the checkpoint. */
static void test_keep(void **state)
{
    struct checkpoint c = {.version = 1, .record = 100};
    struct lane v[] = {{.label = "a", .state = LANE_FOLLOWING, .record = 3},
                       {.label = "b", .state = LANE_PARKED, .record = 60},
                       {.label = "c", .state = LANE_CATCHING_UP, .record = 50},
                       {.label = "d", .state = LANE_LOADING, .record = 70}};
    struct lane_list lanes = {1, v};

    assert_int_equal(janitor_keep_from(&c, &lanes), 100);
    lanes.n = 2;
    assert_int_equal(janitor_keep_from(&c, &lanes), 60);
    lanes.n = 4;
    assert_int_equal(janitor_keep_from(&c, &lanes), 50);
}

/* What /healthz goes by, of both ways. */
static void test_well(void **state)
{
    static struct stage v[2];
    char why[200] = "";

    v[0].ops = &stage_capture;
    v[1].ops = &stage_apply;
    assert_true(stages_are_well(v, 2, "", why, sizeof(why)));
    v[1].failures = 3;
    v[1].error_since = mono_ms() - 5000;
    err_set(&v[1].error, ERR_RETRY, "no route");
    assert_true(stages_are_well(v, 2, "", why, sizeof(why)));
    v[1].error_since = mono_ms() - 40000;
    assert_true(stages_are_well(v, 1, "", why, sizeof(why)));
    assert_false(stages_are_well(v, 2, " of the way back", why, sizeof(why)));
    assert_non_null(strstr(why, "apply of the way back has been failing for 4"));
    assert_non_null(strstr(why, "no route"));
}

static void test_dead(void **state)
{
    char host[HOLDER_HOST_MAX];
    char holder[100];

    holder_host(host);
    snprintf(holder, sizeof(holder), "%s:%d:1", host, (int)getpid());
    assert_true(holder_is_dead(holder)); /* this pid, but another start */
    snprintf(holder, sizeof(holder), "%s:999999999:7", host);
    assert_true(holder_is_dead(holder));
    assert_false(holder_is_dead("elsewhere:999999999:7"));
    /* The name alone is not this machine: a clone, or another pid namespace. */
    gethostname(holder, 60);
    snprintf(holder + strlen(holder), 30, "-00000000:999999999:7");
    assert_false(holder_is_dead(holder));
    assert_false(holder_is_dead("nonsense"));
    assert_false(holder_is_dead(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retries), cmocka_unit_test(test_backoff), cmocka_unit_test(test_keep),
        cmocka_unit_test(test_well),    cmocka_unit_test(test_dead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
