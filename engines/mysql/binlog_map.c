/* TABLE_MAP (MySQL source, libs/mysql/binlog/event/rows_event.h: Table_map_event, with the optional
 * metadata's fields; MariaDB 10.5+ writes the same). The server's own limit of columns is 4096. */
#include "engines/mysql/binlog_map.h"

#include "engines/mysql/binlog_bytes.h"

#include <string.h>

#define COLUMNS_MAX 4096
#define LABELS_MAX 65536

enum metadata_field {
    FIELD_SIGNEDNESS = 1,
    FIELD_DEFAULT_CHARSET = 2,
    FIELD_COLUMN_CHARSET = 3,
    FIELD_COLUMN_NAME = 4,
    FIELD_ENUM_LABELS = 6,
    FIELD_ENUM_DEFAULT_CHARSET = 10,
    FIELD_ENUM_CHARSET = 11
};

/* ---- collations ---- */

/* By the numbers of information_schema.collations; MariaDB's NOPAD ones are 1024 higher. */
static const struct {
    uint32_t from;
    uint32_t to;
    enum binlog_charset charset;
} collations[] = {
    {11, 11, CHARSET_UTF8},     {33, 33, CHARSET_UTF8},   {45, 46, CHARSET_UTF8},
    {63, 63, CHARSET_BINARY},   {65, 65, CHARSET_UTF8},   {76, 76, CHARSET_UTF8},
    {83, 83, CHARSET_UTF8},     {192, 223, CHARSET_UTF8}, {224, 247, CHARSET_UTF8},
    {255, 323, CHARSET_UTF8},   {576, 578, CHARSET_UTF8}, {608, 610, CHARSET_UTF8},
    {2048, 2559, CHARSET_UTF8},
};

enum binlog_charset binlog_charset_of(uint32_t collation)
{
    uint32_t n = collation >= 1024 && collation < 2048 ? collation - 1024 : collation;

    if (collation == 0)
        return CHARSET_UNTOLD;
    for (size_t i = 0; i < sizeof(collations) / sizeof(collations[0]); i++) {
        if (n >= collations[i].from && n <= collations[i].to)
            return collations[i].charset;
    }
    return CHARSET_FOREIGN;
}

/* ---- types ---- */

static size_t meta_size(uint8_t type)
{
    switch (type) {
    case BT_FLOAT:
    case BT_DOUBLE:
    case BT_BLOB:
    case BT_GEOMETRY:
    case BT_JSON:
    case BT_VECTOR:
    case BT_TIMESTAMP2:
    case BT_DATETIME2:
    case BT_TIME2:
    case BT_BLOB_COMPRESSED:
        return 1;
    case BT_VARCHAR:
    case BT_VARCHAR_COMPRESSED:
    case BT_BIT:
    case BT_NEWDECIMAL:
    case BT_STRING:
    case BT_VAR_STRING:
    case BT_ENUM:
    case BT_SET:
        return 2;
    default:
        return 0;
    }
}

/* STRING stands for ENUM and SET too, and hides the high bits of its length in its type. */
static void take_string_meta(struct binlog_column *c, uint8_t type, uint8_t low)
{
    c->meta = low;
    if ((type & 0x30) != 0x30) {
        c->meta = (uint16_t)(low | ((type & 0x30) ^ 0x30) << 4);
        type |= 0x30;
    }
    c->type = type;
}

static void take_meta(struct binlog_column *c, struct reader *r)
{
    size_t n = meta_size(c->type);
    uint8_t first;
    uint8_t second;

    if (n == 0)
        return;
    first = reader_u8(r);
    second = n == 2 ? reader_u8(r) : 0;
    c->meta = (uint16_t)(first | second << 8);
    if (c->type == BT_STRING || c->type == BT_ENUM || c->type == BT_SET)
        take_string_meta(c, first, second);
    if (c->type == BT_NEWDECIMAL) {
        c->digits = first;
        c->scale = second;
    }
}

static bool is_numeric(const struct binlog_column *c)
{
    switch (c->type) {
    case BT_TINY:
    case BT_SHORT:
    case BT_INT24:
    case BT_LONG:
    case BT_LONGLONG:
    case BT_NEWDECIMAL:
    case BT_FLOAT:
    case BT_DOUBLE:
        return true;
    default:
        return false;
    }
}

static bool is_text(const struct binlog_column *c)
{
    return c->type == BT_STRING || c->type == BT_VAR_STRING || c->type == BT_VARCHAR ||
           c->type == BT_BLOB || c->type == BT_VARCHAR_COMPRESSED || c->type == BT_BLOB_COMPRESSED;
}

static bool is_label(const struct binlog_column *c)
{
    return c->type == BT_ENUM || c->type == BT_SET;
}

/* ---- optional metadata ---- */

static void take_signedness(struct binlog_map *m, struct reader *r)
{
    size_t k = 0;
    uint8_t bits = 0;

    for (size_t i = 0; i < m->n; i++) {
        if (!is_numeric(&m->columns[i]))
            continue;
        if (k % 8 == 0)
            bits = reader_u8(r);
        m->columns[i].is_unsigned = bits & 0x80 >> k % 8;
        k++;
    }
}

