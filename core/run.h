/* The process's own facts: has it been asked to stop, what time is it for waiting, and the permit
 * for large rows. */
#ifndef LOCKSTEP_CORE_RUN_H
#define LOCKSTEP_CORE_RUN_H

#include "core/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Set from a signal handler or a thread; every wait looks at it at least every 100 ms. */
void stop_request(void);
bool stop_requested(void);
/* 0, or -1 with ERR_STOPPED. */
int stop_check(struct err *e);

/* Monotonic milliseconds, for waits on our side only; leases use the server's clock. */
int64_t mono_ms(void);
/* The simulation's clock instead of the machine's; NULL: the machine's again. */
void mono_override(int64_t (*clock)(void));
/* Sleeps, but wakes within 20 ms of a stop request. */
void nap_ms(int ms);

/* One permit a process for a row above this size (design.md §1.5). */
#define LARGE_ROW ((size_t)4 * 1024 * 1024)
/* Takes the permit if this thread does not hold it; waits for others. Counted per thread. */
void large_row_enter(void);
void large_row_leave(void);
/* Gives freed memory back to the system, after a large row. */
void memory_trim(void);
/* Allocator settings that keep resident memory near what is in use; call once, first in main. */
void memory_setup(void);

#endif
