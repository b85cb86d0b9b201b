/* One suite over every journal: what journal.h promises. Each test runs once per implementation;
 * over Kafka if LOCKSTEP_TEST_KAFKA names a broker (tests/with_kafka), and there with schemas in a
 * registry if LOCKSTEP_TEST_REGISTRY names one. */
#include "tests/conformance/journal_fixture.h"

/* ---- the tests ---- */

static void test_empty(void **state)
{
    struct fixture *f = *state;
    struct journal_stats stats;
    struct journal_writer *w;
    struct journal_reader *r;
    char *note;

    assert_int_equal(journal_stat(&f->o, &stats, &f->e), 0);
    expect_open_fails(f, 0, ERR_RETRY, "no journal");
    ok(f, journal_trim(&f->o, 10, &f->e));
    ok(f, journal_remove(&f->o, &f->e));
    ok(f, journal_writer_open(&f->o, &w, &note, &f->e));
    assert_null(note);
    assert_int_equal(journal_next(w), 0);
    assert_int_equal(journal_writer_generation(w), 1);
    assert_int_equal(journal_stat(&f->o, &stats, &f->e), 1);
    assert_int_equal(stats.next, 0);
    r = reader(f, 0);
    expect_nothing(f, r);
    expect_open_fails(f, 1, ERR_FATAL, "beyond the end");
    journal_reader_close(r);
    journal_writer_close(w);
}

static void test_durable_before_seen(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f);
    uint32_t a = declare_a(f, w);
    struct journal_reader *r = reader(f, 0);

    append(f, w, a, 20);
    assert_int_equal(journal_durable(w), 0);
    expect_nothing(f, r);
    flush(f, w);
    append(f, w, a, 1);
    for (uint64_t n = 0; n < 20; n++)
        expect_record(f, r, n, 0);
    expect_nothing(f, r);
    flush(f, w);
    expect_record(f, r, 20, 0);
    expect_nothing(f, r);
    journal_reader_close(r);
    journal_writer_close(w);
}

static void test_reopen(void **state)
{
    struct fixture *f = *state;
    uint32_t generation = 0;

    for (uint64_t round = 0; round < 20; round++) {
        struct journal_writer *w = writer(f);

        assert_int_equal(journal_next(w), round * 7);
        assert_int_equal(journal_durable(w), round * 7);
        assert_true(journal_writer_generation(w) > generation);
        generation = journal_writer_generation(w);
        append(f, w, declare_a(f, w), 7);
        flush(f, w);
        append(f, w, declare_a(f, w), (unsigned)round); /* lost: never flushed */
        journal_writer_close(w);
    }
    for (uint64_t from = 0; from <= 140; from += f->kind == KAFKA ? 35 : 1)
        expect_range(f, from, 140);
}

static void test_generations(void **state)
{
    struct fixture *f = *state;
    struct journal_record record;
    struct journal_reader *r;

    for (unsigned i = 0; i < 3; i++)
        fill(f, 2);
    r = reader(f, 0);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(journal_read(r, patience(f, 0), &record, &f->e), 1);
        assert_int_equal(record.generation, i / 2 + 1);
    }
    journal_reader_close(r);
}

/* A generation counts also when its writer wrote nothing. */
static void test_idle_generation(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 1; i < 4; i++) {
        struct journal_writer *w = writer(f);

        assert_int_equal(journal_writer_generation(w), i);
        journal_writer_close(w);
    }
}

static void test_two_writers(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f);
    struct journal_writer *second;
    char *note;

    assert_int_equal(journal_writer_open(&f->o, &second, &note, &f->e), -1);
    assert_int_equal(f->e.class, ERR_RETRY);
    assert_non_null(strstr(f->e.msg, f->kind == FILES ? f->dir : "memory:"));
    assert_int_equal(journal_remove(&f->o, &f->e), -1);
    assert_int_equal(f->e.class, ERR_RETRY);
    journal_writer_close(w);
    w = writer(f);
    journal_writer_close(w);
}

/* Nobody knows whether a writer lives on the other side of a broker: the second one takes over, and
 * the first one learns that before it says "durable". */
