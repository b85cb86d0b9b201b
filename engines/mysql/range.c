#include "engines/mysql/range.h"

void my_add_key_columns(struct buf *b, const struct table *t, const char *prefix)
{
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(b, i ? ", " : "");
        buf_adds(b, prefix);
        my_ident(b, t->columns[t->key[i]].name);
    }
}

static int add_compare(struct buf *b, const struct column *c, const char *op, const struct value *v,
                       struct err *e)
{
    my_ident(b, c->name);
    buf_adds(b, op);
    return my_value_literal(b, c, v, e);
}

int my_add_key_equal(struct buf *b, const struct table *t, const struct row *key, struct err *e)
{
    invariant(key->n == t->nkey);
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(b, i ? " AND " : "");
        if (add_compare(b, &t->columns[t->key[i]], " = ", &key->v[i], e) < 0)
            return -1;
    }
    return 0;
}

/* (a > 1 OR (a = 1 AND (b >= 2))): which the optimizer turns into one range of the index. */
static int add_bound(struct buf *b, const struct table *t, bool lower, const struct row *key,
                     struct err *e)
{
    invariant(key->n == t->nkey);
    for (size_t i = 0; i < t->nkey; i++) {
        const struct column *c = &t->columns[t->key[i]];
        bool last = i + 1 == t->nkey;

        buf_addc(b, '(');
        if (add_compare(b, c, lower ? last ? " >= " : " > " : " < ", &key->v[i], e) < 0)
            return -1;
        if (last)
            break;
        buf_adds(b, " OR (");
        if (add_compare(b, c, " = ", &key->v[i], e) < 0)
            return -1;
        buf_adds(b, " AND ");
    }
    for (size_t i = 1; i < t->nkey; i++)
        buf_adds(b, "))");
    buf_addc(b, ')');
    return 0;
}

int my_add_range(struct buf *b, const struct table *t, const struct range *range, struct err *e)
{
    switch (range->kind) {
    case RANGE_ALL:
        return 0;
    case RANGE_BLOCKS:
        return err_set(e, ERR_BUG, "%s: this engine has no ranges of blocks", table_label(t));
    case RANGE_POINT:
        buf_adds(b, " WHERE ");
        return my_add_key_equal(b, t, range->lower, e);
    case RANGE_KEY:
        if (range->lower) {
            buf_adds(b, " WHERE ");
            if (add_bound(b, t, true, range->lower, e) < 0)
                return -1;
        }
        if (range->upper) {
            buf_adds(b, range->lower ? " AND " : " WHERE ");
            return add_bound(b, t, false, range->upper, e);
        }
        return 0;
    }
    return err_set(e, ERR_BUG, "%s: a range of no kind", table_label(t));
}

bool my_key_divides(const struct table *t)
{
    for (size_t i = 0; i < t->nkey; i++) {
        switch (t->columns[t->key[i]].kind) {
        case TYPE_ENUM:
        case TYPE_FLOAT32:
        case TYPE_FLOAT64:
        case TYPE_JSON:
        case TYPE_OTHER:
            return false;
        default:
            break;
        }
    }
    return t->nkey > 0;
}
