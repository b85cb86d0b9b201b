/* The checkpoint: one row per stream, moved only by compare-and-set inside the target transaction
 * whose rows it speaks for.
 *
 * Two applies may believe that they own the stream: one hangs in a system call, its lease ends, a
 * second takes over. Taking over raises the row's version, so the first one's next transaction
 * finds another version in checkpoint_hold (or waits there for the row lock, and then finds it) and
 * is rolled back with its rows. Nothing is applied twice, whoever is late. */
#include "control/facts.h"

#include <stdio.h>
#include <string.h>

static json_t *checkpoint_json(const struct checkpoint *c)
{
    return json_pack("{s:o, s:I, s:I, s:I, s:s, s:I, s:I, s:I, s:b, s:I}", "next",
                     position_json(c->next), "record", (json_int_t)c->record, "generation",
                     (json_int_t)c->generation, "epoch", (json_int_t)c->epoch, "marker", c->marker,
                     "ts_us", (json_int_t)c->ts_us, "txns", (json_int_t)c->txns, "changes",
                     (json_int_t)c->changes, "shut", c->turns.shut, "turn",
                     (json_int_t)c->turns.epoch);
}

static int checkpoint_parse(const json_t *body, struct checkpoint *out, struct err *e)
{
    const char *marker = fact_text(body, "marker");

    if (fact_position(body, "next", &out->next, e) < 0)
        return -1;
    out->record = (uint64_t)fact_int(body, "record", 0);
    out->generation = (uint32_t)fact_int(body, "generation", 0);
    out->epoch = (uint32_t)fact_int(body, "epoch", 0);
    out->ts_us = fact_int(body, "ts_us", 0);
    out->txns = (uint64_t)fact_int(body, "txns", 0);
    out->changes = (uint64_t)fact_int(body, "changes", 0);
    out->turns.shut = fact_bool(body, "shut");
    out->turns.epoch = (uint32_t)fact_int(body, "turn", 0);
    snprintf(out->marker, sizeof(out->marker), "%s", marker ? marker : "");
    return 0;
}

int checkpoint_load(struct db *db, const char *stream, struct checkpoint *out, struct err *e)
{
    json_t *body;
    int status;

    memset(out, 0, sizeof(*out));
    if (fact_read(db, "checkpoint", stream, &body, &out->version, e) < 0)
        return -1;
    if (!body)
        return 0;
    status = checkpoint_parse(body, out, e);
    json_decref(body);
    return status < 0 ? -1 : 1;
}

int checkpoint_take(struct db *db, const char *stream, const struct checkpoint *start,
                    struct checkpoint *out, struct err *e)
{
    int found = checkpoint_load(db, stream, out, e);

    if (found < 0)
        return -1;
    if (!found) {
        *out = *start;
        out->version = FACT_ABSENT;
    }
    out->generation++;
    if (fact_cas(db, "checkpoint", stream, out->version, checkpoint_json(out), e) < 0)
        return -1;
    out->version++;
    return 0;
}

int checkpoint_hold(struct db *db, const char *stream, const struct checkpoint *mine, struct err *e)
{
    struct fact fact = {0};
    int found = db->engine->fact_get(db, "checkpoint", stream, true, &fact, e);

    if (found < 0)
        return err_wrap(e, "checkpoint %s", stream);
    json_decref(fact.body);
    if (!found || fact.version != mine->version)
        return err_set(e, ERR_FENCED, "checkpoint %s was taken over by another apply", stream);
    return 0;
}

int checkpoint_advance(struct db *db, const char *stream, const struct checkpoint *mine,
                       struct checkpoint *to, struct err *e)
{
    invariant(position_cmp(to->next, mine->next) >= 0 && to->record >= mine->record);
    invariant(to->generation == mine->generation);
    if (fact_cas(db, "checkpoint", stream, mine->version, checkpoint_json(to), e) < 0)
        return -1;
    to->version = mine->version + 1;
    return 0;
}
