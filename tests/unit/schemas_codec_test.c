/* The journal's records, there and back: every kind of record, every kind of column, and bytes that
 * nobody wrote. */
#include "schemas/avro/codec.h"

#include "core/arena.h"

#include <avro.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Avro C doubles its buffers; the test of large values counts memory. */
#define AVRO_CHECK_MAX ((size_t)1024 * 1024)

static const struct value null_value = {VALUE_NULL, 0, NULL};
static const struct value unchanged_value = {VALUE_UNCHANGED, 0, NULL};

struct fixture {
    struct encoder *enc;
    struct decoder *dec;
    struct arena a;
    struct buf out;
    struct err e;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->enc = encoder_new("shop", "postgres", "shopdb");
    f->dec = decoder_new();
    buf_init(&f->out, BUF_MAX_ROW);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    encoder_free(f->enc);
    decoder_free(f->dec);
    arena_release(&f->a);
    buf_release(&f->out);
    free(f);
    return 0;
}

/* ---- tables and rows ---- */

#define COLUMN(n, type, k)                                                                         \
    {                                                                                              \
        .name = (char *)n, .source_type = (char *)type, .kind = k                                  \
    }

static struct column shop_columns[] = {
    {.name = (char *)"id",
     .source_type = (char *)"bigint",
     .cast_type = (char *)"int8",
     .kind = TYPE_INT64,
     .order = KEY_ORDER_INT,
     .key = 2,
     .not_null = true,
     .identity_always = true},
    {.name = (char *)"region-ü",
     .source_type = (char *)"text",
     .cast_type = (char *)"text",
     .kind = TYPE_TEXT,
     .order = KEY_ORDER_SERVER,
     .key = 1,
     .not_null = true},
    {.name = (char *)"total",
     .source_type = (char *)"numeric(12,2)",
     .cast_type = (char *)"numeric",
     .kind = TYPE_DECIMAL,
     .precision = 12,
     .scale = 2},
    {.name = (char *)"2nd_x note", .source_type = (char *)"text", .kind = TYPE_TEXT},
    {.name = (char *)"at",
     .source_type = (char *)"timestamp with time zone",
     .kind = TYPE_TIMESTAMPTZ},
    {.name = (char *)"raw", .source_type = (char *)"bytea", .kind = TYPE_BYTES},
    {.name = (char *)"tags",
     .source_type = (char *)"text[]",
     .kind = TYPE_OTHER,
     .array = true,
     .generated = true},
    {.name = (char *)"odd",
     .source_type = (char *)"numeric(2,-3)",
     .kind = TYPE_DECIMAL,
     .precision = 2,
     .scale = -3},
};
static size_t shop_key[] = {1, 0};
static struct table shop = {.id = 4294967295u,
                            .version = 3,
                            .schema = (char *)"public",
                            .name = (char *)"order lines",
                            .root = (char *)"public.orders",
                            .identity = IDENTITY_FULL,
                            .ncolumns = 8,
                            .columns = shop_columns,
                            .nkey = 2,
                            .key = shop_key};

/* Not NUL-terminated behind its length, as the contract allows. */
static struct value text(struct arena *a, const char *s)
{
    return (struct value){VALUE_SET, strlen(s), arena_memdup(a, s, strlen(s))};
}

static struct row *shop_row(struct arena *a, const char *id, const char *total)
{
    struct row *r = row_new(a, shop.ncolumns);

    r->v[0] = text(a, id);
    r->v[1] = text(a, "eu");
    r->v[2] = text(a, total);
    r->v[3] = unchanged_value;
    r->v[4] = text(a, "2024-01-31 12:00:00.1+00");
    r->v[5] = (struct value){VALUE_SET, 3, "\0\377\\"};
    r->v[6] = text(a, "{a,NULL,\"NULL\"}");
    r->v[7] = text(a, "-1000");
    return r;
}

static struct txn some_txn(void)
{
    return (struct txn){.epoch = 7,
                        .xid = UINT64_C(1) << 40,
                        .commit = {0x1a2b3c4d, 1},
                        .next = {0x1a2b3c4e, 0},
                        .ts_us = 1706702400000000};
}

/* ---- there and back ---- */

