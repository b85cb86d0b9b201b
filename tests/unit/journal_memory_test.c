/* The memory journal's faults, and how URIs choose a journal. */
#include "core/run.h"
#include "journal/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SCHEMA "{\"type\":\"record\",\"name\":\"lockstep.t.A\",\"fields\":[]}"

static struct err e;

static struct journal_writer *writer(const struct journal_options *o, const char *expected_note)
{
    struct journal_writer *w;
    uint32_t id;
    char *note;

    assert_int_equal(journal_writer_open(o, &w, &note, &e), 0);
    if (expected_note)
        assert_string_equal(note, expected_note);
    else
        assert_null(note);
    free(note);
    assert_int_equal(journal_schema(w, "lockstep.t.A", SCHEMA, &id, &e), 0);
    assert_int_equal(id, 0);
    return w;
}

static void append(struct journal_writer *w, unsigned count)
{
    uint64_t number;

    for (unsigned i = 0; i < count; i++) {
        uint64_t next = journal_next(w);

        assert_int_equal(journal_append(w, 0, &next, sizeof(next), &number, &e), 0);
    }
}

/* Readers see the records below `end`, each with its number in it, and no more. */
static void expect_end(const struct journal_options *o, uint64_t end)
{
    struct journal_record record;
    struct journal_reader *r;
    uint64_t n = 0;

    assert_int_equal(journal_reader_open(o, 0, &r, &e), 0);
    for (; journal_read(r, 0, &record, &e) == 1; n++) {
        assert_int_equal(record.number, n);
        assert_memory_equal(record.data, &n, sizeof(n));
    }
    assert_int_equal(n, end);
    journal_reader_close(r);
}

static void crash(unsigned keep, bool torn)
{
    const struct journal_options o = {.uri = "memory:crash"};
    struct journal_writer *w = writer(&o, NULL);
    unsigned kept = keep > 5 ? 5 : keep;
    uint64_t number;

    append(w, 3);
    assert_int_equal(journal_note(w, "three", &e), 0);
    assert_int_equal(journal_flush(w, &e), 0);
    append(w, 5);
    assert_int_equal(journal_note(w, "eight", &e), 0);
    memory_journal_crash(o.uri, keep, torn);
    assert_int_equal(journal_append(w, 0, "x", 1, &number, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
    assert_int_equal(journal_flush(w, &e), -1);
    expect_end(&o, 3);
    journal_writer_close(w);
    w = writer(&o, "three");
    assert_int_equal(journal_next(w), 3 + kept - (torn && kept ? 1 : 0));
    assert_int_equal(journal_durable(w), journal_next(w));
    assert_int_equal(journal_writer_generation(w), 2);
    expect_end(&o, journal_next(w));
    append(w, 2);
    assert_int_equal(journal_flush(w, &e), 0);
    expect_end(&o, journal_next(w));
    journal_writer_close(w);
    memory_journal_reset_all();
}

static void test_crash(void **state)
{
    for (unsigned keep = 0; keep < 7; keep++) {
        crash(keep, false);
        crash(keep, true);
    }
}

/* A dead writer that is closed late does not take the lock from the one that came after it. */
static void test_late_close(void **state)
{
    const struct journal_options o = {.uri = "memory:late"};
    struct journal_writer *dead = writer(&o, NULL);
    struct journal_writer *third;
    struct journal_writer *w;
    char *note;

    memory_journal_crash(o.uri, 0, false);
    w = writer(&o, NULL);
    append(w, 1);
    journal_writer_close(dead);
    assert_int_equal(journal_writer_open(&o, &third, &note, &e), -1);
    assert_int_equal(e.class, ERR_RETRY);
    assert_int_equal(journal_flush(w, &e), 0);
    expect_end(&o, 1);
    journal_writer_close(w);
    memory_journal_reset_all();
}

static void test_reset_all(void **state)
{
    const struct journal_options o = {.uri = "memory:reset"};
    struct journal_writer *w = writer(&o, NULL);
    struct journal_stats stats;

    append(w, 1);
    memory_journal_reset_all();
    assert_int_equal(journal_stat(&o, &stats, &e), 0);
    assert_int_equal(journal_flush(w, &e), -1);
    journal_writer_close(w);
    w = writer(&o, NULL);
    assert_int_equal(journal_next(w), 0);
    journal_writer_close(w);
    memory_journal_reset_all();
}

static void expect_refused(const char *uri, const char *says)
{
    const struct journal_options o = {.uri = uri};
    struct journal_stats stats;

    assert_int_equal(journal_stat(&o, &stats, &e), -1);
    assert_int_equal(e.class, ERR_CONFIG);
    assert_non_null(strstr(e.msg, says));
    assert_null(strstr(e.msg, "secret"));
}

static void test_unknown_kind(void **state)
{
    expect_refused("pulsar://user:secret@broker:9092", "\"pulsar:\" is not known");
    expect_refused("pulsar://user:secret@broker:9092", "file:, kafka: and memory:");
    expect_refused("/no/kind/secret", "names no kind");
    expect_refused("file:", "names nothing behind the colon");
    expect_refused(NULL, "names no kind");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_late_close),
        cmocka_unit_test(test_reset_all),
        cmocka_unit_test(test_unknown_kind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
