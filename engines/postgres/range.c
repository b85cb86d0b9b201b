#include "engines/postgres/range.h"

#include "engines/postgres/pg.h"
#include "engines/postgres/values.h"

#include <inttypes.h>

void pg_add_key_columns(struct buf *b, const struct table *t, const char *prefix)
{
    if (t->nkey > 1)
        buf_addc(b, '(');
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(b, i ? ", " : "");
        buf_adds(b, prefix);
        pg_ident(b, t->columns[t->key[i]].name);
    }
    if (t->nkey > 1)
        buf_addc(b, ')');
}

void pg_add_key_literals(struct buf *b, const struct table *t, const struct row *key)
{
    invariant(key->n == t->nkey);
    if (t->nkey > 1)
        buf_addc(b, '(');
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(b, i ? ", " : "");
        pg_add_literal(b, &t->columns[t->key[i]], &key->v[i]);
    }
    if (t->nkey > 1)
        buf_addc(b, ')');
}

static void add_compare(struct buf *b, const struct table *t, const char *op, const struct row *key)
{
    pg_add_key_columns(b, t, "");
    buf_addf(b, " %s ", op);
    pg_add_key_literals(b, t, key);
}

static void add_blocks(struct buf *b, const struct range *range)
{
    buf_addf(b, " WHERE ctid >= '(%" PRIu64 ",0)'::tid", range->block_from);
    if (range->block_to != UINT64_MAX)
        buf_addf(b, " AND ctid < '(%" PRIu64 ",0)'::tid", range->block_to);
}

void pg_add_range(struct buf *b, const struct table *t, const struct range *range)
{
    switch (range->kind) {
    case RANGE_ALL:
        return;
    case RANGE_BLOCKS:
        add_blocks(b, range);
        return;
    case RANGE_POINT:
        buf_adds(b, " WHERE ");
        add_compare(b, t, "=", range->lower);
        return;
    case RANGE_KEY:
        if (range->lower) {
            buf_adds(b, " WHERE ");
            add_compare(b, t, ">=", range->lower);
        }
        if (range->upper) {
            buf_adds(b, range->lower ? " AND " : " WHERE ");
            add_compare(b, t, "<", range->upper);
        }
        return;
    }
}
