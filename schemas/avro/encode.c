/* Encoding, straight into the datum's bytes, field by field in the order of schema.h. Generic
 * values of Avro C took four times as long; Avro C still has to accept every schema text before a
 * record of it is written, and reads them all in the tests.
 */
#include "schemas/avro/codec.h"

#include "core/text.h"
#include "schemas/avro/natural.h"
#include "schemas/avro/schema.h"

#include <avro.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than the longest varint, number or union index of one value. */
#define VALUE_OVERHEAD 24
/* Fixed fields of the largest layout: positions, ids, counts. */
#define RECORD_OVERHEAD 512
#define POINTER_SLOTS 256u

struct entry {
    struct entry *next;
    enum layout layout;
    struct table *table; /* our copy; NULL for Transaction and Position */
    struct schema_text schema_text;
    size_t overhead; /* the datum's bytes beyond those of the rows, at most */
};

/* Which entry a struct table had last time. Its memory may have become another table since, so a
 * hit is compared before it counts. */
struct pointer_slot {
    const struct table *table;
    struct entry *entry;
};

struct encoder {
    char *migration;
    char *engine;
    char *database;
    struct arena arena; /* the tables' copies */
    struct entry *entries;
    struct entry *fixed[2]; /* by layout: Transaction, Position */
    struct pointer_slot slots[POINTER_SLOTS];
    /* What encoder_schema() was asked for last: the same record is encoded next. */
    const struct table *asked;
    struct entry *answered;
};

/* ---- entries ---- */

struct encoder *encoder_new(const char *migration, const char *engine, const char *database)
{
    struct encoder *enc = calloc(1, sizeof(*enc));

    invariant(enc != NULL);
    enc->migration = strdup(migration);
    enc->engine = strdup(engine);
    enc->database = strdup(database);
    invariant(enc->migration && enc->engine && enc->database);
    return enc;
}

static void entry_free(struct entry *n)
{
    free(n->schema_text.name);
    free(n->schema_text.text);
    free(n);
}

void encoder_free(struct encoder *enc)
{
    struct entry *next;

    if (!enc)
        return;
    for (struct entry *n = enc->entries; n; n = next) {
        next = n->next;
        entry_free(n);
    }
    arena_release(&enc->arena);
    free(enc->migration);
    free(enc->engine);
    free(enc->database);
    free(enc);
}

static size_t entry_overhead(const struct encoder *enc, const struct table *t)
{
    size_t n = RECORD_OVERHEAD + strlen(enc->engine) + strlen(enc->database);

    if (!t)
        return n;
    n += strlen(t->schema) + strlen(t->name);
    /* In either row a column may stand, and its name among the unchanged ones. */
    for (size_t i = 0; i < t->ncolumns; i++)
        n += 2 * (strlen(t->columns[i].name) + 2 * VALUE_OVERHEAD);
    return n;
}

static struct entry *entry_new(struct encoder *enc, enum layout layout, const struct table *t,
                               struct err *e)
{
    struct entry *n = calloc(1, sizeof(*n));
    avro_schema_t schema;

    invariant(n != NULL);
    n->layout = layout;
    if (schema_write(layout, enc->migration, t, &n->schema_text, e) < 0)
        goto fail;
    if (avro_schema_from_json_length(n->schema_text.text, strlen(n->schema_text.text), &schema) !=
        0) {
        err_set(e, ERR_BUG, "Avro refuses the schema of %s: %s", n->schema_text.name,
                avro_strerror());
        goto fail;
    }
    avro_schema_decref(schema);
    n->table = t ? table_copy(&enc->arena, t) : NULL;
    n->overhead = entry_overhead(enc, t);
    n->next = enc->entries;
    enc->entries = n;
    return n;
fail:
    entry_free(n);
    return NULL;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* table_same_shape() and everything else that stands in the schema text, the version aside. */
static bool same_text_for(const struct table *a, const struct table *b)
{
    if (!table_same_shape(a, b) || a->id != b->id || !same_text(a->root, b->root))
        return false;
    for (size_t i = 0; i < a->ncolumns; i++) {
        const struct column *x = &a->columns[i];
        const struct column *y = &b->columns[i];

        if (x->order != y->order || x->not_null != y->not_null ||
            x->identity_always != y->identity_always || !same_text(x->cast_type, y->cast_type))
            return false;
    }
    return true;
}

static struct entry *table_entry(struct encoder *enc, const struct table *t, struct err *e)
{
    struct pointer_slot *s = &enc->slots[((uintptr_t)t >> 4) % POINTER_SLOTS];
    struct entry *n;