static const char *schema_of(struct fixture *f, const struct record *r)
{
    const char *name;
    const char *schema;

    assert_int_equal(encoder_schema(f->enc, r, &name, &schema, &f->e), 0);
    return schema;
}

/* Avro C reads the datum by its schema, to its end, and writes the same bytes again. */
static void check_with_avro(const char *text, const struct buf *datum)
{
    char *again = malloc(datum->len + 1);
    avro_writer_t writer = avro_writer_memory(again, (int64_t)datum->len + 1);
    avro_reader_t reader = avro_reader_memory(datum->data, (int64_t)datum->len);
    avro_schema_t schema = NULL;
    avro_value_iface_t *iface;
    avro_value_t value;
    char rest;

    assert_int_equal(avro_schema_from_json_length(text, strlen(text), &schema), 0);
    iface = avro_generic_class_from_schema(schema);
    assert_int_equal(avro_generic_value_new(iface, &value), 0);
    assert_int_equal(avro_value_read(reader, &value), 0);
    assert_int_not_equal(avro_read(reader, &rest, 1), 0);
    assert_int_equal(avro_value_write(writer, &value), 0);
    assert_int_equal(avro_writer_tell(writer), datum->len);
    assert_memory_equal(again, datum->data, datum->len);
    avro_value_decref(&value);
    avro_value_iface_decref(iface);
    avro_schema_decref(schema);
    avro_reader_free(reader);
    avro_writer_free(writer);
    free(again);
}

static void encode(struct fixture *f, const struct record *r)
{
    buf_reset(&f->out, SIZE_MAX);
    if (encoder_encode(f->enc, r, &f->out, &f->e) != 0)
        fail_msg("%s", f->e.msg);
    if (f->out.len < AVRO_CHECK_MAX)
        check_with_avro(schema_of(f, r), &f->out);
}

/* The datum is decoded from memory of exactly its size, so that a read behind it is seen. */
static int decode(struct fixture *f, const struct record *r, const void *data, size_t len,
                  struct record *out)
{
    const char *schema = schema_of(f, r);
    void *exact = malloc(len ? len : 1);
    int rc;

    memcpy(exact, data, len);
    rc = decoder_decode(f->dec, (uint64_t)(uintptr_t)schema, schema, exact, len, &f->a, out, &f->e);
    free(exact);
    return rc;
}

static struct record round_trip(struct fixture *f, const struct record *r)
{
    struct record back;

    encode(f, r);
    if (decode(f, r, f->out.data, f->out.len, &back) != 0)
        fail_msg("%s", f->e.msg);
    return back;
}

static void assert_rows(const struct row *a, const struct row *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_true(row_equal(a, b));
}

static void assert_change(struct fixture *f, const struct record *r)
{
    struct record back = round_trip(f, r);

    assert_int_equal(back.kind, RECORD_CHANGE);
    assert_int_equal(back.change.op, r->change.op);
    assert_int_equal(back.change.ordinal, r->change.ordinal);
    assert_int_equal(back.change.group, r->change.group);
    assert_int_equal(back.change.restart_identity, r->change.restart_identity);
    assert_int_equal(back.txn.epoch, r->txn.epoch);
    assert_int_equal(back.txn.xid, r->txn.xid);
    assert_int_equal(back.txn.ts_us, r->txn.ts_us);
    assert_int_equal(position_cmp(back.txn.commit, r->txn.commit), 0);
    assert_rows(back.change.before, r->change.before);
    assert_rows(back.change.after, r->change.after);
}

static void assert_text(const char *a, const char *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_string_equal(a, b);
}

static void test_changes(void **state)
{
    struct fixture *f = *state;
    struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};

    r.change.table = &shop;
    r.change.op = OP_INSERT;
    r.change.after = shop_row(&f->a, "9223372036854775807", "-1.10");
    assert_change(f, &r);
    r.change.op = OP_UPDATE;
    r.change.ordinal = 12345678901;
    r.change.before = shop_row(&f->a, "-9223372036854775808", "NaN");
    assert_change(f, &r);
    ((struct row *)r.change.before)->v[0] = null_value;
    ((struct row *)r.change.before)->v[6] = unchanged_value;
    assert_change(f, &r);
    r.change.op = OP_DELETE;
    r.change.after = NULL;
    assert_change(f, &r);
    r.change.op = OP_TRUNCATE;
    r.change.before = NULL;
    r.change.group = 4294967295u;
    r.change.restart_identity = true;
    assert_change(f, &r);
    r.change.op = OP_UPDATE;
    r.change.group = 0;
    r.change.restart_identity = false;
    r.change.after = shop_row(&f->a, "1", "0.00");
    assert_change(f, &r);
}

