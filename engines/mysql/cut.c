/* Cuts of MySQL and MariaDB: "NUMBER:OFFSET", a place in the binlog. What was read under it holds
 * exactly the transactions that begin before it. */
#include "engines/mysql/my.h"

#include <stdbool.h>

/* Plain digits up to `stop`; steps over it. */
static bool take_number(const char **text, char stop, uint64_t *out)
{
    const char *p = *text;
    uint64_t n = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(n, (uint64_t)10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return false;
    }
    if (*p != stop)
        return false;
    *text = stop ? p + 1 : p;
    *out = n;
    return true;
}

static int parse(struct arena *a, const char *text, void **parsed, struct err *e)
{
    struct position *cut = arena_zalloc(a, sizeof(*cut));
    const char *p = text;

    if (!text || !take_number(&p, ':', &cut->major) || !take_number(&p, 0, &cut->minor) ||
        cut->major == 0)
        return err_set(e, ERR_FATAL, "a chunk's cut is not a binlog position: \"%.60s\"",
                       text ? text : "");
    *parsed = cut;
    return 0;
}

static bool sees(const void *parsed, const struct txn *txn)
{
    const struct position *cut = parsed;

    return position_cmp(txn->commit, *cut) < 0;
}

const struct cut_ops my_cut_ops = {.parse = parse, .sees = sees};
