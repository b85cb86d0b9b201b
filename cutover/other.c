/* The two directions and their rows.
 *
 * The forward row stands on the target, the back row on the source. Normally at most one of them is
 * not `none` or `prepared`: a direction that has switched sets the other's row back. Died in
 * between, both say `switched`, and the higher epoch is the later switch.
 *
 * The dangerous interleaving: a coordinator of one direction hangs, one of the other begins, and
 * the first goes on. Each takes both rows when it begins, the forward row first; so whoever was
 * there before finds its own row moved by a version, and can record no further step. The back row
 * may not be there yet, and cannot be moved then: so each, when its own row is written, looks
 * whether the other one still is as it was; of two that write and then look, one sees the other. */
#include "cutover/internal.h"
#include "core/log.h"

#include <string.h>

static const char *other_direction(const struct cutover *c)
{
    return migration_stream(c->turn);
}

int other_load(struct cutover *c, struct err *e)
{
    struct other_row *o = &c->other;
    bool exists = false;
    int state;

    json_decref(o->body);
    memset(o, 0, sizeof(*o));
    if (!c->closing || (!c->r->way_back && !c->r->back))
        return 0;
    if (c->closing->engine->control_exists(c->closing, &exists, e) < 0)
        return -1;
    if (exists &&
        fact_read(c->closing, "cutover", other_direction(c), &o->body, &o->version, e) < 0)
        return -1;
    state = o->body ? cutover_state_parse(fact_text(o->body, "state")) : CUTOVER_NONE;
    if (state < 0)
        return err_set(e, ERR_FATAL, "control fact cutover %s has no known state",
                       other_direction(c));
    o->known = true;
    o->state = (enum cutover_state)state;
    o->epoch = (uint32_t)fact_int(o->body, "epoch", 0);
    return 0;
}

bool other_closed_it(const struct cutover *c)
{
    return c->other.known && c->other.state == CUTOVER_SWITCHED;
}

static bool other_is_under_way(const struct cutover *c)
{
    const struct other_row *o = &c->other;
    const char *going = fact_text(o->body, "going");

    if (!o->known || (going && strcmp(going, "prepared") == 0 && o->state <= CUTOVER_PREPARED))
        return false;
    return going || (o->state > CUTOVER_PREPARED && o->state < CUTOVER_SWITCHED);
}

/* What the row said of a switch that was taken back since. */
static void begin_anew(struct cutover *c)
{
    json_t *epoch = json_incref(json_object_get(c->body, "epoch"));

    json_object_clear(c->body);
    if (epoch)
        json_object_set_new(c->body, "epoch", epoch);
    /* As other_reset() writes it, which may have failed. */
    note(c, "passed_by", json_integer(c->other.epoch));
    c->state = CUTOVER_NONE;
}

int other_refuse_unmade(struct err *e)
{
    err_set(e, ERR_REFUSED, "the cutover has not been made: there is nothing to roll back");
    return err_hint(e, "lockstep status tells how things stand");
}

int other_resolve(struct cutover *c, struct err *e)
{
    const char *theirs = c->r->back ? "cutover" : "rollback";
    uint32_t own = (uint32_t)fact_int(c->body, "epoch", 0);

    if (other_is_under_way(c)) {
        err_set(e, ERR_REFUSED, "a %s is under way (%s)", theirs,
                cutover_state_name(c->other.state));
        return err_hint(e, "lockstep %s goes on, or takes back what it began", theirs);
    }
    if (c->state == CUTOVER_SWITCHED && other_closed_it(c) && c->other.epoch > own)
        begin_anew(c);
    if (!c->r->back || c->state >= CUTOVER_CLOSED || other_closed_it(c))
        return 0;
    return other_refuse_unmade(e);
}

int other_take(struct cutover *c, struct err *e)
{
    struct other_row *o = &c->other;

    if (!o->known || o->version == FACT_ABSENT)
        return 0;
    if (fact_cas(c->closing, "cutover", other_direction(c), o->version, json_incref(o->body), e) <
        0)
        return -1;
    o->version++;
    return 0;
}

int other_hold(struct cutover *c, struct err *e)
{
    int64_t version = FACT_ABSENT;
    json_t *body = NULL;
    bool exists = false;

    if (!c->other.known)
        return 0;
    if (c->closing->engine->control_exists(c->closing, &exists, e) < 0 ||
        (exists && fact_read(c->closing, "cutover", other_direction(c), &body, &version, e) < 0))
        return -1;
    json_decref(body);
    if (version == c->other.version)
        return 0;
    return err_set(e, ERR_FENCED, "a coordinator of the other direction began at the same time");
}

void other_reset(struct cutover *c)
{
    struct other_row *o = &c->other;
    struct err e = {0};
    json_t *body;

    if (!other_closed_it(c) || !c->closing)
        return;
    body = json_pack("{s:s, s:I, s:I, s:s}", "state", cutover_state_name(CUTOVER_NONE), "epoch",
                     (json_int_t)o->epoch, "passed_by", (json_int_t)c->epoch, "token", "");
    if (fact_cas(c->closing, "cutover", other_direction(c), o->version, body, &e) < 0) {
        log_err(LOG_WARN, "cutover", "other-row-stays", &e);
        return;
    }
    o->version++;
}
