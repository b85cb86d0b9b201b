/* cutover and rollback: conduct the switch in one direction or the other, or print the road. */
#include "cutover/cutover.h"

#include "cli/cli.h"
#include "cli/stage.h"
#include "run/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_MAX_SIZE 4200
/* Of the pause, to compare the pair once more; what it does not get through is left out. */
#define DIGEST_MS 50

/* ---- output ---- */

static void say_line(void *ctx, const char *line)
{
    struct cli *c = ctx;
    json_t *lines = json_object_get(c->result, "lines");

    cli_say(c, "%s", line);
    if (!lines) {
        cli_put(c, "lines", json_array());
        lines = json_object_get(c->result, "lines");
    }
    json_array_append_new(lines, json_string(line));
}

static void print_line(const char *line, void *ctx)
{
    fprintf(ctx, "%s\n", line);
}

static int dump_json(const json_t *record, FILE *out)
{
    return json_dumpf(record, out, JSON_INDENT(2) | JSON_SORT_KEYS);
}

static int dump_page(const json_t *record, FILE *out)
{
    cutover_print_record(record, print_line, out);
    return 0;
}

/* Written whole or not at all. A record that cannot be written is no reason to fail: the same is
 * in the state row. False: it could not be. */
static bool write_file(struct cli *c, const char *path, const json_t *record,
                       int (*dump)(const json_t *record, FILE *out))
{
    char fresh[PATH_MAX_SIZE + 100];
    bool written;
    FILE *out;

    snprintf(fresh, sizeof(fresh), "%s.%d", path, (int)getpid());
    out = fopen(fresh, "w");
    written = out && dump(record, out) == 0 && !ferror(out);
    if (out && fclose(out) != 0)
        written = false;
    if (written && rename(fresh, path) == 0)
        return true;
    cli_say(c, "the record %s could not be written: %s", path, strerror(errno));
    unlink(fresh);
    return false;
}

/* Of a switch that was begun, or is made already. */
static void write_record(struct cli *c, const struct cutover_request *r, const json_t *record,
                         bool over)
{
    const char *name = r->rehearse                        ? "rehearsal"
                       : r->stage != CUTOVER_STAGE_WRITES ? "reads"
                                                          : c->command->name;
    char path[PATH_MAX_SIZE + 60];

    if (!json_is_true(json_object_get(record, "conducted")) && !over)
        return;
    snprintf(path, sizeof(path), "%s/%s-%s.json", r->folder, name, r->m->name);
    if (write_file(c, path, record, dump_json))
        cli_put(c, "record", json_string(path));
    snprintf(path, sizeof(path), "%s/%s-%s.md", r->folder, name, r->m->name);
    if (write_file(c, path, record, dump_page))
        cli_put(c, "page", json_string(path));
}

static void put_members(struct cli *c, const json_t *record)
{
    static const char *const members[] = {
        "state", "direction", "position", "flip_ms",          "pause_ms",         "predicted",
        "hook",  "sequences", "way_back", "way_back_refused", "foreign_accepted", "steps"};

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        json_t *value = json_object_get(record, members[i]);

        if (value)
            cli_put(c, members[i], json_incref(value));
    }
}

static void say_pause(struct cli *c, const json_t *record)
{
    const json_t *pause = json_object_get(record, "pause_ms");
    char predicted[100];
    bool known = cutover_predicted_text(record, predicted, sizeof(predicted));

    if (pause)
        cli_say(c, "writes were held for %lld ms%s%s", (long long)json_integer_value(pause),
                known ? "; predicted were " : "", known ? predicted : "");
}

static void tell(struct cli *c, const json_t *record, bool back)
{
    const char *position = json_string_value(json_object_get(record, "position"));
    const char *hook = json_string_value(json_object_get(record, "hook"));

    put_members(c, record);
    cli_say(c, "switched: the %s takes writes, the %s is sealed (at %s)",
            back ? "source" : "target", back ? "target" : "source",
            position ? position : "a position that is not known");
    say_pause(c, record);
    if (!hook || strcmp(hook, "none") == 0)
        cli_say(c, "no on_switch hook is configured: move the traffic yourself");
    if (back)
        cli_next(c, "lockstep cutover when you are ready to try again, or lockstep finish to end "
                    "the migration here (it also removes the target's fence)");
    else if (json_is_false(json_object_get(record, "way_back")))
        cli_next(c, "there is no way back; check the applications on the target, then lockstep "
                    "finish (it also removes the fences, so the old source accepts writes again)");
    else
        cli_next(c, "check the applications on the target; then lockstep finish (it also removes "
                    "the fences, so the old source accepts writes again), or lockstep rollback");
}

/* ---- the command ---- */

/* Asks, unless the answer is known; what is over already needs none. */
static int confirm(struct cli *c, const struct cutover_request *r, struct err *e)
{
    const char *name = c->command->name;
    bool over = false;

    if (r->stage == CUTOVER_STAGE_WRITES && cutover_is_over(r, &over, e) < 0)
        return -1;
    if (c->yes || over)
        return 0;
    if (c->json || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        err_set(e, ERR_CONFIG, "%s asks first, and nobody can answer here", name);
        return err_hint(e, "lockstep %s --yes, or lockstep %s --dry-run to see the road", name,
                        name);
    }
    if (r->stage != CUTOVER_STAGE_WRITES)
        return cli_confirm(c, stage_question(r), e);
    return cli_confirm(c,
                       r->back ? "Close the target for writes and go back to the source?"
                               : "Close the source for writes and move to the target?",
                       e);
}

