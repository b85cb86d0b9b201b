/* The switch in two stages: the reads first, the writes later.
 *
 * `--stage reads` brings the road to `prepared` (again: it may be said as often as one likes), sees
 * a marker pass, and calls the hook for the reads alone; the state stays `prepared`, so nobody is
 * refused a write on the side that closes, and the row remembers under "reads" that reads were sent
 * ahead. What comes behind, in whatever order, is as without it: an undo leaves the reads where
 * they are, since the side that they went to goes on following, and says so; the switch calls the
 * hook for the writes, which moves whatever is not there yet.
 *
 * Said of the side on which the applications write, it is the way back of that: the reads follow
 * the writes, the row of the road that they had gone ahead on forgets them. That needs no guard,
 * for a read where one writes is always right. It is done even if the side that they were sent to
 * has died, which is when it is needed most: the fence of the side that they come back to tells
 * that it takes the writes.
 *
 * Killed anywhere: the row says that reads may have moved before the hook is called, and that they
 * have not only behind the call that took them back; so the next call runs the hook again. */
#include "cutover/internal.h"

#include <stdio.h>
#include <string.h>

/* ---- which road ---- */

static int source_takes_writes(struct cutover *c, struct err *e)
{
    struct fence_state f = {0};
    struct db *db = c->closing;

    if (db->engine->fence_state(db, &f, e) < 0)
        return -1;
    if (f.mode == FENCE_NONE || f.mode == FENCE_OPEN)
        return 0;
    err_set(e, ERR_REFUSED,
            "the target cannot be reached, and the source is %s: where the applications write "
            "cannot be told",
            f.mode == FENCE_SEALED ? "sealed" : "fenced");
    return err_hint(e, "start the target, then say it again");
}

/* The target is gone, and with it the row. */
static int plan_alone(struct cutover *c, struct cutover_request *r, bool to_source, struct err *e)
{
    struct err why = *e;

    if (!to_source || e->class != ERR_RETRY || connect_closing(c, e) < 0) {
        *e = why;
        return -1;
    }
    if (source_takes_writes(c, e) < 0)
        return -1;
    say(c, "the target cannot be reached (%s): the reads are taken back without it", why.msg);
    err_clear(e);
    r->stage = CUTOVER_STAGE_READS_BACK;
    r->alone = true;
    return 0;
}

/* The source is gone, and with it the row of the reads that had gone ahead to it. */
static int plan_on_target(struct cutover *c, struct cutover_request *r, bool to_source,
                          struct err *e)
{
    struct fence_state f = {0};
    struct err other = {0};

    if (to_source || e->class != ERR_RETRY || state_load(c, &other) < 0 ||
        c->state != CUTOVER_SWITCHED ||
        c->opening->engine->fence_state(c->opening, &f, &other) < 0 ||
        (f.mode != FENCE_NONE && f.mode != FENCE_OPEN))
        return -1;
    say(c, "the source cannot be reached (%s): the reads are taken back without it", e->msg);
    err_clear(e);
    r->stage = CUTOVER_STAGE_READS_BACK;
    r->alone = true;
    return 0;
}

int cutover_plan_reads(struct cutover_request *r, struct err *e)
{
    bool to_source = r->back;
    bool on_target = false;
    struct cutover *c;
    int rc;

    r->back = false;
    r->stage = CUTOVER_STAGE_READS;
    c = cutover_open(r);
    if (connect_opening(c, e) < 0) {
        rc = plan_alone(c, r, to_source, e);
        goto out;
    }
    if (connect_closing(c, e) < 0) {
        rc = plan_on_target(c, r, to_source, e);
        on_target = rc == 0;
        goto out;
    }
    rc = load_migration(c, e);
    on_target = rc == 0 && c->state == CUTOVER_SWITCHED;
    if (rc == 0 && on_target != to_source)
        r->stage = CUTOVER_STAGE_READS_BACK;
out:
    cutover_close(c);
    r->back = on_target;
    return rc;
}

/* ---- asked by the driver ---- */

static bool are_ahead(const struct cutover *c)
{
    return json_is_object(json_object_get(c->body, "reads"));
}

bool stage_is_over(const struct cutover *c)
{
    return c->r->stage == CUTOVER_STAGE_READS_BACK && !c->r->alone && !are_ahead(c) &&
           (c->state < CUTOVER_CLOSED || c->state == CUTOVER_SWITCHED);
}

int stage_demand(const struct cutover *c, struct err *e)
{
    const char *verb = c->r->back ? "rollback" : "cutover";

    if (c->r->stage == CUTOVER_STAGE_WRITES || c->state < CUTOVER_CLOSED)
        return 0;
    err_set(e, ERR_REFUSED, "the %s is %s: the reads go where the writes go", verb,
            cutover_state_name(c->state));
    return err_hint(e, "lockstep %s goes on", verb);
}

bool stage_is_due(const struct cutover *c)
{
    if (c->r->stage == CUTOVER_STAGE_READS)
        return c->prepared && !c->row;
    return c->r->stage == CUTOVER_STAGE_READS_BACK;
}

const char *stage_reads_at(const struct cutover *c)
{
    if (!are_ahead(c) || c->state >= CUTOVER_CLOSED)
        return NULL;
    return c->r->back ? "source" : "target";
}

/* ---- the step ---- */

static int record_reads(struct cutover *c, json_t *reads, struct err *e)
{
    note(c, "reads", reads);
    return c->r->alone ? 0 : state_set(c, c->state, NULL, e);
}

static json_t *describe(const struct cutover *c, const char *hook)
{
    const char *position = fact_text(c->body, "position");

    return json_pack("{s:s, s:s, s:s}", "at", c->r->back ? "source" : "target", "position",
                     position ? position : "", "hook", hook);
}

static int hook_failed(struct cutover *c, const char *failed, struct err *e)
{
    bool ahead = c->r->stage == CUTOVER_STAGE_READS;

    err_set(e, ERR_FATAL, "the on_switch hook failed to move the reads: %s", failed);
    return err_hint(e,
                    "mend it, then lockstep %s --stage reads again; until then some reads may go "
                    "to either side%s",
                    c->r->back == ahead ? "rollback" : "cutover",
                    ahead ? ", and both are kept up to date" : "");
}

int stage_step(struct cutover *c, struct err *e)
{
    bool ahead = c->r->stage == CUTOVER_STAGE_READS;
    char failed[200];

    if (ahead && record_reads(c, describe(c, "running"), e) < 0)
        return -1;
    /* What is told of the position must outlive a crash. */
    if (ahead && c->opening->engine->sync(c->opening, e) < 0)
        return -1;
    test_point("reads", "before");
    if ((!c->r->alone && state_check(c, e) < 0) || hook_run(c, failed, sizeof(failed), e) < 0)
        return -1;
    test_point("reads", "after");
    if (failed[0]) {
        if ((ahead || are_ahead(c)) && record_reads(c, describe(c, failed), e) < 0)
            return -1;
        return hook_failed(c, failed, e);
    }
    note(c, "hook", json_string(c->r->on_switch ? "done" : "none"));
    if (record_reads(c, ahead ? describe(c, c->r->on_switch ? "done" : "none") : json_null(), e) <
        0)
        return -1;
    return 1;
}
