#include "schemas/avro/schema.h"

#include "schemas/avro/names.h"
#include "schemas/avro/natural.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Raised when a reader of the old layout would misunderstand the new one. */
#define SCHEMA_FORMAT 1

static const struct field change_fields[CHANGE_FIELDS] = {
    [CHANGE_OP] = {"op", FIELD_STRING},
    [CHANGE_BEFORE] = {"before", FIELD_ROW},
    [CHANGE_AFTER] = {"after", FIELD_ROW},
    [CHANGE_SOURCE] = {"source", FIELD_SOURCE},
    [CHANGE_TRANSACTION] = {"transaction", FIELD_TRANSACTION},
    [CHANGE_TS_US] = {"ts_us", FIELD_MICROS},
    [CHANGE_VERSION] = {"version", FIELD_VERSION},
    [CHANGE_UNCHANGED] = {"unchanged", FIELD_NAMES},
    [CHANGE_UNCHANGED_BEFORE] = {"unchanged_before", FIELD_NAMES},
    [CHANGE_GROUP] = {"group", FIELD_LONG_OR_NULL},
    [CHANGE_RESTART_IDENTITY] = {"restart_identity", FIELD_BOOLEAN_OR_NULL},
};
static const struct field source_fields[SOURCE_FIELDS] = {
    [SOURCE_ENGINE] = {"engine", FIELD_STRING}, [SOURCE_DB] = {"db", FIELD_STRING},
    [SOURCE_SCHEMA] = {"schema", FIELD_STRING}, [SOURCE_TABLE] = {"table", FIELD_STRING},
    [SOURCE_XID] = {"xid", FIELD_LONG},         [SOURCE_COMMIT] = {"commit", FIELD_STRING},
    [SOURCE_TS_US] = {"ts_us", FIELD_MICROS},
};
static const struct field transaction_fields[TRANSACTION_FIELDS] = {
    [TRANSACTION_ID] = {"id", FIELD_STRING},
    [TRANSACTION_TOTAL_ORDER] = {"total_order", FIELD_LONG},
};
static const struct field version_fields[VERSION_FIELDS] = {
    [VERSION_EPOCH] = {"epoch", FIELD_LONG},
    [VERSION_COMMIT] = {"commit", FIELD_STRING},
    [VERSION_ORDINAL] = {"ordinal", FIELD_LONG},
};
static const struct field txn_fields[TXN_FIELDS] = {
    [TXN_STATUS] = {"status", FIELD_STRING}, [TXN_ID] = {"id", FIELD_STRING},
    [TXN_EPOCH] = {"epoch", FIELD_LONG},     [TXN_XID] = {"xid", FIELD_LONG},
    [TXN_COMMIT] = {"commit", FIELD_STRING}, [TXN_NEXT] = {"next", FIELD_STRING_OR_NULL},
    [TXN_TS_US] = {"ts_us", FIELD_MICROS},   [TXN_CHANGES] = {"changes", FIELD_LONG_OR_NULL},
};
static const struct field position_fields[POSITION_FIELDS] = {
    [POSITION_KIND] = {"kind", FIELD_STRING},
    [POSITION_NEXT] = {"next", FIELD_STRING},
    [POSITION_TOKEN] = {"token", FIELD_STRING_OR_NULL},
    [POSITION_TABLE] = {"table", FIELD_STRING_OR_NULL},
    [POSITION_REASON] = {"reason", FIELD_STRING_OR_NULL},
};

/* A record type by what it is called behind its parent's name. */
struct record_spec {
    const char *name;
    const struct field *fields;
    int n;
};
static const struct record_spec nested[] = {
    [FIELD_SOURCE] = {"Source", source_fields, SOURCE_FIELDS},
    [FIELD_TRANSACTION] = {"Transaction", transaction_fields, TRANSACTION_FIELDS},
    [FIELD_VERSION] = {"Version", version_fields, VERSION_FIELDS},
};
static const struct record_spec layouts[] = {
    [LAYOUT_TRANSACTION] = {"Transaction", txn_fields, TXN_FIELDS},
    [LAYOUT_POSITION] = {"Position", position_fields, POSITION_FIELDS},
    [LAYOUT_CHANGE] = {"Change", change_fields, CHANGE_FIELDS},
};
static const char *const identity_names[] = {
    [IDENTITY_KEY] = "key", [IDENTITY_FULL] = "full", [IDENTITY_NONE] = "none"};
