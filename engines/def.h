/* What a table is made of, beyond what travels with its rows: the bridge between two engines'
 * catalogs. Written by engine.describe, read by engine.column_for and engine.schema_render. */
#ifndef LOCKSTEP_ENGINES_DEF_H
#define LOCKSTEP_ENGINES_DEF_H

#include "engines/engine.h"

enum default_kind {
    DEFAULT_NONE,
    DEFAULT_LITERAL,    /* text: the value in its kind's form */
    DEFAULT_NOW,        /* the statement's or transaction's time */
    DEFAULT_IDENTITY,   /* sequence, identity, AUTO_INCREMENT */
    DEFAULT_EXPRESSION, /* text: in the engine's own words, good for that engine only */
    DEFAULT_GENERATED   /* text: the expression of a generated column; column->generated is set */
};

struct column_def {
    const struct column *column; /* of the table below; source_type is the declared type */
    enum default_kind default_kind;
    const char *default_text;
    bool stored;               /* DEFAULT_GENERATED */
    bool on_update_now;        /* MySQL */
    const char *const *labels; /* TYPE_ENUM, in order */
    size_t nlabels;
    const char *collation; /* the engine's own name, or NULL */
    bool case_insensitive; /* the collation takes texts for equal that differ in bytes */
    const char *comment;   /* or NULL */
    const char *unfit;     /* why no other engine is offered this type by name, or NULL */
    /* What column_for needs to know of the column's surroundings (schema_def_finish): */
    const struct table *there; /* the table that it will stand in: schema and name only */
    size_t shared_key; /* columns of the widest key, unique index or foreign key that it is in; 0:
                          none, so nothing asks for a bounded length */
    size_t row_chars;  /* declared characters of all bounded texts of its table together */
};

struct index_column {
    const char *name;
    int prefix; /* characters or bytes; 0: the whole */
    bool descending;
};
struct index_def {
    const char *name;
    bool primary;
    bool unique;
    size_t ncolumns;
    const struct index_column *columns;
    const char *unfit; /* why it can stand only on its own engine ("an expression"), or NULL */
};

enum foreign_action {
    FOREIGN_RESTRICT,
    FOREIGN_NO_ACTION,
    FOREIGN_CASCADE,
    FOREIGN_SET_NULL,
    FOREIGN_SET_DEFAULT
};
struct foreign_def {
    const char *name;
    size_t ncolumns;
    const char *const *columns;
    const char *ref_table; /* "schema.table", as labels are */
    const char *const *ref_columns;
    enum foreign_action on_delete;
    enum foreign_action on_update;
};

struct table_def {
    const struct table *table;
    struct column_def *columns; /* ncolumns of the table */
    size_t nindexes;
    struct index_def *indexes; /* the primary key first */
    size_t nforeigns;
    struct foreign_def *foreigns;
    size_t nchecks;
    const char *const *checks; /* CHECK expressions, in the engine's own words */
    const char *comment;
    bool exists; /* the target has it already, empty and alike: only what it lacks is made */
};

struct schema_def {
    size_t n;
    struct table_def *tables;
};

/* ---- what becomes of a column's values ---- */

enum fidelity {
    FIDELITY_EXACT, /* each value of the source's type arrives, and would come back, unaltered */
    FIDELITY_CONDITION, /* those that meet `condition` do; any other is refused, never altered */
    FIDELITY_LOSSY,     /* only with a rule that says so: refused */
    FIDELITY_NONE       /* no type of the target holds it: refused by name */
};
const char *fidelity_name(enum fidelity f);

struct verdict {
    enum fidelity forward;
    enum fidelity back;    /* what the target's column can hold, into the source's */
    const char *condition; /* for either, in words; NULL if both are exact */
};

/* Fills shared_key and row_chars of all columns; a column that refers to another by a foreign key
 * is bounded as that is. Call it when all else is described. */
void schema_def_finish(struct schema_def *def);
/* The column's place in the table, -1: none of that name. */
int table_column_find(const struct table *t, const char *name);
/* Which identity column a server numbers that can do so for one of a table only, the first column
 * of an index; the primary key's before others. -1: none; else *index is the one that it needs, of
 * those that can be carried. */
int table_counter(const struct table_def *t, const struct index_def **index);
/* The names of an index or a foreign key, one behind the other: for messages and for names. */
const char *index_columns_text(struct arena *a, const struct index_def *x);
/* Appends to a list of steps that is grown by doubling; *cap begins at 0. */
void schema_steps_add(struct arena *a, struct schema_steps *steps, size_t *cap,
                      struct schema_step step);
/* Copies object into the arena; what and remedy are borrowed. */
void findings_add(struct arena *a, struct findings *f, struct finding one);
/* Notes one that is prepared and not decided, by the name that it keeps. */
void fence_report_prepared(struct fence_report *r, const char *name, size_t len);
/* A name for an object that is at most `max` bytes long, cut with a number made from the whole
 * if it is longer. */
const char *schema_object_name(struct arena *a, size_t max, const char *name);

/* The entry of a table; NULL if it is not there. */
const struct table_def *schema_def_find(const struct schema_def *def, const char *label);

#endif
