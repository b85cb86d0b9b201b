/* The log of a Kafka journal, message by message, without a broker: who has the generation, which
 * records exist, what is said of a log that was tampered with. */
#include "journal/kafka_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* What one message of a case is, and what the machine makes of it. */
struct line {
    struct kafka_header h;
    enum kafka_step step;
    const char *note; /* or the owner, of an OPEN */
    unsigned skipped; /* offsets before it */
    bool foreign;
};

#define OPEN(gen)                                                                                  \
    {                                                                                              \
        .kind = KAFKA_OPEN, .generation = (gen), .journal = 7, .nonce = 70 + (gen)                 \
    }
#define STATE(gen, next)                                                                           \
    {                                                                                              \
        .kind = KAFKA_STATE, .generation = (gen), .number = (next), .journal = 7                   \
    }
#define RECORD(gen, n) PART(gen, n, 0, 1)
#define PART(gen, n, p, of)                                                                        \
    {                                                                                              \
        .kind = KAFKA_RECORD, .generation = (gen), .number = (n), .part = (p), .parts = (of),      \
        .journal = 7                                                                               \
    }

static struct err e;

static enum kafka_step feed(struct kafka_machine *m, const struct line *l, int64_t offset)
{
    uint8_t bytes[KAFKA_HEADER_SIZE];
    struct kafka_message message = {.offset = offset, .value = "", .header = bytes};
    struct kafka_header h;

    kafka_header_write(&l->h, bytes);
    message.header_len = sizeof(bytes);
    if (l->foreign)
        message.header = NULL;
    if (l->note && l->h.kind == KAFKA_OPEN) {
        message.owner = l->note;
        message.owner_len = strlen(l->note);
    } else if (l->note) {
        message.note = l->note;
        message.note_len = strlen(l->note);
    }
    return kafka_machine_step(m, "t", &message, &h, &e);
}

static struct kafka_machine run(const struct line *lines, size_t n)
{
    struct kafka_machine m = {0};
    int64_t offset = 0;

    err_clear(&e);
    for (size_t i = 0; i < n; i++) {
        offset += lines[i].skipped;
        if (feed(&m, &lines[i], offset++) != lines[i].step)
            fail_msg("line %zu: %s", i, e.msg);
    }
    return m;
}
#define RUN(lines) run(lines, sizeof(lines) / sizeof((lines)[0]))

static void test_header(void **state)
{
    const struct kafka_header h = {.kind = KAFKA_RECORD,
                                   .flags = KAFKA_FLAG_REGISTRY,
                                   .generation = 0x01020304,
                                   .number = 0x1112131415161718,
                                   .part = 2,
                                   .parts = 3,
                                   .schema = 0x2122232425262728,
                                   .journal = 0x3132333435363738,
                                   .bytes = 0x4142434445464748,
                                   .nonce = 0x5152535455565758,
                                   .ref = 0x6162636465666768,
                                   .ref_number = 0x7172737475767778};
    uint8_t bytes[KAFKA_HEADER_SIZE + 1] = {0};
    struct kafka_header got = {0};

    kafka_header_write(&h, bytes);
    assert_true(kafka_header_read(bytes, KAFKA_HEADER_SIZE, &got));
    assert_memory_equal(&bytes[4], "\x01\x02\x03\x04\x11\x12", 6);
    assert_int_equal(got.ref_number, h.ref_number);
    assert_int_equal(got.schema, h.schema);
    assert_int_equal(got.parts, 3);
    /* A later version may add to it; a shorter one is none of ours. */
    assert_true(kafka_header_read(bytes, sizeof(bytes), &got));
    assert_false(kafka_header_read(bytes, KAFKA_HEADER_SIZE - 1, &got));
    assert_false(kafka_header_read(bytes, 0, &got));
    bytes[0] = 2;
    assert_false(kafka_header_read(bytes, KAFKA_HEADER_SIZE, &got));
    bytes[0] = 1;
    bytes[1] = 'X';
    assert_false(kafka_header_read(bytes, KAFKA_HEADER_SIZE, &got));
    bytes[1] = 'R';
    bytes[19] = 3; /* part 3 of 3 */
    assert_false(kafka_header_read(bytes, KAFKA_HEADER_SIZE, &got));
}

