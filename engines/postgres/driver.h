/* The PostgreSQL driver: the one symbol that the rest of lockstep links. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_DRIVER_H
#define LOCKSTEP_ENGINES_POSTGRES_DRIVER_H

#include "engines/engine.h"

extern const struct engine engine_postgres;

#endif
