/* Catalog and schema steps. A step's SQL is "<what> <table>"; a repeated one fails, as it would on
 * a server, and a concurrent index that was cut off stays behind invalid. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

static struct table *catalog_entry(const struct source_table *s, struct arena *a)
{
    struct table *t = table_copy(a, s->def);

    t->filenode = s->filenode;
    return t;
}

int scripted_tables(struct db *db, const struct selection *s, struct arena *a,
                    struct table_list *out, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    out->n = 0;
    out->v = arena_alloc(a, TABLES * sizeof(struct table *));
    for (size_t i = 0; i < TABLES; i++) {
        struct table *t = catalog_entry(&c->w->source[i], a);
        size_t at = out->n++;

        if (c->side == SIDE_TARGET && !c->w->target[i].created.was) {
            out->n--;
            continue;
        }
        for (; at > 0 && strcmp(table_label(out->v[at - 1]), table_label(t)) > 0; at--)
            out->v[at] = out->v[at - 1];
        out->v[at] = t;
    }
    return 0;
}

int scripted_check(struct db *db, const struct check_request *r, struct arena *a,
                   struct findings *out, struct err *e)
{
    return conn_enter(conn_of(db), e);
}

struct step_kind {
    enum schema_phase phase;
    const char *verb;
    bool online;
};
static const struct step_kind kinds[] = {
    {SCHEMA_PRE, "create", false},
    {SCHEMA_KEY, "key", false},
    {SCHEMA_INDEX, "index", true},
    {SCHEMA_UNIQUE, "unique", false},
};

static bool wanted(const struct source_table *t, const struct step_kind *kind)
{
    if (kind->phase == SCHEMA_KEY)
        return t->def->nkey > 0;
    return kind->phase != SCHEMA_UNIQUE || t->unique != NO_COLUMN;
}

int scripted_schema_steps(const struct schema_request *r, struct arena *a, struct schema_steps *out,
                          struct err *e)
{
    struct conn *c = conn_of(r->source);
    struct scripted_world *w = c->w;

    if (conn_enter(c, e) < 0)
        return -1;
    out->n = 0;
    out->v = arena_zalloc(a, TABLES * 4 * sizeof(*out->v));
    for (size_t k = 0; k < 4; k++) {
        for (size_t i = 0; i < TABLES; i++) {
            const char *label = table_label(w->source[i].def);
            struct schema_step *s = &out->v[out->n];

            if (!wanted(&w->source[i], &kinds[k]))
                continue;
            out->n++;
            s->phase = kinds[k].phase;
            s->name = arena_printf(a, "%s %s", kinds[k].verb, label);
            s->table = kinds[k].phase == SCHEMA_KEY ? arena_strdup(a, label) : NULL;
            s->sql = s->name;
            s->undo = kinds[k].online ? arena_printf(a, "drop %s", s->name) : NULL;
            s->online = kinds[k].online;
        }
    }
    return 0;
}

static struct target_table *find_label(struct scripted_world *w, const char *label)
{
    for (size_t i = 0; i < TABLES; i++) {
        if (table_is(w->source[i].def, label))
            return &w->target[i];
    }
    return NULL;
}

static struct flag *flag_of(struct target_table *t, const char *sql)
{
    if (strncmp(sql, "create ", 7) == 0)
        return &t->created;
    if (strncmp(sql, "key ", 4) == 0)
        return &t->keyed;
    if (strncmp(sql, "index ", 6) == 0)
        return &t->indexed;
    return &t->constrained;
}

static size_t key_repeats(const struct target_table *t, struct arena *a)
{
    size_t repeats = 0;

    for (size_t i = 0; i < t->n; i++) {
        for (size_t j = i + 1; t->slots[i]->now && j < t->n; j++) {
            if (t->slots[j]->now && row_equal(table_key_of(a, t->source->def, t->slots[i]->now),
                                              table_key_of(a, t->source->def, t->slots[j]->now)))
                repeats++;
        }
    }
    return repeats;
}

static bool value_repeats(const struct target_table *t)
{
    size_t column = t->source->unique;

    for (size_t i = 0; i < t->n; i++) {
        for (size_t j = i + 1; t->slots[i]->now && j < t->n; j++) {
            const struct value *v = &t->slots[i]->now->v[column];

            if (t->slots[j]->now && v->state == VALUE_SET &&
                value_equal(v, &t->slots[j]->now->v[column]))
                return true;
        }
    }
    return false;
}

/* Building waits for those who write to the table. */
static bool is_written(const struct target_table *t, const struct tx *tx)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->slots[i]->owner && t->slots[i]->owner != tx)
            return true;
    }
    return false;
}

static int build(struct conn *c, struct tx *tx, const char *sql, struct err *e)
{
    struct scripted_world *w = c->w;
    bool drop = strncmp(sql, "drop ", 5) == 0;
    const char *what = drop ? sql + 5 : sql;
    struct target_table *t = find_label(w, strchr(what, ' ') ? strchr(what, ' ') + 1 : what);
    struct flag *flag;
    struct arena a = ARENA_INIT;
    int rc = 0;

    if (!t)
        return err_set(e, ERR_FATAL, "syntax error at or near \"%s\"", sql);
    flag = flag_of(t, what);
    if ((flag->owner && flag->owner != tx) || is_written(t, tx))
        return lock_wait(w, e, "a relation");
    if (drop)
        return flag_set(w, tx, flag, 0, e);
    if (flag->now)
        return err_set(e, ERR_FATAL, "relation already exists: %s", sql);
    if (flag == &t->keyed && key_repeats(t, &a))
        rc = err_set(e, ERR_CONFLICT, "could not create unique index: %s", sql);
    if (flag == &t->constrained && value_repeats(t))
        rc = err_set(e, ERR_CONFLICT, "could not create unique index: %s", sql);
    arena_release(&a);
    return rc < 0 ? -1 : flag_set(w, tx, flag, 1, e);
}

int scripted_schema_run(struct db *db, const char *sql, bool online, struct err *e)
{
    struct conn *c = conn_of(db);
    struct tx *tx;
    bool alone;
    int rc;

    if (conn_enter(c, e) < 0)
        return -1;
    if (online && c->tx)
        return err_set(e, ERR_BUG, "CONCURRENTLY inside a transaction");
    tx = conn_tx(c, &alone);
    rc = build(c, tx, sql, e);
    if (conn_tx_end(c, tx, alone, rc, e) < 0)
        return -1;
    return conn_leave(c, e);
}

int scripted_schema_settle(struct db *db, struct err *e)
{
    struct conn *c = conn_of(db);

    if (conn_enter(c, e) < 0)
        return -1;
    settle_orphans(c->w, true);
    return 0;
}
