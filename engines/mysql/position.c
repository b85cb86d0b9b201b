/* Positions that applications bring: what a session can learn of its own commit by SQL.
 *
 * A place in the log (42:1234, or mysql-bin.000042:1234 as SHOW MASTER STATUS has it) needs a right
 * that applications seldom have; a GTID does not: @@last_gtid on MariaDB, @@global.gtid_executed on
 * MySQL. Where in the log a GTID stands, the server does not tell without reading the log. So it is
 * asked whether its log has them by now; if so, its present end lies behind them. */
#include "engines/mysql/my.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GTIDS_MAX 4000

static bool parse_number(const char *text, uint64_t *out)
{
    size_t len = strlen(text);

    if (len == 0 || len > 18 || strspn(text, "0123456789") != len)
        return false;
    *out = strtoull(text, NULL, 10);
    return true;
}

/* number:offset, or file:offset */
static bool parse_place(const char *text, struct position *out)
{
    char file[300];
    const char *colon = strrchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof file)
        return false;
    snprintf(file, sizeof file, "%.*s", (int)(colon - text), text);
    return parse_number(colon + 1, &out->minor) &&
           (parse_number(file, &out->major) || my_binlog_number(file, &out->major) == 0);
}

/* MariaDB: domain-server-sequence. */
struct gtid {
    uint64_t part[3];
};

/* Takes one and the comma behind it; *text is moved on. */
static bool next_gtid(const char **text, struct gtid *out)
{
    const char *p = *text;

    for (int i = 0; i < 3; i++) {
        size_t len = strspn(p, "0123456789");

        if (len == 0 || len > 20 || (i < 2 && p[len] != '-'))
            return false;
        out->part[i] = strtoull(p, NULL, 10);
        p += len + (i < 2);
    }
    if (*p == ',')
        p += 1 + strspn(p + 1, " ");
    else if (*p != '\0')
        return false;
    *text = p;
    return true;
}

static bool are_gtids(const char *text)
{
    struct gtid g;

    if (*text == '\0' || text[strlen(text) - 1] == ',')
        return false;
    while (*text != '\0') {
        if (!next_gtid(&text, &g))
            return false;
    }
    return true;
}

/* `state` names the last of each domain and server; in a log their numbers only rise. */
static bool state_has(const char *state, const struct gtid *wanted)
{
    struct gtid g;

    while (*state != '\0' && next_gtid(&state, &g)) {
        if (g.part[0] == wanted->part[0] && g.part[1] == wanted->part[1])
            return g.part[2] >= wanted->part[2];
    }
    return false;
}

/* 1 the log has all of them, 0 not, -1. */
static int maria_has(struct my_db *db, const char *text, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SELECT @@global.gtid_binlog_state", e);
    struct gtid wanted;
    bool all = true;

    if (res == NULL)
        return -1;
    MYSQL_ROW row = mysql_fetch_row(res);
    const char *state = row != NULL && row[0] != NULL ? row[0] : "";
    while (all && *text != '\0' && next_gtid(&text, &wanted))
        all = state_has(state, &wanted);
    mysql_free_result(res);
    return all;
}

#define MALFORMED_GTID_SET 1772

/* MySQL: uuid:1-5[:7…][,…]; the server reads it. Here only that nothing else gets there. */
static bool is_gtid_set(const char *text)
{
    size_t len = strlen(text);

    return len >= 38 && text[8] == '-' && text[36] == ':' &&
           strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEF_:-, \n") == len;
}

static int mysql_has(struct my_db *db, const char *text, struct err *e)
{
    MYSQL_RES *res = my_queryf(db, e, "SELECT GTID_SUBSET('%s', @@global.gtid_executed)", text);

    if (res == NULL && mysql_errno(db->conn) == MALFORMED_GTID_SET)
        return err_set(e, ERR_CONFIG, "\"%.60s\" is no set of GTIDs", text);
    if (res == NULL)
        return -1;
    MYSQL_ROW row = mysql_fetch_row(res);
    bool has = row != NULL && row[0] != NULL && row[0][0] == '1';
    mysql_free_result(res);
    return has;
}

static int find_gtids(struct db *base, const char *text, struct position *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    int rc = db->maria ? maria_has(db, text, e) : mysql_has(db, text, e);

    if (rc < 0)
        return err_wrap(e, "looking for the position %.60s", text);
    if (rc == 0)
        return 0;
    return my_current_position(base, out, e) < 0 ? -1 : 1;
}

int my_position_find(struct db *base, const char *text, struct position *out, struct err *e)
{
    struct my_db *db = my_db_from(base);
    struct position end;

    *out = (struct position){0, 0};
    if (strlen(text) < GTIDS_MAX && (db->maria ? are_gtids(text) : is_gtid_set(text)))
        return find_gtids(base, text, out, e);
    if (!parse_place(text, out))
        return err_set(e, ERR_CONFIG,
                       "\"%.60s\" is no position of a %s server; expected file:offset such as "
                       "mysql-bin.000042:1234 (or 42:1234), or %s",
                       text, db->maria ? "MariaDB" : "MySQL",
                       db->maria ? "GTIDs such as 0-1-55, as @@last_gtid gives them"
                                 : "a set of GTIDs, as @@global.gtid_executed gives it");
    if (my_current_position(base, &end, e) < 0)
        return -1;
    return position_cmp(*out, end) <= 0;
}
