/* Decoding. A datum comes off a disk, so its bytes are walked once with the bounds-checked reader
 * before Avro C sees them: every length, count and union index is then known to be true, and Avro
 * neither reserves memory on a liar's word nor leaks what it had begun.
 *
 * Memory: Avro C copies each string once out of the datum, and each goes into the arena and is
 * given back by Avro at once, so a large value takes twice its size at the peak.
 */
#include "schemas/avro/codec.h"
#include "schemas/avro/natural.h"
#include "schemas/avro/schema.h"

#include <avro.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 256u
/* Values above this are given back by Avro as soon as they are copied. */
#define RELEASE_AT_ONCE ((size_t)64 * 1024)

struct known {
    struct known *next;
    uint64_t id;
    const char *text; /* as the caller last passed it */
    char *copy;
    enum layout layout;
    struct table *table;
    avro_schema_t schema;
    avro_value_iface_t *iface;
    avro_value_t value;
};

struct decoder {
    struct arena arena; /* tables */
    struct known *buckets[BUCKETS];
    struct known *last;
    avro_reader_t reader;
    const struct table_list *planned; /* or NULL */
};

/* ---- schemas ---- */

struct decoder *decoder_new(void)
{
    struct decoder *dec = calloc(1, sizeof(*dec));

    invariant(dec != NULL);
    dec->reader = avro_reader_memory("", 0);
    invariant(dec->reader != NULL);
    return dec;
}

void decoder_plan(struct decoder *dec, const struct table_list *planned)
{
    dec->planned = planned;
}

/* What the record's table is on the target, if it still has the columns that it was planned with.
 */
static void find_there(struct decoder *dec, struct table *t)
{
    for (size_t i = 0; t && dec->planned && i < dec->planned->n; i++) {
        const struct table *p = dec->planned->v[i];

        if (p->there && p->ncolumns == t->ncolumns && table_is(p, table_label(t)))
            t->there = table_copy(&dec->arena, p->there);
    }
}

static void known_free(struct known *k)
{
    if (k->value.iface)
        avro_value_decref(&k->value);
    if (k->iface)
        avro_value_iface_decref(k->iface);
    if (k->schema)
        avro_schema_decref(k->schema);
    free(k->copy);
    free(k);
}

void decoder_free(struct decoder *dec)
{
    struct known *next;

    if (!dec)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct known *k = dec->buckets[i]; k; k = next) {
            next = k->next;
            known_free(k);
        }
    }
    avro_reader_free(dec->reader);
    arena_release(&dec->arena);
    free(dec);
}

static struct known *known_new(struct decoder *dec, uint64_t id, const char *text, struct err *e)
{
    struct known *k = calloc(1, sizeof(*k));

    invariant(k != NULL);
    k->id = id;
    k->text = text;
    k->copy = strdup(text);
    invariant(k->copy != NULL);
    if (schema_read(text, &dec->arena, &k->layout, &k->table, e) < 0)
        goto fail;
    find_there(dec, k->table);
    if (avro_schema_from_json_length(text, strlen(text), &k->schema) != 0) {
        k->schema = NULL;
        err_set(e, ERR_FATAL, "a record's schema is not valid: %s", avro_strerror());
        goto fail;
    }
    k->iface = avro_generic_class_from_schema(k->schema);
    invariant(k->iface && avro_generic_value_new(k->iface, &k->value) == 0);
    k->next = dec->buckets[id % BUCKETS];
    dec->buckets[id % BUCKETS] = k;
    return k;
fail:
    known_free(k);
    return NULL;
}

/* A caller with two journals may use one number for two texts, so the text is compared where its
 * address is another one than last time. */
static bool is_known(struct known *k, uint64_t id, const char *text)
{
    if (k->id != id || (k->text != text && strcmp(k->copy, text) != 0))
        return false;
    k->text = text;
    return true;
}

static struct known *find_schema(struct decoder *dec, uint64_t id, const char *text, struct err *e)
{
    struct known *k = dec->last;

    if (k && is_known(k, id, text))
        return k;
    for (k = dec->buckets[id % BUCKETS]; k; k = k->next) {
        if (is_known(k, id, text))
            break;
    }
    if (!k)
        k = known_new(dec, id, text, e);
    if (k)
        dec->last = k;
    return k;
}

/* ---- the walk over the bytes ---- */

static void walk(struct reader *r, avro_schema_t s);

static void walk_bytes(struct reader *r)
{
    int64_t n = reader_zigzag(r);

    if (n < 0)
        r->bad = true;
    else
        reader_bytes(r, (size_t)n);
}

