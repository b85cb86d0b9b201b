#include "engines/postgres/apply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void release(void *data)
{
    struct pg_apply *s = data;

    for (size_t i = 0; i < s->nprepared; i++)
        free(s->prepared[i].sql);
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

static struct pg_prepared *find(struct pg_apply *s, const char *sql)
{
    for (size_t i = 0; i < s->nprepared; i++) {
        if (strcmp(s->prepared[i].sql, sql) == 0)
            return &s->prepared[i];
    }
    return NULL;
}

/* Room for one more: a free place, or that of the one unused for longest. */
static struct pg_prepared *make_room(struct pg_db *db, struct pg_apply *s, struct err *e)
{
    struct pg_prepared *oldest = &s->prepared[0];

    if (s->nprepared < PG_PREPARED_MAX)
        return &s->prepared[s->nprepared++];
    for (size_t i = 1; i < s->nprepared; i++) {
        if (s->prepared[i].used < oldest->used)
            oldest = &s->prepared[i];
    }
    if (pg_execf(db, e, "DEALLOCATE lockstep_%u", oldest->number) < 0)
        return NULL;
    free(oldest->sql);
    return oldest;
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

static struct pg_prepared *prepare(struct pg_db *db, struct pg_apply *s, const char *sql,
                                   struct err *e)
{
    struct pg_prepared *p = find(s, sql);
    unsigned number = s->next_number;
    char name[40];
    PGresult *res;

    if (p)
        return p;
    if (want_generic(db, s, e) < 0)
        return NULL;
    snprintf(name, sizeof(name), "lockstep_%u", number);
    if (db->broken || PQsendPrepare(db->conn, name, sql, 0, NULL) != 1) {
        pg_lost(db, "preparing", e);
        return NULL;
    }
    res = pg_flush(db, e) == 0 ? pg_collect(db, e) : NULL;
    if (!res)
        return NULL;
    PQclear(res);
    s->next_number++;
    p = make_room(db, s, e);
    if (!p)
        return NULL;
    *p = (struct pg_prepared){.sql = strdup(sql), .number = number};
    invariant(p->sql != NULL);
    return p;
}

bool pg_apply_is_prepared(struct pg_db *db, const char *sql)
{
    return find(pg_apply_state(db), sql) != NULL;
}

int pg_apply_prepare(struct pg_db *db, const char *sql, struct err *e)
{
    return prepare(db, pg_apply_state(db), sql, e) ? 0 : -1;
}

int pg_apply_send(struct pg_db *db, const char *sql, const struct pg_params *p, bool keep,
                  struct err *e)
{
    struct pg_apply *s = pg_apply_state(db);
    struct pg_prepared *prepared = keep ? find(s, sql) : NULL;
    char name[40];
    int ok;

    invariant(!keep || prepared != NULL);
    if (db->broken)
        return err_set(e, ERR_RETRY, "the connection was given up before");
    if (prepared) {
        prepared->used = ++s->clock;
        snprintf(name, sizeof(name), "lockstep_%u", prepared->number);
        ok = PQsendQueryPrepared(db->conn, name, p->n, p->values, p->lengths, p->formats, 0);
    } else {
        ok = PQsendQueryParams(db->conn, sql, p->n, NULL, p->values, p->lengths, p->formats, 0);
    }
    return ok == 1 ? 0 : pg_lost(db, "sending changes", e);
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
