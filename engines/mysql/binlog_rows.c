#include "engines/mysql/binlog_rows.h"

#include "engines/mysql/binlog_bytes.h"
#include "engines/mysql/binlog_value.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define NOWHERE SIZE_MAX

/* ---- TABLE_MAP against the plan ---- */

static size_t place_of(const struct table *t, const char *name)
{
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (strcasecmp(t->columns[i].name, name) == 0)
            return i;
    }
    return NOWHERE;
}

static const char *compare_column(struct binlog_table *t, size_t i, bool *seen)
{
    const struct binlog_column *c = &t->map.columns[i];
    size_t place;

    if (!c->name)
        return "the binlog does not tell its columns' names: SET GLOBAL binlog_row_metadata = FULL";
    place = place_of(t->table, c->name);
    if (place == NOWHERE)
        return arena_printf(&t->arena, "it has a column \"%s\" that was not planned", c->name);
    if (seen[place])
        return arena_printf(&t->arena, "the log names its column \"%s\" twice", c->name);
    seen[place] = true;
    t->place[i] = place;
    if (t->table->columns[place].generated)
        return NULL;
    return binlog_value_unfit(&t->arena, c, &t->table->columns[place]);
}

static const char *compare(struct binlog_table *t)
{
    const struct table *plan = t->table;
    bool *seen = arena_zalloc(&t->arena, plan->ncolumns + 1);

    for (size_t i = 0; i < t->map.n; i++) {
        const char *unfit = compare_column(t, i, seen);

        if (unfit)
            return unfit;
    }
    for (size_t i = 0; i < plan->ncolumns; i++) {
        if (!seen[i] && !plan->columns[i].generated)
            return arena_printf(&t->arena, "its column \"%s\" is gone", plan->columns[i].name);
    }
    return NULL;
}

int binlog_table_map(struct binlog_table *t, const uint8_t *data, size_t len, struct err *e)
{
    if (t->raw && t->raw_len == len && memcmp(t->raw, data, len) == 0)
        return 0;
    arena_reset(&t->arena);
    t->raw = NULL;
    t->unfit = NULL;
    if (binlog_map_parse(&t->arena, data, len, &t->map, e) < 0)
        return -1;
    t->place = arena_zalloc(&t->arena, (t->map.n + 1) * sizeof(*t->place));
    if (t->table)
        t->unfit = compare(t);
    t->raw = arena_memdup(&t->arena, data, len);
    t->raw_len = len;
    return 0;
}

void binlog_table_release(struct binlog_table *t)
{
    arena_release(&t->arena);
    t->raw = NULL;
}

/* ---- rows ---- */

static int truncated(const struct binlog_table *t, struct err *e)
{
    return err_set(e, ERR_FATAL,
                   "%s.%s: the binlog has a row event that does not follow the format",
                   t->map.schema, t->map.name);
}

size_t binlog_rows_head(enum change_op op, const uint8_t *data, size_t len)
{
    struct reader r;
    uint64_t n;

    reader_init(&r, data, len);
    n = binlog_packed(&r);
    if (n > len)
        return 0;
    reader_bytes(&r, ((size_t)n + 7) / 8 * (op == OP_UPDATE ? 2 : 1));
    return r.bad ? 0 : len - reader_left(&r);
}

int binlog_rows_open(struct binlog_rows *rows, const struct binlog_table *t, enum change_op op,
                     const uint8_t *data, size_t len, struct err *e)
{
    struct reader r;
    size_t bits;
    uint64_t n;

    reader_init(&r, data, len);
    n = binlog_packed(&r);
    if (r.bad || n != t->map.n)
        return truncated(t, e);
    bits = (t->map.n + 7) / 8;
    *rows = (struct binlog_rows){.table = t, .op = op};
    rows->before = op == OP_INSERT ? NULL : reader_bytes(&r, bits);
    rows->after = op == OP_DELETE ? NULL : reader_bytes(&r, bits);
    if (r.bad)
        return truncated(t, e);
    rows->start = r.p;
    rows->at = r.p;
    rows->end = r.end;
    return 0;
}

struct image {
    const struct binlog_rows *rows;
    const uint8_t *present;
    bool key_only; /* the rest is not asked for */
    struct arena *a;
    const char **unfit;
};

