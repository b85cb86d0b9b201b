/* Which chunk holds a key, by the source server's own order.
 *
 * One statement: the ranges' lower bounds and the keys are ordered together, and a key's range is
 * the number of bounds at or before it. The empty SELECT from the table gives the columns of the
 * union the table's collations: a wrong collation would be a wrong chunk. A table of many chunks
 * takes two rounds: among every FANOUT-th bound, then among the bounds that are left in question.
 */
#include "engines/mysql/range.h"
#include "engines/mysql/tuples.h"

#include <stdlib.h>
#include <string.h>

#define FANOUT 256

struct search {
    struct my_db *db;
    const struct table *t;
    const struct row *const *keys;
    size_t nkeys;
    const struct row **bounds; /* ascending */
    size_t nbounds;
};

static int add_key(struct buf *b, const struct search *s, size_t number, const struct row *key,
                   struct err *e)
{
    my_tuple_open(b, s->db, number == 0);
    buf_addf(b, "%zu", number);
    for (size_t i = 0; i < s->t->nkey; i++) {
        buf_adds(b, ", ");
        if (my_value_literal(b, &s->t->columns[s->t->key[i]], &key->v[i], e) < 0)
            return -1;
    }
    my_tuple_close(b);
    return 0;
}

static int add_statement(struct buf *b, const struct search *s, struct err *e)
{
    buf_addf(b, "SELECT o, n FROM (SELECT o, COUNT(CASE WHEN o < %zu THEN 1 END) OVER (ORDER BY ",
             s->nbounds);
    for (size_t i = 0; i < s->t->nkey; i++)
        buf_addf(b, "%sc%zu", i ? ", " : "", i);
    buf_adds(b, ") AS n FROM ");
    my_tuples_open(b, s->t, s->t->key, s->t->nkey, true);
    for (size_t i = 0; i < s->nbounds; i++) {
        if (add_key(b, s, i, s->bounds[i], e) < 0)
            return -1;
    }
    for (size_t i = 0; i < s->nkeys; i++) {
        if (add_key(b, s, s->nbounds + i, s->keys[i], e) < 0)
            return -1;
    }
    my_tuples_close(b);
    buf_addf(b, ") AS w WHERE o >= %zu", s->nbounds);
    return buf_check(b, "a batch of keys", e);
}

/* out[i]: how many of the bounds are at or before the key. */
static int count_bounds(const struct search *s, size_t *out, struct err *e)
{
    MYSQL_RES *res = NULL;
    MYSQL_ROW row;
    struct buf sql;
    size_t got = 0;

    if (s->nbounds == 0) {
        memset(out, 0, s->nkeys * sizeof(*out));
        return 0;
    }
    buf_init(&sql, BUF_MAX_TEXT);
    if (add_statement(&sql, s, e) == 0)
        res = my_query(s->db, sql.data, e);
    buf_release(&sql);
    if (!res)
        return -1;
    while ((row = mysql_fetch_row(res))) {
        uint64_t which = (uint64_t)my_int(row[0]) - s->nbounds;
        uint64_t n = (uint64_t)my_int(row[1]);

        if (which < s->nkeys && n <= s->nbounds) {
            out[which] = (size_t)n;
            got++;
        }
    }
    mysql_free_result(res);
    if (got != s->nkeys)
        return err_set(e, ERR_FATAL, "the server located %zu of %zu keys", got, s->nkeys);
    return 0;
}

/* The second round: `out` has how many of every FANOUT-th bound are at or before each key. */
static int refine(struct search *s, const struct range_list *ranges, size_t *out, struct err *e)
{
    size_t groups = ranges->n / FANOUT + 1;
    bool *asked = calloc(groups, sizeof(*asked));
    size_t *number = calloc(ranges->n, sizeof(*number));
    int rc;

    invariant(asked && number);
    for (size_t i = 0; i < s->nkeys; i++)
        asked[out[i]] = true;
    s->nbounds = 0;
    for (size_t i = 1; i < ranges->n; i++) {
        if (!asked[i / FANOUT] && i % FANOUT != 0)
            continue;
        number[s->nbounds] = i;
        s->bounds[s->nbounds++] = ranges->v[i].lower;
    }
    rc = count_bounds(s, out, e);
    for (size_t i = 0; rc == 0 && i < s->nkeys; i++)
        out[i] = out[i] ? number[out[i] - 1] : 0;
    free(number);
    free(asked);
    return rc;
}

int my_locate(struct db *base, const struct table *t, const struct range_list *ranges,
              const struct row *const *keys, size_t n, size_t *out, struct err *e)
{
    struct search s = {.db = my_db_from(base), .t = t, .keys = keys, .nkeys = n};
    int rc;

    invariant(t->nkey > 0 && ranges->n > 0);
    if (n == 0)
        return 0;
    s.bounds = calloc(ranges->n, sizeof(*s.bounds));
    invariant(s.bounds != NULL);
    for (size_t i = FANOUT; i < ranges->n && ranges->n > 2 * FANOUT; i += FANOUT)
        s.bounds[s.nbounds++] = ranges->v[i].lower;
    rc = count_bounds(&s, out, e);
    if (rc == 0)
        rc = refine(&s, ranges, out, e);
    free(s.bounds);
    return rc < 0 ? err_wrap(e, "locating keys of %s", table_label(t)) : 0;
}
