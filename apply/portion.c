/* A portion of changes onto the target, table by table: as sets, and if the target does not agree,
 * row by row.
 *
 * Foreign keys and triggers do not fire on replicated changes, so the tables of a portion do not
 * meet, but in a TRUNCATE of several: that is a barrier for all. Within a table sets are quick, but
 * they reach the portion's last state by another road than the source did: a unique value that two
 * rows swap is legal at each of the source's steps (or at its commit) and not in one statement. So
 * a refusal, or a count that falls short, sends the table back to its savepoint and along the
 * source's own road. Only what fails there is a divergence. */
#include "apply/collapse.h"
#include "apply/internal.h"
#include "core/run.h"

#include <stdio.h>

#define MESSAGE_VALUE_MAX 60
/* A table that went row by row goes so for some portions more: what made it, often comes again. */
#define ROW_PORTIONS 16
/* Changes that the engine is given in one call; a request to stop is looked at between them. */
#define ROWS_AT_ONCE ((size_t)1024)

/* ---- messages ---- */

static void describe(struct apply *a, const struct act *act, struct buf *out)
{
    const struct change *c = &act->change;
    const struct row *key =
        c->op == OP_INSERT ? change_new_key(&a->scratch, c) : change_old_key(&a->scratch, c);
    char position[64];

    a->m->source.engine->position_text(act->item->txn.commit, position, sizeof(position));
    buf_addf(out, "%s: %s", act->item->track->label, change_op_name(c->op));
    if (key) {
        buf_adds(out, c->table->nkey ? " of key " : " of row ");
        row_print(out, key, MESSAGE_VALUE_MAX);
    }
    buf_addf(out, " at %s", position);
}

static int wrap_act(struct apply *a, const struct act *act, struct err *e)
{
    struct buf text;

    buf_init(&text, ERR_MSG_MAX);
    describe(a, act, &text);
    err_wrap(e, "%s", text.data ? text.data : act->item->track->label);
    buf_release(&text);
    return -1;
}

static int expect(uint64_t affected, uint64_t wanted, struct err *e)
{
    if (affected == wanted)
        return 0;
    return err_set(e, ERR_CONFLICT, "met %llu rows on the target instead of %llu",
                   (unsigned long long)affected, (unsigned long long)wanted);
}

/* ---- one by one ---- */

/* Has the target said no? Then the source's own road may help. */
static bool disagrees(const struct err *e)
{
    return e->class == ERR_CONFLICT || e->class == ERR_DATA || e->class == ERR_FATAL;
}

/* A TRUNCATE's tables travel as consecutive changes: all of them in one statement. Returns how many
 * acts it took, or 0 with an error. */
static size_t do_truncate(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    const struct table **tables = arena_alloc(&a->scratch, n * sizeof(*tables));
    size_t k = 0;

    while (k < n && acts[k].kind == ACT_CHANGE && acts[k].change.op == OP_TRUNCATE &&
           acts[k].change.group == acts[0].change.group &&
           position_cmp(acts[k].item->txn.commit, acts[0].item->txn.commit) == 0) {
        tables[k] = acts[k].change.table;
        k++;
    }
    a->culprit = acts[0].item->track;
    if (a->db->engine->truncate(a->db, tables, k, acts[0].change.restart_identity, e) < 0) {
        wrap_act(a, &acts[0], e);
        return 0;
    }
    return k;
}

/* The first act, in order, that met another number of rows than one; n: none did. */
static size_t first_missed(const uint64_t *affected, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (affected[i] != 1)
            return i;
    }
    return n;
}

/* Up to ROWS_AT_ONCE acts without a TRUNCATE. What the first divergence made of the later ones does
 * not matter: they are taken back with it. */
static int do_rows(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    const struct change *changes[ROWS_AT_ONCE];
    uint64_t affected[ROWS_AT_ONCE];
    size_t answered = n;
    size_t missed;
    int rc;

    for (size_t i = 0; i < n; i++)
        changes[i] = &acts[i].change;
    rc = a->db->engine->apply_rows(a->db, changes, n, affected, &answered, e);
    if (rc == 0)
        answered = n;
    missed = first_missed(affected, answered);
    /* A connection that broke tells nothing about the table, whatever was met before. */
    if (missed < answered && (rc == 0 || disagrees(e)))
        rc = expect(affected[missed], 1, e);
    else
        missed = answered;
    if (rc < 0 && missed < n) {
        a->culprit = acts[missed].item->track;
        wrap_act(a, &acts[missed], e);
    }
    return rc;
}

static int run_rows(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i += ROWS_AT_ONCE) {
        size_t k = n - i < ROWS_AT_ONCE ? n - i : ROWS_AT_ONCE;

        if (do_rows(a, &acts[i], k, e) < 0 || stop_check(e) < 0)
            return -1;
    }
    return 0;
}

/* ---- as sets ---- */

