/* The table of states. The driver, --dry-run, the diagram in the docs and the tests come from it.
 */
#include "cutover/internal.h"

#include <string.h>

static const char *const state_names[CUTOVER_STATES] = {
    [CUTOVER_NONE] = "none",        [CUTOVER_PREPARED] = "prepared", [CUTOVER_FENCED] = "fenced",
    [CUTOVER_DRAINED] = "drained",  [CUTOVER_SETTLED] = "settled",   [CUTOVER_CLOSED] = "closed",
    [CUTOVER_SWITCHED] = "switched"};

const char *cutover_state_name(enum cutover_state s)
{
    invariant((unsigned)s < CUTOVER_STATES);
    return state_names[s];
}

int cutover_state_parse(const char *name)
{
    for (int i = 0; name && i < CUTOVER_STATES; i++) {
        if (strcmp(name, state_names[i]) == 0)
            return i;
    }
    return -1;
}

const struct cutover_row cutover_rows[] = {
    {.from = CUTOVER_NONE,
     .to = CUTOVER_PREPARED,
     .again = true,
     .guard = CHECK_LOADED | CHECK_LANES | CHECK_STAGES | CHECK_LAG | CHECK_QUIET |
              CHECK_CLOSING_OPEN | CHECK_FOREIGN | CHECK_FENCES | CHECK_SHAPES | CHECK_HOOK,
     .step = step_prepare,
     .undo = undo_prepare,
     .does = "arm the fences of both sides, seal the side that opens, copy the sequences ahead, "
             "position the way back on it and see that it carries, measure what the pause will be "
             "made of and predict it",
     .undoes = "take the way back away, lift the opening side's seal (a side that a switch has "
               "closed keeps both)",
     .why = "everything slow is done while the applications still write"},
    {.from = CUTOVER_PREPARED,
     .to = CUTOVER_FENCED,
     .guard = CHECK_LANES | CHECK_STAGES | CHECK_QUIET | CHECK_CLOSING_OPEN | CHECK_OPENING_SEALED |
              CHECK_FOREIGN | CHECK_FENCES | CHECK_SHAPES,
     .step = step_fence,
     .undo = undo_fence,
     .does = "fence the closing side by a lease that the server ends by itself, wait for exactly "
             "the transactions that write, set the first marker",
     .undoes = "lift the closing side's fence",
     .why = "from here on writes are refused with a retryable error: the pause begins"},
    {.from = CUTOVER_FENCED,
     .to = CUTOVER_DRAINED,
     .guard = CHECK_IN_TIME,
     .step = step_drain,
     .undo = undo_nothing,
     .does = "wait until apply is past the first marker",
     .undoes = "nothing: waiting changed nothing",
     .why = "nearly all that is to be applied is applied while the fence can still lapse"},
    {.from = CUTOVER_DRAINED,
     .to = CUTOVER_SETTLED,
     .guard = CHECK_IN_TIME | CHECK_LANES,
     .step = step_settle,
     .undo = undo_nothing,
     .does = "copy the sequences, compare the small tables of the quiet pair by a digest",
     .undoes = "nothing: the sequences of a sealed side are set again before it opens",
     .why = "so that only what moved meanwhile is left to be set behind the seal"},
    {.from = CUTOVER_SETTLED,
     .to = CUTOVER_CLOSED,
     .guard = CHECK_IN_TIME | CHECK_LANES,
     .beside = CHECK_OPENING_SEALED | CHECK_FOREIGN,
     .step = step_close,
     .undo = undo_fence,
     .does =
         "seal the closing side for good, wait for writers again unless its server tells that "
         "the lease has held, set the second marker, read the sequences again, see that nothing "
         "came past the other seal, wait until apply is past the marker, set the sequences",
     .undoes = "lift the closing side's seal",
     .why = "safety rests on this alone: an early lapse of the lease lies before the second "
            "marker, so it is drained"},
    {.from = CUTOVER_CLOSED,
     .to = CUTOVER_SWITCHED,
     .step = step_switch,
     .does = "open the side that opens, then run the on_switch hook, which moves the traffic",
     .why = "behind a durable `closed` there is no way but forward"},
};
const size_t cutover_row_count = sizeof(cutover_rows) / sizeof(cutover_rows[0]);

const struct cutover_row *cutover_row_from(enum cutover_state s)
{
    for (size_t i = 0; i < cutover_row_count; i++) {
        if (cutover_rows[i].from == s)
            return &cutover_rows[i];
    }
    return NULL;
}

/* Undone: what was prepared stays, unless it was the preparation that failed. */
static bool undo_leads(enum cutover_state from, enum cutover_state to)
{
    if (from >= CUTOVER_CLOSED)
        return false;
    return to == CUTOVER_NONE ? from <= CUTOVER_PREPARED
                              : to == CUTOVER_PREPARED && from >= CUTOVER_PREPARED;
}

bool cutover_pair_is_legal(enum cutover_state from, enum cutover_state to)
{
    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *r = &cutover_rows[i];

        if (r->to == to && (r->from == from || (r->again && from == to)))
            return true;
    }
    return undo_leads(from, to);
}
