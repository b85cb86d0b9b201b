/* What the harness sees of a switch, and the target as the live side: its own applications, and the
 * rows that it must hold from then on. */
#include "engines/scripted/world.h"

#include <stdio.h>

bool scripted_accepts(const struct scripted_world *w, enum db_side side)
{
    return !fence_refuses(w, side);
}

const json_t *scripted_fact(const struct scripted_world *w, const char *kind, const char *key)
{
    return scripted_fact_on(w, SIDE_TARGET, kind, key);
}

const json_t *scripted_fact_on(const struct scripted_world *w, enum db_side side, const char *kind,
                               const char *key)
{
    for (size_t i = 0; i < w->nfacts; i++) {
        const struct target_fact *f = w->facts[i];

        if (f->side == side && strcmp(f->kind, kind) == 0 && strcmp(f->key, key) == 0)
            return f->was_version ? f->was : NULL;
    }
    return NULL;
}

bool scripted_numbers_ahead(const struct scripted_world *w)
{
    for (size_t i = 0; i < SEQUENCES; i++) {
        if (w->numbers[i].called &&
            (!w->copied[i].called || w->copied[i].last < w->numbers[i].last))
            return false;
    }
    return true;
}

/* ---- the target's log ---- */

void back_log_add(struct scripted_world *w, const char *token, size_t table, const struct row *row)
{
    struct back_entry *entry = VEC_PUSH(w, w->back_log, w->nback, w->back_cap);

    *entry = (struct back_entry){.at = {w->back_end, 0},
                                 .token = token ? arena_strdup(&w->mem, token) : NULL,
                                 .table = table,
                                 .row = row};
    w->back_end += 8;
}

bool scripted_back_read(const struct scripted_world *w, struct position from, size_t max,
                        struct position *next, char *token, size_t size)
{
    *next = position_cmp(from, w->back_start) < 0 ? w->back_start : from;
    token[0] = '\0';
    for (size_t i = 0; i < w->nback && max > 0; i++) {
        const struct back_entry *entry = &w->back_log[i];

        if (position_cmp(entry->at, *next) < 0)
            continue;
        if (entry->token)
            snprintf(token, size, "%s", entry->token);
        next->major = entry->at.major + 8;
        max--;
    }
    return w->back_slot;
}

int scripted_back_missing(struct scripted_world *w, struct position from, struct position to,
                          struct scripted_difference *out)
{
    for (size_t i = 0; i < w->nback; i++) {
        const struct back_entry *entry = &w->back_log[i];

        if (entry->token || (position_cmp(entry->at, from) >= 0 && position_cmp(entry->at, to) < 0))
            continue;
        *out = (struct scripted_difference){.table = table_label(w->source[entry->table].def),
                                            .what = "not on the way back"};
        buf_init(&out->source, BUF_MAX_TEXT);
        buf_init(&out->target, BUF_MAX_TEXT);
        row_print(&out->target, entry->row, 60);
        return 1;
    }
    return 0;
}

/* ---- what the target must hold ---- */

static void expect(struct scripted_world *w, size_t number, const struct row *row)
{
    struct target_pin *x = w->expected;

    if (x)
        *VEC_PUSH(w, x->rows[number], x->n[number], w->expected_cap[number]) = row;
}

static void expect_no_more(struct scripted_world *w, size_t number, const struct row *row)
{
    struct target_pin *x = w->expected;

    for (size_t i = 0; x && i < x->n[number]; i++) {
        if (!row_equal(x->rows[number][i], row))
            continue;
        x->rows[number][i] = x->rows[number][--x->n[number]];
        return;
    }
}

void scripted_switch(struct scripted_world *w)
{
    w->expected = arena_zalloc(&w->mem, sizeof(*w->expected));
    for (size_t k = 0; k < TABLES; k++) {
        const struct target_table *t = &w->target[k];

        w->expected_cap[k] = 0;
        for (size_t i = 0; i < t->n; i++) {
            if (t->slots[i]->was)
                expect(w, k, t->slots[i]->was);
        }
    }
}

/* ---- the target's applications ---- */

static bool same_value(const struct row *a, const struct row *b, size_t column)
{
    return a->v[column].state == VALUE_SET && value_equal(&a->v[column], &b->v[column]);
}

static bool collides(const struct target_table *t, const struct row *row, const struct row *other)
{
    const struct table *def = t->source->def;
    bool key = def->nkey != 0;

    for (size_t i = 0; i < def->nkey && key; i++)
        key = value_equal(&row->v[def->key[i]], &other->v[def->key[i]]);
    return key || (t->source->unique != NO_COLUMN && same_value(row, other, t->source->unique));
}

/* Is the row's key (and unique value) free, whatever becomes of open transactions? */
static bool place_free(const struct target_table *t, const struct row *row, const struct slot *self)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct slot *s = t->slots[i];

        if (s != self &&
            ((s->now && collides(t, row, s->now)) || (s->was && collides(t, row, s->was))))
            return false;
    }
    return true;
}

static struct slot *pick(struct scripted_world *w, const struct target_table *t)
{
    size_t start = draw_below(w, t->n);

    for (size_t i = 0; i < t->n; i++) {
        struct slot *s = t->slots[(start + i) % t->n];

        if (s->was && !s->owner)
            return s;
    }
    return NULL;
}

static void put(struct scripted_world *w, size_t number, struct slot *s, const struct row *row)
{
    struct tx *tx = tx_new(w);
    struct err ignored = {0};

    back_log_add(w, NULL, number, row ? row : s->was);
    if (s->was)
        expect_no_more(w, number, s->was);
    if (row)
        expect(w, number, row);
    slot_set(w, tx, s, row);
    invariant(tx_commit(w, tx, false, &ignored) == 0);
}

int64_t scripted_application(struct scripted_world *w, int64_t *given)
{
    size_t number = draw_below(w, TABLES);
    struct target_table *t = &w->target[number];
    size_t sequence = draw_below(w, SEQUENCES);
    struct slot *s = pick(w, t);
    struct row *row;

    if (fence_refuses(w, SIDE_TARGET))
        return 0;
    if (!s || draw_chance(w, 1, 3)) {
        row = random_row(w, t->source);
        if (place_free(t, row, NULL))
            put(w, number, slot_new(w, t), row);
    } else if (draw_chance(w, 1, 2)) {
        put(w, number, s, NULL);
    } else {
        row = row_copy(&w->mem, s->was);
        change_some(w, t->source, row);
        if (place_free(t, row, s))
            put(w, number, s, row);
    }
    *given = w->numbers[sequence].called ? w->numbers[sequence].last : 0;
    return sequence_next(&w->copied[sequence], sequence);
}