static void test_take_over(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *first = writer(f);
    uint32_t a = declare_a(f, first);
    struct journal_writer *second;
    struct journal_reader *r;

    append(f, first, a, 3);
    flush(f, first);
    second = writer(f);
    assert_int_equal(journal_next(second), 3);
    append(f, first, a, 2);
    assert_int_equal(journal_flush(first, &f->e), -1);
    assert_int_equal(f->e.class, ERR_FENCED);
    assert_int_equal(journal_durable(first), 3);
    assert_int_equal(journal_flush(first, &f->e), -1);
    append(f, second, declare_a(f, second), 4);
    flush(f, second);
    r = reader(f, 0);
    for (uint64_t n = 0; n < 7; n++)
        expect_record(f, r, n, 0);
    expect_nothing(f, r);
    journal_reader_close(r);
    journal_writer_close(first);
    journal_writer_close(second);
    second = writer(f);
    assert_int_equal(journal_next(second), 7);
    journal_writer_close(second);
}

/* A topic that another migration of the same name made. */
static void test_owner(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w;
    char *note;

    f->o.owner = "one";
    fill(f, 3);
    f->o.owner = "another";
    assert_int_equal(journal_writer_open(&f->o, &w, &note, &f->e), -1);
    assert_int_equal(f->e.class, ERR_REFUSED);
    f->o.owner = "one";
    fill(f, 1);
    expect_range(f, 0, 4);
}

static void test_two_readers(void **state)
{
    struct fixture *f = *state;
    struct journal_reader *a;
    struct journal_reader *b;

    fill(f, 300);
    a = reader(f, 0);
    b = reader(f, 150);
    for (uint64_t n = 0; n < 150; n++) {
        expect_record(f, a, n, 0);
        expect_record(f, b, n + 150, 0);
    }
    expect_nothing(f, b);
    expect_record(f, a, 150, 0);
    journal_reader_close(b);
    expect_record(f, a, 151, 0);
    journal_reader_close(a);
}

/* A reader opened at the end goes on in the segment that the writer is in the middle of. */
static void test_open_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f);
    uint32_t a = declare_a(f, w);
    struct journal_reader *r;

    append(f, w, a, 3);
    flush(f, w);
    r = reader(f, 3);
    expect_nothing(f, r);
    append(f, w, a, 2);
    flush(f, w);
    expect_record(f, r, 3, 0);
    expect_record(f, r, 4, 0);
    expect_nothing(f, r);
    journal_reader_close(r);
    journal_writer_close(w);
}

static void test_trim(void **state)
{
    struct fixture *f = *state;
    struct journal_stats before;
    struct journal_stats after;
    struct journal_reader *r;

    fill(f, 500);
    r = reader(f, 0);
    expect_record(f, r, 0, 0);
    ok(f, journal_stat(&f->o, &before, &f->e));
    ok(f, journal_trim(&f->o, 300, &f->e));
    ok(f, journal_stat(&f->o, &after, &f->e));
    assert_int_equal(before.first, 0);
    assert_true(after.first > 0 && after.first <= 300);
    assert_true(after.bytes < before.bytes);
    assert_int_equal(after.next, 500);
    expect_open_fails(f, after.first - 1, ERR_FATAL, "trimmed");
    expect_range(f, after.first, 500);
    /* Never the last one, so that the numbering goes on. */
    ok(f, journal_trim(&f->o, UINT64_MAX, &f->e));
    ok(f, journal_stat(&f->o, &after, &f->e));
    assert_true(after.first < 500);
    expect_range(f, after.first, 500);
    fill(f, 3);
    expect_range(f, after.first, 503);
    journal_reader_close(r);
}

static void test_reader_behind_trim(void **state)
{
    struct fixture *f = *state;
    struct journal_reader *r;
    struct journal_record record;
    int rc = 1;

    fill(f, 500);
    r = reader(f, 0);
    expect_record(f, r, 0, 0);
    ok(f, journal_trim(&f->o, 400, &f->e));
    /* It may finish what it holds, then learns the truth; it never jumps. */
    for (uint64_t n = 1; rc == 1 && n < 500; n++) {
        rc = journal_read(r, patience(f, 0), &record, &f->e);
        if (rc == 1)
            assert_int_equal(record.number, n);
    }
    if (f->kind == KAFKA && rc == 1) { /* it held them all */
        journal_reader_close(r);
        return;
    }
    assert_int_equal(rc, -1);
    assert_int_equal(f->e.class, ERR_FATAL);
    assert_non_null(strstr(f->e.msg, "trimmed; the first kept is"));
    journal_reader_close(r);
}

