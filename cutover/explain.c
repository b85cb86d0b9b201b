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

/* That of the last rehearsal, or of the last attempt. */
static void explain_prediction(struct cutover *c)
{
    const char *at = fact_text(json_object_get(c->body, "predicted"), "at");
    char text[100];

    if (cutover_predicted_text(c->body, text, sizeof(text)))
        say(c, "last prediction of the pause: %s%s%s", text, at ? ", at " : "", at ? at : "");
}

/* Without its row nothing is to be asked: the reads come back to where the writes are. */
static int explain_reads_back(struct cutover *c)
{
    say(c, "runs the on_switch hook with LOCKSTEP_STAGE=reads and LOCKSTEP_DIRECTION=%s",
        c->r->back ? "forward" : "back");
    return 0;
}

static int explain_rows(struct cutover *c, bool *ready, struct err *e)
{
    bool reads = c->r->stage == CUTOVER_STAGE_READS;

    for (size_t i = 0; i < cutover_row_count; i++) {
        if (reads && cutover_rows[i].to > CUTOVER_PREPARED)
            break;
        if (explain_row(c, &cutover_rows[i], ready, e) < 0)
            return -1;
    }
    if (reads)
        say(c, "then the on_switch hook with LOCKSTEP_STAGE=reads; the state stays prepared");
    return 0;
}

