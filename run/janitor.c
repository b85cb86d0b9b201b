/* It has a thread and a connection of its own, because making the target's commits durable may wait
 * for a standby of the target, and nothing else should wait with it. */
#include "run/janitor.h"

#include "journal/journal.h"
#include "run/stage.h"

#include <stdlib.h>
#include <string.h>

#define TRIM_EVERY_MS 5000

struct janitor {
    const struct migration *m;
    struct db *db;
    uint64_t trimmed;
};

uint64_t janitor_keep_from(const struct checkpoint *c, const struct lane_list *lanes)
{
    uint64_t keep = c->record;

    for (size_t i = 0; i < lanes->n; i++) {
        const struct lane *lane = &lanes->v[i];

        if (lane->state != LANE_FOLLOWING && lane->record < keep)
            keep = lane->record;
    }
    return keep;
}

static void *janitor_open(const struct migration *m, int number)
{
    struct janitor *j = calloc(1, sizeof(*j));

    invariant(j != NULL);
    j->m = m;
    return j;
}

static void janitor_close(void *handle)
{
    struct janitor *j = handle;

    if (j->db)
        j->db->engine->close(j->db);
    free(j);
}

/* A lane whose table was planned anew begins where capture, which is still asked, goes by the new
 * shape, and not before the checkpoint that is read when it has answered (snapshot/load.c,
 * note_settled): nothing is kept for it until then, or capture might find no room to get there. */
static int pass_reshaped(struct janitor *j, const struct checkpoint *c, struct lane_list *lanes,
                         struct err *e)
{
    struct fact *asked;
    size_t n;

    if (j->db->engine->fact_scan(j->db, "request", REQUEST_RESHAPE, &asked, &n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < lanes->n; k++) {
            if (lanes->v[k].state == LANE_LOADING &&
                strcmp(lanes->v[k].label, asked[i].key + strlen(REQUEST_RESHAPE)) == 0)
                lanes->v[k].record = c->record;
        }
    }
    facts_release(asked, n);
    return 0;
}

static int read_keep(struct janitor *j, uint64_t *keep, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct checkpoint c;
    struct lane_list lanes;
    int rc = -1;

    *keep = 0;
    /* The checkpoint first: a lane that leaves the stream between the two reads stands at a record
     * that is not below the checkpoint that was read. */
    if (checkpoint_load(j->db, "forward", &c, e) < 0 || lanes_load(j->db, &a, &lanes, e) < 0 ||
        pass_reshaped(j, &c, &lanes, e) < 0)
        goto out;
    if (c.version != FACT_ABSENT)
        *keep = janitor_keep_from(&c, &lanes);
    rc = 0;
out:
    arena_release(&a);
    return rc;
}

/* Apply commits asynchronously: what it says that it has read may be lost with the target's last
 * commits. Only behind a synchronous commit is it sure. */
static int trim(struct janitor *j, struct err *e)
{
    struct owned_journal journal;
    uint64_t keep;

    if (!j->db && migration_open_target(j->m, DB_CONTROL, &j->db, e) < 0)
        return -1;
    if (read_keep(j, &keep, e) < 0)
        return -1;
    if (keep <= j->trimmed)
        return 0;
    if (j->db->engine->sync(j->db, e) < 0 || owned_journal(j->m, j->db, &journal, e) < 0 ||
        journal_trim(&journal.options, keep, e) < 0)
        return -1;
    j->trimmed = keep;
    return 0;
}

static enum stage_result janitor_step(void *handle, struct err *e)
{
    struct janitor *j = handle;

    if (trim(j, e) == 0)
        return STAGE_IDLE;
    if (j->db)
        j->db->engine->close(j->db);
    j->db = NULL;
    return STAGE_FAILED;
}

const struct stage_ops stage_janitor = {
    .name = "janitor",
    .open = janitor_open,
    .step = janitor_step,
    .close = janitor_close,
    .idle_ms = TRIM_EVERY_MS,
};
