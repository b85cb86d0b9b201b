/* A cursor reads the journal for one consumer (the main stream, or a lane that catches up), gathers
 * whole transactions into a batch, and knows where it stands. */
#ifndef LOCKSTEP_APPLY_CURSOR_H
#define LOCKSTEP_APPLY_CURSOR_H

#include "apply/track.h"
#include "control/foreign.h"
#include "journal/journal.h"
#include "schemas/avro/codec.h"

struct item {
    struct change change;
    struct txn txn;
    struct track *track;
};

/* Where a cursor stands, as far as its target knows or will know after the next commit. */
struct stand {
    struct position next;
    uint64_t record;
    uint32_t epoch;
    int64_t ts_us;
    uint64_t txns;
    uint64_t changes;
    char marker[TOKEN_MAX];
    struct turns turns;
};

/* The open transaction, or the last one in the batch, with regard to a switch of its source. */
enum suspicion {
    SUSPECT_NONE,
    SUSPECT_ASK,    /* its side may be closed: the executor asks, before it commits any of it */
    SUSPECT_FOREIGN /* its side is closed: counted, never kept */
};

struct cursor {
    const struct migration *m;
    struct track_list *tracks;
    struct track *only;   /* a lane that catches up, or NULL: every lane that follows */
    struct position stop; /* a pin: stand before the first transaction at or behind it */
    bool has_stop;
    uint64_t stop_record; /* `only`: the main stream's place in the journal */

    struct journal_reader *reader;
    struct decoder *decoder;
    uint32_t generation; /* of the last record */

    struct stand at;       /* committed on the target */
    struct stand frontier; /* behind the last whole transaction in the batch */

    struct arena arena; /* the batch's */
    struct arena spare; /* takes over an unfinished transaction when the batch goes */
    struct item *items;
    size_t n;
    size_t cap;
    size_t complete; /* items of whole transactions */
    size_t bytes;

    bool in_txn;
    bool skipping;        /* the open transaction is applied already */
    struct txn txn;       /* the open one */
    uint64_t txn_changes; /* of the open one, kept */
    enum suspicion suspicion;
    size_t suspect_from;                /* SUSPECT_ASK: its first item */
    bool known_closed;                  /* for as long as the turns stay as they are */
    struct foreign_txn foreign;         /* SUSPECT_FOREIGN */
    struct foreign_spans foreign_spans; /* `only`: transactions that it leaves out */
    bool streaming;                     /* the open one is partly on the target, uncommitted */
    bool large; /* the batch holds a row over LARGE_ROW: the permit is ours */

    bool stopped;            /* at `stop`: nothing before it is left to read */
    bool discard;            /* an unfinished transaction went; what it wrote must go too */
    char changed_table[520]; /* a table's shape changed here; or "" */
    char changed_reason[ERR_MSG_MAX];
};

void cursor_init(struct cursor *c, const struct migration *m, struct track_list *tracks);
void cursor_release(struct cursor *c);
/* Stands at `at`, with nothing read. */
int cursor_seek(struct cursor *c, struct db *target, const struct stand *at, struct err *e);
/* Reads until the batch is full, the journal has nothing more, or something needs the executor
 * first (stopped, discard, changed_table). Waits timeout_ms for the first record. */
int cursor_fill(struct cursor *c, int timeout_ms, struct err *e);
/* The first `done` items are on the target: forgets them, keeps the rest. */
void cursor_consume(struct cursor *c, size_t done);
/* Must the executor act before more is read? */
bool cursor_is_full(const struct cursor *c);
/* Has the batch anything that must be committed? */
bool cursor_advanced(const struct cursor *c);
/* The transaction that was to be asked about: foreign (its items are counted and go), or one like
 * any other. */
void cursor_settle(struct cursor *c, bool foreign);

#endif