static const char *const order_names[] = {
    [KEY_ORDER_SERVER] = "server", [KEY_ORDER_INT] = "int", [KEY_ORDER_BYTES] = "bytes"};

/* ---- writing ---- */

/* "lockstep.shop.public.orders", or with a nested type behind it; prefix: "lockstep.shop". */
static void full_name(struct buf *out, enum layout layout, const char *prefix,
                      const struct table *t, const char *inner)
{
    buf_adds(out, prefix);
    if (layout == LAYOUT_CHANGE) {
        buf_addc(out, '.');
        name_escape(out, t->schema);
        buf_addc(out, '.');
        name_escape(out, t->name);
    } else {
        buf_addf(out, ".%s", layouts[layout].name);
    }
    if (inner)
        buf_addf(out, ".%s", inner);
}

/* {"type":"record","name":…,"namespace":…}: the last dot parts the two. */
static json_t *named_record(const char *name)
{
    const char *dot = strrchr(name, '.');

    return json_pack("{s:s, s:s, s:s%}", "type", "record", "name", dot + 1, "namespace", name,
                     (size_t)(dot - name));
}

static json_t *logical(const char *type, const char *logical_type)
{
    return json_pack("{s:s, s:s}", "type", type, "logicalType", logical_type);
}

static json_t *natural_schema(const struct column *c)
{
    static const char *const plain[] = {
        [NATURAL_BOOLEAN] = "boolean", [NATURAL_INT] = "int",       [NATURAL_LONG] = "long",
        [NATURAL_FLOAT] = "float",     [NATURAL_DOUBLE] = "double", [NATURAL_BYTES] = "bytes",
    };
    enum natural_type type = natural_type_of(c);

    if (type == NATURAL_DECIMAL)
        return json_pack("{s:s, s:s, s:i, s:i}", "type", "bytes", "logicalType", "decimal",
                         "precision", c->precision, "scale", c->scale);
    switch (c->kind) {
    case TYPE_DATE:
        return logical("int", "date");
    case TYPE_TIME:
        return logical("long", "time-micros");
    case TYPE_TIMESTAMP:
        return logical("long", "local-timestamp-micros");
    case TYPE_TIMESTAMPTZ:
        return logical("long", "timestamp-micros");
    default:
        return json_string(plain[type]);
    }
}

static json_t *column_type(const struct column *c)
{
    json_t *branches = json_array();

    json_array_append_new(branches, json_string("null"));
    if (natural_type_of(c) != NATURAL_NONE)
        json_array_append_new(branches, natural_schema(c));
    json_array_append_new(branches,
                          c->kind == TYPE_UUID ? logical("string", "uuid") : json_string("string"));
    return branches;
}

static void set_flag(json_t *object, const char *name, bool on)
{
    if (on)
        json_object_set_new(object, name, json_true());
}

static void set_number(json_t *object, const char *name, int64_t value)
{
    if (value)
        json_object_set_new(object, name, json_integer(value));
}

static int set_text(json_t *object, const char *name, const char *value)
{
    return value ? json_object_set_new(object, name, json_string(value)) : 0;
}

static json_t *column_field(const struct column *c)
{
    struct buf name;
    json_t *field = json_object();
    int rc;

    buf_init(&name, BUF_MAX_TEXT);
    name_escape(&name, c->name);
    json_object_set_new(field, "name", json_string(name.data));
    json_object_set_new(field, "type", column_type(c));
    buf_release(&name);
    rc = set_text(field, "lockstep.column", c->name) |
         set_text(field, "lockstep.source_type", c->source_type) |
         set_text(field, "lockstep.cast_type", c->cast_type) |
         set_text(field, "lockstep.kind", type_kind_name(c->kind)) |
         set_text(field, "lockstep.order", order_names[c->order]);
    set_number(field, "lockstep.precision", c->precision);
    set_number(field, "lockstep.scale", c->scale);
    set_number(field, "lockstep.key", c->key);
    set_flag(field, "lockstep.array", c->array);
    set_flag(field, "lockstep.not_null", c->not_null);
    set_flag(field, "lockstep.generated", c->generated);
    set_flag(field, "lockstep.identity_always", c->identity_always);
    if (rc) {
        json_decref(field);
        return NULL;
    }
    return field;
}

