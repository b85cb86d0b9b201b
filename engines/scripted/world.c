#include "engines/scripted/world.h"

#include <stdlib.h>

_Thread_local struct scripted_world *scripted_current;

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t draw(struct scripted_world *w)
{
    return splitmix(&w->rng);
}

size_t draw_below(struct scripted_world *w, size_t n)
{
    return n ? (size_t)(draw(w) % n) : 0;
}

bool draw_chance(struct scripted_world *w, int of, int whole)
{
    return (int)(draw(w) % (uint64_t)whole) < of;
}

void *vec_grow(struct scripted_world *w, void *old, size_t *cap, size_t size)
{
    size_t more = *cap ? *cap * 2 : 8;
    void *new = arena_zalloc(&w->mem, more * size);

    if (*cap)
        memcpy(new, old, *cap * size);
    *cap = more;
    return new;
}

void scripted_options_draw(uint64_t seed, struct scripted_options *out)
{
    static const int lost[] = {0, 5, 20, 80};
    static const int crash[] = {0, 5, 15, 40};
    static const int unknown[] = {0, 0, 3, 15};
    static const int haste[] = {10, 30, 80, 200};
    static const int late[] = {0, 5, 20, 50};
    uint64_t state = seed * 2 + 1;

    memset(out, 0, sizeof(*out));
    out->transactions = 60 + (int)(splitmix(&state) % 120);
    out->haste = haste[splitmix(&state) % 4];
    out->late = late[splitmix(&state) % 4];
    out->lost = lost[splitmix(&state) % 4];
    out->crash = crash[splitmix(&state) % 4];
    out->unknown = unknown[splitmix(&state) % 4];
    out->restart = splitmix(&state) % 3 == 0 ? 3 : 0;
    out->truncates = splitmix(&state) % 4 == 0;
    out->gap_error = splitmix(&state) % 2 == 0;
}

struct scripted_world *scripted_world_new(uint64_t seed, const struct scripted_options *o)
{
    struct scripted_world *w = calloc(1, sizeof(*w));

    invariant(w != NULL);
    w->o = *o;
    /* Hashed: a state that is one step further would be the same run, one draw later. */
    w->rng = seed;
    w->rng = splitmix(&w->rng);
    scripted_current = w;
    /* Near the 32-bit wrap in every other world. */
    w->first_xid = draw_chance(w, 1, 2) ? (7ull << 32) - 40 : 740;
    w->log_end = 0x1000000 + draw_below(w, 4096) * 8;
    w->back_end = 0x1000;
    w->source_ms = 1700000000000;
    w->target_ms = 1700000000000 + (int64_t)draw_below(w, 1000000);
    tables_make(w);
    return w;
}

static void facts_drop(struct scripted_world *w)
{
    for (size_t i = 0; i < w->nfacts; i++) {
        json_decref(w->facts[i]->now);
        json_decref(w->facts[i]->was);
    }
}

void scripted_world_free(struct scripted_world *w)
{
    if (!w)
        return;
    for (struct conn *c = w->conns; c; c = c->next)
        conn_cut(c);
    settle_orphans(w, true);
    volatiles_flush(w);
    facts_drop(w);
    if (scripted_current == w)
        scripted_current = NULL;
    arena_release(&w->mem);
    free(w);
}

void scripted_actor(struct scripted_world *w, int actor)
{
    w->actor = actor;
    scripted_current = w;
}

bool scripted_crashed(const struct scripted_world *w)
{
    return w->crashed;
}

void scripted_recover(struct scripted_world *w)
{
    for (struct conn *c = w->conns; c; c = c->next) {
        if (c->actor == w->actor)
            conn_cut(c);
    }
    for (struct stream *s = w->streams; s; s = s->next)
        s->dead = s->dead || s->actor == w->actor;
    w->crashed = false;
}

void scripted_on_call(struct scripted_world *w, void (*on_call)(void *ctx), void *ctx)
{
    w->on_call = on_call;
    w->on_call_ctx = ctx;
}

void scripted_kill(struct scripted_world *w)
{
    w->crashed = true;
    w->counts.crashes++;
}

void scripted_trouble(struct scripted_world *w, int share)
{
    w->o.lost = w->o.lost * share / 100;
    w->o.crash = w->o.crash * share / 100;
    w->o.unknown = w->o.unknown * share / 100;
    w->o.restart = w->o.restart * share / 100;
    w->calm = false;
}

void scripted_more(struct scripted_world *w, int transactions)
{
    w->o.transactions = w->begun + transactions;
}

int scripted_left(const struct scripted_world *w)
{
    return w->o.transactions - w->begun;
}

void scripted_calm(struct scripted_world *w)
{
    w->calm = true;
    settle_orphans(w, true);
}

