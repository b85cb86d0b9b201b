#include "control/plan.h"

#include <string.h>

/* ---- shapes ---- */

static json_t *column_json(const struct column *c)
{
    json_t *json =
        json_pack("{s:s, s:s, s:s?, s:s?, s:i, s:i, s:i, s:i, s:i, s:i}", "name", c->name, "kind",
                  type_kind_name(c->kind), "source_type", c->source_type, "cast_type", c->cast_type,
                  "order", (int)c->order, "precision", c->precision, "scale", c->scale, "length",
                  c->length, "fraction", c->fraction, "key", c->key);

    json_object_set_new(json, "array", json_boolean(c->array));
    json_object_set_new(json, "not_null", json_boolean(c->not_null));
    json_object_set_new(json, "generated", json_boolean(c->generated));
    json_object_set_new(json, "identity_always", json_boolean(c->identity_always));
    json_object_set_new(json, "number", json_integer(c->number));
    json_object_set_new(json, "stamp", json_integer(c->stamp));
    return json;
}

static json_t *shape_json(const struct table *t)
{
    json_t *columns = json_array();
    json_t *there = t->there ? shape_json(t->there) : NULL;

    for (size_t i = 0; i < t->ncolumns; i++)
        json_array_append_new(columns, column_json(&t->columns[i]));
    return json_pack("{s:I, s:i, s:s, s:s, s:s?, s:i, s:I, s:I, s:I, s:b, s:o, s:o*}", "id",
                     (json_int_t)t->id, "version", (int)t->version, "schema", t->schema, "name",
                     t->name, "root", t->root, "identity", (int)t->identity, "rows",
                     (json_int_t)t->rows, "bytes", (json_int_t)t->bytes, "filenode",
                     (json_int_t)t->filenode, "scattered", t->scattered, "columns", columns,
                     "there", there);
}

int shape_store(struct db *db, const struct table *t, struct err *e)
{
    return fact_write(db, "shape", table_label(t), shape_json(t), e);
}

int shapes_store(struct db *db, const struct table_list *tables, struct err *e)
{
    struct fact *facts;
    size_t n;
    int status = 0;

    if (db->engine->fact_scan(db, "shape", "", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; status == 0 && i < n; i++)
        status = db->engine->fact_delete(db, "shape", facts[i].key, e);
    facts_release(facts, n);
    for (size_t i = 0; status == 0 && i < tables->n; i++)
        status = shape_store(db, tables->v[i], e);
    return status;
}

static char *dup_text(struct arena *a, const json_t *body, const char *member)
{
    const char *text = fact_text(body, member);

    return text ? arena_strdup(a, text) : NULL;
}

static int column_parse(struct arena *a, const json_t *json, struct column *out)
{
    const char *kind = fact_text(json, "kind");

    out->name = dup_text(a, json, "name");
    if (!out->name || !kind || type_kind_parse(kind) < 0)
        return -1;
    out->kind = (enum type_kind)type_kind_parse(kind);
    out->source_type = dup_text(a, json, "source_type");
    out->cast_type = dup_text(a, json, "cast_type");
    out->order = (enum key_order)fact_int(json, "order", 0);
    out->precision = (int)fact_int(json, "precision", 0);
    out->scale = (int)fact_int(json, "scale", 0);
    out->length = (int)fact_int(json, "length", 0);
    out->fraction = (int)fact_int(json, "fraction", 0);
    out->key = (int)fact_int(json, "key", 0);
    out->array = fact_bool(json, "array");
    out->not_null = fact_bool(json, "not_null");
    out->generated = fact_bool(json, "generated");
    out->identity_always = fact_bool(json, "identity_always");
    out->number = (uint32_t)fact_int(json, "number", 0);
    out->stamp = (uint32_t)fact_int(json, "stamp", 0);
    return 0;
}

static int key_parse(struct arena *a, struct table *t)
{
    t->key = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*t->key));
    for (size_t i = 0; i < t->ncolumns; i++) {
        int place = t->columns[i].key;

        if (place < 0 || (size_t)place > t->ncolumns)
            return -1;
        if (place) {
            t->key[place - 1] = i;
            t->nkey++;
        }
    }
    return 0;
}

