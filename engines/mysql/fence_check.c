/* What of the fence's needs a server does not meet, for `check`. */
#include "engines/def.h"
#include "engines/mysql/fence.h"
#include "engines/mysql/my.h"
#include "engines/mysql/rights.h"

#include <stdio.h>
#include <string.h>

/* The first value of a query, "" for none; NULL: it was refused. */
static const char *answer_of(struct my_db *db, struct arena *a, const char *sql)
{
    MYSQL_RES *res = my_query(db, sql, NULL);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    const char *text = arena_strdup(a, row != NULL && row[0] != NULL ? row[0] : "");

    mysql_free_result(res);
    return res != NULL ? text : NULL;
}

/* A query that the role may not make counts as none. */
static const char *text_of(struct my_db *db, struct arena *a, const char *sql)
{
    const char *text = answer_of(db, a, sql);

    return text != NULL ? text : "";
}

/* Whom a remedy gives a right to. */
static const char *grantee(struct my_db *db, struct arena *a)
{
    const char *account = my_account(db, a, NULL);

    return account != NULL ? account : "lockstep's account";
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
            findings_add(
                a, out,
                (struct finding){true, object,
                                 arena_printf(a, "lockstep's account lacks %s, %s", right, why),
                                 arena_printf(a, "GRANT %s ON *.* TO %s", right, grantee(db, a))});
    }
}

/* ---- accounts ---- */

/* Every account but ours and the server's own, as (user, host); `access` is its rights on *.* as a
 * number, `version` that of the server that wrote it down. */
#define MARIA_ACCOUNTS                                                                             \
    "(SELECT User AS user, Host AS host,"                                                          \
    " CAST(coalesce(json_value(Priv, '$.access'), 0) AS UNSIGNED) AS access,"                      \
    " CAST(coalesce(json_value(Priv, '$.version_id'), 0) AS UNSIGNED) AS version"                  \
    " FROM mysql.global_priv WHERE User <> 'mariadb.sys'"                                          \
    " AND concat(User, '@', Host) <> current_user()) g"
#define MYSQL_ACCOUNTS                                                                             \
    "(SELECT * FROM mysql.user u WHERE u.User NOT LIKE 'mysql.%'"                                  \
    " AND concat(u.User, '@', u.Host) <> current_user()) g"
/* Roles of MariaDB have no host. */
#define NAMES                                                                                      \
    "SELECT group_concat(if(w.host = '', concat('role ', w.user),"                                 \
    " concat(w.user, '@', w.host)) ORDER BY w.user, w.host SEPARATOR ', ') FROM "

/* Whom read_only does not stop, besides us: nobody can, but somebody should know. On MariaDB 1 <<
 * 33 is READ ONLY ADMIN, as mysql.global_priv keeps rights; until 10.11 SUPER (1 << 15) held it. */
#define MARIA_EXEMPT                                                                               \
    "(SELECT a.* FROM (SELECT * FROM " MARIA_ACCOUNTS ") a WHERE a.access & (1 << 33)"             \
    " OR a.version < 101100 AND a.access & (1 << 15)) w"
#define MYSQL_EXEMPT                                                                               \
    "(SELECT g.User AS user, g.Host AS host FROM " MYSQL_ACCOUNTS                                  \
    " WHERE g.Super_priv = 'Y' UNION SELECT g.User, g.Host FROM " MYSQL_ACCOUNTS                   \
    " JOIN mysql.global_grants r ON r.USER = g.User AND r.HOST = g.Host"                           \
    " WHERE r.PRIV = 'CONNECTION_ADMIN') w"

static void check_exempt(struct my_db *db, const char *object, struct arena *a,
                         struct findings *out)
{
    const char *who = answer_of(db, a, db->maria ? NAMES MARIA_EXEMPT : NAMES MYSQL_EXEMPT);

    if (who == NULL) {
        const char *me = grantee(db, a);

        findings_add(a, out,
                     (struct finding){
                         false, object,
                         "lockstep's account may not see which accounts write while the fence is "
                         "closed",
                         db->maria ? arena_printf(a, "GRANT SELECT ON mysql.global_priv TO %s", me)
                                   : arena_printf(a,
                                                  "GRANT SELECT ON mysql.user TO %s; GRANT SELECT"
                                                  " ON mysql.global_grants TO %s",
                                                  me, me)});
    } else if (who[0] != '\0') {
        findings_add(a, out,
                     (struct finding){
                         false, object,
                         arena_printf(a, "these accounts write while the fence is closed: %s", who),
                         "no application may use them during the switch"});
    }
}

/* A procedure, and a job of the scheduler, does what its definer may, whoever calls it; a function
 * does not come past the end of its caller's statement. */