static void test_ceiling(void **state)
{
    struct fixture *f = *state;
    struct journal_stats stats;
    struct journal_writer *w;
    uint64_t number;
    uint64_t full;
    uint32_t a;

    f->o.max_bytes = 40000;
    w = writer(f);
    a = declare_a(f, w);
    while (journal_append(w, a, SCHEMA_A2, 100, &number, &f->e) == 0)
        assert_true(journal_next(w) < 1000);
    assert_int_equal(f->e.class, ERR_RETRY);
    assert_non_null(strstr(f->e.msg, "journal is full"));
    full = journal_next(w);
    assert_true(full > 100);
    flush(f, w);
    ok(f, journal_stat(&f->o, &stats, &f->e));
    assert_true(stats.bytes <= 40000 && stats.bytes > 30000);
    assert_int_equal(stats.max_bytes, 40000);
    assert_int_equal(journal_append(w, a, SCHEMA_A2, 100, &number, &f->e), -1);
    assert_int_equal(journal_next(w), full);
    /* Everything was applied: what trimming can free is enough to go on. */
    ok(f, journal_trim(&f->o, full, &f->e));
    /* A writer may look only once in a while whether somebody trimmed. */
    for (int64_t end = mono_ms() + 20000; mono_ms() < end; nap_ms(20)) {
        if (journal_append(w, a, SCHEMA_A2, 100, &number, &f->e) == 0)
            break;
        assert_int_equal(f->e.class, ERR_RETRY);
    }
    assert_int_equal(number, full);
    assert_int_equal(journal_next(w), full + 1);
    journal_writer_close(w);
}

static void expect_note(struct fixture *f, const char *expected)
{
    struct journal_writer *w;
    char *note;

    ok(f, journal_writer_open(&f->o, &w, &note, &f->e));
    if (expected)
        assert_string_equal(note, expected);
    else
        assert_null(note);
    free(note);
    journal_writer_close(w);
}

static void test_notes(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f);
    char longest[1026];

    memset(longest, 'x', sizeof(longest));
    longest[1024] = '\0';
    ok(f, journal_note(w, "never flushed", &f->e));
    journal_writer_close(w);
    expect_note(f, NULL);
    w = writer(f);
    ok(f, journal_note(w, "one", &f->e));
    flush(f, w);
    ok(f, journal_note(w, "two", &f->e));
    append(f, w, declare_a(f, w), 200); /* segments end meanwhile; the note must not go along */
    journal_writer_close(w);
    expect_note(f, "one");
    expect_note(f, "one"); /* also over a writer that wrote nothing */
    w = writer(f);
    append(f, w, declare_a(f, w), 200);
    ok(f, journal_note(w, "three  ", &f->e));
    flush(f, w);
    journal_writer_close(w);
    expect_note(f, "three  ");
    w = writer(f);
    ok(f, journal_note(w, "", &f->e));
    flush(f, w);
    journal_writer_close(w);
    expect_note(f, "");
    w = writer(f);
    ok(f, journal_note(w, longest, &f->e));
    flush(f, w);
    assert_int_equal(journal_note(w, "a\nb", &f->e), -1);
    longest[1024] = 'x';
    longest[1025] = '\0';
    assert_int_equal(journal_note(w, longest, &f->e), -1);
    journal_writer_close(w);
    longest[1024] = '\0';
    expect_note(f, longest);
}

static void test_large_record(void **state)
{
    struct fixture *f = *state;
    const size_t size = (size_t)8 * 1024 * 1024;
    struct journal_writer *w = writer(f);
    uint32_t a = declare_a(f, w);
    struct journal_record record;
    struct journal_reader *r;
    char *large = malloc(size);
    uint64_t number;

    for (size_t i = 0; i < size; i++)
        large[i] = (char)(i * 2654435761u >> 13);
    append(f, w, a, 3);
    ok(f, journal_append(w, a, large, size, &number, &f->e));
    append(f, w, a, 3);
    ok(f, journal_append(w, a, "", 0, &number, &f->e));
    flush(f, w);
    r = reader(f, 0);
    for (uint64_t n = 0; n < 7; n++) {
        if (n != 3) {
            expect_record(f, r, n, 0);
            continue;
        }
        assert_int_equal(journal_read(r, patience(f, 0), &record, &f->e), 1);
        assert_int_equal(record.len, size);
        assert_memory_equal(record.data, large, size);
    }
    assert_int_equal(journal_read(r, patience(f, 0), &record, &f->e), 1);
    assert_int_equal(record.len, 0);
    journal_reader_close(r);
    r = reader(f, 4);
    expect_record(f, r, 4, 0);
    journal_reader_close(r);
    journal_writer_close(w);
    free(large);
}

static uint64_t read_schema(struct fixture *f, struct journal_reader *r, const char *text)
{
    struct journal_record record;

    assert_int_equal(journal_read(r, patience(f, 0), &record, &f->e), 1);
    assert_string_equal(journal_schema_text(r, record.schema), text);
    return record.schema;
}