static void take_value(const struct image *im, size_t i, struct reader *r, struct row *row)
{
    const struct binlog_table *t = im->rows->table;
    const struct binlog_column *c = &t->map.columns[i];
    const struct column *plan = &t->table->columns[t->place[i]];
    const char *unfit = NULL;

    if (plan->generated || (im->key_only && !plan->key)) {
        binlog_value_skip(c, r);
        return;
    }
    binlog_value_take(im->a, c, plan, r, &row->v[t->place[i]], &unfit);
    if (unfit && !*im->unfit)
        *im->unfit = arena_printf(im->a, "column \"%s\": %s", plan->name, unfit);
}

/* One image: a bit for each column that it has (is it NULL?), and the values of those that are
 * not. */
static struct row *take_image(const struct image *im, struct reader *r)
{
    const struct binlog_table *t = im->rows->table;
    struct row *row = row_new(im->a, t->table->ncolumns);
    const uint8_t *nulls;
    size_t count = 0;
    size_t k = 0;

    for (size_t i = 0; i < row->n; i++)
        row->v[i].state = t->table->columns[i].generated ? VALUE_NULL : VALUE_UNCHANGED;
    for (size_t i = 0; i < t->map.n; i++)
        count += binlog_bit(im->present, i);
    nulls = reader_bytes(r, (count + 7) / 8);
    for (size_t i = 0; nulls && !r->bad && i < t->map.n; i++) {
        const struct column *plan = &t->table->columns[t->place[i]];

        if (!binlog_bit(im->present, i))
            continue;
        if (!binlog_bit(nulls, k++))
            take_value(im, i, r, row);
        else if (!im->key_only || plan->key)
            row->v[t->place[i]].state = VALUE_NULL;
    }
    return row;
}

static bool whole(const struct row *row)
{
    return !row || row_complete(row);
}

static bool has_key(const struct table *t, const struct row *row)
{
    for (size_t i = 0; i < t->nkey; i++) {
        if (row->v[t->key[i]].state != VALUE_SET)
            return false;
    }
    return true;
}

/* Did the update move the row to another key? What the new image leaves out has not changed. */
static bool key_changed(const struct table *t, const struct row *before, const struct row *after)
{
    for (size_t i = 0; i < t->nkey; i++) {
        const struct value *v = &after->v[t->key[i]];

        if (v->state != VALUE_UNCHANGED && !value_equal(v, &before->v[t->key[i]]))
            return true;
    }
    return false;
}

/* Where the row image is partial, a row may not say enough. */
static const char *judge(const struct table *t, const struct change *c)
{
    static const char partial[] =
        "its rows are logged in part only: SET GLOBAL binlog_row_image = FULL";

    if (c->op == OP_INSERT && !whole(c->after))
        return partial;
    if (t->nkey == 0 && (!whole(c->before) || !whole(c->after)))
        return partial;
    if (c->before && !has_key(t, c->before))
        return partial;
    return NULL;
}

int binlog_rows_next(struct binlog_rows *rows, struct arena *a, struct change *out,
                     const char **unfit, struct err *e)
{
    const struct table *plan = rows->table->table;
    struct image im = {.rows = rows, .a = a, .unfit = unfit};
    struct row *before = NULL;
    struct row *after = NULL;
    struct reader r;

    *unfit = NULL;
    if (rows->at >= rows->end)
        return 0;
    reader_init(&r, rows->at, (size_t)(rows->end - rows->at));
    if (rows->before) {
        im.present = rows->before;
        im.key_only = plan->nkey > 0;
        before = take_image(&im, &r);
    }
    if (rows->after) {
        im.present = rows->after;
        im.key_only = false;
        after = take_image(&im, &r);
    }
    if (r.bad || r.p == rows->at)
        return truncated(rows->table, e);
    rows->at = r.p;
    *out = (struct change){.op = rows->op, .table = plan, .before = before, .after = after};
    if (!*unfit)
        *unfit = judge(plan, out);
    if (!*unfit && rows->op == OP_UPDATE && plan->nkey > 0) {
        bool moved = key_changed(plan, before, after);

        /* MINIMAL leaves the key out of the new image: it is the old one's. */
        for (size_t i = 0; i < plan->nkey; i++) {
            if (after->v[plan->key[i]].state == VALUE_UNCHANGED)
                after->v[plan->key[i]] = before->v[plan->key[i]];
        }
        out->before = moved ? before : NULL;
    }
    return 1;
}