void scripted_silence(struct scripted_world *w)
{
    w->silent = true;
    while (!scripted_is_silent(w))
        source_step(w);
}

bool scripted_is_silent(const struct scripted_world *w)
{
    if (!w->silent && w->begun < w->o.transactions)
        return false;
    for (int i = 0; i < SESSIONS; i++) {
        if (w->session[i])
            return false;
    }
    return w->nhung == 0;
}

void scripted_pass(struct scripted_world *w, int64_t ms)
{
    w->source_ms += ms;
    w->target_ms += ms;
}

void scripted_source_step(struct scripted_world *w)
{
    source_step(w);
}

const struct scripted_counts *scripted_counts(const struct scripted_world *w)
{
    return &w->counts;
}

/* ---- comparing ---- */

static const struct row *target_match(const struct target_table *t, const struct row *key,
                                      struct arena *a, const struct row *skip)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct row *row = t->slots[i]->was;

        if (!row || row == skip)
            continue;
        if (row_equal(t->source->def->nkey ? table_key_of(a, t->source->def, row) : row, key))
            return row;
    }
    return NULL;
}

static int differ(struct scripted_difference *out, const struct table *t, const char *what,
                  const struct row *source, const struct row *target)
{
    out->table = table_label(t);
    out->what = what;
    buf_init(&out->source, BUF_MAX_TEXT);
    buf_init(&out->target, BUF_MAX_TEXT);
    if (source)
        row_print(&out->source, source, 60);
    if (target)
        row_print(&out->target, target, 60);
    return 1;
}

static size_t count_equal(const struct row *const *rows, size_t n, const struct row *row)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        found += row_equal(rows[i], row);
    return found;
}

static int compare_keyed(const struct target_table *t, const struct row *const *rows, size_t n,
                         struct scripted_difference *out)
{
    const struct table *def = t->source->def;
    struct arena a = ARENA_INIT;
    int rc = 0;

    for (size_t i = 0; i < n && !rc; i++) {
        const struct row *key = table_key_of(&a, def, rows[i]);
        const struct row *found = target_match(t, key, &a, NULL);

        if (!found)
            rc = differ(out, def, "missing", rows[i], NULL);
        else if (!row_equal(found, rows[i]))
            rc = differ(out, def, "differs", rows[i], found);
        else if (target_match(t, key, &a, found))
            rc = differ(out, def, "twice", rows[i], found);
    }
    arena_release(&a);
    return rc;
}

/* What the target must hold: what a new snapshot of the source sees, or, since the switch, what has
 * been written on the target itself. */
static size_t wanted_rows(struct scripted_world *w, size_t number, struct arena *a,
                          const struct row **out)
{
    const struct source_table *s = &w->source[number];
    const struct target_pin *x = w->expected;
    struct snap snap;
    size_t n = 0;

    for (size_t i = 0; x && i < x->n[number]; i++)
        out[n++] = x->rows[number][i];
    if (x)
        return n;
    snap_take(w, a, &snap);
    for (size_t i = 0; i < s->n; i++) {
        if (tuple_seen(w, &snap, &s->tuples[i]))
            out[n++] = s->tuples[i].row;
    }
    return n;
}

static int compare_table(struct scripted_world *w, size_t number, struct scripted_difference *out)
{
    const struct target_table *t = &w->target[number];
    const struct source_table *s = &w->source[number];
    struct arena a = ARENA_INIT;
    size_t most = w->expected ? w->expected->n[number] : s->n;
    const struct row **rows = arena_alloc(&a, (most + 1) * sizeof(*rows));
    const struct row **copies = arena_alloc(&a, (t->n + 1) * sizeof(*copies));
    size_t n;
    size_t m = 0;
    int rc = 0;

    n = wanted_rows(w, number, &a, rows);
    for (size_t i = 0; i < t->n; i++) {
        if (t->slots[i]->was)
            copies[m++] = t->slots[i]->was;
    }
    if (s->def->nkey)
        rc = compare_keyed(t, rows, n, out);
    for (size_t i = 0; i < n && !rc; i++) {
        if (count_equal(copies, m, rows[i]) < count_equal(rows, n, rows[i]))
            rc = differ(out, s->def, "missing", rows[i], NULL);
    }
    for (size_t i = 0; i < m && !rc; i++) {
        if (count_equal(rows, n, copies[i]) < count_equal(copies, m, copies[i]))
            rc = differ(out, s->def, "extra", NULL, copies[i]);
    }
    arena_release(&a);
    return rc;
}

int scripted_compare(struct scripted_world *w, struct scripted_difference *out)
{
    for (size_t i = 0; i < TABLES; i++) {
        if (compare_table(w, i, out))
            return 1;
    }
    return 0;
}
