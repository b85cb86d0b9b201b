/* The state row: read, taken over, and moved by one setter. */
#include "cutover/internal.h"
#include "control/foreign.h"

#include <stdio.h>
#include <string.h>

int state_load(struct cutover *c, struct err *e)
{
    json_t *body;
    int state;

    if (fact_read(c->opening, "cutover", c->road.direction, &body, &c->version, e) < 0)
        return -1;
    state = body ? cutover_state_parse(fact_text(body, "state")) : CUTOVER_NONE;
    if (state < 0) {
        json_decref(body);
        return err_set(e, ERR_FATAL, "control fact cutover %s has no known state",
                       c->road.direction);
    }
    json_decref(c->body);
    c->body = body ? body : json_object();
    c->state = (enum cutover_state)state;
    return 0;
}

const char *state_going(const struct cutover *c)
{
    return fact_text(c->body, "going");
}

static int write_row(struct cutover *c, enum cutover_state state, const char *going, struct err *e)
{
    note(c, "going", going ? json_string(going) : json_null());
    note(c, "epoch", json_integer(c->epoch));
    note(c, "token", json_string(c->token));
    note(c, "holder", json_string(c->r->m->holder ? c->r->m->holder : ""));
    note(c, "state", json_string(cutover_state_name(state)));
    if (fact_cas(c->opening, "cutover", c->road.direction, c->version, json_incref(c->body), e) < 0)
        return -1;
    c->version++;
    c->state = state;
    return 0;
}

/* An epoch above both rows' and above both fences', whatever they have seen before. The forward row
 * is taken first, by either direction. */
int state_take(struct cutover *c, struct err *e)
{
    struct fence_state fence = {0};
    struct db *sides[2] = {c->opening, c->closing};
    uint32_t epoch = (uint32_t)fact_int(c->body, "epoch", 0);
    char going[20];

    if (c->other.epoch > epoch)
        epoch = c->other.epoch;
    for (int i = 0; i < 2; i++) {
        if (!sides[i])
            continue;
        if (sides[i]->engine->fence_state(sides[i], &fence, e) < 0)
            return -1;
        if (fence.epoch > epoch)
            epoch = fence.epoch;
    }
    c->epoch = epoch + 1;
    switch_token(c->token, sizeof(c->token), c->epoch, c->r->m->name, c->r->m->holder);
    snprintf(going, sizeof(going), "%s", state_going(c) ? state_going(c) : "");
    if (c->r->back && other_take(c, e) < 0)
        return -1;
    if (c->r->back)
        test_point("take", "between");
    if (write_row(c, c->state, going[0] ? going : NULL, e) < 0)
        return -1;
    return c->r->back || other_take(c, e) == 0 ? other_hold(c, e) : -1;
}

int state_set(struct cutover *c, enum cutover_state state, const char *going, struct err *e)
{
    invariant(state == c->state || cutover_pair_is_legal(c->state, state));
    return write_row(c, state, going, e);
}

int state_hold(struct cutover *c, struct err *e)
{
    struct fact fact = {0};
    int found =
        c->opening->engine->fact_get(c->opening, "cutover", c->road.direction, true, &fact, e);

    if (found < 0)
        return err_wrap(e, "control fact cutover %s", c->road.direction);
    json_decref(fact.body);
    if (!found || fact.version != c->version)
        return err_set(e, ERR_FENCED, "another coordinator took the cutover over");
    return 0;
}

int state_check(struct cutover *c, struct err *e)
{
    int64_t version;
    json_t *body;

    if (!c->opening)
        return err_set(e, ERR_RETRY, "no connection to the side that opens");
    if (fact_read(c->opening, "cutover", c->road.direction, &body, &version, e) < 0)
        return -1;
    json_decref(body);
    if (version != c->version)
        return err_set(e, ERR_FENCED, "another coordinator took the cutover over");
    return 0;
}

void state_clear(struct cutover *c)
{
    json_decref(c->body);
    c->body = NULL;
    json_decref(c->other.body);
    c->other.body = NULL;
}