/* NULL: a name is not UTF-8. */
static json_t *value_record(const char *name, const struct table *t)
{
    json_t *record = named_record(name);
    json_t *fields = json_array();

    json_object_set_new(record, "fields", fields);
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (json_array_append_new(fields, column_field(&t->columns[i])) < 0) {
            json_decref(record);
            return NULL;
        }
    }
    return record;
}

struct writing {
    enum layout layout;
    const char *prefix;
    const struct table *table;
    bool value_defined;
};

static json_t *fields_schema(struct writing *w, const struct field *fields, int n);

static json_t *row_type(struct writing *w)
{
    struct buf name;
    json_t *type;

    buf_init(&name, BUF_MAX_TEXT);
    full_name(&name, w->layout, w->prefix, w->table, "Value");
    type = w->value_defined ? json_string(name.data) : value_record(name.data, w->table);
    w->value_defined = true;
    buf_release(&name);
    return type ? json_pack("[s, o]", "null", type) : NULL;
}

static json_t *nested_type(struct writing *w, const struct record_spec *spec)
{
    struct buf name;
    json_t *record;

    buf_init(&name, BUF_MAX_TEXT);
    full_name(&name, w->layout, w->prefix, w->table, spec->name);
    record = named_record(name.data);
    json_object_set_new(record, "fields", fields_schema(w, spec->fields, spec->n));
    buf_release(&name);
    return record;
}

static json_t *field_schema(struct writing *w, enum field_type type)
{
    switch (type) {
    case FIELD_STRING:
        return json_string("string");
    case FIELD_LONG:
        return json_string("long");
    case FIELD_MICROS:
        return logical("long", "timestamp-micros");
    case FIELD_STRING_OR_NULL:
        return json_pack("[s, s]", "null", "string");
    case FIELD_LONG_OR_NULL:
        return json_pack("[s, s]", "null", "long");
    case FIELD_BOOLEAN_OR_NULL:
        return json_pack("[s, s]", "null", "boolean");
    case FIELD_NAMES:
        return json_pack("{s:s, s:s}", "type", "array", "items", "string");
    case FIELD_ROW:
        return row_type(w);
    default:
        return nested_type(w, &nested[type]);
    }
}

/* NULL: a name is not UTF-8. */
static json_t *fields_schema(struct writing *w, const struct field *fields, int n)
{
    json_t *array = json_array();

    for (int i = 0; i < n; i++) {
        json_t *type = field_schema(w, fields[i].type);

        if (!type) {
            json_decref(array);
            return NULL;
        }
        json_array_append_new(array, json_pack("{s:s, s:o}", "name", fields[i].name, "type", type));
    }
    return array;
}

static int table_properties(json_t *record, const struct table *t)
{
    json_object_set_new(record, "lockstep.format", json_integer(SCHEMA_FORMAT));
    json_object_set_new(record, "lockstep.id", json_integer(t->id));
    json_object_set_new(record, "lockstep.version", json_integer(t->version));
    return set_text(record, "lockstep.schema", t->schema) |
           set_text(record, "lockstep.table", t->name) |
           set_text(record, "lockstep.root", t->root) |
           set_text(record, "lockstep.identity", identity_names[t->identity]);
}

/* The whole schema, a new reference; NULL: a name is not UTF-8. */
static json_t *record_schema(enum layout layout, const char *prefix, const struct table *t,
                             struct err *e)
{
    struct writing w = {layout, prefix, t, false};
    struct buf full;
    json_t *record;
    json_t *fields = NULL;

    buf_init(&full, BUF_MAX_TEXT);
    full_name(&full, layout, prefix, t, NULL);
    record = named_record(full.data);
    buf_release(&full);
    if (!t || table_properties(record, t) == 0)
        fields = fields_schema(&w, layouts[layout].fields, layouts[layout].n);
    if (!fields) {
        err_set(e, ERR_DATA, "table %s: a name or type in it is not valid UTF-8", table_label(t));
        json_decref(record);
        return NULL;
    }
    json_object_set_new(record, "fields", fields);
    return record;
}

