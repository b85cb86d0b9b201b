/* Sequences, which the log does not carry, and markers, which are nothing but log. */
#include "engines/postgres/pg.h"

#include <stdio.h>
#include <string.h>

#define VALUES_BATCH 200

/* A message outside of transactions is in the log at once, but on disk (and so on the wire) only
 * with the next flush, up to wal_writer_delay later. A transaction id makes this statement's commit
 * write a record and flush up to it. Synchronous whatever the session says: the marker counts. */
int pg_mark(struct db *base, const char *token, struct err *e)
{
    const char *values[1] = {token};
    PGresult *res = pg_query(pg_db_from(base),
                             "SELECT set_config('synchronous_commit', 'on', true),"
                             " pg_logical_emit_message(false, 'lockstep', $1), txid_current()",
                             1, values, e);

    if (res == NULL)
        return err_wrap(e, "writing a marker");
    PQclear(res);
    return 0;
}

/* Every sequence with each table that owns it or uses it in a default, and the tables above and
 * below that one, since a selection may name either. tbl and col: the column that it feeds, by
 * ownership, else because its default alone uses the sequence. */
static const char sql_sequences[] =
    "SELECT n.nspname, c.relname, s.seqincrement, tn.nspname, t.relname, f.tbl, f.col, s.seqmin,"
    " s.seqmax, s.seqcache, s.seqcycle"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " JOIN pg_sequence s ON s.seqrelid = c.oid"
    " LEFT JOIN LATERAL (SELECT fn.nspname || '.' || fc.relname AS tbl, fa.attname AS col"
    "  FROM (SELECT d.refobjid AS rel, d.refobjsubid AS num, 1 AS rank, 1 AS users"
    "    FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid"
    "    AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0"
    "   UNION ALL SELECT ad.adrelid, ad.adnum, 2, count(*) OVER ()"
    "    FROM pg_depend d JOIN pg_attrdef ad ON ad.oid = d.objid"
    "    JOIN pg_class u ON u.oid = ad.adrelid AND NOT u.relispartition"
    "    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass"
    "    AND d.refobjid = c.oid) x"
    "  JOIN pg_class fc ON fc.oid = x.rel JOIN pg_namespace fn ON fn.oid = fc.relnamespace"
    "  JOIN pg_attribute fa ON fa.attrelid = x.rel AND fa.attnum = x.num"
    "  WHERE x.users = 1 ORDER BY x.rank LIMIT 1) f ON true"
    " LEFT JOIN LATERAL ("
    "  SELECT k.rel FROM ("
    "   SELECT d.refobjid AS base FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
    "    AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')"
    "   UNION SELECT ad.adrelid FROM pg_depend d JOIN pg_attrdef ad ON ad.oid = d.objid"
    "    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass"
    "    AND d.refobjid = c.oid) b"
    "  CROSS JOIN LATERAL (SELECT b.base AS rel"
    "   UNION SELECT relid FROM pg_partition_tree(b.base)"
    "   UNION SELECT relid FROM pg_partition_ancestors(b.base)) k) u ON true"
    " LEFT JOIN pg_class t ON t.oid = u.rel LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace"
    " WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'lockstep'"
    " AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'"
    " ORDER BY 1, 2";

/* Is the schema chosen as a whole, and the sequence not excluded? */
static bool whole_schema(const struct selection *s, const char *schema, const char *name)
{
    if (s->ninclude == 0)
        return pg_selected(s, schema, name);
    for (size_t i = 0; i < s->ninclude; i++) {
        const struct selection one = {&s->include[i], 1, s->exclude, s->nexclude};
        const char *dot = strrchr(s->include[i], '.');

        if (dot != NULL && strcmp(dot, ".*") == 0 && pg_selected(&one, schema, name))
            return true;
    }
    return false;
}

