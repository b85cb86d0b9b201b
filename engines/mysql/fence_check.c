/* What of the fence's needs a server does not meet, for `check`. */
#include "engines/mysql/my.h"

#include <stdio.h>
#include <string.h>

static void add(struct findings *out, struct arena *a, struct finding f)
{
    struct finding *v = arena_alloc(a, (out->n + 1) * sizeof *v);

    if (out->n > 0)
        memcpy(v, out->v, out->n * sizeof *v);
    v[out->n++] = f;
    out->v = v;
}

/* The first value of a query, "" for none. A query that the role may not make counts as none. */
static const char *text_of(struct my_db *db, struct arena *a, const char *sql)
{
    MYSQL_RES *res = my_query(db, sql, NULL);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    const char *text = arena_strdup(a, row != NULL && row[0] != NULL ? row[0] : "");

    mysql_free_result(res);
    return text;
}

static const struct {
    const char *right;
    const char *why;
    bool accounts; /* only where accounts must be locked */
} maria_rights[] = {{"READ_ONLY ADMIN", "to close the server and to write while it is closed",
                     false},
                    {"CONNECTION ADMIN", "to end writers that do not end", false},
                    {"PROCESS", "to see who writes", false},
                    {"SHOW DATABASES", "to see what else the fence would close", false},
                    {"CREATE USER", "to lock the accounts in fence.accounts", true}},
  mysql_rights[] = {{"SYSTEM_VARIABLES_ADMIN", "to close the server", false},
                    {"CONNECTION_ADMIN", "to write while it is closed, and to end writers", false},
                    {"XA_RECOVER_ADMIN", "to see prepared transactions", false},
                    {"PROCESS", "to see who writes", false},
                    {"SHOW DATABASES", "to see what else the fence would close", false},
                    {"CREATE USER", "to lock the accounts in fence.accounts", true}};

static bool granted(struct my_db *db, struct arena *a, const char *right)
{
    const char *sql = arena_printf(a,
                                   "SELECT count(*) FROM information_schema.user_privileges"
                                   " WHERE privilege_type = '%s' AND grantee = concat('''',"
                                   " substring_index(current_user(), '@', 1), '''@''',"
                                   " substring_index(current_user(), '@', -1), '''')",
                                   right);

    return strcmp(text_of(db, a, sql), "0") != 0;
}

static void check_rights(struct my_db *db, bool accounts, const char *object, struct arena *a,
                         struct findings *out)
{
    size_t n = db->maria ? sizeof maria_rights / sizeof maria_rights[0]
                         : sizeof mysql_rights / sizeof mysql_rights[0];

    for (size_t i = 0; i < n; i++) {
        const char *right = db->maria ? maria_rights[i].right : mysql_rights[i].right;
        const char *why = db->maria ? maria_rights[i].why : mysql_rights[i].why;

        if ((db->maria ? maria_rights[i].accounts : mysql_rights[i].accounts) && !accounts)
            continue;
        if (!granted(db, a, right))
            add(out, a,
                (struct finding){true, object,
                                 arena_printf(a, "lockstep's account lacks %s, %s", right, why),
                                 arena_printf(a, "GRANT %s ON *.* TO %s", right,
                                              text_of(db, a, "SELECT current_user()"))});
    }
}

/* Whom read_only does not stop, besides us: nobody can, but somebody should know. */
static void check_exempt(struct my_db *db, const char *object, struct arena *a,
                         struct findings *out)
{
    /* 1 << 34: READ_ONLY ADMIN, as MariaDB keeps rights in mysql.global_priv. */
    const char *who = text_of(
        db, a,
        db->maria ? "SELECT group_concat(User, '@', Host SEPARATOR ', ') FROM mysql.global_priv"
                    " WHERE json_value(Priv, '$.access') & (1 << 34)"
                    " AND User <> substring_index(current_user(), '@', 1)"
                  : "SELECT group_concat(User, '@', Host SEPARATOR ', ') FROM mysql.user"
                    " WHERE Super_priv = 'Y' AND User NOT LIKE 'mysql.%'"
                    " AND User <> substring_index(current_user(), '@', 1)");

    if (who[0] != '\0')
        add(out, a,
            (struct finding){
                false, object,
                arena_printf(a, "these accounts write while the fence is closed: %s", who),
                "no application may use them during the switch"});
}

void my_fence_findings(struct my_db *db, const char *object, struct arena *a, struct findings *out)
{
    bool accounts =
        db->maria || strcmp(text_of(db, a, "SELECT @@persisted_globals_load"), "0") == 0;

    if (strcmp(text_of(db, a, "SELECT @@GLOBAL.event_scheduler"), "ON") != 0)
        add(out, a,
            (struct finding){true, object,
                             "event_scheduler is off: a fence's lease could not lapse",
                             "SET GLOBAL event_scheduler = ON, and event_scheduler=ON in the "
                             "server's configuration"});
    if (accounts && db->fence.naccounts == 0)
        add(out, a,
            (struct finding){true, object,
                             "the server forgets read_only when it restarts, so accounts must be "
                             "locked to seal it, and none are named",
                             "fence: {accounts: [app@%]} with the applications' accounts"});
    check_rights(db, accounts, object, a, out);
    check_exempt(db, object, a, out);
}
