/* One thread that steps one stage. Internal to run/. */
#ifndef LOCKSTEP_RUN_STAGE_H
#define LOCKSTEP_RUN_STAGE_H

#include "control/migration.h"
#include "core/data.h"

#include <pthread.h>
#include <stdatomic.h>

/* What has been failing for longer than this, longer than a restart of a server takes, is not well.
 */
#define STAGE_UNWELL_MS 30000

/* Which lease a stage needs to step. */
enum stage_lease {
    STAGE_FREE,     /* none */
    STAGE_LEASED,   /* those of its process */
    STAGE_CONDUCTOR /* the conductor's, which may be another process's for a while */
};

enum stage_result { STAGE_FAILED = -1, STAGE_IDLE = 0, STAGE_WORKED = 1 };

/* What a stage is, as functions over its own handle. */
struct stage_ops {
    const char *name;
    void *(*open)(const struct migration *m, int number);
    enum stage_result (*step)(void *handle, struct err *e);
    void (*close)(void *handle);
    uint64_t (*bytes)(const void *handle); /* copied so far; may be NULL */
    int idle_ms;                           /* nap after an idle step; 0: the step itself waits */
    enum stage_lease lease;                /* steps only while it is surely ours */
    bool fenced_is_end;                    /* ERR_FENCED means that another process took over */
};
extern const struct stage_ops stage_capture;
extern const struct stage_ops stage_apply;
extern const struct stage_ops stage_conductor;
extern const struct stage_ops stage_worker;
extern const struct stage_ops stage_janitor;

/* What all stages of a process share. */
struct stage_shared {
    const struct migration *m;
    atomic_bool quit;
    atomic_llong leased_until; /* mono_ms: until then the leases are surely ours */
    atomic_llong conductor_until;
};

struct stage {
    const struct stage_ops *ops;
    struct stage_shared *shared;
    int number;
    pthread_t thread;
    bool started;
    bool joined;
    bool stale; /* its thread's own: it stood still without the lease */

    pthread_mutex_t lock; /* for what follows */
    void *handle;         /* stepped and closed by the stage's own thread; NULL once closed */
    struct err error;     /* the present trouble, ERR_NONE if there is none */
    int64_t error_since;  /* mono_ms */
    uint64_t failures;    /* in a row */
    bool ended;           /* the error is final */
};

int stage_start(struct stage *s, const struct stage_ops *ops, struct stage_shared *shared,
                int number, struct err *e);
/* Waits until deadline (mono_ms) for a thread to end. */
bool thread_join(pthread_t thread, int64_t deadline);
/* Waits until deadline (mono_ms) for the thread to end. False: it did not; it still uses s. */
bool stage_join(struct stage *s, int64_t deadline);
/* Bytes copied so far. */
uint64_t stage_bytes(struct stage *s);
/* False: one of them has been failing for longer than STAGE_UNWELL_MS; why: which. */
bool stages_are_well(struct stage *stages, size_t n, const char *of, char *why, size_t size);
/* A copy of its present trouble; true if that is final. */
bool stage_trouble(struct stage *s, struct err *out, int64_t *since_ms);

/* Is this class of error worth another try in this stage? (pure) */
bool stage_retries(const struct stage_ops *ops, enum err_class class, uint64_t failures);
/* How long to wait before that. (pure) */
int stage_backoff_ms(uint64_t failures);

#endif
