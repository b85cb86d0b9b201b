/* What a session writes: rows it may lock, and the changes as the log will carry them. */
#include "engines/scripted/world.h"

static struct source_txn *owner_of(struct scripted_world *w, uint64_t xid)
{
    return xid ? txn_by_xid(w, xid) : NULL;
}

/* Does another transaction, not ended for everybody, hold this tuple? Then the server would wait.
 */
static bool held(struct scripted_world *w, const struct tuple *tuple, const struct source_txn *me)
{
    struct source_txn *maker = owner_of(w, tuple->xmin);
    struct source_txn *ender = owner_of(w, tuple->xmax);

    return !tuple->dead &&
           ((maker != me && source_running(maker)) || (ender != me && source_running(ender)));
}

static bool alive(struct scripted_world *w, const struct tuple *tuple, const struct source_txn *me)
{
    return !tuple->dead && !tuple->xmax && !tuple->emptied && !held(w, tuple, me);
}

/* May me write to this table, or does another's TRUNCATE (or mine wait for another's rows)? */
static bool table_free(struct scripted_world *w, size_t number, const struct source_txn *me,
                       bool exclusive)
{
    const struct source_table *t = &w->source[number];
    unsigned bit = 1u << number;

    if (exclusive && t->readers)
        return false;
    for (int i = 0; i < SESSIONS; i++) {
        const struct source_txn *other = w->session[i];

        if (other && other != me && (exclusive ? other->wrote : other->emptied) & bit)
            return false;
    }
    for (size_t i = 0; i < w->nhung; i++) {
        if ((exclusive ? w->hung[i]->wrote : w->hung[i]->emptied) & bit)
            return false;
    }
    return true;
}

/* Is the key (or the unique value) of row free for me, now and whatever becomes of the others? */
static bool place_free(struct scripted_world *w, struct source_table *t, const struct row *row,
                       const struct source_txn *me, const struct tuple *self)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct tuple *other = &t->tuples[i];
        bool same = t->def->nkey != 0;

        if (other == self || other->dead || other->emptied)
            continue;
        if (other->xmax && !source_running(owner_of(w, other->xmax)))
            continue;
        if (other->xmax && owner_of(w, other->xmax) == me)
            continue;
        for (size_t k = 0; k < t->def->nkey && same; k++)
            same = value_equal(&other->row->v[t->def->key[k]], &row->v[t->def->key[k]]);
        if (same || (t->unique != NO_COLUMN && row->v[t->unique].state == VALUE_SET &&
                     value_equal(&other->row->v[t->unique], &row->v[t->unique])))
            return false;
    }
    return true;
}

static struct tuple *pick(struct scripted_world *w, struct source_table *t,
                          const struct source_txn *me)
{
    size_t start = draw_below(w, t->n);

    for (size_t i = 0; i < t->n; i++) {
        struct tuple *tuple = &t->tuples[(start + i) % t->n];

        if (alive(w, tuple, me))
            return tuple;
    }
    return NULL;
}

static struct change *log_change(struct scripted_world *w, struct source_txn *t,
                                 struct source_table *table, enum change_op op)
{
    struct change *c = VEC_PUSH(w, t->changes, t->nchanges, t->cap);

    memset(c, 0, sizeof(*c));
    c->op = op;
    c->table = table->def;
    c->ordinal = t->nchanges - 1;
    return c;
}

static void need_xid(struct scripted_world *w, struct source_txn *t, size_t number)
{
    t->wrote |= 1u << number;
    if (t->xid)
        return;
    t->xid = w->first_xid + w->ntxns;
    *VEC_PUSH(w, w->txns, w->ntxns, w->txns_cap) = t;
}

/* The old row as the log tells it. */
static const struct row *old_image(struct scripted_world *w, const struct source_table *t,
                                   const struct row *old)
{
    struct row *image;

    if (t->def->identity == IDENTITY_FULL)
        return old;
    image = row_copy(&w->mem, old);
    for (size_t i = 0; i < image->n; i++) {
        if (!t->def->columns[i].key)
            image->v[i] = (struct value){VALUE_UNCHANGED, 0, NULL};
    }
    return image;
}

static bool key_differs(const struct table *def, const struct row *a, const struct row *b)
{
    for (size_t i = 0; i < def->nkey; i++) {
        if (!value_equal(&a->v[def->key[i]], &b->v[def->key[i]]))
            return true;
    }
    return false;
}

static void do_insert(struct scripted_world *w, struct source_txn *t, struct source_table *table,
                      const struct row *row)
{
    struct tuple *tuple = VEC_PUSH(w, table->tuples, table->n, table->cap);

    memset(tuple, 0, sizeof(*tuple));
    tuple->row = row;
    tuple->xmin = t->xid;
    log_change(w, t, table, OP_INSERT)->after = row;
}

static void do_delete(struct scripted_world *w, struct source_txn *t, struct source_table *table,
                      struct tuple *tuple)
{
    tuple->xmax = t->xid;
    log_change(w, t, table, OP_DELETE)->before = old_image(w, table, tuple->row);
}