static bool row_selected(const struct selection *s, const PGresult *res, int i)
{
    const char *table = pg_text(res, i, 4);

    if (table != NULL)
        return pg_selected(s, PQgetvalue(res, i, 3), table);
    return whole_schema(s, PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
}

/* Rows come sorted by name, so that a sequence that was taken is the last one in the list. */
static bool already_last(const struct sequence_list *l, const char *schema, const char *name)
{
    const struct sequence_value *v = l->n > 0 ? &l->v[l->n - 1] : NULL;

    return v != NULL && strcmp(v->schema, schema) == 0 && strcmp(v->name, name) == 0;
}

static int list_sequences(struct pg_db *db, const struct selection *s, struct arena *a,
                          struct sequence_list *out, struct err *e)
{
    PGresult *res = pg_query(db, sql_sequences, 0, NULL, e);

    if (res == NULL)
        return -1;
    out->n = 0;
    out->v = arena_zalloc(a, sizeof *out->v * ((size_t)PQntuples(res) + 1));
    for (int i = 0; i < PQntuples(res); i++) {
        const char *schema = PQgetvalue(res, i, 0);
        const char *name = PQgetvalue(res, i, 1);

        if (!row_selected(s, res, i) || already_last(out, schema, name))
            continue;
        struct sequence_value *v = &out->v[out->n++];
        v->schema = arena_strdup(a, schema);
        v->name = arena_strdup(a, name);
        v->increment = pg_int(res, i, 2);
        v->table = pg_text(res, i, 5) ? arena_strdup(a, pg_text(res, i, 5)) : NULL;
        v->column = pg_text(res, i, 6) ? arena_strdup(a, pg_text(res, i, 6)) : NULL;
        v->min = pg_int(res, i, 7);
        v->max = pg_int(res, i, 8);
        v->cache = pg_int(res, i, 9);
        v->cycle = pg_bool(res, i, 10);
    }
    PQclear(res);
    return 0;
}

/* The view pg_sequences hides the value of a sequence that was never called; the sequence's own row
 * does not. */
static int read_values(struct pg_db *db, struct sequence_value *v, size_t n, struct err *e)
{
    struct buf sql;
    int rc = -1;

    buf_init(&sql, BUF_MAX_TEXT);
    for (size_t i = 0; i < n; i++) {
        buf_addf(&sql, "%sSELECT %zu, last_value, is_called FROM ", i > 0 ? " UNION ALL " : "", i);
        pg_ident2(&sql, v[i].schema, v[i].name);
    }
    PGresult *res = NULL;
    if (buf_check(&sql, "sequences", e) != 0)
        goto out;
    res = pg_query(db, sql.data, 0, NULL, e);
    if (res == NULL)
        goto out;
    for (int i = 0; i < PQntuples(res); i++) {
        size_t at = (size_t)pg_int(res, i, 0);

        v[at].last_value = pg_int(res, i, 1);
        v[at].called = pg_bool(res, i, 2);
    }
    rc = 0;
out:
    PQclear(res);
    buf_release(&sql);
    return rc;
}

int pg_sequences(struct db *base, const struct selection *s, struct arena *a,
                 struct sequence_list *out, struct err *e)
{
    struct pg_db *db = pg_db_from(base);

    if (list_sequences(db, s, a, out, e) != 0)
        return err_wrap(e, "listing sequences");
    for (size_t i = 0; i < out->n; i += VALUES_BATCH) {
        size_t n = out->n - i < VALUES_BATCH ? out->n - i : VALUES_BATCH;

        if (read_values(db, &out->v[i], n, e) != 0)
            return err_wrap(e, "reading sequences");
    }
    return 0;
}

int pg_sequence_set(struct db *base, const struct sequence_value *v, struct err *e)
{
    char last[24];
    const char *values[4] = {v->schema, v->name, last, v->called ? "t" : "f"};

    snprintf(last, sizeof last, "%lld", (long long)v->last_value);
    PGresult *res = pg_query(pg_db_from(base),
                             "SELECT setval(format('%I.%I', $1::text, $2::text)::regclass,"
                             " $3::bigint, $4::bool)",
                             4, values, e);
    if (res == NULL)
        return err_wrap(e, "sequence %s.%s", v->schema, v->name);
    PQclear(res);
    return 0;
}
