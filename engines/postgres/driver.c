/* The vtable. Each block belongs to the files named above it. */
#include "engines/postgres/driver.h"

#include "engines/postgres/pg.h"

const struct engine engine_postgres = {
    .name = "postgres",

    /* session.c, control.c */
    .open = pg_open,
    .close = pg_close,
    .begin = pg_begin,
    .commit = pg_commit,
    .rollback = pg_rollback,
    .savepoint = pg_savepoint,
    .rollback_to = pg_rollback_to,
    .clock_ms = pg_clock_ms,
    .identify = pg_identify,
    .sync = pg_sync,
    .current_position = pg_current_position,
    .position_text = pg_position_text,
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

    /* catalog.c, check.c, schema*.c */

    /* visible.c, chunk.c, read.c, locate.c, load.c */

    /* stream*.c */

    /* apply*.c, verify.c */

    /* fence*.c, sequence.c */
};