static void test_schemas(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f);
    uint32_t a = declare_a(f, w);
    uint32_t b = declare(f, w, "lockstep.t.B", SCHEMA_B);
    struct journal_reader *r;
    uint64_t first;
    uint64_t other;

    assert_int_not_equal(a, b);
    assert_int_equal(declare_a(f, w), a);
    append(f, w, a, 1);
    append(f, w, b, 1);
    append(f, w, declare(f, w, "lockstep.t.A", SCHEMA_A2), 1);
    append(f, w, declare(f, w, "lockstep.t.B", SCHEMA_B), 1);
    flush(f, w);
    append(f, w, declare_a(f, w), 1);
    flush(f, w);
    journal_writer_close(w);
    w = writer(f); /* declares in another order: the branches differ, the texts do not */
    b = declare(f, w, "lockstep.t.B", SCHEMA_B);
    append(f, w, declare_a(f, w), 1);
    append(f, w, b, 1);
    flush(f, w);
    journal_writer_close(w);

    r = reader(f, 0);
    first = read_schema(f, r, SCHEMA_A);
    other = read_schema(f, r, SCHEMA_B);
    assert_int_not_equal(read_schema(f, r, SCHEMA_A2), first);
    assert_int_equal(read_schema(f, r, SCHEMA_B), other);
    assert_int_equal(read_schema(f, r, SCHEMA_A), first);
    assert_int_equal(read_schema(f, r, SCHEMA_A), first);
    assert_int_equal(read_schema(f, r, SCHEMA_B), other);
    journal_reader_close(r);
}

static void test_remove(void **state)
{
    struct fixture *f = *state;
    struct journal_stats stats;
    struct journal_record record;
    struct journal_reader *r;
    int64_t end = mono_ms() + 3 * BROKER_MS;
    int rc;

    fill(f, 200);
    r = reader(f, 200);
    ok(f, journal_remove(&f->o, &f->e));
    ok(f, journal_remove(&f->o, &f->e));
    assert_int_equal(journal_stat(&f->o, &stats, &f->e), 0);
    do { /* a broker may not know its topics for a while */
        rc = journal_read(r, f->kind == KAFKA ? BROKER_MS : 50, &record, &f->e);
    } while (rc < 0 && f->kind == KAFKA && f->e.class == ERR_RETRY && mono_ms() < end);
    assert_int_equal(rc, -1);
    assert_int_equal(f->e.class, ERR_FATAL);
    journal_reader_close(r);
    fill(f, 1);
    expect_range(f, 0, 1);
}

static void test_timeout(void **state)
{
    struct fixture *f = *state;
    struct journal_record record;
    struct journal_reader *r;
    int64_t begin;
    int64_t took;

    fill(f, 1);
    r = reader(f, 1);
    begin = mono_ms();
    assert_int_equal(journal_read(r, 60, &record, &f->e), 0);
    took = mono_ms() - begin;
    assert_true(took >= 55 && took < 20000);
    journal_reader_close(r);
}

/* ---- reading while writing ---- */

#define FOLLOWED 3000u

static void *follow(void *arg)
{
    struct fixture f = *(struct fixture *)arg;
    struct journal_reader *r = reader(&f, 0);

    for (uint64_t n = 0; n < FOLLOWED; n++)
        expect_record(&f, r, n, 10000);
    journal_reader_close(r);
    return NULL;
}

static void write_followed(struct fixture *f, struct journal_writer *w)
{
    uint32_t a = declare_a(f, w);
    uint32_t b = declare(f, w, "lockstep.t.B", SCHEMA_B);

    while (journal_next(w) < FOLLOWED) {
        append(f, w, journal_next(w) % 3 ? a : b, (unsigned)(journal_next(w) % 7) + 1);
        if (journal_next(w) % 5 == 0)
            flush(f, w);
        if (journal_next(w) % 100 == 0)
            ok(f, journal_note(w, "moving", &f->e));
    }
    flush(f, w);
}

static void test_follow_thread(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w = writer(f);
    pthread_t thread[2];

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, follow, f), 0);
    write_followed(f, w);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    journal_writer_close(w);
}

/* In another process: 0 if all came. */
static int follow_here(struct fixture *f)
{
    struct journal_record record;
    struct journal_reader *r;
    int rc = 1;

    while (journal_reader_open(&f->o, 0, &r, &f->e) < 0) {
        if (f->e.class != ERR_RETRY)
            return 2;
        nap_ms(1);
    }
    for (uint64_t n = 0; n < FOLLOWED && rc == 1; n++) {
        rc = journal_read(r, 10000, &record, &f->e);
        if (rc == 1 && record.number != n)
            rc = -1;
    }
    if (rc < 0)
        fprintf(stderr, "%s\n", f->e.msg);
    journal_reader_close(r);
    return rc == 1 ? 0 : 1;
}

