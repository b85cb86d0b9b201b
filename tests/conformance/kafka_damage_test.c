/* What others may do to a Kafka journal's topics, over a real broker (LOCKSTEP_TEST_KAFKA): it is
 * said for good, never read over and never tried again without end. */
#include "journal/kafka_scan.h"

#include "core/run.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
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

/* The log begins with a record, not with a STATE. */
static void behead(struct fixture *f, uint64_t number)
{
    struct kafka_machine m = {0};
    struct kafka_client c = {0};
    struct kafka_header h = {0};
    struct kafka_fetch fetch;

    ok(f, kafka_client_open(&c, RD_KAFKA_CONSUMER, &f->o, NULL, 0, &f->e));
    fetch = (struct kafka_fetch){.client = &c, .topic = c.topic, .name = c.name};
    ok(f, kafka_scan_find(&fetch, &m, number, &f->e));
    do {
        ok(f, kafka_fetch_one(&fetch, m.offset++, &f->e));
        assert_true(kafka_header_read(fetch.message.header, fetch.message.header_len, &h));
    } while (h.kind != KAFKA_RECORD || h.number < number);
    ok(f, kafka_topic_trim(&c, c.name, m.offset - 1, &f->e));
    kafka_fetch_release(&fetch);
    kafka_client_close(&c);
}

/* As a broker that was killed shows it: a trimmed log from before where trimming ended. */
static void test_begins_anywhere(void **state)
{
    struct fixture *f = fixture_of(state);
    struct journal_writer *w = writer(f);
    struct journal_record record;
    struct journal_stats stats;
    struct journal_reader *r;

    for (unsigned i = 0; i < 10; i++)
        append(f, w, "lockstep.t.A", SCHEMA_A, 20);
    behead(f, 55);
    assert_int_equal(journal_stat(&f->o, &stats, &f->e), 1);
    assert_int_equal(stats.next, 200);
    assert_true(stats.first > 55 && stats.first < 100);
    append(f, w, "lockstep.t.A", SCHEMA_A, 20);
    journal_writer_close(w);
    must_say(f, journal_reader_open(&f->o, 55, &r, &f->e), ERR_FATAL, "was trimmed");
    ok(f, journal_reader_open(&f->o, stats.first, &r, &f->e));
    assert_int_equal(read_one(f, r, &record), 1);
    assert_int_equal(record.number, stats.first);
    journal_reader_close(r);
    ok(f, journal_reader_open(&f->o, 150, &r, &f->e));
    assert_int_equal(read_one(f, r, &record), 1);
    assert_int_equal(record.number, 150);
    w = writer(f);
    assert_int_equal(journal_next(w), 220);
    append(f, w, "lockstep.t.A", SCHEMA_A, 1);
    while (record.number < 220)
        assert_int_equal(read_one(f, r, &record), 1);
    journal_reader_close(r);
    journal_writer_close(w);
    ok(f, journal_trim(&f->o, 150, &f->e));
    assert_int_equal(journal_stat(&f->o, &stats, &f->e), 1);
    assert_true(stats.first > 100 && stats.first <= 150 && stats.next == 221);
}

/* An absent topic may come back, so it is asked for again before it is called removed; also by a
 * reader that is opened for the first time, and none makes it anew. */