static void walk_array(struct reader *r, avro_schema_t items)
{
    for (int64_t n = reader_zigzag(r); n != 0 && !r->bad; n = reader_zigzag(r)) {
        /* A negative count is followed by the block's size; our writer never makes one. */
        if (n < 0)
            r->bad = true;
        for (int64_t i = 0; i < n && !r->bad; i++)
            walk(r, items);
    }
}

static void walk_union(struct reader *r, avro_schema_t s)
{
    int64_t n = reader_zigzag(r);

    if (n < 0 || (uint64_t)n >= avro_schema_union_size(s))
        r->bad = true;
    else
        walk(r, avro_schema_union_branch(s, (int)n));
}

/* The depth is bounded: schema_read() lets no recursive schema in. */
static void walk(struct reader *r, avro_schema_t s)
{
    int64_t n;

    switch (avro_typeof(s)) {
    case AVRO_RECORD:
        for (size_t i = 0, size = avro_schema_record_size(s); i < size && !r->bad; i++)
            walk(r, avro_schema_record_field_get_by_index(s, (int)i));
        return;
    case AVRO_LINK:
        walk(r, avro_schema_link_target(s));
        return;
    case AVRO_UNION:
        walk_union(r, s);
        return;
    case AVRO_ARRAY:
        walk_array(r, avro_schema_array_items(s));
        return;
    case AVRO_STRING:
    case AVRO_BYTES:
        walk_bytes(r);
        return;
    case AVRO_INT32:
        n = reader_zigzag(r);
        r->bad = r->bad || n < INT32_MIN || n > INT32_MAX;
        return;
    case AVRO_INT64:
        reader_zigzag(r);
        return;
    case AVRO_BOOLEAN:
        r->bad = reader_u8(r) > 1 || r->bad;
        return;
    case AVRO_FLOAT:
        reader_bytes(r, 4);
        return;
    case AVRO_DOUBLE:
        reader_bytes(r, 8);
        return;
    case AVRO_NULL:
        return;
    default:
        r->bad = true;
    }
}

/* ---- reading a value ---- */

static avro_value_t field(const avro_value_t *record, size_t index)
{
    avro_value_t child = {0};

    invariant(avro_value_get_by_index(record, index, &child, NULL) == 0);
    return child;
}

/* A string's bytes with a NUL behind them, owned by Avro. */
static const char *get_text(const avro_value_t *v, size_t *len)
{
    const char *data = "";
    size_t size = 1;

    invariant(avro_value_get_string(v, &data, &size) == 0);
    *len = size - 1;
    return data;
}

static const char *text_field(const avro_value_t *record, size_t index)
{
    avro_value_t v = field(record, index);
    size_t len;

    return get_text(&v, &len);
}

static int64_t long_field(const avro_value_t *record, size_t index)
{
    avro_value_t v = field(record, index);
    int64_t n = 0;

    invariant(avro_value_get_long(&v, &n) == 0);
    return n;
}

/* False: null. */
static bool current(const avro_value_t *u, avro_value_t *branch)
{
    invariant(avro_value_get_current_branch(u, branch) == 0);
    return avro_value_get_type(branch) != AVRO_NULL;
}

static int64_t long_or_null(const avro_value_t *record, size_t index)
{
    avro_value_t u = field(record, index);
    avro_value_t v;
    int64_t n = 0;

    if (current(&u, &v))
        avro_value_get_long(&v, &n);
    return n;
}

static const char *text_or_null(const avro_value_t *record, size_t index, struct arena *a)
{
    avro_value_t u = field(record, index);
    avro_value_t v;
    const char *data;
    size_t len;

    if (!current(&u, &v))
        return NULL;
    data = get_text(&v, &len);
    return arena_strndup(a, data, len);
}

static int position_field(const avro_value_t *record, size_t index, struct position *out,
                          struct err *e)
{
    if (position_parse(text_field(record, index), out) < 0)
        return err_set(e, ERR_FATAL, "a record of the journal holds no valid position");
    return 0;
}

static int epoch_field(const avro_value_t *record, size_t index, uint32_t *out, struct err *e)
{
    int64_t n = long_field(record, index);

    if (n < 0 || n > UINT32_MAX)
        return err_set(e, ERR_FATAL, "a record of the journal holds the epoch %" PRId64, n);
    *out = (uint32_t)n;
    return 0;
}

/* ---- rows ---- */

