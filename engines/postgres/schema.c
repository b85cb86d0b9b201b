/* The plan's frame, and running its steps. */
#include "engines/postgres/schema.h"

#include "core/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_MS 60000
#define SETTLE_NAP_MS 100

void schema_step_add(struct schema_plan *p, struct schema_step step)
{
    if (p->out->n == p->cap) {
        size_t cap = p->cap * 2 + 32;
        struct schema_step *v = arena_alloc(p->arena, cap * sizeof *v);

        if (p->out->n > 0)
            memcpy(v, p->out->v, p->out->n * sizeof *v);
        p->out->v = v;
        p->cap = cap;
    }
    p->out->v[p->out->n++] = step;
}

void schema_object_add(struct schema_plan *p, struct schema_objects *set, uint32_t classid,
                       uint32_t objid)
{
    if (set->n == set->cap) {
        size_t cap = set->cap * 2 + 64;
        struct schema_object *v = arena_alloc(p->arena, cap * sizeof *v);

        if (set->n > 0)
            memcpy(v, set->v, set->n * sizeof *v);
        set->v = v;
        set->cap = cap;
    }
    set->v[set->n++] = (struct schema_object){classid, objid};
}

static int object_cmp(const void *x, const void *y)
{
    const struct schema_object *a = x;
    const struct schema_object *b = y;

    if (a->classid != b->classid)
        return a->classid < b->classid ? -1 : 1;
    return a->objid < b->objid ? -1 : a->objid > b->objid;
}

void schema_objects_seal(struct schema_objects *set)
{
    if (set->n > 1)
        qsort(set->v, set->n, sizeof *set->v, object_cmp);
}

bool schema_object_in(const struct schema_objects *set, uint32_t classid, uint32_t objid)
{
    struct schema_object key = {classid, objid};

    return set->n > 0 && bsearch(&key, set->v, set->n, sizeof key, object_cmp) != NULL;
}

static int target_asks(struct schema_plan *p, const char *sql, int n, const char *const *values,
                       struct err *e)
{
    if (p->target == NULL)
        return 0;
    PGresult *res = pg_query(p->target, sql, n, values, e);
    if (res == NULL)
        return err_wrap(e, "reading the target's catalog");
    int there = PQntuples(res) > 0;
    PQclear(res);
    return there;
}

int schema_target_index(struct schema_plan *p, const char *schema, const char *name, struct err *e)
{
    const char *values[] = {schema, name};

    return target_asks(p,
                       "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                       " JOIN pg_index i ON i.indexrelid = c.oid"
                       " WHERE n.nspname = $1 AND c.relname = $2 AND i.indisvalid",
                       2, values, e);
}

int schema_target_constraint(struct schema_plan *p, const char *schema, const char *table,
                             const char *name, struct err *e)
{
    const char *values[] = {schema, table, name};

    return target_asks(p,
                       "SELECT FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid"
                       " JOIN pg_namespace n ON n.oid = c.relnamespace"
                       " WHERE n.nspname = $1 AND c.relname = $2 AND k.conname = $3",
                       3, values, e);
}

/* ---- what is chosen ---- */

/* "shop.*": with it everything in the schema comes along. */
static bool schema_whole(const struct selection *s, const char *schema)
{
    if (s == NULL || s->ninclude == 0)
        return true;
    for (size_t i = 0; i < s->ninclude; i++) {
        const char *dot = strchr(s->include[i], '.');
        struct selection one = {.include = &s->include[i], .ninclude = 1};

        /* A name that no pattern but "*" would match stands for "any". */
        if (dot != NULL && strcmp(dot + 1, "*") == 0 && pg_selected(&one, schema, "\x01"))
            return true;
    }
    return false;
}

static int whole_schemas(struct schema_plan *p, struct err *e)
{
    const struct selection *s = p->request->selection;
    PGresult *res = pg_query(p->source,
                             "SELECT oid::text, nspname FROM pg_namespace WHERE nspname !~ '^pg_'"
                             " AND nspname NOT IN ('information_schema', 'lockstep')",
                             0, NULL, e);
    struct buf b;

    if (res == NULL)
        return -1;
    buf_init(&b, BUF_MAX_TEXT);
    buf_addc(&b, '{');
    for (int i = 0; i < PQntuples(res); i++) {
        struct selection excluded = {
            .include = s != NULL ? s->exclude : NULL,
            .ninclude = s != NULL ? s->nexclude : 0,
        };
        const char *schema = PQgetvalue(res, i, 1);

        if (!schema_whole(s, schema) || (excluded.ninclude > 0 && schema_whole(&excluded, schema)))
            continue;
        buf_addf(&b, "%s%s", b.len > 1 ? "," : "", PQgetvalue(res, i, 0));
    }
    buf_addc(&b, '}');
    PQclear(res);
    p->schemas_oids = arena_strdup(p->arena, b.data);
    buf_release(&b);
    p->everything = s == NULL || s->ninclude == 0;
    return 0;
}

