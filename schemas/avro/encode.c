/* Encoding: one reusable Avro value a record schema, filled and written.
 *
 * Every string that goes into an Avro value is only lent to it (a wrapped buffer without a free
 * function), so nothing is copied but into the datum itself; Avro C's own setters would copy, and
 * double their buffer at each call. What was lent is dead after the call; the value forgets it at
 * the next one.
 */
#include "schemas/avro/codec.h"
#include "schemas/avro/names.h"
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
    avro_schema_t schema;
    avro_value_iface_t *iface;
    avro_value_t value;
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
    struct arena arena;   /* the tables' copies */
    struct arena scratch; /* a record's decimals, until it is written */
    struct entry *entries;
    struct entry *fixed[2]; /* by layout: Transaction, Position */
    struct pointer_slot slots[POINTER_SLOTS];
    avro_writer_t writer;
};

/* ---- entries ---- */

struct encoder *encoder_new(const char *migration, const char *engine, const char *database)
{
    struct encoder *enc = calloc(1, sizeof(*enc));

    invariant(enc != NULL);
    enc->migration = strdup(migration);
    enc->engine = strdup(engine);
    enc->database = strdup(database);
    enc->writer = avro_writer_memory("", 0);
    invariant(enc->migration && enc->engine && enc->database && enc->writer);
    return enc;
}

static void entry_free(struct entry *n)
{
    if (n->value.iface)
        avro_value_decref(&n->value);
    if (n->iface)
        avro_value_iface_decref(n->iface);
    if (n->schema)
        avro_schema_decref(n->schema);
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
    avro_writer_free(enc->writer);
    arena_release(&enc->arena);
    arena_release(&enc->scratch);
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

    invariant(n != NULL);
    n->layout = layout;
    if (schema_write(layout, enc->migration, t, &n->schema_text, e) < 0)
        goto fail;
    if (avro_schema_from_json_length(n->schema_text.text, strlen(n->schema_text.text),
                                     &n->schema) != 0) {
        err_set(e, ERR_BUG, "Avro refuses the schema of %s: %s", n->schema_text.name,
                avro_strerror());
        goto fail;
    }
    n->iface = avro_generic_class_from_schema(n->schema);
    invariant(n->iface && avro_generic_value_new(n->iface, &n->value) == 0);
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
    *name = n->schema_text.name;
    *text = n->schema_text.text;
    return 0;
}

/* ---- filling a value; Avro's setters cannot fail on a value of the right type ---- */

static avro_value_t field(avro_value_t *record, size_t index)
{
    avro_value_t child = {0};

    invariant(avro_value_get_by_index(record, index, &child, NULL) == 0);
    return child;
}

static avro_value_t branch(avro_value_t *u, int index)
{
    avro_value_t child = {0};

    invariant(avro_value_set_branch(u, index, &child) == 0);
    return child;
}

static void lend_string(avro_value_t *v, const char *data, size_t len)
{
    avro_wrapped_buffer_t w = {.buf = data ? data : "", .size = len + 1};

    invariant(avro_value_give_string_len(v, &w) == 0);
}

static void lend_bytes(avro_value_t *v, const void *data, size_t len)
{
    avro_wrapped_buffer_t w = {.buf = data ? data : "", .size = len};

    invariant(avro_value_give_bytes(v, &w) == 0);
}

static void set_text(avro_value_t *record, size_t index, const char *text)
{
    avro_value_t v = field(record, index);

    lend_string(&v, text, strlen(text));
}

static void set_long(avro_value_t *record, size_t index, int64_t number)
{
    avro_value_t v = field(record, index);

    avro_value_set_long(&v, number);
}

/* text NULL: null. */
static void set_text_or_null(avro_value_t *record, size_t index, const char *text)
{
    avro_value_t u = field(record, index);
    avro_value_t v = branch(&u, text != NULL);

    if (text)
        lend_string(&v, text, strlen(text));
}

static void set_long_or_null(avro_value_t *record, size_t index, bool set, int64_t number)
{
    avro_value_t u = field(record, index);
    avro_value_t v = branch(&u, set);

    if (set)
        avro_value_set_long(&v, number);
}

