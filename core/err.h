/* Errors are values: 0 or -1, and a struct err that says it once. */
#ifndef LOCKSTEP_CORE_ERR_H
#define LOCKSTEP_CORE_ERR_H

/* What the top loop of a stage does about it. */
enum err_class {
    ERR_NONE,
    ERR_RETRY,    /* may heal by itself: connection lost, deadlock, lock timeout, server starting */
    ERR_CONFLICT, /* rows or constraints on the target do not agree with the change */
    ERR_DATA,     /* a value that the receiving side cannot hold */
    ERR_UNKNOWN,  /* a commit whose outcome is not known: read the server before going on */
    ERR_FENCED,   /* somebody else took over (compare-and-set failed): this worker stops */
    ERR_CONFIG,   /* file or arguments: exit 2 */
    ERR_REFUSED,  /* a guard refuses; nothing was changed: exit 4 */
    ERR_STOPPED,  /* asked to stop: exit 75 */
    ERR_FATAL,    /* stop and tell the user: exit 1 */
    ERR_BUG       /* an invariant of ours does not hold */
};

#define ERR_MSG_MAX 1500
#define ERR_HINT_MAX 500

struct err {
    enum err_class class;
    char sqlstate[6];        /* the server's, or "" */
    char msg[ERR_MSG_MAX];   /* one line, what happened to which table, key, position, and why */
    char hint[ERR_HINT_MAX]; /* the command or setting that mends it, or "" */
};

/* Sets e (which may be NULL) and returns -1, so that `return err_set(…)` reads well. */
int err_set(struct err *e, enum err_class class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds the remedy; returns -1. */
int err_hint(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts context in front of the message ("context: message"); returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void err_clear(struct err *e);
const char *err_class_name(enum err_class class);

/* A broken invariant of ours: prints where and aborts, in release builds too. */
#define invariant(cond)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            invariant_failed(#cond, __FILE__, __LINE__);                                           \
    } while (0)
void invariant_failed(const char *cond, const char *file, int line) __attribute__((noreturn));

#endif
