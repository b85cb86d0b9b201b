#include "core/err.h"

#include "core/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int err_set(struct err *e, enum err_class class, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return -1;
    e->class = class;
    e->sqlstate[0] = '\0';
    e->hint[0] = '\0';
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
    va_end(ap);
    text_clean(e->msg);
    return -1;
}

int err_hint(struct err *e, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return -1;
    va_start(ap, fmt);
    vsnprintf(e->hint, sizeof(e->hint), fmt, ap);
    va_end(ap);
    text_clean(e->hint);
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    char context[ERR_MSG_MAX];
    char whole[2 * ERR_MSG_MAX + 4];
    va_list ap;

    if (!e)
        return -1;
    va_start(ap, fmt);
    vsnprintf(context, sizeof(context), fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof(whole), "%s: %s", context, e->msg);
    memcpy(e->msg, whole, sizeof(e->msg) - 1);
    e->msg[sizeof(e->msg) - 1] = '\0';
    text_clean(e->msg);
    return -1;
}

void err_clear(struct err *e)
{
    if (e)
        memset(e, 0, sizeof(*e));
}

const char *err_class_name(enum err_class class)
{
    static const char *const names[] = {"none",    "retry",  "conflict", "data",
                                        "unknown", "fenced", "config",   "refused",
                                        "stopped", "fatal",  "bug"};

    return (unsigned)class < sizeof(names) / sizeof(names[0]) ? names[class] : "?";
}

void invariant_failed(const char *cond, const char *file, int line)
{
    fprintf(stderr, "lockstep: bug: invariant (%s) does not hold at %s:%d\n", cond, file, line);
    abort();
}
