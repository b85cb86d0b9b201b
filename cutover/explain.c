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
    return explain_checks(c, row->guard | row->beside, row->from == CUTOVER_NONE, ready, e);
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
    int rc = -1;

    *ready = true;
    if (r->stage == CUTOVER_STAGE_READS_BACK) {
        rc = explain_reads_back(c);
        goto out;
    }
    if (connect_sides(c, e) < 0 || load_migration(c, e) < 0)
        goto out;
    say(c, "state: %s", cutover_state_name(c->state));
    explain_prediction(c);
    rc = explain_rows(c, ready, e);
out:
    cutover_close(c);
    return rc;
}

/* ---- the diagram and the table in the docs ---- */

void cutover_print_page(void (*emit)(const char *line, void *ctx), void *ctx)
{
    char line[1000] = "  none";

    emit("```", ctx);
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
