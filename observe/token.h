/* Reads of what one wrote: is the side that is read consistent up to a position of the side that is
 * written to?
 *
 * A token is a position of the server that the applications write to, taken behind their commit
 * (engine.position_find). Apply moves its checkpoint in the very transaction that writes the rows,
 * so whoever sees the checkpoint past the token sees the rows. That holds for tables that follow;
 * lanes are read behind the checkpoint, so that one which follows has all that the checkpoint has.
 *
 * Before the switch the applications write on the source and the target is read; behind it they
 * write on the target, and the way back keeps the source. What was written on a side before a
 * switch is on both sides behind it, since the switch drained it: a token of the side that is not
 * written to any more counts as reached. */
#ifndef LOCKSTEP_OBSERVE_TOKEN_H
#define LOCKSTEP_OBSERVE_TOKEN_H

#include "control/facts.h"

#define TOKEN_POSITION_MAX 80
#define TOKEN_TABLES_MAX 600

/* Where the changes of the applications travel now. */
struct token_road {
    bool back;       /* they write on the target */
    int64_t epoch;   /* of the last call of a switch; while it is the same, so is the way */
    struct db *from; /* is written to */
    struct db *to;   /* may be read */
};

/* Reads which it is. target, source: DB_CONTROL. ERR_REFUSED: nothing of the migration is there, or
 * behind a switch nothing carries back what is written. */
int token_road_find(struct db *target, struct db *source, struct token_road *out, struct err *e);

/* "source" or "target" */
const char *token_written(const struct token_road *r);
const char *token_read(const struct token_road *r);

struct token {
    struct position at;
    char text[TOKEN_POSITION_MAX]; /* the server's own; "" of one that counts as reached */
    bool reached;                  /* whatever the checkpoint says: it is of the other side */
};
/* text NULL: the present end of the log. of: "source" or "target", NULL: of the side that is
 * written to. 1; 0: the server has not written so far (yet); -1, ERR_CONFIG: it is no position. */
int token_find(const struct token_road *r, const char *text, const char *of, struct token *out,
               struct err *e);

enum token_verdict {
    TOKEN_REACHED,
    TOKEN_NOT_YET,
    TOKEN_TABLES /* reached, but for the tables that do not follow */
};
struct token_state {
    enum token_verdict verdict;
    bool parked;                         /* TOKEN_TABLES: one of them waits for somebody */
    struct position next;                /* up to here it is consistent; zero: not begun */
    char consistent[TOKEN_POSITION_MAX]; /* the same in the server's own text, or "" */
    char tables[TOKEN_TABLES_MAX];       /* TOKEN_TABLES: "public.a (parked: reason), …" */
};
/* What it finds holds for every token that lies before `next`, too; a later one is not reached. */
int token_look(const struct token_road *r, const struct token *t, struct token_state *out,
               struct err *e);

#endif
