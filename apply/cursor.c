#include "apply/cursor.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

/* A batch ends at the first transaction boundary behind this share of its size, so that ordinary
 * transactions are never split; only one larger than the rest is. */
#define BATCH_SOFT_PERCENT 60
/* An item's own cost, so that many tiny changes are bounded too. */
#define ITEM_COST 200

void cursor_init(struct cursor *c, const struct migration *m, struct track_list *tracks)
{
    memset(c, 0, sizeof(*c));
    c->m = m;
    c->tracks = tracks;
}

static void leave_large(struct cursor *c)
{
    if (!c->large)
        return;
    c->large = false;
    memory_trim();
    large_row_leave();
}

static void forget_batch(struct cursor *c)
{
    arena_reset(&c->arena);
    c->items = NULL;
    c->n = 0;
    c->cap = 0;
    c->complete = 0;
    c->bytes = 0;
    c->changed_table[0] = '\0';
    leave_large(c);
}

void cursor_release(struct cursor *c)
{
    journal_reader_close(c->reader);
    decoder_free(c->decoder);
    forget_batch(c);
    arena_release(&c->arena);
    arena_release(&c->spare);
    c->reader = NULL;
    c->decoder = NULL;
}

int cursor_seek(struct cursor *c, struct db *target, const struct stand *at, struct err *e)
{
    struct owned_journal journal;
    struct stand stand = *at; /* `at` may be our own */

    cursor_release(c);
    c->at = stand;
    c->frontier = stand;
    c->generation = 0;
    c->in_txn = false;
    c->skipping = false;
    c->discard = false;
    c->stopped = false;
    c->streaming = false;
    c->suspicion = SUSPECT_NONE;
    c->known_closed = false;
    if (owned_journal(c->m, target, &journal, e) < 0)
        return -1;
    if (journal_reader_open(&journal.options, stand.record, &c->reader, e) < 0)
        return err_wrap(e, "journal");
    c->decoder = decoder_new();
    decoder_plan(c->decoder, &c->tracks->shapes);
    return 0;
}

bool cursor_advanced(const struct cursor *c)
{
    return c->frontier.record != c->at.record;
}

/* ---- the batch ---- */

static struct item *push_item(struct cursor *c)
{
    if (c->n == c->cap) {
        struct item *old = c->items;

        c->cap = c->cap ? c->cap * 2 : 64;
        c->items = arena_alloc(&c->arena, c->cap * sizeof(*c->items));
        if (c->n)
            memcpy(c->items, old, c->n * sizeof(*old));
    }
    return &c->items[c->n++];
}

void cursor_consume(struct cursor *c, size_t done)
{
    size_t left = c->n - done;
    struct item *items = left ? arena_alloc(&c->spare, left * sizeof(*items)) : NULL;
    struct arena used;
    bool large = c->large;
    size_t bytes = 0;

    for (size_t i = 0; i < left; i++) {
        items[i] = c->items[done + i];
        if (items[i].change.before)
            items[i].change.before = row_copy(&c->spare, items[i].change.before);
        if (items[i].change.after)
            items[i].change.after = row_copy(&c->spare, items[i].change.after);
        bytes += change_bytes(&items[i].change) + ITEM_COST;
    }
    c->large = large && left > 0;
    c->suspect_from = c->suspect_from > done ? c->suspect_from - done : 0;
    used = c->arena;
    c->arena = c->spare;
    c->spare = used;
    arena_reset(&c->spare);
    if (large && !c->large) {
        c->large = true;
        leave_large(c);
    }
    c->items = items;
    c->n = left;
    c->cap = left;
    c->complete = 0;
    c->bytes = bytes;
}

/* ---- records ---- */

/* Is the transaction on the target already? Compared by version: epoch and commit position. */
static bool is_applied(const struct txn *txn, const struct stand *at)
{
    struct version theirs = {.epoch = txn->epoch, .commit = txn->commit};
    struct version ours = {.epoch = at->epoch, .commit = at->next};

    return version_cmp(&theirs, &ours) < 0;
}

