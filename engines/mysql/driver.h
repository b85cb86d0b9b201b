/* The MySQL and MariaDB driver: everything behind engines/engine.h for servers of that family. */
#ifndef LOCKSTEP_ENGINES_MYSQL_DRIVER_H
#define LOCKSTEP_ENGINES_MYSQL_DRIVER_H

#include "engines/engine.h"

extern const struct engine engine_mysql;

#endif