int schema_write(enum layout layout, const char *migration, const struct table *t,
                 struct schema_text *out, struct err *e)
{
    struct buf prefix;
    struct buf full;
    json_t *record;

    out->name = out->text = NULL;
    buf_init(&prefix, BUF_MAX_TEXT);
    buf_init(&full, BUF_MAX_TEXT);
    buf_adds(&prefix, "lockstep.");
    name_escape(&prefix, migration);
    full_name(&full, layout, prefix.data, t, NULL);
    record = record_schema(layout, prefix.data, t, e);
    if (record) {
        out->text = json_dumps(record, JSON_PRESERVE_ORDER | JSON_COMPACT);
        out->name = strdup(full.data);
        invariant(out->text && out->name);
    }
    json_decref(record);
    buf_release(&prefix);
    buf_release(&full);
    return out->text ? 0 : -1;
}

/* ---- reading ---- */

static int not_ours(struct err *e, const char *what)
{
    return err_set(e, ERR_FATAL, "a record's schema is not one that lockstep writes: %s", what);
}

/* The index of a property's text among names, or -1. */
static int lookup(const json_t *object, const char *property, const char *const *names, size_t n)
{
    const char *value = json_string_value(json_object_get(object, property));

    for (size_t i = 0; value && i < n; i++) {
        if (strcmp(value, names[i]) == 0)
            return (int)i;
    }
    return -1;
}

static char *get_text(struct arena *a, const json_t *object, const char *property)
{
    const char *value = json_string_value(json_object_get(object, property));

    return value ? arena_strdup(a, value) : NULL;
}

/* A number in 0..max; a missing one is 0. */
static int get_number(const json_t *object, const char *property, int64_t max, int64_t *out)
{
    const json_t *value = json_object_get(object, property);

    *out = json_integer_value(value);
    return (value && !json_is_integer(value)) || *out < 0 || *out > max ? -1 : 0;
}

static int read_column(struct arena *a, const json_t *field, size_t ncolumns, struct column *c)
{
    const char *kind = json_string_value(json_object_get(field, "lockstep.kind"));
    const json_t *scale = json_object_get(field, "lockstep.scale");
    int order = lookup(field, "lockstep.order", order_names, 3);
    int64_t precision;
    int64_t key;

    c->name = get_text(a, field, "lockstep.column");
    c->source_type = get_text(a, field, "lockstep.source_type");
    c->cast_type = get_text(a, field, "lockstep.cast_type");
    if (!c->name || !kind || type_kind_parse(kind) < 0 || order < 0 ||
        get_number(field, "lockstep.precision", INT32_MAX, &precision) < 0 ||
        get_number(field, "lockstep.key", (int64_t)ncolumns, &key) < 0)
        return -1;
    if (json_integer_value(scale) < INT32_MIN || json_integer_value(scale) > INT32_MAX)
        return -1;
    c->kind = (enum type_kind)type_kind_parse(kind);
    c->order = (enum key_order)order;
    c->precision = (int)precision;
    c->scale = (int)json_integer_value(scale);
    c->key = (int)key;
    c->array = json_is_true(json_object_get(field, "lockstep.array"));
    c->not_null = json_is_true(json_object_get(field, "lockstep.not_null"));
    c->generated = json_is_true(json_object_get(field, "lockstep.generated"));
    c->identity_always = json_is_true(json_object_get(field, "lockstep.identity_always"));
    return 0;
}

static bool columns_distinct(const struct table *t)
{
    json_t *names = json_object();
    size_t n;

    for (size_t i = 0; i < t->ncolumns; i++)
        json_object_set_new(names, t->columns[i].name, json_true());
    n = json_object_size(names);
    json_decref(names);
    return n == t->ncolumns;
}

/* The columns' places in the key must be 1..nkey, each once. */
static int read_key(struct arena *a, struct table *t)
{
    for (size_t i = 0; i < t->ncolumns; i++)
        t->nkey += t->columns[i].key > 0;
    t->key = arena_alloc(a, (t->nkey ? t->nkey : 1) * sizeof(*t->key));
    for (size_t place = 0; place < t->nkey; place++) {
        size_t found = t->ncolumns;

        for (size_t i = 0; i < t->ncolumns; i++) {
            if (t->columns[i].key == (int)place + 1)
                found = i;
        }
        if (found == t->ncolumns)
            return -1;
        t->key[place] = found;
    }
    return 0;
}

