/* Which chunk holds a key, by the source server's own order.
 *
 * One statement: the ranges' lower bounds and the keys are ordered together, and a key's range is
 * the number of bounds at or before it. The empty SELECT from the table gives the columns of the
 * union the table's collations: a wrong collation would be a wrong chunk. */
#include "engines/postgres/pg.h"
#include "engines/postgres/values.h"

#include <stdlib.h>

static void add_names(struct buf *sql, const struct table *t)
{
    for (size_t i = 0; i < t->nkey; i++)
        buf_addf(sql, "%sk%zu", i ? ", " : "", i);
}

static void add_statement(struct buf *sql, const struct table *t, size_t bounds)
{
    buf_addf(sql,
             "SELECT o - %zu, n FROM (SELECT o, count(*) FILTER (WHERE o <= %zu) OVER (ORDER BY ",
             bounds, bounds);
    add_names(sql, t);
    buf_adds(sql, ") AS n FROM (SELECT 0::int8 AS o");
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(sql, ", ");
        pg_ident(sql, t->columns[t->key[i]].name);
        buf_addf(sql, " AS k%zu", i);
    }
    buf_adds(sql, " FROM ONLY ");
    pg_ident2(sql, t->schema, t->name);
    buf_adds(sql, " WHERE false UNION ALL SELECT u.o");
    for (size_t i = 0; i < t->nkey; i++) {
        buf_adds(sql, ", ");
        pg_array_item(sql, &t->columns[t->key[i]], "u", i);
    }
    buf_adds(sql, " FROM unnest(");
    for (size_t i = 0; i < t->nkey; i++) {
        buf_addf(sql, "%s$%zu::", i ? ", " : "", i + 1);
        pg_array_type(sql, &t->columns[t->key[i]]);
    }
    buf_adds(sql, ") WITH ORDINALITY AS u(");
    for (size_t i = 0; i < t->nkey; i++)
        buf_addf(sql, "c%zu, ", i);
    buf_addf(sql, "o)) b) w WHERE o > %zu", bounds);
}

/* The bounds first, then the keys. */
static void add_values(struct buf *array, const struct table *t, const struct range_list *ranges,
                       const struct row *const *keys, size_t n, size_t column)
{
    const struct column *c = &t->columns[t->key[column]];

    pg_array_open(array);
    for (size_t i = 1; i < ranges->n; i++)
        pg_array_add(array, c, &ranges->v[i].lower->v[column]);
    for (size_t i = 0; i < n; i++)
        pg_array_add(array, c, &keys[i]->v[column]);
    pg_array_close(array);
}

static int take_answers(const PGresult *res, size_t n, size_t nranges, size_t *out, struct err *e)
{
    if ((size_t)PQntuples(res) != n)
        return err_set(e, ERR_FATAL, "the server located %d of %zu keys", PQntuples(res), n);
    for (int i = 0; i < PQntuples(res); i++) {
        int64_t which = pg_int(res, i, 0);
        int64_t range = pg_int(res, i, 1);

        if (which < 1 || (size_t)which > n || range < 0 || (size_t)range >= nranges)
            return err_set(e, ERR_FATAL, "the server located a key outside of all chunks");
        out[which - 1] = (size_t)range;
    }
    return 0;
}

int pg_locate(struct db *base, const struct table *t, const struct range_list *ranges,
              const struct row *const *keys, size_t n, size_t *out, struct err *e)
{
    const char **values = calloc(t->nkey, sizeof(*values));
    struct buf *arrays = calloc(t->nkey, sizeof(*arrays));
    PGresult *res = NULL;
    struct buf sql;
    int rc = -1;

    invariant(values && arrays && t->nkey > 0 && ranges->n > 0);
    buf_init(&sql, BUF_MAX_TEXT);
    add_statement(&sql, t, ranges->n - 1);
    for (size_t i = 0; i < t->nkey; i++) {
        buf_init(&arrays[i], BUF_MAX_TEXT);
        add_values(&arrays[i], t, ranges, keys, n, i);
        if (buf_check(&arrays[i], "a batch of keys", e) < 0)
            goto out;
        values[i] = arrays[i].data;
    }
    res = pg_query(pg_db_from(base), sql.data, (int)t->nkey, values, e);
    if (res)
        rc = take_answers(res, n, ranges->n, out, e);
out:
    if (rc < 0)
        err_wrap(e, "locating keys of %s", table_label(t));
    PQclear(res);
    for (size_t i = 0; i < t->nkey; i++)
        buf_release(&arrays[i]);
    buf_release(&sql);
    free(arrays);
    free(values);
    return rc;
}
