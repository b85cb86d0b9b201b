/* Statements that a connection says again and again are prepared: to plan one takes the server
 * longer than to run it, and a switch says its own while nobody may write.
 *
 * The server plans anew by itself when a catalog changes. Only a result of other types it refuses
 * (0A000, "cached plan must not change result type"); then the statement is to be forgotten. */
#include "engines/postgres/prepared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct prepared {
    char *sql;
    unsigned number; /* its name is "lockstep_<number>" */
    uint64_t used;
};

struct statements {
    struct prepared v[PG_PREPARED_MAX];
    size_t n;
    uint64_t clock;
    unsigned next_number;
    uint64_t said[PG_PREPARED_MAX]; /* hashes of texts; only whether to prepare hangs on them */
    size_t nsaid;
};

static void release(void *data)
{
    struct statements *s = data;

    for (size_t i = 0; i < s->n; i++)
        free(s->v[i].sql);
    free(s);
}

static struct statements *state_of(struct pg_db *db)
{
    struct statements *s = db->statements.data;

    if (s != NULL)
        return s;
    s = calloc(1, sizeof *s);
    invariant(s != NULL);
    db->statements = (struct pg_slot){.data = s, .release = release};
    return s;
}

static struct prepared *find(struct statements *s, const char *sql)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i].sql, sql) == 0)
            return &s->v[i];
    return NULL;
}

/* Room for one more: a free place, or that of the one unused for longest. */
static struct prepared *make_room(struct pg_db *db, struct statements *s, struct err *e)
{
    struct prepared *oldest = &s->v[0];

    if (s->n < PG_PREPARED_MAX)
        return &s->v[s->n++];
    for (size_t i = 1; i < s->n; i++)
        if (s->v[i].used < oldest->used)
            oldest = &s->v[i];
    if (pg_execf(db, e, "DEALLOCATE lockstep_%u", oldest->number) < 0)
        return NULL;
    free(oldest->sql);
    return oldest;
}

bool pg_is_prepared(struct pg_db *db, const char *sql)
{
    return find(state_of(db), sql) != NULL;
}

int pg_prepare(struct pg_db *db, const char *sql, struct err *e)
{
    struct statements *s = state_of(db);
    unsigned number;
    char name[40];

    if (find(s, sql) != NULL)
        return 0;
    number = s->next_number++; /* also if it fails: the server may have taken it */
    snprintf(name, sizeof name, "lockstep_%u", number);
    if (db->broken || PQsendPrepare(db->conn, name, sql, 0, NULL) != 1)
        return pg_lost(db, "preparing", e);
    PGresult *res = pg_flush(db, e) == 0 ? pg_collect(db, e) : NULL;
    if (res == NULL)
        return -1;
    PQclear(res);
    struct prepared *p = make_room(db, s, e);
    if (p == NULL)
        return -1;
    *p = (struct prepared){.sql = strdup(sql), .number = number, .used = ++s->clock};
    invariant(p->sql != NULL);
    return 0;
}

int pg_send_prepared(struct pg_db *db, const char *sql, const struct pg_params *p, struct err *e)
{
    struct statements *s = state_of(db);
    struct prepared *prepared = find(s, sql);
    char name[40];

    invariant(prepared != NULL);
    prepared->used = ++s->clock;
    snprintf(name, sizeof name, "lockstep_%u", prepared->number);
    if (PQsendQueryPrepared(db->conn, name, p->n, p->values, p->lengths, p->formats,
                            p->result_format) != 1)
        return pg_lost(db, "sending", e);
    return 0;
}

/* Was it among the last that this was asked about? Now it is. */
static bool was_said(struct statements *s, const char *sql)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (const char *p = sql; *p != '\0'; p++)
        hash = (hash ^ (unsigned char)*p) * UINT64_C(1099511628211);
    for (size_t i = 0; i < PG_PREPARED_MAX; i++)
        if (s->said[i] == hash)
            return true;
    s->said[s->nsaid++ % PG_PREPARED_MAX] = hash;
    return false;
}

bool pg_may_prepare(struct pg_db *db, const char *sql)
{
    struct statements *s = state_of(db);

    return find(s, sql) != NULL || (was_said(s, sql) && s->n < PG_PREPARED_MAX);
}

/* Its name is not used again. */
void pg_prepared_forget(struct pg_db *db, const char *sql)
{
    struct statements *s = state_of(db);
    struct prepared *p = find(s, sql);

    if (p == NULL)
        return;
    free(p->sql);
    *p = s->v[--s->n];
}
