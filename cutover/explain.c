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
    if (!exists && r->back) {
        err_set(e, ERR_REFUSED, "there is no way back: the source knows of none");
        err_hint(e, "lockstep cutover makes one before it closes the source");
        goto out;
    }
    if (!exists) {
        err_set(e, ERR_REFUSED,
                "the target knows nothing of this migration: it has not begun, or "
                "is finished");
        err_hint(e, "lockstep run begins it");
        goto out;
    }
    if (state_load(c, e) < 0 || other_load(c, e) < 0 || other_resolve(c, e) < 0)
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

/* ---- the page ---- */

static const char *const page_head[] = {
    "# The switch",
    "",
    "This page is generated from the table of states: `lockstep docs cutover`. `lockstep cutover "
    "--dry-run` prints the same rows with how their guards stand now.",
    "",
    "`lockstep cutover` closes the source and opens the target; `lockstep rollback` is the same "
    "road "
    "in the other direction, with everything written since; then `cutover` again, as often as one "
    "likes. What follows speaks of the cutover. Before `closed` any "
    "failure, timeout (`--max-pause`), or new coordinator undoes in reverse order: the source is "
    "open again, the target stays sealed, the state is `prepared`. From `closed` on the road goes "
    "only forward. `lockstep cutover` said again goes on, or takes back first, whatever happened "
    "to "
    "the one before; said once more at the end it is a no-op with the same answer.",
    "",
    "What applications see: from `fenced` on a PostgreSQL source refuses writes with 40001 (retry "
    "in 100 ms), from the seal on with 25006 (reconnect to the new server); transactions that have "
    "written may still commit for 100 ms, then their sessions are ended. MySQL and MariaDB answer "
    "1290 (the server runs with read_only) from `fenced` on, also to the COMMIT of a transaction "
    "that has written; where the seal locks the accounts in `fence.accounts`, their sessions are "
    "ended and they cannot log in any more. Nothing that was acknowledged is lost.",
    "",
    "The way back is made at `prepared`, on the sealed target, before its first write: publication "
    "and slot `lockstep_<migration>_back` there, facts on the source, a journal beside the other "
    "(`.back`). The running process carries it from then on, and no write is refused before a "
    "marker "
    "has travelled it. It needs `wal_level = logical` and a role with REPLICATION on the target, "
    "and "
    "on the source the right to set `session_replication_role`: `check` warns, and the cutover "
    "goes "
    "on without, and says so. After a rollback the target stays sealed and is kept up to date as "
    "before. `lockstep finish` ends the migration on whichever side lives.",
    "",
    "If every coordinator dies before the seal, the source opens by itself when the lease "
    "(`cutover.lease`) ends. If it dies behind the seal, neither side takes writes until the next "
    "`lockstep cutover`: safe, and not live.",
    "",
    "```",
};
static const char *const page_tail[] = {
    "",
    "## The hook",
    "",
    "`cutover.on_switch` is run by `/bin/sh` in the folder of the configuration, when the target "
    "takes writes already and the source never will again; it may take 60 s. It may be run again "
    "(after a kill, or if it failed), so it must be idempotent. In its environment: "
    "`LOCKSTEP_MIGRATION`, `LOCKSTEP_DIRECTION` (forward or back), `LOCKSTEP_SOURCE` and "
    "`LOCKSTEP_TARGET` (as configured, without passwords), `LOCKSTEP_FROM` and `LOCKSTEP_TO` (the "
    "side that was closed, and the one that takes the writes), `LOCKSTEP_POSITION`, "
    "`LOCKSTEP_EPOCH`, `LOCKSTEP_PAUSE_MS`. If it fails, "
    "the cutover exits 1, but is made: move the traffic by hand, or say `lockstep cutover` again.",
    "",
    "## Writes on a side that is closed",
    "",
    "Whoever may switch a fence off can write on the closed side all the same. Such a transaction "
    "is "
    "foreign: it is never carried to the side that lives. `lockstep status` warns of it (and "
    "`--json`, `/metrics`, the log), with position, number and time of the transaction, tables, "
    "how "
    "many rows, and a key of each; the first 20 are kept. The next switch in the other direction "
    "refuses (exit 4) before it begins, because it would open the side on which those rows stand. "
    "Carry over by hand what is to live, or give it up: then `--accept-foreign` leaves them where "
    "they are, and `lockstep verify` shows what differs from then on.",
    "",
    "## The quiet pair",
    "",
    "At `settled` the small tables of both sides are compared by a digest, as many as fit into 50 "
    "ms "
    "of the pause; the record names those that were left out. A difference undoes the switch: "
    "`lockstep verify` names the rows.",
    "",
    "## Sequences",
    "",
    "Each is set beyond what the closing side gave: 100 steps, and 16 blocks where sessions take "
    "numbers by blocks (CACHE), since no fence refuses `nextval`. Near its end the margin takes at "
    "most the half of what is left (`sequences_tight` in the record). One that counts down is "
    "followed by an AUTO_INCREMENT above its highest number, and goes on below on the way back. "
    "What no column of the other side counts is named (`sequences_left_out`): sequences without a "
    "column between engines, and MariaDB's sequence objects, of which `check` warns.",
    "",
    "## The record",
    "",
    "`cutover-<migration>.json` (or `rollback-…`) beside the configuration: position, sequence "
    "values, whom the "
    "fence "
    "waited for, the duration of each step and of the pause; after a failure why it was undone.",
};

void cutover_print_page(void (*emit)(const char *line, void *ctx), void *ctx)
{
    char line[1000] = "  none";

    for (size_t i = 0; i < sizeof(page_head) / sizeof(page_head[0]); i++)
        emit(page_head[i], ctx);
    for (size_t i = 0; i < cutover_row_count; i++)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), " -> %s",
                 cutover_state_name(cutover_rows[i].to));
    emit(line, ctx);
    emit("            ^__ undo, before closed __|", ctx);
    emit("```", ctx);
    emit("", ctx);
    emit("| to | does | undone by | why |", ctx);
    emit("|---|---|---|---|", ctx);
    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *row = &cutover_rows[i];

        snprintf(line, sizeof(line), "| `%s` | %s | %s | %s |", cutover_state_name(row->to),
                 row->does, row->undoes ? row->undoes : "-", row->why);
        emit(line, ctx);
    }
    for (size_t i = 0; i < sizeof(page_tail) / sizeof(page_tail[0]); i++)
        emit(page_tail[i], ctx);
}
