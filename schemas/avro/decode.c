/* Decoding, straight from the bytes into the arena. A schema is accepted only if it is one that we
 * write (schema_read), so the fields come in their known order, and a datum needs no generic value
 * of Avro C, which took two thirds of the time. It comes off a disk, so every length, count and
 * union index goes through the bounds-checked reader: what it calls bad is damaged, and nothing of
 * it is used.
 */
#include "schemas/avro/codec.h"
#include "schemas/avro/natural.h"
#include "schemas/avro/schema.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 256u

struct known {
    struct known *next;
    uint64_t id;
    const char *text; /* as the caller last passed it */
    char *copy;
    enum layout layout;
    struct table *table;
};

struct decoder {
    struct arena arena; /* tables */
    struct known *buckets[BUCKETS];
    struct known *last;
    const struct table_list *planned; /* or NULL */
};

/* ---- schemas ---- */

struct decoder *decoder_new(void)
{
    struct decoder *dec = calloc(1, sizeof(*dec));

    invariant(dec != NULL);
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
    if (schema_read(text, &dec->arena, &k->layout, &k->table, e) < 0) {
        known_free(k);
        return NULL;
    }
    find_there(dec, k->table);
    k->next = dec->buckets[id % BUCKETS];
    dec->buckets[id % BUCKETS] = k;
    return k;
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

/* ---- the bytes of a value ---- */

/* Lies in the datum, without a NUL behind it. Bad: empty. */
struct text {
    const char *data;
    size_t len;
};

static struct text take_text(struct reader *r)
{
    int64_t n = reader_zigzag(r);
    const uint8_t *p = NULL;

