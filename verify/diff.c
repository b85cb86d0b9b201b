#include "verify/diff.h"

#include <stdlib.h>
#include <string.h>

#define KEY_VALUE_MAX 1000
#define ROW_VALUE_MAX 40
#define LINE_MAX_BYTES ((size_t)64 * 1024)
/* An entry's texts and slots, roughly. */
#define ENTRY_EXTRA 120

struct entry {
    struct digest key;
    struct digest row;
    uint64_t count;   /* rows of the source that are alike in key (and row), not met yet */
    bool met;         /* by a row of the target */
    const char *text; /* diff_print_key */
    uint64_t *columns;
};

struct diff {
    const struct table *t;
    const bool *differs;
    struct diff_out *out;
    struct hasher *hasher;
    uint64_t pass;
    uint64_t passes;
    struct arena arena;
    struct entry *slots; /* open addressing by key.low; text NULL: free */
    size_t nslots;       /* a power of two */
    size_t used;
    struct buf line;
    struct buf told; /* what goes out; kept apart, because `line` may be a part of it */
};

uint64_t diff_passes(const struct table *t, uint64_t rows)
{
    size_t cost = 3 * sizeof(struct entry) + t->ncolumns * sizeof(uint64_t) + ENTRY_EXTRA;
    uint64_t fit = DIFF_BUDGET / cost;

    return fit > 0 ? rows / fit + 1 : rows + 1;
}

struct diff *diff_new(const struct table *t, const bool *differs, struct diff_out *out)
{
    struct diff *d = calloc(1, sizeof(*d));

    invariant(d != NULL);
    d->t = t;
    d->differs = differs;
    d->out = out;
    d->hasher = hasher_new();
    buf_init(&d->line, LINE_MAX_BYTES);
    buf_init(&d->told, 2 * LINE_MAX_BYTES);
    diff_pass(d, 0, 1);
    return d;
}

void diff_free(struct diff *d)
{
    if (!d)
        return;
    hasher_free(d->hasher);
    buf_release(&d->line);
    buf_release(&d->told);
    arena_release(&d->arena);
    free(d->slots);
    free(d);
}

void diff_pass(struct diff *d, uint64_t pass, uint64_t passes)
{
    d->pass = pass;
    d->passes = passes;
    arena_reset(&d->arena);
    free(d->slots);
    d->nslots = 1024;
    d->used = 0;
    d->slots = calloc(d->nslots, sizeof(*d->slots));
    invariant(d->slots != NULL);
}

/* ---- printing ---- */

/* A line stays a line: control characters are written as escapes. */
static void print_text(struct buf *out, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];

        if (c == '\n')
            buf_adds(out, "\\n");
        else if (c < ' ' || c == 0x7f)
            buf_addf(out, "\\x%02x", c);
        else
            buf_addc(out, (char)c);
    }
}

static void print_value(struct buf *out, const struct column *c, const struct value *v, size_t max)
{
    size_t len = v->len < max ? v->len : max;

    if (v->state != VALUE_SET) {
        buf_adds(out, "NULL");
        return;
    }
    if (c->kind == TYPE_BYTES) {
        buf_adds(out, "\\x");
        for (size_t i = 0; i < len; i++)
            buf_addf(out, "%02x", (unsigned char)v->data[i]);
    } else {
        /* Not in the middle of a character. */
        while (len < v->len && len > 0 && ((unsigned char)v->data[len] & 0xc0) == 0x80)
            len--;
        print_text(out, v->data, len);
    }
    if (len < v->len)
        buf_adds(out, "…");
}

void diff_print_key(struct buf *out, const struct table *t, const struct row *r)
{
    size_t n = t->nkey ? t->nkey : t->ncolumns;
    size_t max = t->nkey ? KEY_VALUE_MAX : ROW_VALUE_MAX;

    buf_addf(out, "%s (", table_label(t));
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "%s%s", i ? ", " : "", t->columns[t->nkey ? t->key[i] : i].name);
    buf_adds(out, ")=(");
    for (size_t i = 0; i < n; i++) {
        size_t column = t->nkey ? t->key[i] : i;

        buf_adds(out, i ? ", " : "");
        print_value(out, &t->columns[column], &r->v[column], max);
    }
    buf_addc(out, ')');
}

