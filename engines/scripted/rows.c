/* Rows of the target: chunks loaded, changes applied as sets or one by one. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

/* ---- finding ---- */

static bool is_at(const struct table *def, const struct row *row, const struct row *key)
{
    if (!row)
        return false;
    if (def->nkey == 0)
        return row_equal(row, key);
    for (size_t i = 0; i < def->nkey; i++) {
        if (!value_equal(&row->v[def->key[i]], &key->v[i]))
            return false;
    }
    return true;
}

struct found {
    size_t n;
    struct slot *first;
    bool locked; /* another open transaction has, or had, a row there */
};

static struct found find(const struct target_table *t, const struct row *key, const struct tx *tx)
{
    struct found f = {0};

    for (size_t i = 0; i < t->n; i++) {
        struct slot *s = t->slots[i];
        bool now = is_at(t->source->def, s->now, key);

        if (s->owner && s->owner != tx) {
            f.locked = f.locked || now || is_at(t->source->def, s->was, key);
        } else if (now) {
            f.n++;
            f.first = f.first ? f.first : s;
        }
    }
    return f;
}

static int refuse(struct err *e, const struct target_table *t, const struct row *row)
{
    struct buf text;

    buf_init(&text, BUF_MAX_TEXT);
    row_print(&text, row, 40);
    err_set(e, ERR_CONFLICT, "duplicate key value in %s: %s", table_label(t->source->def),
            text.data);
    buf_release(&text);
    return -1;
}

/* ---- writing ---- */

/* Is there room for row beside all rows but self? */
static int check_room(struct conn *c, struct tx *tx, const struct target_table *t,
                      const struct row *row, const struct slot *self)
{
    size_t unique = t->constrained.now && !tx->deferred ? t->source->unique : NO_COLUMN;
    int rc = 0;

    for (size_t i = 0; i < t->n && rc == 0; i++) {
        const struct slot *s = t->slots[i];
        const struct row *sides[] = {s->now, s->owner && s->owner != tx ? s->was : NULL};

        for (size_t k = 0; k < 2 && s != self; k++) {
            bool same =
                sides[k] && t->keyed.now && t->source->def->nkey &&
                is_at(t->source->def, sides[k], table_key_of(&c->rows, t->source->def, row));

            same = same || (sides[k] && unique != NO_COLUMN && row->v[unique].state == VALUE_SET &&
                            value_equal(&sides[k]->v[unique], &row->v[unique]));
            if (same)
                rc = s->owner && s->owner != tx ? 2 : 1;
        }
    }
    return rc;
}

static int store(struct conn *c, struct tx *tx, struct target_table *t, struct slot *s,
                 const struct row *row, struct err *e)
{
    int taken;

    for (size_t i = 0; i < row->n; i++) {
        if (row->v[i].state == VALUE_UNCHANGED)
            return err_set(e, ERR_BUG, "a value that the log did not carry is written to %s",
                           table_label(t->source->def));
    }
    taken = check_room(c, tx, t, row, s);
    if (taken == 2)
        return lock_wait(c->w, e, "a row");
    if (taken == 1)
        return refuse(e, t, row);
    slot_set(c->w, tx, s ? s : slot_new(c->w, t), row);
    return 0;
}

static int write_insert(struct conn *c, struct tx *tx, struct target_table *t,
                        const struct row *row, struct err *e)
{
    return store(c, tx, t, NULL, row_copy(&c->w->mem, row), e);
}

/* Columns that are not to be written keep what they have. */
static int write_update(struct conn *c, struct tx *tx, struct target_table *t,
                        const struct row *const *old_new, const bool *columns, struct err *e)
{
    struct found f = find(t, old_new[0], tx);
    struct row *row;

    if (f.locked)
        return lock_wait(c->w, e, "a row");
    if (!f.n)
        return 0;
    row = row_copy(&c->w->mem, f.first->now);
    for (size_t i = 0; i < row->n; i++) {
        const struct value *v = &old_new[1]->v[i];

        if (columns ? !columns[i] : v->state == VALUE_UNCHANGED)
            continue;
        row->v[i] = *v;
        if (v->state == VALUE_SET)
            row->v[i].data = arena_strndup(&c->w->mem, v->data, v->len);
    }
    if (store(c, tx, t, f.first, row, e) < 0)
        return -1;
    return t->source->def->nkey ? (int)f.n : 1;
}

static int write_delete(struct conn *c, struct tx *tx, struct target_table *t,
                        const struct row *key, struct err *e)
{
    struct found f = find(t, key, tx);

    if (f.locked)
        return lock_wait(c->w, e, "a row");
    if (!f.n)
        return 0;
    slot_set(c->w, tx, f.first, NULL);
    return t->source->def->nkey ? (int)f.n : 1;
}

static int enter_tx(struct conn *c, struct err *e)
{
    if (conn_enter(c, e) < 0)
        return -1;
    if (!c->tx)
        return err_set(e, ERR_BUG, "rows are written outside of a transaction");
    return 0;
}

static struct target_table *existing(struct conn *c, const struct table *t, struct err *e)
{
    struct target_table *target = target_table_of(c->w, t);

    if (target && target->created.now)
        return target;
    err_set(e, ERR_FATAL, "relation %s does not exist", table_label(t));
    return NULL;
}

