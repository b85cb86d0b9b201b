/* Log lines are events: time, level, stage, a stable tag, key=value… on stderr. */
#ifndef LOCKSTEP_CORE_LOG_H
#define LOCKSTEP_CORE_LOG_H

#include "core/err.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level level);
/* stage: "capture", "apply", …; tag: stable, kebab-case; the rest: key=value pairs, or prose. */
void log_event(enum log_level level, const char *stage, const char *tag, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The error with its class and hint. */
void log_err(enum log_level level, const char *stage, const char *tag, const struct err *e);

#endif