#define DEFINED(procedures, events, schema, exempt)                                                \
    "SELECT group_concat(d.what ORDER BY 1 SEPARATOR ', ') FROM (SELECT" procedures                \
    " UNION ALL SELECT" events ") d JOIN " exempt " ON d.definer = concat(w.user, '@', w.host)"    \
    " WHERE d." schema " NOT IN (" MY_SYSTEM_SCHEMAS ", '" MY_CONTROL "')"
#define MARIA_DEFINED                                                                              \
    DEFINED(" concat('procedure ', p.db, '.', p.name) AS what, p.db, p.definer FROM mysql.proc p"  \
            " WHERE p.type = 'PROCEDURE' AND p.security_type = 'DEFINER'",                         \
            " concat('event ', v.db, '.', v.name), v.db, v.definer FROM mysql.event v"             \
            " WHERE v.status = 'ENABLED'",                                                         \
            "db", MARIA_EXEMPT)
#define MYSQL_DEFINED                                                                              \
    DEFINED(" concat('procedure ', p.routine_schema, '.', p.routine_name) AS what,"                \
            " p.routine_schema AS db, p.definer FROM information_schema.routines p"                \
            " WHERE p.routine_type = 'PROCEDURE' AND p.security_type = 'DEFINER'",                 \
            " concat('event ', v.event_schema, '.', v.event_name), v.event_schema, v.definer"      \
            " FROM information_schema.events v WHERE v.status = 'ENABLED'",                        \
            "db", MYSQL_EXEMPT)

static void check_definers(struct my_db *db, const char *object, struct arena *a,
                           struct findings *out)
{
    /* Where MySQL does not show them it says nothing of that. */
    bool shown = db->maria || (granted(db, a, "SHOW_ROUTINE") && granted(db, a, "EVENT"));
    const char *what = shown ? answer_of(db, a, db->maria ? MARIA_DEFINED : MYSQL_DEFINED) : NULL;
    const char *me;

    if (what != NULL && what[0] != '\0')
        findings_add(a, out,
                     (struct finding){
                         false, object,
                         arena_printf(a,
                                      "these write while the fence is closed, whoever calls them,"
                                      " since their definers may: %s",
                                      what),
                         "ALTER PROCEDURE … SQL SECURITY INVOKER, and ALTER EVENT … DISABLE during "
                         "the switch"});
    if (what != NULL)
        return;
    me = grantee(db, a);
    findings_add(a, out,
                 (struct finding){
                     false, object,
                     "lockstep's account may not see whether procedures and events write while"
                     " the fence is closed, by the rights of their definers",
                     db->maria ? arena_printf(a,
                                              "GRANT SELECT ON mysql.proc TO %s; GRANT SELECT"
                                              " ON mysql.event TO %s",
                                              me, me)
                               : arena_printf(a, "GRANT SHOW_ROUTINE, EVENT ON *.* TO %s", me)});
}

/* Who writes to these databases, by a right on the server, on a database (its name is a pattern) or
 * on a table; who may not look there is told of all accounts. */
static const char *writers(struct my_db *db, const char *schemas, struct arena *a)
{
    const char *sql = arena_printf(
        a,
        NAMES "(SELECT g.user, g.host FROM %s WHERE %s"
              " UNION SELECT d.User, d.Host FROM mysql.db d JOIN information_schema.schemata s"
              " ON CONVERT(s.schema_name USING utf8mb4) COLLATE utf8mb4_bin LIKE d.Db"
              " WHERE s.schema_name%s AND 'Y' IN (d.Insert_priv, d.Update_priv, d.Delete_priv)"
              " UNION SELECT t.User, t.Host FROM mysql.tables_priv t WHERE t.Db%s AND"
              " concat(t.Table_priv, ',', t.Column_priv) REGEXP 'Insert|Update|Delete') w"
              " WHERE concat(w.user, '@', w.host) <> current_user()",
        db->maria ? MARIA_ACCOUNTS : MYSQL_ACCOUNTS,
        db->maria ? "g.access & 14" : "'Y' IN (g.Insert_priv, g.Update_priv, g.Delete_priv)",
        schemas, schemas);
    const char *who = answer_of(db, a, sql);

    if (who != NULL)
        return arena_printf(a, "those that write to its databases are %s", who);
    who = text_of(db, a,
                  db->maria
                      ? NAMES "(SELECT g.user, g.host FROM " MARIA_ACCOUNTS " WHERE g.host <> '') w"
                      : NAMES "(SELECT g.User AS user, g.Host AS host FROM " MYSQL_ACCOUNTS ") w");
    return arena_printf(a, "it has %s", who);
}

