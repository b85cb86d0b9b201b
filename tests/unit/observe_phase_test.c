/* What `status` derives: phase, lag in time, and the JSON in which unknown is null. */
#include "observe/observe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *phase(const char *cutover, enum load_phase load, bool caught_up)
{
    struct phase_facts f = {
        .begun = true, .cutover = cutover, .load = load, .caught_up = caught_up};

    return observe_phase(&f);
}

static void test_phases(void **state)
{
    struct phase_facts none = {0};

    assert_null(observe_phase(&none));
    assert_string_equal(phase(NULL, LOAD_NONE, false), "schema");
    assert_string_equal(phase(NULL, LOAD_SCHEMA, false), "schema");
    assert_string_equal(phase(NULL, LOAD_PLANNED, false), "snapshot");
    assert_string_equal(phase(NULL, LOAD_LOADED, false), "catching_up");
    assert_string_equal(phase(NULL, LOAD_OVERLAP, true), "catching_up");
    assert_string_equal(phase(NULL, LOAD_DONE, false), "catching_up");
    assert_string_equal(phase(NULL, LOAD_DONE, true), "following");
    assert_string_equal(phase("fenced", LOAD_DONE, true), "fenced");
    assert_string_equal(phase("undone", LOAD_DONE, true), "following");
}

static const char *rolled(const char *cutover, const char *rollback, bool last)
{
    struct phase_facts f = {.begun = true,
                            .cutover = cutover,
                            .load = LOAD_DONE,
                            .caught_up = true,
                            .rollback = rollback,
                            .rolled_back = last};

    return observe_phase(&f);
}

static void test_phases_of_the_way_back(void **state)
{
    assert_string_equal(rolled("switched", NULL, false), "switched");
    assert_string_equal(rolled("switched", "none", false), "switched");
    assert_string_equal(rolled("switched", "prepared", false), "switched");
    assert_string_equal(rolled("switched", "drained", false), "drained");
    assert_string_equal(rolled("switched", "closed", false), "closed");
    assert_string_equal(rolled("switched", "switched", true), "following");
    assert_string_equal(rolled("none", "switched", true), "following");
    assert_string_equal(rolled("prepared", "switched", false), "prepared");
    assert_string_equal(rolled("switched", "switched", false), "switched");
}

static void test_the_last_switch(void **state)
{
    static const struct {
        const char *cutover;
        int cutover_epoch;
        const char *rollback;
        int rollback_epoch;
        bool rolled_back;
    } cases[] = {
        {"switched", 3, "prepared", 2, false}, {"none", 3, "switched", 4, true},
        {"prepared", 5, "switched", 4, true}, /* a second cutover was undone */
        {"fenced", 5, "switched", 4, true},    {"switched", 5, "switched", 4, false},
        {"switched", 3, "switched", 4, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *cutover =
            json_pack("{s:s, s:i}", "state", cases[i].cutover, "epoch", cases[i].cutover_epoch);
        json_t *rollback =
            json_pack("{s:s, s:i}", "state", cases[i].rollback, "epoch", cases[i].rollback_epoch);
        struct phase_facts f = {.begun = true};

        observe_switches(cutover, rollback, &f);
        assert_int_equal(f.rolled_back, cases[i].rolled_back);
        assert_string_equal(f.cutover, cases[i].cutover);
        json_decref(cutover);
        json_decref(rollback);
    }
    struct phase_facts none = {0};
    observe_switches(NULL, NULL, &none);
    assert_null(none.cutover);
    assert_false(none.rolled_back);
}

static void test_lag(void **state)
{
    const struct lag_sample samples[] = {{{100, 0}, 1000}, {{200, 0}, 2000}, {{300, 0}, 3000}};
    struct position p = {0, 0};

    assert_int_equal(observe_lag_ms(samples, 0, p, 5000), -1);
    p.major = 300;
    assert_int_equal(observe_lag_ms(samples, 3, p, 5000), 0);
    p.major = 250;
    assert_int_equal(observe_lag_ms(samples, 3, p, 5000), 2000);
    p.major = 100;
    assert_int_equal(observe_lag_ms(samples, 3, p, 5000), 3000);
    p.major = 1;
    assert_int_equal(observe_lag_ms(samples, 3, p, 5000), -1); /* since before we looked */
}

static void test_unknown_is_null(void **state)
{
    struct observed_table t = {.name = "public.t",
                               .lane = "loading",
                               .rows = UNKNOWN_COUNT,
                               .bytes = 0,
                               .eta_s = UNKNOWN_COUNT};
    struct observation o = {.phase = "snapshot",
                            .ntables = 1,
                            .tables = &t,
                            .lag_bytes = UNKNOWN_COUNT,
                            .lag_seconds = -1,
                            .retained_bytes = 0,
                            .journal_bytes = UNKNOWN_COUNT,
                            .changes = UNKNOWN_COUNT};
    json_t *json = observe_json(&o);
    const json_t *table = json_array_get(json_object_get(json, "tables"), 0);

    assert_true(json_is_null(json_object_get(json, "lag_bytes")));
    assert_true(json_is_null(json_object_get(json, "lag_seconds")));
    assert_true(json_is_null(json_object_get(json, "consistent_up_to")));
    assert_int_equal(json_integer_value(json_object_get(json, "retained_bytes")), 0);
    assert_true(json_is_array(json_object_get(json, "warnings")));
    assert_true(json_is_null(json_object_get(table, "rows")));
    assert_true(json_is_integer(json_object_get(table, "bytes")));
    assert_true(json_is_null(json_object_get(table, "eta")));
    assert_true(json_is_null(json_object_get(table, "reason")));
    json_decref(json);
}

static void test_way_back(void **state)
{
    struct observed_parked parked = {"public.t", "a row is missing"};
    struct observed_way way = {.lag_bytes = 7,
                               .state = "drained",
                               .retained_bytes = UNKNOWN_COUNT,
                               .nparked = 1,
                               .parked = &parked};
    struct observation o = {
        .phase = "switched", .direction = "back", .way_back = &way, .running = "here:1:2"};
    json_t *json = observe_json(&o);
    const json_t *w = json_object_get(json, "way_back");
    const json_t *p = json_array_get(json_object_get(w, "parked"), 0);

    assert_string_equal(json_string_value(json_object_get(w, "state")), "drained");
    assert_true(json_is_null(json_object_get(w, "retained_bytes")));
    assert_string_equal(json_string_value(json_object_get(p, "name")), "public.t");
    assert_true(json_is_false(json_object_get(json, "rolled_back")));
    json_decref(json);
    assert_non_null(strstr(observe_next(&o), "tables resume"));
    way.nparked = 0;
    assert_non_null(strstr(observe_next(&o), "or lockstep rollback"));
    o.unwell = true;
    assert_non_null(strstr(observe_next(&o), "before a rollback mend"));
    o.running = NULL;
    assert_non_null(strstr(observe_next(&o), "lockstep run"));
}

static void test_what_became_of_the_way_back(void **state)
{
    static const struct {
        const char *phase;
        const char *direction;
        bool rolled_back;
        const char *said;
    } cases[] = {
        {"switched", "back", false, "the way back, which the changes travel now"},
        {"following", "forward", true, "the way back was taken"},
        {"prepared", "forward", true, "the way back stands ready"},
        {"prepared", "forward", false, "the way back stands ready"},
    };
    struct observed_way way = {.consistent_up_to = "0/1"};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct observation o = {.phase = cases[i].phase,
                                .direction = cases[i].direction,
                                .rolled_back = cases[i].rolled_back,
                                .way_back = &way};
        struct buf page;

        buf_init(&page, BUF_MAX_TEXT);
        observe_page(&o, false, &page);
        assert_non_null(strstr(page.data, cases[i].said));
        buf_release(&page);
    }
}