static int read_table(struct arena *a, const json_t *record, struct table *t, struct err *e)
{
    const json_t *before = json_array_get(json_object_get(record, "fields"), CHANGE_BEFORE);
    const json_t *value = json_array_get(json_object_get(before, "type"), 1);
    const json_t *columns = json_object_get(value, "fields");
    int identity = lookup(record, "lockstep.identity", identity_names, 3);
    int64_t id;
    int64_t version;

    t->schema = get_text(a, record, "lockstep.schema");
    t->name = get_text(a, record, "lockstep.table");
    t->root = get_text(a, record, "lockstep.root");
    if (!t->schema || !t->name || identity < 0 ||
        get_number(record, "lockstep.id", UINT32_MAX, &id) < 0 ||
        get_number(record, "lockstep.version", UINT32_MAX, &version) < 0)
        return not_ours(e, "the table's properties are missing or wrong");
    t->id = (uint32_t)id;
    t->version = (uint32_t)version;
    t->identity = (enum replica_identity)identity;
    t->ncolumns = json_array_size(columns);
    t->columns = arena_zalloc(a, (t->ncolumns ? t->ncolumns : 1) * sizeof(*t->columns));
    for (size_t i = 0; i < t->ncolumns; i++) {
        if (read_column(a, json_array_get(columns, i), t->ncolumns, &t->columns[i]) < 0)
            return not_ours(e, "a column's properties are missing or wrong");
    }
    if (!columns_distinct(t))
        return not_ours(e, "two columns have one name");
    if (read_key(a, t) < 0)
        return not_ours(e, "the places of the key's columns do not count from 1");
    return 0;
}

static int read_layout(const json_t *record, struct arena *a, enum layout *layout,
                       struct table **table, struct err *e)
{
    const char *name = json_string_value(json_object_get(record, "name"));
    int64_t format;

    if (!name)
        return not_ours(e, "no JSON object with a name");
    if (!json_object_get(record, "lockstep.table")) {
        *layout = strcmp(name, "Position") == 0 ? LAYOUT_POSITION : LAYOUT_TRANSACTION;
        return 0;
    }
    if (get_number(record, "lockstep.format", INT32_MAX, &format) < 0 || format != SCHEMA_FORMAT)
        return err_set(e, ERR_FATAL,
                       "a record's schema has format %" PRId64 "; this lockstep reads format %d",
                       format, SCHEMA_FORMAT);
    *layout = LAYOUT_CHANGE;
    *table = arena_zalloc(a, sizeof(**table));
    return read_table(a, record, *table, e);
}

/* "lockstep.<migration>" of the record's namespace, as it stands there. */
static char *read_prefix(struct arena *a, const json_t *record)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    static const char root[] = "lockstep.";
    const char *space = json_string_value(json_object_get(record, "namespace"));
    size_t len;

    if (!space || strncmp(space, root, sizeof(root) - 1) != 0)
        return NULL;
    len = strcspn(space + sizeof(root) - 1, ".");
    if (len == 0 || strspn(space + sizeof(root) - 1, allowed) < len ||
        (space[sizeof(root) - 1] >= '0' && space[sizeof(root) - 1] <= '9'))
        return NULL;
    return arena_strndup(a, space, sizeof(root) - 1 + len);
}

int schema_read(const char *text, struct arena *a, enum layout *layout, struct table **table,
                struct err *e)
{
    json_t *record = json_loads(text, 0, NULL);
    json_t *ours = NULL;
    char *prefix = read_prefix(a, record);
    int rc = -1;

    *table = NULL;
    if (read_layout(record, a, layout, table, e) < 0)
        goto out;
    if (prefix)
        ours = record_schema(*layout, prefix, *table, e);
    if (!ours || !json_equal(ours, record)) {
        not_ours(e, "its fields or properties are other ones");
        goto out;
    }
    rc = 0;
out:
    json_decref(ours);
    json_decref(record);
    return rc;
}