static bool get_natural(avro_value_t *v, struct natural *n)
{
    const void *data = NULL;
    int32_t i32 = 0;
    float f = 0;
    int flag = 0;

    switch (avro_value_get_type(v)) {
    case AVRO_BOOLEAN:
        avro_value_get_boolean(v, &flag);
        n->i = flag;
        return true;
    case AVRO_INT32:
        avro_value_get_int(v, &i32);
        n->i = i32;
        return true;
    case AVRO_INT64:
        avro_value_get_long(v, &n->i);
        return true;
    case AVRO_FLOAT:
        avro_value_get_float(v, &f);
        n->d = (double)f;
        return true;
    case AVRO_DOUBLE:
        avro_value_get_double(v, &n->d);
        return true;
    case AVRO_BYTES:
        avro_value_get_bytes(v, &data, &n->len);
        if (n->len == 0 || n->len > sizeof(n->bytes))
            return false;
        memcpy(n->bytes, data, n->len);
        return true;
    default:
        return false;
    }
}

static void copy_value(struct arena *a, avro_value_t *from, const void *data, size_t len,
                       struct value *out)
{
    out->state = VALUE_SET;
    out->len = len;
    out->data = arena_strndup(a, data, len);
    if (len > RELEASE_AT_ONCE)
        avro_value_reset(from);
}

/* What reading a row needs at every column. */
struct reading {
    struct arena *a;
    const struct table *table;
    struct err *e;
};

static int read_column(const struct reading *rd, const struct column *c, const avro_value_t *u,
                       struct value *out)
{
    char text[NATURAL_TEXT_MAX];
    struct natural n;
    avro_value_t v;
    const void *data = NULL;
    size_t len = 0;

    if (!current(u, &v))
        return 0;
    if (avro_value_get_type(&v) == AVRO_STRING) {
        data = get_text(&v, &len);
        copy_value(rd->a, &v, data, len, out);
        return 0;
    }
    if (c->kind == TYPE_BYTES) {
        avro_value_get_bytes(&v, &data, &len);
        copy_value(rd->a, &v, data, len, out);
        return 0;
    }
    len = get_natural(&v, &n) ? natural_print(c, &n, text) : 0;
    if (len == 0)
        return err_set(rd->e, ERR_FATAL,
                       "table %s, column %s: the journal holds a value out of range",
                       table_label(rd->table), c->name);
    copy_value(rd->a, &v, text, len, out);
    return 0;
}

static int read_unchanged(const struct reading *rd, const avro_value_t *names, struct row *row)
{
    const struct table *t = rd->table;
    size_t n = 0;

    avro_value_get_size(names, &n);
    for (size_t i = 0; i < n; i++) {
        const char *name = text_field(names, i);
        size_t c = 0;

        while (c < t->ncolumns && strcmp(t->columns[c].name, name) != 0)
            c++;
        if (!row || c == t->ncolumns || row->v[c].state == VALUE_SET)
            return err_set(rd->e, ERR_FATAL, "table %s: the journal calls column %.64s unchanged",
                           table_label(t), name);
        row->v[c].state = VALUE_UNCHANGED;
    }
    return 0;
}

static int read_row(const struct reading *rd, const avro_value_t *u, const avro_value_t *names,
                    const struct row **out)
{
    avro_value_t record;
    struct row *row = NULL;

    if (current(u, &record)) {
        row = row_new(rd->a, rd->table->ncolumns);
        for (size_t i = 0; i < row->n; i++) {
            avro_value_t v = field(&record, i);

            if (read_column(rd, &rd->table->columns[i], &v, &row->v[i]) < 0)
                return -1;
        }
    }
    *out = row;
    return read_unchanged(rd, names, row);
}

/* ---- records ---- */

/* Which rows an op has: apply relies on it. */
static int check_op(const struct change *c, struct err *e)
{
    bool ok = c->op == OP_INSERT   ? c->after && !c->before
              : c->op == OP_UPDATE ? c->after != NULL
              : c->op == OP_DELETE ? c->before && !c->after
                                   : !c->before && !c->after;

    if (!ok)
        return err_set(e, ERR_FATAL, "table %s: the journal's %s has not the rows of one",
                       table_label(c->table), change_op_name(c->op));
    return 0;
}