/* JSON with single quotes. */
static json_t *quoted(const char *text)
{
    char json[300];
    json_t *out;

    if (!text)
        return NULL;
    snprintf(json, sizeof(json), "%s", text);
    for (char *p = json; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    out = json_loads(json, 0, NULL);
    assert_non_null(out);
    return out;
}

/* Reads go with the writes, unless the row of the road that is not gone yet says that they went
 * ahead. */
static void test_reads(void **state)
{
    static const struct {
        const char *cutover;
        const char *rollback; /* NULL: no row */
        const char *reads;
    } cases[] = {
        {NULL, NULL, "source"},
        {"{'state': 'prepared', 'epoch': 1}", NULL, "source"},
        {"{'state': 'prepared', 'epoch': 1, 'reads': {'at': 'target'}}", NULL, "target"},
        {"{'state': 'prepared', 'epoch': 1, 'reads': null}", NULL, "source"},
        /* Its preparation was undone; the target goes on following. */
        {"{'state': 'none', 'epoch': 1, 'reads': {'at': 'target'}}", NULL, "target"},
        {"{'state': 'switched', 'epoch': 1, 'reads': {'at': 'target'}}", NULL, "target"},
        {"{'state': 'switched', 'epoch': 1}", "{'state': 'prepared', 'epoch': 2}", "target"},
        {"{'state': 'switched', 'epoch': 1}",
         "{'state': 'prepared', 'epoch': 2, 'reads': {'at': 'source'}}", "source"},
        /* Rolled back, and the cutover's row could not be set back. */
        {"{'state': 'switched', 'epoch': 1, 'reads': {'at': 'target'}}",
         "{'state': 'switched', 'epoch': 2, 'reads': {'at': 'source'}}", "source"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct phase_facts f = {.begun = true};
        json_t *cutover = quoted(cases[i].cutover);
        json_t *rollback = quoted(cases[i].rollback);

        observe_switches(cutover, rollback, &f);
        assert_string_equal(observe_reads(cutover, rollback, &f), cases[i].reads);
        json_decref(cutover);
        json_decref(rollback);
    }
}

static void test_units(void **state)
{
    char text[40];

    observe_size(text, sizeof(text), 1536);
    assert_string_equal(text, "1.5 KiB");
    observe_size(text, sizeof(text), 3);
    assert_string_equal(text, "3 B");
    observe_time(text, sizeof(text), 119);
    assert_string_equal(text, "119 s");
    observe_time(text, sizeof(text), 7199);
    assert_string_equal(text, "119 min");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phases),
        cmocka_unit_test(test_phases_of_the_way_back),
        cmocka_unit_test(test_lag),
        cmocka_unit_test(test_unknown_is_null),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_what_became_of_the_way_back),
        cmocka_unit_test(test_way_back),
        cmocka_unit_test(test_the_last_switch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
