/* What an account may do, by its own SHOW GRANTS: its active roles are in it. */
#ifndef LOCKSTEP_ENGINES_MYSQL_RIGHTS_H
#define LOCKSTEP_ENGINES_MYSQL_RIGHTS_H

#include "engines/mysql/my.h"

struct my_rights {
    size_t n;
    struct my_grant *v;
    const char *account; /* 'lockstep'@'%', as GRANT … TO wants it */
};

/* This session's account as SQL wants it, quoted: 'lockstep'@'%'; in the arena, NULL: error. */
const char *my_account(struct my_db *db, struct arena *a, struct err *e);
/* Texts live in the arena. */
int my_rights_load(struct my_db *db, struct arena *a, struct my_rights *out, struct err *e);
/* "REPLICATION SLAVE" on *.*: blanks and underscores are one. */
bool my_rights_global(const struct my_rights *r, const char *right);
/* On all of a database, by a global grant too; patterns (`shop\_%`) are the server's. */
bool my_rights_database(const struct my_rights *r, const char *database, const char *right);
/* On one table, by any of the wider grants too. */
bool my_rights_table(const struct my_rights *r, const char *database, const char *table,
                     const char *right);

#endif