static void test_table_comes_back_whole(void **state)
{
    struct fixture *f = *state;
    struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};
    struct record back;
    const struct table *t;

    r.change.table = &shop;
    r.change.op = OP_INSERT;
    r.change.after = shop_row(&f->a, "1", "1.10");
    back = round_trip(f, &r);
    t = back.change.table;
    assert_true(table_same_shape(&shop, t));
    assert_int_equal(t->id, shop.id);
    assert_int_equal(t->version, shop.version);
    assert_string_equal(t->root, shop.root);
    assert_memory_equal(t->key, shop_key, sizeof(shop_key));
    assert_int_equal(t->nkey, 2);
    for (size_t i = 0; i < t->ncolumns; i++) {
        const struct column *x = &shop_columns[i];
        const struct column *y = &t->columns[i];

        assert_int_equal(x->order, y->order);
        assert_int_equal(x->not_null, y->not_null);
        assert_int_equal(x->identity_always, y->identity_always);
        assert_text(x->cast_type, y->cast_type);
    }
    assert_ptr_equal(round_trip(f, &r).change.table, t);
}

static void test_transactions(void **state)
{
    struct fixture *f = *state;
    struct record r = {.kind = RECORD_BEGIN, .txn = some_txn()};
    struct record back = round_trip(f, &r);

    assert_int_equal(back.kind, RECORD_BEGIN);
    assert_int_equal(back.txn.epoch, 7);
    assert_int_equal(back.txn.xid, r.txn.xid);
    assert_int_equal(back.txn.ts_us, r.txn.ts_us);
    assert_int_equal(position_cmp(back.txn.commit, r.txn.commit), 0);
    assert_true(position_is_zero(back.txn.next));
    r.kind = RECORD_END;
    r.nchanges = 2000000;
    r.txn.epoch = UINT32_MAX;
    r.txn.xid = UINT64_MAX;
    back = round_trip(f, &r);
    assert_int_equal(back.kind, RECORD_END);
    assert_int_equal(back.nchanges, 2000000);
    assert_int_equal(back.txn.epoch, UINT32_MAX);
    assert_true(back.txn.xid == UINT64_MAX);
    assert_int_equal(position_cmp(back.txn.next, r.txn.next), 0);
}

static void test_positions(void **state)
{
    struct fixture *f = *state;
    struct record r = {.kind = RECORD_MARK, .next = {5, 6}, .token = "m-1"};
    struct record back = round_trip(f, &r);

    assert_int_equal(back.kind, RECORD_MARK);
    assert_string_equal(back.token, "m-1");
    assert_int_equal(position_cmp(back.next, r.next), 0);
    r = (struct record){.kind = RECORD_POSITION, .next = {UINT64_MAX, UINT64_MAX}};
    back = round_trip(f, &r);
    assert_int_equal(back.kind, RECORD_POSITION);
    assert_int_equal(position_cmp(back.next, r.next), 0);
    r = (struct record){.kind = RECORD_TABLE,
                        .next = {7, 0},
                        .table_label = "public.order lines",
                        .reason = "column note: text became integer"};
    back = round_trip(f, &r);
    assert_int_equal(back.kind, RECORD_TABLE);
    assert_string_equal(back.table_label, r.table_label);
    assert_string_equal(back.reason, r.reason);
}

/* ---- values ---- */

static struct table one_column(struct column *c)
{
    return (struct table){.schema = (char *)"s",
                          .name = (char *)type_kind_name(c->kind),
                          .identity = IDENTITY_FULL,
                          .ncolumns = 1,
                          .columns = c};
}