const char *diff_missing_there(bool back)
{
    return back ? "missing on source" : "missing on target";
}

static void emit(struct diff *d, const char *key, const char *what)
{
    d->out->differences++;
    buf_reset(&d->told, d->told.max);
    buf_addf(&d->told, "%s: %s", key, what);
    d->out->emit(d->told.data, d->out->ctx);
}

/* ---- the table of entries ---- */

static struct entry *find(struct diff *d, struct digest key)
{
    size_t i = key.low & (d->nslots - 1);

    while (d->slots[i].text && !digest_equal(d->slots[i].key, key))
        i = (i + 1) & (d->nslots - 1);
    return &d->slots[i];
}

static void grow(struct diff *d)
{
    struct entry *old = d->slots;
    size_t n = d->nslots;

    if (d->used * 2 < d->nslots)
        return;
    d->nslots *= 2;
    d->slots = calloc(d->nslots, sizeof(*d->slots));
    invariant(d->slots != NULL);
    for (size_t i = 0; i < n; i++) {
        if (old[i].text)
            *find(d, old[i].key) = old[i];
    }
    free(old);
}

static bool in_pass(const struct diff *d, const struct row *r)
{
    uint64_t quick = quick_key(d->t, r);

    return d->differs[bucket_of(quick)] && quick / BUCKETS % d->passes == d->pass;
}

/* Valid until the next call. */
static const char *key_text(struct diff *d, const struct row *r)
{
    buf_reset(&d->line, LINE_MAX_BYTES);
    diff_print_key(&d->line, d->t, r);
    return d->line.data;
}

void diff_source(struct diff *d, const struct row *r)
{
    struct digest key;
    struct entry *e;

    if (!in_pass(d, r))
        return;
    key = hasher_key(d->hasher, d->t, r);
    e = find(d, key);
    if (e->text) {
        e->count++;
        return;
    }
    e->key = key;
    e->row = hasher_row(d->hasher, d->t, r);
    e->count = 1;
    e->text = arena_strdup(&d->arena, key_text(d, r));
    e->columns = arena_alloc(&d->arena, d->t->ncolumns * sizeof(*e->columns));
    for (size_t i = 0; i < d->t->ncolumns; i++)
        e->columns[i] = quick_value(&r->v[i], i);
    d->used++;
    grow(d);
}

static void emit_columns(struct diff *d, const struct entry *e, const struct row *r)
{
    const char *sep = "differs: ";

    buf_reset(&d->line, LINE_MAX_BYTES);
    for (size_t i = 0; i < d->t->ncolumns; i++) {
        if (d->t->columns[i].generated || e->columns[i] == quick_value(&r->v[i], i))
            continue;
        buf_addf(&d->line, "%s%s", sep, d->t->columns[i].name);
        sep = ", ";
    }
    emit(d, e->text, d->line.len ? d->line.data : "differs");
}

void diff_target(struct diff *d, const struct row *r)
{
    struct entry *e;

    if (!in_pass(d, r))
        return;
    e = find(d, hasher_key(d->hasher, d->t, r));
    if (!e->text || e->count == 0) {
        emit(d, key_text(d, r), diff_missing_there(!d->out->back));
        return;
    }
    e->count--;
    e->met = true;
    if (!digest_equal(e->row, hasher_row(d->hasher, d->t, r)))
        emit_columns(d, e, r);
}

void diff_end(struct diff *d)
{
    for (size_t i = 0; i < d->nslots; i++) {
        const struct entry *e = &d->slots[i];

        for (uint64_t n = 0; e->text && n < e->count; n++)
            emit(d, e->text, diff_missing_there(d->out->back));
    }
}
