#include "engines/mysql/rights.h"

#include <ctype.h>
#include <string.h>

struct my_grant {
    const char *rights;   /* "SELECT, INSERT" */
    const char *database; /* "*", or a pattern with \ % _ */
    const char *table;    /* "*" or a name */
};

/* ---- SHOW GRANTS ---- */

/* `name` or *, at *p, which moves behind it; NULL: neither. */
static const char *name_at(struct arena *a, const char **p)
{
    const char *s = *p;
    char *out = arena_alloc(a, strlen(s) + 1);
    size_t n = 0;

    if (*s == '*') {
        *p = s + 1;
        return "*";
    }
    if (*s != '`')
        return NULL;
    for (s++; *s != '\0' && !(s[0] == '`' && s[1] != '`'); s++) {
        if (*s == '`')
            s++;
        out[n++] = *s;
    }
    out[n] = '\0';
    *p = *s == '`' ? s + 1 : s;
    return out;
}

/* GRANT rights ON object TO account; false: another kind of line (a role, PROXY, a default). */
static bool grant_parse(struct arena *a, const char *line, struct my_grant *out)
{
    const char *on = strstr(line, " ON ");
    const char *p = on != NULL ? on + 4 : NULL;

    if (strncmp(line, "GRANT ", 6) != 0 || on == NULL)
        return false;
    out->rights = arena_strndup(a, line + 6, (size_t)(on - line) - 6);
    out->database = name_at(a, &p);
    if (out->database == NULL || *p != '.')
        return false;
    p++;
    out->table = name_at(a, &p);
    return out->table != NULL;
}

const char *my_account(struct my_db *db, struct arena *a, struct err *e)
{
    MYSQL_RES *res = my_query(db,
                              "SELECT concat(quote(left(current_user(), length(current_user()) -"
                              " length(substring_index(current_user(), '@', -1)) - 1)), '@',"
                              " quote(substring_index(current_user(), '@', -1)))",
                              e);
    MYSQL_ROW row = res != NULL ? mysql_fetch_row(res) : NULL;
    const char *text = arena_strdup(a, row != NULL && row[0] != NULL ? row[0] : "this account");

    mysql_free_result(res);
    return res != NULL ? text : NULL;
}

int my_rights_load(struct my_db *db, struct arena *a, struct my_rights *out, struct err *e)
{
    MYSQL_RES *res = my_query(db, "SHOW GRANTS", e);

    memset(out, 0, sizeof *out);
    if (res == NULL)
        return err_wrap(e, "reading the account's rights");
    out->v = arena_zalloc(a, ((size_t)mysql_num_rows(res) + 1) * sizeof *out->v);
    for (MYSQL_ROW row; (row = mysql_fetch_row(res)) != NULL;)
        if (row[0] != NULL && grant_parse(a, row[0], &out->v[out->n]))
            out->n++;
    mysql_free_result(res);
    out->account = my_account(db, a, e);
    return out->account != NULL ? 0 : -1;
}

/* ---- questions ---- */

static bool same_letter(char a, char b)
{
    a = a == '_' ? ' ' : (char)toupper((unsigned char)a);
    b = b == '_' ? ' ' : (char)toupper((unsigned char)b);
    return a == b;
}

/* Is `right` an element of the list? One for single columns ("SELECT (`id`)") is none. */
static bool list_has(const char *list, const char *right)
{
    size_t len = strlen(right);

    for (const char *p = list; p != NULL; p = strstr(p, ", ")) {
        size_t i = 0;

        p += p[0] == ',' ? 2 : 0;
        while (i < len && p[i] != '\0' && same_letter(p[i], right[i]))
            i++;
        if (i == len && (p[i] == '\0' || p[i] == ','))
            return true;
    }
    return false;
}

static bool grants(const struct my_grant *g, const char *right)
{
    return list_has(g->rights, right) || list_has(g->rights, "ALL PRIVILEGES") ||
           list_has(g->rights, "ALL");
}

/* The server's LIKE, as it is used for databases in grants. */
static bool like(const char *pattern, const char *name)
{
    for (; *pattern != '\0'; pattern++, name++) {
        if (*pattern == '%') {
            while (pattern[1] == '%')
                pattern++;
            do {
                if (like(pattern + 1, name))
                    return true;
            } while (*name++ != '\0');
            return false;
        }
        if (*name == '\0')
            return false;
        if (*pattern == '\\' && pattern[1] != '\0')
            pattern++;
        else if (*pattern == '_')
            continue;
        if (*pattern != *name)
            return false;
    }
    return *name == '\0';
}

bool my_rights_global(const struct my_rights *r, const char *right)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->v[i].database, "*") == 0 && grants(&r->v[i], right))
            return true;
    return false;
}

bool my_rights_database(const struct my_rights *r, const char *database, const char *right)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->v[i].table, "*") == 0 && like(r->v[i].database, database) &&
            grants(&r->v[i], right))
            return true;
    return my_rights_global(r, right);
}

bool my_rights_table(const struct my_rights *r, const char *database, const char *table,
                     const char *right)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->v[i].database, database) == 0 && strcmp(r->v[i].table, table) == 0 &&
            grants(&r->v[i], right))
            return true;
    return my_rights_database(r, database, right);
}