/* old is an index: a push may move the tuples. */
static void do_update(struct scripted_world *w, struct source_txn *t, struct source_table *table,
                      size_t old, const struct row *row)
{
    const struct row *was = table->tuples[old].row;
    struct row *sent = row_copy(&w->mem, row);
    struct tuple *tuple = VEC_PUSH(w, table->tuples, table->n, table->cap);
    struct change *c = log_change(w, t, table, OP_UPDATE);

    table->tuples[old].xmax = t->xid;
    memset(tuple, 0, sizeof(*tuple));
    tuple->row = row;
    tuple->xmin = t->xid;
    if (table->big != NO_COLUMN && row->v[table->big].state == VALUE_SET &&
        row->v[table->big].len >= BIG_VALUE &&
        value_equal(&row->v[table->big], &was->v[table->big]))
        sent->v[table->big] = (struct value){VALUE_UNCHANGED, 0, NULL};
    c->after = sent;
    if (table->def->identity == IDENTITY_FULL || key_differs(table->def, was, row))
        c->before = old_image(w, table, was);
}

static void write_insert(struct scripted_world *w, struct source_txn *t, struct source_table *table)
{
    struct row *row = random_row(w, table);

    if ((table->def->nkey || table->unique != NO_COLUMN) && !place_free(w, table, row, t, NULL))
        return;
    do_insert(w, t, table, row);
    w->counts.ops[SCRIPTED_INSERT]++;
}

static void write_update(struct scripted_world *w, struct source_txn *t, struct source_table *table,
                         bool key)
{
    struct tuple *tuple = pick(w, table, t);
    struct row *row;
    struct row *other;

    if (!tuple)
        return;
    row = row_copy(&w->mem, tuple->row);
    if (!key || draw_chance(w, 1, 2))
        change_some(w, table, row);
    other = random_row(w, table);
    for (size_t i = 0; i < table->def->nkey && key; i++)
        row->v[table->def->key[i]] = other->v[table->def->key[i]];
    if (!place_free(w, table, row, t, tuple))
        return;
    w->counts.ops[key ? SCRIPTED_KEY_CHANGE : SCRIPTED_UPDATE]++;
    do_update(w, t, table, (size_t)(tuple - table->tuples), row);
}

static void write_delete(struct scripted_world *w, struct source_txn *t, struct source_table *table,
                         bool again)
{
    struct tuple *tuple = pick(w, table, t);
    struct row *row;

    if (!tuple)
        return;
    row = row_copy(&w->mem, tuple->row);
    do_delete(w, t, table, tuple);
    w->counts.ops[again ? SCRIPTED_REINSERT : SCRIPTED_DELETE]++;
    if (!again)
        return;
    change_some(w, table, row);
    if (place_free(w, table, row, t, NULL))
        do_insert(w, t, table, row);
}

/* Two rows exchange their unique values: legal because the constraint is deferred. */
static void write_swap(struct scripted_world *w, struct source_txn *t, struct source_table *table)
{
    struct tuple *one = pick(w, table, t);
    struct tuple *two = pick(w, table, t);
    struct row *a;
    struct row *b;
    size_t i;
    size_t j;

    if (!one || !two || one == two || table->unique == NO_COLUMN)
        return;
    a = row_copy(&w->mem, one->row);
    b = row_copy(&w->mem, two->row);
    a->v[table->unique] = two->row->v[table->unique];
    b->v[table->unique] = one->row->v[table->unique];
    i = (size_t)(one - table->tuples);
    j = (size_t)(two - table->tuples);
    do_update(w, t, table, i, a);
    do_update(w, t, table, j, b);
    w->counts.ops[SCRIPTED_SWAP]++;
}

static void write_truncate(struct scripted_world *w, struct source_txn *t, size_t number)
{
    struct source_table *table = &w->source[number];
    struct change *c;

    if (!table_free(w, number, t, true))
        return;
    for (size_t i = 0; i < table->n; i++) {
        struct tuple *tuple = &table->tuples[i];

        if (!tuple->dead && !tuple->emptied)
            tuple->emptied = t->xid;
    }
    t->emptied |= 1u << number;
    c = log_change(w, t, table, OP_TRUNCATE);
    c->group = (uint32_t)t->nchanges;
    w->counts.ops[SCRIPTED_TRUNCATE]++;
}

void source_write(struct scripted_world *w, struct source_txn *t)
{
    size_t number = draw_below(w, TABLES);
    struct source_table *table = &w->source[number];
    size_t what = draw_below(w, 100);

    if (!table_free(w, number, t, false))
        return;
    need_xid(w, t, number);
    w->log_end += 8 * (1 + draw_below(w, 3));
    if (w->o.truncates && draw_chance(w, 1, 60))
        write_truncate(w, t, number);
    else if (what < 25)
        write_insert(w, t, table);
    else if (what < 50)
        write_update(w, t, table, false);
    else if (what < 65)
        write_update(w, t, table, true);
    else if (what < 80)
        write_delete(w, t, table, false);
    else if (what < 90)
        write_delete(w, t, table, true);
    else
        write_swap(w, t, table);
}