/* ---- rows ---- */

/* The natural numbers of a row's decimals live until the datum is written. */
struct filling {
    const struct table *table;
    struct arena *scratch;
    struct err *e;
};

static void set_natural(avro_value_t *v, enum natural_type type, struct arena *scratch,
                        const struct natural *n)
{
    switch (type) {
    case NATURAL_BOOLEAN:
        avro_value_set_boolean(v, n->i != 0);
        return;
    case NATURAL_INT:
        avro_value_set_int(v, (int32_t)n->i);
        return;
    case NATURAL_LONG:
        avro_value_set_long(v, n->i);
        return;
    case NATURAL_FLOAT:
        avro_value_set_float(v, (float)n->d);
        return;
    case NATURAL_DOUBLE:
        avro_value_set_double(v, n->d);
        return;
    default:
        lend_bytes(v, arena_memdup(scratch, n->bytes, n->len), n->len);
    }
}

static int fill_column(struct filling *f, avro_value_t *u, const struct column *c,
                       const struct value *v)
{
    enum natural_type type = natural_type_of(c);
    struct natural n;
    avro_value_t b;

    if (v->state != VALUE_SET) {
        branch(u, 0);
        return 0;
    }
    if (type == NATURAL_BYTES) {
        b = branch(u, 1);
        lend_bytes(&b, v->data, v->len);
        return 0;
    }
    if (type != NATURAL_NONE && natural_parse(c, v->data, v->len, &n)) {
        b = branch(u, 1);
        set_natural(&b, type, f->scratch, &n);
        return 0;
    }
    if (!text_is_utf8(v->data, v->len))
        return err_set(f->e, ERR_DATA, "table %s, column %s: the text is not valid UTF-8",
                       table_label(f->table), c->name);
    b = branch(u, type == NATURAL_NONE ? 1 : 2);
    lend_string(&b, v->data, v->len);
    return 0;
}

