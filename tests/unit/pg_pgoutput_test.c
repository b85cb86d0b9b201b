/* pgoutput.c: each message decodes to what the server put into it, and none of its prefixes does.
 */
#include "engines/postgres/pgoutput.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct arena arena;

#define MSG(text) text, sizeof(text) - 1

/* Every shorter and one longer form of a good message must be refused; each lies in memory of its
 * own exact size, so that a sanitizer sees a read behind it. */
static struct pgo_message good(const char *data, size_t len)
{
    struct pgo_message m;
    struct err e;

    for (size_t cut = 0; cut <= len + 1; cut++) {
        char *copy = calloc(1, cut + 1);

        assert_non_null(copy);
        memcpy(copy + 1, data, cut <= len ? cut : len);
        if (cut != len)
            assert_int_equal(pgo_decode(&arena, copy + 1, cut, &m, &e), -1);
        free(copy);
    }
    assert_int_equal(pgo_decode(&arena, data, len, &m, &e), 0);
    return m;
}

static void assert_value(const struct value *v, enum value_state state, const char *text)
{
    assert_int_equal(v->state, state);
    if (state != VALUE_SET)
        return;
    assert_int_equal(v->len, strlen(text));
    assert_memory_equal(v->data, text, v->len);
}

static void test_transaction(void **state)
{
    struct pgo_message m = good(MSG("B\0\0\0\0\x01\xd8j\x08\0\x03\x03\xdb\xb0w\xe0[\0\0\x02\xe1"));

    assert_int_equal(m.begin.final_lsn, 0x1d86a08);
    assert_int_equal(m.begin.xid, 0x2e1);
    assert_int_equal(m.begin.ts, 0x303dbb077e05b);
    m = good(MSG("C\0\0\0\0\0\x01\xd8j\x08\0\0\0\0\x01\xd8j8\0\x03\x03\xdb\xb0w\xe0["));
    assert_int_equal(m.commit.commit_lsn, 0x1d86a08);
    assert_int_equal(m.commit.end_lsn, 0x1d86a38);
}

static void test_relation(void **state)
{
    struct pgo_message m = good(MSG("R\0\0@\x16public\0Od d\"q\0d\0\x02\x01Key x\0\0\0\0\x19"
                                    "\xff\xff\xff\xff\0v\0\0\0\x0e\xda\0\0\0\x08"));

    assert_int_equal(m.relation.id, 0x4016);
    assert_string_equal(m.relation.name, "Od d\"q");
    assert_int_equal(m.relation.identity, 'd');
    assert_int_equal(m.relation.n, 2);
    assert_true(m.relation.columns[0].key);
    assert_string_equal(m.relation.columns[0].name, "Key x");
    assert_int_equal(m.relation.columns[0].typmod, -1);
    assert_int_equal(m.relation.columns[1].type, 3802);
    assert_int_equal(m.relation.columns[1].typmod, 8);
}

static void test_changes(void **state)
{
    struct pgo_message m = good(MSG("U\0\0@\tK\0\x03t\0\0\0\x01"
                                    "1nnN\0\x03t\0\0\0\x01"
                                    "3ut\0\0\0\x07it's ok"));

    assert_int_equal(m.change.relation, 0x4009);
    assert_int_equal(m.change.before_kind, 'K');
    assert_value(&m.change.before->v[0], VALUE_SET, "1");
    assert_value(&m.change.before->v[1], VALUE_NULL, NULL);
    assert_value(&m.change.after->v[0], VALUE_SET, "3");
    assert_value(&m.change.after->v[1], VALUE_UNCHANGED, NULL);
    assert_value(&m.change.after->v[2], VALUE_SET, "it's ok");
    m = good(MSG("I\0\0@\x11N\0\x02t\0\0\0\0n"));
    assert_null(m.change.before);
    assert_value(&m.change.after->v[0], VALUE_SET, "");
    m = good(MSG("D\0\0@\x11O\0\x02t\0\0\0\x01"
                 "1n"));
    assert_null(m.change.after);
    assert_int_equal(m.change.before_kind, 'O');
}

static void test_truncate_and_text(void **state)
{
    struct pgo_message m = good(MSG("T\0\0\0\x02\x02\0\0@\t\0\0@\x11"));

    assert_int_equal(m.truncate.n, 2);
    assert_true(m.truncate.restart);
    assert_false(m.truncate.cascade);
    assert_int_equal(m.truncate.relations[1], 0x4011);
    m = good(MSG("M\0\0\0\0\0\x01\xd8\x9e\xe0lockstep\0\0\0\0\x07token-1"));
    assert_false(m.text.transactional);
    assert_int_equal(m.text.lsn, 0x1d89ee0);
    assert_string_equal(m.text.prefix, "lockstep");
    assert_int_equal(m.text.len, 7);
}

static void refused(const char *data, size_t len)
{
    struct pgo_message m;
    struct err e;

    assert_int_equal(pgo_decode(&arena, data, len, &m, &e), -1);
    assert_int_equal(e.class, ERR_FATAL);
}

static void test_hostile(void **state)
{
    refused(MSG("X\0\0"));
    refused(MSG("S\0\0\0\x01\x01")); /* proto_version 2: stream start */
    refused(MSG("I\0\0@\x11N\0\x01"
                "b\0\0\0\x01x"));       /* binary */
    refused(MSG("I\0\0@\x11K\0\x01n")); /* an insert with an old row */
    refused(MSG("D\0\0@\x11N\0\x01n")); /* a delete with a new row */
    refused(MSG("I\0\0@\x11N\xff\xff"
                "nnnn"));                               /* columns that are not there */
    refused(MSG("I\0\0@\x11N\0\x01t\xff\xff\xff\xff")); /* a length beyond the end */
    refused(MSG("T\xff\xff\xff\xff\0\0\0@\t"));         /* relations that are not there */
    refused(MSG("T\0\0\0\0\0"));                        /* none */
    refused(MSG("R\0\0@\x16public"));                   /* a name without an end */
}

static void test_unhex(void **state)
{
    char text[] = "\\x00Ff10";
    char odd[] = "\\x0";
    char wrong[] = "\\x0g";
    char empty[] = "\\x";
    struct value v = {VALUE_SET, strlen(text), text};

    assert_int_equal(pg_unhex(&v), 0);
    assert_int_equal(v.len, 3);
    assert_memory_equal(v.data, "\x00\xff\x10", 3);
    v = (struct value){VALUE_SET, 3, odd};
    assert_int_equal(pg_unhex(&v), -1);
    v = (struct value){VALUE_SET, 4, wrong};
    assert_int_equal(pg_unhex(&v), -1);
    v = (struct value){VALUE_SET, 2, empty};
    assert_int_equal(pg_unhex(&v), 0);
    assert_int_equal(v.len, 0);
}

static int release(void **state)
{
    arena_release(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transaction), cmocka_unit_test(test_relation),
        cmocka_unit_test(test_changes),     cmocka_unit_test(test_truncate_and_text),
        cmocka_unit_test(test_hostile),     cmocka_unit_test(test_unhex),
    };

    return cmocka_run_group_tests(tests, NULL, release);
}
