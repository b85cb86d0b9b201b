/* The source's sessions: they begin, write, commit, become visible (perhaps late), roll back. */
#include "engines/scripted/world.h"

struct source_txn *txn_by_xid(struct scripted_world *w, uint64_t xid)
{
    return xid < w->first_xid ? NULL : w->txns[xid - w->first_xid];
}

bool source_running(const struct source_txn *t)
{
    return t && (t->state == TXN_RUNNING || t->state == TXN_HUNG);
}

void source_drop_session(struct scripted_world *w, struct source_txn *t)
{
    for (int i = 0; i < SESSIONS; i++) {
        if (w->session[i] == t)
            w->session[i] = NULL;
    }
}

/* Its tuples are as if they had never been. */
static void undo_tuples(struct source_table *s, const struct source_txn *t)
{
    for (size_t i = 0; i < s->n; i++) {
        struct tuple *tuple = &s->tuples[i];

        if (tuple->xmin == t->xid)
            tuple->dead = true;
        if (tuple->xmax == t->xid)
            tuple->xmax = 0;
        if (tuple->emptied == t->xid)
            tuple->emptied = 0;
    }
}

void source_abort(struct scripted_world *w, struct source_txn *t)
{
    for (size_t i = 0; t->xid && i < TABLES; i++)
        undo_tuples(&w->source[i], t);
    t->state = TXN_ABORTED;
    source_drop_session(w, t);
    w->log_end += 8 * (1 + draw_below(w, 4));
    w->counts.ops[SCRIPTED_ROLLBACK]++;
}

static void empty_table(struct scripted_world *w, struct source_table *s, uint64_t xid)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->tuples[i].emptied == xid)
            s->tuples[i].dead = true;
    }
    s->emptied = xid;
    s->filenode += 1000;
}

void source_commit(struct scripted_world *w, struct source_txn *t)
{
    struct log_entry *entry;

    source_drop_session(w, t);
    if (!t->xid) {
        t->state = TXN_DONE;
        return;
    }
    t->txn.xid = t->xid;
    t->txn.commit.major = w->log_end;
    w->log_end += 8 * (1 + draw_below(w, 6));
    t->txn.next.major = w->log_end;
    w->log_end += 8 * draw_below(w, 2);
    t->txn.ts_us = w->source_ms * 1000;
    for (size_t i = 0; i < TABLES; i++) {
        if (t->emptied & 1u << i)
            empty_table(w, &w->source[i], t->xid);
    }
    entry = VEC_PUSH(w, w->log, w->nlog, w->log_cap);
    entry->at = t->txn.commit;
    entry->next = t->txn.next;
    entry->txn = t;
    w->counts.committed++;
    if (draw_chance(w, w->o.late, 100)) {
        t->state = TXN_HUNG;
        w->counts.late++;
        *VEC_PUSH(w, w->hung, w->nhung, w->hung_cap) = t;
    } else {
        t->state = TXN_DONE;
    }
}

static void begin(struct scripted_world *w, int place)
{
    struct source_txn *t = arena_zalloc(&w->mem, sizeof(*t));

    t->left = (int)draw_below(w, 6);
    if (draw_chance(w, 1, 20))
        t->left = 30;
    w->session[place] = t;
    w->begun++;
}

static void unhang(struct scripted_world *w)
{
    size_t i = draw_below(w, w->nhung);

    w->hung[i]->state = TXN_DONE;
    w->hung[i] = w->hung[--w->nhung];
}

/* The client may have taken a number before its write was refused; it may give up, or commit what
 * it wrote before. */
static void refuse(struct scripted_world *w, struct source_txn *t)
{
    size_t number = draw_below(w, SEQUENCES);

    if (draw_chance(w, 1, 4))
        sequence_next(&w->numbers[number], number);
    if (t->xid && draw_chance(w, 1, 3))
        t->left = 0;
    else
        source_abort(w, t);
}

/* Between a statement's passing the fence and its writing, the fence may be shut. */
static void write_on(struct scripted_world *w, struct source_txn *t)
{
    if (w->o.cutover && !t->passed && draw_chance(w, 1, 2)) {
        t->passed = true;
        return;
    }
    t->passed = false;
    t->left--;
    if (w->o.cutover && draw_chance(w, 1, 3))
        sequence_next(&w->numbers[t->left % SEQUENCES], (size_t)t->left % SEQUENCES);
    source_write(w, t);
}

void source_step(struct scripted_world *w)
{
    int place = (int)draw_below(w, SESSIONS);
    struct source_txn *t = w->session[place];
    bool refused = fence_refuses(w, SIDE_SOURCE);

    w->source_ms += draw_chance(w, 1, 4);
    if (w->nhung && draw_chance(w, 1, w->silent ? 2 : 12))
        unhang(w);
    if (!t) {
        if (!w->silent && !refused && w->begun < w->o.transactions && draw_chance(w, 1, 2))
            begin(w, place);
        return;
    }
    if (t->left > 0 && refused && !t->passed) {
        refuse(w, t);
    } else if (t->left > 0 && !w->silent) {
        write_on(w, t);
    } else if (draw_chance(w, 1, 10))
        source_abort(w, t);
    else
        source_commit(w, t);
}
