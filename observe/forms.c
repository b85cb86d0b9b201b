/* The forms of an observation: JSON, a line, a page. */
#include "observe/observe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR_CELLS 24

void observe_size(char *out, size_t size, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t u = 0;

    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    snprintf(out, size, u ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void observe_time(char *out, size_t size, int64_t seconds)
{
    if (seconds < 120)
        snprintf(out, size, "%" PRId64 " s", seconds);
    else if (seconds < 7200)
        snprintf(out, size, "%" PRId64 " min", seconds / 60);
    else
        snprintf(out, size, "%" PRId64 " h", seconds / 3600);
}

/* ---- JSON ---- */

static json_t *count_json(int64_t v)
{
    return v == UNKNOWN_COUNT ? json_null() : json_integer((json_int_t)v);
}

static json_t *text_json(const char *s)
{
    return s ? json_string(s) : json_null();
}

static json_t *way_json(const struct observed_way *w)
{
    json_t *parked;

    if (!w)
        return json_null();
    parked = json_array();
    for (size_t i = 0; i < w->nparked; i++)
        json_array_append_new(parked, json_pack("{s:s, s:s}", "name", w->parked[i].name, "reason",
                                                w->parked[i].reason));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "lag_bytes", count_json(w->lag_bytes),
                     "consistent_up_to", text_json(w->consistent_up_to), "changes",
                     count_json(w->changes), "state", text_json(w->state), "retained_bytes",
                     count_json(w->retained_bytes), "parked", parked);
}

static json_t *foreign_json(const struct observation *o)
{
    static const char *const names[] = {[SIDE_SOURCE] = "source", [SIDE_TARGET] = "target"};
    json_t *all = json_array();

    for (int side = 0; side < 2; side++) {
        const struct observed_foreign *f = &o->foreign[side];
        json_t *first = f->first ? json_loads(f->first, 0, NULL) : NULL;

        if (f->known && f->transactions)
            json_array_append_new(all, json_pack("{s:s, s:I, s:I, s:I, s:o}", "side", names[side],
                                                 "transactions", (json_int_t)f->transactions,
                                                 "changes", (json_int_t)f->changes,
                                                 "not_acknowledged", (json_int_t)f->open, "first",
                                                 first ? json_incref(first) : json_array()));
        json_decref(first);
    }
    return all;
}

json_t *observe_json(const struct observation *o)
{
    json_t *tables = json_array();
    json_t *warnings = json_array();

    for (size_t i = 0; i < o->ntables; i++) {
        const struct observed_table *t = &o->tables[i];

        json_array_append_new(
            tables, json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "name", t->name, "lane", t->lane,
                              "rows", count_json(t->rows), "bytes", count_json(t->bytes), "eta",
                              count_json(t->eta_s), "reason", text_json(t->reason)));
    }
    for (size_t i = 0; i < o->nwarnings; i++)
        json_array_append_new(warnings, json_string(o->warnings[i]));
    json_t *all = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "phase", text_json(o->phase),
        "tables", tables, "lag_bytes", count_json(o->lag_bytes), "lag_seconds",
        o->lag_seconds < 0 ? json_null() : json_real(o->lag_seconds), "consistent_up_to",
        text_json(o->consistent_up_to), "retained_bytes", count_json(o->retained_bytes), "warnings",
        warnings, "journal_bytes", count_json(o->journal_bytes), "running", text_json(o->running),
        "changes", count_json(o->changes));

    json_object_set_new(all, "direction", text_json(o->direction));
    json_object_set_new(all, "rolled_back", json_boolean(o->rolled_back));
    json_object_set_new(all, "reads", text_json(o->reads));
    json_object_set_new(all, "way_back", way_json(o->way_back));
    json_object_set_new(all, "foreign_writes", foreign_json(o));
    return all;
}

/* ---- for people ---- */

static void add_size(struct buf *out, const char *before, int64_t bytes)
{
    char text[40];

    if (bytes == UNKNOWN_COUNT)
        return;
    observe_size(text, sizeof(text), (uint64_t)bytes);
    buf_addf(out, "%s%s", before, text);
}

static void add_lag(struct buf *out, const struct observation *o)
{
    add_size(out, "  lag ", o->lag_bytes);
    if (o->lag_seconds >= 0)
        buf_addf(out, "%s%.1f s", o->lag_bytes == UNKNOWN_COUNT ? "  lag " : ", ", o->lag_seconds);
}

/* Of all tables together: what is copied and what is left. */
static double total_share(const struct observation *o, int64_t *bytes, int64_t *eta)
{
    uint64_t total = 0;
    uint64_t left = 0;

    *bytes = 0;
    for (size_t i = 0; i < o->ntables; i++) {
        total += o->tables[i].total;
        left += o->tables[i].left;
        *bytes += o->tables[i].bytes > 0 ? o->tables[i].bytes : 0;
    }
    *eta = left && o->rate > 0 ? (int64_t)(left / (uint64_t)o->rate) + 1 : UNKNOWN_COUNT;
    return total ? (double)(total - left) / (double)total : 0;
}

