#include "core/run.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define NAP_SLICE_MS 20

static atomic_bool stopping;
static int64_t (*simulated_clock)(void);
static pthread_mutex_t large_row = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int large_row_depth;

void stop_request(void)
{
    atomic_store(&stopping, true);
}

bool stop_requested(void)
{
    return atomic_load(&stopping);
}

int stop_check(struct err *e)
{
    return stop_requested() ? err_set(e, ERR_STOPPED, "asked to stop") : 0;
}

void mono_override(int64_t (*clock)(void))
{
    simulated_clock = clock;
}

int64_t mono_ms(void)
{
    struct timespec ts;

    if (simulated_clock)
        return simulated_clock();
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void nap_ms(int ms)
{
    int64_t end = mono_ms() + ms;

    if (simulated_clock)
        return;
    while (!stop_requested()) {
        int64_t left = end - mono_ms();
        struct timespec ts;

        if (left <= 0)
            return;
        if (left > NAP_SLICE_MS)
            left = NAP_SLICE_MS;
        ts = (struct timespec){.tv_sec = 0, .tv_nsec = (long)left * 1000000};
        nanosleep(&ts, NULL);
    }
}

void large_row_enter(void)
{
    if (large_row_depth++ == 0)
        pthread_mutex_lock(&large_row);
}

void large_row_leave(void)
{
    invariant(large_row_depth > 0);
    if (--large_row_depth == 0)
        pthread_mutex_unlock(&large_row);
}

void memory_trim(void)
{
    malloc_trim(0);
}

void memory_setup(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}
