/* What others may do to a Kafka journal's topics, over a real broker (LOCKSTEP_TEST_KAFKA): it is
 * said at once and for good, never read over and never tried again without end. */
#include "journal/kafka_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define SCHEMA_A                                                                                   \
    "{\"type\":\"record\",\"name\":\"lockstep.t.A\",\"fields\":[{\"name\":\"v\",\"type\":"         \
    "\"string\"}]}"
#define SCHEMA_B                                                                                   \
    "{\"type\":\"record\",\"name\":\"lockstep.t.B\",\"fields\":[{\"name\":\"v\",\"type\":"         \
    "\"string\"}]}"
#define BROKER_MS 10000

struct fixture {
    char uri[96];
    char topic[64];
    struct journal_options o;
    struct err e;
};

static int setup(void **state)
{
    static unsigned number;
    const char *broker = getenv("LOCKSTEP_TEST_KAFKA");
    struct fixture *f = calloc(1, sizeof(*f));

    snprintf(f->uri, sizeof(f->uri), "kafka://%s", broker ? broker : "-");
    snprintf(f->topic, sizeof(f->topic), "lockstep.d%d_%u", (int)getpid(), number++);
    f->o = (struct journal_options){.uri = f->uri, .name = f->topic, .segment_bytes = 1024};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (getenv("LOCKSTEP_TEST_KAFKA"))
        journal_remove(&f->o, &f->e);
    free(f);
    return 0;
}

static struct fixture *fixture_of(void **state)
{
    if (!getenv("LOCKSTEP_TEST_KAFKA"))
        skip();
    return *state;
}

static void ok(struct fixture *f, int rc)
{
    if (rc < 0)
        fail_msg("%s", f->e.msg);
}

static struct journal_writer *writer(struct fixture *f)
{
    struct journal_writer *w;
    char *note;

    ok(f, journal_writer_open(&f->o, &w, &note, &f->e));
    free(note);
    return w;
}

static void append(struct fixture *f, struct journal_writer *w, const char *name, const char *text,
                   unsigned count)
{
    uint64_t number;
    uint32_t id;

    ok(f, journal_schema(w, name, text, &id, &f->e));
    for (unsigned i = 0; i < count; i++)
        ok(f, journal_append(w, id, "datum", 5, &number, &f->e));
    ok(f, journal_flush(w, &f->e));
}

/* As somebody with other tools does it, or a broker that makes topics by itself. */
static void remove_topic(struct fixture *f, const char *suffix, bool make_anew)
{
    struct kafka_client c = {0};
    char name[100];

    snprintf(name, sizeof(name), "%s%s", f->topic, suffix);
    ok(f, kafka_client_open(&c, RD_KAFKA_CONSUMER, &f->o, NULL, 0, &f->e));
    ok(f, kafka_topic_delete(&c, name, &f->e));
    if (make_anew)
        ok(f, kafka_topic_make(&c, name, &f->e));
    kafka_client_close(&c);
}

static void must_say(struct fixture *f, int rc, enum err_class class, const char *text)
{
    assert_int_equal(rc, -1);
    if (f->e.class != class || !strstr(f->e.msg, text))
        fail_msg("class %d: \"%s\" instead of \"%s\"", f->e.class, f->e.msg, text);
}

static int read_one(struct fixture *f, struct journal_reader *r, struct journal_record *out)
{
    int rc = journal_read(r, BROKER_MS, out, &f->e);

    assert_int_not_equal(rc, 0);
    return rc;
}

/* The schemas' topic is lost, and a new writer fills it in another order: an old record's number
 * names another table's schema now. */
static void test_schemas_made_anew(void **state)
{
    struct fixture *f = fixture_of(state);
    struct journal_writer *w = writer(f);
    struct journal_record record;
    struct journal_reader *r;

    append(f, w, "lockstep.t.A", SCHEMA_A, 1);
    journal_writer_close(w);
    remove_topic(f, KAFKA_SCHEMAS_SUFFIX, false);
    w = writer(f);
    append(f, w, "lockstep.t.B", SCHEMA_B, 1);
    journal_writer_close(w);
    ok(f, journal_reader_open(&f->o, 0, &r, &f->e));
    must_say(f, read_one(f, r, &record), ERR_FATAL, "another schema");
    journal_reader_close(r);
    ok(f, journal_reader_open(&f->o, 1, &r, &f->e));
    assert_int_equal(read_one(f, r, &record), 1);
    assert_string_equal(journal_schema_text(r, record.schema), SCHEMA_B);
    journal_reader_close(r);
}

/* The topic is removed and made anew under a writer: it ends, and no other goes on. */
static void test_topic_made_anew(void **state)
{
    struct fixture *f = fixture_of(state);
    struct journal_writer *w = writer(f);
    struct journal_writer *second;
    uint64_t number;
    uint32_t id;
    char *note;

    append(f, w, "lockstep.t.A", SCHEMA_A, 100);
    remove_topic(f, "", true);
    ok(f, journal_schema(w, "lockstep.t.A", SCHEMA_A, &id, &f->e));
    for (unsigned i = 0; i < 3; i++)
        ok(f, journal_append(w, id, "datum", 5, &number, &f->e));
    assert_int_equal(journal_flush(w, &f->e), -1);
    assert_int_equal(journal_durable(w), 100);
    journal_writer_close(w);
    must_say(f, journal_writer_open(&f->o, &second, &note, &f->e), ERR_FATAL, "made anew");
}

/* What would blind us to a takeover is nobody's to set. */
static void test_reserved(void **state)
{
    static const char *const names[] = {"delivery.report.only.error", "acks", "enabled_events"};
    struct fixture *f = fixture_of(state);

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct journal_property property = {names[i], "1"};
        struct journal_writer *w;
        char *note;

        f->o.properties = &property;
        f->o.nproperties = 1;
        must_say(f, journal_writer_open(&f->o, &w, &note, &f->e), ERR_CONFIG, names[i]);
        f->o.nproperties = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_schemas_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_topic_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