static void test_takeover(void **state)
{
    static const struct line lines[] = {
        {.h = OPEN(1), .step = KAFKA_STEP_PASS, .note = "me"},
        {.h = STATE(1, 0), .step = KAFKA_STEP_PASS},
        {.h = RECORD(1, 0), .step = KAFKA_STEP_RECORD},
        {.h = PART(1, 1, 0, 2), .step = KAFKA_STEP_PART},
        {.h = OPEN(2), .step = KAFKA_STEP_PASS},
        {.h = PART(1, 1, 1, 2), .step = KAFKA_STEP_PASS}, /* a zombie's */
        {.h = STATE(2, 1), .step = KAFKA_STEP_PASS, .note = "note"},
        {.h = RECORD(1, 2), .step = KAFKA_STEP_PASS},
        {.h = OPEN(2), .step = KAFKA_STEP_PASS, .note = "somebody"},
        {.h = PART(2, 1, 0, 2), .step = KAFKA_STEP_PART},
        {.h = PART(2, 1, 1, 2), .step = KAFKA_STEP_RECORD},
        {.foreign = true, .step = KAFKA_STEP_PASS},
        {.h = STATE(1, 9), .step = KAFKA_STEP_PASS, .note = "stale"},
        {.h = RECORD(2, 2), .step = KAFKA_STEP_RECORD}};
    struct kafka_machine m = RUN(lines);

    assert_int_equal(m.next, 3);
    assert_int_equal(m.generation, 2);
    assert_int_equal(m.nonce, 72);
    assert_int_equal(m.state, 6);
    assert_int_equal(m.state_number, 1);
    assert_string_equal(m.note, "note");
    assert_string_equal(m.owner, "me");
}

/* The last line of each is what must be refused. */
static void expect_error(const struct line *lines, size_t n, enum err_class class, const char *says)
{
    run(lines, n);
    assert_int_equal(e.class, class);
    if (!strstr(e.msg, says))
        fail_msg("\"%s\" is not said: %s", says, e.msg);
}
#define EXPECT_ERROR(lines, class, says)                                                           \
    expect_error(lines, sizeof(lines) / sizeof((lines)[0]), class, says)

static void test_damage(void **state)
{
    static const struct line lost[] = {{.h = OPEN(1), .step = KAFKA_STEP_PASS},
                                       {.h = RECORD(1, 0), .step = KAFKA_STEP_RECORD},
                                       {.h = RECORD(1, 2), .step = KAFKA_STEP_ERROR}};
    static const struct line lost_part[] = {{.h = OPEN(1), .step = KAFKA_STEP_PASS},
                                            {.h = PART(1, 0, 0, 3), .step = KAFKA_STEP_PART},
                                            {.h = PART(1, 0, 2, 3), .step = KAFKA_STEP_ERROR}};
    static const struct line other_size[] = {{.h = OPEN(1), .step = KAFKA_STEP_PASS},
                                             {.h = PART(1, 0, 0, 3), .step = KAFKA_STEP_PART},
                                             {.h = PART(1, 0, 1, 2), .step = KAFKA_STEP_ERROR}};
    static const struct line no_open[] = {{.h = OPEN(1), .step = KAFKA_STEP_PASS},
                                          {.h = RECORD(2, 0), .step = KAFKA_STEP_ERROR}};
    static const struct line compacted[] = {
        {.h = OPEN(1), .step = KAFKA_STEP_PASS},
        {.h = RECORD(1, 0), .step = KAFKA_STEP_ERROR, .skipped = 1}};
    static const struct line eaten[] = {
        {.h = RECORD(1, 5), .step = KAFKA_STEP_ERROR, .skipped = 3}};
    static const struct line late_open[] = {{.h = OPEN(1), .step = KAFKA_STEP_ERROR, .skipped = 3}};
    static const struct line foreign[] = {{.foreign = true, .step = KAFKA_STEP_ERROR}};
    static const struct line anew[] = {
        {.h = OPEN(1), .step = KAFKA_STEP_PASS},
        {.h = {.kind = KAFKA_RECORD, .generation = 1, .parts = 1, .journal = 8},
         .step = KAFKA_STEP_ERROR}};

    EXPECT_ERROR(lost, ERR_FATAL, "records are missing at offset 2");
    EXPECT_ERROR(lost_part, ERR_FATAL, "records are missing");
    EXPECT_ERROR(other_size, ERR_FATAL, "records are missing");
    EXPECT_ERROR(no_open, ERR_FATAL, "records are missing");
    EXPECT_ERROR(compacted, ERR_FATAL, "removed from within");
    EXPECT_ERROR(eaten, ERR_FATAL, "removed by somebody else");
    EXPECT_ERROR(late_open, ERR_FATAL, "removed by somebody else");
    EXPECT_ERROR(foreign, ERR_REFUSED, "did not write");
    EXPECT_ERROR(anew, ERR_FATAL, "made anew");
}

static void test_long_texts(void **state)
{
    char text[JOURNAL_NOTE_MAX * 2];
    struct line lines[] = {{.h = OPEN(1), .step = KAFKA_STEP_PASS, .note = text},
                           {.h = STATE(1, 0), .step = KAFKA_STEP_PASS, .note = text}};
    struct kafka_machine m;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    m = RUN(lines);
    assert_int_equal(strlen(m.owner), JOURNAL_OWNER_MAX);
    assert_int_equal(strlen(m.note), JOURNAL_NOTE_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_takeover),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_long_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