static void test_topic_removed(void **state)
{
    struct fixture *f = fixture_of(state);
    struct journal_writer *w = writer(f);
    struct journal_record record;
    struct journal_reader *r;
    struct journal_reader *again;
    int64_t begin = mono_ms();
    unsigned retries = 0;
    int rc;

    append(f, w, "lockstep.t.A", SCHEMA_A, 2);
    journal_writer_close(w);
    ok(f, journal_reader_open(&f->o, 0, &r, &f->e));
    remove_topic(f, KAFKA_SCHEMAS_SUFFIX, false);
    must_say(f, read_one(f, r, &record), ERR_RETRY, KAFKA_SCHEMAS_SUFFIX " at ");
    remove_topic(f, "", false);
    while ((rc = journal_read(r, 1000, &record, &f->e)) == 0)
        continue;
    must_say(f, rc, ERR_RETRY, "not known");
    while (journal_reader_open(&f->o, 1, &again, &f->e) < 0 && f->e.class == ERR_RETRY) {
        retries++;
        nap_ms(500);
    }
    must_say(f, -1, ERR_FATAL, "was removed");
    assert_true(retries > 3 && mono_ms() - begin > 10000);
    must_say(f, journal_reader_open(&f->o, 0, &again, &f->e), ERR_RETRY, "no journal");
    journal_reader_close(r);
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

/* A broker that tells its versions (of the login's two requests) and goes down over anything else.
 */
static void *hang_up(void *arg)
{
    static const uint8_t versions[] = {0, 0, 0,  0, /* length; number: of the request */
                                       0, 0, 0,  0, 0, 0, 3, 0, 17, 0, 0, 0, 1,
                                       0, 0, 36, 0, 0, 0, 1, 0, 0,  0, 0, 0, 0};
    const int *listener = arg;
    uint8_t request[512];
    int fd;

    while ((fd = accept(*listener, NULL, NULL)) >= 0) {
        while (read(fd, request, sizeof(request)) > 12 && request[5] == 18) {
            uint8_t answer[sizeof(versions)];

            memcpy(answer, versions, sizeof(versions));
            answer[3] = sizeof(versions) - 4;
            memcpy(answer + 4, request + 8, 4);
            if (write(fd, answer, sizeof(answer)) < 0)
                break;
        }
        close(fd);
    }
    return NULL;
}

/* A broker that goes down during a login has not refused it. */
static void test_login_cut_off(void **state)
{
    const struct journal_property properties[] = {{"security.protocol", "SASL_PLAINTEXT"},
                                                  {"sasl.mechanisms", "PLAIN"},
                                                  {"sasl.username", "app"},
                                                  {"sasl.password", "not-told"}};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001)};
    struct fixture *f = fixture_of(state);
    struct journal_options o = f->o;
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct kafka_client c = {0};
    pthread_t thread;
    char uri[64];

    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(listen(listener, 16), 0);
    assert_int_equal(pthread_create(&thread, NULL, hang_up, &listener), 0);
    snprintf(uri, sizeof(uri), "kafka://127.0.0.1:%d", ntohs(address.sin_port));
    o.uri = uri;
    o.properties = properties;
    o.nproperties = sizeof(properties) / sizeof(properties[0]);
    must_say(f, kafka_client_open(&c, RD_KAFKA_CONSUMER, &o, NULL, 0, &f->e), ERR_RETRY,
             "handshake failed");
    kafka_client_close(&c);
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
}

#define LOOKS 10

struct looker {
    struct fixture f;
    pthread_t thread;
    unsigned right;
    uint64_t next;
};

static void *look(void *arg)
{
    struct looker *l = arg;
    struct journal_stats stats;

    for (unsigned i = 0; i < LOOKS; i++) {
        if (journal_stat(&l->f.o, &stats, &l->f.e) == 1 && stats.next == l->next)
            l->right++;
    }
    return NULL;
}

/* Three journals looked after at once: each gets its own answers, whoever has the connections. */
static void test_looked_after_at_once(void **state)
{
    struct fixture *f = fixture_of(state);
    struct looker lookers[3] = {{.next = 1}, {.next = 2}, {.next = 3}};
    int64_t begin;

    for (unsigned i = 0; i < 3; i++) {
        struct looker *l = &lookers[i];
        struct journal_writer *w;

        l->f = *f;
        snprintf(l->f.topic, sizeof(l->f.topic), "%s.%u", f->topic, i);
        l->f.o.name = l->f.topic;
        l->f.o.uri = l->f.uri;
        w = writer(&l->f);
        append(&l->f, w, "lockstep.t.A", SCHEMA_A, i + 1);
        journal_writer_close(w);
    }
    for (unsigned n = 1; n <= 3; n++) {
        begin = mono_ms();
        for (unsigned i = 0; i < n; i++) {
            lookers[i].right = 0;
            assert_int_equal(pthread_create(&lookers[i].thread, NULL, look, &lookers[i]), 0);
        }
        for (unsigned i = 0; i < n; i++) {
            pthread_join(lookers[i].thread, NULL);
            if (lookers[i].right != LOOKS)
                fail_msg("journal %u: %u right, %s", i, lookers[i].right, lookers[i].f.e.msg);
        }
        print_message("%u journals: %" PRId64 " ms\n", n, mono_ms() - begin);
    }
    for (unsigned i = 0; i < 3; i++)
        ok(f, journal_remove(&lookers[i].f.o, &f->e));
}

