#include "engines/postgres/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void release(void *data)
{
    struct pg_apply *s = data;

    for (size_t i = 0; i < s->narrays; i++)
        buf_release(&s->arrays[i]);
    free(s->arrays);
    buf_release(&s->sql);
    free(s);
}

struct pg_apply *pg_apply_state(struct pg_db *db)
{
    struct pg_apply *s = db->apply.data;

    if (s)
        return s;
    s = calloc(1, sizeof(*s));
    invariant(s != NULL);
    buf_init(&s->sql, BUF_MAX_TEXT);
    db->apply = (struct pg_slot){.data = s, .release = release};
    return s;
}

/* A plan for any number of keys: by the key's index. The planner would otherwise plan each batch
 * anew, and read whole tables for large ones. */
static int want_generic(struct pg_db *db, struct pg_apply *s, struct err *e)
{
    if (s->generic || db->version < 120000)
        return 0;
    if (pg_exec(db, "SET plan_cache_mode = force_generic_plan", e) < 0)
        return -1;
    s->generic = true;
    return 0;
}

int pg_apply_prepare(struct pg_db *db, const char *sql, struct err *e)
{
    if (pg_is_prepared(db, sql))
        return 0;
    return want_generic(db, pg_apply_state(db), e) < 0 ? -1 : pg_prepare(db, sql, e);
}

int pg_apply_send(struct pg_db *db, const char *sql, const struct pg_params *p, bool keep,
                  struct err *e)
{
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was given up before");
    if (keep)
        return pg_send_prepared(db, sql, p, e);
    if (PQsendQueryParams(db->conn, sql, p->n, NULL, p->values, p->lengths, p->formats, 0) != 1)
        return pg_lost(db, "sending changes", e);
    return 0;
}

PGresult *pg_apply_exec(struct pg_db *db, const char *sql, const struct pg_params *p, bool keep,
                        struct err *e)
{
    if (keep && pg_apply_prepare(db, sql, e) < 0)
        return NULL;
    if (pg_apply_send(db, sql, p, keep, e) < 0 || pg_flush(db, e) < 0)
        return NULL;
    return pg_collect(db, e);
}

uint64_t pg_apply_count(const PGresult *res)
{
    const char *text = PQresultStatus(res) == PGRES_TUPLES_OK && PQnfields(res) == 1
                           ? pg_text(res, 0, 0)
                           : PQcmdTuples((PGresult *)(uintptr_t)res);

    return text ? strtoull(text, NULL, 10) : 0;
}