/* One number for all, and pairs (place among these columns, number) for the others. */
static void take_default_charset(struct binlog_map *m, struct reader *r,
                                 bool (*mine)(const struct binlog_column *c))
{
    uint32_t usual = (uint32_t)binlog_packed(r);
    uint64_t next = reader_left(r) ? binlog_packed(r) : UINT64_MAX;
    uint64_t k = 0;

    for (size_t i = 0; i < m->n; i++) {
        if (!mine(&m->columns[i]))
            continue;
        m->columns[i].collation = usual;
        if (k++ != next)
            continue;
        m->columns[i].collation = (uint32_t)binlog_packed(r);
        next = reader_left(r) ? binlog_packed(r) : UINT64_MAX;
    }
}

static void take_charsets(struct binlog_map *m, struct reader *r,
                          bool (*mine)(const struct binlog_column *c))
{
    for (size_t i = 0; i < m->n; i++) {
        if (mine(&m->columns[i]))
            m->columns[i].collation = (uint32_t)binlog_packed(r);
    }
}

static void take_names(struct arena *a, struct binlog_map *m, struct reader *r)
{
    for (size_t i = 0; i < m->n; i++) {
        size_t len;
        const char *name = binlog_string(r, &len);

        if (!name)
            return;
        m->columns[i].name = arena_strndup(a, name, len);
    }
}

static void take_labels(struct arena *a, struct binlog_map *m, struct reader *r)
{
    for (size_t i = 0; i < m->n; i++) {
        struct binlog_column *c = &m->columns[i];
        uint64_t n;

        if (c->type != BT_ENUM)
            continue;
        n = binlog_packed(r);
        if (n > LABELS_MAX || n > reader_left(r)) {
            r->bad = true;
            return;
        }
        c->labels = arena_zalloc(a, ((size_t)n + 1) * sizeof(*c->labels));
        c->nlabels = (size_t)n;
        for (size_t k = 0; k < n; k++) {
            struct binlog_label *l = &c->labels[k];
            const char *text = binlog_string(r, &l->len);

            if (!text)
                return;
            l->text = arena_strndup(a, text, l->len);
        }
    }
}

static void take_field(struct arena *a, struct binlog_map *m, uint8_t field, struct reader *r)
{
    switch (field) {
    case FIELD_SIGNEDNESS:
        take_signedness(m, r);
        break;
    case FIELD_DEFAULT_CHARSET:
        take_default_charset(m, r, is_text);
        break;
    case FIELD_COLUMN_CHARSET:
        take_charsets(m, r, is_text);
        break;
    case FIELD_COLUMN_NAME:
        take_names(a, m, r);
        break;
    case FIELD_ENUM_LABELS:
        take_labels(a, m, r);
        break;
    case FIELD_ENUM_DEFAULT_CHARSET:
        take_default_charset(m, r, is_label);
        break;
    case FIELD_ENUM_CHARSET:
        take_charsets(m, r, is_label);
        break;
    default: /* keys, visibility, geometry: nothing that a value's bytes depend on */
        break;
    }
}

static void take_optional(struct arena *a, struct binlog_map *m, struct reader *r)
{
    while (!r->bad && reader_left(r) > 0) {
        uint8_t field = reader_u8(r);
        size_t len;
        const char *data = binlog_string(r, &len);
        struct reader part;

        if (!data)
            return;
        reader_init(&part, data, len);
        take_field(a, m, field, &part);
        r->bad |= part.bad;
    }
}

/* ---- the event ---- */

static void take_head(struct reader *r, const char **schema, const char **name)
{
    reader_bytes(r, 2); /* flags */
    reader_u8(r);       /* the name's length: it ends with a NUL as well */
    *schema = reader_cstr(r);
    reader_u8(r);
    *name = reader_cstr(r);
}

static int truncated(struct err *e)
{
    return err_set(e, ERR_FATAL, "the binlog has a TABLE_MAP that does not follow the format");
}

int binlog_map_names(const uint8_t *data, size_t len, const char **schema, const char **name,
                     struct err *e)
{
    struct reader r;

    reader_init(&r, data, len);
    take_head(&r, schema, name);
    return r.bad || !*schema || !*name ? truncated(e) : 0;
}

int binlog_map_parse(struct arena *a, const uint8_t *data, size_t len, struct binlog_map *out,
                     struct err *e)
{
    struct reader r;
    struct reader meta;
    const uint8_t *types;
    const char *block;
    size_t block_len;
    uint64_t n;

    memset(out, 0, sizeof(*out));
    reader_init(&r, data, len);
    take_head(&r, &out->schema, &out->name);
    n = binlog_packed(&r);
    if (r.bad || !out->schema || !out->name || n > COLUMNS_MAX)
        return truncated(e);
    types = reader_bytes(&r, (size_t)n);
    block = binlog_string(&r, &block_len);
    reader_bytes(&r, ((size_t)n + 7) / 8); /* which may be NULL */
    if (r.bad)
        return truncated(e);
    out->schema = arena_strdup(a, out->schema);
    out->name = arena_strdup(a, out->name);
    out->n = (size_t)n;
    out->columns = arena_zalloc(a, (out->n + 1) * sizeof(*out->columns));
    reader_init(&meta, block, block_len);
    for (size_t i = 0; i < out->n; i++) {
        out->columns[i].type = types[i];
        take_meta(&out->columns[i], &meta);
    }
    take_optional(a, out, &r);
    if (r.bad || meta.bad || reader_left(&meta) > 0)
        return truncated(e);
    return 0;
}
