/* What every stage is given: the two ends, the journal, the selection, the settings. Made by cli
 * (which alone names drivers) or by the simulation; read-only, outlives the stages. */
#ifndef LOCKSTEP_CONTROL_MIGRATION_H
#define LOCKSTEP_CONTROL_MIGRATION_H

#include "config/config.h"
#include "engines/engine.h"

struct endpoint {
    const struct engine *engine;
    const char *uri;
};

struct migration {
    const char *name;
    struct endpoint source;
    struct endpoint target;
    const char *journal; /* URI */
    uint64_t journal_max;
    size_t segment_bytes; /* 0: the journal's default */
    struct selection selection;
    int workers;
    uint64_t chunk_bytes;
    uint64_t max_rate;
    uint64_t batch_bytes;
    int batch_delay_ms;
    enum on_error on_error;
    int lease_ms; /* stages' leases: how long a dead process blocks its successor */
    const char *bindir;
    const char *workdir; /* for the schema dump */
    const char *holder;  /* names this process in leases: host:pid:start */
};

/* Opens a connection to one end. */
int migration_open_source(const struct migration *m, enum db_use use, struct db **out,
                          struct err *e);
int migration_open_target(const struct migration *m, enum db_use use, struct db **out,
                          struct err *e);
/* Same engine, no rule that transforms: bytes pass undecoded. */
bool migration_is_native(const struct migration *m);

#endif
