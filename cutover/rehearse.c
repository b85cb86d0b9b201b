/* The rehearsal: `prepared` and then both drains with their sequences, by the same code, with the
 * applications writing all the while. Nothing is flipped, sealed or installed on the side that
 * closes, the side that opens is not opened beyond what it was, and no hook is run.
 *
 * To every other coordinator it looks like a preparation: the row's intent is `prepared` from its
 * begin to its end, its undo included, and the state does not move. So whoever comes after one that
 * was killed (a cutover, a rollback, another rehearsal) goes by the rule for a preparation that was
 * not finished: it is done again, and taken back if it is not to stay. At the end things are as
 * they were found: from `none` the preparation is taken back, a `prepared` that an earlier cutover
 * left stays as it is. */
#include "cutover/internal.h"
#include "core/run.h"

#include <stdio.h>
#include <string.h>

static int mark(struct cutover *c, struct err *e)
{
    char suffix[20];

    snprintf(suffix, sizeof(suffix), "r%d", c->leg);
    return mark_closing(c, suffix, e) < 0 ? -1 : 1;
}

static int begin_pause(struct cutover *c, struct err *e)
{
    return checks_demand(c, cutover_row_from(CUTOVER_PREPARED)->guard, e) < 0 ? -1 : mark(c, e);
}

static int settle_again(struct cutover *c, struct err *e)
{
    return checks_demand(c, CHECK_LANES, e) < 0 ? -1 : step_settle(c, e);
}

static const struct leg {
    const char *name;
    int (*step)(struct cutover *c, struct err *e); /* as a row's */
} legs[] = {
    {"prepared", step_prepare},      {"marked", begin_pause}, {"drained", step_drain},
    {"settled", step_settle},        {"marked again", mark},  {"drained again", step_drain},
    {"settled again", settle_again},
};
#define LEGS ((int)(sizeof(legs) / sizeof(legs[0])))

static int step_rehearse(struct cutover *c, struct err *e)
{
    int64_t took;
    int rc;

    if (c->leg_ms == 0)
        c->leg_ms = mono_ms();
    rc = legs[c->leg].step(c, e);
    took = mono_ms() - c->leg_ms;
    if (rc == 0 && c->leg > 0 && took > c->r->max_pause_ms)
        return marker_too_late(c, e);
    if (rc <= 0)
        return rc;
    note_step(c, legs[c->leg].name, took);
    say(c, "%-13s %6lld ms", legs[c->leg].name, (long long)took);
    c->leg_ms = 0;
    c->stage = 0;
    return ++c->leg == LEGS;
}

/* Its undo is that of the table's first row (driver.c). */
const struct cutover_row rehearsal_row = {
    .from = CUTOVER_NONE,
    .to = CUTOVER_PREPARED,
    .again = true,
    .guard = CHECK_LOADED | CHECK_LANES | CHECK_STAGES | CHECK_LAG | CHECK_QUIET |
             CHECK_CLOSING_OPEN | CHECK_FENCES | CHECK_SHAPES | CHECK_HOOK,
    .step = step_rehearse,
    .undo = undo_prepare,
    .does = "everything but the fence on the side that closes, then back to how it was",
    .undoes = "as `prepared`",
    .why = "the pause is known before anybody is refused a write"};

int rehearsal_allowed(const struct cutover *c, struct err *e)
{
    const char *going = state_going(c);
    const char *verb = c->r->back ? "rollback" : "cutover";

    if (c->state == CUTOVER_SWITCHED) {
        err_set(e, ERR_REFUSED, "the %s has been made: there is nothing to rehearse", verb);
        return err_hint(e, "lockstep %s --rehearse rehearses the other direction",
                        c->r->back ? "cutover" : "rollback");
    }
    if (c->state <= CUTOVER_PREPARED && (!going || strcmp(going, "prepared") == 0))
        return 0;
    err_set(e, ERR_REFUSED, "a %s has not been finished (%s%s%s)", verb,
            cutover_state_name(c->state), going ? ", on its way to " : "", going ? going : "");
    return err_hint(e, "lockstep %s goes on, or takes back first what was begun", verb);
}
