/* Names and numbers of binlog files. The server names them base.NNNNNN, six digits or more. */
#include "engines/mysql/my.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int my_binlog_number(const char *name, uint64_t *out)
{
    const char *dot = name != NULL ? strrchr(name, '.') : NULL;
    uint64_t n = 0;

    if (dot == NULL || strlen(dot + 1) < 6 || strlen(dot + 1) > 18)
        return -1;
    for (const char *p = dot + 1; *p != '\0'; p++) {
        if (!isdigit((unsigned char)*p))
            return -1;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    *out = n;
    return 0;
}

int my_binlog_name(struct my_db *db, uint64_t number, char *out, size_t size, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SHOW BINARY LOGS", e);
    MYSQL_ROW row;
    uint64_t n;
    uint64_t oldest = 0;
    bool found = false;

    if (res == NULL)
        return err_wrap(e, "listing the binlog files of %s", db->where);
    while (!found && (row = mysql_fetch_row(res)) != NULL) {
        if (my_binlog_number(row[0], &n) != 0)
            continue;
        if (oldest == 0)
            oldest = n;
        found = n == number;
        if (found)
            snprintf(out, size, "%s", row[0]);
    }
    mysql_free_result(res);
    if (found)
        return 0;
    err_set(e, ERR_FATAL,
            "binlog file number %" PRIu64 " is not on %s: its oldest is %" PRIu64
            ", so it was purged, or this is another server",
            number, db->where, oldest);
    return err_hint(e,
                    "changes are lost with it: `lockstep finish --abandon`, then begin anew; keep "
                    "binlogs longer (binlog_expire_logs_seconds)");
}
