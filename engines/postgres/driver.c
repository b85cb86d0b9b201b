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

    /* catalog.c, check.c, schema*.c */

    /* visible.c, chunk.c, read.c, locate.c, load.c */

    /* stream*.c */

    /* apply*.c, verify.c */

    /* fence*.c, sequence.c */
};
