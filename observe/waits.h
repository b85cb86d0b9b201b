/* Questions of HTTP clients that a server must be asked: where is the log now, and is the side that
 * is read consistent up to a position (observe/token.h)?
 *
 * One thread asks for all of them, with two connections of its own that it opens for the first
 * question and closes when none has come for a while. So clients, whatever their number, make a
 * server work no more than one session does: per round one look at the checkpoint for all who wait,
 * and one question for each who has just come. At most WAITS_MAX are heard at once, none for longer
 * than WAITS_TIMEOUT_MS. Knows nothing of HTTP but the numbers of its answers. Internal to
 * observe/.
 */
#ifndef LOCKSTEP_OBSERVE_WAITS_H
#define LOCKSTEP_OBSERVE_WAITS_H

#include "control/migration.h"
#include "observe/token.h"

#define WAITS_MAX 32
#define WAITS_TIMEOUT_MS 30000
#define WAITS_POSITION_MAX 1000

struct wait_question {
    bool tell;                         /* the present position, instead of waiting for one */
    char position[WAITS_POSITION_MAX]; /* "" with tell */
    char of[8];                        /* "source", "target", "" */
    int64_t timeout_ms;
};

struct waits;
struct wait;

int waits_open(const struct migration *m, struct waits **out, struct err *e);
/* Answers all who wait; none is heard from now on. False: the thread hangs in a call to a server,
 * then nothing of it may be released. */
bool waits_end(struct waits *w);
/* After waits_end() was true and every wait was released. Takes NULL. */
void waits_release(struct waits *w);

/* A place; NULL: there is none. */
struct wait *wait_reserve(struct waits *w);
/* `answered` is called from another thread, once, when the answer is there; before it returns, if
 * it comes to an end just now. */
void wait_ask(struct wait *wait, const struct wait_question *q, void (*answered)(void *ctx),
              void *ctx);
/* The answer, one JSON object, and its status by HTTP: 200; 400 no position; 409 tables do not
 * follow; 503 cannot be found out now; 504 not reached in time. */
const char *wait_answer(const struct wait *wait, unsigned *status);
/* At any time; of one that was asked nothing more is heard. Takes NULL. */
void wait_release(struct wait *wait);

#endif