/* The writer died in the middle of a transaction; a new one sends it again from its begin. */
static void discard_unfinished(struct cursor *c)
{
    c->n = c->complete;
    c->in_txn = false;
    c->discard = true;
    c->suspicion = SUSPECT_NONE;
}

/* A lane leaves out what the main stream found to be foreign when it came by. */
static void suspect(struct cursor *c)
{
    c->suspicion = SUSPECT_NONE;
    if (c->only)
        c->skipping = c->skipping || foreign_spans_hold(&c->foreign_spans, c->txn.commit);
    if (c->skipping || c->only || !c->frontier.turns.shut)
        return;
    c->suspicion = c->known_closed ? SUSPECT_FOREIGN : SUSPECT_ASK;
    c->suspect_from = c->n;
    foreign_begin(&c->foreign, &c->txn);
}

void cursor_settle(struct cursor *c, bool foreign)
{
    invariant(c->suspicion == SUSPECT_ASK);
    c->suspicion = foreign ? SUSPECT_FOREIGN : SUSPECT_NONE;
    c->known_closed = foreign;
    if (!foreign)
        return;
    c->n = c->suspect_from;
    if (c->in_txn)
        return;
    /* It has ended, and was taken for one of ours. */
    c->complete = c->n;
    c->frontier.txns--;
    c->frontier.changes -= c->txn_changes;
}

static int on_begin(struct cursor *c, const struct record *r, struct err *e)
{
    if (c->in_txn)
        return err_set(e, ERR_FATAL, "the journal holds a transaction inside a transaction");
    c->in_txn = true;
    c->txn = r->txn;
    c->txn_changes = 0;
    c->skipping = is_applied(&r->txn, &c->frontier);
    suspect(c);
    if (c->has_stop && position_cmp(r->txn.commit, c->stop) >= 0)
        c->stopped = true;
    return 0;
}

static int on_end(struct cursor *c, const struct record *r, uint64_t number, struct err *e)
{
    if (!c->in_txn || position_cmp(c->txn.commit, r->txn.commit) != 0)
        return err_set(e, ERR_FATAL, "the journal ends a transaction that it did not begin");
    c->in_txn = false;
    c->frontier.record = number + 1;
    if (c->skipping)
        return 0;
    c->frontier.epoch = r->txn.epoch;
    c->frontier.next = r->txn.next;
    c->frontier.ts_us = r->txn.ts_us;
    if (c->suspicion == SUSPECT_FOREIGN)
        return 0;
    /* Nothing that travels: of tables of our own, or of nobody's. */
    if (c->foreign.changes == 0)
        c->suspicion = SUSPECT_NONE;
    c->frontier.txns++;
    c->frontier.changes += c->txn_changes;
    c->complete = c->n;
    return 0;
}

static bool is_followed(const struct cursor *c, const struct track *t)
{
    if (c->only)
        return t == c->only;
    return t && t->lane.state == LANE_FOLLOWING;
}

static int on_change(struct cursor *c, const struct record *r, struct err *e)
{
    struct track *track;
    struct item *item;

    if (!c->in_txn)
        return err_set(e, ERR_FATAL, "the journal holds a change outside of a transaction");
    if (c->skipping)
        return 0;
    if (c->suspicion != SUSPECT_NONE)
        foreign_count(&c->foreign, &r->change);
    if (c->suspicion == SUSPECT_FOREIGN)
        return 0;
    track = tracks_find(c->tracks, table_label(r->change.table));
    if (!is_followed(c, track))
        return 0;
    item = push_item(c);
    item->change = r->change;
    item->txn = r->txn;
    item->track = track;
    c->txn_changes++;
    c->bytes += change_bytes(&r->change) + ITEM_COST;
    return 0;
}

/* Sent again it is no news: what lies behind it was judged by it. */
static void on_mark(struct cursor *c, const struct record *r)
{
    if (position_cmp(r->next, c->frontier.next) < 0)
        return;
    turns_pass(&c->frontier.turns, c->m, r->token);
    c->known_closed = false;
}

