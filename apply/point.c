#include "apply/internal.h"
#include "core/run.h"

#include <string.h>

/* How long the source may take to show a transaction that it has already sent (synchronous
 * replication holds it back). */
#define POINT_VISIBLE_MS 30000
#define POINT_NAP_MS 20

/* Opens a read of one key under a cut that sees txn. */
static int open_read(struct apply *a, struct db *source, const struct act *act, struct cut *cut,
                     struct err *e)
{
    const struct engine *engine = source->engine;
    struct read_request request = {
        .table = act->change.table,
        .range = {.kind = RANGE_POINT, .lower = act->key},
        .format = migration_is_native(a->m) ? BLOCK_NATIVE : BLOCK_ROWS,
    };
    int64_t deadline = mono_ms() + POINT_VISIBLE_MS;

    for (;;) {
        uint64_t rows;
        void *parsed;

        if (engine->read_begin(source, &request, &a->scratch, cut, e) < 0)
            return -1;
        if (engine->cuts->parse(&a->scratch, cut->text, &parsed, e) < 0)
            return -1;
        if (engine->cuts->sees(parsed, &act->item->txn))
            return 0;
        if (engine->read_end(source, &rows, e) < 0 || stop_check(e) < 0)
            return -1;
        if (mono_ms() > deadline)
            return err_set(e, ERR_RETRY,
                           "the source has sent a transaction %d s ago that its snapshots do not "
                           "see yet: synchronous replication holds it back",
                           POINT_VISIBLE_MS / 1000);
        nap_ms(POINT_NAP_MS);
    }
}

static int erase_key(struct apply *a, const struct act *act, struct err *e)
{
    const struct table *t = act->change.table;
    struct row *before = row_new(&a->scratch, t->ncolumns);
    struct change gone = {.op = OP_DELETE, .table = t, .before = before};
    uint64_t affected;

    for (size_t i = 0; i < t->ncolumns; i++)
        before->v[i].state = VALUE_UNCHANGED;
    for (size_t i = 0; i < t->nkey; i++)
        before->v[t->key[i]] = act->key->v[i];
    return a->db->engine->apply_row(a->db, &gone, &affected, e);
}

static int copy_rows(struct apply *a, struct db *source, const struct act *act, struct err *e)
{
    const struct engine *from = source->engine;
    const struct engine *to = a->db->engine;
    enum block_format format = migration_is_native(a->m) ? BLOCK_NATIVE : BLOCK_ROWS;
    uint64_t read = 0;
    uint64_t loaded = 0;
    struct block block;
    int got;

    if (to->load_begin(a->db, act->change.table, format, e) < 0)
        return -1;
    while ((got = from->read_next(source, &block, e)) > 0) {
        if (to->load_block(a->db, &block, e) < 0)
            return -1;
    }
    if (got < 0 || to->load_end(a->db, &loaded, e) < 0 || from->read_end(source, &read, e) < 0)
        return -1;
    if (read != loaded || read > 1)
        return err_set(e, ERR_BUG, "re-reading one key of %s: %llu rows read, %llu loaded",
                       act->item->track->label, (unsigned long long)read,
                       (unsigned long long)loaded);
    return 0;
}

int point_read(struct apply *a, const struct act *act, struct err *e)
{
    struct track *track = act->item->track;
    struct db *source;
    struct cut cut;

    a->culprit = track;
    if (apply_source(a, &source, e) < 0 || open_read(a, source, act, &cut, e) < 0)
        return err_wrap(e, "%s: reading a moved key again", track->label);
    if (erase_key(a, act, e) < 0 || copy_rows(a, source, act, e) < 0)
        return err_wrap(e, "%s: reading a moved key again", track->label);
    if (ledger_point(a->db, act->change.table, act->key, &cut, e) < 0)
        return -1;
    return overlap_add_point(&track->overlap, a->m->source.engine, act->key, &cut, e);
}
