/* The vtable. Each block belongs to the files named above it. */
#include "engines/postgres/driver.h"

#include "engines/postgres/pg.h"

const struct engine engine_postgres = {
    .name = "postgres",
    .exports_snapshots = true,

    /* session.c, control.c */
    .open = pg_open,
    .close = pg_close,
    .begin = pg_begin,
    .commit = pg_commit,
    .rollback = pg_rollback,
    .limit_idle = pg_limit_idle,
    .savepoint = pg_savepoint,
    .rollback_to = pg_rollback_to,
    .clock_ms = pg_clock_ms,
    .identify = pg_identify,
    .sync = pg_sync,
    .current_position = pg_current_position,
    .position_text = pg_position_text,
    .position_find = pg_position_find,
    .position_distance = pg_position_distance,
    .control_install = pg_control_install,
    .control_remove = pg_control_remove,
    .control_exists = pg_control_exists,
    .fact_get = pg_fact_get,
    .fact_scan = pg_fact_scan,
    .fact_put = pg_fact_put,
    .fact_delete = pg_fact_delete,
    .settle = pg_settle,
    .retention = pg_retention,

    /* catalog.c, check.c, describe.c, types.c, render.c, schema*.c */
    .tables = pg_tables,
    .check = pg_check,
    .home_schema = pg_home_schema,
    .describe = pg_describe,
    .column_for = pg_column_for,
    .schema_render = pg_schema_render,
    .unfit_values = pg_unfit_values,
    .schema_steps = pg_schema_steps,
    .schema_run = pg_schema_run,
    .schema_settle = pg_schema_settle,

    /* visible.c, chunk.c, locate.c, copy.c */
    .cuts = &pg_cut_ops,
    .chunk_plan = pg_chunk_plan,
    .read_begin = pg_read_begin,
    .read_next = pg_read_next,
    .read_end = pg_read_end,
    .locate = pg_locate,
    .load_begin = pg_load_begin,
    .load_block = pg_load_block,
    .load_end = pg_load_end,

    /* stream*.c */
    .stream_create = pg_stream_create,
    .stream_open = pg_stream_open,
    .stream_next = pg_stream_next,
    .stream_ack = pg_stream_ack,
    .stream_close = pg_stream_close,
    .stream_drop = pg_stream_drop,

    /* apply*.c, verify.c */
    .apply_set = pg_apply_set,
    .apply_row = pg_apply_row,
    .apply_rows = pg_apply_rows,
    .truncate = pg_truncate,
    .pin_source = pg_pin_source,
    .pin_target = pg_pin_target,
    .scan_begin = pg_scan_begin,
    .scan_next = pg_scan_next,
    .scan_end = pg_scan_end,

    /* fence*.c, sequence.c */
    .fence_install = pg_fence_install,
    .fence_remove = pg_fence_remove,
    .fence_flip = pg_fence_flip,
    .fence_take = pg_fence_take,
    .fence_renew = pg_fence_renew,
    .fence_wait = pg_fence_wait,
    .fence_seal = pg_fence_seal,
    .fence_lift = pg_fence_lift,
    .fence_state = pg_fence_state,
    .mark = pg_mark,
    .sequences = pg_sequences,
    .sequence_set = pg_sequence_set,
};
