/* MySQL and MariaDB have not all collations in common: MySQL's newer ones are called 0900, those of
 * MariaDB uca1400 or nopad. What the other server calls its like is told here; what has none there
 * gets the other server's default, which takes other texts for equal. */
#include "engines/mysql/my.h"

#include <string.h>

#define MYSQL_0900 80017
#define MARIA_UCA1400 101001

#define OTHER_UNICODE "no two keys that the newer of two Unicode versions takes for equal"
#define BLANKS_BACK OTHER_UNICODE "; back: nor two that differ only in blanks at the end"

/* The first row that has a name is the one that it is turned by. */
static const struct pair {
    const char *mysql;
    const char *maria;
    const char *condition; /* NULL: they take the same texts for equal */
} pairs[] = {
    {"utf8mb4_0900_bin", "utf8mb4_nopad_bin", NULL},
    {"utf8mb4_0900_ai_ci", "utf8mb4_uca1400_nopad_ai_ci", OTHER_UNICODE},
    {"utf8mb4_0900_as_ci", "utf8mb4_uca1400_nopad_as_ci", OTHER_UNICODE},
    {"utf8mb4_0900_as_cs", "utf8mb4_uca1400_nopad_as_cs", OTHER_UNICODE},
    /* With PAD SPACE at the source, NO PAD at the target: what was different stays so. */
    {"utf8mb4_0900_ai_ci", "utf8mb4_uca1400_ai_ci", BLANKS_BACK},
    {"utf8mb4_0900_as_ci", "utf8mb4_uca1400_as_ci", BLANKS_BACK},
    {"utf8mb4_0900_as_cs", "utf8mb4_uca1400_as_cs", BLANKS_BACK},
};

static bool is_mysql(const char *collation)
{
    return strstr(collation, "_0900_") != NULL;
}

static bool is_uca1400(const char *collation)
{
    return strstr(collation, "uca1400") != NULL;
}

static bool is_maria(const char *collation)
{
    return is_uca1400(collation) || strstr(collation, "nopad") != NULL;
}

static const struct pair *pair_of(const char *collation)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        if (strcmp(pairs[i].mysql, collation) == 0 || strcmp(pairs[i].maria, collation) == 0)
            return &pairs[i];
    }
    return NULL;
}

void my_collate(struct buf *b, const char *collation)
{
    const struct pair *p = pair_of(collation);
    const char *maria = is_maria(collation) ? collation : p != NULL ? p->maria : NULL;
    const char *mysql = is_mysql(collation) ? collation : p != NULL ? p->mysql : NULL;

    if (!is_mysql(collation) && !is_maria(collation)) {
        buf_addf(b, " COLLATE %s", collation);
        return;
    }
    if (maria != NULL && is_uca1400(maria))
        buf_addf(b, " /*M!%d COLLATE %s */", MARIA_UCA1400, maria);
    else if (maria != NULL)
        buf_addf(b, " /*M! COLLATE %s */", maria);
    if (mysql != NULL)
        buf_addf(b, " /*!%d COLLATE %s */", MYSQL_0900, mysql);
}

static bool has_collation(const struct my_db *db, const char *collation)
{
    if (is_mysql(collation))
        return !db->maria && db->version >= MYSQL_0900;
    if (is_uca1400(collation))
        return db->maria && db->version >= MARIA_UCA1400;
    return db->maria || !is_maria(collation);
}

/* In any that makes values differ. */
static bool in_unique_key(const struct table_def *d, const char *column)
{
    for (size_t i = 0; i < d->nindexes; i++) {
        const struct index_def *x = &d->indexes[i];

        for (size_t c = 0; (x->primary || x->unique) && !x->unfit && c < x->ncolumns; c++) {
            if (strcmp(x->columns[c].name, column) == 0)
                return true;
        }
    }
    return false;
}

static void add_condition(struct arena *a, struct verdict *v, const char *condition, bool forward)
{
    if (v->forward > FIDELITY_CONDITION)
        return;
    v->back = FIDELITY_CONDITION;
    if (forward)
        v->forward = FIDELITY_CONDITION;
    v->condition = v->condition ? arena_printf(a, "%s; %s", v->condition, condition) : condition;
}

static void judge(const struct my_db *target, const struct table_def *d, size_t i,
                  struct verdict *v, struct arena *a, struct findings *out)
{
    const struct column_def *c = &d->columns[i];
    const struct pair *p = pair_of(c->collation);
    const char *other = p == NULL ? NULL : target->maria ? p->maria : p->mysql;
    bool key = in_unique_key(d, c->column->name);
    struct finding f = {.fatal = key};

    if (has_collation(target, c->collation))
        return;
    if (other != NULL && has_collation(target, other)) {
        if (p->condition != NULL && key)
            add_condition(a, v, p->condition, true);
        return;
    }
    add_condition(a, v,
                  arena_printf(a,
                               "the target has no collation %s nor its like: other texts are"
                               " equal there",
                               c->collation),
                  true);
    f.object = arena_printf(a, "%s.%s", table_label(d->table), c->column->name);
    f.what = arena_printf(a, "the target has no collation %s nor its like: %s", c->collation,
                          key ? "keys that differ here may be equal there"
                              : "other texts are equal there, and their order is another");
    f.remedy = arena_printf(a,
                            "give it a collation that both servers have (%.*s_bin, "
                            "%.*s_unicode_520_ci, …)%s",
                            (int)strcspn(c->collation, "_"), c->collation,
                            (int)strcspn(c->collation, "_"), c->collation,
                            target->maria && is_mysql(c->collation) && p != NULL
                                ? ", or use a target of MariaDB 10.10 or newer"
                                : "");
    findings_add(a, out, f);
}

void my_judge_pair(struct db *source, struct db *target, const struct table_def *def,
                   struct verdict *verdicts, struct arena *a, struct findings *out)
{
    (void)source;
    for (size_t i = 0; i < def->table->ncolumns; i++) {
        if (def->columns[i].collation != NULL)
            judge(my_db_from(target), def, i, &verdicts[i], a, out);
    }
}
