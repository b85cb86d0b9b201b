#include "core/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define LOG_LINE_MAX 4096

static atomic_int threshold = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store(&threshold, (int)level);
}

void log_event(enum log_level level, const char *stage, const char *tag, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char text[LOG_LINE_MAX];
    char stamp[32];
    struct timespec ts;
    struct tm tm;
    va_list ap;

    if ((int)level < atomic_load(&threshold))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++) {
        if (*p == '\n' || *p == '\r')
            *p = ' ';
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
    fprintf(stderr, "%s.%03ldZ %-5s %s %s%s%s\n", stamp, ts.tv_nsec / 1000000, names[level], stage,
            tag, text[0] ? " " : "", text);
}

void log_err(enum log_level level, const char *stage, const char *tag, const struct err *e)
{
    log_event(level, stage, tag, "class=%s%s%s: %s%s%s", err_class_name(e->class),
              e->sqlstate[0] ? " sqlstate=" : "", e->sqlstate, e->msg,
              e->hint[0] ? " | hint: " : "", e->hint);
}
