/* What every stage is given: the two ends, the journal, the selection, the settings. Made by cli
 * (which alone names drivers) or by the simulation; read-only, outlives the stages. */
#ifndef LOCKSTEP_CONTROL_MIGRATION_H
#define LOCKSTEP_CONTROL_MIGRATION_H

#include "config/config.h"
#include "engines/engine.h"
#include "journal/journal.h"

struct endpoint {
    const struct engine *engine;
    const char *uri;
};

/* Schemas that have another name at the other end; those not named keep theirs. */
struct schema_pair {
    const char *from; /* at the source */
    const char *to;
};
struct schema_map {
    size_t n;
    const struct schema_pair *v;
};

struct migration {
    const char *name;
    struct endpoint source;
    struct endpoint target;
    /* The way back: source is the side that was the target, and nothing is ever loaded. */
    bool back;
    struct schema_map schemas;
    struct fence_settings fence;
    struct journal_options journal;
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

/* Opens a connection to one end. For DB_CONTROL the target is asked whether it is one
 * (migration_check_way). */
int migration_open_source(const struct migration *m, enum db_use use, struct db **out,
                          struct err *e);
int migration_open_target(const struct migration *m, enum db_use use, struct db **out,
                          struct err *e);
/* What a schema of the source is called at the target. */
const char *migration_schema_there(const struct migration *m, const char *schema);
/* "forward" or "back": names the direction (the key of its cutover's row). */
const char *migration_stream(const struct migration *m);
/* What users call the two ends of m, whichever way it goes: "source" or "target". */
const char *migration_from(const struct migration *m);
const char *migration_to(const struct migration *m);
/* The way back of m: source and target exchanged, a journal of its own beside m's, the schemas'
 * names turned round. Its facts live on its target, so under the same names. Texts live in the
 * arena. */
void migration_mirror(const struct migration *m, struct arena *a, struct migration *out);
/* Same engine, no rule that transforms: bytes pass undecoded. */
bool migration_is_native(const struct migration *m);

#endif