static int read_change(const struct known *k, struct arena *a, struct record *r, struct err *e)
{
    static const char ops[] = "cudt";
    const struct reading rd = {a, k->table, e};
    const avro_value_t *v = &k->value;
    const char *op = text_field(v, CHANGE_OP);
    avro_value_t source = field(v, CHANGE_SOURCE);
    avro_value_t version = field(v, CHANGE_VERSION);
    avro_value_t before = field(v, CHANGE_BEFORE);
    avro_value_t after = field(v, CHANGE_AFTER);
    avro_value_t unchanged = field(v, CHANGE_UNCHANGED);
    avro_value_t unchanged_before = field(v, CHANGE_UNCHANGED_BEFORE);
    avro_value_t restart = field(v, CHANGE_RESTART_IDENTITY);
    avro_value_t flag;
    int on = 0;

    r->kind = RECORD_CHANGE;
    r->change.table = k->table;
    if (!op[0] || op[1] || !strchr(ops, op[0]))
        return err_set(e, ERR_FATAL, "table %s: the journal holds the op %.8s",
                       table_label(k->table), op);
    r->change.op = (enum change_op)(strchr(ops, op[0]) - ops);
    r->change.ordinal = (uint64_t)long_field(&version, VERSION_ORDINAL);
    r->change.group = (uint32_t)long_or_null(v, CHANGE_GROUP);
    if (current(&restart, &flag))
        avro_value_get_boolean(&flag, &on);
    r->change.restart_identity = on;
    r->txn.xid = (uint64_t)long_field(&source, SOURCE_XID);
    r->txn.ts_us = long_field(&source, SOURCE_TS_US);
    if (epoch_field(&version, VERSION_EPOCH, &r->txn.epoch, e) < 0 ||
        position_field(&version, VERSION_COMMIT, &r->txn.commit, e) < 0 ||
        read_row(&rd, &before, &unchanged_before, &r->change.before) < 0 ||
        read_row(&rd, &after, &unchanged, &r->change.after) < 0)
        return -1;
    return check_op(&r->change, e);
}

static int read_transaction(const struct known *k, struct record *r, struct err *e)
{
    const avro_value_t *v = &k->value;
    const char *status = text_field(v, TXN_STATUS);
    avro_value_t next = field(v, TXN_NEXT);
    avro_value_t text;
    size_t len;

    if (strcmp(status, "BEGIN") != 0 && strcmp(status, "END") != 0)
        return err_set(e, ERR_FATAL, "the journal holds a transaction's status %.16s", status);
    r->kind = status[0] == 'B' ? RECORD_BEGIN : RECORD_END;
    r->txn.xid = (uint64_t)long_field(v, TXN_XID);
    r->txn.ts_us = long_field(v, TXN_TS_US);
    r->nchanges = (uint64_t)long_or_null(v, TXN_CHANGES);
    if (current(&next, &text) != (r->kind == RECORD_END) ||
        (r->kind == RECORD_END && position_parse(get_text(&text, &len), &r->txn.next) < 0))
        return err_set(e, ERR_FATAL, "the journal's %s of a transaction has a wrong next position",
                       status);
    if (epoch_field(v, TXN_EPOCH, &r->txn.epoch, e) < 0)
        return -1;
    return position_field(v, TXN_COMMIT, &r->txn.commit, e);
}

static int read_position(const struct known *k, struct arena *a, struct record *r, struct err *e)
{
    const avro_value_t *v = &k->value;
    const char *kind = text_field(v, POSITION_KIND);

    r->token = text_or_null(v, POSITION_TOKEN, a);
    r->table_label = text_or_null(v, POSITION_TABLE, a);
    r->reason = text_or_null(v, POSITION_REASON, a);
    if (strcmp(kind, "MARK") == 0 && r->token)
        r->kind = RECORD_MARK;
    else if (strcmp(kind, "HEARTBEAT") == 0)
        r->kind = RECORD_POSITION;
    else if (strcmp(kind, "TABLE") == 0 && r->table_label)
        r->kind = RECORD_TABLE;
    else
        return err_set(e, ERR_FATAL, "the journal holds a position of kind %.16s", kind);
    return position_field(v, POSITION_NEXT, &r->next, e);
}

static int read_record(const struct known *k, struct arena *a, struct record *out, struct err *e)
{
    switch (k->layout) {
    case LAYOUT_CHANGE:
        return read_change(k, a, out, e);
    case LAYOUT_TRANSACTION:
        return read_transaction(k, out, e);
    default:
        return read_position(k, a, out, e);
    }
}

int decoder_decode(struct decoder *dec, uint64_t schema, const char *text, const void *data,
                   size_t len, struct arena *a, struct record *out, struct err *e)
{
    struct known *k = find_schema(dec, schema, text, e);
    struct reader r;

    memset(out, 0, sizeof(*out));
    if (!k)
        return -1;
    reader_init(&r, data, len);
    walk(&r, k->schema);
    if (r.bad || reader_left(&r) > 0)
        return err_set(e, ERR_FATAL,
                       "a record of %s is damaged: its %zu bytes are not its schema's",
                       avro_schema_name(k->schema), len);
    avro_reader_memory_set_source(dec->reader, data, (int64_t)len);
    if (avro_value_read(dec->reader, &k->value) != 0)
        return err_set(e, ERR_FATAL, "a record of %s is damaged: %s", avro_schema_name(k->schema),
                       avro_strerror());
    return read_record(k, a, out, e);
}
