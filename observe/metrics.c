/* /metrics. What is not known is left out: a gap in a graph, never a false 0. */
#include "observe/page.h"

#include <inttypes.h>
#include <string.h>

/* A label's value: backslash, quote and newline escaped. */
static void add_label(struct buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '\\' || *s == '"')
            buf_addc(out, '\\');
        if (*s == '\n')
            buf_adds(out, "\\n");
        else
            buf_addc(out, *s);
    }
}

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

struct metric {
    const char *name;
    const char *type;
    const char *help;
    int64_t value;
};

static void add_simple(struct buf *out, const struct metric *m)
{
    if (m->value == UNKNOWN_COUNT)
        return;
    head(out, m->name, m->type, m->help);
    buf_addf(out, "%s %" PRId64 "\n", m->name, m->value);
}

static void add_per_table(struct buf *out, const struct observation *o, const char *name,
                          const char *help, int64_t (*value)(const struct observed_table *t))
{
    head(out, name, "gauge", help);
    for (size_t i = 0; i < o->ntables; i++) {
        int64_t v = value(&o->tables[i]);

        if (v == UNKNOWN_COUNT)
            continue;
        buf_addf(out, "%s{table=\"", name);
        add_label(out, o->tables[i].name);
        buf_addf(out, "\"} %" PRId64 "\n", v);
    }
}

static int64_t rows_of(const struct observed_table *t)
{
    return t->rows;
}
static int64_t bytes_of(const struct observed_table *t)
{
    return t->bytes;
}

static void add_lanes(struct buf *out, const struct observation *o)
{
    static const enum lane_state states[] = {LANE_LOADING, LANE_FOLLOWING, LANE_PARKED,
                                             LANE_CATCHING_UP};

    head(out, "lockstep_lanes", "gauge", "Tables by the state of their lane.");
    for (size_t k = 0; k < sizeof(states) / sizeof(states[0]); k++) {
        const char *name = lane_state_name(states[k]);
        size_t n = 0;

        for (size_t i = 0; i < o->ntables; i++)
            n += strcmp(o->tables[i].lane, name) == 0;
        buf_addf(out, "lockstep_lanes{state=\"%s\"} %zu\n", name, n);
    }
}

static void add_way_back(struct buf *out, const struct observed_way *w)
{
    if (!w)
        return;
    const struct metric simple[] = {
        {"lockstep_way_back_lag_bytes", "gauge",
         "Bytes of the target's log that are not carried back yet.", w->lag_bytes},
        {"lockstep_way_back_changes_total", "counter", "Changes carried back to the source.",
         w->changes},
        {"lockstep_way_back_retained_bytes", "gauge",
         "Bytes of log that the target keeps for the way back.", w->retained_bytes},
        {"lockstep_way_back_parked", "gauge", "Tables that the way back does not carry now.",
         (int64_t)w->nparked},
    };

    for (size_t i = 0; i < sizeof(simple) / sizeof(simple[0]); i++)
        add_simple(out, &simple[i]);
}

static void add_foreign(struct buf *out, const struct observation *o)
{
    static const char *const names[] = {[SIDE_SOURCE] = "source", [SIDE_TARGET] = "target"};

    head(out, "lockstep_foreign_transactions", "gauge",
         "Transactions that came past the seal of a closed side, not acknowledged.");
    for (int side = 0; side < 2; side++) {
        if (o->foreign[side].known)
            buf_addf(out, "lockstep_foreign_transactions{side=\"%s\"} %" PRIu64 "\n", names[side],
                     o->foreign[side].open);
    }
}

void metrics_render(const struct page_about *about, const struct observation *o, struct buf *out)
{
    head(out, "lockstep_up", "gauge", "1: the migration's facts can be read on the target.");
    buf_adds(out, "lockstep_up{migration=\"");
    add_label(out, about->migration);
    buf_addf(out, "\"} %d\n", o != NULL);
    if (!o)
        return;
    const struct metric simple[] = {
        {"lockstep_changes_applied_total", "counter",
         "Changes applied to the target since the migration began.", o->changes},
        {"lockstep_journal_records_total", "counter",
         "Records that the journal has taken since the migration began.", o->journal_records},
        {"lockstep_journal_bytes", "gauge", "Bytes in the journal.", o->journal_bytes},
        {"lockstep_lag_bytes", "gauge", "Bytes of the source's log that are not applied yet.",
         o->lag_bytes},
        {"lockstep_retained_bytes", "gauge", "Bytes of log that the source keeps for lockstep.",
         o->retained_bytes},
        {"lockstep_copy_bytes_per_second", "gauge", "Bytes copied a second, at present.", o->rate},
        {"lockstep_warnings", "gauge", "Warnings that lockstep status would print.",
         (int64_t)o->nwarnings},
    };

    head(out, "lockstep_phase", "gauge", "The phase of the migration is the label's.");
    buf_addf(out, "lockstep_phase{phase=\"%s\"} 1\n", o->phase ? o->phase : "not_begun");
    for (size_t i = 0; i < sizeof(simple) / sizeof(simple[0]); i++)
        add_simple(out, &simple[i]);
    if (o->lag_seconds >= 0) {
        head(out, "lockstep_lag_seconds", "gauge", "Age of what the target shows.");
        buf_addf(out, "lockstep_lag_seconds %.3f\n", o->lag_seconds);
    }
    add_way_back(out, o->way_back);
    add_foreign(out, o);
    add_lanes(out, o);
    add_per_table(out, o, "lockstep_table_rows_copied", "Rows copied by the snapshot.", rows_of);
    add_per_table(out, o, "lockstep_table_bytes_copied", "Bytes copied by the snapshot.", bytes_of);
}
