/* Snapshots of the source: what they see is decided here by the transactions' states, and told to
 * the rest of the world only as the text "xmin:xmax:xip,…". */
#include "engines/scripted/world.h"

#include <inttypes.h>

static void add_running(struct scripted_world *w, struct snap *s, const struct source_txn *t)
{
    size_t i = s->n++;

    if (t->xid < s->xmin)
        s->xmin = t->xid;
    for (; i > 0 && s->xip[i - 1] > t->xid; i--)
        s->xip[i] = s->xip[i - 1];
    s->xip[i] = t->xid;
}

void snap_take(struct scripted_world *w, struct arena *a, struct snap *out)
{
    struct buf text;

    memset(out, 0, sizeof(*out));
    out->xmax = w->first_xid + w->ntxns;
    out->xmin = out->xmax;
    out->xip = arena_alloc(a, (SESSIONS + w->nhung) * sizeof(*out->xip));
    for (int i = 0; i < SESSIONS; i++) {
        if (w->session[i] && w->session[i]->xid)
            add_running(w, out, w->session[i]);
    }
    for (size_t i = 0; i < w->nhung; i++)
        add_running(w, out, w->hung[i]);
    out->past.major = w->log_end;
    buf_init(&text, BUF_MAX_TEXT);
    buf_addf(&text, "%" PRIu64 ":%" PRIu64 ":", out->xmin, out->xmax);
    for (size_t i = 0; i < out->n; i++)
        buf_addf(&text, "%s%" PRIu64, i ? "," : "", out->xip[i]);
    out->text = arena_strdup(a, text.data);
    buf_release(&text);
}

bool snap_sees(const struct scripted_world *w, const struct snap *s, uint64_t xid)
{
    if (xid < w->first_xid)
        return true;
    if (xid >= s->xmax)
        return false;
    for (size_t i = 0; i < s->n; i++) {
        if (s->xip[i] == xid)
            return false;
    }
    return w->txns[xid - w->first_xid]->state != TXN_ABORTED;
}

bool tuple_seen(const struct scripted_world *w, const struct snap *s, const struct tuple *t)
{
    if (t->dead || !snap_sees(w, s, t->xmin))
        return false;
    return t->xmax == 0 || !snap_sees(w, s, t->xmax);
}

struct exported *snap_export(struct scripted_world *w)
{
    struct exported *x = arena_zalloc(&w->mem, sizeof(*x));

    snap_take(w, &w->mem, &x->snap);
    x->name = arena_printf(&w->mem, "snapshot-%zu", w->nexports + 1);
    x->alive = true;
    *VEC_PUSH(w, w->exports, w->nexports, w->exports_cap) = x;
    return x;
}

struct exported *snap_find(struct scripted_world *w, const char *name)
{
    for (size_t i = 0; i < w->nexports; i++) {
        if (w->exports[i]->alive && strcmp(w->exports[i]->name, name) == 0)
            return w->exports[i];
    }
    return NULL;
}
