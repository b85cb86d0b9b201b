/* Waits of the stages take no time here: the linker puts these in the place of core/run.c's. */
#include "tests/simulation/sim.h"

int64_t __wrap_mono_ms(void);
void __wrap_nap_ms(int ms);

static int64_t now = 1000;

int64_t __wrap_mono_ms(void)
{
    return now;
}

void __wrap_nap_ms(int ms)
{
    now += ms;
    switch_wait();
}

void sim_clock_set(int64_t ms)
{
    now = ms;
}

void sim_clock_pass(int64_t ms)
{
    now += ms;
}

int64_t sim_clock(void)
{
    return now;
}