static int shape_parse(struct arena *a, const json_t *body, struct table *t)
{
    const json_t *columns = json_object_get(body, "columns");

    t->id = (uint32_t)fact_int(body, "id", 0);
    t->version = (uint32_t)fact_int(body, "version", 0);
    t->schema = dup_text(a, body, "schema");
    t->name = dup_text(a, body, "name");
    t->root = dup_text(a, body, "root");
    t->identity = (enum replica_identity)fact_int(body, "identity", IDENTITY_NONE);
    t->rows = (uint64_t)fact_int(body, "rows", 0);
    t->bytes = (uint64_t)fact_int(body, "bytes", 0);
    t->filenode = (uint64_t)fact_int(body, "filenode", 0);
    t->scattered = fact_bool(body, "scattered");
    if (!t->schema || !t->name || !json_is_array(columns))
        return -1;
    t->ncolumns = json_array_size(columns);
    t->columns = arena_zalloc(a, (t->ncolumns + 1) * sizeof(*t->columns));
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (column_parse(a, json_array_get(columns, i), &t->columns[i]) < 0)
            return -1;
    }
    if (json_is_object(json_object_get(body, "there"))) {
        t->there = arena_zalloc(a, sizeof(*t->there));
        if (shape_parse(a, json_object_get(body, "there"), t->there) < 0 ||
            t->there->ncolumns != t->ncolumns)
            return -1;
    }
    return key_parse(a, t);
}

int shapes_load(struct db *db, struct arena *a, struct table_list *out, struct err *e)
{
    struct fact *facts;
    size_t n;
    int status = 0;

    memset(out, 0, sizeof(*out));
    if (db->engine->fact_scan(db, "shape", "", &facts, &n, e) < 0)
        return err_wrap(e, "reading the planned tables");
    out->v = arena_zalloc(a, (n + 1) * sizeof(*out->v));
    for (size_t i = 0; status == 0 && i < n; i++) {
        struct table *t = arena_zalloc(a, sizeof(*t));

        if (shape_parse(a, facts[i].body, t) < 0)
            status = err_set(e, ERR_FATAL, "control fact shape %s is damaged", facts[i].key);
        out->v[out->n++] = t;
    }
    facts_release(facts, n);
    return status;
}

void tables_there(const struct table_list *tables, struct arena *a, struct table_list *out)
{
    out->n = tables->n;
    out->v = arena_zalloc(a, (tables->n + 1) * sizeof(*out->v));
    for (size_t i = 0; i < tables->n; i++)
        out->v[i] = tables->v[i]->there ? tables->v[i]->there : tables->v[i];
}

void selection_there(const struct selection *s, const struct table_list *tables, struct arena *a,
                     struct selection *out)
{
    const char **labels = arena_zalloc(a, (tables->n + 1) * sizeof(*labels));
    bool other = false;

    for (size_t i = 0; i < tables->n; i++) {
        labels[i] = arena_strdup(a, table_label(table_there(tables->v[i])));
        other = other || tables->v[i]->there;
    }
    *out = other ? (struct selection){.include = labels, .ninclude = tables->n} : *s;
}

struct table *table_list_find(const struct table_list *l, const char *label)
{
    for (size_t i = 0; i < l->n; i++) {
        if (table_is(l->v[i], label))
            return l->v[i];
    }
    return NULL;
}

/* ---- schema steps ---- */

static const char *const step_state_names[] = {"planned", "ready", "running", "done"};