void observe_line(const struct observation *o, struct buf *out)
{
    int64_t bytes;
    int64_t eta;
    double share = total_share(o, &bytes, &eta);
    char text[40];

    buf_adds(out, o->phase ? o->phase : "not begun");
    if (o->phase && strcmp(o->phase, "snapshot") == 0) {
        buf_addf(out, "  %.0f %%", share * 100);
        add_size(out, ", copied ", bytes);
        if (o->rate > 0) {
            add_size(out, ", ", o->rate);
            buf_adds(out, "/s");
        }
        if (eta != UNKNOWN_COUNT) {
            observe_time(text, sizeof(text), eta);
            buf_addf(out, ", %s left", text);
        }
    }
    add_lag(out, o);
    if (o->changes != UNKNOWN_COUNT)
        buf_addf(out, "  %" PRId64 " changes applied", o->changes);
    for (size_t i = 0; i < o->ntables; i++) {
        if (strcmp(o->tables[i].lane, "parked") == 0)
            buf_addf(out, "  %s parked", o->tables[i].name);
    }
    for (size_t i = 0; o->way_back && i < o->way_back->nparked; i++)
        buf_addf(out, "  %s parked on the way back", o->way_back->parked[i].name);
}

static void add_bar(struct buf *out, double share)
{
    int cells = (int)(share * BAR_CELLS + 0.5);

    buf_adds(out, " ");
    for (int i = 0; i < BAR_CELLS; i++)
        buf_adds(out, i < cells ? "█" : "░");
    buf_addf(out, " %3.0f %%", share * 100);
}

static void add_table(struct buf *out, const struct observed_table *t, bool bars)
{
    char size[40] = "";
    char eta[40] = "";

    if (t->bytes != UNKNOWN_COUNT)
        observe_size(size, sizeof(size), (uint64_t)t->bytes);
    buf_addf(out, "  %-36s %-12s", t->name, t->lane);
    if (t->rows == UNKNOWN_COUNT)
        buf_addf(out, " %12s %10s", "–", "–");
    else
        buf_addf(out, " %12" PRId64 " %10s", t->rows, size);
    if (bars && t->total)
        add_bar(out, t->done);
    if (t->eta_s > 0) {
        observe_time(eta, sizeof(eta), t->eta_s);
        buf_addf(out, "  %s left", eta);
    }
    if (t->reason)
        buf_addf(out, "  %s", t->reason);
    buf_addc(out, '\n');
}

static const char *next_of_switched(const struct observation *o)
{
    if (!o->way_back)
        return "lockstep finish, when the applications are content";
    if (!o->running)
        return "lockstep run, which carries the way back, or lockstep finish, when the "
               "applications are content";
    return o->unwell ? "lockstep finish, when the applications are content; before a rollback mend "
                       "what the warnings say"
                     : "lockstep finish, when the applications are content, or lockstep rollback";
}

const char *observe_next(const struct observation *o)
{
    if (!o->phase)
        return "lockstep check, then lockstep run";
    if (strcmp(o->phase, "finished") == 0 || strcmp(o->phase, "abandoned") == 0)
        return "lockstep finish";
    if (o->again)
        return o->again;
    for (size_t i = 0; i < o->ntables; i++) {
        if (strcmp(o->tables[i].lane, "parked") == 0)
            return "mend what the reason says, then lockstep tables resume NAME (or recopy NAME)";
    }
    if (o->way_back && o->way_back->nparked && strcmp(o->direction, "back") == 0)
        return "mend what the reason says, then lockstep tables resume NAME";
    if (strcmp(o->phase, "switched") == 0)
        return next_of_switched(o);
    if (!o->running)
        return "lockstep run";
    if (o->unwell)
        return "mend what the warnings say; lockstep status --watch";
    if (strcmp(o->phase, "following") == 0)
        return "lockstep verify, then lockstep cutover";
    return "lockstep status --watch";
}

static bool reads_are_ahead(const struct observation *o)
{
    bool back = o->direction && strcmp(o->direction, "back") == 0;

    return o->reads && strcmp(o->reads, back ? "source" : "target") == 0;
}

void observe_page(const struct observation *o, bool bars, struct buf *out)
{
    buf_adds(out, "phase ");
    observe_line(o, out);
    buf_addc(out, '\n');
    if (o->consistent_up_to)
        buf_addf(out, "the target is consistent up to %s\n", o->consistent_up_to);
    if (reads_are_ahead(o))
        buf_addf(out, "reads were sent ahead to the %s; writes go to the %s\n", o->reads,
                 strcmp(o->reads, "target") == 0 ? "source" : "target");
    if (o->way_back) {
        /* A cutover that is prepared anew has made it anew. */
        bool taken = o->rolled_back && o->phase && strcmp(o->phase, "following") == 0;
        const char *now = strcmp(o->direction, "back") == 0 ? ", which the changes travel now"
                          : taken                           ? " was taken"
                                                            : " stands ready";
        buf_addf(out, "the way back%s: ", now);
        buf_addf(out, "the source has the target's log up to %s", o->way_back->consistent_up_to);
        add_size(out, ", lag ", o->way_back->lag_bytes);
        add_size(out, ", kept for it by the target ", o->way_back->retained_bytes);
        buf_addc(out, '\n');
    }
    if (o->retained_bytes != UNKNOWN_COUNT || o->journal_bytes != UNKNOWN_COUNT) {
        buf_adds(out, "kept for us:");
        add_size(out, " by the source ", o->retained_bytes);
        add_size(out, "  in the journal ", o->journal_bytes);
        buf_addc(out, '\n');
    }
    if (o->ntables)
        buf_addf(out, "  %-36s %-12s %12s %10s\n", "table", "lane", "rows", "bytes");
    for (size_t i = 0; i < o->ntables; i++)
        add_table(out, &o->tables[i], bars);
    for (size_t i = 0; i < o->nwarnings; i++)
        buf_addf(out, "warning: %s\n", o->warnings[i]);
}