static int chosen_oids(struct schema_plan *p, struct err *e)
{
    const struct table_list *list = p->request->tables;
    struct buf b;

    buf_init(&b, BUF_MAX_TEXT);
    buf_addc(&b, '{');
    for (size_t i = 0; i < list->n; i++)
        buf_addf(&b, "%s%u", i > 0 ? "," : "", list->v[i]->id);
    buf_addc(&b, '}');
    int rc = buf_check(&b, "list of tables", e);
    if (rc == 0)
        p->tables_oids = arena_strdup(p->arena, b.data);
    buf_release(&b);
    return rc;
}

int schema_carried(struct schema_plan *p, struct err *e)
{
    return chosen_oids(p, e) == 0 && whole_schemas(p, e) == 0 && schema_closure(p, e) == 0 ? 0 : -1;
}

/* ---- the plan ---- */

static int step_cmp(const void *x, const void *y)
{
    const struct schema_step *a = x;
    const struct schema_step *b = y;

    if (a->phase != b->phase)
        return a->phase < b->phase ? -1 : 1;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* One transaction on the source, so that all queries speak of the dump's state. */
static int plan_begin(struct schema_plan *p, struct err *e)
{
    struct buf b;

    if (pg_exec(p->source, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", e) != 0)
        return -1;
    if (p->request->snapshot == NULL)
        return 0;
    buf_init(&b, 1000);
    buf_adds(&b, "SET TRANSACTION SNAPSHOT ");
    pg_literal(&b, p->request->snapshot);
    int rc = buf_check(&b, "snapshot name", e) == 0 ? pg_exec(p->source, b.data, e) : -1;
    buf_release(&b);
    return rc;
}

int pg_schema_steps(const struct schema_request *r, struct arena *a, struct schema_steps *out,
                    struct err *e)
{
    struct schema_plan p = {
        .request = r,
        .source = pg_db_from(r->source),
        .target = r->target != NULL ? pg_db_from(r->target) : NULL,
        .arena = a,
        .out = out,
    };
    int rc = -1;

    *out = (struct schema_steps){0};
    if (pg_in_transaction(p.source))
        return err_set(e, ERR_BUG, "schema plan inside of a transaction");
    if (plan_begin(&p, e) == 0 && chosen_oids(&p, e) == 0 && whole_schemas(&p, e) == 0 &&
        schema_indexes(&p, e) == 0 && schema_foreign(&p, e) == 0 && schema_closure(&p, e) == 0 &&
        schema_dump(&p, e) == 0 && schema_analyze(&p, e) == 0)
        rc = 0;
    if (!p.source->broken && pg_rollback(r->source, rc == 0 ? e : NULL) != 0)
        rc = -1;
    if (rc != 0)
        return err_wrap(e, "planning the target's schema");
    if (out->n > 1)
        qsort(out->v, out->n, sizeof *out->v, step_cmp);
    return 0;
}

/* ---- running ---- */

/* Builds and validations take as long as the table is large, without a byte on the wire: no
 * deadline of ours then, only stop requests and dead peers. An online step waits for old
 * transactions inside of the server, which lock_timeout would end; a step in a transaction keeps
 * its short one, and the caller tries again. */
int pg_schema_run(struct db *base, const char *sql, bool online, struct err *e)
{
    struct pg_db *db = pg_db_from(base);
    int timeout_ms = db->timeout_ms;

    if (online && pg_in_transaction(db))
        return err_set(e, ERR_BUG, "an online schema step inside of a transaction");
    if (online && pg_exec(db, "SET lock_timeout = 0", e) != 0)
        return -1;
    db->timeout_ms = PG_FOREVER;
    int rc = pg_exec(db, sql, e);
    db->timeout_ms = timeout_ms;
    if (online && !db->broken && pg_exec(db, "SET lock_timeout = '5s'", rc == 0 ? e : NULL) != 0)
        rc = -1;
    return rc;
}

int pg_schema_settle(struct db *base, struct err *e)
{
    static const char sql[] = "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a"
                              " WHERE a.application_name = $1 AND a.usename = session_user"
                              " AND a.datname = current_database() AND a.pid <> pg_backend_pid()";
    struct pg_db *db = pg_db_from(base);
    int64_t deadline = mono_ms() + SETTLE_MS;
    char name[PG_NAME_MAX * 2];
    const char *value = name;

    snprintf(name, sizeof name, "lockstep:%s:schema", db->migration);
    for (;;) {
        PGresult *res = pg_query(db, sql, 1, &value, e);

        if (res == NULL)
            return err_wrap(e, "ending leftover schema sessions");
        int left = PQntuples(res);
        int64_t pid = left > 0 ? pg_int(res, 0, 0) : 0;
        PQclear(res);
        if (left == 0)
            return 0;
        if (stop_check(e) != 0)
            return -1;
        if (mono_ms() >= deadline)
            return err_set(e, ERR_RETRY,
                           "%d leftover schema session(s) of this migration do not end (pid %lld)",
                           left, (long long)pid);
        nap_ms(SETTLE_NAP_MS);
    }
}