static void test_empty_and_strange_values(void **state)
{
    struct fixture *f = *state;

    for (int kind = 0; kind < TYPE_COUNT; kind++) {
        struct column c = {.name = (char *)"c", .kind = (enum type_kind)kind};
        struct table t = one_column(&c);
        struct value values[] = {{VALUE_SET, 0, NULL},
                                 {VALUE_SET, 0, ""},
                                 {VALUE_SET, 5, "a\0b\0c"},
                                 {VALUE_SET, 6, "größ"},
                                 {VALUE_SET, 10, "2024-02-30"},
                                 null_value,
                                 unchanged_value};

        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
            struct row row = {1, &values[i]};
            struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};

            r.change = (struct change){.op = OP_INSERT, .table = &t, .after = &row};
            assert_change(f, &r);
        }
    }
}

static void test_text_that_is_not_utf8(void **state)
{
    static const char *const bad[] = {
        "\xff",         "a\xc3",   "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "12345678\x80", "\xe2\x82"};
    struct fixture *f = *state;
    struct column c = COLUMN("note", "text", TYPE_TEXT);
    struct table t = one_column(&c);
    struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct value v = text(&f->a, bad[i]);
        struct row row = {1, &v};

        r.change = (struct change){.op = OP_INSERT, .table = &t, .after = &row};
        buf_reset(&f->out, SIZE_MAX);
        assert_int_equal(encoder_encode(f->enc, &r, &f->out, &f->e), -1);
        assert_int_equal(f->e.class, ERR_DATA);
        assert_non_null(strstr(f->e.msg, "table s.text, column note"));
        assert_int_equal(f->out.len, 0);
    }
}

static void test_large_values(void **state)
{
    struct fixture *f = *state;
    struct column columns[] = {COLUMN("t", "text", TYPE_TEXT), COLUMN("b", "bytea", TYPE_BYTES)};
    struct table t = one_column(columns);
    size_t len = (size_t)100 * 1000 * 1000;
    char *data = malloc(len);
    struct value v[] = {{VALUE_SET, len, data}, {VALUE_SET, len, data}};
    struct row row = {2, v};
    struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};
    struct record back;
    size_t before;

    t.ncolumns = 2;
    memset(data, 'x', len);
    r.change = (struct change){.op = OP_INSERT, .table = &t, .after = &row};
    encode(f, &r);
    assert_true(f->out.cap < 2 * len + len / 8);
    /* What the arena holds is all that is left of the decoding: Avro has given its copies back. */
    before = mallinfo2().hblkhd;
    assert_int_equal(
        decoder_decode(f->dec, 1, schema_of(f, &r), f->out.data, f->out.len, &f->a, &back, &f->e),
        0);
    assert_true(mallinfo2().hblkhd < before + 2 * len + len / 8);
    assert_rows(back.change.after, &row);
    free(data);
}

/* ---- schemas ---- */

static void test_schema_is_cached_by_shape(void **state)
{
    struct fixture *f = *state;
    struct table *copy = table_copy(&f->a, &shop);
    struct record r = {.kind = RECORD_CHANGE};
    const char *first;

    r.change.table = &shop;
    first = schema_of(f, &r);
    assert_ptr_equal(schema_of(f, &r), first);
    r.change.table = copy;
    copy->version++;
    copy->rows = 5;
    assert_ptr_equal(schema_of(f, &r), first);
    copy->version++;
    copy->columns[3].not_null = true;
    assert_ptr_not_equal(schema_of(f, &r), first);
    assert_non_null(strstr(first, "\"lockstep.source_type\":\"numeric(12,2)\""));
    assert_non_null(strstr(first, "\"name\":\"order_x0020_lines\""));
    assert_non_null(strstr(first, "\"namespace\":\"lockstep.shop.public.order_x0020_lines\""));
    assert_non_null(strstr(first, "\"name\":\"_x0032_nd_x005F_x_x0020_note\""));
}

static void test_same_id_other_text(void **state)
{
    struct fixture *f = *state;
    struct record begin = {.kind = RECORD_BEGIN, .txn = some_txn()};
    struct record mark = {.kind = RECORD_MARK, .next = {1, 0}, .token = "t"};
    struct record back;

    encode(f, &begin);
    assert_int_equal(decoder_decode(f->dec, 1, schema_of(f, &begin), f->out.data, f->out.len, &f->a,
                                    &back, &f->e),
                     0);
    encode(f, &mark);
    assert_int_equal(decoder_decode(f->dec, 1, schema_of(f, &mark), f->out.data, f->out.len, &f->a,
                                    &back, &f->e),
                     0);
    assert_int_equal(back.kind, RECORD_MARK);
}