/* ---- loads ---- */

int scripted_load_begin(struct db *db, const struct table *t, enum block_format f, struct err *e)
{
    struct conn *c = conn_of(db);

    if (enter_tx(c, e) < 0)
        return -1;
    c->loading = existing(c, t, e);
    c->loaded = 0;
    return c->loading ? 0 : -1;
}

int scripted_load_block(struct db *db, const struct block *b, struct err *e)
{
    struct conn *c = conn_of(db);
    const struct row *const *rows = b->format == BLOCK_NATIVE ? (const void *)b->data : b->rows;
    size_t n = b->format == BLOCK_NATIVE ? b->len / sizeof(*rows) : b->nrows;

    if (enter_tx(c, e) < 0)
        return -1;
    invariant(c->loading != NULL);
    for (size_t i = 0; i < n; i++) {
        if (write_insert(c, c->tx, c->loading, rows[i], e) < 0) {
            c->tx->failed = true;
            return -1;
        }
        c->loaded++;
    }
    return 0;
}

int scripted_load_end(struct db *db, uint64_t *rows, struct err *e)
{
    struct conn *c = conn_of(db);

    if (enter_tx(c, e) < 0)
        return -1;
    if (rows)
        *rows = c->loaded;
    c->loading = NULL;
    return 0;
}

/* ---- changes ---- */

static int one_of_set(struct conn *c, struct target_table *t, const struct change_set *s, size_t i,
                      struct err *e)
{
    const struct row *old_new[] = {s->keys ? s->keys[i] : NULL, s->rows ? s->rows[i] : NULL};
    struct found f;

    switch (s->op) {
    case SET_INSERT:
        return write_insert(c, c->tx, t, s->rows[i], e) < 0 ? -1 : 1;
    case SET_UPDATE:
        return write_update(c, c->tx, t, old_new, s->columns, e);
    case SET_DELETE:
        return write_delete(c, c->tx, t, s->keys[i], e);
    case SET_ABSENT:
        break;
    }
    f = find(t, s->keys[i], c->tx);
    return f.locked ? lock_wait(c->w, e, "a row") : (int)f.n;
}

int scripted_apply_set(struct db *db, const struct change_set *s, uint64_t *affected, struct err *e)
{
    struct conn *c = conn_of(db);
    struct target_table *t;
    int rc = 0;

    *affected = 0;
    if (enter_tx(c, e) < 0)
        return -1;
    arena_reset(&c->rows);
    t = existing(c, s->table, e);
    if (!t) {
        c->tx->failed = true;
        return -1;
    }
    for (size_t i = 0; i < s->n && rc >= 0; i++) {
        rc = one_of_set(c, t, s, i, e);
        *affected += rc > 0 ? (uint64_t)rc : 0;
    }
    c->tx->failed = rc < 0;
    return rc < 0 ? -1 : 0;
}

static int one_row(struct conn *c, struct target_table *t, const struct change *change,
                   struct err *e)
{
    const struct row *old_new[] = {change_old_key(&c->rows, change), change->after};

    switch (change->op) {
    case OP_INSERT:
        return write_insert(c, c->tx, t, change->after, e) < 0 ? -1 : 1;
    case OP_UPDATE:
        return write_update(c, c->tx, t, old_new, NULL, e);
    case OP_DELETE:
        return write_delete(c, c->tx, t, old_new[0], e);
    case OP_TRUNCATE:
        break;
    }
    return err_set(e, ERR_BUG, "a TRUNCATE is not a row");
}

int scripted_apply_row(struct db *db, const struct change *change, uint64_t *affected,
                       struct err *e)
{
    struct conn *c = conn_of(db);
    struct target_table *t;
    int rc = -1;

    *affected = 0;
    if (enter_tx(c, e) < 0)
        return -1;
    arena_reset(&c->rows);
    c->tx->deferred = true;
    t = existing(c, change->table, e);
    if (t)
        rc = one_row(c, t, change, e);
    c->tx->failed = rc < 0;
    if (rc > 0)
        *affected = (uint64_t)rc;
    return rc < 0 ? -1 : 0;
}

/* Each change is a call of its own to the world, so that trouble comes between them too. */
int scripted_apply_rows(struct db *db, const struct change *const *changes, size_t n,
                        uint64_t *affected, size_t *failed, struct err *e)
{
    for (*failed = 0; *failed < n; ++*failed) {
        if (scripted_apply_row(db, changes[*failed], &affected[*failed], e) < 0)
            return -1;
    }
    return 0;
}

static int empty(struct conn *c, struct target_table *t, struct err *e)
{
    for (size_t i = 0; i < t->n; i++) {
        struct slot *s = t->slots[i];

        if (s->owner && s->owner != c->tx)
            return lock_wait(c->w, e, "a relation");
        if (s->now)
            slot_set(c->w, c->tx, s, NULL);
    }
    return 0;
}

int scripted_truncate(struct db *db, const struct table *const *tables, size_t n, bool restart,
                      struct err *e)
{
    struct conn *c = conn_of(db);

    if (enter_tx(c, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct target_table *t = existing(c, tables[i], e);

        if (!t || empty(c, t, e) < 0) {
            c->tx->failed = true;
            return -1;
        }
    }
    return 0;
}
