/* The slot and its stream: committed transactions in the order of the log, whether others see them
 * already or not. */
#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

#include <stdio.h>
#include <stdlib.h>

#define WAIT_STEPS 400
/* Between two keepalives to a client that has not acknowledged everything. */
#define KEEPALIVE_MS 20

static int create(struct scripted_world *w, const struct db_options *o, struct arena *a,
                  struct stream_origin *out)
{
    struct db_options holder = *o;
    struct exported *x;

    /* Creation waits for what is running; here it is enough that nothing hangs unseen. */
    for (int i = 0; i < WAIT_STEPS && w->nhung; i++)
        source_step(w);
    if (w->nhung)
        return 0;
    holder.use = DB_READ;
    if (scripted_open(&holder, &out->holder, NULL) < 0)
        return 0;
    while (w->nhung)
        source_step(w);
    x = snap_export(w);
    conn_of(out->holder)->holds = x;
    w->slot = true;
    w->confirmed = x->snap.past;
    out->start = x->snap.past;
    out->cut.text = arena_strdup(a, x->snap.text);
    out->cut.past = x->snap.past;
    out->snapshot = arena_strdup(a, x->name);
    return 1;
}

/* On the target, whose snapshots nobody needs. */
static int create_back(struct scripted_world *w, bool retry, struct stream_origin *out,
                       struct err *e)
{
    if (w->back_slot && !retry)
        return err_set(e, ERR_FATAL, "replication slot already exists");
    w->back_slot = true;
    w->back_start = (struct position){w->back_end, 0};
    out->start = w->back_start;
    return 0;
}

int scripted_stream_create(const struct db_options *o, const struct table_list *tables, bool retry,
                           struct arena *a, struct stream_origin *out, struct err *e)
{
    struct scripted_world *w = scripted_current;

    memset(out, 0, sizeof(*out));
    if (world_enter(w, e) < 0)
        return -1;
    if (o->back)
        return create_back(w, retry, out, e);
    if (w->slot && !retry)
        return err_set(e, ERR_FATAL, "replication slot already exists");
    w->slot = false;
    if (!create(w, o, a, out)) {
        if (w->crashed)
            return err_set(e, ERR_FATAL, "the process has died before");
        return err_set(e, ERR_RETRY, "the slot could not be created in time");
    }
    if (conn_leave(conn_of(out->holder), e) < 0) {
        scripted_close(out->holder);
        out->holder = NULL;
        return -1;
    }
    return 0;
}

static bool slot_busy(const struct scripted_world *w)
{
    for (const struct stream *s = w->streams; s; s = s->next) {
        if (!s->dead)
            return true;
    }
    return false;
}

int scripted_stream_open(const struct stream_request *r, struct stream **out, struct err *e)
{
    struct scripted_world *w = scripted_current;
    struct position from = r->from;
    struct stream *s;

    *out = NULL;
    if (world_enter(w, e) < 0)
        return -1;
    if (!w->slot)
        return err_set(e, ERR_FATAL, "replication slot does not exist");
    if (slot_busy(w))
        return err_set(e, ERR_RETRY, "replication slot is active");
    if (from.major > w->log_end)
        return err_set(e, ERR_FATAL, "the position lies behind the end of the log");
    if (position_cmp(from, w->confirmed) < 0) {
        if (w->o.gap_error)
            return err_set(e, ERR_FATAL, "the slot has forgotten what comes after the position");
        from = w->confirmed;
    }
    s = calloc(1, sizeof(*s));
    invariant(s != NULL);
    s->w = w;
    s->actor = w->actor;
    s->epoch = r->epoch;
    s->ref = w->first_xid + w->ntxns;
    s->from = from;
    s->sent = from;
    s->wanted = w->confirmed;
    s->tables = arena_zalloc(&s->mem, TABLES * sizeof(*s->tables));
    for (size_t i = 0; i < r->tables->n; i++)
        s->tables[source_table_of(w, r->tables->v[i]) - w->source] =
            table_copy(&s->mem, r->tables->v[i]);
    while (s->entry < w->nlog && position_cmp(w->log[s->entry].at, from) < 0)
        s->entry++;
    s->next = w->streams;
    w->streams = s;
    *out = s;
    return 0;
}