int cutover_explain(const struct cutover_request *r, bool *ready, struct err *e)
{
    struct cutover *c = cutover_open(r);
    bool exists = false;
    int rc = -1;

    *ready = true;
    if (r->stage == CUTOVER_STAGE_READS_BACK) {
        rc = explain_reads_back(c);
        goto out;
    }
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
    explain_prediction(c);
    rc = explain_rows(c, ready, e);
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
    "## The pause, predicted",
    "",
    "`prepared` measures, while the applications still write, everything that the pause is made "
    "of, five times over: a marker from one side to the other (the pause has two), reading and "
    "setting the sequences (two), moving the fence (two on the side that closes, one on the side "
    "that opens), seeing that the fence is on every table, waiting for the transactions that write "
    "(two), comparing the small tables, recording the steps (eight), asking the guards (three). "
    "The parts' smallest, median and largest samples add up to what is "
    "told: `the pause is predicted at 120 ms (90 to 310)`. The high end also allows for a "
    "transaction that runs until it is ended (100 ms), and for samples being whole milliseconds. "
    "What nobody may end, an undecided prepared transaction, cannot be foreseen.",
    "",
    "If the high end is above `--max-pause` (`cutover.max_pause`), the cutover is refused (exit "
    "4), with the largest part and what helps against it, after ten rounds of which the last five "
    "count; what was prepared is taken back and nobody was refused a write. `--dry-run` prints the "
    "last prediction, the record tells prediction and pause side by side.",
    "",
    "## The rehearsal",
    "",
    "`lockstep cutover --rehearse` (and `rollback --rehearse`) does everything but the fence on "
    "the side that closes, with the same code: the guards, `prepared` with the way back, a marker "
    "and its drain, the sequences, a second marker, drain and sequences. Nobody is refused a "
    "write, the side that opens is not opened, the hook is not run. Its result is the predicted "
    "pause and how long each step took; exit 4 if a cutover would be refused for `--max-pause`. "
    "On the side that closes it writes markers, and, if there is no way back yet, the facts of "
    "one into lockstep's own schema; no trigger is installed there. Since no fence is, the time of "
    "moving it is taken from the side that opens, and the wait for writers from all that write on "
    "the server.",
    "",
    "Afterwards things are as they were: the state, the seal of the side that opens, the way back "
    "(its sequences stay set ahead, as the next cutover sets them anyway). Meant for a scratch "
    "target: a second configuration with another `migration:` name whose target is a scratch "
    "server, loaded by its own `lockstep run`. It is safe against the real one too. A rehearsal "
    "that was killed leaves what a preparation leaves; the next `cutover`, `rollback` or "
    "`--rehearse` goes on from there.",
    "",
    "## The hook",
    "",
    "`cutover.on_switch` is run by `/bin/sh` in the folder of the configuration; it may take 60 s. "
    "It may be run again (after a kill, or if it failed), so it must be idempotent. Scripts for "
    "PgBouncer, HAProxy and ProxySQL: [proxies.md](proxies.md). In its environment:",
    "",
    "| variable | what it says |",
    "|---|---|",
    "| `LOCKSTEP_STAGE` | what is to go over: `reads`, or `writes`, which means whatever is not "
    "there yet, reads too |",
    "| `LOCKSTEP_DIRECTION` | to which side: `forward` (the target) or `back` (the source) |",
    "| `LOCKSTEP_SOURCE`, `LOCKSTEP_TARGET` | both URIs as configured, without passwords |",
    "| `LOCKSTEP_FROM`, `LOCKSTEP_TO` | the same two: the side that is left, and the one to go to "
    "|",
    "| `LOCKSTEP_POSITION` | up to this position of `LOCKSTEP_FROM` the side to go to is "
    "consistent; where reads come back to the writes, the last one that was known |",
    "| `LOCKSTEP_MIGRATION`, `LOCKSTEP_EPOCH` | the migration's name; a number that rises with "
    "each "
    "call of `cutover` and `rollback` |",
    "| `LOCKSTEP_PAUSE_MS` | how long writes were held; 0 with `reads` |",
    "",
    "With `LOCKSTEP_STAGE=writes` the side to go to takes writes already, and the other one never "
    "will again. If the hook fails then, the cutover exits 1, but is made: move the traffic by "
    "hand, or say `lockstep cutover` again.",
    "",
    "## Stages",
    "",
    "`lockstep cutover` goes the whole road and calls the hook once. In two stages:",
    "",
    "    lockstep cutover --stage reads     # prepared; the hook sends the reads to the target; "
    "writes stay where they are",
    "    lockstep wait [POSITION]           # before a read that must see a certain write",
    "    lockstep cutover --stage writes    # the rest: the same as without --stage",
    "",
    "| said | while the applications write on | does |",
    "|---|---|---|",
    "| `cutover --stage reads` | the source | `prepared`, a marker passes, hook: reads forward |",
    "| `rollback --stage reads` | the source | hook: reads back to the source |",
    "| `rollback --stage reads` | the target | `prepared` of the way back, hook: reads back, ahead "
    "of the writes |",
    "| `cutover --stage reads` | the target | hook: reads forward to the target again |",
    "",
    "Each may be said as often as one likes; killed, say it again (the hook may run twice). "
    "`--stage writes` does not demand `--stage reads` before it: then its one call of the hook "
    "moves both. A cutover that is undone, even its preparation, leaves the reads where they are, "
    "and says so: that side goes on following. Taking reads back works also when the side that "
    "they went to has died: the source's fence tells that it still takes the writes. `status "
    "--json` tells in `reads` where they were sent.",
    "",
    "While reads are ahead, the side that is read is sealed (a write there is refused with 25006, "
    "or 1290), and a few milliseconds behind. On MariaDB the seal locks the accounts in "
    "`fence.accounts`: let the reads come through an account that is not listed and has no right "
    "to "
    "write. A session that must see its own write takes a token behind its commit and waits for "
    "it:",
    "",
    "| where it writes | token, by SQL on the same session | needs |",
    "|---|---|---|",
    "| PostgreSQL | `SELECT pg_current_wal_insert_lsn()` | nothing |",
    "| MariaDB | `SELECT @@last_gtid` | nothing |",
    "| MySQL | `SELECT @@global.gtid_executed` (`gtid_mode = ON`) | nothing |",
    "| MariaDB, MySQL | file:position of `SHOW MASTER STATUS` (`SHOW BINARY LOG STATUS`) | a right "
    "|",
    "| any | `GET /position` at `listen:`, behind the commit | no driver |",
    "",
    "    lockstep wait 16/B374D848 --timeout 2s          # 0 reached; 75 not in time; 3 some "
    "tables "
    "do not follow; 2 no position",
    "    curl 'http://127.0.0.1:8650/wait?position=16/B374D848&timeout_ms=2000'   # 200; 504; 409; "
    "400; 503",
    "",
    "Without a position `wait` takes the present end of the log: a reader of everything that is "
    "committed now. Where the reads are ahead of a rollback it is the other way round: tokens of "
    "the target, the source is waited for. A token from before a switch is good behind it, too, "
    "since the switch drained that side: say whose it is (`--of source`, `&of=source`), then it "
    "counts as reached. A position is only good for tables that follow: a parked one is named. "
    "Should the side that is read crash, it may come back a moment older than it was; wait again.",
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
    "`cutover-<migration>.json` beside the configuration (`rollback-…`, `rehearsal-…`), and the "
    "same as a page to read, `cutover-<migration>.md`: when what happened (by the clock of the "
    "side that opens), position, epoch, the duration of each step, the pause as it was predicted "
    "and as it was, whom the fence waited for, sequences with their values before and after, how "
    "much was carried, the way back, the hook's result; after a failure why it was undone. Neither "
    "holds a password.",
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

json_t *cutover_rows_json(void)
{
    json_t *rows = json_array();

    for (size_t i = 0; i < cutover_row_count; i++) {
        const struct cutover_row *row = &cutover_rows[i];

        json_array_append_new(rows, json_pack("{s:s, s:s, s:b, s:b, s:s}", "from",
                                              cutover_state_name(row->from), "to",
                                              cutover_state_name(row->to), "again", row->again,
                                              "undo", row->undo != NULL, "does", row->does));
    }
    return rows;
}
