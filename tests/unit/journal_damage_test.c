/* A file journal whose files somebody has damaged: the reader says which and where, and never
 * jumps. */
#include "tests/unit/journal_file_fixture.h"

static void test_gap(void **state)
{
    struct fixture *f = *state;
    struct segment_list l;
    char path[160];

    fill(f, 100);
    l = list(f);
    assert_true(l.n > 4);
    segment_path(f, l.first[2], path);
    assert_int_equal(unlink(path), 0);
    expect_damage(f, 0, "gap");
    expect_damage(f, l.first[1] + 1, path);
    expect_damage(f, l.first[2] + 1, path);
    assert_int_equal(read_all(f, l.first[3]), 100);
    segment_list_release(&l);
}

/* A segment that holds other records than its name and its neighbours say. */
static void test_wrong_segment(void **state)
{
    struct fixture *f = *state;
    struct segment_list l;
    char first[160];
    char second[160];
    char other[160];
    char *data;
    size_t len;

    fill(f, 100);
    l = list(f);
    segment_path(f, 0, first);
    segment_path(f, l.first[1], second);
    segment_path(f, l.first[1] + 1, other);
    assert_int_equal(rename(second, other), 0);
    expect_damage(f, 0, "gap");
    assert_int_equal(rename(other, second), 0);
    data = slurp(first, &len);
    copy_file(second, first);
    expect_damage(f, 0, "another first record");
    /* One that ends too early, with a whole block. */
    spill(first, data, len);
    assert_int_equal(read_all(f, 0), 100);
    assert_int_equal(datum(l.first[1] - 1, other) + 3 + (int)SYNC_SIZE < (int)len, 1);
    spill(first, data, len - (size_t)datum(l.first[1] - 1, other) - 3 - SYNC_SIZE);
    expect_damage(f, 0, "gap");
    segment_list_release(&l);
    free(data);
}

static void test_falling_generation(void **state)
{
    struct fixture *f = *state;
    char path[160];
    char *data;
    char *at;
    size_t len;

    fill(f, 4);
    fill(f, 4);
    segment_path(f, 0, path);
    data = slurp(path, &len);
    at = memmem(data, len, "lockstep.generation", 19);
    assert_non_null(at);
    assert_int_equal(at[20], '1');
    at[20] = '9';
    spill(path, data, len);
    segment_path(f, 4, path);
    expect_damage(f, 0, path);
    assert_non_null(strstr(f->e.msg, "generation is lower"));
    free(data);
}

static void test_every_byte_damaged(void **state)
{
    struct fixture *f = *state;
    unsigned noticed = 0;
    char path[160];
    size_t len;
    char *data;

    fill(f, 6);
    segment_path(f, 0, path);
    data = slurp(path, &len);
    for (size_t at = 0; at < len; at++) {
        struct journal_reader *r;
        struct journal_record record;
        int rc = -1;

        data[at] ^= (char)(at % 255 + 1);
        spill(path, data, len);
        if (journal_reader_open(&f->o, 0, &r, &f->e) == 0) {
            do
                rc = journal_read(r, 0, &record, &f->e);
            while (rc == 1);
            journal_reader_close(r);
        }
        noticed += rc < 0;
        if (rc < 0) {
            assert_int_equal(f->e.class, ERR_FATAL);
            assert_non_null(strstr(f->e.msg, "offset"));
        }
        data[at] ^= (char)(at % 255 + 1);
    }
    assert_true(noticed > len / 3);
    free(data);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_gap),
        TEST(test_wrong_segment),
        TEST(test_falling_generation),
        TEST(test_every_byte_damaged),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