/* A registry may hand the text back with its properties in another order and its own spacing. */
static void test_equal_schema_text(void **state)
{
    struct fixture *f = *state;
    struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};
    struct record back;
    json_t *json;
    char *other;

    r.change.table = &shop;
    r.change.op = OP_INSERT;
    r.change.after = shop_row(&f->a, "1", "1.10");
    encode(f, &r);
    json = json_loads(schema_of(f, &r), 0, NULL);
    other = json_dumps(json, JSON_SORT_KEYS | JSON_INDENT(2));
    assert_int_equal(decoder_decode(f->dec, 7, other, f->out.data, f->out.len, &f->a, &back, &f->e),
                     0);
    assert_rows(back.change.after, r.change.after);
    free(other);
    json_object_set_new(json_array_get(json_object_get(json, "fields"), 0), "type",
                        json_string("bytes"));
    other = json_dumps(json, JSON_COMPACT);
    assert_int_equal(decoder_decode(f->dec, 8, other, f->out.data, f->out.len, &f->a, &back, &f->e),
                     -1);
    assert_int_equal(f->e.class, ERR_FATAL);
    free(other);
    json_decref(json);
}

static void test_foreign_schemas(void **state)
{
    static const char *const foreign[] = {
        "",
        "{",
        "\"string\"",
        "{\"type\":\"record\",\"name\":\"Transaction\",\"fields\":[]}",
        "{\"type\":\"record\",\"name\":\"Position\",\"fields\":[{\"name\":\"kind\",\"type\":"
        "\"long\"}]}",
        "{\"type\":\"record\",\"name\":\"a.T\",\"lockstep.table\":\"T\",\"lockstep.format\":2,"
        "\"fields\":[]}",
        "{\"type\":\"record\",\"name\":\"a.T\",\"lockstep.table\":\"T\",\"lockstep.format\":1,"
        "\"lockstep.schema\":\"s\",\"lockstep.identity\":\"key\",\"fields\":[{\"name\":\"self\","
        "\"type\":\"a.T\"}]}",
    };
    struct fixture *f = *state;
    struct record back;

    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        f->e.class = ERR_NONE;
        assert_int_equal(decoder_decode(f->dec, 100 + i, foreign[i], "", 0, &f->a, &back, &f->e),
                         -1);
        assert_int_equal(f->e.class, ERR_FATAL);
    }
}

/* Every prefix and every flipped bit of a datum: an error or a record, never a crash. */
static void test_damaged_data(void **state)
{
    struct fixture *f = *state;
    struct record r = {.kind = RECORD_CHANGE, .txn = some_txn()};
    struct record back;
    struct buf good;

    r.change.table = &shop;
    r.change.op = OP_UPDATE;
    r.change.before = shop_row(&f->a, "1", "123456.78");
    r.change.after = shop_row(&f->a, "2", "Infinity");
    buf_init(&good, BUF_MAX_ROW);
    encode(f, &r);
    buf_add(&good, f->out.data, f->out.len);
    for (size_t len = 0; len < good.len; len++) {
        f->e.class = ERR_NONE;
        assert_int_equal(decode(f, &r, good.data, len, &back), -1);
        assert_int_equal(f->e.class, ERR_FATAL);
    }
    for (size_t bit = 0; bit < 8 * good.len; bit++) {
        good.data[bit / 8] ^= (char)(1 << bit % 8);
        f->e.class = ERR_FATAL;
        decode(f, &r, good.data, good.len, &back);
        assert_int_equal(f->e.class, ERR_FATAL);
        good.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    buf_addc(&good, 0);
    assert_int_equal(decode(f, &r, good.data, good.len, &back), -1);
    buf_release(&good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_table_comes_back_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_transactions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_positions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty_and_strange_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_that_is_not_utf8, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_values, setup, teardown),
        cmocka_unit_test_setup_teardown(test_schema_is_cached_by_shape, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_id_other_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_equal_schema_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_schemas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_data, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
