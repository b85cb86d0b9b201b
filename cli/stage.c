#include "cli/stage.h"

#include <string.h>

int stage_wanted(const struct cli *c, bool *reads, struct err *e)
{
    const char *stage = cli_option(c, "stage");

    *reads = stage && strcmp(stage, "reads") == 0;
    if (!stage || *reads || strcmp(stage, "writes") == 0)
        return 0;
    return err_set(e, ERR_CONFIG, "--stage: \"%.20s\" is not taken; expected reads or writes",
                   stage);
}

const char *stage_question(const struct cutover_request *r)
{
    if (r->stage == CUTOVER_STAGE_READS)
        return r->back ? "Send the reads back to the source, ahead of the writes?"
                       : "Seal the target for applications and send the reads there?";
    return r->back ? "Send the reads to the target again, where the writes are?"
                   : "Send the reads back to the source, where the writes are?";
}

static const char *text_of(const json_t *record, const char *name)
{
    const char *text = json_string_value(json_object_get(record, name));

    return text ? text : "";
}

static void tell_ahead(struct cli *c, const struct cutover_request *r, const json_t *record)
{
    const char *read = r->back ? "source" : "target";
    const char *written = r->back ? "target" : "source";

    cli_put(c, "position", json_string(text_of(record, "position")));
    cli_put(c, "hook", json_string(r->on_switch ? "done" : "none"));
    cli_say(c, "the %s may be read: it is consistent up to %s of the %s, and goes on following",
            read, text_of(record, "position"), written);
    cli_say(c, "writes stay on the %s; the %s refuses those of applications", written, read);
    if (!r->on_switch)
        cli_say(c, "no on_switch hook is configured: move the reads yourself");
    cli_next(c,
             "lockstep wait [POSITION] before a read that must see a certain write; then lockstep "
             "%s --stage writes, or lockstep %s --stage reads to take the reads back",
             r->back ? "rollback" : "cutover", r->back ? "cutover" : "rollback");
}

static void tell_back(struct cli *c, const struct cutover_request *r)
{
    const char *side = r->back ? "target" : "source";

    cli_say(c, "the reads are on the %s, where the writes are", side);
    if (r->alone)
        cli_say(c,
                "the %s could not be told; say it again when it is back, or lockstep finish "
                "--abandon",
                r->back ? "source" : "target");
    if (!r->on_switch)
        cli_say(c, "no on_switch hook is configured: move the reads yourself");
    cli_next(c, "lockstep %s when you are ready to try again", r->back ? "rollback" : "cutover");
}

void stage_tell(struct cli *c, const struct cutover_request *r, const json_t *record)
{
    bool ahead = r->stage == CUTOVER_STAGE_READS;

    cli_put(c, "state", json_string(text_of(record, "state")));
    cli_put(c, "stage", json_string("reads"));
    cli_put(c, "reads", json_string(r->back == ahead ? "source" : "target"));
    if (ahead)
        tell_ahead(c, r, record);
    else
        tell_back(c, r);
}

void stage_tell_failed(struct cli *c, const json_t *record)
{
    json_t *reads = json_object_get(json_object_get(record, "reads"), "at");

    cli_put(c, "state", json_incref(json_object_get(record, "state")));
    if (reads)
        cli_put(c, "reads", json_incref(reads));
}