static void fill_txn(struct stream *s, const struct source_txn *t, struct event *out)
{
    out->txn = t->txn;
    out->txn.epoch = s->epoch;
    if (s->w->o.widen)
        out->txn.xid = s->w->o.widen(s->ref, (uint32_t)t->xid);
    s->ref = out->txn.xid;
}

static void send_rest(struct stream *s, const struct log_entry *entry, struct event *out)
{
    struct scripted_world *w = s->w;
    const struct source_txn *t = entry->txn;

    /* As MySQL after a crash in the middle of it: what was sent is void, and the next transaction
     * stands where this one stood. */
    if (s->change > 0 && draw_chance(w, 1, 60)) {
        out->kind = EVENT_ABORT;
        out->reason = "the log ends inside of a transaction";
        s->place = 0;
        return;
    }
    while (s->change < t->nchanges) {
        const struct change *c = &t->changes[s->change++];
        const struct table *known = s->tables[source_table_of(w, c->table) - w->source];

        if (!known)
            continue;
        out->kind = EVENT_CHANGE;
        fill_txn(s, t, out);
        out->txn.next = (struct position){0, 0};
        out->change = *c;
        out->change.table = known;
        return;
    }
    out->kind = EVENT_COMMIT;
    fill_txn(s, t, out);
    out->next = entry->next;
    s->sent = entry->next;
    s->entry++;
    s->place = 0;
}

static void send_entry(struct stream *s, struct event *out)
{
    const struct log_entry *entry = &s->w->log[s->entry];

    if (s->place) {
        send_rest(s, entry, out);
    } else if (entry->token) {
        out->kind = EVENT_MARK;
        out->token = entry->token;
        out->next = entry->next;
        s->sent = entry->next;
        s->entry++;
    } else {
        out->kind = EVENT_BEGIN;
        fill_txn(s, entry->txn, out);
        out->txn.next = (struct position){0, 0};
        s->place = 1;
        s->change = 0;
    }
}

/* The status messages of a real connection, now and then. */
static void send_ack(struct stream *s)
{
    struct scripted_world *w = s->w;

    if (position_cmp(w->confirmed, s->wanted) < 0)
        w->confirmed = s->wanted;
}

int scripted_stream_next(struct stream *s, int timeout_ms, struct event *out, struct err *e)
{
    struct scripted_world *w = s->w;

    memset(out, 0, sizeof(*out));
    if (stream_enter(s, e) < 0)
        return -1;
    if (draw_chance(w, 1, 4))
        send_ack(s);
    if (s->entry < w->nlog) {
        if (draw_chance(w, 19, 20))
            send_entry(s, out);
    } else if (s->wanted.major < w->log_end && s->from.major < w->log_end &&
               w->source_ms >= s->keepalive_ms) {
        out->kind = EVENT_POSITION;
        s->keepalive_ms = w->source_ms + KEEPALIVE_MS;
        s->sent.major = w->log_end;
        out->next = s->sent;
    }
    return 0;
}

int scripted_stream_ack(struct stream *s, struct position p, bool now, struct err *e)
{
    if (stream_enter(s, e) < 0)
        return -1;
    if (position_cmp(s->wanted, p) < 0)
        s->wanted = p;
    if (now || draw_chance(s->w, 1, 2))
        send_ack(s);
    return stream_leave(s, e);
}

void scripted_stream_close(struct stream *s)
{
    struct stream **at;

    if (!s)
        return;
    for (at = &s->w->streams; *at != s; at = &(*at)->next)
        ;
    *at = s->next;
    arena_release(&s->mem);
    free(s);
}

int scripted_stream_drop(const struct db_options *o, struct err *e)
{
    struct scripted_world *w = scripted_current;

    if (world_enter(w, e) < 0)
        return -1;
    if (o->back) {
        w->back_slot = false;
        return 0;
    }
    if (slot_busy(w))
        return err_set(e, ERR_RETRY, "replication slot is active");
    w->slot = false;
    return 0;
}

int scripted_retention(struct db *db, struct arena *a, struct retention *out, struct err *e)
{
    struct conn *c = conn_of(db);

    memset(out, 0, sizeof(*out));
    if (conn_enter(c, e) < 0)
        return -1;
    out->retained_bytes = c->w->log_end - c->w->confirmed.major;
    out->state = "reserved";
    out->active = slot_busy(c->w);
    return 0;
}
