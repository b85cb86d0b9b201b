/* What of the log needs the catalog beside it; the questions of the stream (stream_ask.h). */
#include "engines/postgres/stream_ask.h"

#include "core/run.h"

#include <inttypes.h>
#include <stdio.h>

/* How long a transaction that the log has may stay invisible to others, and how often that is
 * asked. */
#define VISIBLE_MS 10000
#define VISIBLE_NAP_MS 10

int ask_type_names(struct pg_db *db, const struct pgo_relation *r, struct arena *a,
                   const char **names, struct err *e)
{
    struct buf types;
    struct buf typmods;
    PGresult *res = NULL;
    int rc = -1;

    buf_init(&types, BUF_MAX_TEXT);
    buf_init(&typmods, BUF_MAX_TEXT);
    for (size_t i = 0; i < r->n; i++) {
        buf_addf(&types, "%c%" PRIu32, i ? ',' : '{', r->columns[i].type);
        buf_addf(&typmods, "%c%" PRId32, i ? ',' : '{', r->columns[i].typmod);
    }
    buf_adds(&types, r->n ? "}" : "{}");
    buf_adds(&typmods, r->n ? "}" : "{}");
    if (buf_check(&types, "a relation's types", e) == 0 &&
        buf_check(&typmods, "a relation's types", e) == 0) {
        const char *values[] = {types.data, typmods.data};

        res = pg_query(db,
                       "SELECT format_type(t, m) FROM unnest($1::oid[], $2::int4[])"
                       " WITH ORDINALITY u(t, m, o) ORDER BY o",
                       2, values, e);
    }
    if (res && (size_t)PQntuples(res) == r->n) {
        for (size_t i = 0; i < r->n; i++)
            names[i] = arena_strdup(a, PQgetvalue(res, (int)i, 0));
        rc = 0;
    } else if (res) {
        err_set(e, ERR_FATAL, "the server does not know the types of %s.%s", r->schema, r->name);
    }
    PQclear(res);
    buf_release(&types);
    buf_release(&typmods);
    return rc;
}

static int is_visible(struct pg_db *db, uint64_t xid, bool *out, struct err *e)
{
    char text[24];
    const char *values[] = {text};
    PGresult *res;

    snprintf(text, sizeof(text), "%" PRIu64, xid);
    res = pg_query(db, "SELECT pg_visible_in_snapshot($1::xid8, pg_current_snapshot())", 1, values,
                   e);
    if (!res)
        return -1;
    *out = pg_bool(res, 0, 0);
    PQclear(res);
    return 0;
}

int ask_rewritten(struct pg_db *db, uint64_t xid, const struct table *planned, struct arena *a,
                  const char **reason, bool *final, struct err *e)
{
    struct table_list one;

    *reason = NULL;
    if (is_visible(db, xid, final, e) < 0 || pg_table_columns(db, planned->id, a, &one, e) < 0)
        return -1;
    if (one.n)
        *reason = table_rewritten(planned, one.v[0], a);
    return 0;
}

int ask_root(struct pg_db *db, uint64_t xid, uint32_t id, struct arena *a, const char **out,
             struct err *e)
{
    int64_t deadline = mono_ms() + VISIBLE_MS;
    char oid_text[16];
    char xid_text[24];
    const char *values[] = {oid_text, xid_text};

    snprintf(oid_text, sizeof(oid_text), "%" PRIu32, id);
    snprintf(xid_text, sizeof(xid_text), "%" PRIu64, xid);
    *out = NULL;
    for (;;) {
        bool visible;
        PGresult *res = pg_query(
            db,
            "WITH RECURSIVE up(oid) AS (SELECT $1::oid UNION ALL"
            " SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.oid)"
            " SELECT pg_visible_in_snapshot($2::xid8, pg_current_snapshot()), (SELECT n.nspname"
            " || '.' || c.relname FROM up JOIN pg_class c ON c.oid = up.oid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'p' AND NOT c.relispartition)",
            2, values, e);

        if (!res)
            return -1;
        visible = pg_bool(res, 0, 0);
        if (!PQgetisnull(res, 0, 1))
            *out = arena_strdup(a, PQgetvalue(res, 0, 1));
        PQclear(res);
        if (*out || visible)
            return 0;
        if (mono_ms() > deadline)
            break;
        if (stop_check(e) < 0)
            return -1;
        nap_ms(VISIBLE_NAP_MS);
    }
    err_set(e, ERR_RETRY,
            "transaction %s is in the log and not yet visible, so that it is not known "
            "whether a table that it writes to is a new partition",
            xid_text);
    return err_hint(e, "it may wait for a synchronous standby (synchronous_standby_names)");
}