/* ---- writers that take the journal from each other ---- */

#define RIVALS 3
#define RIVALRY_MS 8000
#define KEEP_MAX 200000u
#define BATCH 20u

/* What was said to be durable: told by the rivals in memory that all of them share. */
struct promises {
    _Atomic unsigned n;
    struct {
        uint64_t number;
        uint64_t value;
    } v[KEEP_MAX];
};

/* Appends and flushes until it is told that another took over. */
static void hold_on(struct fixture *f, struct journal_writer *w, struct promises *all,
                    uint64_t *value, int64_t end)
{
    uint64_t numbers[BATCH];
    uint64_t first;
    uint32_t id;

    if (journal_schema(w, "lockstep.t.A", SCHEMA_A, &id, &f->e) < 0)
        return;
    while (mono_ms() < end) {
        first = *value;
        for (unsigned i = 0; i < BATCH; i++, ++*value) {
            if (journal_append(w, id, value, sizeof(*value), &numbers[i], &f->e) < 0)
                return;
        }
        if (journal_flush(w, &f->e) < 0)
            return;
        for (unsigned i = 0; i < BATCH; i++) {
            unsigned at = atomic_fetch_add(&all->n, 1);

            if (at >= KEEP_MAX)
                _exit(3);
            all->v[at].number = numbers[i];
            all->v[at].value = first + i;
        }
    }
}

static void rival(struct fixture *f, struct promises *all, uint64_t value, int64_t end)
{
    while (mono_ms() < end) {
        struct journal_writer *w;
        char *note = NULL;

        if (journal_writer_open(&f->o, &w, &note, &f->e) == 0) {
            hold_on(f, w, all, &value, end);
            journal_writer_close(w);
        }
        free(note);
        if (f->e.class != ERR_NONE && f->e.class != ERR_FENCED && f->e.class != ERR_RETRY)
            _exit(4);
    }
    _exit(0);
}

static void disturb(const pid_t *pids, int64_t end)
{
    for (unsigned i = 0; mono_ms() < end; i++) {
        kill(pids[i % RIVALS], SIGSTOP);
        nap_ms((int)(20 + i * 37 % 300));
        kill(pids[i % RIVALS], SIGCONT);
        nap_ms((int)(5 + i * 13 % 60));
    }
}

/* Each record that a writer called durable is read, once, with what that writer put into it. */
static void test_rivals(void **state)
{
    struct fixture *f = fixture_of(state);
    struct promises *all =
        mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *values = calloc(KEEP_MAX * 4, sizeof(*values));
    int64_t end = mono_ms() + RIVALRY_MS;
    struct journal_record record;
    struct journal_stats stats;
    struct journal_reader *r;
    pid_t pids[RIVALS];

    assert_true(all != MAP_FAILED);
    for (unsigned i = 0; i < RIVALS; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            rival(f, all, (uint64_t)(i + 1) << 40, end);
    }
    disturb(pids, end);
    for (unsigned i = 0; i < RIVALS; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    journal_writer_close(writer(f));
    assert_int_equal(journal_stat(&f->o, &stats, &f->e), 1);
    assert_true(stats.next >= all->n && stats.next < KEEP_MAX * 4);
    ok(f, journal_reader_open(&f->o, 0, &r, &f->e));
    for (uint64_t n = 0; n < stats.next; n++) {
        if (read_one(f, r, &record) != 1)
            fail_msg("record %" PRIu64 ": %s", n, f->e.msg);
        assert_int_equal(record.number, n);
        memcpy(&values[n], record.data, sizeof(values[n]));
    }
    journal_reader_close(r);
    for (unsigned i = 0; i < all->n; i++)
        assert_int_equal(values[all->v[i].number], all->v[i].value);
    print_message("%u durable of %" PRIu64 " records, generation %u\n", all->n, stats.next,
                  record.generation);
    assert_true(all->n > 10 * BATCH && record.generation > RIVALS);
    munmap(all, sizeof(*all));
    free(values);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_schemas_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_topic_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_begins_anywhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_topic_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved, setup, teardown),
        cmocka_unit_test_setup_teardown(test_login_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looked_after_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rivals, setup, teardown),
    };

    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