static int dry_run(struct cli *c, const struct cutover_request *r, struct err *e)
{
    bool ready = false;

    if (cutover_explain(r, &ready, e) < 0)
        return -1;
    cli_put(c, "ready", json_boolean(ready));
    if (ready)
        cli_next(c, "lockstep %s%s --yes", c->command->name,
                 r->stage == CUTOVER_STAGE_WRITES ? "" : " --stage reads");
    else
        cli_next(c, "mend what REFUSES, then lockstep %s", c->command->name);
    return ready ? EXIT_DONE : EXIT_REFUSED;
}

static int conduct(struct cli *c, const struct cutover_request *r, struct err *e)
{
    json_t *record = NULL;
    int rc;

    if (confirm(c, r, e) < 0)
        return -1;
    rc = cutover_run(r, &record, e);
    write_record(c, r, record, rc == 0);
    if (rc == 0 && r->stage != CUTOVER_STAGE_WRITES) {
        stage_tell(c, r, record);
    } else if (rc == 0) {
        tell(c, record, r->back);
    } else {
        stage_tell_failed(c, record);
        cli_put(c, "predicted", json_incref(json_object_get(record, "predicted")));
    }
    json_decref(record);
    return rc < 0 ? -1 : EXIT_DONE;
}

/* Refused, if a switch would be. */
static int rehearse(struct cli *c, const struct cutover_request *r, struct err *e)
{
    const char *command = c->command->name;
    json_t *record = NULL;
    const json_t *predicted;
    char text[100];
    bool fits;
    int rc;

    rc = cutover_run(r, &record, e);
    write_record(c, r, record, false);
    put_members(c, record);
    predicted = json_object_get(record, "predicted");
    fits = fact_int(predicted, "high_ms", INT64_MAX) <= r->max_pause_ms;
    if (rc == 0) {
        cutover_predicted_text(record, text, sizeof(text));
        cli_say(c, "rehearsed: the pause would be %s; nothing was refused, all is as it was", text);
        cli_put(c, "fits", json_boolean(fits));
        if (fits)
            cli_next(c, "lockstep %s", command);
        else
            cli_next(c,
                     "a %s would be refused: --max-pause is %d ms; the record tells what the "
                     "pause is made of",
                     command, r->max_pause_ms);
    }
    json_decref(record);
    return rc < 0 ? -1 : fits ? EXIT_DONE : EXIT_REFUSED;
}

static int run(struct cli *c, const struct cutover_request *r, struct err *e)
{
    bool dry = cli_option(c, "dry-run") != NULL;

    if (dry && r->rehearse)
        return err_set(e, ERR_CONFIG, "--dry-run and --rehearse do not go together");
    if (dry)
        return dry_run(c, r, e);
    return r->rehearse ? rehearse(c, r, e) : conduct(c, r, e);
}

static int command_switch(struct cli *c, bool back, struct err *e)
{
    struct context x;
    char folder[PATH_MAX_SIZE];
    struct arena a = ARENA_INIT;
    struct cutover_request r = {
        .back = back, .way_back = true, .say = say_line, .ctx = c, .threads = true};
    const char *pause = cli_option(c, "max-pause");
    bool reads;
    int rc = -1;

    if (context_open(&x, c, e) < 0)
        return -1;
    if (pause && config_override(&x.config, "cutover.max_pause", pause, e) < 0) {
        rc = err_wrap(e, "--max-pause");
        goto out;
    }
    r.m = &x.m;
    if (stage_wanted(c, &reads, e) < 0)
        goto out;
    r.max_pause_ms = x.config.cutover.max_pause_ms;
    r.lease_ms = x.config.cutover.lease_ms;
    r.rehearse = cli_option(c, "rehearse") != NULL;
    r.on_switch = x.config.cutover.on_switch;
    r.source = config_uri_redact(&a, x.config.source);
    r.target = config_uri_redact(&a, x.config.target);
    r.holder_is_dead = holder_is_dead;
    r.digest_ms = DIGEST_MS;
    r.accept_foreign = cli_option(c, "accept-foreign") != NULL;
    context_home(&x, folder, sizeof(folder));
    r.folder = folder;
    if (reads && r.rehearse) {
        rc = err_set(e, ERR_CONFIG, "--stage reads and --rehearse do not go together");
        goto out;
    }
    if (reads && cutover_plan_reads(&r, e) < 0)
        goto out;
    rc = run(c, &r, e);
out:
    arena_release(&a);
    context_close(&x);
    return rc;
}

int command_cutover(struct cli *c, struct err *e)
{
    return command_switch(c, false, e);
}

int command_rollback(struct cli *c, struct err *e)
{
    return command_switch(c, true, e);
}
