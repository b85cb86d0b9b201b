/* The stream's tables: what the log says about a relation, held against the plan, and changes of it
 * as rows of the plan's columns. */
#ifndef LOCKSTEP_ENGINES_POSTGRES_RELATION_H
#define LOCKSTEP_ENGINES_POSTGRES_RELATION_H

#include "engines/postgres/pg.h"
#include "engines/postgres/pgoutput.h"

struct relation {
    const struct table *table;
    bool checked;    /* a RELATION message has been found equal to the plan */
    bool unfit;      /* the last one has not: no changes until one does again */
    uint64_t doubt;  /* the commit in which the catalog may have been behind the log; 0: none */
    size_t nsent;    /* columns in the log's rows */
    size_t *place;   /* of each of them in table->columns */
    uint32_t *types; /* as checked, so that the same message is not asked about again */
    int32_t *typmods;
};

/* A relation of the log whose changes are not taken, though they concern a planned table: that is
 * said in every transaction that has one. Saying it once would not do: the table may be copied
 * again and follow again, and then what is left out must not be left out in silence. */
struct outsider {
    uint32_t id;
    const struct table *table;
    const char *reason;
    uint64_t told; /* commit of the transaction in which it was last said */
};

struct relations {
    size_t n;
    struct relation *v; /* by table->id */
    struct relation *last;
    struct arena *life;
    struct outsider *outsiders;
    size_t noutsiders;
};

/* Copies the tables into the arena. */
void relations_init(struct relations *rs, struct arena *a, const struct table_list *tables);
/* NULL: not in the plan. */
struct relation *relations_find(struct relations *rs, uint32_t id);

/* Is a planned table a leaf of this partitioned table ("public.orders")? */
bool relations_has_root(const struct relations *rs, const char *root);

/* Asks the server for the names of types, and for the reason why a table's rows are not those that
 * were planned though its RELATION is (NULL: they are). */
typedef int relation_types_fn(void *arg, const struct pgo_relation *r, struct arena *a,
                              const char **names, struct err *e);
typedef int relation_rewritten_fn(void *arg, const struct table *planned, struct arena *a,
                                  const char **reason, bool *final, struct err *e);
struct relation_asker {
    relation_types_fn *types;
    relation_rewritten_fn *rewritten;
    void *arg;
};

/* Takes a RELATION message. 0: fits, or nothing to do with the plan; 1: *out is a planned table
 * that is not what it was, *reason (in scratch) says why; -1. `life` keeps what must stay. */
int relations_take(struct relations *rs, const struct pgo_relation *r,
                   const struct relation_asker *asker, struct arena *scratch, struct relation **out,
                   const char **reason, struct err *e);

/* From now on nothing is taken of the relation `id`. table must live as long as the relations. */
void relations_leave_out(struct relations *rs, uint32_t id, const struct table *table,
                         const char *reason);
/* Is it one that is left out? */
bool relations_left_out(const struct relations *rs, uint32_t id);
/* It fits again. */
void relations_let_in(struct relations *rs, uint32_t id);
/* NULL: not left out, or said before in the transaction that commits at `commit`. */
const struct outsider *relations_tell(struct relations *rs, uint32_t id, uint64_t commit);

/* A change of a checked relation as the plan's rows (in a; values stay in the message). */
int relation_change(const struct relation *rel, enum pgo_kind kind, const struct pgo_change *m,
                    struct arena *a, struct change *out, struct err *e);

#endif
