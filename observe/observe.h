/* What `status` tells: gathered from the control facts and both servers, changed by nobody. */
#ifndef LOCKSTEP_OBSERVE_OBSERVE_H
#define LOCKSTEP_OBSERVE_OBSERVE_H

#include "control/facts.h"
#include "control/foreign.h"
#include "control/ledger.h"

#define UNKNOWN_COUNT ((int64_t)-1)

struct observed_table {
    const char *name;   /* schema.table */
    const char *lane;   /* loading, following, parked, catching_up */
    const char *reason; /* parked; else NULL */
    int64_t rows;       /* copied so far */
    int64_t bytes;
    int64_t eta_s;  /* until it is copied */
    uint64_t left;  /* bytes not copied yet, by estimate */
    uint64_t total; /* bytes to copy, by estimate; 0: not known */
    double done;    /* 0 … 1: the share of its chunks that is copied */
};

struct observed_parked {
    const char *name; /* schema.table, as the target calls it */
    const char *reason;
};

/* Whatever is not known is NULL or UNKNOWN_COUNT, never 0. */
/* The way back, from the checkpoint on its target (the source). */
struct observed_way {
    int64_t lag_bytes;
    const char *consistent_up_to; /* of the target's log */
    int64_t changes;              /* carried back since it was made */
    const char *state;            /* of its own road, as the cutover's states; NULL: not begun */
    int64_t retained_bytes;       /* of log that the target keeps for it */
    size_t nparked;               /* tables that it does not carry now */
    struct observed_parked *parked;
};

/* What came past the seal of a side that a switch has closed, and is not on the other. */
struct observed_foreign {
    bool known; /* its facts could be read */
    uint64_t transactions;
    uint64_t changes;
    uint64_t open;     /* of the transactions: nobody has acknowledged them */
    const char *first; /* those of them that are kept: a JSON array as text, or NULL */
};

struct observation {
    const char *phase;
    const char *direction; /* in which the applications' changes travel: forward, back */
    bool rolled_back;      /* the applications went to the target and came back */
    const char *reads;     /* where reads were sent to: source, target */
    const struct observed_way *way_back; /* NULL: there is none, or it cannot be read */
    struct observed_foreign foreign[2];  /* by enum db_side: written there */
    size_t ntables;
    struct observed_table *tables;
    int64_t lag_bytes;
    double lag_seconds; /* negative: not known */
    const char *consistent_up_to;
    int64_t retained_bytes;
    int64_t journal_bytes;
    int64_t journal_records; /* that it has taken since the beginning */
    int64_t changes;         /* applied since the beginning */
    int64_t rate;            /* bytes copied a second, at present */
    const char *running;     /* the holder of the lease "run", NULL: none */
    const char *again;       /* what is to be said to end a switch that nobody conducts, or to move
                                the traffic that its hook did not move; NULL: nothing */
    bool unwell;             /* something fails that a cutover needs: the warnings tell what */
    size_t nwarnings;
    const char **warnings;
};

struct observe_ends {
    const struct migration *m;
    struct db *target; /* DB_CONTROL */
    struct db *source; /* DB_CONTROL; NULL: cannot be reached now */
    const char *source_trouble;
    struct db *way; /* the target again, opened as the way back's source; NULL: what it keeps for
                       the way back is not known */
    /* Is the process behind a lease's holder certainly dead? NULL: never known. */
    bool (*holder_is_dead)(const char *holder);
};

/* -1 only if the target cannot be read. */
int observe(const struct observe_ends *ends, struct arena *a, struct observation *out,
            struct err *e);

/* ---- the forms ---- */

/* The object of `status --json` (design.md §8). */
json_t *observe_json(const struct observation *o);
/* One line of progress. */
void observe_line(const struct observation *o, struct buf *out);
/* The page for people; bars: with progress bars. */
void observe_page(const struct observation *o, bool bars, struct buf *out);
/* What to type now. */
const char *observe_next(const struct observation *o);

/* ---- pure parts ---- */

struct phase_facts {
    bool begun;          /* the control facts are there */
    const char *cutover; /* state of the cutover's fact, or NULL */
    enum load_phase load;
    bool caught_up; /* apply has once passed what the source had when all lanes first followed */
    const char *rollback; /* state of the way back's fact, or NULL */
    bool rolled_back;     /* that switched last */
};
/* Fills what the two directions' rows tell (NULL: no row); f's texts are theirs. Epochs tell which
 * switch was the last where both rows say `switched`; one that was undone is none, whatever its. */
void observe_switches(const json_t *cutover, const json_t *rollback, struct phase_facts *f);
/* Do the applications live on the target? */
bool observe_is_back(const struct phase_facts *f);
/* Where reads were sent to: with the writes, or ahead of them. */
const char *observe_reads(const json_t *cutover, const json_t *rollback,
                          const struct phase_facts *f);
/* NULL: not begun. */
const char *observe_phase(const struct phase_facts *f);

/* Lag in time, from samples of the source's position (newest last): how long ago the source stood
 * where apply stands now. */
struct lag_sample {
    struct position p;
    int64_t at_ms;
};
/* Milliseconds, or -1: not known. */
int64_t observe_lag_ms(const struct lag_sample *samples, size_t n, struct position applied,
                       int64_t now_ms);

/* "1.5 GiB", "42 s", "3 min" */
void observe_size(char *out, size_t size, uint64_t bytes);
void observe_time(char *out, size_t size, int64_t seconds);

#endif