static const enum set_op set_ops[] = {[COLLAPSED_DELETE] = SET_DELETE,
                                      [COLLAPSED_ABSENT] = SET_ABSENT,
                                      [COLLAPSED_UPDATE] = SET_UPDATE,
                                      [COLLAPSED_INSERT] = SET_INSERT};

static int write_set(struct apply *a, const struct collapsed_set *s, struct err *e)
{
    struct change_set set = {
        .op = set_ops[s->op],
        .table = s->table,
        .n = s->n,
        .keys = s->op == COLLAPSED_INSERT ? NULL : (const struct row *const *)s->keys,
        .rows = s->op == COLLAPSED_INSERT || s->op == COLLAPSED_UPDATE
                    ? (const struct row *const *)s->rows
                    : NULL,
        .columns = s->columns,
    };
    uint64_t affected;

    if (a->db->engine->apply_set(a->db, &set, &affected, e) < 0)
        return err_wrap(e, "%s", table_label(s->table));
    return expect(affected, s->op == COLLAPSED_ABSENT ? 0 : s->n, e);
}

static int write_sets(struct apply *a, struct collapse *c, struct err *e)
{
    struct collapsed_sets sets;

    if (collapse_count(c) == 0)
        return 0;
    collapse_finish(c, &sets);
    for (size_t i = 0; i < sets.n; i++) {
        if (write_set(a, &sets.v[i], e) < 0)
            return -1;
    }
    return 0;
}

static bool fits_a_set(const struct change *c)
{
    return collapse_takes(c) && change_bytes(c) <= LARGE_ROW;
}

static int run_sets(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    struct collapse *c = collapse_new(&a->scratch);
    size_t took;

    for (size_t i = 0; i < n; i += took) {
        took = 1;
        if (fits_a_set(&acts[i].change)) {
            if (!collapse_add(c, &acts[i].change))
                return err_set(e, ERR_CONFLICT, "changes of one key do not follow each other");
            continue;
        }
        while (i + took < n && !fits_a_set(&acts[i + took].change))
            took++;
        if (write_sets(a, c, e) < 0 || run_rows(a, &acts[i], took, e) < 0)
            return -1;
        c = collapse_new(&a->scratch);
    }
    return write_sets(a, c, e);
}

/* One table's acts. */
static int run_table(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    const struct engine *engine = a->db->engine;
    struct track *track = acts[0].item->track;

    a->culprit = track;
    if (track->rows_left) {
        track->rows_left--;
        return run_rows(a, acts, n, e);
    }
    if (engine->savepoint(a->db, e) < 0)
        return -1;
    if (run_sets(a, acts, n, e) == 0)
        return 0;
    if (!disagrees(e))
        return -1;
    if (engine->rollback_to(a->db, e) < 0)
        return -1;
    track->rows_left = ROW_PORTIONS;
    return run_rows(a, acts, n, e);
}

/* Acts without a TRUNCATE in them: each table's in their order, gathered. */
static int run_tables(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    struct act *mine = arena_alloc(&a->scratch, (n + 1) * sizeof(*mine));
    bool *taken = arena_zalloc(&a->scratch, n + 1);

    for (size_t i = 0; i < n; i++) {
        size_t k = 0;

        for (size_t j = i; j < n && !taken[i]; j++) {
            if (acts[j].item->track != acts[i].item->track)
                continue;
            mine[k++] = acts[j];
            taken[j] = j > i;
        }
        if (k && run_table(a, mine, k, e) < 0)
            return -1;
    }
    return 0;
}

static int run_acts(struct apply *a, const struct act *acts, size_t n, struct err *e)
{
    size_t from = 0;

    for (size_t i = 0; i < n;) {
        size_t took;

        if (acts[i].change.op != OP_TRUNCATE) {
            i++;
            continue;
        }
        if (run_tables(a, &acts[from], i - from, e) < 0)
            return -1;
        took = do_truncate(a, &acts[i], n - i, e);
        if (!took)
            return -1;
        i += took;
        from = i;
    }
    return run_tables(a, &acts[from], n - from, e);
}

int portion_run(struct apply *a, const struct item *items, size_t n, struct err *e)
{
    struct act *acts;
    struct judge *judge;
    size_t pending = 0;

    arena_reset(&a->scratch);
    a->culprit = NULL;
    acts = arena_alloc(&a->scratch, (n + 1) * sizeof(*acts));
    if (judge_open(a, items, n, &judge, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        int kept = judge_item(a, judge, i, &acts[pending], e);

        if (kept < 0)
            return -1;
        if (!kept)
            continue;
        if (acts[pending].kind == ACT_CHANGE) {
            pending++;
            continue;
        }
        /* What follows is judged by the point's cut, so the point comes first. */
        if (run_acts(a, acts, pending, e) < 0 || point_read(a, &acts[pending], e) < 0)
            return -1;
        pending = 0;
    }
    return run_acts(a, acts, pending, e);
}
