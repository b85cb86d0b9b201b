/* --dry-run: the road from here, printed from the rows. */
#include "cutover/internal.h"

#include <stdio.h>
#include <string.h>

static int explain_checks(struct cutover *c, unsigned guard, bool now, bool *holds, struct err *e)
{
    for (size_t i = 0; i < CUTOVER_CHECKS; i++) {
        struct check_result r = {0};

        if (!(guard & cutover_checks[i].bit))
            continue;
        if (!now) {
            say(c, "    then checks: %s", cutover_checks[i].name);
            continue;
        }
        if (cutover_checks[i].look(c, &r, e) < 0)
            return -1;
        say(c, "    %s %s: %s", r.holds ? "holds  " : "REFUSES", cutover_checks[i].name, r.text);
        if (!r.holds)
            *holds = false;
    }
    return 0;
}

static int explain_row(struct cutover *c, const struct cutover_row *row, bool *ready, struct err *e)
{
    bool done = row->to <= c->state && !(row->again && c->state == CUTOVER_PREPARED);

    say(c, "%s -> %s%s", cutover_state_name(row->from), cutover_state_name(row->to),
        done ? " (done)" : "");
    say(c, "    does: %s", row->does);
    say(c, "    why:  %s", row->why);
    say(c, "    undo: %s", row->undoes ? row->undoes : "none, the road goes only forward");
    if (done)
        return 0;
    return explain_checks(c, row->guard, row->from == CUTOVER_NONE, ready, e);
}

int cutover_explain(const struct cutover_request *r, bool *ready, struct err *e)
{
    struct cutover *c = cutover_open(r);
    bool exists = false;
    int rc = -1;

    *ready = true;
    if (connect_sides(c, e) < 0 || c->opening->engine->control_exists(c->opening, &exists, e) < 0)
        goto out;
    if (!exists) {
        err_set(e, ERR_REFUSED,
                "the target knows nothing of this migration: it has not begun, or "
                "is finished");
        err_hint(e, "lockstep run begins it");
        goto out;
    }
    if (state_load(c, e) < 0)
        goto out;
    say(c, "state: %s", cutover_state_name(c->state));
    for (size_t i = 0; i < cutover_row_count; i++) {
        if (explain_row(c, &cutover_rows[i], ready, e) < 0)
            goto out;
    }
    rc = 0;
out:
    cutover_close(c);
    return rc;
}