static void on_position(struct cursor *c, const struct record *r, uint64_t number)
{
    c->frontier.record = number + 1;
    if (r->kind == RECORD_MARK)
        on_mark(c, r);
    if (position_cmp(r->next, c->frontier.next) > 0)
        c->frontier.next = r->next;
    if (r->kind == RECORD_MARK)
        snprintf(c->frontier.marker, sizeof(c->frontier.marker), "%s", r->token);
    if (c->has_stop && position_cmp(r->next, c->stop) >= 0)
        c->stopped = true;
}

static void on_table(struct cursor *c, const struct record *r, uint64_t number)
{
    if (!c->in_txn)
        c->frontier.record = number + 1;
    /* Sent again: what it asked for was done, and the table may follow again since. */
    if (c->in_txn && c->skipping)
        return;
    snprintf(c->changed_table, sizeof(c->changed_table), "%s", r->table_label);
    snprintf(c->changed_reason, sizeof(c->changed_reason), "%s",
             r->reason ? r->reason : "its shape changed");
}

static int handle(struct cursor *c, const struct journal_record *jr, struct err *e)
{
    struct record r;

    if (jr->generation != c->generation) {
        /* What lies before is applied, gathered or void: the journal may forget it with the next
         * commit, not only when this transaction has come whole. */
        if (c->in_txn) {
            discard_unfinished(c);
            c->frontier.record = jr->number;
            if (c->only && c->frontier.record >= c->stop_record) {
                c->stopped = true; /* this record is the main stream's */
                return 0;
            }
        }
        c->generation = jr->generation;
    }
    if (jr->len > LARGE_ROW && !c->large) {
        large_row_enter();
        c->large = true;
    }
    if (decoder_decode(c->decoder, jr->schema, journal_schema_text(c->reader, jr->schema), jr->data,
                       jr->len, &c->arena, &r, e) < 0)
        return err_wrap(e, "journal record %llu", (unsigned long long)jr->number);
    switch (r.kind) {
    case RECORD_BEGIN:
        return on_begin(c, &r, e);
    case RECORD_CHANGE:
        return on_change(c, &r, e);
    case RECORD_END:
        return on_end(c, &r, jr->number, e);
    case RECORD_MARK:
    case RECORD_POSITION:
        on_position(c, &r, jr->number);
        return 0;
    case RECORD_TABLE:
        on_table(c, &r, jr->number);
        return 0;
    }
    return err_set(e, ERR_FATAL, "journal record %llu is of an unknown kind",
                   (unsigned long long)jr->number);
}

bool cursor_is_full(const struct cursor *c)
{
    /* What rows and items take beside the values may be as much again. */
    size_t held = c->bytes > c->arena.used / 2 ? c->bytes : c->arena.used / 2;

    if (c->discard || c->stopped || c->changed_table[0] || held >= c->m->batch_bytes)
        return true;
    /* Whoever holds the permit must not wait for the journal: capture may need it for the next
     * record. */
    if (c->large)
        return true;
    /* A streamed transaction that has ended is committed before another begins: should that one
     * turn out unfinished, what it wrote goes by a rollback, which must not take this one along. */
    if (c->streaming && !c->in_txn)
        return true;
    /* One that a switch makes suspicious is the last of its batch. */
    if (c->suspicion != SUSPECT_NONE && !c->in_txn)
        return true;
    return !c->in_txn && held >= c->m->batch_bytes / 100 * BATCH_SOFT_PERCENT;
}

int cursor_fill(struct cursor *c, int timeout_ms, struct err *e)
{
    bool first = true;

    while (!cursor_is_full(c)) {
        struct journal_record jr;
        bool waiting = first && c->complete == 0 && !cursor_advanced(c);
        int got;

        if (c->only && !c->in_txn && c->frontier.record >= c->stop_record) {
            c->stopped = true;
            return 0;
        }
        got = journal_read(c->reader, waiting ? timeout_ms : 0, &jr, e);
        first = false;
        if (got < 0)
            return err_wrap(e, "journal");
        if (got == 0)
            return 0;
        if (handle(c, &jr, e) < 0)
            return -1;
    }
    return 0;
}