static json_t *step_json(const struct step *step)
{
    const struct schema_step *s = &step->s;
    /* What is done need not be read again; a whole schema may be long. */
    const char *sql = step->state == STEP_DONE ? "" : s->sql;

    return json_pack("{s:s, s:i, s:i, s:s, s:s?, s:s, s:s?, s:b, s:b, s:b, s:b, s:s?}", "state",
                     step_state_names[step->state], "phase", (int)s->phase, "order", s->order,
                     "name", s->name, "table", s->table, "sql", sql, "undo", s->undo, "online",
                     s->online, "whole", s->whole, "pauses_apply", s->pauses_apply, "repeated",
                     step->repeated, "runner", step->state == STEP_RUNNING ? step->runner : NULL);
}

int steps_store(struct db *db, const struct schema_steps *steps, struct err *e)
{
    struct arena a = ARENA_INIT;
    struct fact *facts;
    size_t n;
    int status = 0;

    if (db->engine->fact_scan(db, "step", "", &facts, &n, e) < 0)
        return -1;
    for (size_t i = 0; status == 0 && i < n; i++)
        status = db->engine->fact_delete(db, "step", facts[i].key, e);
    facts_release(facts, n);
    for (size_t i = 0; status == 0 && i < steps->n; i++) {
        struct step step = {.s = steps->v[i], .state = STEP_PLANNED};
        const char *key = arena_printf(&a, "%d/%06d/%06zu", (int)step.s.phase, step.s.order, i);

        status = fact_write(db, "step", key, step_json(&step), e);
    }
    arena_release(&a);
    return status;
}

static bool is_done(const struct fact *fact)
{
    const char *state = fact_text(fact->body, "state");

    return state && strcmp(state, step_state_names[STEP_DONE]) == 0;
}

static int step_parse(const struct fact *fact, struct arena *a, struct step *out, struct err *e)
{
    const char *state = fact_text(fact->body, "state");
    size_t i = 0;

    while (i < 4 && (!state || strcmp(state, step_state_names[i]) != 0))
        i++;
    out->key = arena_strdup(a, fact->key);
    out->state = (enum step_state)i;
    out->version = fact->version;
    out->repeated = fact_bool(fact->body, "repeated");
    out->runner = dup_text(a, fact->body, "runner");
    out->s.phase = (enum schema_phase)fact_int(fact->body, "phase", SCHEMA_PHASES);
    out->s.order = (int)fact_int(fact->body, "order", 0);
    out->s.name = dup_text(a, fact->body, "name");
    out->s.table = dup_text(a, fact->body, "table");
    out->s.sql = dup_text(a, fact->body, "sql");
    out->s.undo = dup_text(a, fact->body, "undo");
    out->s.online = fact_bool(fact->body, "online");
    out->s.whole = fact_bool(fact->body, "whole");
    out->s.pauses_apply = fact_bool(fact->body, "pauses_apply");
    if (i == 4 || out->s.phase >= SCHEMA_PHASES || !out->s.name || !out->s.sql)
        return err_set(e, ERR_FATAL, "control fact step %s is damaged", fact->key);
    return 0;
}

int steps_load(struct db *db, struct arena *a, struct step_list *out, struct err *e)
{
    struct fact *facts;
    size_t n;
    int status = 0;

    memset(out, 0, sizeof(*out));
    if (db->engine->fact_scan(db, "step", "", &facts, &n, e) < 0)
        return err_wrap(e, "reading the schema steps");
    out->v = arena_zalloc(a, (n + 1) * sizeof(*out->v));
    for (size_t i = 0; status == 0 && i < n; i++) {
        if (is_done(&facts[i]))
            out->done++;
        else
            status = step_parse(&facts[i], a, &out->v[out->n++], e);
    }
    facts_release(facts, n);
    return status;
}

int step_move(struct db *db, struct step *step, enum step_state to, struct err *e)
{
    step->state = to;
    if (fact_cas(db, "step", step->key, step->version, step_json(step), e) < 0)
        return err_wrap(e, "schema step %s", step->s.name);
    step->version++;
    return 0;
}