    if (n < 0)
        r->bad = true;
    else
        p = reader_bytes(r, (size_t)n);
    return p ? (struct text){(const char *)p, (size_t)n} : (struct text){"", 0};
}

static bool text_is(struct text t, const char *word)
{
    return t.len == strlen(word) && memcmp(t.data, word, t.len) == 0;
}

/* The index of a union's branch, below n. */
static int take_branch(struct reader *r, int n)
{
    int64_t i = reader_zigzag(r);

    if (i >= 0 && i < n && !r->bad)
        return (int)i;
    r->bad = true;
    return 0;
}

static int64_t take_long_or_null(struct reader *r)
{
    return take_branch(r, 2) ? reader_zigzag(r) : 0;
}

static bool take_boolean(struct reader *r)
{
    uint8_t on = reader_u8(r);

    r->bad = r->bad || on > 1;
    return on == 1;
}

/* NULL: null. */
static const char *take_text_or_null(struct reader *r, struct arena *a)
{
    struct text t;

    if (!take_branch(r, 2))
        return NULL;
    t = take_text(r);
    return arena_strndup(a, t.data, t.len);
}

static int take_position(struct reader *r, struct position *out, struct err *e)
{
    struct text t = take_text(r);
    char text[POSITION_TEXT_SIZE];

    if (t.len == sizeof(text) - 1) {
        memcpy(text, t.data, t.len);
        text[t.len] = '\0';
        if (position_parse(text, out) == 0)
            return 0;
    }
    return err_set(e, ERR_FATAL, "a record of the journal holds no valid position");
}

static int take_epoch(struct reader *r, uint32_t *out, struct err *e)
{
    int64_t n = reader_zigzag(r);

    if (n < 0 || n > UINT32_MAX)
        return err_set(e, ERR_FATAL, "a record of the journal holds the epoch %" PRId64, n);
    *out = (uint32_t)n;
    return 0;
}

/* ---- rows ---- */

/* What reading a row needs at every column. */
struct reading {
    struct reader *r;
    struct arena *a;
    const struct table *table;
    struct err *e;
};

static void keep(struct arena *a, struct text t, struct value *out)
{
    out->state = VALUE_SET;
    out->len = t.len;
    out->data = arena_strndup(a, t.data, t.len);
}

/* False: no value of its type. */
static bool take_natural(struct reader *r, enum natural_type type, struct natural *n)
{
    const uint8_t *p;
    struct text t;
    float f;

    switch (type) {
    case NATURAL_BOOLEAN:
        n->i = take_boolean(r);
        return true;
    case NATURAL_INT:
        n->i = reader_zigzag(r);
        r->bad = r->bad || n->i < INT32_MIN || n->i > INT32_MAX;
        return true;
    case NATURAL_LONG:
        n->i = reader_zigzag(r);
        return true;
    case NATURAL_FLOAT:
        p = reader_bytes(r, sizeof(f));
        if (p)
            memcpy(&f, p, sizeof(f));
        n->d = p ? (double)f : 0;
        return true;
    case NATURAL_DOUBLE:
        p = reader_bytes(r, sizeof(n->d));
        n->d = 0;
        if (p)
            memcpy(&n->d, p, sizeof(n->d));
        return true;
    default:
        t = take_text(r);
        n->len = t.len;
        if (n->len == 0 || n->len > sizeof(n->bytes))
            return false;
        memcpy(n->bytes, t.data, n->len);
        return true;
    }
}

static int take_column(const struct reading *rd, const struct column *c, struct value *out)
{
    enum natural_type type = natural_type_of(c);
    int branch = take_branch(rd->r, type == NATURAL_NONE ? 2 : 3);
    char text[NATURAL_TEXT_MAX];
    struct natural n;
    size_t len;

    if (branch == 0)
        return 0;
    if (type == NATURAL_NONE || type == NATURAL_BYTES || branch == 2) {
        keep(rd->a, take_text(rd->r), out);
        return 0;
    }
    len = take_natural(rd->r, type, &n) && !rd->r->bad ? natural_print(c, &n, text) : 0;
    if (len == 0 && !rd->r->bad)
        return err_set(rd->e, ERR_FATAL,
                       "table %s, column %s: the journal holds a value out of range",
                       table_label(rd->table), c->name);
    keep(rd->a, (struct text){text, len}, out);
    return 0;
}

/* *out: NULL if the record has no such row. */
static int take_row(const struct reading *rd, struct row **out)
{
    struct row *row = NULL;

    if (take_branch(rd->r, 2)) {
        row = row_new(rd->a, rd->table->ncolumns);
        for (size_t i = 0; i < row->n && !rd->r->bad; i++) {
            if (take_column(rd, &rd->table->columns[i], &row->v[i]) < 0)
                return -1;
        }
    }
    *out = row;
    return 0;
}

static int mark_unchanged(const struct reading *rd, struct text name, struct row *row)
{
    const struct table *t = rd->table;
    size_t c = 0;

    while (c < t->ncolumns && !text_is(name, t->columns[c].name))
        c++;
    if (!row || c == t->ncolumns || row->v[c].state == VALUE_SET)
        return err_set(rd->e, ERR_FATAL, "table %s: the journal calls column %.*s unchanged",
                       table_label(t), (int)(name.len < 64 ? name.len : 64), name.data);
    row->v[c].state = VALUE_UNCHANGED;
    return 0;
}

/* An array of names; the blocks of its items end with an empty one. A negative count is followed by
 * the block's size; our writer never makes one. */
static int take_unchanged(const struct reading *rd, struct row *row)
{
    for (int64_t n = reader_zigzag(rd->r); n != 0 && !rd->r->bad; n = reader_zigzag(rd->r)) {
        rd->r->bad = n < 0;
        for (int64_t i = 0; i < n && !rd->r->bad; i++) {
            struct text name = take_text(rd->r);

            if (!rd->r->bad && mark_unchanged(rd, name, row) < 0)
                return -1;
        }
    }
    return 0;
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

/* The source's block; what the decoder does not need is passed over. */
static void take_source(struct reader *r, struct txn *txn)
{
    take_text(r); /* engine */
    take_text(r); /* db */
    take_text(r); /* schema */
    take_text(r); /* table */
    txn->xid = (uint64_t)reader_zigzag(r);
    take_text(r); /* commit, as in the version */
    txn->ts_us = reader_zigzag(r);
}

static void take_transaction_block(struct reader *r)
{
    take_text(r);     /* id */
    reader_zigzag(r); /* total_order */
}

static int take_version(struct reader *r, struct record *out, struct err *e)
{
    if (take_epoch(r, &out->txn.epoch, e) < 0 || take_position(r, &out->txn.commit, e) < 0)
        return -1;
    out->change.ordinal = (uint64_t)reader_zigzag(r);
    return 0;
}

/* The fields of a change, in the order of schema.h. */
static int read_change(const struct known *k, struct reader *r, struct arena *a, struct record *out,
                       struct err *e)
{
    static const char ops[] = "cudt";
    const struct reading rd = {r, a, k->table, e};
    struct text op = take_text(r);
    struct row *before = NULL;
    struct row *after = NULL;

    out->kind = RECORD_CHANGE;
    out->change.table = k->table;
    if (op.len != 1 || !memchr(ops, op.data[0], sizeof(ops) - 1))
        return err_set(e, ERR_FATAL, "table %s: the journal holds the op %.*s",
                       table_label(k->table), (int)(op.len < 8 ? op.len : 8), op.data);
    out->change.op = (enum change_op)(strchr(ops, op.data[0]) - ops);
    if (take_row(&rd, &before) < 0 || take_row(&rd, &after) < 0)
        return -1;
    take_source(r, &out->txn);
    take_transaction_block(r);
    reader_zigzag(r); /* ts_us, as in the source's block */
    if (take_version(r, out, e) < 0 || take_unchanged(&rd, after) < 0 ||
        take_unchanged(&rd, before) < 0)
        return -1;
    out->change.group = (uint32_t)take_long_or_null(r);
    out->change.restart_identity = take_branch(r, 2) && take_boolean(r);
    out->change.before = before;
    out->change.after = after;
    return r->bad ? 0 : check_op(&out->change, e);
}

static int read_transaction(struct reader *r, struct record *out, struct err *e)
{
    struct text status = take_text(r);
    bool end = text_is(status, "END");

    if (!end && !text_is(status, "BEGIN"))
        return err_set(e, ERR_FATAL, "the journal holds a transaction's status %.*s",
                       (int)(status.len < 16 ? status.len : 16), status.data);
    out->kind = end ? RECORD_END : RECORD_BEGIN;
    take_text(r); /* id */
    if (take_epoch(r, &out->txn.epoch, e) < 0)
        return -1;
    out->txn.xid = (uint64_t)reader_zigzag(r);
    if (take_position(r, &out->txn.commit, e) < 0)
        return -1;
    if ((take_branch(r, 2) == 1) != end || (end && take_position(r, &out->txn.next, e) < 0))
        return err_set(e, ERR_FATAL, "the journal's %s of a transaction has a wrong next position",
                       end ? "END" : "BEGIN");
    out->txn.ts_us = reader_zigzag(r);
    out->nchanges = (uint64_t)take_long_or_null(r);
    return 0;
}

static int read_position(struct reader *r, struct arena *a, struct record *out, struct err *e)
{
    struct text kind = take_text(r);

    if (take_position(r, &out->next, e) < 0)
        return -1;
    out->token = take_text_or_null(r, a);
    out->table_label = take_text_or_null(r, a);
    out->reason = take_text_or_null(r, a);
    if (text_is(kind, "MARK") && out->token)
        out->kind = RECORD_MARK;
    else if (text_is(kind, "HEARTBEAT"))
        out->kind = RECORD_POSITION;
    else if (text_is(kind, "TABLE") && out->table_label)
        out->kind = RECORD_TABLE;
    else
        return err_set(e, ERR_FATAL, "the journal holds a position of kind %.*s",
                       (int)(kind.len < 16 ? kind.len : 16), kind.data);
    return 0;
}

static int read_record(const struct known *k, struct reader *r, struct arena *a, struct record *out,
                       struct err *e)
{
    switch (k->layout) {
    case LAYOUT_CHANGE:
        return read_change(k, r, a, out, e);
    case LAYOUT_TRANSACTION:
        return read_transaction(r, out, e);
    default:
        return read_position(r, a, out, e);
    }
}

static const char *known_name(const struct known *k)
{
    if (k->layout == LAYOUT_CHANGE)
        return table_label(k->table);
    return k->layout == LAYOUT_TRANSACTION ? "Transaction" : "Position";
}

int decoder_decode(struct decoder *dec, uint64_t schema, const char *text, const void *data,
                   size_t len, struct arena *a, struct record *out, struct err *e)
{
    struct known *k = find_schema(dec, schema, text, e);
    struct reader r;
    int rc;

    memset(out, 0, sizeof(*out));
    if (!k)
        return -1;
    reader_init(&r, data, len);
    rc = read_record(k, &r, a, out, e);
    /* Whatever else was found wrong then comes of the damage. */
    if (r.bad || (rc == 0 && reader_left(&r) > 0))
        return err_set(e, ERR_FATAL,
                       "a record of %s is damaged: its %zu bytes are not its schema's",
                       known_name(k), len);
    return rc;
}