/* In mysql.db the name is a pattern. */
const char *my_fence_writers(struct my_db *db, const char *database, struct arena *a)
{
    return answer_of(
        db, a,
        arena_printf(
            a,
            NAMES "(SELECT g.user, g.host FROM %s WHERE %s"
                  " UNION SELECT d.User, d.Host FROM mysql.db d WHERE CONVERT(%s USING utf8mb4)"
                  " COLLATE utf8mb4_bin LIKE d.Db AND 'Y' IN (d.Insert_priv, d.Update_priv,"
                  " d.Delete_priv)"
                  " UNION SELECT t.User, t.Host FROM mysql.tables_priv t WHERE t.Db ="
                  " CONVERT(%s USING utf8mb4) COLLATE utf8mb4_bin"
                  " AND concat(t.Table_priv, ',', t.Column_priv) REGEXP 'Insert|Update|Delete') w"
                  " WHERE concat(w.user, '@', w.host) <> current_user()",
            db->maria ? MARIA_ACCOUNTS : MYSQL_ACCOUNTS,
            db->maria ? "g.access & 14 AND NOT g.access & (1 << 15)"
                      : "'Y' IN (g.Insert_priv, g.Update_priv, g.Delete_priv)"
                        " AND g.Super_priv <> 'Y'",
            database, database));
}

/* Both servers of a migration share the list, so one that is missing here is no fault; all are. */
static void check_accounts(struct my_db *db, const char *object, const char *schemas,
                           struct arena *a, struct findings *out)
{
    struct buf sql;

    buf_init(&sql, BUF_MAX_TEXT);
    buf_adds(&sql, "SELECT count(*) FROM ");
    buf_adds(&sql, db->maria ? "mysql.global_priv" : "mysql.user");
    buf_adds(&sql, " WHERE Host <> '' AND (User, lower(Host)) IN (");
    for (size_t i = 0; i < db->fence.naccounts; i++) {
        buf_adds(&sql, i > 0 ? ", (" : "(");
        my_fence_account(db->fence.accounts[i], &sql);
        buf_addc(&sql, ')');
    }
    buf_addc(&sql, ')');
    invariant(!sql.overflow);
    if (strcmp(text_of(db, a, sql.data), "0") == 0)
        findings_add(a, out,
                     (struct finding){
                         true, object,
                         arena_printf(a,
                                      "none of fence.accounts exists there, so the seal would lock "
                                      "nobody, and a restart would open the server; %s",
                                      writers(db, schemas, a)),
                         "fence: {accounts: [user@host, …]} with the applications' accounts, "
                         "written as the server has them"});
    buf_release(&sql);
}

/* ---- the server ---- */

/* Lifting a fence makes the server what it was; so one that was closed before stays closed to the
 * applications that the switch sends there. */
static void check_closed(struct my_db *db, const char *object, struct arena *a,
                         struct findings *out)
{
    const char *mode;

    if (strcmp(text_of(db, a, "SELECT @@GLOBAL.read_only"), "1") != 0)
        return;
    mode = text_of(db, a, "SELECT mode FROM " MY_CONTROL ".fence WHERE one = 1");
    if (mode[0] != '\0' && strcmp(mode, "open") != 0)
        return;
    findings_add(a, out,
                 (struct finding){true, object,
                                  "read_only is on, and not by lockstep's fence: the server would "
                                  "stay closed after a switch to it",
                                  "SET GLOBAL read_only = 0, and in the server's configuration; "
                                  "lockstep seals the target itself before anybody may write"});
}

void my_fence_findings(struct my_db *db, const char *object, const char *schemas, struct arena *a,
                       struct findings *out)
{
    bool accounts =
        db->maria || strcmp(text_of(db, a, "SELECT @@persisted_globals_load"), "0") == 0;

    if (strcmp(text_of(db, a, "SELECT @@GLOBAL.event_scheduler"), "ON") != 0)
        findings_add(a, out,
                     (struct finding){
                         true, object, "event_scheduler is off: a fence's lease could not lapse",
                         "SET GLOBAL event_scheduler = ON, and event_scheduler=ON in the "
                         "server's configuration"});
    if (accounts && db->fence.naccounts == 0)
        findings_add(
            a, out,
            (struct finding){true, object,
                             "the server forgets read_only when it restarts, so accounts must be "
                             "locked to seal it, and none are named",
                             "fence: {accounts: [app@%]} with the applications' accounts"});
    if (accounts && db->fence.naccounts > 0)
        check_accounts(db, object, schemas, a, out);
    check_closed(db, object, a, out);
    check_rights(db, accounts, object, a, out);
    check_exempt(db, object, a, out);
    check_definers(db, object, a, out);
}