static int fill_row(struct filling *f, avro_value_t *u, avro_value_t *names, const struct row *r)
{
    avro_value_t record = branch(u, r != NULL);

    avro_value_reset(names);
    if (!r)
        return 0;
    invariant(r->n == f->table->ncolumns);
    for (size_t i = 0; i < r->n; i++) {
        avro_value_t column = field(&record, i);

        if (fill_column(f, &column, &f->table->columns[i], &r->v[i]) < 0)
            return -1;
        if (r->v[i].state == VALUE_UNCHANGED) {
            avro_value_t name;

            invariant(avro_value_append(names, &name, NULL) == 0);
            lend_string(&name, f->table->columns[i].name, strlen(f->table->columns[i].name));
        }
    }
    return 0;
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

static void fill_source(struct encoder *enc, avro_value_t *v, const struct record *r,
                        const struct texts *s)
{
    set_text(v, SOURCE_ENGINE, enc->engine);
    set_text(v, SOURCE_DB, enc->database);
    set_text(v, SOURCE_SCHEMA, r->change.table->schema);
    set_text(v, SOURCE_TABLE, r->change.table->name);
    set_long(v, SOURCE_XID, (int64_t)r->txn.xid);
    set_text(v, SOURCE_COMMIT, s->commit);
    set_long(v, SOURCE_TS_US, r->txn.ts_us);
}

static int fill_change(struct encoder *enc, avro_value_t *v, const struct record *r,
                       struct texts *s, struct filling *f)
{
    static const char *const ops[] = {
        [OP_INSERT] = "c", [OP_UPDATE] = "u", [OP_DELETE] = "d", [OP_TRUNCATE] = "t"};
    const struct change *c = &r->change;
    bool truncate = c->op == OP_TRUNCATE;
    avro_value_t before = field(v, CHANGE_BEFORE);
    avro_value_t after = field(v, CHANGE_AFTER);
    avro_value_t unchanged = field(v, CHANGE_UNCHANGED);
    avro_value_t unchanged_before = field(v, CHANGE_UNCHANGED_BEFORE);
    avro_value_t source = field(v, CHANGE_SOURCE);
    avro_value_t transaction = field(v, CHANGE_TRANSACTION);
    avro_value_t version = field(v, CHANGE_VERSION);
    avro_value_t restart = field(v, CHANGE_RESTART_IDENTITY);
    avro_value_t flag = branch(&restart, truncate);

    transaction_id(s, &r->txn);
    set_text(v, CHANGE_OP, ops[c->op]);
    fill_source(enc, &source, r, s);
    set_text(&transaction, TRANSACTION_ID, s->id);
    set_long(&transaction, TRANSACTION_TOTAL_ORDER, (int64_t)c->ordinal + 1);
    set_long(v, CHANGE_TS_US, r->txn.ts_us);
    set_long(&version, VERSION_EPOCH, r->txn.epoch);
    set_text(&version, VERSION_COMMIT, s->commit);
    set_long(&version, VERSION_ORDINAL, (int64_t)c->ordinal);
    set_long_or_null(v, CHANGE_GROUP, truncate, c->group);
    if (truncate)
        avro_value_set_boolean(&flag, c->restart_identity);
    if (fill_row(f, &before, &unchanged_before, c->before) < 0)
        return -1;
    return fill_row(f, &after, &unchanged, c->after);
}

static void fill_transaction(avro_value_t *v, const struct record *r, struct texts *s)
{
    bool end = r->kind == RECORD_END;

    transaction_id(s, &r->txn);
    position_format(r->txn.next, s->next);
    set_text(v, TXN_STATUS, end ? "END" : "BEGIN");
    set_text(v, TXN_ID, s->id);
    set_long(v, TXN_EPOCH, r->txn.epoch);
    set_long(v, TXN_XID, (int64_t)r->txn.xid);
    set_text(v, TXN_COMMIT, s->commit);
    set_text_or_null(v, TXN_NEXT, end ? s->next : NULL);
    set_long(v, TXN_TS_US, r->txn.ts_us);
    set_long_or_null(v, TXN_CHANGES, end, (int64_t)r->nchanges);
}

static void fill_position(avro_value_t *v, const struct record *r, struct texts *s)
{
    static const char *const kinds[] = {
        [RECORD_MARK] = "MARK", [RECORD_POSITION] = "HEARTBEAT", [RECORD_TABLE] = "TABLE"};

    position_format(r->next, s->next);
    set_text(v, POSITION_KIND, kinds[r->kind]);
    set_text(v, POSITION_NEXT, s->next);
    set_text_or_null(v, POSITION_TOKEN, r->kind == RECORD_MARK ? r->token : NULL);
    set_text_or_null(v, POSITION_TABLE, r->kind == RECORD_TABLE ? r->table_label : NULL);
    set_text_or_null(v, POSITION_REASON, r->kind == RECORD_TABLE ? r->reason : NULL);
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

static int write_value(struct encoder *enc, struct entry *n, const struct record *r,
                       struct buf *out, struct err *e)
{
    size_t bound = n->overhead + payload(r);
    char *to = buf_reserve(out, bound);

    if (!to)
        return buf_check(out, "a record", e);
    avro_writer_memory_set_dest(enc->writer, to, (int64_t)bound);
    if (avro_value_write(enc->writer, &n->value) != 0)
        return err_set(e, ERR_BUG, "cannot encode a record of %s: %s", n->schema_text.name,
                       avro_strerror());
    out->len += (size_t)avro_writer_tell(enc->writer);
    out->data[out->len] = '\0';
    return 0;
}

int encoder_encode(struct encoder *enc, const struct record *r, struct buf *out, struct err *e)
{
    struct entry *n = entry_for(enc, r, e);
    struct filling f = {r->change.table, &enc->scratch, e};
    struct texts texts;
    int rc = 0;

    if (!n)
        return -1;
    if (n->layout == LAYOUT_CHANGE)
        rc = fill_change(enc, &n->value, r, &texts, &f);
    else if (n->layout == LAYOUT_TRANSACTION)
        fill_transaction(&n->value, r, &texts);
    else
        fill_position(&n->value, r, &texts);
    if (rc == 0)
        rc = write_value(enc, n, r, out, e);
    arena_reset(&enc->scratch);
    return rc;
}
