/* The janitor: a stage that trims the journal behind apply. Internal to run/. */
#ifndef LOCKSTEP_RUN_JANITOR_H
#define LOCKSTEP_RUN_JANITOR_H

#include "control/facts.h"

/* The lowest record that the journal must keep. (pure) */
uint64_t janitor_keep_from(const struct checkpoint *c, const struct lane_list *lanes);

#endif
