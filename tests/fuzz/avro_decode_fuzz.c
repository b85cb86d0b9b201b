/* Bytes of a journal that nobody wrote. The first byte says what the rest is: a schema text, or a
 * datum of one of our three layouts. A datum that decodes is encoded and decoded again, and must
 * tell the same. */
#include "schemas/avro/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_options(void);

/* Avro C's generic records keep pointers at addresses that are no multiple of eight; without this
 * the leak check does not see what the reused value still holds. */
const char *__lsan_default_options(void)
{
    return "use_unaligned=1";
}

static struct column columns[TYPE_COUNT];
static size_t key[] = {TYPE_INT64};
static struct table table = {.schema = (char *)"public",
                             .name = (char *)"all kinds",
                             .identity = IDENTITY_FULL,
                             .ncolumns = TYPE_COUNT,
                             .columns = columns,
                             .nkey = 1,
                             .key = key};

static struct encoder *make_encoder(void)
{
    for (int k = 0; k < TYPE_COUNT; k++)
        columns[k] = (struct column){.name = (char *)type_kind_name((enum type_kind)k),
                                     .kind = (enum type_kind)k,
                                     .key = k == TYPE_INT64};
    columns[TYPE_DECIMAL].precision = 12;
    columns[TYPE_DECIMAL].scale = 2;
    return encoder_new("fuzz", "postgres", "db");
}

static const char *schema_of(struct encoder *enc, enum record_kind kind)
{
    struct record r = {.kind = kind};
    const char *name;
    const char *text;

    r.change.table = &table;
    invariant(encoder_schema(enc, &r, &name, &text, NULL) == 0);
    return text;
}

static void same_rows(const struct row *a, const struct row *b)
{
    invariant((a == NULL) == (b == NULL));
    invariant(!a || row_equal(a, b));
}

static void again(struct encoder *enc, struct decoder *dec, struct arena *a, const struct record *r)
{
    struct err e;
    struct buf out;
    struct record back;

    buf_init(&out, BUF_MAX_ROW);
    /* What is not UTF-8 in the datum is refused here, by name. */
    if (encoder_encode(enc, r, &out, &e) == 0) {
        const char *name;
        const char *text;

        invariant(encoder_schema(enc, r, &name, &text, &e) == 0);
        invariant(decoder_decode(dec, (uintptr_t)text, text, out.data, out.len, a, &back, &e) == 0);
        invariant(back.kind == r->kind && back.change.op == r->change.op);
        same_rows(r->change.before, back.change.before);
        same_rows(r->change.after, back.change.after);
    } else {
        invariant(e.class == ERR_DATA);
    }
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum record_kind kinds[] = {RECORD_CHANGE, RECORD_BEGIN, RECORD_MARK};
    static struct encoder *enc;
    static struct decoder *dec;
    struct arena a = ARENA_INIT;
    struct record r;
    struct err e;

    if (!enc) {
        enc = make_encoder();
        dec = decoder_new();
    }
    if (size == 0)
        return 0;
    if (data[0] % 4 == 3) {
        struct decoder *other = decoder_new();
        char *text = strndup((const char *)data + 1, size - 1);

        decoder_decode(other, 1, text, "", 0, &a, &r, &e);
        decoder_free(other);
        free(text);
    } else {
        const char *text = schema_of(enc, kinds[data[0] % 4]);

        if (decoder_decode(dec, (uintptr_t)text, text, data + 1, size - 1, &a, &r, &e) == 0)
            again(enc, dec, &a, &r);
        else
            invariant(e.class == ERR_FATAL);
    }
    arena_release(&a);
    return 0;
}
