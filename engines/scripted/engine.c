#include "engines/scripted/calls.h"
#include "engines/scripted/world.h"

/* The harness says whose form the snapshots' texts have, so that this folder needs no other. */
static int parse_cut(struct arena *a, const char *text, void **parsed, struct err *e)
{
    return scripted_current->o.cuts->parse(a, text, parsed, e);
}

static bool cut_sees(const void *parsed, const struct txn *txn)
{
    return scripted_current->o.cuts->sees(parsed, txn);
}

static const struct cut_ops cuts = {.parse = parse_cut, .sees = cut_sees};

const struct engine engine_scripted = {
    .name = "scripted",
    .exports_snapshots = true,
    .cuts = &cuts,
    .open = scripted_open,
    .close = scripted_close,
    .begin = scripted_begin,
    .commit = scripted_commit,
    .rollback = scripted_rollback,
    .limit_idle = scripted_limit_idle,
    .savepoint = scripted_savepoint,
    .rollback_to = scripted_rollback_to,
    .clock_ms = scripted_clock_ms,
    .identify = scripted_identify,
    .sync = scripted_sync,
    .current_position = scripted_current_position,
    .position_text = scripted_position_text,
    .position_find = scripted_position_find,
    .position_distance = scripted_position_distance,
    .control_install = scripted_control_install,
    .control_remove = scripted_control_remove,
    .control_exists = scripted_control_exists,
    .fact_get = scripted_fact_get,
    .fact_scan = scripted_fact_scan,
    .fact_put = scripted_fact_put,
    .fact_delete = scripted_fact_delete,
    .tables = scripted_tables,
    .check = scripted_check,
    .schema_steps = scripted_schema_steps,
    .schema_run = scripted_schema_run,
    .schema_settle = scripted_schema_settle,
    .stream_create = scripted_stream_create,
    .settle = scripted_settle,
    .chunk_plan = scripted_chunk_plan,
    .read_begin = scripted_read_begin,
    .read_next = scripted_read_next,
    .read_end = scripted_read_end,
    .locate = scripted_locate,
    .load_begin = scripted_load_begin,
    .load_block = scripted_load_block,
    .load_end = scripted_load_end,
    .stream_open = scripted_stream_open,
    .stream_next = scripted_stream_next,
    .stream_ack = scripted_stream_ack,
    .stream_close = scripted_stream_close,
    .stream_drop = scripted_stream_drop,
    .retention = scripted_retention,
    .apply_set = scripted_apply_set,
    .apply_row = scripted_apply_row,
    .apply_rows = scripted_apply_rows,
    .truncate = scripted_truncate,
    .pin_source = scripted_pin_source,
    .pin_target = scripted_pin_target,
    .scan_begin = scripted_scan_begin,
    .scan_next = scripted_scan_next,
    .scan_end = scripted_scan_end,
    .fence_install = scripted_fence_install,
    .fence_remove = scripted_fence_remove,
    .fence_flip = scripted_fence_flip,
    .fence_take = scripted_fence_take,
    .fence_renew = scripted_fence_renew,
    .fence_wait = scripted_fence_wait,
    .fence_seal = scripted_fence_seal,
    .fence_lift = scripted_fence_lift,
    .fence_state = scripted_fence_state,
    .mark = scripted_mark,
    .sequences = scripted_sequences,
    .sequence_set = scripted_sequence_set,
};