static void test_follow_process(void **state)
{
    struct fixture *f = *state;
    struct journal_writer *w;
    int status = -1;
    pid_t child;

    child = fork();
    if (child == 0)
        _exit(follow_here(f));
    w = writer(f);
    write_followed(f, w);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    journal_writer_close(w);
}

/* ---- a writer that dies ---- */

static void die_unflushed(struct fixture *f, unsigned flushed, unsigned unflushed)
{
    pid_t child;
    int status;

    if (f->kind != FILES) {
        struct journal_writer *w = writer(f);

        append(f, w, declare_a(f, w), flushed);
        flush(f, w);
        append(f, w, 0, unflushed);
        if (f->kind == MEMORY)
            memory_journal_crash(f->uri, 0, false);
        journal_writer_close(w);
        return;
    }
    child = fork();
    if (child == 0) {
        struct journal_writer *w = writer(f);

        append(f, w, declare_a(f, w), flushed);
        if (journal_note(w, "flushed", &f->e) < 0 || journal_flush(w, &f->e) < 0)
            _exit(1);
        (void)journal_note(w, "not flushed", &f->e);
        append(f, w, 0, unflushed);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_killed_writer(void **state)
{
    struct fixture *f = *state;
    uint64_t total = 0;

    f->o.segment_bytes = 0; /* ending a segment would make records durable before the flush */
    for (unsigned round = 0; round < 12; round++) {
        struct journal_reader *r;
        struct journal_writer *w;

        die_unflushed(f, round, round * 17);
        total += round;
        r = reader(f, total);
        expect_nothing(f, r);
        w = writer(f);
        assert_int_equal(journal_next(w), total);
        append(f, w, declare_a(f, w), 1);
        flush(f, w);
        expect_record(f, r, total, 0);
        journal_reader_close(r);
        journal_writer_close(w);
        total++;
    }
    expect_range(f, 0, total);
}

/* Says loudly what was not run. */
static void skip_without_broker(void **state)
{
    if (((struct fixture *)*state)->skipped)
        skip();
}

#define OVER_KAFKA(test)                                                                           \
    static void test##_kafka(void **state)                                                         \
    {                                                                                              \
        skip_without_broker(state);                                                                \
        test(state);                                                                               \
    }

OVER_KAFKA(test_empty)
OVER_KAFKA(test_durable_before_seen)
OVER_KAFKA(test_reopen)
OVER_KAFKA(test_generations)
OVER_KAFKA(test_idle_generation)
OVER_KAFKA(test_take_over)
OVER_KAFKA(test_owner)
OVER_KAFKA(test_two_readers)
OVER_KAFKA(test_open_at_the_end)
OVER_KAFKA(test_trim)
OVER_KAFKA(test_reader_behind_trim)
OVER_KAFKA(test_ceiling)
OVER_KAFKA(test_notes)
OVER_KAFKA(test_large_record)
OVER_KAFKA(test_schemas)
OVER_KAFKA(test_remove)
OVER_KAFKA(test_timeout)
OVER_KAFKA(test_follow_thread)
OVER_KAFKA(test_killed_writer)

#define KAFKA_ONLY(test)                                                                           \
    {                                                                                              \
#test " (kafka)", test##_kafka, setup_kafka, teardown, NULL                                \
    }
#define BOTH(test)                                                                                 \
    {#test " (file)", test, setup_file, teardown, NULL},                                           \
    {                                                                                              \
#test " (memory)", test, setup_memory, teardown, NULL                                      \
    }
#define ALL(test) BOTH(test), KAFKA_ONLY(test)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        ALL(test_empty),
        ALL(test_durable_before_seen),
        ALL(test_reopen),
        ALL(test_generations),
        ALL(test_idle_generation),
        BOTH(test_two_writers),
        KAFKA_ONLY(test_take_over),
        KAFKA_ONLY(test_owner),
        ALL(test_two_readers),
        ALL(test_open_at_the_end),
        ALL(test_trim),
        ALL(test_reader_behind_trim),
        ALL(test_ceiling),
        ALL(test_notes),
        ALL(test_large_record),
        ALL(test_schemas),
        ALL(test_remove),
        ALL(test_timeout),
        ALL(test_follow_thread),
        {"test_follow_process (file)", test_follow_process, setup_file, teardown, NULL},
        ALL(test_killed_writer),

    };

    /* A part of a name runs those alone. */
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
