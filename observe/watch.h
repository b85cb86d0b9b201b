/* The status page of a process: looks at the migration once a second, for all who watch together,
 * and serves what it saw (observe/http.h). Reads only. */
#ifndef LOCKSTEP_OBSERVE_WATCH_H
#define LOCKSTEP_OBSERVE_WATCH_H

#include "control/migration.h"

struct watch_options {
    const struct migration *m;
    const char *listen; /* host:port */
    const char *role;   /* the command that this process runs */
    /* Does this process itself fare well? If not, why. Called from another thread. */
    bool (*healthy)(void *ctx, char *why, size_t size);
    void *ctx;
    bool (*holder_is_dead)(const char *holder); /* as observe_ends' */
};

struct watch;

/* ERR_CONFIG: the address cannot be listened at. *o is copied, what it points to is not. */
int watch_open(const struct watch_options *o, struct watch **out, struct err *e);
/* Takes NULL. What hangs in a call to a server is left behind with what it holds. */
void watch_close(struct watch *w);
/* "http://127.0.0.1:8650/" */
void watch_url(const struct watch *w, char *out, size_t size);

#endif
