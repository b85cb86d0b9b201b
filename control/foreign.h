/* Foreign writes: transactions that came past the seal of a side which a switch has closed, and
 * which are not ours. Whoever may switch the fence off can make them; nothing carries them to the
 * side that lives, and they are told.
 *
 * Where the stream of a closed side goes from "may be closed" to open and back stands in the stream
 * itself, as marks of the coordinators: `2` behind the seal, `open` before a lift. What lies
 * between is foreign if the switch was made, which its state row tells (on the stream's own target,
 * so that apply may ask under a lock, in the transaction that it decides for). A way back begins
 * on a side that is sealed: what comes before its first `open` is foreign whatever any row says. */
#ifndef LOCKSTEP_CONTROL_FOREIGN_H
#define LOCKSTEP_CONTROL_FOREIGN_H

#include "control/facts.h"

/* ---- the marks ---- */

#define SWITCH_MARK_SHUT "2"    /* the side is sealed; closed, if the row comes to say so */
#define SWITCH_MARK_OPEN "open" /* the side is about to open, or is open again */

/* Names a coordinator of this migration, for both fences and the marks: "cut-<epoch>-<migration>-
 * <holder>", the last two as hashes. */
void switch_token(char *out, size_t size, uint32_t epoch, const char *migration,
                  const char *holder);
/* Of another migration's coordinator? Not the empty one, of a fence that nobody has moved yet. */
bool switch_token_is_anothers(const char *token, const char *migration);
/* The coordinator's token, then a dot and what it means. */
void switch_mark(char *out, size_t size, const char *token, const char *what);

/* Before the first mark. */
struct turns turns_begin(const struct migration *m);
/* A mark came by; others than those above change nothing, nor do those of other migrations, whose
 * switches may close the same server. */
void turns_pass(struct turns *t, const struct migration *m, const char *token);
/* Is, or was, the side of m's stream closed by the switch whose mark came last, was that made? A
 * switch back since then does not make it unmade. Locks its row in the open transaction of m's
 * target, so that the answer holds until that ends. */
int switch_is_closed(struct db *target, const struct migration *m, const struct turns *turns,
                     bool *out, struct err *e);

/* ---- what was written there ---- */

#define FOREIGN_KEPT 20   /* transactions that are kept, of those that nobody acknowledged */
#define FOREIGN_TABLES 16 /* of one transaction */
#define FOREIGN_KEY 160   /* bytes of a key's text */

struct foreign_table {
    char label[520];
    uint64_t count[4];     /* by enum change_op */
    char key[FOREIGN_KEY]; /* of its first change; "" for a TRUNCATE */
};
struct foreign_txn {
    struct txn txn;
    uint64_t changes;
    size_t ntables;
    struct foreign_table tables[FOREIGN_TABLES];
    uint64_t elsewhere; /* changes of tables beyond those */
};
void foreign_begin(struct foreign_txn *f, const struct txn *txn);
void foreign_count(struct foreign_txn *f, const struct change *c);
/* "by transaction 77, 2026-01-02 03:04:05 UTC: public.orders 2 inserts, first key (42)" */
void foreign_print(const struct foreign_txn *f, struct buf *out);

/* Adds it to the fact (kind "foreign", key "forward", on the stream's target). In a transaction. */
int foreign_store(struct db *target, const struct migration *m, const struct turns *turns,
                  const struct foreign_txn *f, struct err *e);

/* A run of foreign transactions, by position: none of the stream's others lies in it. A lane that
 * catches up leaves them out by this. */
struct foreign_span {
    struct position from; /* commit of the first */
    struct position to;   /* behind the last */
};
/* The newest: a lane that stands behind more switches with foreign writes than these is not one
 * that anybody still catches up. */
#define FOREIGN_SPANS 64
struct foreign_spans {
    size_t n;
    struct foreign_span v[FOREIGN_SPANS];
};
int foreign_spans_load(struct db *target, struct foreign_spans *out, struct err *e);
bool foreign_spans_hold(const struct foreign_spans *s, struct position commit);

/* What is known of a stream's foreign writes, from `target`, where its facts stand. */
struct foreign_seen {
    uint64_t transactions; /* since the beginning */
    uint64_t changes;
    uint64_t acknowledged; /* of the transactions: somebody has said that they may stay behind */
    const json_t *first;   /* those kept, in order; borrowed from body */
    json_t *body;          /* json_decref; NULL: there are none */
};
int foreign_load(struct db *target, struct foreign_seen *out, struct err *e);
/* How many nobody has acknowledged. */
uint64_t foreign_open(const struct foreign_seen *s);
/* The first of those that is known, for a message: "at 0/1A2B by transaction 77, …". */
void foreign_first(const struct foreign_seen *s, char *out, size_t size);
/* The first n transactions may stay behind: they are not told any more. */
int foreign_acknowledge(struct db *target, uint64_t n, struct err *e);

#endif
