#include "observe/token.h"

#include "observe/observe.h"

#include <stdio.h>
#include <string.h>

/* ---- which way ---- */

static int need(bool there, const char *what, const char *hint, struct err *e)
{
    if (there)
        return 0;
    err_set(e, ERR_REFUSED, "%s", what);
    return err_hint(e, "%s", hint);
}

static bool is_turning(const json_t *row)
{
    const char *state = fact_text(row, "state");

    return state && strcmp(state, "closed") == 0;
}

static int64_t last_epoch(const json_t *cutover, const json_t *rollback)
{
    int64_t a = fact_int(cutover, "epoch", 0);
    int64_t b = fact_int(rollback, "epoch", 0);

    return a > b ? a : b;
}

/* Is there a stream whose facts stand on db? */
static int has_stream(struct db *db, bool *out, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct stream_fact stream = {0};
    int rc = stream_fact_load(db, &a, &stream, e);

    *out = stream.state == STREAM_CREATED;
    arena_release(&a);
    return rc;
}

int token_road_find(struct db *target, struct db *source, struct token_road *out, struct err *e)
{
    struct phase_facts f = {.begun = true};
    json_t *cutover = NULL;
    json_t *rollback = NULL;
    json_t *self = NULL;
    bool begun = false;
    bool returns = false; /* the source has facts */
    bool follows = false;
    int rc = -1;

    if (target->engine->control_exists(target, &begun, e) < 0 ||
        (begun && fact_read(target, "migration", "self", &self, NULL, e) < 0) ||
        need(self != NULL, "the target knows nothing of this migration", "lockstep run begins it",
             e) < 0 ||
        source->engine->control_exists(source, &returns, e) < 0 ||
        fact_read(target, "cutover", "forward", &cutover, NULL, e) < 0 ||
        (returns && fact_read(source, "cutover", "back", &rollback, NULL, e) < 0))
        goto out;
    /* The side that opens may take writes already, and the row not tell it yet. */
    if (need(!is_turning(cutover) && !is_turning(rollback), "a switch is just being made",
             "ask again behind it; lockstep status tells how far it is", e) < 0)
        goto out;
    observe_switches(cutover, rollback, &f);
    out->back = observe_is_back(&f);
    out->epoch = last_epoch(cutover, rollback);
    out->from = out->back ? target : source;
    out->to = out->back ? source : target;
    if ((!out->back || returns) && has_stream(out->to, &follows, e) < 0)
        goto out;
    rc = need(follows,
              out->back ? "there is no way back: nothing carries to the source what is written"
                        : "nothing is copied yet",
              out->back ? "read from the target" : "lockstep status tells how far it is", e);
out:
    json_decref(cutover);
    json_decref(rollback);
    json_decref(self);
    return rc;
}

const char *token_written(const struct token_road *r)
{
    return r->back ? "target" : "source";
}

const char *token_read(const struct token_road *r)
{
    return r->back ? "source" : "target";
}

/* ---- the token ---- */

static int find_position(const struct token_road *r, const char *text, struct position *out,
                         struct err *e)
{
    const struct engine *engine = r->from->engine;

    if (text)
        return engine->position_find(r->from, text, out, e);
    return engine->current_position(r->from, out, e) < 0 ? -1 : 1;
}

int token_find(const struct token_road *r, const char *text, const char *of, struct token *out,
               struct err *e)
{
    int rc;

    *out = (struct token){.reached = of && strcmp(of, token_written(r)) != 0};
    if (out->reached)
        return 1;
    rc = find_position(r, text, &out->at, e);
    if (rc < 0)
        return err_wrap(e, "a position of the %s", token_written(r));
    if (rc > 0)
        r->from->engine->position_text(out->at, out->text, sizeof(out->text));
    return rc;
}

/* ---- is it reached? ---- */

static void add_table(struct token_state *s, const struct lane *lane)
{
    size_t len = strlen(s->tables);

    snprintf(s->tables + len, sizeof(s->tables) - len, "%s%s (%s%s%s)", len ? ", " : "",
             lane->label, lane_state_name(lane->state), lane->reason ? ": " : "",
             lane->reason ? lane->reason : "");
    s->parked = s->parked || lane->state == LANE_PARKED;
}

static int look_at_tables(const struct token_road *r, struct token_state *out, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct lane_list lanes;
    int rc = lanes_load(r->to, &a, &lanes, e);

    for (size_t i = 0; rc == 0 && i < lanes.n; i++) {
        if (lanes.v[i].state != LANE_FOLLOWING)
            add_table(out, &lanes.v[i]);
    }
    if (out->tables[0])
        out->verdict = TOKEN_TABLES;
    arena_release(&a);
    return rc;
}

int token_look(const struct token_road *r, const struct token *t, struct token_state *out,
               struct err *e)
{
    struct checkpoint c;
    int found = checkpoint_load(r->to, "forward", &c, e);

    *out = (struct token_state){.verdict = TOKEN_NOT_YET};
    if (found < 0)
        return -1;
    if (found) {
        out->next = c.next;
        r->from->engine->position_text(c.next, out->consistent, sizeof(out->consistent));
    }
    if (t->reached)
        out->verdict = TOKEN_REACHED;
    if (t->reached || !found || position_cmp(c.next, t->at) < 0)
        return 0;
    out->verdict = TOKEN_REACHED;
    return look_at_tables(r, out, e);
}
