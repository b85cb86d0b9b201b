/* The journals that the conformance suite runs over, and what its tests write and read. */
#ifndef LOCKSTEP_TESTS_CONFORMANCE_JOURNAL_FIXTURE_H
#define LOCKSTEP_TESTS_CONFORMANCE_JOURNAL_FIXTURE_H

#include "journal/journal.h"

#include "core/buf.h"
#include "core/run.h"

#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define SCHEMA_A                                                                                   \
    "{\"type\":\"record\",\"name\":\"lockstep.t.A\",\"fields\":[{\"name\":\"v\",\"type\":"         \
    "\"string\"}]}"
#define SCHEMA_A2                                                                                  \
    "{\"type\":\"record\",\"name\":\"lockstep.t.A\",\"fields\":[{\"name\":\"v\",\"type\":"         \
    "\"string\"},{\"name\":\"w\",\"type\":\"long\"}]}"
#define SCHEMA_B                                                                                   \
    "{\"type\":\"record\",\"name\":\"lockstep.t.B\",\"fields\":[{\"name\":\"n\",\"type\":"         \
    "\"long\"}]}"

enum kind { MEMORY, FILES, KAFKA };

/* What a broker may take to show a record, and how long nothing must come from one. */
#define BROKER_MS 10000
#define BROKER_QUIET_MS 300

struct fixture {
    enum kind kind;
    bool skipped;
    char dir[64];
    char uri[96];
    char topic[64];
    struct journal_options o;
    struct err e;
};

#define ok(f, call)                                                                                \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, (f)->e.msg);                                                 \
    } while (0)

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static struct fixture *fixture_new(enum kind kind)
{
    static unsigned number;
    struct fixture *f = calloc(1, sizeof(*f));

    f->kind = kind;
    f->o = (struct journal_options){.uri = f->uri, .segment_bytes = 4096, .block_bytes = 512};
    if (kind == FILES) {
        snprintf(f->dir, sizeof(f->dir), "/tmp/lockstep-journal-XXXXXX");
        assert_non_null(mkdtemp(f->dir));
        snprintf(f->uri, sizeof(f->uri), "file:%s/j", f->dir);
    } else if (kind == KAFKA) {
        f->skipped = getenv("LOCKSTEP_TEST_KAFKA") == NULL;
        snprintf(f->uri, sizeof(f->uri), "kafka://%s",
                 f->skipped ? "-" : getenv("LOCKSTEP_TEST_KAFKA"));
        snprintf(f->topic, sizeof(f->topic), "lockstep.t%d_%u", (int)getpid(), number++);
        f->o.name = f->topic;
        f->o.registry = getenv("LOCKSTEP_TEST_REGISTRY");
    } else {
        snprintf(f->uri, sizeof(f->uri), "memory:j%u", number++);
    }
    return f;
}

static int setup_file(void **state)
{
    *state = fixture_new(FILES);
    return 0;
}

static int setup_memory(void **state)
{
    *state = fixture_new(MEMORY);
    return 0;
}

static int setup_kafka(void **state)
{
    *state = fixture_new(KAFKA);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->kind == FILES)
        nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (f->kind == KAFKA && !f->skipped)
        journal_remove(&f->o, &f->e);
    memory_journal_reset_all();
    free(f);
    return 0;
}

/* A broker sends when it sends; the others have a record at once or not at all. */
static int patience(const struct fixture *f, int timeout_ms)
{
    return f->kind == KAFKA && timeout_ms < BROKER_MS ? BROKER_MS : timeout_ms;
}

static struct journal_writer *writer(struct fixture *f)
{
    struct journal_writer *w;
    char *note;

    ok(f, journal_writer_open(&f->o, &w, &note, &f->e));
    free(note);
    return w;
}

static struct journal_reader *reader(struct fixture *f, uint64_t from)
{
    struct journal_reader *r;

    ok(f, journal_reader_open(&f->o, from, &r, &f->e));
    return r;
}

static uint32_t declare(struct fixture *f, struct journal_writer *w, const char *name,
                        const char *text)
{
    uint32_t id = UINT32_MAX;

    ok(f, journal_schema(w, name, text, &id, &f->e));
    return id;
}

static uint32_t declare_a(struct fixture *f, struct journal_writer *w)
{
    return declare(f, w, "lockstep.t.A", SCHEMA_A);
}

/* Record number n is recognised by its bytes. */
static int datum(uint64_t n, char out[80])
{
    return snprintf(out, 80, "record %" PRIu64 " %.*s", n, (int)(n % 50),
                    "..................................................");
}

static void append(struct fixture *f, struct journal_writer *w, uint32_t schema, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t expected = journal_next(w);
        uint64_t number;
        char text[80];
        int len = datum(expected, text);

        ok(f, journal_append(w, schema, text, (size_t)len, &number, &f->e));
        assert_int_equal(number, expected);
    }
}

static void flush(struct fixture *f, struct journal_writer *w)
{
    ok(f, journal_flush(w, &f->e));
    assert_int_equal(journal_durable(w), journal_next(w));
}

static void fill(struct fixture *f, unsigned count)
{
    struct journal_writer *w = writer(f);

    append(f, w, declare_a(f, w), count);
    flush(f, w);
    journal_writer_close(w);
}

static void expect_record(struct fixture *f, struct journal_reader *r, uint64_t n, int timeout_ms)
{
    struct journal_record record;
    char text[80];
    int len = datum(n, text);
    int rc = journal_read(r, patience(f, timeout_ms), &record, &f->e);

    if (rc != 1)
        fail_msg("record %" PRIu64 ": %d %s", n, rc, rc < 0 ? f->e.msg : "");
    assert_int_equal(record.number, n);
    assert_int_equal(record.len, len);
    assert_memory_equal(record.data, text, (size_t)len);
}

static void expect_nothing(struct fixture *f, struct journal_reader *r)
{
    struct journal_record record;
    int rc = journal_read(r, f->kind == KAFKA ? BROKER_QUIET_MS : 0, &record, &f->e);

    if (rc != 0)
        fail_msg("%d instead of nothing: %s", rc, rc < 0 ? f->e.msg : "a record");
}

static void expect_range(struct fixture *f, uint64_t from, uint64_t to)
{
    struct journal_reader *r = reader(f, from);

    for (uint64_t n = from; n < to; n++)
        expect_record(f, r, n, 0);
    expect_nothing(f, r);
    journal_reader_close(r);
}

static void expect_open_fails(struct fixture *f, uint64_t from, enum err_class class,
                              const char *says)
{
    struct journal_reader *r;

    assert_int_equal(journal_reader_open(&f->o, from, &r, &f->e), -1);
    assert_int_equal(f->e.class, class);
    if (!strstr(f->e.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", f->e.msg, says);
}

#endif
