/* The stages as threads of one process, and their supervisor. */
#ifndef LOCKSTEP_RUN_RUN_H
#define LOCKSTEP_RUN_RUN_H

#include "control/migration.h"

#include <stdatomic.h>

enum run_stages {
    RUN_CAPTURE = 1,
    RUN_APPLY = 2,
    RUN_SNAPSHOT = 4, /* workers, and the conductor if no other process has its lease */
    RUN_ALL = RUN_CAPTURE | RUN_APPLY | RUN_SNAPSHOT
};

struct run_request {
    const struct migration *m;
    unsigned stages;
    bool until_caught_up;
    bool until_loaded;       /* end when nothing is left to copy and to build */
    int64_t max_runtime_ms;  /* then end in good order; 0: no limit */
    bool progress;           /* lines for people on stderr */
    const char *listen;      /* host:port of the status page, or NULL; a taken port is a warning */
    const char *role;        /* what the page calls this process */
    const atomic_bool *quit; /* may be NULL; set by another thread: end in good order */
};

enum run_end {
    RUN_ENDED_FINISHED,  /* the request `finish` was seen */
    RUN_ENDED_CAUGHT_UP, /* --until caught-up */
    RUN_ENDED_PARKED,    /* the same, but a lane is parked */
    RUN_ENDED_LOADED,    /* until_loaded */
    RUN_ENDED_QUIT       /* `quit` was set, or max_runtime_ms is over */
};

/* Takes the leases (waiting for those of a process that vanished), starts the stages, tends them
 * until the end, stops them in good order and gives the leases back. The control schema is there
 * and the migration registered. ERR_STOPPED: the process was asked to stop. ERR_REFUSED: another
 * process runs these stages. Errors that may heal are retried for ever and shown by `status`. */
int run_stages(const struct run_request *r, enum run_end *end, struct err *e);

/* Is the holder's process certainly dead? Only known for this host. */
bool holder_is_dead(const char *holder);
/* This machine's part of a holder's name: the host's name, and a mark of its boot and of our pid
 * namespace, since containers and clones may share the name, and pids mean nothing across them. */
#define HOLDER_HOST_MAX 70
void holder_host(char out[HOLDER_HOST_MAX]);

#endif
