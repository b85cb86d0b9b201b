#include "engines/postgres/visible.h"

#include <stdbool.h>
#include <string.h>

/* More transactions than any server runs at once (its maximum of connections is 2^18). */
#define XIP_MAX ((size_t)1 << 19)

struct snapshot {
    uint64_t xmin; /* everything below has ended */
    uint64_t xmax; /* nothing from here on had ended */
    size_t n;
    uint64_t *xip; /* still running in between; strictly ascending */
};

/* Reads digits up to `stop` (or the end of the text for 0) and steps over it. */
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

static size_t count_commas(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += *text == ',';
    return n;
}

static bool take_xip(const char *text, struct snapshot *s, size_t max)
{
    for (size_t i = 0; i < max; i++) {
        uint64_t xid;

        if (!take_number(&text, i + 1 < max ? ',' : 0, &xid))
            return false;
        if (xid < s->xmin || xid >= s->xmax || (s->n && xid < s->xip[s->n - 1]))
            return false;
        if (!s->n || xid != s->xip[s->n - 1])
            s->xip[s->n++] = xid;
    }
    return true;
}

static int parse(struct arena *a, const char *text, void **parsed, struct err *e)
{
    struct snapshot *s = arena_zalloc(a, sizeof(*s));
    const char *p = text;
    size_t max;

    if (!text || !take_number(&p, ':', &s->xmin) || !take_number(&p, ':', &s->xmax) ||
        s->xmin == 0 || s->xmin > s->xmax)
        return err_set(e, ERR_FATAL, "a chunk's cut is not a snapshot: \"%.60s\"",
                       text ? text : "");
    max = *p ? count_commas(p) + 1 : 0;
    if (max > XIP_MAX)
        return err_set(e, ERR_FATAL, "a chunk's cut names more than %zu transactions", XIP_MAX);
    s->xip = arena_alloc(a, (max ? max : 1) * sizeof(*s->xip));
    if (!take_xip(p, s, max))
        return err_set(e, ERR_FATAL, "a chunk's cut is not a snapshot: \"%.60s\"", text);
    *parsed = s;
    return 0;
}

static bool sees(const void *parsed, const struct txn *txn)
{
    const struct snapshot *s = parsed;
    size_t low = 0;
    size_t high = s->n;

    if (txn->xid < s->xmin)
        return true;
    if (txn->xid >= s->xmax)
        return false;
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (s->xip[mid] < txn->xid)
            low = mid + 1;
        else
            high = mid;
    }
    return low == s->n || s->xip[low] != txn->xid;
}

uint64_t pg_widen_xid(uint64_t ref, uint32_t xid)
{
    return ref + (uint64_t)(int64_t)(int32_t)(xid - (uint32_t)ref);
}

const struct cut_ops pg_cut_ops = {.parse = parse, .sees = sees};