    if (s->table == t && same_text_for(s->entry->table, t))
        return s->entry;
    for (n = enc->entries; n; n = n->next) {
        if (n->table && same_text_for(n->table, t))
            break;
    }
    if (!n)
        n = entry_new(enc, LAYOUT_CHANGE, t, e);
    if (n)
        *s = (struct pointer_slot){t, n};
    return n;
}

static struct entry *entry_for(struct encoder *enc, const struct record *r, struct err *e)
{
    enum layout layout =
        r->kind == RECORD_BEGIN || r->kind == RECORD_END ? LAYOUT_TRANSACTION : LAYOUT_POSITION;

    if (r->kind == RECORD_CHANGE)
        return table_entry(enc, r->change.table, e);
    if (!enc->fixed[layout])
        enc->fixed[layout] = entry_new(enc, layout, NULL, e);
    return enc->fixed[layout];
}

int encoder_schema(struct encoder *enc, const struct record *r, const char **name,
                   const char **text, struct err *e)
{
    struct entry *n = entry_for(enc, r, e);

    if (!n)
        return -1;
    enc->asked = n->table ? r->change.table : NULL;
    enc->answered = n;
    *name = n->schema_text.name;
    *text = n->schema_text.text;
    return 0;
}

/* ---- the bytes of a value ---- */

static void put_long(struct buf *b, int64_t v)
{
    uint64_t n = (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
    char bytes[10];
    size_t len = 0;

    for (; n > 0x7f; n >>= 7)
        bytes[len++] = (char)((n & 0x7f) | 0x80);
    bytes[len++] = (char)n;
    buf_add(b, bytes, len);
}

static void put_bytes(struct buf *b, const void *data, size_t len)
{
    put_long(b, (int64_t)len);
    buf_add(b, data, len);
}

static void put_text(struct buf *b, const char *text)
{
    put_bytes(b, text, strlen(text));
}

/* NULL: null. */
static void put_text_or_null(struct buf *b, const char *text)
{
    put_long(b, text != NULL);
    if (text)
        put_text(b, text);
}

static void put_long_or_null(struct buf *b, bool set, int64_t number)
{
    put_long(b, set);
    if (set)
        put_long(b, number);
}

/* ---- rows ---- */

static void put_natural(struct buf *b, enum natural_type type, const struct natural *n)
{
    float f = (float)n->d;

    switch (type) {
    case NATURAL_BOOLEAN:
        buf_addc(b, n->i != 0);
        return;
    case NATURAL_INT:
    case NATURAL_LONG:
        put_long(b, n->i);
        return;
    case NATURAL_FLOAT:
        buf_add(b, &f, sizeof(f));
        return;
    case NATURAL_DOUBLE:
        buf_add(b, &n->d, sizeof(n->d));
        return;
    default:
        put_bytes(b, n->bytes, n->len);
    }
}

static int put_column(struct buf *b, const struct table *t, const struct column *c,
                      const struct value *v, struct err *e)
{
    enum natural_type type = natural_type_of(c);
    struct natural n;

    if (v->state != VALUE_SET) {
        put_long(b, 0);
        return 0;
    }
    if (type == NATURAL_BYTES) {
        put_long(b, 1);
        put_bytes(b, v->data, v->len);
        return 0;
    }
    if (type != NATURAL_NONE && natural_parse(c, v->data, v->len, &n)) {
        put_long(b, 1);
        put_natural(b, type, &n);
        return 0;
    }
    if (!text_is_utf8(v->data, v->len))
        return err_set(e, ERR_DATA, "table %s, column %s: the text is not valid UTF-8",
                       table_label(t), c->name);
    put_long(b, type == NATURAL_NONE ? 1 : 2);
    put_bytes(b, v->data, v->len);
    return 0;
}

static int put_row(struct buf *b, const struct table *t, const struct row *r, struct err *e)
{
    put_long(b, r != NULL);
    if (!r)
        return 0;
    invariant(r->n == t->ncolumns);
    for (size_t i = 0; i < r->n; i++) {
        if (put_column(b, t, &t->columns[i], &r->v[i], e) < 0)
            return -1;
    }
    return 0;
}

/* The names of the columns that the log did not tell: one block of an array, and its end. */
static void put_unchanged(struct buf *b, const struct table *t, const struct row *r)
{
    int64_t n = 0;

    for (size_t i = 0; r && i < r->n; i++)
        n += r->v[i].state == VALUE_UNCHANGED;
    if (n > 0)
        put_long(b, n);
    for (size_t i = 0; n > 0 && i < r->n; i++) {
        if (r->v[i].state == VALUE_UNCHANGED)
            put_text(b, t->columns[i].name);
    }
    put_long(b, 0);
}

/* ---- records ---- */

struct texts {
    char commit[POSITION_TEXT_SIZE];
    char next[POSITION_TEXT_SIZE];
    char id[24 + POSITION_TEXT_SIZE];
};

static void transaction_id(struct texts *s, const struct txn *txn)
{
    position_format(txn->commit, s->commit);
    snprintf(s->id, sizeof(s->id), "%" PRIu64 ":%s", txn->xid, s->commit);
}

static void put_source(const struct encoder *enc, struct buf *b, const struct record *r,
                       const struct texts *s)
{
    put_text(b, enc->engine);
    put_text(b, enc->database);
    put_text(b, r->change.table->schema);
    put_text(b, r->change.table->name);
    put_long(b, (int64_t)r->txn.xid);
    put_text(b, s->commit);
    put_long(b, r->txn.ts_us);
}

static int put_change(const struct encoder *enc, struct buf *b, const struct record *r,
                      struct err *e)
{
    static const char *const ops[] = {
        [OP_INSERT] = "c", [OP_UPDATE] = "u", [OP_DELETE] = "d", [OP_TRUNCATE] = "t"};
    const struct change *c = &r->change;
    bool truncate = c->op == OP_TRUNCATE;
    struct texts s;

    transaction_id(&s, &r->txn);
    put_text(b, ops[c->op]);
    if (put_row(b, c->table, c->before, e) < 0 || put_row(b, c->table, c->after, e) < 0)
        return -1;
    put_source(enc, b, r, &s);
    put_text(b, s.id); /* transaction */
    put_long(b, (int64_t)c->ordinal + 1);
    put_long(b, r->txn.ts_us);
    put_long(b, r->txn.epoch); /* version */
    put_text(b, s.commit);
    put_long(b, (int64_t)c->ordinal);
    put_unchanged(b, c->table, c->after);
    put_unchanged(b, c->table, c->before);
    put_long_or_null(b, truncate, c->group);
    put_long(b, truncate);
    if (truncate)
        buf_addc(b, c->restart_identity);
    return 0;
}

static void put_transaction(struct buf *b, const struct record *r)
{
    bool end = r->kind == RECORD_END;
    struct texts s;

    transaction_id(&s, &r->txn);
    position_format(r->txn.next, s.next);
    put_text(b, end ? "END" : "BEGIN");
    put_text(b, s.id);
    put_long(b, r->txn.epoch);
    put_long(b, (int64_t)r->txn.xid);
    put_text(b, s.commit);
    put_text_or_null(b, end ? s.next : NULL);
    put_long(b, r->txn.ts_us);
    put_long_or_null(b, end, (int64_t)r->nchanges);
}

static void put_position(struct buf *b, const struct record *r)
{
    static const char *const kinds[] = {
        [RECORD_MARK] = "MARK", [RECORD_POSITION] = "HEARTBEAT", [RECORD_TABLE] = "TABLE"};
    struct texts s;

    position_format(r->next, s.next);
    put_text(b, kinds[r->kind]);
    put_text(b, s.next);
    put_text_or_null(b, r->kind == RECORD_MARK ? r->token : NULL);
    put_text_or_null(b, r->kind == RECORD_TABLE ? r->table_label : NULL);
    put_text_or_null(b, r->kind == RECORD_TABLE ? r->reason : NULL);
}

/* What a datum takes at most, beyond its entry's overhead. */
static size_t payload(const struct record *r)
{
    size_t n = 0;

    if (r->kind == RECORD_CHANGE)
        return row_bytes(r->change.before) + row_bytes(r->change.after);
    n += r->token ? strlen(r->token) : 0;
    n += r->table_label ? strlen(r->table_label) : 0;
    return n + (r->reason ? strlen(r->reason) : 0);
}

int encoder_encode(struct encoder *enc, const struct record *r, struct buf *out, struct err *e)
{
    bool asked = r->kind == RECORD_CHANGE && enc->asked == r->change.table;
    struct entry *n = asked ? enc->answered : entry_for(enc, r, e);
    size_t before = out->len;
    int rc = 0;

    enc->asked = NULL;
    if (!n)
        return -1;
    /* At once, so that it grows no more: a large row must not be in memory twice. */
    if (!buf_reserve(out, n->overhead + payload(r)))
        return buf_check(out, "a record", e);
    if (n->layout == LAYOUT_CHANGE)
        rc = put_change(enc, out, r, e);
    else if (n->layout == LAYOUT_TRANSACTION)
        put_transaction(out, r);
    else
        put_position(out, r);
    if (rc == 0)
        rc = buf_check(out, "a record", e);
    if (rc < 0)
        out->len = before;
    return rc;
}
