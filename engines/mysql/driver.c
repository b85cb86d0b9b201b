/* The vtable. Each block belongs to the files named above it. */
#include "engines/mysql/driver.h"

#include "engines/mysql/my.h"

const struct engine engine_mysql = {
    .name = "mysql",
    .counts_by_index = true,
    .normalizes_json = true,
    .looks_apart_ms = MY_LOOKS_APART_MS,

    /* session.c, control.c */
    .open = my_open,
    .close = my_close,
    .begin = my_begin,
    .commit = my_commit,
    .rollback = my_rollback,
    .limit_idle = my_limit_idle,
    .savepoint = my_savepoint,
    .rollback_to = my_rollback_to,
    .clock_ms = my_clock_ms,
    .identify = my_identify,
    .sync = my_sync,
    .current_position = my_current_position,
    .position_text = my_position_text,
    .position_find = my_position_find,
    .position_distance = my_position_distance,
    .control_install = my_control_install,
    .control_remove = my_control_remove,
    .control_exists = my_control_exists,
    .fact_get = my_fact_get,
    .fact_scan = my_fact_scan,
    .fact_put = my_fact_put,
    .fact_delete = my_fact_delete,
    .settle = my_settle,
    .retention = my_retention,

    /* catalog.c, check.c, describe.c, types.c, collate.c, render.c */
    .tables = my_tables,
    .check = my_check,
    .home_schema = my_home_schema,
    .describe = my_describe,
    .column_for = my_column_for,
    .judge_pair = my_judge_pair,
    .same_type = my_same_type,
    .schema_render = my_schema_render,
    .unfit_values = my_unfit_values,
    .schema_run = my_schema_run,
    .schema_settle = my_schema_settle,

    /* cut.c, chunk.c, locate.c, copy.c */
    .cuts = &my_cut_ops,
    .chunk_plan = my_chunk_plan,
    .read_begin = my_read_begin,
    .read_next = my_read_next,
    .read_end = my_read_end,
    .locate = my_locate,
    .load_begin = my_load_begin,
    .load_block = my_load_block,
    .load_end = my_load_end,

    /* stream.c, binlog*.c */
    .stream_create = my_stream_create,
    .stream_open = my_stream_open,
    .stream_next = my_stream_next,
    .stream_ack = my_stream_ack,
    .stream_close = my_stream_close,
    .stream_drop = my_stream_drop,

    /* apply*.c, verify.c */
    .apply_set = my_apply_set,
    .apply_row = my_apply_row,
    .apply_rows = my_apply_rows,
    .truncate = my_truncate,
    .pin_source = my_pin_source,
    .pin_target = my_pin_target,
    .scan_begin = my_scan_begin,
    .scan_next = my_scan_next,
    .scan_end = my_scan_end,

    /* fence.c, sequence.c */
    .fence_install = my_fence_install,
    .fence_remove = my_fence_remove,
    .fence_flip = my_fence_flip,
    .fence_take = my_fence_take,
    .fence_renew = my_fence_renew,
    .fence_wait = my_fence_wait,
    .fence_seal = my_fence_seal,
    .fence_lift = my_fence_lift,
    .fence_state = my_fence_state,
    .mark = my_mark,
    .sequences = my_sequences,
    .sequence_set = my_sequence_set,
};
